package keeper

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"chrysalis/measure/ton"
	"chrysalis/runtime/chain"
	"chrysalis/runtime/claim"
	"chrysalis/runtime/receipt"
	"chrysalis/runtime/settle"
)

// Settling says how charges are settled on chain.
type Settling struct {
	Terms   settle.Terms
	Network chain.Network
	// Least and Most are the band of what weighted tokens are multiplied by, in parts of ton.WeightOne.
	Least, Most uint32
	// MaxAge is how old the newest proven block may be for anybody to be served or anything to be signed by it.
	MaxAge time.Duration
}

// The refusals of a guest whose charges are settled on chain.
var (
	// ErrKey says that the contract is none of the guest's, or that the secret is not its client's: nobody is told which.
	ErrKey = errors.New("there is no such contract, or the secret is not its client's")
	// ErrFunds says that what the client may still spend does not cover the request, or that it is closing.
	ErrFunds = errors.New("the client's deposit does not cover the request")
	// ErrChain says that the guest knows no block that is new enough, or that its own contracts are closing.
	ErrChain = errors.New("nobody is served before the chain is proven")
)

// hold is what a place is taken for: an answer to one client, of so many weighted tokens at most.
type hold struct {
	client      ton.Address
	worst       uint64
	coefficient uint32
	key         int // of the ledger's keys, and one more; 0 for the contract's own
}

// sight is what the guest's contracts are by the newest block that was proven.
type sight struct {
	head chain.Head
	view settle.View
	seen bool
}

// settling is what the owner of the ledger keeps to serve and to sign by, beside what the journal has.
type settling struct {
	sight
	ends   bool // the host asks for the end of the contracts
	held   map[ton.Address]uint64
	claims claims
	cursor int // of the contracts whose charges are looked at next
	open   int // of the book's clients, in the same way
}

// worst returns what an answer of so many tokens may come to, by a coefficient.
func (l *ledger) worst(u receipt.Usage, coefficient uint32) (uint64, error) {
	p := l.terms.Price
	p.CachedWeight, p.ReasoningWeight = 0, 0
	p.PromptWeight = max(l.terms.Price.PromptWeight, l.terms.Price.CachedWeight)
	p.CompletionWeight = max(l.terms.Price.CompletionWeight, l.terms.Price.ReasoningWeight)
	return receipt.Usage{Prompt: u.Prompt, Completion: u.Completion}.Charged(p, coefficient)
}

// serve refuses a request that the chain does not cover, and holds what it may come to otherwise. secret is the hash of what the client
// showed.
func (l *ledger) serve(client ton.Address, secret [32]byte, most receipt.Usage, coefficient uint32, now time.Time) (hold, error) {
	s, t := &l.settling, l.terms.Settling
	if coefficient < t.Least || coefficient > t.Most {
		return hold{}, fmt.Errorf("%w: coefficient is %d, want %d to %d", errRefused, coefficient, t.Least, t.Most)
	}
	if !s.seen || s.ends {
		return hold{}, ErrChain
	}
	if err := s.head.Fresh(now, t.MaxAge); err != nil {
		return hold{}, fmt.Errorf("%w: %w", ErrChain, err)
	}
	c, ok := l.settled.book.Client(client)
	if !ok || secret == ([32]byte{}) {
		return hold{}, ErrKey
	}
	worst, err := l.worst(most, coefficient)
	if err != nil {
		return hold{}, fmt.Errorf("%w: %w", ErrFunds, err)
	}
	key := 0
	if c.SecretHash != secret {
		at, err := l.keys.covers(client, secret, c.SecretHash, worst)
		if err != nil {
			return hold{}, err
		}
		key = at + 1
	}
	if s.view.Proxy.State != claim.Normal || s.view.Worker.State != claim.Normal {
		return hold{}, ErrChain
	}
	// One token more, so that a charge of all of it is strictly below the balance.
	counted := max(l.count(client), c.Tokens) + s.held[client]
	if err := settle.Serve(s.view, l.terms.Price.NanotonPerToken, c, counted, worst+1); err != nil {
		return hold{}, fmt.Errorf("%w: %w", ErrFunds, err)
	}
	h := hold{client, worst + 1, coefficient, key}
	s.held[client] += h.worst
	if key > 0 {
		l.keys.held[key-1] += h.worst
	}
	return h, nil
}

// release gives back what a place was taken for.
func (l *ledger) release(h hold) {
	s := &l.settling
	if h.key > 0 {
		if l.keys.held[h.key-1] -= h.worst; l.keys.held[h.key-1] == 0 {
			delete(l.keys.held, h.key-1)
		}
	}
	if s.held[h.client] -= h.worst; s.held[h.client] == 0 {
		delete(s.held, h.client)
	}
}

// charge signs what a client has been counted, as far as the chain covers it; nothing where there is nothing to charge.
func (l *ledger) charge(client ton.Address, count uint64) (body *claim.Body, charged uint64, err error) {
	if l.terms.Settling != nil {
		c, ok := l.settled.book.Client(client)
		if !ok || !l.settling.seen {
			return nil, 0, nil
		}
		if count, ok = settle.Charge(l.terms.Price.NanotonPerToken, c, count); !ok {
			return nil, 0, nil
		}
	}
	body, err = l.signCount(claim.ClientCharge, client, count)
	return body, count, err
}

func query() uint64 {
	var b [8]byte
	rand.Read(b[:])
	return binary.LittleEndian.Uint64(b[:])
}

func (l *ledger) signCount(op claim.Op, contract ton.Address, count uint64) (*claim.Body, error) {
	return claim.Sign(l.terms.ClaimKey, claim.Message{Op: op, QueryID: query(), Tokens: count, Contract: contract, Excesses: l.terms.Excesses})
}

// claims are signed messages beside the charges that go with receipts, which the host has not got yet: of each kind and contract the newest.
type claims struct {
	signed  map[claimOf]uint64 // the count that was signed in this boot
	waiting map[claimOf][]byte
	order   []claimOf
}

type claimOf struct {
	op       claim.Op
	contract ton.Address
}

// claim signs a message for the host, unless it has been signed for that count in this boot.
func (l *ledger) claim(op claim.Op, contract ton.Address, count uint64) error {
	c, k := &l.settling.claims, claimOf{op, contract}
	if old, ok := c.signed[k]; ok && old >= count {
		return nil
	}
	var body []byte
	if op.Closes() {
		b, err := claim.SignClose(l.terms.ClaimKey, claim.Message{Op: op, QueryID: query(), Contract: contract, Excesses: l.terms.Excesses})
		if err != nil {
			return err
		}
		body = b[:]
	} else {
		b, err := l.signCount(op, contract, count)
		if err != nil {
			return err
		}
		body = b[:]
	}
	c.signed[k] = count
	if _, waits := c.waiting[k]; !waits {
		c.order = append(c.order, k)
	}
	c.waiting[k] = body
	l.exports.wake()
	return nil
}

// next returns the message that has waited longest, and nil if none waits.
func (c *claims) next() []byte {
	if len(c.order) == 0 {
		return nil
	}
	k := c.order[0]
	c.order = c.order[1:]
	body := c.waiting[k]
	delete(c.waiting, k)
	return body
}

// Bounds of one settlement, so that answers do not wait for it.
const (
	settleContracts = 4096 // that are looked at
	settleSigned    = 64   // that something is signed for
)

// settle signs what the rules of package settle have it sign by what was proven last. A message for a count that was signed in this boot is not
// signed again; after a boot each is signed once more, since nobody knows what the host has.
func (l *ledger) settle() error {
	s, book := &l.settling, l.settled.book
	proxy, err := l.terms.Settling.Terms.Proxy()
	if err != nil {
		return err
	}
	worker, err := l.terms.Settling.Terms.Worker()
	if err != nil {
		return err
	}
	if n, ok := settle.Payout(s.view, book); ok {
		if err := l.claim(claim.WorkerPayout, worker, n); err != nil {
			return err
		}
	}
	unsettled, err := l.settleContracts()
	if err != nil {
		return err
	}
	signed := 0
	s.open = book.EachOpen(s.open, func(contract ton.Address, c claim.Client) bool {
		if s.held[contract] > 0 {
			return true // an answer to it is on its way
		}
		n, ok := settle.Grant(s.view, book, contract, c, l.count(contract))
		if !ok {
			return true
		}
		if err = l.claim(claim.ClientRefund, contract, n); err != nil {
			return false
		}
		signed++
		return signed < settleSigned
	})
	if err != nil {
		return err
	}
	if s.ends && len(s.held) == 0 && settle.Close(s.view, unsettled) {
		if err := l.claim(claim.ProxyClose, proxy, 1); err != nil {
			return err
		}
	}
	if n, ok := settle.LastPayout(s.view, book); ok {
		if err := l.claim(claim.WorkerLastPayout, worker, n); err != nil {
			return err
		}
	}
	if settle.CloseComplete(s.view, book) {
		return l.claim(claim.ProxyCloseComplete, proxy, 1)
	}
	return nil
}

// settleContracts signs charges that those with the receipts do not cover, since there was less to charge then. It returns how many contracts
// have more counted than the chain has charged and could charge.
func (l *ledger) settleContracts() (unsettled int, err error) {
	s, book := &l.settling, l.settled.book
	signed := 0
	for looked := 0; looked < min(settleContracts, len(l.contracts)) && signed < settleSigned; looked++ {
		if s.cursor >= len(l.contracts) {
			s.cursor = 0
		}
		c := &l.contracts[s.cursor]
		s.cursor++
		of, ok := book.Client(c.address)
		if !ok {
			continue
		}
		n, ok := settle.Charge(l.terms.Price.NanotonPerToken, of, l.count(c.address))
		if !ok || n <= c.signed {
			continue
		}
		if err := l.claim(claim.ClientCharge, c.address, n); err != nil {
			return 0, err
		}
		c.signed = n
		signed++
	}
	if !s.ends {
		return 0, nil
	}
	for i := range l.contracts {
		if of, ok := book.Client(l.contracts[i].address); ok {
			if _, ok := settle.Charge(l.terms.Price.NanotonPerToken, of, l.count(l.contracts[i].address)); ok {
				unsettled++
			}
		}
	}
	return unsettled, nil
}
