package custodian

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"chrysalis/measure/eventlog"
	"chrysalis/measure/register"
	"chrysalis/runtime/internal/journal"
	"chrysalis/runtime/role"
	"chrysalis/runtime/secret"
)

const lease = time.Minute

// disk is a disk in memory. From its cut on, writes are lost and fail; the write of that number reaches the disk where kept is set, and
// fails all the same.
type disk struct {
	b      []byte
	writes int
	cut    int // 0: never
	kept   bool
}

func newDisk() *disk { return &disk{b: make([]byte, 1<<20)} }

func (d *disk) ReadAt(p []byte, off int64) (int, error) { return copy(p, d.b[off:]), nil }
func (d *disk) Sync() error                             { return nil }
func (d *disk) Size() (int64, error)                    { return int64(len(d.b)), nil }
func (d *disk) WriteAt(p []byte, off int64) (int, error) {
	d.writes++
	if fails := d.cut > 0 && d.writes >= d.cut; fails {
		if d.kept && d.writes == d.cut {
			copy(d.b[off:], p)
		}
		return 0, errors.New("the power is gone")
	}
	return copy(d.b[off:], p), nil
}

func aSecret(t testing.TB) *secret.Secret {
	t.Helper()
	s, err := secret.New(slices.Repeat([]byte{7}, secret.Size))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var giver, other = register.Digest{1}, register.Digest{2}

func open(t testing.TB, d *disk, boots uint64) *Custodian {
	t.Helper()
	c, err := Open(d, [32]byte{3}, role.Kept{Secret: aSecret(t), Boots: boots}, lease, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func lendTo(c *Custodian, taker register.Digest) (role.Answer, role.Loan, error) {
	return c.Answer(role.LoanCall{Call: role.CallLend, Giver: giver, Taker: taker})
}

func call(t testing.TB, c *Custodian, kind role.Call, number uint64) role.Answer {
	t.Helper()
	a, l, err := c.Answer(role.LoanCall{Call: kind, Number: number})
	if err != nil || l.Secret != nil {
		t.Fatalf("call %d of loan %d: got a secret: %t, error %v", kind, number, l.Secret != nil, err)
	}
	return a
}

func wantLent(t testing.TB, c *Custodian, number, boots uint64) {
	t.Helper()
	a, l, err := lendTo(c, giver)
	if err != nil || a != role.AnswerDone || l.Number != number || l.Boots != boots || l.Secret == nil || !l.Secret.Equal(aSecret(t)) {
		t.Fatalf("got %v, loan %d after %d boots, error %v, want loan %d after %d boots, of the secret", a, l.Number, l.Boots, err, number, boots)
	}
}

func wantHeld(t testing.TB, c *Custodian) {
	t.Helper()
	if a, l, err := lendTo(c, giver); a != role.AnswerHeld || l.Secret != nil || err != nil {
		t.Fatalf("got %v, a secret: %t, error %v, want held", a, l.Secret != nil, err)
	}
}

const waited = lease + lease/8 + time.Millisecond

// TestOneHolder: nobody has the secret lent while somebody may have it, for as long as that one renews and a lease and a margin more; and
// a number is dead once its lease has run out.
func TestOneHolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t, newDisk(), 0)
		if a, l, err := c.Answer(role.LoanCall{Call: role.CallLend}); err == nil || l.Secret != nil {
			t.Errorf("lent to nobody: got %v, a secret: %t, no error, want one", a, l.Secret != nil)
		}
		wantHeld(t, c) // whoever borrowed before the start
		time.Sleep(lease + lease/8)
		wantHeld(t, c)
		time.Sleep(time.Millisecond)
		wantLent(t, c, 1, 0)
		for range 10 {
			time.Sleep(lease)
			wantHeld(t, c)
			if a := call(t, c, role.CallRenew, 1); a != role.AnswerDone {
				t.Fatalf("a renewal in time: got %v", a)
			}
		}
		for name, number := range map[string]uint64{"of the next loan": 2, "of no loan": 0} {
			if a := call(t, c, role.CallRenew, number); a != role.AnswerNotHeld {
				t.Errorf("a renewal %s: got %v, want not held", name, a)
			}
		}
		time.Sleep(lease + time.Millisecond)
		if a := call(t, c, role.CallRenew, 1); a != role.AnswerNotHeld {
			t.Errorf("a renewal a moment too late: got %v, want not held", a)
		}
		wantHeld(t, c) // the margin
		time.Sleep(lease / 8)
		wantLent(t, c, 2, 0)
		for _, kind := range []role.Call{role.CallRenew, role.CallCount, role.CallBack} {
			if a := call(t, c, kind, 1); a != role.AnswerNotHeld {
				t.Errorf("call %d of the loan before: got %v, want not held", kind, a)
			}
		}
		wantHeld(t, c)
	})
}

// TestBack: a loan that is given back is over at once, for who gave it back too.
func TestBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t, newDisk(), 0)
		time.Sleep(waited)
		wantLent(t, c, 1, 0)
		for _, kind := range []role.Call{role.CallCount, role.CallCount, role.CallBack} {
			if a := call(t, c, kind, 1); a != role.AnswerDone {
				t.Fatalf("call %d: got %v", kind, a)
			}
		}
		if a := call(t, c, role.CallRenew, 1); a != role.AnswerNotHeld {
			t.Errorf("a renewal after it was given back: got %v, want not held", a)
		}
		wantLent(t, c, 2, 1) // counted once
		if a := call(t, c, role.CallBack, 1); a != role.AnswerNotHeld {
			t.Errorf("the first loan given back again: got %v, want not held", a)
		}
		wantHeld(t, c)
	})
}

// TestRestart: number, boots and those who held it go on; nothing is lent and nothing renewed before a lease is over, whatever the journal
// says of the last loan.
func TestRestart(t *testing.T) {
	for name, back := range map[string]bool{"lent": false, "given back": true} {
		synctest.Test(t, func(t *testing.T) {
			d := newDisk()
			c := open(t, d, 0)
			time.Sleep(waited)
			wantLent(t, c, 1, 0)
			call(t, c, role.CallCount, 1)
			if back {
				call(t, c, role.CallBack, 1)
			}
			c = open(t, d, 1)
			if a := call(t, c, role.CallRenew, 1); a != role.AnswerNotHeld {
				t.Errorf("%s: a renewal of a loan of before: got %v, want not held", name, a)
			}
			wantHeld(t, c)
			time.Sleep(waited)
			wantLent(t, c, 2, 1)
		})
	}
}

// TestHeldBefore: each loan says which images have had the secret before it, its own excepted; a secret that too many have had stays.
func TestHeldBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk()
		next := func(c *Custodian, taker register.Digest) role.Loan {
			time.Sleep(waited)
			a, l, err := lendTo(c, taker)
			if a != role.AnswerDone || err != nil {
				t.Fatalf("lending to %s: got %v, error %v", taker, a, err)
			}
			return l
		}
		c := open(t, d, 0)
		for i, tt := range []struct {
			taker register.Digest
			want  []register.Digest
		}{
			{giver, nil}, {other, []register.Digest{giver}}, {giver, []register.Digest{other}}, {register.Digest{9}, []register.Digest{giver, other}},
		} {
			if got := next(c, tt.taker).Held; !slices.Equal(got, tt.want) {
				t.Errorf("loan %d: held by %v, want %v", i+1, got, tt.want)
			}
		}
		c = open(t, d, 1)
		if got, want := next(c, giver).Held, []register.Digest{other, {9}}; !slices.Equal(got, want) {
			t.Errorf("after a restart: held by %v, want %v", got, want)
		}
		var many []register.Digest
		for i := range eventlog.MaxHeld {
			many = append(many, register.Digest{4, byte(i)})
		}
		c, err := Open(newDisk(), [32]byte{3}, role.Kept{Secret: aSecret(t), Held: many}, lease, nil)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(waited)
		if a, l, err := lendTo(c, other); a != role.AnswerFull || l.Secret != nil || err != nil {
			t.Errorf("a secret that %d have held: got %v, a secret: %t, error %v, want full", eventlog.MaxHeld+1, a, l.Secret != nil, err)
		}
		if a, l, err := lendTo(c, giver); a != role.AnswerDone || len(l.Held) != eventlog.MaxHeld || err != nil {
			t.Errorf("to the custodian's own image: got %v, held by %d, error %v, want it lent, held by %d", a, len(l.Held), err, eventlog.MaxHeld)
		}
	})
}

// TestManyLoans: the journal's ring comes round many times, and number, boots and images are what they were.
func TestManyLoans(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{b: make([]byte, 256<<10)}
		boots, loans := uint64(0), uint64(0)
		for range 12 {
			c := open(t, d, boots)
			if boots++; c.number != loans || c.boots != loans {
				t.Fatalf("boot %d begins with loan %d and %d boots counted, want %d of each", boots, c.number, c.boots, loans)
			}
			time.Sleep(waited)
			for range 150 {
				loans++
				taker := register.Digest{7, byte(loans % 50)}
				if a, l, err := lendTo(c, taker); err != nil || a != role.AnswerDone || l.Number != loans || l.Boots != loans-1 || len(l.Held) > 50 {
					t.Fatalf("loan %d: got %v, loan %d after %d boots, held by %d, error %v", loans, a, l.Number, l.Boots, len(l.Held), err)
				}
				call(t, c, role.CallCount, loans)
				call(t, c, role.CallBack, loans)
			}
		}
		if c := open(t, d, boots); len(c.held) != 51 {
			t.Errorf("%d images have held it, want 51: the journal has forgotten some", len(c.held))
		}
	})
}

// TestCheckpointRefuses: a checkpoint that is not what the entries came to is refused.
func TestCheckpointRefuses(t *testing.T) {
	c := open(t, newDisk(), 0)
	head := books{c}.Head()
	for name, bad := range map[string][]byte{
		"short": head[:15], "half a measurement": append(head, 1), "another number": append([]byte{9}, head[1:]...),
		"other boots": append(append([]byte{}, head[:8]...), 9, 0, 0, 0, 0, 0, 0, 0),
	} {
		if err := (books{c}).Begin(bad); err == nil {
			t.Errorf("%s: got no error, want one", name)
		}
	}
	if err := (books{c}).Begin(head); err != nil {
		t.Errorf("the checkpoint itself: %v", err)
	}
	if err := (books{c}).Part([]byte{1}); err == nil {
		t.Error("a part: got no error, want one")
	}
}

// TestPowerCut cuts the power at each write, lost and kept: the custodian ends, and afterwards no number is lent twice and no boot lost
// that was acknowledged.
func TestPowerCut(t *testing.T) {
	for cut := 1; ; cut++ {
		done := false
		for _, kept := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				d := newDisk()
				open(t, d, 0)
				c := open(t, d, 1)
				d.writes, d.cut, d.kept = 0, cut, kept
				var lent, counted uint64
				script := []func() (role.Answer, error){
					func() (role.Answer, error) {
						a, l, err := lendTo(c, giver)
						if err == nil {
							lent = l.Number
						}
						return a, err
					},
					func() (role.Answer, error) {
						a, _, err := c.Answer(role.LoanCall{Call: role.CallCount, Number: lent})
						if err == nil {
							counted++
						}
						return a, err
					},
					func() (role.Answer, error) {
						a, _, err := c.Answer(role.LoanCall{Call: role.CallBack, Number: lent})
						return a, err
					},
				}
				time.Sleep(waited)
				failed := false
				for range 2 {
					for _, step := range script {
						if failed {
							break
						}
						a, err := step()
						if failed = err != nil; !failed && a != role.AnswerDone {
							t.Fatalf("cut %d: got %v", cut, a)
						}
					}
				}
				if done = done || !failed; !failed {
					return
				}
				time.Sleep(waited)
				if a, _, err := lendTo(c, giver); err == nil {
					t.Errorf("cut %d: got %v of a custodian whose disk failed, want an error", cut, a)
				}
				d.cut = 0
				c = open(t, d, 2)
				wantHeld(t, c)
				time.Sleep(waited)
				a, l, err := lendTo(c, giver)
				if err != nil || a != role.AnswerDone || l.Number <= lent || l.Number > lent+2 || l.Boots < counted || l.Boots > counted+1 {
					t.Errorf("cut %d, kept %t: got %v, loan %d after %d boots, error %v, want one after %d, and %d boots or one more", cut, kept, a, l.Number, l.Boots, err, lent, counted)
				}
			})
		}
		if done {
			if cut < 6 {
				t.Errorf("the script was done after %d writes, want 6 at least: it tests nothing", cut)
			}
			return
		}
	}
}

// TestJournalRefuses: a journal that is older than the last boot, or another's, opens for nobody.
func TestJournalRefuses(t *testing.T) {
	d := newDisk()
	open(t, d, 0)
	if _, err := Open(newDisk(), [32]byte{3}, role.Kept{Secret: aSecret(t), Boots: 1}, lease, nil); !errors.Is(err, journal.ErrRolledBack) {
		t.Errorf("a blank disk after a boot: got %v, want %v", err, journal.ErrRolledBack)
	}
	if _, err := Open(d, [32]byte{4}, role.Kept{Secret: aSecret(t)}, lease, nil); !errors.Is(err, journal.ErrForeign) {
		t.Errorf("another's journal: got %v, want %v", err, journal.ErrForeign)
	}
	j, err := journal.Open(d, [32]byte{3}, 1, books{new(Custodian)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := j.Commit(make([]byte, 73)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(d, [32]byte{3}, role.Kept{Secret: aSecret(t), Boots: 2}, lease, nil); err == nil {
		t.Error("an entry of no call: got no error, want one")
	}
}
