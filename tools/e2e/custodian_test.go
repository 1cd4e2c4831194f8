package e2e

import (
	"context"
	"encoding/json"
	"path/filepath"
	"testing"
	"time"

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
	spec.Config.Identity.Custody.LeaseSeconds = 12
	kept := onOwnPort(t, spec)
	kept.Config = guest.AsCustodian(spec.Config)
	start(t, keeper, kept)
	spec.Custodian = guest.LocalCustodian(kept)
	start(t, first, spec)

	c := newClient(t, first, spec)
	one := c.loan()
	if one.Loan.Number != 1 || one.Loan.Lender == "" || len(one.Held) != 0 {
		t.Errorf("got %+v, want loan 1 of a custodian's, and no other image", one)
	}
	if answer := c.ask(question); answer.text != oslo {
		t.Errorf("got the answer %q, want %q", answer.text, oslo)
	}
	custodian := newClient(t, keeper, kept)
	if got := custodian.loan(); got.Loan.Number != 0 || got.ClaimKey != one.ClaimKey {
		t.Errorf("the custodian: got %+v, want no loan, and the key that it lends, %s", got, one.ClaimKey)
	}
	for name, mixed := range map[string]client{"the custodian as a guest that serves": custodian.with(c.policy), "a guest that serves as the custodian": c.with(custodian.policy)} {
		if v := mixed.verify(1); v.Verdict != "rejected" {
			t.Errorf("%s: got %+v, want it rejected", name, v)
		}
	}

	// Another guest of the same owner, of image and identity as they should be.
	other := onOwnPort(t, spec)
	if err := second.Start(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), bootLimit)
	defer cancel()
	if code, err := second.WaitEnd(ctx); code != status.LoanHeld {
		t.Errorf("a second guest: got the end %s (error %v), want %s", code, err, status.LoanHeld)
	}
	if again := c.loan(); again.Loan != one.Loan || again.ClaimKey != one.ClaimKey {
		t.Errorf("the first guest then: got %+v, want %+v", again, one)
	}

	// Its power goes, and it borrows anew: not before its lease is over.
	if err := first.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	start(t, first, spec)
	two := c.with(makePolicy(t, spec)).loan()
	if two.ClaimKey != one.ClaimKey || two.Loan.Number != 2 || two.Loan.Lender != one.Loan.Lender {
		t.Errorf("after another boot: got %+v, want loan 2 of the same custodian's and the key of before, %s", two, one.ClaimKey)
	}

	// The custodian's power goes, and with it what renews the loan: the guest ends, with a word.
	keeper.Cut()
	began := time.Now()
	if code, err := first.WaitEnd(ctx); code != status.LoanLost {
		t.Errorf("without its custodian: got the end %s (error %v), want %s", code, err, status.LoanLost)
	}
	if took := time.Since(began); took > time.Minute {
		t.Errorf("it ended after %s, want it within a lease", took)
	}
}
