package keeper

import (
	"context"
	"fmt"
	"io"
	"sync"

	"chrysalis/measure/ton"
	"chrysalis/runtime/receipt"
)

// exports are the proofs that the host has not got yet: of each contract the newest, which stands for all before it. Nobody who answers
// waits for the host. What is held is bounded by the number of contracts, whatever the host takes.
type exports struct {
	mu      sync.Mutex
	newest  map[ton.Address]receipt.Proof
	waiting []ton.Address // in the order in which they came, each once
	more    chan struct{} // has room for one
}

func newExports() *exports {
	return &exports{newest: map[ton.Address]receipt.Proof{}, more: make(chan struct{}, 1)}
}

// add holds a proof until it is written, in place of an older one of its contract. A proof without a charge is nobody's to carry.
func (e *exports) add(contract ton.Address, p receipt.Proof) {
	if p.Charge == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, waits := e.newest[contract]; !waits {
		e.waiting = append(e.waiting, contract)
	}
	e.newest[contract] = p
	select {
	case e.more <- struct{}{}:
	default:
	}
}

// take returns the proof that has waited longest.
func (e *exports) take() (receipt.Proof, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.waiting) == 0 {
		return receipt.Proof{}, false
	}
	contract := e.waiting[0]
	e.waiting = e.waiting[1:]
	p := e.newest[contract]
	delete(e.newest, contract)
	return p, true
}

// Export writes proofs to the host's side, as lines, until ctx ends or w does. After Open the newest of every contract is written once,
// and later each that became durable, or a newer one of its contract in its place.
func (k *Keeper) Export(ctx context.Context, w io.Writer) error {
	for {
		p, ok := k.exports.take()
		if !ok {
			select {
			case <-k.exports.more:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		line, err := p.Line()
		if err != nil {
			return fmt.Errorf("exporting: %w", err)
		}
		if _, err := io.WriteString(w, line+"\n"); err != nil {
			return fmt.Errorf("exporting: %w", err)
		}
	}
}
