package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"testing"

	"chrysalis/init/status"
	"chrysalis/tools/internal/guest"
)

// loanOf is what a client learns of a guest's secret.
type loanOf struct {
	Verdict  string   `json:"verdict"`
	ClaimKey string   `json:"claim_key"`
	Held     []string `json:"held"`
	Loan     struct {
		Number uint64 `json:"number"`
		Lender string `json:"lender"`
	} `json:"loan"`
}

func (c client) loan() (l loanOf) {
	c.t.Helper()
	out, _ := chrysalis(c.t, 0, c.remote("verify", "--json")...)
	if err := json.Unmarshal([]byte(out), &l); err != nil || l.Verdict != "accepted" {
		c.t.Fatalf("got %s (error %v), want it accepted", out, err)
	}
	return l
}

// lending is a custodian and guests of its identity, under a root that their machines have in common.
type lending struct {
	t            *testing.T
	keeper       guest.Guest
	kept, lentTo guest.Spec // of the custodian, and of whoever borrows from it
}

func newLending(t *testing.T, spec guest.Spec) lending {
	t.Helper()
	l := lending{t: t, keeper: newGuest(t), lentTo: spec}
	l.lentTo.SoftwareRoot = filepath.Join(t.TempDir(), "root.pem")
	vouches, err := l.keeper.SoftwareRoot(t.Context(), spec.Shape.Platform, l.lentTo.SoftwareRoot)
	if err != nil {
		t.Fatal(err)
	}
	// The lease is long: an emulated guest on a busy machine stands still for seconds.
	l.lentTo.Config = guest.Borrowing(spec.Config, spec.Shape.Platform, [][]byte{vouches})
	l.kept = onOwnPort(t, l.lentTo)
	l.kept.Config = guest.AsCustodian(l.lentTo.Config)
	l.lentTo.Custodian = guest.LocalCustodian(l.kept)
	return l
}

// upTo waits until a guest that was started has done a step.
func (l lending) upTo(g guest.Guest, step status.Step) {
	l.t.Helper()
	reached := errors.New("as far as it should come")
	booting, cancel := context.WithTimeout(l.t.Context(), bootLimit)
	defer cancel()
	waiting, done := context.WithCancelCause(booting)
	if err := g.Wait(waiting, func(line status.Line) {
		if line.Step == step {
			done(reached)
		}
	}); context.Cause(waiting) != reached {
		l.t.Fatalf("waiting for %s: %v", step, err)
	}
}

// endOf waits for a guest's end.
func (l lending) endOf(g guest.Guest, want status.Code) {
	l.t.Helper()
	waiting, cancel := context.WithTimeout(l.t.Context(), bootLimit)
	defer cancel()
	if code, err := g.WaitEnd(waiting); code != want {
		l.t.Errorf("got the end %s (error %v), want %s", code, err, want)
	}
}

// lent wants the guest to serve by a loan of this number, with the key that the custodian keeps, and each to be told from the other.
func (l lending) lent(g guest.Guest, number uint64) (key string) {
	t := l.t
	t.Helper()
	custodian, c := newClient(t, l.keeper, l.kept), newClient(t, g, l.lentTo)
	keeps, borrowed := custodian.loan(), c.loan()
	if keeps.Loan.Number != 0 || keeps.ClaimKey == "" {
		t.Errorf("the custodian: got %+v, want a key and no loan", keeps)
	}
	if borrowed.Loan.Number != number || borrowed.Loan.Lender == "" || borrowed.ClaimKey != keeps.ClaimKey || len(borrowed.Held) != 0 {
		t.Errorf("the guest: got %+v, want loan %d, no other image, and the key that the custodian keeps, %s", borrowed, number, keeps.ClaimKey)
	}
	if answer := c.ask(question); answer.text != oslo {
		t.Errorf("got the answer %q, want %q", answer.text, oslo)
	}
	for name, mixed := range map[string]client{"the custodian as a guest that serves": custodian.with(c.policy), "a guest that serves as the custodian": c.with(custodian.policy)} {
		if v := mixed.verify(1); v.Check != "config.service.custodian" {
			t.Errorf("%s: got refused by %q, want by config.service.custodian", name, v.Check)
		}
	}
	return keeps.ClaimKey
}

// TestCustodian has the unmodified release keep a secret for TDs, which have nothing to seal one with: a TD that is started again has the
// key that it had, under another loan, and while it runs nobody else has it.
func TestCustodian(t *testing.T) {
	needsGuests(t)
	l := newLending(t, tdSpec(t))
	first, second := newGuest(t), newGuest(t)

	// The power goes when the first boot is counted.
	start(t, l.keeper, l.kept)
	if err := first.Start(t.Context(), l.lentTo); err != nil {
		t.Fatal(err)
	}
	l.upTo(first, status.Keeper)
	if err := first.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	// It borrows anew, once its lease is over; and while it has the loan another guest of the same owner is refused, which is of image and
	// identity as it should be.
	if err := first.Start(t.Context(), l.lentTo); err != nil {
		t.Fatal(err)
	}
	l.upTo(first, status.Gateway)
	if err := second.Start(t.Context(), onOwnPort(t, l.lentTo)); err != nil {
		t.Fatal(err)
	}
	l.endOf(second, status.LoanHeld)
	l.lent(first, 2)

	// The custodian's power goes, and with it what renews the loan: the guest ends, with a word.
	l.keeper.Cut()
	l.endOf(first, status.LoanLost)
}

// TestCustodianSeals: on SEV-SNP and with a TPM a custodian has its secret, and the count of its loans, after its power was cut.
func TestCustodianSeals(t *testing.T) {
	for name, spec := range map[string]func(*testing.T) guest.Spec{"sev-snp": snpSpec, "vtpm": demoSpec} {
		t.Run(name, func(t *testing.T) {
			needsGuests(t)
			l := newLending(t, spec(t))
			first := newGuest(t)
			start(t, l.keeper, l.kept)
			if err := first.Start(t.Context(), l.lentTo); err != nil {
				t.Fatal(err)
			}
			l.upTo(first, status.Gateway)
			key := l.lent(first, 1)
			l.keeper.Cut()
			l.endOf(first, status.LoanLost)

			if err := first.Start(t.Context(), l.lentTo); err != nil { // it may come before the custodian does
				t.Fatal(err)
			}
			start(t, l.keeper, l.kept)
			l.upTo(first, status.Gateway)
			if again := l.lent(first, 2); again != key {
				t.Errorf("the custodian's key is %s after its power was cut, want %s", again, key)
			}
		})
	}
}
