// Package onchain reads TON's chain for the command line: through liteservers that a file names, and by proofs alone (runtime/chain).
//
// The common path: ReadConfig for the servers, Open for the newest block that any of them proves, Account and Walk under it, or Contracts
// for those of a guest.
//
// What this package does not promise: that a block is the newest there is. Open refuses one that is old.
package onchain

import (
	"context"
	"errors"
	"fmt"
	"time"

	"chrysalis/attest/check"
	"chrysalis/measure/ton"
	"chrysalis/runtime/chain"
	"chrysalis/runtime/chain/fetch"
	"chrysalis/runtime/claim"
	"chrysalis/runtime/settle"
)

// Options say which chain is read, and through whom.
type Options struct {
	Network chain.Network
	Servers []fetch.Server
	Wait    time.Duration    // for one answer of one server
	MaxAge  time.Duration    // of the newest block
	Kept    string           // file that keeps how far the chain was followed; "": none
	At      func(chain.Head) // told of each stage of a long way; nil: nobody
}

// ErrServers says that the liteservers that are named can't be asked at all.
var ErrServers = errors.New("liteservers")

// Reader reads accounts as of one block.
type Reader struct {
	network chain.Network
	client  *fetch.Client
	head    chain.Head
	proved  int
}

// Open proves its way to the newest block that any server knows. A newest block that is too old, by this machine's clock, is an error that
// wraps check.ErrRejected.
func Open(ctx context.Context, o Options) (*Reader, error) {
	client, err := fetch.Open(o.Servers, o.Wait)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrServers, err)
	}
	r := &Reader{network: o.Network, client: client, head: o.Network.Anchor}
	if o.Kept != "" {
		if r.head, err = loadHead(o.Kept, o.Network); err != nil {
			return nil, err
		}
	}
	if err := r.follow(ctx, o.At); err != nil {
		return nil, err
	}
	if err := r.head.Fresh(time.Now(), o.MaxAge); err != nil {
		return nil, fmt.Errorf("%w: %w", check.ErrRejected, err)
	}
	if o.Kept != "" {
		return r, saveHead(o.Kept, o.Network, r.head)
	}
	return r, nil
}

// follow goes from the head that is known to the newest block that any server knows.
func (r *Reader) follow(ctx context.Context, at func(chain.Head)) error {
	for {
		best, end := r.head, true
		good, err := r.client.AskAll(ctx, fetch.BlockProof{From: r.head.Key}, func(answer []byte) error {
			h, complete, err := chain.Advance(r.network, r.head, answer)
			if err == nil && h.Last.Seqno > best.Last.Seqno {
				best, end = h, complete
			}
			return err
		})
		if err != nil {
			return err
		}
		if r.head, r.proved = best, good; end {
			return nil
		}
		if at != nil {
			at(r.head)
		}
	}
}

// Head returns the block under which accounts are read.
func (r *Reader) Head() chain.Head { return r.head }

// Network returns the chain that is read.
func (r *Reader) Network() chain.Network { return r.network }

// Proved returns how many servers proved the head, or an older block.
func (r *Reader) Proved() int { return r.proved }

// Account returns an account as the head has it.
func (r *Reader) Account(ctx context.Context, a ton.Address) (account chain.Account, err error) {
	err = r.client.Ask(ctx, fetch.AccountState{Of: r.head.Last, Account: a}, func(answer []byte) (err error) {
		account, err = chain.Prove(r.network, r.head, a, answer)
		return err
	})
	return account, err
}

// Post hands a message from outside the chain to the liteservers, until one takes it. What becomes of it only a later block says.
func (r *Reader) Post(ctx context.Context, bag []byte) error {
	return r.client.Ask(ctx, fetch.Message{Bag: bag}, fetch.Sent)
}

// Walk tells an account's transactions since base, the oldest first.
func (r *Reader) Walk(ctx context.Context, a chain.Account, base chain.Mark, do func(chain.Transaction) error) error {
	trail, err := chain.NewTrail(a, base)
	if err != nil {
		return err
	}
	for {
		from, more := trail.Ask()
		if !more {
			return nil
		}
		var told error // of do's, which no other server can mend
		err := r.client.Ask(ctx, fetch.Transactions{Account: a.Address, From: from}, func(answer []byte) error {
			err := trail.Take(answer, func(tx chain.Transaction) error {
				told = do(tx)
				return told
			})
			if told != nil {
				return nil
			}
			return err
		})
		if err = errors.Join(told, err); err != nil {
			return err
		}
	}
}

// Contracts are a guest's, as the head has them.
type Contracts struct {
	Terms  settle.Terms
	Root   claim.Root
	Guard  ton.Address
	Proxy  chain.Account // absent where nobody has deployed it
	Worker chain.Account
	// View is what settle judges by; it is there where the proxy is.
	View *settle.View
}

// Contracts reads the contracts of a guest whose claim key is key, whose root contract is root, and which pays owner. Proxy and worker are
// those whose addresses follow; any other code at them is refused.
func (r *Reader) Contracts(ctx context.Context, root ton.Address, key [32]byte, owner ton.Address) (*Contracts, error) {
	at, err := r.Account(ctx, root)
	if err != nil {
		return nil, err
	}
	if at.Status != chain.Active || at.Data == nil {
		return nil, fmt.Errorf("%w: root contract %s is %s, want active", check.ErrRejected, root, at.Status)
	}
	c := &Contracts{}
	if c.Root, err = claim.ParseRoot(at.Data); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", check.ErrRejected, root, err)
	}
	c.Terms = settle.Terms{Root: root, Key: key, Owner: owner, Params: c.Root.Params}
	if c.Guard, err = c.Terms.Guard(); err != nil {
		return nil, err
	}
	for _, of := range []struct {
		into *chain.Account
		at   func() (ton.Address, error)
	}{{&c.Proxy, c.Terms.Proxy}, {&c.Worker, c.Terms.Worker}} {
		address, err := of.at()
		if err != nil {
			return nil, err
		}
		if *of.into, err = r.Account(ctx, address); err != nil {
			return nil, err
		}
	}
	if c.Proxy.Status != chain.Active {
		return c, nil
	}
	view, err := settle.Look(c.Terms, r.head.Time, c.Proxy, c.Worker)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", check.ErrRejected, err)
	}
	c.View = &view
	return c, nil
}

// Book folds the proxy's whole history.
func (r *Reader) Book(ctx context.Context, c *Contracts) (*settle.Book, error) {
	b, err := settle.NewBook(c.Terms)
	if err != nil {
		return nil, err
	}
	return b, r.Walk(ctx, c.Proxy, chain.Mark{}, b.Apply)
}
