package lending

import (
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"chrysalis/attest/evidence"
	"chrysalis/measure/register"
	"chrysalis/runtime/internal/custodian"
	"chrysalis/runtime/role"
	"chrysalis/runtime/secret"
)

// TestMove: on each platform the secret goes to a custodian of the same identity, and is the old one's until the new one has said that it
// has it; from then on nobody borrows it there.
func TestMove(t *testing.T) {
	for _, platform := range evidence.Platforms() {
		inBubble(t, platform.String(), func(t *testing.T) {
			h := newHardware(platform)
			l := newLender(t, custodianOn(h))
			first, err := borrow(t, l, borrowerOn(h))
			if err != nil {
				t.Fatal(err)
			}
			stop, kept := keep(t, first)
			if _, loan, err := takeOver(t, l, successorOn(h)); !errors.Is(err, ErrHeld) || loan.Secret != nil {
				t.Errorf("while a guest renews its loan: got a secret: %t, error %v, want %v", loan.Secret != nil, err, ErrHeld)
			}
			stop()
			<-kept
			if a, err := first.Call(t.Context(), role.CallBack); a != role.AnswerDone || err != nil {
				t.Fatalf("giving it back: got %v, error %v", a, err)
			}
			g, loan, err := takeOver(t, l, successorOn(h))
			if err != nil || !loan.Secret.Equal(theSecret()) || loan.Number != 2 || loan.Lender == (register.Digest{}) {
				t.Fatalf("got %+v, error %v, want number 2, and the secret", loan, err)
			}
			// It is not the taker's yet, and what is no proof does not make it so.
			wrong := loan.Secret.Moved(3)
			if err := g.Moved(t.Context(), loan.Number, wrong); err == nil || !strings.Contains(err.Error(), "not held") {
				t.Errorf("with another proof: got %v, want it refused", err)
			}
			for range 2 { // once more, for an answer that was lost
				if err := g.Moved(t.Context(), loan.Number, loan.Secret.Moved(loan.Number)); err != nil {
					t.Fatalf("telling it: %v", err)
				}
			}
			lapse()
			for way, w := range ways {
				if number, _, err := w.take(t, l, w.taker(h), w.taker(h)); number != 0 || err == nil || !strings.Contains(err.Error(), errMoved.Error()) {
					t.Errorf("who %s then: got number %d and error %v, want %q", way, number, err, errMoved)
				}
			}
			l.server.Close()
			l.start(t, custodianOn(h))
			lapse()
			if loan, err := borrow(t, l, borrowerOn(h)); loan != nil || err == nil || !strings.Contains(err.Error(), errMoved.Error()) {
				t.Errorf("after a restart: got loan %v and error %v, want %q", loan, err, errMoved)
			}
		})
	}
}

// TestMoveMessages: what tells a custodian that its secret is elsewhere has one form, and needs the secret.
func TestMoveMessages(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		h := newHardware(evidence.TDX)
		l := newLender(t, custodianOn(h))
		lapse()
		_, loan, err := takeOver(t, l, successorOn(h))
		if err != nil {
			t.Fatal(err)
		}
		stranger, err := secret.New(slices.Repeat([]byte{9}, secret.Size))
		if err != nil {
			t.Fatal(err)
		}
		body := func(number uint64, proof [32]byte) []byte {
			return append(binary.LittleEndian.AppendUint64(nil, number), proof[:]...)
		}
		a, _ := raw(t, l, borrowerOn(h), nil)
		for _, tt := range []struct {
			name, want string
			body       []byte
		}{
			{"nothing", "0 bytes, want 40", nil},
			{"a byte less", "39 bytes, want 40", body(1, loan.Secret.Moved(1))[:39]},
			{"no number", "zero", body(0, loan.Secret.Moved(1))},
			{"no proof", "zero", body(1, [32]byte{})},
			{"another number", "not held", body(2, loan.Secret.Moved(2))},
			{"a proof for another number", "not held", body(1, loan.Secret.Moved(2))},
			{"a proof of another secret", "not held", body(1, stranger.Moved(1))},
		} {
			if got, err := a.ask(t.Context(), pathMoved, tt.body, 0); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: got %d bytes and error %v, want an error with %q", tt.name, len(got), err, tt.want)
			}
		}
		other, _ := raw(t, l, borrowerOn(h), nil) // which the refusal ends
		if got, err := other.ask(t.Context(), pathMoved, append(body(1, loan.Secret.Moved(1)), 0), 0); err == nil || !strings.Contains(err.Error(), "too large") {
			t.Errorf("a byte more: got %d bytes and error %v, want an error", len(got), err)
		}
		time.Sleep(time.Second)
		l.mu.Lock()
		l.silent = true
		l.mu.Unlock()
		if _, err := a.ask(t.Context(), pathMoved, body(1, loan.Secret.Moved(1)), 0); err == nil || !strings.Contains(err.Error(), "does not answer") {
			t.Errorf("of a custodian that does not answer: got %v, want it said", err)
		}
	})
}

// TestMoveCut takes the connection away at each message of a move, before it arrives and after. Then either the old custodian lends, or the
// new one, which asks again over another connection, is told that it is the only one: never both.
func TestMoveCut(t *testing.T) {
	settled, lent := 0, 0
	for at := 1; ; at++ {
		done := false
		inBubble(t, "", func(t *testing.T) {
			h := newHardware(evidence.TDX)
			l := newLender(t, custodianOn(h))
			lapse()
			cut := &cutConn{Conn: l.dial(), left: at}
			p := successorOn(h)
			var loan role.Loan
			g, err := Reach(t.Context(), cut, p.side(t), nil, p.evidence)
			if err == nil {
				t.Cleanup(g.client.CloseIdleConnections)
				loan, err = g.Move(t.Context())
			}
			if err == nil {
				err = g.Moved(t.Context(), loan.Number, loan.Secret.Moved(loan.Number))
			}
			if done = err == nil && cut.left > 0; done {
				return
			}
			synctest.Wait() // what has arrived is judged
			if loan.Secret != nil {
				again, err := reach(t, l, p)
				if err != nil {
					t.Fatal(err)
				}
				if err := again.Moved(t.Context(), loan.Number, loan.Secret.Moved(loan.Number)); err != nil {
					t.Errorf("cut at %d: over another connection: %v, want it settled", at, err)
				}
				settled++
			}
			next, err := borrow(t, l, borrowerOn(h))
			if gone := loan.Secret != nil; gone != (err != nil) || err != nil && !strings.Contains(err.Error(), errMoved.Error()) {
				t.Errorf("cut at %d: the new one has it: %t, the old one lends %v, error %v, want one of the two", at, gone, next, err)
			}
			if err == nil {
				lent++
			}
		})
		if done || t.Failed() {
			if settled < 2 || lent < 6 {
				t.Errorf("cut %d times: settled %d times over another connection, and lent %d times by the old one, want some of each", at-1, settled, lent)
			}
			return
		}
	}
}

// TestMoveLate: a custodian that says too late that it has the secret, when another guest has been lent it since, is refused, and lends nothing.
func TestMoveLate(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		h := newHardware(evidence.TDX)
		l := newLender(t, custodianOn(h))
		g, loan, err := takeOver(t, l, successorOn(h))
		if err != nil {
			t.Fatal(err)
		}
		lapse()
		if _, err := borrow(t, l, borrowerOn(h)); err != nil {
			t.Fatal(err)
		}
		if err := g.Moved(t.Context(), loan.Number, loan.Secret.Moved(loan.Number)); err == nil || !strings.Contains(err.Error(), "not held") {
			t.Errorf("got %v, want it refused", err)
		}
		c, err := custodian.Open(make(disk, 1<<20), [32]byte{3}, role.Kept{Secret: loan.Secret, Came: role.Coming{Number: loan.Number}}, lease, nil)
		if err != nil {
			t.Fatal(err)
		}
		lapse()
		if a, l, err := c.Answer(role.LoanCall{Call: role.CallLend, Giver: register.Digest{1}, Taker: register.Digest{1}}); a != role.AnswerNotHeld || l.Secret != nil || err != nil {
			t.Errorf("the late one lends: got %v, a secret: %t, error %v, want not held", a, l.Secret != nil, err)
		}
	})
}
