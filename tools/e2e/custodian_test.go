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

// TestCustodian has the unmodified release keep a secret for TDs, which have nothing to seal one with: a TD that is started again has the
// key that it had, under another loan, and while it runs nobody else has it.
func TestCustodian(t *testing.T) {
	needsGuests(t)
	keeper, first, second := newGuest(t), newGuest(t), newGuest(t)
	root := filepath.Join(t.TempDir(), "root.pem")
	vouches, err := keeper.SoftwareRoot(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	spec := tdSpec(t)
	spec.SoftwareRoot, spec.Config = root, guest.Borrowing(spec.Config, [][]byte{vouches})
	spec.Config.Identity.Custody.LeaseSeconds = 30 // an emulated guest on a busy machine stands still for seconds
	kept := onOwnPort(t, spec)
	kept.Config = guest.AsCustodian(spec.Config)
	spec.Custodian = guest.LocalCustodian(kept)
	ctx := t.Context()
	upTo := func(g guest.Guest, step status.Step) {
		t.Helper()
		reached := errors.New("as far as it should come")
		booting, cancel := context.WithTimeout(ctx, bootLimit)
		defer cancel()
		waiting, done := context.WithCancelCause(booting)
		if err := g.Wait(waiting, func(line status.Line) {
			if line.Step == step {
				done(reached)
			}
		}); context.Cause(waiting) != reached {
			t.Fatalf("waiting for %s: %v", step, err)
		}
	}

	endOf := func(g guest.Guest, want status.Code) {
		t.Helper()
		waiting, cancel := context.WithTimeout(ctx, bootLimit)
		defer cancel()
		if code, err := g.WaitEnd(waiting); code != want {
			t.Errorf("got the end %s (error %v), want %s", code, err, want)
		}
	}

	// The power goes when the first boot is counted.
	start(t, keeper, kept)
	if err := first.Start(ctx, spec); err != nil {
		t.Fatal(err)
	}
	upTo(first, status.Keeper)
	if err := first.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	// It borrows anew, once its lease is over; and while it has the loan another guest of the same owner is refused, which is of image and
	// identity as it should be.
	if err := first.Start(ctx, spec); err != nil {
		t.Fatal(err)
	}
	upTo(first, status.Gateway)
	if err := second.Start(ctx, onOwnPort(t, spec)); err != nil {
		t.Fatal(err)
	}
	endOf(second, status.LoanHeld)

	custodian := newClient(t, keeper, kept)
	keeps := custodian.loan()
	if keeps.Loan.Number != 0 || keeps.ClaimKey == "" {
		t.Errorf("the custodian: got %+v, want a key and no loan", keeps)
	}
	c := newClient(t, first, spec)
	borrowed := c.loan()
	if borrowed.Loan.Number != 2 || borrowed.Loan.Lender == "" || borrowed.ClaimKey != keeps.ClaimKey || len(borrowed.Held) != 0 {
		t.Errorf("in its second boot: got %+v, want loan 2, no other image, and the key that the custodian keeps, %s", borrowed, keeps.ClaimKey)
	}
	if answer := c.ask(question); answer.text != oslo {
		t.Errorf("got the answer %q, want %q", answer.text, oslo)
	}
	for name, mixed := range map[string]client{"the custodian as a guest that serves": custodian.with(c.policy), "a guest that serves as the custodian": c.with(custodian.policy)} {
		if v := mixed.verify(1); v.Check != "config.service.custodian" {
			t.Errorf("%s: got refused by %q, want by config.service.custodian", name, v.Check)
		}
	}

	// The custodian's power goes, and with it what renews the loan: the guest ends, with a word.
	keeper.Cut()
	endOf(first, status.LoanLost)
}
