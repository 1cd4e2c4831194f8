package lending

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"chrysalis/attest/evidence"
	"chrysalis/measure/register"
	"chrysalis/runtime/role"
)

// TestLoan: on each platform the secret is lent to a guest of the same image and identity, for as long as it renews, with a number one
// higher each time; and it is nobody else's meanwhile.
func TestLoan(t *testing.T) {
	for _, platform := range evidence.Platforms() {
		inBubble(t, platform.String(), func(t *testing.T) {
			h := newHardware(platform)
			l := newLender(t, custodianOn(h))
			first, err := borrow(t, l, borrowerOn(h)) // waits for whoever borrowed before the custodian's start
			if err != nil {
				t.Fatal(err)
			}
			if !first.Secret.Equal(theSecret()) || first.Number != 1 || first.Boots != 0 || len(first.Held) != 0 {
				t.Errorf("got loan %d after %d boots, held by %v, want 1, 0 and nobody, and the secret", first.Number, first.Boots, first.Held)
			}
			if first.Lender == (register.Digest{}) || first.Lender == sha256.Sum256(nil) {
				t.Errorf("the lender is %s, want a machine", first.Lender)
			}
			if a, err := first.Call(t.Context(), role.CallCount); a != role.AnswerDone || err != nil {
				t.Errorf("counting a boot: got %v, error %v", a, err)
			}
			stop, kept := keep(t, first)
			if loan, err := borrow(t, l, borrowerOn(h)); !errors.Is(err, ErrHeld) {
				t.Errorf("while another renews: got loan %v and error %v, want %v", loan, err, ErrHeld)
			}
			time.Sleep(10 * lease)
			select {
			case err := <-kept:
				t.Fatalf("a loan that is renewed ended: %v", err)
			default:
			}
			stop()
			<-kept
			if a, err := first.Call(t.Context(), role.CallBack); a != role.AnswerDone || err != nil {
				t.Errorf("giving it back: got %v, error %v", a, err)
			}
			began := time.Now()
			second, err := borrow(t, l, borrowerOn(h))
			if err != nil || second.Number != 2 || second.Boots != 1 || time.Since(began) > lease/4 {
				t.Errorf("after it was given back: got %+v, error %v after %s, want loan 2 at once, after 1 boot", second, err, time.Since(began))
			}
			if err := first.Keep(t.Context()); !errors.Is(err, ErrLost) {
				t.Errorf("renewing what was given back: got %v, want %v", err, ErrLost)
			}
		})
	}
}

// TestPublicLoan: between TDs with COCOON's public identity, whose registers name no config, the secret is lent as elsewhere: to the same identity,
// and to nobody whose statement the key in its report data did not sign.
func TestPublicLoan(t *testing.T) {
	unsigned := func(e *evidence.Evidence) {
		e.Binding = evidence.Bind(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{8}, 32)), e.Statement)
	}
	for _, tt := range []struct {
		name, want string
		change     func(c, b *party)
	}{
		{"both", "", func(_, _ *party) {}},
		{"a borrower of another identity", "the other's identity is", func(_, b *party) { b.config.Identity.Cocoon = false }},
		{"a custodian of another identity", "the other's identity is", func(c, _ *party) { c.config.Identity.Cocoon = false }},
		{"a borrower with a key of its host's", "report-data", func(_, b *party) { b.edit = unsigned }},
		{"a custodian with a key of its host's", "report-data", func(c, _ *party) { c.edit = unsigned }},
	} {
		inBubble(t, tt.name, func(t *testing.T) {
			h := newHardware(evidence.TDX)
			c, b := custodianOn(h), borrowerOn(h)
			c.config.Identity.Cocoon, b.config.Identity.Cocoon = true, true
			tt.change(c, b)
			loan, err := borrow(t, newLender(t, c), b)
			if tt.want == "" && (err != nil || !loan.Secret.Equal(theSecret())) {
				t.Errorf("got error %v, want the secret", err)
			}
			if tt.want != "" && (loan != nil || err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got loan %v and error %v, want an error with %q", loan, err, tt.want)
			}
		})
	}
}

// TestSilence: a borrower whose custodian refuses, is silent or gone has lost the loan, never later than the custodian lends it again.
func TestSilence(t *testing.T) {
	for name, spoil := range map[string]func(l *lender){
		"refuses": func(l *lender) {
			l.lies = func(role.LoanCall, role.Answer, role.Loan) (role.Answer, role.Loan) {
				return role.AnswerNotHeld, role.Loan{}
			}
		},
		"fails":   func(l *lender) { l.silent = true },
		"is gone": func(l *lender) { l.server.Close() },
		"hangs":   func(l *lender) { l.hangs = make(chan struct{}) },
	} {
		inBubble(t, name, func(t *testing.T) {
			h := newHardware(evidence.TDX)
			l := newLender(t, custodianOn(h))
			loan, err := borrow(t, l, borrowerOn(h))
			if err != nil {
				t.Fatal(err)
			}
			stop, kept := keep(t, loan)
			defer stop()
			time.Sleep(3 * lease)
			l.mu.Lock()
			spoil(l)
			hangs := l.hangs
			l.mu.Unlock()
			if hangs != nil {
				defer close(hangs)
			}
			began := time.Now()
			if err := <-kept; !errors.Is(err, ErrLost) || time.Since(began) > lease {
				t.Errorf("got %v after %s, want %v within %s", err, time.Since(began), ErrLost, lease)
			}
		})
	}
}

// TestCut takes the power of the borrower's machine away at each message of the protocol, before it arrives and after: who borrows next
// gets another number, and not before whoever may have the secret has lost it.
func TestCut(t *testing.T) {
	for at := 1; ; at++ {
		done := false
		inBubble(t, "", func(t *testing.T) {
			h := newHardware(evidence.TDX)
			l := newLender(t, custodianOn(h))
			lapse() // of the start
			cut := &cutConn{Conn: l.dial(), left: at}
			p := borrowerOn(h)
			loan, err := Borrow(t.Context(), cut, p.side(t), nil, p.evidence)
			if done = err == nil && cut.left > 0; done {
				loan.asker.client.CloseIdleConnections()
				return
			}
			if loan != nil {
				t.Cleanup(loan.asker.client.CloseIdleConnections)
			}
			synctest.Wait() // what has arrived is judged
			l.mu.Lock()
			lent := len(l.calls)
			l.mu.Unlock()
			began := time.Now()
			next, err := borrow(t, l, borrowerOn(h))
			if err != nil {
				t.Fatalf("cut at %d: %v", at, err)
			}
			waited := time.Since(began)
			if lent > 0 && (next.Number != 2 || waited < lease) || lent == 0 && (next.Number != 1 || waited > lease) {
				t.Errorf("cut at %d, lent %d times: got loan %d after %s, want another number, and a lease waited out where it was lent", at, lent, next.Number, waited)
			}
		})
		if done || t.Failed() {
			if at < 6 {
				t.Errorf("the loan came after %d messages: nothing was cut", at)
			}
			return
		}
	}
}

// cutConn is a connection that ends after so many writes and reads of the borrower's: the last of them has gone through.
type cutConn struct {
	net.Conn
	mu   sync.Mutex
	left int
}

func (c *cutConn) pass(n int, err error) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left--; c.left == 0 {
		c.Conn.Close()
	}
	return n, err
}

func (c *cutConn) Read(p []byte) (int, error)  { return c.pass(c.Conn.Read(p)) }
func (c *cutConn) Write(p []byte) (int, error) { return c.pass(c.Conn.Write(p)) }

// TestCustodianCut starts the custodian again at each point of a loan's life: the number goes on, what was lent before is renewed by
// nobody, and nothing is lent before it is over.
func TestCustodianCut(t *testing.T) {
	for name, after := range map[string]int{"before it lends": 0, "after it lent": 1, "after a boot was counted": 2, "after it was given back": 3} {
		inBubble(t, name, func(t *testing.T) {
			h := newHardware(evidence.TDX)
			l := newLender(t, custodianOn(h))
			var want, boots uint64 = 1, 0
			var old *Loan
			if after > 0 {
				var err error
				if old, err = borrow(t, l, borrowerOn(h)); err != nil {
					t.Fatal(err)
				}
				want = 2
			}
			for i, c := range []role.Call{role.CallCount, role.CallBack} {
				if after > 1+i {
					if a, err := old.Call(t.Context(), c); a != role.AnswerDone || err != nil {
						t.Fatalf("call %d: %v, %v", c, a, err)
					}
					boots = 1
				}
			}
			l.server.Close()
			l.start(t, custodianOn(h))
			if old != nil {
				if err := old.Keep(t.Context()); !errors.Is(err, ErrLost) {
					t.Errorf("a loan of before: got %v, want %v", err, ErrLost)
				}
			}
			began := time.Now()
			next, err := borrow(t, l, borrowerOn(h))
			if err != nil || next.Number != want || next.Boots != boots || time.Since(began) < lease {
				t.Errorf("got %+v, error %v after %s, want loan %d after %d boots, not before a lease is over", next, err, time.Since(began), want, boots)
			}
		})
	}
}

// TestHeldList: a loan says which images have had the secret, and the borrower gets the list with it.
func TestHeldList(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		h := newHardware(evidence.TDX)
		l := newLender(t, custodianOn(h))
		before := []register.Digest{{1}, {2}}
		l.lies = func(c role.LoanCall, a role.Answer, loan role.Loan) (role.Answer, role.Loan) {
			if loan.Secret != nil {
				loan.Held = before
			}
			return a, loan
		}
		loan, err := borrow(t, l, borrowerOn(h))
		if err != nil || !slices.Equal(loan.Held, before) {
			t.Errorf("got %+v and error %v, want it held by %v", loan, err, before)
		}
	})
}
