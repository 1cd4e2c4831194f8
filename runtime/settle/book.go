package settle

import (
	"fmt"

	"chrysalis/measure/ton"
	"chrysalis/runtime/cell"
	"chrysalis/runtime/chain"
	"chrysalis/runtime/claim"
)

// Operations of the messages that a proxy gets.
const (
	opFromClient = 0x65448ff4
	opOwnerClose = 0xb51d5a01
	opText       = 0
	textClose    = 'c'

	kindTopUp    = 0x5cfc6b87
	kindRegister = 0xa35cb580
	kindGranted  = 0xc68ebc7b
	kindForced   = 0xf4c354c9
)

// Book is what a proxy's own transactions, all of them and in order, tell of its clients and of its worker. Its memory is bounded by the
// number of clients.
type Book struct {
	// Mark is the newest transaction that is in the book; the zero Mark is before the first.
	Mark chain.Mark
	// Deposits are what all clients together may still spend or get back, in nanotons.
	Deposits uint64
	// Open counts the clients that are not closed at zero.
	Open int

	terms   Terms // of a book that was read: none, until Under
	proxy   ton.Address
	took    int64 // nanotons that charges took, less deposits that were sent back and still count as a client's
	state   claim.State
	clients []entry // in the order in which they came
	index   map[ton.Address]int
	changed map[int]bool // since Changed was asked
}

type entry struct {
	address  ton.Address
	owner    ton.Address
	balance  uint64
	tokens   uint64
	secret   [32]byte // hash of it
	state    claim.State
	unbacked bool // a deposit of it did not stay with the proxy
}

func (e *entry) open() bool { return e.state != claim.Closed || e.balance != 0 }

// NewBook returns an empty book of the proxy that terms name.
func NewBook(t Terms) (*Book, error) {
	proxy, err := t.Proxy()
	if err != nil {
		return nil, err
	}
	return &Book{terms: t, proxy: proxy, index: map[ton.Address]int{}, changed: map[int]bool{}}, nil
}

// Proxy returns the address of the contract whose book it is.
func (b *Book) Proxy() ton.Address { return b.proxy }

// Took returns the nanotons that charges really took, which is what may be paid out in all.
func (b *Book) Took() uint64 { return uint64(max(b.took, 0)) }

// Client returns what a client's contract told last, without the terms, which are the book's. ok is false for one that never told anything, and
// for one of which a deposit did not stay with the proxy.
func (b *Book) Client(contract ton.Address) (c claim.Client, ok bool) {
	i, known := b.index[contract]
	if !known {
		return claim.Client{}, false
	}
	e := &b.clients[i]
	return e.client(), !e.unbacked
}

func (e *entry) client() claim.Client {
	return claim.Client{State: e.state, Balance: e.balance, Tokens: e.tokens, SecretHash: e.secret, Owner: e.owner}
}

// Tokens returns what a contract has been charged, as far as the book tells.
func (b *Book) Tokens(contract ton.Address) uint64 {
	if i, known := b.index[contract]; known {
		return b.clients[i].tokens
	}
	return 0
}

// EachOpen calls do with the clients that are not closed at zero, from a place on, until it is false. It returns where it stopped, and 0 at the
// end.
func (b *Book) EachOpen(from int, do func(contract ton.Address, c claim.Client) bool) int {
	for i := from; i < len(b.clients); i++ {
		if e := &b.clients[i]; e.open() && !do(e.address, e.client()) {
			return i
		}
	}
	return 0
}

// Over reports whether the proxy has been emptied: no message of it will ever be signed again.
func (b *Book) Over() bool { return b.state == claim.Closed }

// Apply folds the next transaction of the proxy's account in. A message of a stranger's changes nothing, whatever it says. After an error
// nothing has changed.
func (b *Book) Apply(tx chain.Transaction) error {
	if tx.Previous != b.Mark {
		return fmt.Errorf("book of %s: transaction %d follows %d, want %d", b.proxy, tx.LT, tx.Previous.LT, b.Mark.LT)
	}
	if tx.In != nil && !tx.In.Bounced {
		if err := b.message(tx); err != nil {
			return fmt.Errorf("book of %s: transaction %d: %w", b.proxy, tx.LT, err)
		}
	}
	b.Mark = tx.Mark
	return nil
}

func (b *Book) message(tx chain.Transaction) error {
	r := *tx.In.Body
	op := r.Uint(32)
	if r.Err() != nil {
		return nil
	}
	switch op {
	case opFromClient:
		return b.fromClient(tx, &r)
	case uint64(claim.ProxyClose):
		b.close(tx, claim.Closing)
	case uint64(claim.ProxyCloseComplete):
		b.close(tx, claim.Closed)
	case opOwnerClose, opText:
		return b.ofOwner(tx, op, &r)
	}
	return nil
}

func (b *Book) close(tx chain.Transaction, to claim.State) {
	if !tx.Aborted {
		b.state = max(b.state, to)
	}
}

// ofOwner takes what the proxy's owner may begin its end with. The owner is a guard, which says nothing of the kind; a stranger's changes
// nothing, whether the contract refuses it or passes it over.
func (b *Book) ofOwner(tx chain.Transaction, op uint64, r *cell.Reader) error {
	guard, err := b.terms.Guard()
	if err != nil {
		return err
	}
	if tx.In.From == guard && (op == opOwnerClose || r.Uint(8) == textClose && r.Err() == nil) {
		b.close(tx, claim.Closing)
	}
	return nil
}

// fromClient takes what a client's contract told of itself. It tells the proxy at every change, whether the proxy can pay for listening or
// not, so the balance before and after are known of each.
func (b *Book) fromClient(tx chain.Transaction, r *cell.Reader) error {
	r.Skip(64)
	owner := r.Address()
	told := r.Open()
	what := r.MaybeRef()
	if r.End() != nil || told.Err() != nil {
		return nil // no client's contract writes such a thing
	}
	var e entry
	i, known := b.index[tx.In.From]
	if known {
		e = b.clients[i]
		if e.owner != owner {
			return fmt.Errorf("client %s tells of owner %s, want %s", tx.In.From, owner, e.owner)
		}
	} else {
		p := &b.terms.Params
		from, err := claim.Address(p.ClientCode, p.NewClient(owner, b.proxy, b.terms.Key))
		if err != nil {
			return err
		}
		if from != tx.In.From {
			return nil // a stranger
		}
		e = entry{address: from, owner: owner, state: claim.Closed} // which is counted as open by what it tells
	}
	before := e
	state := claim.State(told.Uint(2))
	balance := told.Coins()
	told.Coins() // stake
	tokens := told.Uint(64)
	secret := told.Hash()
	if err := told.End(); err != nil {
		return fmt.Errorf("client %s: %w", tx.In.From, err)
	}
	in, out, lost, err := b.movement(tx, what)
	if err != nil {
		return fmt.Errorf("client %s: %w", tx.In.From, err)
	}
	taken := int64(e.balance) + in - out - int64(balance)
	if taken < 0 || tokens < e.tokens || state > claim.Closed {
		return fmt.Errorf("client %s goes from %d nanotons and %d tokens to %d and %d, state %d, by %d in and %d out", tx.In.From,
			e.balance, e.tokens, balance, tokens, state, in, out)
	}
	e.state, e.balance, e.tokens, e.secret, e.unbacked = state, balance, tokens, secret, e.unbacked || lost
	if lost {
		taken -= in
	}
	b.took += taken
	b.Deposits = b.Deposits - before.balance + balance
	if e.open() {
		b.Open++
	}
	if before.open() {
		b.Open--
	}
	if !known {
		i = b.add(e)
	}
	b.clients[i], b.changed[i] = e, true
	return nil
}

func (b *Book) add(e entry) int {
	b.clients = append(b.clients, e)
	b.index[e.address] = len(b.clients) - 1
	return len(b.clients) - 1
}

// movement reads which coins a client's message was about. Those that are lost count as the client's, and did not stay with the proxy.
func (b *Book) movement(tx chain.Transaction, what *cell.Cell) (in, out int64, lost bool, err error) {
	if what == nil {
		return 0, 0, false, nil
	}
	r := what.Read()
	kind := r.Uint(32)
	if kind == kindRegister {
		return 0, 0, false, r.Err()
	}
	coins := int64(r.Coins())
	r.Address()
	if err := r.End(); err != nil {
		return 0, 0, false, err
	}
	switch kind {
	case kindTopUp:
		// A proxy that is closing sends the coins back, and one that could not act never had them. The client's contract counts them all the
		// same: what it is charged of them took nothing.
		return coins, 0, tx.Aborted || b.state != claim.Normal, nil
	case kindGranted, kindForced:
		return 0, coins, false, nil
	}
	return 0, 0, false, fmt.Errorf("message is of kind %08x, which no client's contract sends", kind)
}
