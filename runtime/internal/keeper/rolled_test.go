package keeper

import (
	"bytes"
	"testing"

	"chrysalis/measure/pubkey"
	"chrysalis/measure/ton"
	"chrysalis/runtime/chain"
	"chrysalis/runtime/chain/chaintest"
	"chrysalis/runtime/chain/relay"
	"chrysalis/runtime/claim"
	"chrysalis/runtime/receipt"
	"chrysalis/runtime/settle"
)

// told returns the messages that the host was handed in this boot.
func (w *world) told() (all []claim.Message) {
	w.t.Helper()
	for _, line := range w.handed() {
		var body []byte
		if p, err := receipt.ParseLine(line); err == nil {
			body = p.Charge[:]
		} else if body, err = claim.ParseLine(line); err != nil {
			w.t.Fatalf("the host is handed %q: %v", line, err)
		}
		all = append(all, *must(claim.Verify(body, claim.Policy{Key: pubkey.Of(claimKey), AnyContract: true})))
	}
	return all
}

// carryAll carries the newest of each kind and contract that the host was handed in this boot.
func (w *world) carryAll() {
	w.t.Helper()
	type what struct {
		op claim.Op
		to ton.Address
	}
	newest := map[what]uint64{}
	var order []what
	for _, m := range w.told() {
		k := what{m.Op, m.Contract}
		if _, known := newest[k]; !known {
			order = append(order, k)
		}
		newest[k] = max(newest[k], m.Tokens)
	}
	for _, k := range order {
		w.carry(k.op, k.to, newest[k])
	}
}

// audited returns the book of somebody who walks the whole history anew.
func (w *world) audited() *settle.Book {
	w.t.Helper()
	auditor := *w
	auditor.disk, auditor.boots, auditor.stop, auditor.lines = newLossy(), 0, nil, nil
	auditor.servers = []func(relay.Question) ([]byte, error){w.honest}
	auditor.boot()
	auditor.look()
	defer auditor.stop()
	return auditor.keeper.ledger.settled.book
}

// covered holds what the host was handed in this boot against the chain as it is, and against what was answered.
func (w *world) covered(answered map[ton.Address]uint64) {
	w.t.Helper()
	book := w.audited()
	for _, m := range w.told() {
		switch m.Op {
		case claim.ClientCharge:
			if m.Tokens > answered[m.Contract] {
				w.t.Errorf("a charge of %d, and %d were answered", m.Tokens, answered[m.Contract])
			}
		case claim.WorkerPayout, claim.WorkerLastPayout:
			if m.Tokens*1000 > book.Took() {
				w.t.Errorf("%s of %d, and charges took %d nanotons", m.Op, m.Tokens, book.Took())
			}
		case claim.ClientRefund:
			if m.Tokens < book.Tokens(m.Contract) {
				w.t.Errorf("a refund at %d, and %d were charged", m.Tokens, book.Tokens(m.Contract))
			}
		case claim.ProxyCloseComplete:
			book.EachOpen(0, func(contract ton.Address, _ claim.Client) bool {
				w.t.Errorf("the proxy is emptied with %s open", contract)
				return true
			})
		}
	}
}

// nextBlock lets so many seconds pass, and a block come of which the proxy hears nothing.
func (w *world) nextBlock(seconds uint32) {
	w.chain.Advance(seconds)
	w.send(chaintest.Message{From: carrier, To: payoutOwner, Value: 1})
}

// toTheEnd has the host ask for the end and carry whatever is signed, until the proxy is emptied.
func (w *world) toTheEnd() {
	w.t.Helper()
	w.ends = true
	for range 12 {
		w.nextBlock(1)
		w.look()
		if w.keeper.ledger.settled.book.Over() {
			return
		}
		w.carryAll()
		w.nextBlock(250)
	}
	w.t.Errorf("the proxy is not emptied")
}

// capped answers as a liteserver that tells of nothing after a block.
func (w *world) capped(at chain.BlockID) func(relay.Question) ([]byte, error) {
	return func(q relay.Question) ([]byte, error) {
		if q.Kind == relay.BlockProof {
			return w.chain.BlockProof(q.Block, at)
		}
		return w.honest(q)
	}
}

// TestRolledBackUnder puts the journal back to each moment of attacks and of the end: at once, when all of it has happened, and then under
// liteservers that tell of nothing after that moment, too. Whatever is then signed the chain covers, and the settlement comes to its end.
func TestRolledBackUnder(t *testing.T) {
	answered := func(of ton.Address, tokens uint32) func(*world, map[ton.Address]uint64) {
		return func(w *world, all map[ton.Address]uint64) {
			w.answer(of, tokens)
			all[w.client(of)] += uint64(tokens)
		}
	}
	does := func(do ...func(*world)) func(*world, map[ton.Address]uint64) {
		return func(w *world, _ map[ton.Address]uint64) {
			for _, d := range do {
				d(w)
			}
		}
	}
	look, carryAll := (*world).look, (*world).carryAll
	withdraws, leaves := func(w *world) { w.withdraws(alice) }, func(w *world) { w.leaves(alice) }
	ends := func(w *world) { w.ends = true }
	later := does(func(w *world) { w.nextBlock(300) }) // all delays are over, and no client is closed
	for name, steps := range map[string][]func(*world, map[ton.Address]uint64){
		"a withdrawal between signing and landing": {answered(alice, 4_000_000), does(withdraws), does(carryAll), does(look), does(carryAll), answered(bob, 1000)},
		"a client who leaves":                      {answered(alice, 500_000), does(leaves), does(look), does(carryAll), does(look), does(carryAll, look), answered(bob, 1000)},
		"a charge without funds": {answered(alice, 3_000_000), does(withdraws, look), does(carryAll),
			func(w *world, _ map[ton.Address]uint64) { w.topUp(alice, 4*coin) }, does(look), does(carryAll, look), does(carryAll)},
		"the end": {answered(alice, 500_000), does(carryAll), does(ends, look), does(carryAll), later, does(look), does(carryAll), does(look), does(carryAll),
			does(look), does(carryAll)},
	} {
		for at := range len(steps) + 1 {
			for _, when := range []string{"at once", "later", "later, liteservers behind"} {
				behind := when == "later, liteservers behind"
				w := newWorld(t)
				w.opens(alice, 5*coin)
				w.opens(bob, 5*coin)
				w.boot()
				w.look()
				boots, all := w.boots, map[ton.Address]uint64{}
				var kept []byte
				var asked bool
				var newest chain.BlockID
				for i, step := range append(steps, does()) {
					if i == at {
						kept, newest, asked = bytes.Clone(w.disk.durable), w.chain.Last(), w.ends
						if when == "at once" {
							break
						}
					}
					step(w, all)
				}
				w.stop()
				w.disk.durable, w.boots, w.ends = kept, boots, asked
				honest := w.servers
				if behind {
					w.servers = []func(relay.Question) ([]byte, error){w.capped(newest), w.capped(newest)}
				}
				w.boot()
				if err := w.f.round(t.Context()); err != nil && !behind {
					t.Fatalf("%s, put back to %d %s: %v", name, at, when, err)
				}
				w.covered(all)
				if behind { // what was signed by that view is carried, and moves nobody's coins
					w.carryAll()
					w.servers = honest
				}
				w.nextBlock(1)
				w.look()
				w.covered(all)
				w.toTheEnd()
				w.covered(all)
				if t.Failed() {
					t.Fatalf("%s, put back to %d %s", name, at, when)
				}
				w.stop()
			}
		}
	}
}

// TestKilledWhileClosing kills the keeper at every write and flush between the host's word and the empty proxy. The next boot goes on, and clients
// and owner have at the end what they have without.
func TestKilledWhileClosing(t *testing.T) {
	var clients, owner uint64 // of the run that nothing kills, which is the last
	type end struct{ clients, owner uint64 }
	var got []end
	for step := 1; ; step++ {
		w := newWorld(t)
		w.opens(alice, 5*coin)
		w.opens(bob, 5*coin)
		w.boot()
		w.look()
		w.answer(alice, 1_000_000)
		w.stop()
		w.stop = nil
		w.ends = true
		w.disk.step, w.disk.fail = 0, map[int]func(*lossy) error{}
		for s := step; s < step+200; s++ {
			w.disk.fail[s] = func(*lossy) error { return errDisk }
		}
		closes := func() error {
			if err := w.open(); err != nil {
				return err
			}
			for range 12 {
				w.nextBlock(1)
				if err := w.f.round(t.Context()); err != nil {
					return err
				}
				if w.keeper.ledger.settled.book.Over() {
					break
				}
				w.carryAll()
				w.nextBlock(250)
			}
			return nil
		}
		killed := closes() != nil
		if w.stop != nil {
			w.stop()
		}
		w.disk.keep([]func() bool{func() bool { return true }, func() bool { return false }, func() bool { return step%2 == 0 }}[step%3])
		w.disk.fail = nil
		if err := closes(); err != nil {
			t.Fatalf("killed at step %d, the boot after: %v", step, err)
		}
		if !w.audited().Over() {
			t.Fatalf("killed at step %d: the proxy is not emptied", step)
		}
		got = append(got, end{w.chain.Balance(alice) + w.chain.Balance(bob), w.chain.Balance(payoutOwner)})
		w.stop()
		if !killed {
			clients, owner = got[len(got)-1].clients, got[len(got)-1].owner
			break
		}
	}
	if len(got) < 10 {
		t.Errorf("%d steps, too few to test anything", len(got))
	}
	const fees = coin / 10 // carrying once more, and a day's storage
	for i, e := range got {
		if e.clients+fees < clients || e.clients > clients+fees || e.owner+fees < owner || e.owner > owner+fees {
			t.Errorf("killed at step %d: clients have %d and the owner %d, want %d and %d but for fees", i+1, e.clients, e.owner, clients, owner)
		}
	}
}
