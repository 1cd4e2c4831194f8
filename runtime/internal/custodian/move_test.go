package custodian

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"chrysalis/measure/eventlog"
	"chrysalis/measure/register"
	"chrysalis/runtime/role"
	"chrysalis/runtime/secret"
)

func moveTo(c *Custodian, taker register.Digest) (role.Answer, role.Loan, error) {
	return c.Answer(role.LoanCall{Call: role.CallMove, Giver: giver, Taker: taker})
}

// successor is a custodian on a disk of its own that has taken the secret over, after the boots of its own.
func successor(t testing.TB, d *disk, l role.Loan, boots uint64) *Custodian {
	t.Helper()
	c, err := Open(d, [32]byte{3}, role.Kept{Secret: aSecret(t), Boots: boots, Held: l.Held, Came: role.Coming{Number: l.Number, Boots: l.Boots}}, lease, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// wantAnswer makes a call, which nobody gets a secret by.
func wantAnswer(t testing.TB, c *Custodian, call role.LoanCall, want role.Answer) {
	t.Helper()
	a, l, err := c.Answer(call)
	if a != want || l.Secret != nil || err != nil {
		t.Errorf("call %d of number %d: got %v, a secret: %t, error %v, want %v", call.Call, call.Number, a, l.Secret != nil, err, want)
	}
}

func moved(number uint64, s *secret.Secret) role.LoanCall {
	return role.LoanCall{Call: role.CallMoved, Number: number, Proof: s.Moved(number)}
}

// TestMove: the secret is the old custodian's until it hears that the new one has it, and the new one's from when that was acknowledged;
// numbers, boots and those who held it go on.
func TestMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, e := newDisk(), newDisk()
		c := open(t, d, 0)
		if a, l, err := moveTo(c, other); a != role.AnswerHeld || l.Secret != nil || err != nil {
			t.Errorf("in the lease after its start: got %v, a secret: %t, error %v, want held", a, l.Secret != nil, err)
		}
		time.Sleep(waited)
		wantLent(t, c, 1, 0)
		call(t, c, role.CallCount, 1)
		wantAnswer(t, c, moved(1, aSecret(t)), role.AnswerNotHeld) // a guest that borrows has the secret, too
		if a, l, err := moveTo(c, other); a != role.AnswerHeld || l.Secret != nil || err != nil {
			t.Errorf("while it is lent: got %v, a secret: %t, error %v, want held", a, l.Secret != nil, err)
		}
		call(t, c, role.CallBack, 1)
		a, l, err := moveTo(c, other)
		if want := []register.Digest{giver}; a != role.AnswerDone || err != nil || l.Number != 2 || l.Boots != 1 || !slices.Equal(l.Held, want) || !l.Secret.Equal(aSecret(t)) {
			t.Fatalf("got %v, number %d after %d boots, held by %v, error %v, want number 2 after 1, held by %v, and the secret", a, l.Number, l.Boots, l.Held, err, want)
		}
		wantHeld(t, c) // the taker may have it
		for _, kind := range []role.Call{role.CallRenew, role.CallCount, role.CallBack} {
			wantAnswer(t, c, role.LoanCall{Call: kind, Number: 2}, role.AnswerNotHeld)
		}

		n := successor(t, e, l, 0)
		time.Sleep(waited)
		wantAnswer(t, n, role.LoanCall{Call: role.CallLend, Giver: other, Taker: other}, role.AnswerNotHeld) // it is not settled
		wantAnswer(t, n, role.LoanCall{Call: role.CallMove, Giver: other, Taker: other}, role.AnswerNotHeld)
		wantAnswer(t, n, moved(2, aSecret(t)), role.AnswerNotHeld)
		wantAnswer(t, n, role.LoanCall{Call: role.CallSettle, Number: 1}, role.AnswerNotHeld)
		a, came, err := n.Answer(role.LoanCall{Call: role.CallCame})
		if a != role.AnswerHeld || err != nil || came.Number != 2 || came.Proof != aSecret(t).Moved(2) {
			t.Fatalf("the new one: got %v, number %d, error %v, want held under number 2, and its proof", a, came.Number, err)
		}

		stranger, err := secret.New(slices.Repeat([]byte{8}, secret.Size))
		if err != nil {
			t.Fatal(err)
		}
		for _, forged := range []role.LoanCall{moved(2, stranger), moved(1, aSecret(t)), moved(3, aSecret(t)),
			{Call: role.CallMoved, Number: 2, Proof: aSecret(t).Moved(1)}, {Call: role.CallMoved, Number: 1, Proof: aSecret(t).Moved(2)}} {
			wantAnswer(t, c, forged, role.AnswerNotHeld)
		}
		wantAnswer(t, c, role.LoanCall{Call: role.CallSettle, Number: 2}, role.AnswerNotHeld)
		if c.Gone() {
			t.Fatal("the secret is gone before its taker has said that it has it")
		}
		gone := func(c *Custodian) {
			t.Helper()
			if !c.Gone() {
				t.Error("the secret is not gone")
			}
			zeros := false
			c.secret.Expose(func(raw []byte) { zeros = slices.Equal(raw, make([]byte, secret.Size)) })
			if !zeros {
				t.Error("the secret is still in memory")
			}
			time.Sleep(waited)
			for _, refused := range []role.LoanCall{{Call: role.CallLend, Giver: giver, Taker: giver}, {Call: role.CallMove, Giver: giver, Taker: other},
				{Call: role.CallRenew, Number: 2}, moved(2, stranger), moved(3, aSecret(t))} {
				wantAnswer(t, c, refused, role.AnswerGone)
			}
			wantAnswer(t, c, moved(2, aSecret(t)), role.AnswerDone) // whose answer was lost
			wantAnswer(t, c, role.LoanCall{Call: role.CallCame}, role.AnswerDone)
		}
		wantAnswer(t, c, moved(2, aSecret(t)), role.AnswerDone)
		gone(c)
		gone(open(t, d, 1))

		n = successor(t, e, l, 1) // started again before it was settled
		wantAnswer(t, n, role.LoanCall{Call: role.CallLend, Giver: other, Taker: other}, role.AnswerNotHeld)
		time.Sleep(waited)
		wantAnswer(t, n, role.LoanCall{Call: role.CallSettle, Number: 2}, role.AnswerDone)
		wantAnswer(t, n, role.LoanCall{Call: role.CallSettle, Number: 2}, role.AnswerNotHeld)
		wantAnswer(t, n, role.LoanCall{Call: role.CallLend, Giver: other, Taker: other}, role.AnswerHeld) // for a lease from then on
		n = successor(t, e, l, 2)
		wantAnswer(t, n, role.LoanCall{Call: role.CallCame}, role.AnswerDone)
		time.Sleep(waited)
		a, l, err = n.Answer(role.LoanCall{Call: role.CallLend, Giver: other, Taker: other})
		if a != role.AnswerDone || err != nil || l.Number != 3 || l.Boots != 1 || !slices.Equal(l.Held, []register.Digest{giver}) {
			t.Errorf("the new one lends: got %v, loan %d after %d boots, held by %v, error %v, want loan 3 after 1, held by %v", a, l.Number, l.Boots, l.Held, err, giver)
		}
	})
}

// TestMoveSuperseded: a taker that says too late that it has the secret is refused, when another has been given it since: it never lends.
func TestMoveSuperseded(t *testing.T) {
	for name, next := range map[string]func(*Custodian) (role.Answer, role.Loan, error){
		"lent since":       func(c *Custodian) (role.Answer, role.Loan, error) { return lendTo(c, giver) },
		"moved once again": func(c *Custodian) (role.Answer, role.Loan, error) { return moveTo(c, other) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDisk()
				c := open(t, d, 0)
				time.Sleep(waited)
				if a, _, err := moveTo(c, other); a != role.AnswerDone || err != nil {
					t.Fatalf("got %v, error %v", a, err)
				}
				time.Sleep(waited)
				a, l, err := next(c)
				if a != role.AnswerDone || err != nil || l.Number != 2 {
					t.Fatalf("got %v, number %d, error %v, want number 2", a, l.Number, err)
				}
				wantAnswer(t, c, moved(1, aSecret(t)), role.AnswerNotHeld)
				wantAnswer(t, open(t, d, 1), moved(1, aSecret(t)), role.AnswerNotHeld)
			})
		})
	}
	// Where nobody was given it since, there is no hurry.
	synctest.Test(t, func(t *testing.T) {
		d := newDisk()
		c := open(t, d, 0)
		time.Sleep(waited)
		if a, _, err := moveTo(c, other); a != role.AnswerDone || err != nil {
			t.Fatalf("got %v, error %v", a, err)
		}
		c = open(t, d, 1)
		time.Sleep(100 * waited)
		wantAnswer(t, c, moved(1, aSecret(t)), role.AnswerDone)
	})
}

// TestMoveCut takes the power of either custodian away at each of its writes, lost and kept. Whatever was cut, at no time do both lend; and
// once both run again and have spoken to each other, one does.
func TestMoveCut(t *testing.T) {
	cuts := 0
	for _, side := range []string{"giver", "taker"} {
		for cut := 1; ; cut++ {
			ended := false
			for _, kept := range []bool{false, true} {
				for _, lendsFirst := range []bool{false, true} {
					t.Run(fmt.Sprintf("%s's write %d, kept %t, the old one asked first %t", side, cut, kept, lendsFirst), func(t *testing.T) {
						synctest.Test(t, func(t *testing.T) {
							w := &moving{t: t, old: newDisk(), new: newDisk()}
							w.oldC = open(t, w.old, 0)
							time.Sleep(waited)
							on := map[string]*disk{"giver": w.old, "taker": w.new}[side]
							on.writes, on.cut, on.kept = 0, cut, kept
							whole := w.run()
							ended = whole
							on.cut = 0
							if !whole {
								cuts++
							}
							w.oldC = open(t, w.old, 1)
							w.newC = nil
							time.Sleep(waited)
							if lendsFirst {
								w.wantOne(false)
							}
							w.run()
							time.Sleep(waited)
							w.wantOne(true)
						})
					})
				}
			}
			if ended || t.Failed() {
				break
			}
		}
	}
	if cuts < 4*5 {
		t.Errorf("the power was cut %d times, want 20 at least: it tests nothing", cuts)
	}
}

// moving is a move between two machines. taken is what the new one's vault has.
type moving struct {
	t          *testing.T
	old, new   *disk
	oldC, newC *Custodian
	taken      *role.Loan
	boots      uint64
}

// run does what is left of the move, as init does it, and reports whether all of it was done.
func (w *moving) run() bool {
	if w.taken == nil {
		a, l, err := moveTo(w.oldC, other)
		if err != nil || a != role.AnswerDone {
			return false
		}
		w.taken = &l
	}
	var err error
	w.newC, err = Open(w.new, [32]byte{3}, role.Kept{Secret: aSecret(w.t), Boots: w.boots, Held: w.taken.Held,
		Came: role.Coming{Number: w.taken.Number, Boots: w.taken.Boots}}, lease, nil)
	if err != nil {
		return false
	}
	w.boots++
	a, came, err := w.newC.Answer(role.LoanCall{Call: role.CallCame})
	if err != nil {
		return false
	}
	if a == role.AnswerDone {
		return true
	}
	if a, _, err := w.oldC.Answer(role.LoanCall{Call: role.CallMoved, Number: came.Number, Proof: came.Proof}); err != nil || a != role.AnswerDone {
		return false
	}
	a, _, err = w.newC.Answer(role.LoanCall{Call: role.CallSettle, Number: came.Number})
	return err == nil && a == role.AnswerDone
}

// wantOne wants one of the two to lend; one wants it to be so, else it may be none.
func (w *moving) wantOne(one bool) {
	w.t.Helper()
	lends := 0
	for _, c := range []*Custodian{w.oldC, w.newC} {
		if c == nil {
			continue
		}
		if a, l, err := lendTo(c, giver); err == nil && a == role.AnswerDone {
			lends++
			if l.Loan == (eventlog.Loan{}) || !l.Secret.Equal(aSecret(w.t)) {
				w.t.Error("what was lent is not the secret, or has no number")
			}
		}
	}
	if lends > 1 || one && lends != 1 {
		w.t.Errorf("%d custodians lend the secret, want one", lends)
	}
}

// TestMoveJournals: the two custodians' journals have one key. Neither opens the other's.
func TestMoveJournals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, e := newDisk(), newDisk()
		c := open(t, d, 0)
		time.Sleep(waited)
		a, l, err := moveTo(c, other)
		if a != role.AnswerDone || err != nil {
			t.Fatalf("got %v, error %v", a, err)
		}
		kept := role.Kept{Secret: aSecret(t), Held: l.Held, Came: role.Coming{Number: l.Number, Boots: l.Boots}}
		successor(t, e, l, 0)
		for boots := range uint64(2) {
			kept.Boots = boots
			if _, err := Open(&disk{b: slices.Clone(d.b)}, [32]byte{3}, kept, lease, nil); err == nil {
				t.Errorf("the new one, after %d boots, over the old one's journal: got no error, want one", boots)
			}
			if _, err := Open(&disk{b: slices.Clone(e.b)}, [32]byte{3}, role.Kept{Secret: aSecret(t), Boots: boots}, lease, nil); err == nil {
				t.Errorf("the old one, after %d boots, over the new one's journal: got no error, want one", boots)
			}
		}
	})
}

// TestHead: a checkpoint has all that is durable, and one that follows entries has to say what they say.
func TestHead(t *testing.T) {
	base := state{number: 7, boots: 3}
	states := map[string]state{"settled": base}
	for name, change := range map[string]func(*state){
		"another number": func(s *state) { s.number++ }, "more boots": func(s *state) { s.boots++ }, "unsettled": func(s *state) { s.open = true },
		"moving": func(s *state) { s.moving = true }, "gone": func(s *state) { s.gone[31] = 1 },
	} {
		s := base
		change(&s)
		states[name] = s
	}
	with := func(s state, began bool) *Custodian {
		return &Custodian{secret: aSecret(t), came: 5, state: s, held: []register.Digest{giver, other}, began: began}
	}
	for name, s := range states {
		head := books{with(s, false)}.Head()
		got := &Custodian{secret: aSecret(t), came: 5, state: state{number: 5, open: true}}
		if err := (books{got}).Begin(head); err != nil || got.state != s || !slices.Equal(got.held, []register.Digest{giver, other}) {
			t.Errorf("%s: got %+v, held by %v, error %v, want %+v", name, got.state, got.held, err, s)
		}
		for after, entries := range states {
			if err := (books{with(entries, true)}).Begin(head); (err == nil) != (name == after) {
				t.Errorf("%s, after entries that say %s: got error %v", name, after, err)
			}
		}
		for at, want := range map[int]string{len(head) - 1: "a checkpoint has", headBytes - 1: "a checkpoint has"} {
			if err := (books{with(s, false)}).Begin(head[:at]); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s, cut to %d bytes: got %v, want an error with %q", name, at, err, want)
			}
		}
		head[24] |= 4
		if err := (books{with(s, false)}).Begin(head); err == nil {
			t.Errorf("%s, with what is nothing: got no error, want one", name)
		}
	}
}

// TestEntriesOutOfPlace: a journal whose entries can't follow each other opens for nobody.
func TestEntriesOutOfPlace(t *testing.T) {
	lend, move := role.LoanCall{Call: role.CallLend, Number: 6, Giver: giver, Taker: giver}, role.LoanCall{Call: role.CallMove, Number: 6, Giver: giver, Taker: other}
	settle, gone := role.LoanCall{Call: role.CallSettle, Number: 5}, role.LoanCall{Call: role.CallMoved, Number: 6, Proof: [32]byte{1}}
	next := role.LoanCall{Call: role.CallLend, Number: 7, Giver: giver, Taker: giver}
	for name, tt := range map[string]struct {
		entries []role.LoanCall
		opens   bool
	}{
		"settled, moved and gone":     {[]role.LoanCall{settle, move, gone}, true},
		"lent before it was settled":  {[]role.LoanCall{lend}, false},
		"settled twice":               {[]role.LoanCall{settle, settle}, false},
		"lent after it was gone":      {[]role.LoanCall{settle, move, gone, next}, false},
		"a number left out":           {[]role.LoanCall{settle, next}, false},
		"a question, which is no act": {[]role.LoanCall{settle, {Call: role.CallCame}}, false},
	} {
		d := newDisk()
		kept := func(boots uint64) role.Kept {
			return role.Kept{Secret: aSecret(t), Boots: boots, Came: role.Coming{Number: 5}}
		}
		c, err := Open(d, [32]byte{3}, kept(0), lease, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, entry := range tt.entries {
			if _, err := c.journal.Commit(entry.Encode()); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := Open(d, [32]byte{3}, kept(1), lease, nil); (err == nil) != tt.opens {
			t.Errorf("%s: got error %v, want it to open: %t", name, err, tt.opens)
		}
	}
}
