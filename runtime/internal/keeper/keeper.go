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
	"time"

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
	keyed    chan keying // what clients say of their keys, in the same way
	stopped  chan struct{}
	now      func() time.Time // the guest's clock, which is the host's
	err      error            // why Run ended; read after stopped is closed
	reserved int              // places taken and not yet used, owned by Run
}

type operation uint8

const (
	opReserve operation = 1 // take a place, so that an answer to that client can be recorded
	opRecord  operation = 2 // record an answer with the caller's place, and take the next one if there is one
	opVouch   operation = 4 // sign the hash of a recorded answer's body, which stands where a record has that of its text
	opCount   operation = 5 // say how full the journal is; the caller has no place for it, and keeps what it has
	opKey     operation = 7 // make a key of a client's, or revoke one; the caller keeps what it has
	opRelease operation = 3 // give the place back; never on the wire: a connection gives its place back by its end
	opExport  operation = 6 // hand out the next proof for the host; never on the wire
)

type call struct {
	op     operation
	record receipt.Answer // opReserve on chain: of whom, with the hash of whose secret in Request, and at most what in Usage
	place  bool           // opRecord: the caller holds a place
	held   hold           // what it is held for, where charges are settled on chain
	reply  chan reply
}

type reply struct {
	status status
	proof  receipt.Proof
	text   receipt.TextSignature // opVouch
	place  bool                  // the caller holds a place now
	held   hold                  // for what, where charges are settled on chain
	used   uint64                // opKey: weighted tokens that the key has used
	claim  []byte                // opExport: a signed message that goes with no receipt
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
	statusKey     status = 4 // on chain: no such contract, or not its client's secret
	statusFunds   status = 5 // on chain: the deposit does not cover the request
	statusChain   status = 6 // on chain: nothing is proven that is new enough
)

// maxBatch is how many records share one write at most; on a small disk fewer do.
const maxBatch = 256

// Open opens the journal on dev and rebuilds the ledger. boots is how many boots were completed, by the guest's counter.
func Open(dev journal.Device, key [32]byte, boots uint64, terms Terms) (*Keeper, error) {
	k := &Keeper{ledger: newLedger(terms), calls: make(chan call), proven: make(chan proven), keyed: make(chan keying), stopped: make(chan struct{}), now: time.Now}
	var err error
	if k.journal, err = journal.Open(dev, key, boots, k.ledger); err != nil {
		return nil, err
	}
	k.items = maxItems(k.journal)
	if terms.Settling != nil {
		if err := k.ledger.settled.under(terms.Settling.Terms); err != nil {
			return nil, fmt.Errorf("opening the settled book: %w", err)
		}
	}
	k.batch = min(maxBatch, k.journal.MaxEntries()/journal.EntryPayload(paidEntry+keyedEntryTail))
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
		case w := <-k.keyed:
			if err := k.setKey(w); err != nil {
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
			replies[i] = k.reserve(c.record)
		case opRelease:
			k.reserved--
			k.ledger.release(c.held)
		case opCount:
			contracts := len(k.ledger.contracts)
			replies[i].counts = Counts{Bytes: uint64(k.journal.Size()), Receipts: k.ledger.next, Contracts: uint64(contracts),
				Left: uint64(max(0, k.most()-contracts)), Waiting: uint64(len(k.ledger.exports.waiting))}
			replies[i].place, replies[i].held = c.place, c.held
		case opExport:
			var err error
			if replies[i].claim = k.ledger.settling.claims.next(); replies[i].claim != nil {
				break
			}
			if replies[i].proof, err = k.ledger.export(k.journal); err != nil {
				replies[i].status = statusFailed
			}
		case opVouch:
			var err error
			if replies[i].text, err = k.ledger.vouch(c.record.ID, c.record.Response); err != nil {
				replies[i].status = statusRefused
			}
			replies[i].place, replies[i].held = c.place, c.held
		case opRecord:
			if c.place {
				k.reserved--
				k.ledger.release(c.held)
			}
			proof, known, err := k.ledger.known(c.record)
			switch {
			case err != nil:
				replies[i].status = statusRefused
			case known:
				replies[i].proof = proof
			case !k.holds(c):
				replies[i].status = statusRefused
			case !k.room(c.record.Client, 0):
				replies[i].status = statusFull
			default:
				proof, err := k.ledger.sign(c.record, c.held.key)
				if err != nil {
					replies[i].status = statusRefused
					break
				}
				replies[i].proof = proof
				entries, recorded = append(entries, append(entryOf(c.record.ID, proof), k.ledger.keys.tail(c.held.key)...)), append(recorded, i)
			}
			// The next answer may be anybody's; where there is no room for just anybody, the connection has to ask for somebody.
			if k.ledger.terms.Settling == nil {
				replies[i].place = k.take(ton.Address{})
			}
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

// reserve takes a place, which is for one client's answer where charges are settled on chain, and for anybody's otherwise.
func (k *Keeper) reserve(r receipt.Answer) (out reply) {
	if k.ledger.terms.Settling != nil {
		var err error
		out.held, err = k.ledger.serve(r.Client, r.Request, r.Usage, r.Coefficient, k.now())
		switch {
		case errors.Is(err, ErrKey):
			return reply{status: statusKey}
		case errors.Is(err, ErrFunds):
			return reply{status: statusFunds}
		case errors.Is(err, errRefused):
			return reply{status: statusRefused}
		case err != nil:
			return reply{status: statusChain}
		}
	}
	if out.place = k.take(r.Client); !out.place {
		k.ledger.release(out.held)
		return reply{status: statusFull}
	}
	return out
}

// holds reports whether an answer is one that its place was taken for.
func (k *Keeper) holds(c call) bool {
	if k.ledger.terms.Settling == nil {
		return true
	}
	weighted, err := c.record.Usage.Charged(k.ledger.terms.Price, c.record.Coefficient)
	return err == nil && c.record.Client == c.held.client && c.record.Coefficient == c.held.coefficient && weighted <= c.held.worst
}

// room reports whether an answer to a client could be recorded if so many others came to be of new contracts. There is always room for one
// more answer to a contract that is known.
func (k *Keeper) room(client ton.Address, others int) bool {
	_, known := k.ledger.index[client]
	return known || len(k.ledger.contracts)+others < k.most()
}

// most returns how many contracts there is room for beside the book's clients, for whom half is kept where answers are paid on chain.
func (k *Keeper) most() int {
	return (k.items - k.bookBytes() - len(k.ledger.keys.list)*keyBytes) / itemBytes
}

// proven is what a follower of the chain has proven: a head, and transactions of the proxy's that come after those in the book.
type proven struct {
	head  chain.Head
	txs   []chain.Transaction
	view  *settle.View // of the head, once all transactions up to it were told
	ends  bool         // with the view: the host asks for the end of the contracts
	reply chan error
}

// errBookFull says that the proxy has more clients than the journal has room for.
var errBookFull = errors.New("the journal has no room for more of the proxy's clients")

// follow makes what was proven durable. Its error is the disk's; the follower gets the others'.
func (k *Keeper) follow(p proven) error {
	s := &k.ledger.settled
	if p.view != nil {
		p.reply <- k.look(p)
		return nil
	}
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

// look makes what a head has of the guest's contracts what clients are served and messages are signed by.
func (k *Keeper) look(p proven) error {
	l := k.ledger
	if err := l.settled.head.Behind(p.head); err != nil {
		return err
	}
	if l.settled.fresh != nil || l.settled.book.Mark != p.view.Last {
		return fmt.Errorf("view of transaction %d, want of %d, which is the journal's newest", p.view.Last.LT, l.settled.book.Mark.LT)
	}
	if l.settling.seen {
		if err := l.settling.head.Behind(p.head); err != nil {
			return err
		}
	}
	l.settling.sight, l.settling.ends = sight{p.head, *p.view, true}, p.ends
	if err := p.head.Fresh(k.now(), l.terms.Settling.MaxAge); err != nil {
		return err
	}
	return l.settle()
}

// prove has Run make what was proven durable, or act by it.
func (k *Keeper) prove(p proven) error {
	p.reply = make(chan error, 1)
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
