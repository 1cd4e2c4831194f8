package keeper

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"chrysalis/measure/ton"
	"chrysalis/runtime/chain"
	"chrysalis/runtime/chain/relay"
	"chrysalis/runtime/settle"
)

// Asker asks one liteserver a question. What comes back nobody has judged.
type Asker interface {
	Ask(ctx context.Context, q relay.Question) (untrusted []byte, err error)
}

// follower follows the chain: it asks, proves, and has the ledger's owner keep what is proven. Nothing of it is believed by anybody else.
type follower struct {
	keeper  *Keeper
	asker   Asker
	network chain.Network
	terms   settle.Terms
	proxy   ton.Address
	worker  ton.Address
	head    chain.Head // proven
	kept    chain.Head // in the journal
	mark    chain.Mark // the book's
}

// Pace of a follower.
const (
	followPause  = 5 * time.Second  // between two rounds
	keepEvery    = 60               // seconds of the chain's time after which a head is kept that tells nothing new
	maxProofs    = 256              // answers about newer blocks of one liteserver in a round
	maxRelayed   = 16               // liteservers
	stepAnswered = 20 * time.Second // for one answer
)

// newFollower returns a follower that goes on from where the journal is. The ledger's owner must not run yet.
func newFollower(k *Keeper, asker Asker) (*follower, error) {
	t := k.ledger.terms.Settling
	f := &follower{keeper: k, asker: asker, network: t.Network, terms: t.Terms, head: k.ledger.settled.head, mark: k.ledger.settled.book.Mark}
	if b := k.ledger.settled.fresh; b != nil {
		f.mark = b.Mark
	}
	if f.kept = f.head; f.head.Last.Seqno < t.Network.Anchor.Last.Seqno {
		f.head = t.Network.Anchor
	}
	var err error
	if f.proxy, err = t.Terms.Proxy(); err != nil {
		return nil, err
	}
	f.worker, err = t.Terms.Worker()
	return f, err
}

// Follow returns what follows the chain until its context ends, and has said called with what each round came to: nil, or why nothing was
// proven. It must be called before Run.
func (k *Keeper) Follow(asker Asker, said func(error)) (func(ctx context.Context) error, error) {
	f, err := newFollower(k, asker)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) error {
		for {
			err := f.round(ctx)
			if ctx.Err() != nil {
				return nil
			}
			if said(err); errors.Is(err, ErrUnknown) {
				return nil // the keeper has ended, and says why
			}
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(followPause):
			}
		}
	}, nil
}

// round goes once from newer blocks to what is signed by them. A first walk through a long history takes as long as it takes, and each question
// its own time at most; by its end the block may be too old to act by, and the next round is short.
func (f *follower) round(ctx context.Context) error {
	if err := f.newest(ctx); err != nil {
		return err
	}
	proxy, err := f.account(ctx, f.proxy)
	if err != nil {
		return err
	}
	worker, err := f.account(ctx, f.worker)
	if err != nil {
		return err
	}
	trail, err := chain.NewTrail(proxy, f.mark)
	if err != nil {
		return err
	}
	for {
		at, more := trail.Ask()
		if !more {
			break
		}
		var txs []chain.Transaction
		err := f.each(ctx, relay.Question{Kind: relay.Transactions, Account: f.proxy, From: at}, func(answer []byte) error {
			txs = nil
			return trail.Take(answer, func(tx chain.Transaction) error {
				txs = append(txs, tx)
				return nil
			})
		})
		if err == nil && len(txs) > 0 {
			if err = f.keep(txs); err == nil {
				f.mark = txs[len(txs)-1].Mark
			}
		}
		if err != nil {
			return err
		}
	}
	if f.kept.Key != f.head.Key || f.head.Time-f.kept.Time >= keepEvery {
		if err := f.keep(nil); err != nil {
			return err
		}
	}
	view, err := settle.Look(f.terms, f.head.Time, proxy, worker)
	if err != nil {
		return err
	}
	ends, err := f.asker.Ask(ctx, relay.Question{Kind: relay.Ending})
	if err != nil {
		return err
	}
	return f.keeper.prove(proven{head: f.head, view: &view, ends: len(ends) > 0})
}

// keep has a head and transactions put into the journal.
func (f *follower) keep(txs []chain.Transaction) error {
	err := f.keeper.prove(proven{head: f.head, txs: txs})
	if err == nil {
		f.kept = f.head
	}
	return err
}

// newest asks all liteservers for newer blocks, and takes the newest that any proves. What is proven on the way from an old block is not asked
// for again.
func (f *follower) newest(ctx context.Context) error {
	type reached struct {
		head chain.Head
		err  error
	}
	all := make([]reached, maxRelayed)
	var asking sync.WaitGroup
	for n := range all {
		asking.Go(func() {
			all[n].head = f.head
			for range maxProofs {
				step, cancel := context.WithTimeout(ctx, stepAnswered)
				answer, err := f.asker.Ask(step, relay.Question{Kind: relay.BlockProof, Server: uint8(n), Block: all[n].head.Key})
				cancel()
				if err == nil {
					var h chain.Head
					var complete bool
					if h, complete, err = chain.Advance(f.network, all[n].head, answer); err == nil {
						further := h != all[n].head
						if all[n].head = h; !complete && further {
							continue
						}
					}
				}
				all[n].err = err
				return
			}
		})
	}
	asking.Wait()
	var failed []error
	good := false
	for n, r := range all {
		if r.head.Last.Seqno > f.head.Last.Seqno {
			f.head = r.head
		}
		if r.err == nil {
			good = true
		} else if !errors.Is(r.err, relay.ErrNoServer) {
			failed = append(failed, fmt.Errorf("liteserver %d: %w", n, r.err))
		}
	}
	if !good {
		return none(failed)
	}
	return nil
}

// account proves an account as of the newest block, by the first liteserver that can.
func (f *follower) account(ctx context.Context, a ton.Address) (account chain.Account, err error) {
	err = f.each(ctx, relay.Question{Kind: relay.AccountState, Block: f.head.Last, Account: a}, func(answer []byte) (err error) {
		account, err = chain.Prove(f.network, f.head, a, answer)
		return err
	})
	return account, err
}

// each asks one liteserver after the other until judge accepts an answer.
func (f *follower) each(ctx context.Context, q relay.Question, judge func(untrusted []byte) error) error {
	var failed []error
	for n := range maxRelayed {
		q.Server = uint8(n)
		step, cancel := context.WithTimeout(ctx, stepAnswered)
		answer, err := f.asker.Ask(step, q)
		cancel()
		if errors.Is(err, relay.ErrNoServer) {
			break
		}
		if err == nil {
			err = judge(answer)
		}
		if err == nil {
			return nil
		}
		if failed = append(failed, fmt.Errorf("liteserver %d: %w", n, err)); ctx.Err() != nil {
			break
		}
	}
	return none(failed)
}

// none is the error of liteservers of which none proved anything.
func none(failed []error) error {
	if len(failed) == 0 {
		return errors.New("there is no liteserver to ask")
	}
	return errors.Join(failed...)
}
