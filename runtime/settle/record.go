package settle

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"chrysalis/measure/ton"
	"chrysalis/runtime/chain"
	"chrysalis/runtime/claim"
)

// A book as bytes, for a journal: a head, and an item for each client (SETTLE.md). A book that is read has no terms until Under.
const (
	HeadBytes = 33 + 8 + 32 + 8 + 8 + 4 + 1
	ItemBytes = 33 + 33 + 8 + 8 + 32 + 1
)

// ErrOther says that a book is another proxy's than the terms'.
var ErrOther = errors.New("the book is another proxy's")

const flagUnbacked = 4 // in an item's last byte, beside the state

func appendAddress(b []byte, a ton.Address) []byte {
	return append(append(b, byte(a.Workchain)), a.Account[:]...)
}

// take cuts bytes whose length was judged.
type take []byte

func (t *take) bytes(n int) []byte { part := (*t)[:n]; *t = (*t)[n:]; return part }
func (t *take) uint64() uint64     { return binary.LittleEndian.Uint64(t.bytes(8)) }
func (t *take) address() ton.Address {
	return ton.Address{Workchain: int8(t.bytes(1)[0]), Account: [32]byte(t.bytes(32))}
}

// AppendHead appends what is not of one client.
func (b *Book) AppendHead(to []byte) []byte {
	to = appendAddress(to, b.proxy)
	to = append(binary.LittleEndian.AppendUint64(to, b.Mark.LT), b.Mark.Hash[:]...)
	to = binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(to, uint64(b.took)), b.Deposits)
	return append(binary.LittleEndian.AppendUint32(to, uint32(b.Open)), byte(b.state))
}

// Clients returns how many clients the book has ever had.
func (b *Book) Clients() int { return len(b.clients) }

// Changed returns the places of the clients that came or changed since it was asked last, in order.
func (b *Book) Changed() []int {
	list := slices.Sorted(maps.Keys(b.changed))
	clear(b.changed)
	return list
}

// AppendItem appends the client at a place.
func (b *Book) AppendItem(to []byte, at int) []byte {
	e := &b.clients[at]
	to = appendAddress(appendAddress(to, e.address), e.owner)
	to = binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(to, e.balance), e.tokens)
	to = append(to, e.secret[:]...)
	flags := byte(e.state)
	if e.unbacked {
		flags |= flagUnbacked
	}
	return append(to, flags)
}

// ReadBook reads a head. The book has no clients yet, and no terms.
func ReadBook(head []byte) (*Book, error) {
	b := &Book{index: map[ton.Address]int{}, changed: map[int]bool{}}
	if len(head) != HeadBytes {
		return nil, fmt.Errorf("head of a book has %d bytes, want %d", len(head), HeadBytes)
	}
	t := take(head)
	b.proxy = t.address()
	b.Mark.LT, b.Mark.Hash = t.uint64(), [32]byte(t.bytes(32))
	b.took, b.Deposits = int64(t.uint64()), t.uint64()
	b.Open, b.state = int(binary.LittleEndian.Uint32(t.bytes(4))), claim.State(t[0])
	switch {
	case b.proxy.Check() != nil:
		return nil, fmt.Errorf("head of a book: proxy's %v", b.proxy.Check())
	case (b.Mark.LT == 0) != (b.Mark == chain.Mark{}):
		return nil, fmt.Errorf("head of a book: transaction %d has hash %x", b.Mark.LT, b.Mark.Hash)
	case b.state > claim.Closed:
		return nil, fmt.Errorf("head of a book: %s, want at most %s", b.state, claim.Closed)
	}
	return b, nil
}

// Follow makes a later head the book's, which keeps its clients.
func (b *Book) Follow(head []byte) error {
	next, err := ReadBook(head)
	switch {
	case err != nil:
		return err
	case next.proxy != b.proxy:
		return fmt.Errorf("%w: %s, want %s", ErrOther, next.proxy, b.proxy)
	case next.Mark.LT < b.Mark.LT || next.Mark.LT == b.Mark.LT && next.Mark != b.Mark || next.state < b.state:
		return fmt.Errorf("book of %s ends at transaction %d, %s, and did at %d, %s", b.proxy, next.Mark.LT, next.state, b.Mark.LT, b.state)
	}
	b.Mark, b.took, b.Deposits, b.Open, b.state = next.Mark, next.took, next.Deposits, next.Open, next.state
	return nil
}

// Find returns the place of the client that an item is about, and false for one that the book has not.
func (b *Book) Find(item []byte) (at int, ok bool) {
	t := take(item)
	at, ok = b.index[t.address()]
	return at, ok
}

// Set makes a client as an item says, and returns its place. The sums are the head's.
func (b *Book) Set(item []byte) (at int, err error) {
	if len(item) != ItemBytes {
		return 0, fmt.Errorf("item of a book has %d bytes, want %d", len(item), ItemBytes)
	}
	t := take(item)
	e := entry{address: t.address(), owner: t.address(), balance: t.uint64(), tokens: t.uint64(), secret: [32]byte(t.bytes(32))}
	flags := t[0]
	e.state, e.unbacked = claim.State(flags&^flagUnbacked), flags&flagUnbacked != 0
	if e.address.Check() != nil || e.state > claim.Closed {
		return 0, fmt.Errorf("item of a book: client %s, flags %#x", e.address, flags)
	}
	at, known := b.index[e.address]
	if !known {
		return b.add(e), nil
	}
	if old := &b.clients[at]; old.owner != e.owner || e.tokens < old.tokens || old.unbacked && !e.unbacked {
		return 0, fmt.Errorf("item of a book: client %s goes from %d tokens to %d, owner %s to %s, unbacked %t to %t", e.address, old.tokens, e.tokens,
			old.owner, e.owner, old.unbacked, e.unbacked)
	}
	b.clients[at] = e
	return at, nil
}

// Whole refuses a book whose clients do not add up to its head.
func (b *Book) Whole() error {
	var deposits uint64
	open := 0
	for i := range b.clients {
		deposits += b.clients[i].balance
		if b.clients[i].open() {
			open++
		}
	}
	if deposits != b.Deposits || open != b.Open {
		return fmt.Errorf("book of %s has %d nanotons of %d open clients, want %d of %d", b.proxy, deposits, open, b.Deposits, b.Open)
	}
	return nil
}

// Under gives a book that was read its terms.
func (b *Book) Under(t Terms) error {
	proxy, err := t.Proxy()
	if err == nil && proxy != b.proxy {
		err = fmt.Errorf("%w: %s, want %s", ErrOther, b.proxy, proxy)
	}
	if err == nil {
		b.terms = t
	}
	return err
}
