package keeper

import (
	"bytes"
	"errors"
	"fmt"

	"chrysalis/runtime/chain"
	"chrysalis/runtime/settle"
)

// settled is what the chain has proven: the newest block that any answer proved, and the book of the guest's proxy up to a transaction of its.
// It is in the journal, so no boot believes an older chain than one before it. A guest that is not paid on chain keeps what it has.
type settled struct {
	head   chain.Head   // zero: none was proven yet
	book   *settle.Book // nil then, unless the config says whose contracts are settled
	fresh  *settle.Book // takes its place with what is proven next: of another proxy, where that one is emptied
	rounds []uint32     // of each of its clients, as contract.round
	cursor int          // clients before it are part of the newest checkpoint
}

// What settled is, as bytes: a head, which an entry of it and a checkpoint's head have.
const settledBytes = chain.HeadBytes + settle.HeadBytes

func (s *settled) appendHead(to []byte) []byte {
	if s.head == (chain.Head{}) {
		return to
	}
	return s.book.AppendHead(s.head.Append(to))
}

// under says whose contracts are settled. A book of another proxy's ends the guest, unless that proxy is emptied: its clients' deposits could
// not be granted back, nor charged, by whoever settles for another.
func (s *settled) under(t settle.Terms) (err error) {
	if s.book != nil {
		if err = s.book.Under(t); !errors.Is(err, settle.ErrOther) || !s.book.Over() {
			return err
		}
		s.fresh, err = settle.NewBook(t)
		return err
	}
	s.book, err = settle.NewBook(t)
	return err
}

// follow takes a later head, which is that of the same book, or of another proxy's once the one before it is emptied.
func (s *settled) follow(b []byte) error {
	head, err := chain.ReadHead(b[:chain.HeadBytes])
	if err != nil {
		return err
	}
	if s.book == nil {
		s.book, err = settle.ReadBook(b[chain.HeadBytes:])
	} else if err = s.head.Behind(head); err == nil {
		if next, bad := settle.ReadBook(b[chain.HeadBytes:]); bad == nil && next.Proxy() != s.book.Proxy() && s.book.Over() {
			s.book, s.rounds, s.cursor = next, nil, 0
		} else {
			err = s.book.Follow(b[chain.HeadBytes:])
		}
	}
	if err == nil {
		s.head = head
	}
	return err
}

// set takes a client's item, and returns its place.
func (s *settled) set(item []byte) (int, error) {
	at, err := s.book.Set(item)
	if err == nil && at == len(s.rounds) {
		s.rounds = append(s.rounds, 0)
	}
	return at, err
}

// entry returns the journal's entry of a head and of the clients that changed since the one before.
func (s *settled) entry() []byte {
	changed := s.book.Changed()
	e := append(make([]byte, 0, settledEntry+len(changed)*settle.ItemBytes), make([]byte, notAnAnswer)...)
	e = s.appendHead(append(e, entrySettled))
	for _, at := range changed {
		e = s.book.AppendItem(e, at)
	}
	return e
}

// An entry that is of no answer begins with zeros where that has its id, which is never zero, and its kind.
const (
	notAnAnswer  = 16
	entrySettled = 1 // head, and an item of each client that changed
	settledEntry = notAnAnswer + 1 + settledBytes
)

// readEntry applies an entry.
func (s *settled) readEntry(e []byte) error {
	if len(e) < settledEntry || e[notAnAnswer] != entrySettled || (len(e)-settledEntry)%settle.ItemBytes != 0 {
		return fmt.Errorf("entry of no answer has %d bytes, want kind %d, %d and items of %d", len(e), entrySettled, settledEntry, settle.ItemBytes)
	}
	if err := s.follow(e[notAnAnswer+1 : settledEntry]); err != nil {
		return err
	}
	for b := e[settledEntry:]; len(b) > 0; b = b[settle.ItemBytes:] {
		if _, err := s.set(b[:settle.ItemBytes]); err != nil {
			return err
		}
	}
	return nil
}

// begin reads what a checkpoint's head has of it. What was read before has to come to that.
func (s *settled) begin(head []byte, began bool) error {
	if began {
		if now := s.appendHead(nil); !bytes.Equal(now, head) {
			return fmt.Errorf("a checkpoint of what the chain proved: %x, want %x", head, now)
		}
	} else if len(head) > 0 {
		if err := s.follow(head); err != nil {
			return err
		}
	}
	s.cursor = 0
	return nil
}

// part reads clients. Those that are known have to be as they are known.
func (s *settled) part(b []byte, whole bool, round uint32) error {
	if s.book == nil || len(b)%settle.ItemBytes != 0 {
		return fmt.Errorf("a part of a book has %d bytes, want items of %d, and a book", len(b), settle.ItemBytes)
	}
	for ; len(b) > 0; b = b[settle.ItemBytes:] {
		item := b[:settle.ItemBytes]
		at, known := s.book.Find(item)
		switch {
		case known:
			if now := s.book.AppendItem(nil, at); !bytes.Equal(now, item) {
				return fmt.Errorf("a part has client %x, want %x", item, now)
			}
		case whole:
			return fmt.Errorf("a part has client %x, of which the book knows nothing", item[:33])
		default:
			var err error
			if at, err = s.set(item); err != nil {
				return err
			}
		}
		s.rounds[at] = round
	}
	return nil
}

// next returns clients that the checkpoint has not got.
func (s *settled) next(most int, round uint32) []byte {
	var part []byte
	for ; s.cursor < len(s.rounds); s.cursor++ {
		if s.rounds[s.cursor] == round {
			continue
		}
		if part == nil {
			part = append(make([]byte, 0, most), partClients)
		}
		if len(part)+settle.ItemBytes > most {
			break
		}
		part = s.book.AppendItem(part, s.cursor)
		s.rounds[s.cursor] = round
	}
	return part
}

// end refuses a book that was read whole and does not add up.
func (s *settled) end() error {
	if s.book == nil {
		return nil
	}
	return s.book.Whole()
}

// maxHistory bounds the transactions of one advance: those of one answer of a liteserver.
const maxHistory = 64

// advance folds what a head proves of the proxy's history into the book, in order, and returns the entry to commit. An error beside it is that
// of a transaction which the book does not take: what stands before it is in the entry, and nothing behind it will ever be taken.
func (s *settled) advance(head chain.Head, txs []chain.Transaction) ([]byte, error) {
	if len(txs) > maxHistory {
		return nil, fmt.Errorf("%d transactions at a time, want at most %d", len(txs), maxHistory)
	}
	if s.head != (chain.Head{}) {
		if err := s.head.Behind(head); err != nil {
			return nil, err
		}
	}
	s.head = head
	if s.fresh != nil {
		s.book, s.rounds, s.cursor, s.fresh = s.fresh, nil, 0, nil
	}
	var err error
	for _, tx := range txs {
		if err = s.book.Apply(tx); err != nil {
			break
		}
	}
	for len(s.rounds) < s.book.Clients() {
		s.rounds = append(s.rounds, 0)
	}
	return s.entry(), err
}
