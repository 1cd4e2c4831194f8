package keeper

import (
	"context"
	"errors"
	"fmt"
	"io"

	"chrysalis/measure/ton"
	"chrysalis/runtime/claim"
	"chrysalis/runtime/internal/journal"
	"chrysalis/runtime/receipt"
)

// exports are the contracts whose newest proof the host has not got yet; that one stands for all before it. Nobody who answers waits for the
// host. Of most, what is held is where the proof lies in the journal: if the host takes nothing until the ring has come round to it, it is
// released by age, and the contract's count is as it was.
type exports struct {
	waiting []int                 // contracts, in the order in which they came, each once
	recent  map[int]receipt.Proof // of some of them, so that the disk need not be read
	handed  int                   // the contract whose proof the host is being given
	place   journal.Place         // of that proof; 0: there is none
	more    chan struct{}         // has room for one
}

func newExports() exports {
	return exports{recent: map[int]receipt.Proof{}, more: make(chan struct{}, 1)}
}

// add puts a contract into the row, if it is not there.
func (e *exports) add(contracts []contract, i int) {
	if !contracts[i].waits {
		contracts[i].waits = true
		e.waiting = append(e.waiting, i)
	}
	e.wake()
}

// wake has Export ask once more.
func (e *exports) wake() {
	select {
	case e.more <- struct{}{}:
	default:
	}
}

// durable takes note that a proof is in the journal. One without a charge is nobody's to carry.
func (l *ledger) durable(client ton.Address, p receipt.Proof, at journal.Place) {
	if p.Charge == nil {
		return
	}
	i, e := l.at(client), &l.exports
	l.contracts[i].newest = at
	if _, held := e.recent[i]; held || len(e.recent) < rememberedProofs {
		e.recent[i] = p
	}
	e.add(l.contracts, i)
}

// export returns the proof that has waited longest; none if none waits. That it is asked for another says that the host has got the one before.
func (l *ledger) export(j *journal.Journal) (receipt.Proof, error) {
	e := &l.exports
	if e.place != 0 && l.contracts[e.handed].newest == e.place {
		l.contracts[e.handed].newest = 0
	}
	e.place = 0
	for len(e.waiting) > 0 {
		i := e.waiting[0]
		e.waiting = e.waiting[1:]
		c := &l.contracts[i]
		c.waits = false
		p, held := e.recent[i]
		delete(e.recent, i)
		if !held {
			var err error
			if p, err = c.read(j); errors.Is(err, journal.ErrReleased) {
				c.newest = 0
				continue
			} else if err != nil {
				return receipt.Proof{}, err
			}
		}
		e.handed, e.place = i, c.newest
		return p, nil
	}
	return receipt.Proof{}, nil
}

// read reads the contract's newest proof out of the journal.
func (c *contract) read(j *journal.Journal) (receipt.Proof, error) {
	entry, err := j.Entry(c.newest)
	if err != nil {
		return receipt.Proof{}, err
	}
	// Another entry can have come to lie there, and then says another count or contract.
	entry, _ = cutTail(entry)
	_, r, p, err := parseEntry(entry)
	if err != nil || r.Client != c.address || r.Cumulative != c.count || p.Charge == nil {
		return receipt.Proof{}, journal.ErrReleased
	}
	return p, nil
}

// Export writes proofs to the host's side, as lines, until ctx ends or w does. After Open those are written that the host was not known to have, and
// the newest of each contract among the latest receipts once more; later each that became durable, or a newer one of its contract in its place.
func (k *Keeper) Export(ctx context.Context, w io.Writer) error {
	for {
		r := k.ask(call{op: opExport})
		if r.status != statusOK {
			return fmt.Errorf("exporting: %w", ErrUnknown)
		}
		if r.claim != nil {
			if _, err := io.WriteString(w, claim.Line(r.claim)+"\n"); err != nil {
				return fmt.Errorf("exporting: %w", err)
			}
			continue
		}
		if r.proof.Receipt == nil {
			select {
			case <-k.ledger.exports.more:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		line, err := r.proof.Line()
		if err != nil {
			return fmt.Errorf("exporting: %w", err)
		}
		if _, err := io.WriteString(w, line+"\n"); err != nil {
			return fmt.Errorf("exporting: %w", err)
		}
	}
}
