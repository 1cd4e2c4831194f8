package chain

import (
	"errors"
	"fmt"

	"chrysalis/measure/ton"
	"chrysalis/runtime/cell"
)

// Transaction is one of an account's.
type Transaction struct {
	Mark     // its own
	Previous Mark
	Time     uint32 // Unix time
	Aborted  bool   // its computation or its action failed: of what it was to do nothing was done but the fees
	In       *Message
}

// Message is an internal message that came in.
type Message struct {
	From    ton.Address
	Value   uint64 // nanotons
	Bounced bool
	Body    *cell.Reader // at the body's beginning
}

// maxBatch bounds the transactions of one answer. A liteserver sends at most 16.
const maxBatch = 64

// batch reads a liteserver's answer to getTransactions (liteServer.transactionList, boxed): transactions of an account from newest on, each
// named by the one after it. It stops at base, which it must reach exactly, and returns what lies between, the newest first. next is
// what to ask for then, and equal to base at the end.
func batch(account ton.Address, newest, base Mark, untrusted []byte) (list []Transaction, next Mark, err error) {
	if len(untrusted) > MaxAnswer {
		return nil, next, rejectf("answer has %d bytes, want at most %d", len(untrusted), MaxAnswer)
	}
	a := &answer{b: untrusted}
	a.tag(idTransactions, "answer")
	for range a.count(80, maxBatch) {
		a.block()
	}
	bag := a.bytes()
	if err := a.end("answer"); err != nil {
		return nil, next, err
	}
	roots, err := cell.Parse(bag)
	if err != nil {
		return nil, next, rejectf("%v", err)
	}
	if len(roots) > maxBatch {
		return nil, next, rejectf("%d transactions, want at most %d", len(roots), maxBatch)
	}
	next = newest
	for _, root := range roots {
		if next == base {
			break // the server can't know how far is known
		}
		if got := root.Hash(); got != next.Hash {
			return nil, next, rejectf("transaction is %x, want %x", got, next.Hash)
		}
		tx, err := transaction(account, next, root)
		if err != nil {
			return nil, next, rejectf("transaction %d: %w", next.LT, err)
		}
		if tx.Previous.LT < base.LT || tx.Previous.LT == base.LT && tx.Previous != base {
			return nil, next, rejectf("before transaction %d stands %d, and %d was known", next.LT, tx.Previous.LT, base.LT)
		}
		list = append(list, tx)
		next = tx.Previous
	}
	return list, next, nil
}

// transaction reads one (block.tlb: Transaction), whose place is known.
func transaction(account ton.Address, at Mark, c *cell.Cell) (Transaction, error) {
	tx := Transaction{Mark: at}
	r := c.Read()
	r.Tag(4, 0b0111, "transaction")
	if got := r.Hash(); r.Err() == nil && got != account.Account {
		r.Fail("it is of account %x, want %x", got, account.Account)
	}
	if got := r.Uint(64); r.Err() == nil && got != at.LT {
		r.Fail("its logical time is %d, want %d", got, at.LT)
	}
	tx.Previous.Hash, tx.Previous.LT = r.Hash(), r.Uint(64)
	if r.Err() == nil && tx.Previous.LT >= at.LT {
		r.Fail("the one before has logical time %d", tx.Previous.LT)
	}
	if tx.Previous.LT == 0 {
		tx.Previous = Mark{} // the hash before the first is zeros anyway
	}
	tx.Time = uint32(r.Uint(32))
	r.Skip(15 + 2 + 2) // count of messages out, statuses before and after
	messages := r.Open()
	skipCurrencies(r) // fees
	r.Ref()           // hashes of the account before and after
	description := r.Open()
	if err := r.End(); err != nil {
		return tx, err
	}
	in := messages.MaybeRef()
	messages.MaybeRef() // out
	if err := messages.End(); err != nil {
		return tx, fmt.Errorf("messages: %w", err)
	}
	var err error
	if tx.Aborted, err = aborted(description); err != nil {
		return tx, fmt.Errorf("description: %w", err)
	}
	if in != nil {
		if tx.In, err = message(in); err != nil {
			return tx, fmt.Errorf("message: %w", err)
		}
	}
	return tx, nil
}

// aborted reads a description (block.tlb: TransactionDescr) as far as the bit. What is no ordinary transaction is one of the chain's own.
func aborted(r *cell.Reader) (bool, error) {
	switch tag := r.Uint(4); {
	case r.Err() != nil:
		return false, r.Err()
	case tag != 0:
		return true, nil
	}
	r.Skip(1) // credit first
	if r.Bool() {
		r.Coins() // storage fees
		if r.Bool() {
			r.Coins() // due
		}
		if r.Bool() {
			r.Skip(1) // frozen or deleted
		}
	}
	if r.Bool() {
		if r.Bool() {
			r.Coins() // due
		}
		skipCurrencies(r)
	}
	if r.Bool() {
		r.Skip(3) // success, state used, account activated
		r.Coins() // gas fees
		r.Ref()
	} else if r.Uint(2) == 0b11 {
		r.Skip(1) // why it was skipped, of two bits or three
	}
	r.MaybeRef() // action
	return r.Bool(), r.Err()
}

// message reads an internal message. A message from outside the chain, or from an address of another form, is nil: it is nobody's that
// anyone here knows.
func message(c *cell.Cell) (*Message, error) {
	var m Message
	r := c.Read()
	if r.Bool() {
		return nil, r.Err() // from outside, or an event
	}
	r.Skip(2) // how it was sent
	m.Bounced = r.Bool()
	if err := r.Err(); err != nil {
		return nil, err
	}
	from := *r
	if from.Address(); from.Err() != nil {
		return nil, nil
	}
	m.From = r.Address()
	r.Address() // to
	m.Value = skipCurrencies(r)
	r.Coins()       // extra flags, once a fee
	r.Coins()       // fee
	r.Skip(64 + 32) // when it was made
	if r.Bool() {
		if r.Bool() {
			r.Ref() // StateInit
		} else {
			if r.Bool() {
				r.Skip(5)
			}
			if r.Bool() {
				r.Skip(2)
			}
			r.MaybeRef()
			r.MaybeRef()
			r.MaybeRef()
		}
	}
	m.Body = r
	if r.Bool() {
		body := r.Ref()
		if err := r.End(); err != nil {
			return nil, err
		}
		m.Body = body.Read()
	}
	return &m, r.Err()
}

// Trail walks an account's history from a transaction that a block proves back to one that is known, and then forward again, so that what
// happened is told in order. The way back keeps one Mark for each answer and nothing else, whatever the history holds.
type Trail struct {
	account ton.Address
	base    Mark
	marks   []Mark // where each answer begins, the newest first
	forward bool
}

// maxMarks bounds a walk: at 16 transactions an answer, 16 million of them.
const maxMarks = 1 << 20

// NewTrail begins at the newest transaction of an account as it was proven. base is the one up to which everything is known; the zero Mark
// asks for all there ever was.
func NewTrail(a Account, base Mark) (*Trail, error) {
	if a.Last.LT < base.LT || a.Last.LT == base.LT && a.Last != base {
		return nil, rejectf("newest transaction of %s is %d, and %d was known", a.Address, a.Last.LT, base.LT)
	}
	t := &Trail{account: a.Address, base: base, marks: []Mark{a.Last}}
	if a.Last == base {
		t.marks, t.forward = nil, true
	}
	return t, nil
}

// Ask returns the transaction from which on the next answer has to tell, and false when the walk is over.
func (t *Trail) Ask() (Mark, bool) {
	if len(t.marks) == 0 {
		return Mark{}, false
	}
	return t.marks[len(t.marks)-1], true
}

// Take judges an answer. On the way forward do is called with each transaction, the oldest first; the trail is of no use after an error
// of do's.
func (t *Trail) Take(untrusted []byte, do func(Transaction) error) error {
	at, ok := t.Ask()
	if !ok {
		return errors.New("walking history: it is over")
	}
	if !t.forward {
		_, next, err := batch(t.account, at, t.base, untrusted)
		if err != nil {
			return fmt.Errorf("walking history of %s: %w", t.account, err)
		}
		switch {
		case next == t.base:
			t.forward = true
		case len(t.marks) == maxMarks:
			return fmt.Errorf("walking history of %s: it is longer than %d answers", t.account, maxMarks)
		default:
			t.marks = append(t.marks, next)
		}
		return nil
	}
	list, next, err := batch(t.account, at, t.base, untrusted)
	if err != nil {
		return fmt.Errorf("walking history of %s: %w", t.account, err)
	}
	if next != t.base {
		return fmt.Errorf("walking history of %s: %w", t.account, rejectf("answer ends at transaction %d, want %d", next.LT, t.base.LT))
	}
	for i := len(list) - 1; i >= 0; i-- {
		if err := do(list[i]); err != nil {
			return err
		}
	}
	t.base = at
	t.marks = t.marks[:len(t.marks)-1]
	return nil
}
