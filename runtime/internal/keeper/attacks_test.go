package keeper

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"chrysalis/measure/ton"
	"chrysalis/runtime/chain/chaintest"
	"chrysalis/runtime/chain/relay"
	"chrysalis/runtime/claim"
	"chrysalis/runtime/receipt"
)

// TestOneOfTwoLies: one liteserver that is silent, lies, cuts histories, keeps newer blocks back or is of another chain hides nothing that the
// other tells, in either order. Where both do, nobody is served and nothing is signed.
func TestOneOfTwoLies(t *testing.T) {
	var first []byte // the proof of the chain's beginning
	bad := map[string]func(w *world, q relay.Question, answer []byte) ([]byte, error){
		"silent":  func(*world, relay.Question, []byte) ([]byte, error) { return nil, relay.ErrNone },
		"nothing": func(*world, relay.Question, []byte) ([]byte, error) { return nil, nil },
		"lying": func(_ *world, _ relay.Question, answer []byte) ([]byte, error) {
			answer[len(answer)*2/3] ^= 1
			return answer, nil
		},
		"lying of accounts": func(_ *world, q relay.Question, answer []byte) ([]byte, error) {
			if q.Kind == relay.AccountState {
				answer[len(answer)-9] ^= 1
			}
			return answer, nil
		},
		"cut histories": func(_ *world, q relay.Question, answer []byte) ([]byte, error) {
			if q.Kind == relay.Transactions {
				return chaintest.Cut(answer), nil
			}
			return answer, nil
		},
		"histories in another order": func(_ *world, q relay.Question, answer []byte) ([]byte, error) {
			if q.Kind == relay.Transactions {
				return chaintest.Reorder(answer), nil
			}
			return answer, nil
		},
		"the account of another": func(w *world, q relay.Question, answer []byte) ([]byte, error) {
			if q.Kind == relay.AccountState {
				q.Account = carrier
				return w.honest(q)
			}
			return answer, nil
		},
		"behind": func(_ *world, q relay.Question, answer []byte) ([]byte, error) {
			if q.Kind == relay.BlockProof {
				return first, nil
			}
			return nil, relay.ErrNone
		},
	}
	for name, lie := range bad {
		for _, both := range []bool{false, true} {
			for place := range 2 {
				w := newWorld(t)
				first = must(w.chain.BlockProof(w.chain.Network.Anchor.Key, w.chain.Network.Anchor.Key))
				honest := w.servers[0]
				liar := func(q relay.Question) ([]byte, error) {
					answer, err := honest(q)
					if err != nil {
						return nil, err
					}
					return lie(w, q, bytes.Clone(answer))
				}
				w.opens(alice, 5*coin)
				w.servers[place] = liar
				if both {
					w.servers[1-place] = liar
				}
				w.boot()
				err := w.f.round(t.Context())
				if (err != nil) != both {
					t.Errorf("%s, both: %t, place %d: got %v", name, both, place, err)
				}
				if both {
					w.refuses(ErrChain, alice, secretOf(alice), 1)
					if len(w.handed()) != 0 {
						t.Errorf("%s: the host is handed %q", name, w.lines)
					}
				} else if n := w.answer(alice, 1000); n != 1000 {
					t.Errorf("%s, place %d: charged %d, want 1000", name, place, n)
				}
			}
		}
	}
}

// TestNobodyToAsk: without a liteserver nothing is proven.
func TestNobodyToAsk(t *testing.T) {
	w := newWorld(t)
	w.servers = nil
	w.boot()
	if err := w.f.round(t.Context()); err == nil {
		t.Error("a round without liteservers: got no error")
	}
	if err := w.f.each(t.Context(), relay.Question{Kind: relay.Transactions}, func([]byte) error { return nil }); err == nil {
		t.Error("a question to nobody: got no error")
	}
}

// TestOldView: a view that is too old serves nobody and signs nothing, and no boot goes back to an older one.
func TestOldView(t *testing.T) {
	w := newWorld(t)
	w.opens(alice, 5*coin)
	w.boot()
	w.look()
	w.answer(alice, 1000)
	w.carrySigned(claim.ClientCharge, w.client(alice))
	old := must(w.chain.BlockProof(w.chain.Network.Anchor.Key, w.chain.Last()))
	w.chain.Advance(30)
	w.answer(alice, 1000)
	w.chain.Advance(31)
	w.refuses(ErrChain, alice, secretOf(alice), 1000)
	// All that the liteservers tell is older than the guest's clock allows.
	if err := w.f.round(t.Context()); err == nil {
		t.Error("a round by old blocks: got no error")
	}
	worker := must(w.terms.Settling.Terms.Worker())
	if n, ok := w.signed(claim.WorkerPayout, worker); ok {
		t.Errorf("a payout of %d by an old block", n)
	}
	w.send(chaintest.Message{From: carrier, To: payoutOwner, Value: 1})
	w.look()
	if n, ok := w.signed(claim.WorkerPayout, worker); !ok || n != 1000 {
		t.Errorf("payout is %d, %t, want 1000", n, ok)
	}
	// Liteservers that keep what came since back.
	for n := range w.servers {
		honest := w.servers[n]
		w.servers[n] = func(q relay.Question) ([]byte, error) {
			if q.Kind == relay.BlockProof {
				return old, nil
			}
			return honest(q)
		}
	}
	w.boot()
	if got, kept := w.f.head, w.keeper.ledger.settled.head; got != kept || got == w.chain.Network.Anchor {
		t.Errorf("a boot begins at block %d, want the journal's %d", got.Last.Seqno, kept.Last.Seqno)
	}
	if err := w.f.round(t.Context()); err == nil {
		t.Error("an older chain after a boot: got no error")
	}
	w.refuses(ErrChain, alice, secretOf(alice), 1)
}

// TestHolds: answers that are computed at a time have to be covered together, and a place is for its own client and no more than it was taken for.
func TestHolds(t *testing.T) {
	w := newWorld(t)
	w.opens(alice, 5*coin)
	w.opens(bob, 5*coin)
	w.boot()
	w.look()
	var held []hold
	for range 4 {
		held = append(held, must(w.reserve(alice, secretOf(alice), 1_000_000)))
	}
	w.refuses(ErrFunds, alice, secretOf(alice), 1_000_000)
	must(w.reserve(bob, secretOf(bob), 1_000_000))
	other := held[0]
	other.client = w.client(bob)
	for name, try := range map[string]func() error{
		"another client's answer": func() error {
			r := w.keeper.ask(call{op: opRecord, place: true, held: held[0], record: receipt.Answer{ID: receipt.AnswerID{9}, Client: w.client(bob),
				Outcome: receipt.Complete}})
			return r.status.err()
		},
		"more than the place is for": func() error { _, err := w.records(held[1], 1_000_002); return err },
		"no place": func() error {
			r := w.keeper.ask(call{op: opRecord, record: receipt.Answer{ID: receipt.AnswerID{8}, Client: w.client(alice), Outcome: receipt.Complete}})
			return r.status.err()
		},
	} {
		if err := try(); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: got %v, want %v", name, err, ErrRefused)
		}
	}
	// The two places are given back by then; what was refused took nothing.
	for range 2 {
		held = append(held, must(w.reserve(alice, secretOf(alice), 1_000_000)))
	}
	for _, h := range held[2:] {
		must(w.records(h, 1_000_000))
	}
	if n := w.keeper.ledger.count(w.client(alice)); n != 4_000_000 {
		t.Errorf("counted %d, want 4,000,000", n)
	}
	w.refuses(ErrFunds, alice, secretOf(alice), 1_000_000)
	w.topUp(alice, coin)
	w.look()
	w.answer(alice, 1_000_000)
}

// TestCoefficient: what a request's tokens are multiplied by is in the band, is held for, charged and in the receipt, and stays what it was when the
// place was taken.
func TestCoefficient(t *testing.T) {
	w := newWorld(t)
	w.opens(alice, 5*coin)
	w.boot()
	w.look()
	for _, bad := range []uint32{9_999, 20_001, 1} {
		w.price = bad
		w.refuses(ErrRefused, alice, secretOf(alice), 10)
	}
	w.price = 20_000
	w.refuses(ErrFunds, alice, secretOf(alice), 2_500_000)
	h := must(w.reserve(alice, secretOf(alice), 1_000_000))
	if r := w.keeper.ask(call{op: opRecord, place: true, held: h, record: receipt.Answer{ID: receipt.AnswerID{77}, Client: h.client,
		Usage: receipt.Usage{Completion: 10}, Outcome: receipt.Complete, Coefficient: 10_000}}); r.status != statusRefused {
		t.Errorf("an answer by another coefficient than its place: status %d", r.status)
	}
	p := must(w.records(must(w.reserve(alice, secretOf(alice), 1_000_000)), 1_000_000))
	r := must(receipt.Parse(p.Receipt[:]))
	if r.Coefficient != 20_000 || r.Weighted != 2_000_000 || r.Block.Time != w.f.head.Time || r.Block.Seqno != w.chain.Last().Seqno {
		t.Errorf("receipt: coefficient %d, %d tokens, block %d of %d; want 20,000, 2,000,000, the newest", r.Coefficient, r.Weighted, r.Block.Seqno,
			r.Block.Time)
	}
	if m := must(claim.Parse(p.Charge[:])).Message; m.Tokens != 2_000_000 {
		t.Errorf("charged %d, want 2,000,000", m.Tokens)
	}
	w.boot()
	w.look()
	if n := w.answer(alice, 1000); n != 2_002_000 {
		t.Errorf("after a boot charged %d, want 2,002,000", n)
	}
}

// TestLooks: a view that is not of the journal's newest transaction is not acted by.
func TestLooks(t *testing.T) {
	w := newWorld(t)
	w.opens(alice, 5*coin)
	w.boot()
	w.look()
	view := w.keeper.ledger.settling.view
	view.Last.LT++
	if err := w.keeper.prove(proven{head: w.f.head, view: &view}); err == nil {
		t.Error("a view of another transaction: got no error")
	}
	view.Last.LT--
	old := w.f.head
	w.send(chaintest.Message{From: carrier, To: payoutOwner, Value: 1}) // of which the proxy hears nothing, so it is not in the journal
	w.look()
	if w.keeper.ledger.settled.head != old {
		t.Fatal("each block is in the journal")
	}
	if err := w.keeper.prove(proven{head: old, view: &view}); err == nil {
		t.Error("a view of an older block than was acted by: got no error")
	}
	old.Last.Seqno--
	w.boot()
	if err := w.keeper.prove(proven{head: old, view: &view}); err == nil {
		t.Error("after a boot, a view of an older block than the journal's: got no error")
	}
	w.look()
	if err := w.keeper.prove(proven{head: old, view: &view}); err == nil {
		t.Error("a view of an older block: got no error")
	}
}

// TestStakeBounds: no more than the proxy's stake is ever unsettled, whatever a client has paid in.
func TestStakeBounds(t *testing.T) {
	w := newWorld(t)
	w.opens(alice, 50*coin)
	w.boot()
	w.look()
	w.refuses(ErrFunds, alice, secretOf(alice), 10_000_000)
	w.answer(alice, 9_000_000)
	w.refuses(ErrFunds, alice, secretOf(alice), 1_000_000)
	w.carrySigned(claim.ClientCharge, w.client(alice))
	w.refuses(ErrFunds, alice, secretOf(alice), 1_000_000)
	w.look()
	w.answer(alice, 9_000_000)
}

// TestLeavesWhileAnswered: a client who closes while an answer to it is computed gets the rest back once that is counted.
func TestLeavesWhileAnswered(t *testing.T) {
	w := newWorld(t)
	w.opens(alice, 5*coin)
	w.boot()
	w.look()
	h := must(w.reserve(alice, secretOf(alice), 500_000))
	w.leaves(alice)
	w.look()
	if n, ok := w.signed(claim.ClientRefund, w.client(alice)); ok {
		t.Errorf("a refund at %d is signed while an answer is on its way", n)
	}
	w.refuses(ErrFunds, alice, secretOf(alice), 1)
	must(w.records(h, 500_000))
	w.look()
	if n, ok := w.signed(claim.ClientRefund, w.client(alice)); !ok || n != 500_000 {
		t.Fatalf("refund at %d, %t, want at 500,000", n, ok)
	}
	had := w.chain.Balance(alice)
	w.carrySigned(claim.ClientRefund, w.client(alice))
	if got := w.chain.Balance(alice) - had; got > coin/2 || got < coin/2-10 {
		t.Errorf("Alice gets %d back, want the half of her stake that was not charged", got)
	}
	w.look()
	if n, _ := w.signed(claim.WorkerPayout, must(w.terms.Settling.Terms.Worker())); n != 500_000 {
		t.Errorf("payout is %d, want 500,000", n)
	}
}

// TestWithdrawsBeforeCharge: a client who withdraws between the signing of a charge and its landing pays with what is left; the payout is that much,
// and what the next charge asks is less than there is.
func TestWithdrawsBeforeCharge(t *testing.T) {
	w := newWorld(t)
	w.opens(alice, 5*coin)
	w.opens(bob, 5*coin)
	w.boot()
	w.look()
	w.answer(alice, 4_000_000)
	count, _ := w.signed(claim.ClientCharge, w.client(alice))
	w.withdraws(alice) // down to one coin
	w.carry(claim.ClientCharge, w.client(alice), count)
	w.look()
	if n, _ := w.signed(claim.WorkerPayout, must(w.terms.Settling.Terms.Worker())); n != 1_000_000 {
		t.Errorf("payout is %d, want the million that the charge found", n)
	}
	w.refuses(ErrFunds, alice, secretOf(alice), 1)
	// One who withdraws while an answer is computed is charged strictly less than is left, and the rest once there is something again.
	h := must(w.reserve(bob, secretOf(bob), 3_000_000))
	w.withdraws(bob)
	w.look()
	p := must(w.records(h, 3_000_000))
	if m := must(claim.Parse(p.Charge[:])).Message; m.Tokens != 999_999 {
		t.Errorf("Bob is charged %d, want 999,999: what costs less than his coin", m.Tokens)
	}
	w.refuses(ErrFunds, bob, secretOf(bob), 1)
	w.topUp(bob, 5*coin)
	w.look()
	if n, _ := w.signed(claim.ClientCharge, w.client(bob)); n != 3_000_000 {
		t.Errorf("after a top-up Bob is charged %d, want 3,000,000", n)
	}
}

// took returns what charges really took of all clients, by the chain, and what may be paid out at most.
func (w *world) took() uint64 {
	w.look()
	return w.keeper.ledger.settled.book.Took()
}

// TestRolledBack: a journal that the host puts back to any moment of its last boot counts less, and whatever is signed by it is what the chain
// covers: no payout beyond what charges took, no refund below what was charged.
func TestRolledBack(t *testing.T) {
	worker := func(w *world) ton.Address { return must(w.terms.Settling.Terms.Worker()) }
	moments := []string{"booted", "seen", "answered", "charged", "seen again", "paid", "answered again"}
	for at, name := range moments {
		w := newWorld(t)
		w.opens(alice, 5*coin)
		w.opens(bob, 5*coin)
		w.boot()
		boots := w.boots
		var kept []byte
		keep := func(n int) {
			if n == at {
				kept = bytes.Clone(w.disk.durable)
			}
		}
		keep(0)
		w.look()
		keep(1)
		w.answer(alice, 1_000_000)
		keep(2)
		w.carrySigned(claim.ClientCharge, w.client(alice))
		keep(3)
		w.look()
		keep(4)
		w.carrySigned(claim.WorkerPayout, worker(w))
		keep(5)
		w.answer(alice, 1_000_000)
		keep(6)
		w.stop()
		w.disk.durable, w.boots = kept, boots
		w.boot()
		w.refuses(ErrChain, alice, secretOf(alice), 1)
		w.look()
		if n, ok := w.signed(claim.WorkerPayout, worker(w)); ok {
			t.Errorf("%s: a payout of %d is signed again", name, n)
		}
		if n := w.answer(alice, 1000); n < 1_001_000 || n > 2_001_000 {
			t.Errorf("%s: charged %d, want what the chain has and a thousand at least", name, n)
		}
		w.carrySigned(claim.ClientCharge, w.client(alice))
		took := w.took()
		if n := w.carrySigned(claim.WorkerPayout, worker(w)); n*1000 > took || n < 1_001_000 {
			t.Errorf("%s: payout of %d, and %d nanotons were taken", name, n, took)
		}
		w.leaves(alice)
		w.look()
		if n, ok := w.signed(claim.ClientRefund, w.client(alice)); !ok || n < 1_001_000 {
			t.Errorf("%s: refund at %d, %t, want what the chain has charged at least", name, n, ok)
		}
		w.stop()
	}
}

// TestTwoGuests: two guests with one secret, on disks of their own, sign less than the chain covers, each, and together.
func TestTwoGuests(t *testing.T) {
	w := newWorld(t)
	w.opens(alice, 5*coin)
	w.boot()
	w.look()
	twin := *w
	twin.disk, twin.boots, twin.stop, twin.lines = newLossy(), 0, nil, nil
	twin.boot()
	twin.look()
	worker := must(w.terms.Settling.Terms.Worker())
	w.answer(alice, 3_000_000)
	twin.answer(alice, 2_000_000)
	w.carrySigned(claim.ClientCharge, w.client(alice))
	twin.carrySigned(claim.ClientCharge, w.client(alice)) // which the contract refuses
	w.look()
	twin.look()
	for name, g := range map[string]*world{"the one": w, "the other": &twin} {
		if n, _ := g.signed(claim.WorkerPayout, worker); n != 3_000_000 {
			t.Errorf("%s pays out %d, want the three million that were taken", name, n)
		}
	}
	w.carrySigned(claim.WorkerPayout, worker)
	twin.carrySigned(claim.WorkerPayout, worker) // the same once more, which moves nothing
	if n := twin.answer(alice, 1000); n != 3_001_000 {
		t.Errorf("the other counts on to %d, want from the chain's three million", n)
	}
	if took := w.took(); took != 3_000_000_000 {
		t.Errorf("%d were taken, want three coins", took)
	}
}

// TestKilledWhileSettling kills the keeper at every write and flush of a settlement, with all, nothing or a part of what was not flushed kept. The
// next boot goes on, and at the end the owner has what charges took, once.
func TestKilledWhileSettling(t *testing.T) {
	steps := 0
	for step := 1; ; step++ {
		w := newWorld(t)
		w.opens(alice, 5*coin)
		w.disk.fail = map[int]func(*lossy) error{}
		for s := step; s < step+100; s++ {
			w.disk.fail[s] = func(*lossy) error { return errDisk }
		}
		worker := must(w.terms.Settling.Terms.Worker())
		answered := 0
		settles := func() (err error) {
			if err := w.open(); err != nil {
				return err
			}
			for range 3 {
				if err := w.f.round(t.Context()); err != nil {
					return err
				}
				for _, what := range []struct {
					op claim.Op
					to ton.Address
				}{{claim.ClientCharge, w.client(alice)}, {claim.WorkerPayout, worker}} {
					if n, ok := w.signed(what.op, what.to); ok {
						w.carry(what.op, what.to, n)
					}
				}
				if answered < 2 {
					h, err := w.reserve(alice, secretOf(alice), 1_000_000)
					if err != nil {
						return err
					}
					if _, err := w.records(h, 1_000_000); err != nil {
						return err
					}
					answered++
				}
			}
			return nil
		}
		err := settles()
		if w.stop != nil {
			w.stop()
		}
		killed := err != nil
		choose := []func() bool{func() bool { return true }, func() bool { return false }, func() bool { return step%2 == 0 }}[step%3]
		w.disk.keep(choose)
		w.disk.fail = nil
		if err := settles(); err != nil {
			t.Fatalf("killed at step %d, the boot after: %v", step, err)
		}
		w.look()
		if n, ok := w.signed(claim.ClientCharge, w.client(alice)); ok {
			w.carry(claim.ClientCharge, w.client(alice), n)
		}
		took := w.took()
		if n, ok := w.signed(claim.WorkerPayout, worker); ok {
			w.carry(claim.WorkerPayout, worker, n)
		}
		w.look()
		// The first boot's record that was not told of may be counted or not.
		if took != 2_000_000_000 && took != 3_000_000_000 || w.f.paid() != took/1000 {
			t.Fatalf("killed at step %d: %d nanotons taken, %d tokens paid", step, took, w.f.paid())
		}
		w.stop()
		if !killed {
			break
		}
		steps++
	}
	if steps < 12 {
		t.Errorf("%d steps, too few to test anything", steps)
	}
}

// paid returns what the worker has been paid by the view.
func (f *follower) paid() uint64 { return f.keeper.ledger.settling.view.Worker.Tokens }

// TestClosesLate: what empties the proxy is not signed while a client is open, whatever the host asks.
func TestClosesLate(t *testing.T) {
	w := newWorld(t)
	w.opens(alice, 5*coin)
	w.opens(bob, 5*coin)
	w.boot()
	w.look()
	h := must(w.reserve(alice, secretOf(alice), 10))
	w.ends = true
	w.look()
	if _, ok := w.signed(claim.ProxyClose, w.proxy); ok {
		t.Error("the end begins while an answer is on its way")
	}
	w.keeper.ask(call{op: opRelease, held: h})
	w.look()
	w.carrySigned(claim.ProxyClose, w.proxy)
	w.topUp(bob, coin) // which is sent back, and still counts in his contract
	w.look()
	w.carrySigned(claim.ClientRefund, w.client(alice))
	w.chain.Advance(1000)
	w.send(chaintest.Message{From: carrier, To: payoutOwner, Value: 1})
	w.look()
	w.boot()
	w.look()
	lines := slices.Clone(w.handed())
	if _, ok := w.signed(claim.ProxyCloseComplete, w.proxy); ok {
		t.Errorf("emptied with Bob's contract open: %q", lines)
	}
	if n, ok := w.signed(claim.ClientRefund, w.client(bob)); ok {
		t.Errorf("Bob is granted a refund at %d of coins that were sent back", n)
	}
}
