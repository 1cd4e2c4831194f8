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
	"errors"
	"fmt"

	"chrysalis/measure/ton"
	"chrysalis/runtime/chain"
	"chrysalis/runtime/internal/journal"
	"chrysalis/runtime/receipt"
	"chrysalis/runtime/settle"
)

// Keeper answers requests. Run owns ledger and journal.
type Keeper struct {
	ledger   *ledger
	journal  *journal.Journal
	items    int // bytes of items in a checkpoint
	batch    int // records that share one write
	calls    chan call
	proven   chan proven // what the chain says, which has a write of its own
	stopped  chan struct{}
	err      error // why Run ended; read after stopped is closed
	reserved int   // places taken and not yet used, owned by Run
}

type operation uint8

const (
	opReserve operation = 1 // take a place, so that an answer to that client can be recorded
	opRecord  operation = 2 // record an answer with the caller's place, and take the next one if there is one
	opVouch   operation = 4 // sign the hash of a recorded answer's body, which stands where a record has that of its text
	opCount   operation = 5 // say how full the journal is; the caller has no place for it, and keeps what it has
	opRelease operation = 3 // give the place back; never on the wire: a connection gives its place back by its end
	opExport  operation = 6 // hand out the next proof for the host; never on the wire
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
	Bytes     uint64 // of the disk
	Receipts  uint64 // since it began
	Contracts uint64 // the same; answers that nobody pays for are one
	Left      uint64 // contracts that there is room for beside those
	Waiting   uint64 // contracts of which the host has not got the newest proof
}

type status uint8

const (
	statusOK      status = 0
	statusFull    status = 1 // the journal has no room for another contract
	statusRefused status = 2 // the record can't be right
	statusFailed  status = 3 // the disk failed: it is not known whether the record is there
)

// maxBatch is how many records share one write at most; on a small disk fewer do.
const maxBatch = 256

// Open opens the journal on dev and rebuilds the ledger. boots is how many boots were completed, by the guest's counter.
func Open(dev journal.Device, key [32]byte, boots uint64, terms Terms) (*Keeper, error) {
	k := &Keeper{ledger: newLedger(terms), calls: make(chan call), proven: make(chan proven), stopped: make(chan struct{})}
	var err error
	if k.journal, err = journal.Open(dev, key, boots, k.ledger); err != nil {
		return nil, err
	}
	k.items = maxItems(k.journal)
	if terms.Settle != nil {
		if err := k.ledger.settled.under(*terms.Settle); err != nil {
			return nil, fmt.Errorf("opening the settled book: %w", err)
		}
	}
	k.batch = min(maxBatch, k.journal.MaxEntries()/journal.EntryPayload(paidEntry))
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
		case p := <-k.proven:
			if err := k.follow(p); err != nil {
				k.err = err
				return err
			}
		}
	}
}

// gather takes every call that waits already, up to a batch. While a batch is written, the next one gathers by itself.
func (k *Keeper) gather(first call) []call {
	batch := []call{first}
	for len(batch) < k.batch {
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
	var recorded []int // which of the batch they are
	for i, c := range batch {
		switch c.op {
		case opReserve:
			if replies[i].place = k.take(c.record.Client); !replies[i].place {
				replies[i].status = statusFull
			}
		case opRelease:
			k.reserved--
		case opCount:
			contracts := len(k.ledger.contracts)
			replies[i].counts = Counts{Bytes: uint64(k.journal.Size()), Receipts: k.ledger.next, Contracts: uint64(contracts),
				Left: uint64(max(0, k.most()-contracts)), Waiting: uint64(len(k.ledger.exports.waiting))}
			replies[i].place = c.place
		case opExport:
			var err error
			if replies[i].proof, err = k.ledger.export(k.journal); err != nil {
				replies[i].status = statusFailed
			}
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
			case !k.room(c.record.Client, 0):
				replies[i].status = statusFull
			default:
				proof, err := k.ledger.sign(c.record)
				if err != nil {
					replies[i].status = statusRefused
					break
				}
				replies[i].proof = proof
				entries, recorded = append(entries, entryOf(c.record.ID, proof)), append(recorded, i)
			}
			// The next answer may be anybody's; where there is no room for just anybody, the connection has to ask for somebody.
			replies[i].place = k.take(ton.Address{})
		}
	}
	var failed error
	var places []journal.Place
	if len(entries) > 0 {
		places, failed = k.journal.Commit(entries...)
	}
	for n, i := range recorded {
		if failed == nil {
			k.ledger.durable(batch[i].record.Client, replies[i].proof, places[n])
		}
	}
	for i, c := range batch {
		if failed != nil {
			replies[i] = reply{status: statusFailed} // nothing counts any more
		}
		c.reply <- replies[i]
	}
	if failed != nil {
		return fmt.Errorf("recording %d answers: %w", len(entries), failed)
	}
	return nil
}

// take takes a place for an answer to a client, if it could be recorded after those that hold one.
func (k *Keeper) take(client ton.Address) bool {
	if !k.room(client, k.reserved) {
		return false
	}
	k.reserved++
	return true
}

// room reports whether an answer to a client could be recorded if so many others came to be of new contracts. There is always room for one
// more answer to a contract that is known.
func (k *Keeper) room(client ton.Address, others int) bool {
	_, known := k.ledger.index[client]
	return known || len(k.ledger.contracts)+others < k.most()
}

// most returns how many contracts there is room for beside the book's clients, for whom half is kept where answers are paid on chain.
func (k *Keeper) most() int {
	book := len(k.ledger.settled.rounds) * settle.ItemBytes
	if k.ledger.terms.Settle != nil {
		book = max(book, k.items/2)
	}
	return (k.items - book) / itemBytes
}

// proven is what a follower of the chain has proven: a head, and transactions of the proxy's that come after those in the book.
type proven struct {
	head  chain.Head
	txs   []chain.Transaction
	reply chan error
}

// errBookFull says that the proxy has more clients than the journal has room for.
var errBookFull = errors.New("the journal has no room for more of the proxy's clients")

// follow makes what was proven durable. Its error is the disk's; the follower gets the others'.
func (k *Keeper) follow(p proven) error {
	s := &k.ledger.settled
	if (len(s.rounds)+len(p.txs))*settle.ItemBytes > k.items/2 {
		p.reply <- errBookFull
		return nil
	}
	entry, refused := s.advance(p.head, p.txs)
	if entry != nil {
		if _, err := k.journal.Commit(entry); err != nil {
			p.reply <- ErrUnknown
			return fmt.Errorf("recording what the chain proves: %w", err)
		}
	}
	p.reply <- refused
	return nil
}

// prove has Run make what was proven durable, and the state that the rules ask.
func (k *Keeper) prove(head chain.Head, txs []chain.Transaction) error {
	p := proven{head, txs, make(chan error, 1)}
	select {
	case k.proven <- p:
		return <-p.reply
	case <-k.stopped:
		return ErrUnknown
	}
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
