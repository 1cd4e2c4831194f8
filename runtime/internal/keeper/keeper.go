// Package keeper owns the keys that sign and the journal that counts. It runs in a process without network and answers
// typed requests over a Unix socket: take a place for an answer, then record what it used. Of an answer that it has
// recorded it signs the hash of its body as well. It signs nothing else.
//
// One goroutine owns the ledger. It gathers the requests that wait, makes them durable by one write, and only then hands
// out a receipt or a charge. A request carries an id; the same id again gets the same answer and is counted once.
//
// What this package does not promise: that the gateway counts tokens well, or that a client is who it says. It bounds a
// lying gateway by the measured limits of one answer, and a count can only rise.
package keeper

import (
	"context"
	"fmt"

	"chrysalis/runtime/internal/journal"
	"chrysalis/runtime/receipt"
)

// Keeper answers requests. Run owns ledger and journal.
type Keeper struct {
	ledger   *ledger
	exports  *exports
	journal  *journal.Journal
	calls    chan call
	stopped  chan struct{}
	err      error // why Run ended; read after stopped is closed
	reserved int   // places taken and not yet used, owned by Run
}

type operation uint8

const (
	opReserve operation = 1 // take a place, so that the answer that follows can be recorded
	opRecord  operation = 2 // record an answer with the caller's place, and take the next one if there is one
	opVouch   operation = 4 // sign the hash of a recorded answer's body, which stands where a record has that of its text
	opCount   operation = 5 // say how full the journal is; the caller has no place for it, and keeps what it has
	opRelease operation = 3 // give the place back; never on the wire: a connection gives its place back by its end
)

type call struct {
	op     operation
	record receipt.Answer
	place  bool // opRecord: the caller holds a place
	reply  chan reply
}

type reply struct {
	status status
	proof  receipt.Proof
	text   receipt.TextSignature // opVouch
	place  bool                  // the caller holds a place now
	counts Counts                // opCount
}

// Counts are how full the journal is, and what it has.
type Counts struct {
	Bytes, Left uint64 // of the disk
	Receipts    uint64 // since it began
	Contracts   uint64 // the same; answers that nobody pays for are one
}

type status uint8

const (
	statusOK      status = 0
	statusFull    status = 1 // the journal has no room for another answer
	statusRefused status = 2 // the record can't be right
	statusFailed  status = 3 // the disk failed: it is not known whether the record is there
)

// maxBatch is how many records share one write at most.
const maxBatch = 256

// Open opens the journal on dev and rebuilds the ledger. boots is how many boots were completed, by the guest's counter.
func Open(dev journal.Device, key [32]byte, boots uint64, terms Terms) (*Keeper, error) {
	k := &Keeper{ledger: newLedger(terms), exports: newExports(), calls: make(chan call), stopped: make(chan struct{})}
	var err error
	replay := func(entry []byte) error {
		contract, proof, err := k.ledger.replay(entry)
		if err == nil {
			k.exports.add(contract, proof)
		}
		return err
	}
	if k.journal, err = journal.Open(dev, key, boots, replay); err != nil {
		return nil, err
	}
	return k, nil
}

// Run answers calls until ctx ends or the disk fails. It must be running for Serve to be of use.
func (k *Keeper) Run(ctx context.Context) error {
	defer close(k.stopped)
	for {
		select {
		case <-ctx.Done():
			k.err = ctx.Err()
			return k.err
		case first := <-k.calls:
			if err := k.answer(k.gather(first)); err != nil {
				k.err = err
				return err
			}
		}
	}
}

// gather takes every call that waits already, up to a batch. While a batch is written, the next one gathers by itself.
func (k *Keeper) gather(first call) []call {
	batch := []call{first}
	for len(batch) < maxBatch {
		select {
		case c := <-k.calls:
			batch = append(batch, c)
		default:
			return batch
		}
	}
	return batch
}

// answer makes the records of a batch durable and then replies to all of it.
func (k *Keeper) answer(batch []call) error {
	replies := make([]reply, len(batch))
	var entries [][]byte
	payload := 0
	for i, c := range batch {
		switch c.op {
		case opReserve:
			if replies[i].place = k.take(len(entries)); !replies[i].place {
				replies[i].status = statusFull
			}
		case opRelease:
			k.reserved--
		case opCount:
			replies[i].counts = Counts{Bytes: uint64(k.journal.Size()), Left: uint64(k.journal.Left()), Receipts: k.ledger.next, Contracts: uint64(len(k.ledger.counts))}
			replies[i].place = c.place
		case opVouch:
			var err error
			if replies[i].text, err = k.ledger.vouch(c.record.ID, c.record.Response); err != nil {
				replies[i].status = statusRefused
			}
			replies[i].place = c.place
		case opRecord:
			if c.place {
				k.reserved--
			}
			proof, known, err := k.ledger.known(c.record)
			switch {
			case err != nil:
				replies[i].status = statusRefused
			case known:
				replies[i].proof = proof
			case !k.journal.Room(payload + journal.EntryPayload(paidEntry)):
				replies[i].status = statusFull
			default:
				proof, err := k.ledger.sign(c.record)
				if err != nil {
					replies[i].status = statusRefused
					break
				}
				replies[i].proof = proof
				entry := entryOf(c.record.ID, proof)
				entries = append(entries, entry)
				payload += journal.EntryPayload(len(entry))
			}
			replies[i].place = k.take(len(entries))
		}
	}
	var failed error
	if len(entries) > 0 {
		failed = k.journal.Commit(entries...)
	}
	for i, c := range batch {
		switch {
		case failed != nil:
			replies[i] = reply{status: statusFailed} // nothing counts any more
		case replies[i].proof.Charge != nil:
			k.exports.add(c.record.Client, replies[i].proof)
		}
		c.reply <- replies[i]
	}
	if failed != nil {
		return fmt.Errorf("recording %d answers: %w", len(entries), failed)
	}
	return nil
}

// take takes a place if one more answer could be recorded after those that hold one and those that wait to be written,
// if each of them were written alone.
func (k *Keeper) take(waiting int) bool {
	each := journal.Cost(journal.EntryPayload(paidEntry))
	if k.journal.Left() < int64(k.reserved+waiting+1)*each {
		return false
	}
	k.reserved++
	return true
}

func (k *Keeper) ask(c call) reply {
	c.reply = make(chan reply, 1)
	select {
	case k.calls <- c:
		return <-c.reply
	case <-k.stopped:
		return reply{status: statusFailed}
	}
}
