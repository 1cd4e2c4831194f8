package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"chrysalis/attest"
	"chrysalis/attest/evidence"
	"chrysalis/attest/handover"
	"chrysalis/attest/release"
	"chrysalis/init/status"
	"chrysalis/measure"
	"chrysalis/measure/register"
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
	before       string     // measurement of the release before, which has held the secret
}

// client is a client of one of its guests, which knows the release before.
func (l lending) client(g guest.Guest, spec guest.Spec) client {
	more := []string{"--manifest", filepath.Join(spec.Release, "manifest.json")}
	if l.before != "" {
		more = append(more, "--held-by", l.before)
	}
	return client{l.t, fmt.Sprintf("https://127.0.0.1:%d", spec.Port), g.Roots(spec.Shape), makePolicy(l.t, spec, more...)}
}

// valuesOf are the reference values of a release on the spec's machine, as its policy has them.
func valuesOf(t *testing.T, spec guest.Spec) release.Release {
	t.Helper()
	text, err := os.ReadFile(makePolicy(t, spec, "--manifest", filepath.Join(spec.Release, "manifest.json")))
	if err != nil {
		t.Fatal(err)
	}
	var rules attest.Rules
	if err := json.Unmarshal(text, &rules); err != nil || len(rules.Releases) != 1 {
		t.Fatalf("got %d releases (error %v), want one", len(rules.Releases), err)
	}
	return rules.Releases[0]
}

// succeeded has a custodian of another release take the secret over, which cut cuts meanwhile where it is not nil, and returns what is lent
// then. Nobody may have the secret lent.
func (l lending) succeeded(next guest.Spec, cut func(guest.Guest)) (after lending) {
	t := l.t
	t.Helper()
	old := valuesOf(t, l.kept)
	d := release.NewDocument(time.Now(), time.Hour)
	for i, r := range []release.Release{old, valuesOf(t, next)} {
		r.Name, r.SecurityVersion = fmt.Sprint(i), uint32(2+i) // as published has them
		d.Releases = append(d.Releases, release.Listed{Manifest: register.Digest{byte(i + 1)}, Values: r, Rebuilds: []release.Envelope{}})
	}
	list, err := release.EncodeList(d)
	if err != nil {
		t.Fatal(err)
	}
	for _, seed := range []byte{1, 2} {
		if list, err = release.SignList(list, releaseKey(seed)); err != nil {
			t.Fatal(err)
		}
	}
	after = lending{t: t, keeper: newGuest(t), kept: onOwnPort(t, next), lentTo: onOwnPort(t, next)}
	after.kept.Config, after.lentTo.Config = l.kept.Config, l.lentTo.Config
	after.kept.SoftwareRoot, after.lentTo.SoftwareRoot = l.kept.SoftwareRoot, l.lentTo.SoftwareRoot
	after.kept.Custodian, after.kept.List = guest.LocalCustodian(l.kept), filepath.Join(t.TempDir(), "list.json")
	after.lentTo.Custodian = guest.LocalCustodian(after.kept)
	if err := os.WriteFile(after.kept.List, list, 0o644); err != nil {
		t.Fatal(err)
	}
	if cut != nil {
		if err := after.keeper.Start(t.Context(), after.kept); err != nil {
			t.Fatal(err)
		}
		cut(after.keeper)
	}
	start(t, after.keeper, after.kept)
	platform, values := evidence.VTPM, old.Entries(evidence.VTPM)
	switch l.kept.Shape.Platform {
	case measure.TDX:
		platform, values = evidence.TDX, old.Entries(evidence.TDX)
	case measure.SEVSNP:
		platform, values = evidence.SEVSNP, old.Entries(evidence.SEVSNP)
	}
	measurement, err := handover.Measurement(platform, values[0].Values)
	if err != nil {
		t.Fatal(err)
	}
	after.before = measurement.String()
	return after
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

// lent wants the guest to serve by a loan of this number, with the key that the custodian keeps, and each to be told from the other. held are
// the images that have held the secret before.
func (l lending) lent(g guest.Guest, number uint64, held ...string) (key string) {
	t := l.t
	t.Helper()
	custodian, c := l.client(l.keeper, l.kept), l.client(g, l.lentTo)
	keeps, borrowed := custodian.loan(), c.loan()
	if keeps.Loan.Number != 0 || keeps.ClaimKey == "" {
		t.Errorf("the custodian: got %+v, want a key and no loan", keeps)
	}
	if borrowed.Loan.Number != number || borrowed.Loan.Lender == "" || borrowed.ClaimKey != keeps.ClaimKey || !slices.Equal(borrowed.Held, held) || !slices.Equal(keeps.Held, held) {
		t.Errorf("the guest: got %+v, want loan %d, held by %q before, and the key that the custodian keeps, %+v", borrowed, number, held, keeps)
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
// key that it had, under another loan, and while it runs nobody else has it. Then the secret goes to a custodian of the next release.
func TestCustodian(t *testing.T) {
	needsGuests(t)
	old, _ := published(t, tdSpec(t), 2)
	next, _ := published(t, old, 3)
	l := newLending(t, old)
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
	key := l.lent(first, 2)

	if err := first.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	after := l.succeeded(next, nil)
	if err := first.Start(t.Context(), after.lentTo); err != nil { // with its journal, of the next release too
		t.Fatal(err)
	}
	after.upTo(first, status.Gateway)
	if again := after.lent(first, 4, after.before); again != key {
		t.Errorf("the next release's custodian has the key %s, want %s", again, key)
	}
	l.refuses(second)

	// The custodian's power goes, and with it what renews the loan: the guest ends, with a word.
	after.keeper.Cut()
	after.endOf(first, status.LoanLost)
}

// refuses wants the custodian that gave its secret away to say so, and to lend nothing.
func (l lending) refuses(g guest.Guest) {
	t := l.t
	t.Helper()
	if err := g.Start(t.Context(), l.lentTo); err != nil {
		t.Fatal(err)
	}
	l.endOf(g, status.LoanRefused)
	text, err := os.ReadFile(l.keeper.Path(guest.StatusFile))
	if err != nil {
		t.Fatal(err)
	}
	lines, err := status.ParseAll(text)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(lines, func(line status.Line) bool { return line.Event == status.SecretMoved }) {
		t.Errorf("the custodian that gave its secret away said %v, want %s among it", lines, status.SecretMoved)
	}
}

// TestCustodianSealsSNP: on SEV-SNP a custodian has its secret, and the count of its loans, after its power was cut; it is not
// lent to two; and a custodian of the next release has both, whose power is cut once it has taken the secret over. The old one lends it
// to nobody then.
func TestCustodianSealsSNP(t *testing.T) {
	needsGuests(t)
	custodianSeals(t, snpSpec(t))
}

// TestCustodianSealsTPM is TestCustodianSealsSNP with a TPM.
func TestCustodianSealsTPM(t *testing.T) {
	needsGuests(t)
	custodianSeals(t, demoSpec(t))
}

func custodianSeals(t *testing.T, spec guest.Spec) {
	t.Helper()
	old, _ := published(t, spec, 2)
	next, _ := published(t, old, 3)
	l := newLending(t, old)
	first, second := newGuest(t), newGuest(t)
	start(t, l.keeper, l.kept)
	if err := first.Start(t.Context(), l.lentTo); err != nil {
		t.Fatal(err)
	}
	l.upTo(first, status.Gateway)
	if err := second.Start(t.Context(), onOwnPort(t, l.lentTo)); err != nil {
		t.Fatal(err)
	}
	key := l.lent(first, 1)
	l.endOf(second, status.LoanHeld)
	l.keeper.Cut()
	l.endOf(first, status.LoanLost)

	// The borrower may come before its custodian does. Its power goes when its boot is counted.
	if err := first.Start(t.Context(), l.lentTo); err != nil {
		t.Fatal(err)
	}
	start(t, l.keeper, l.kept)
	l.upTo(first, status.Keeper)
	first.Cut()
	after := l.succeeded(next, func(g guest.Guest) {
		l.upTo(g, status.Secret)
		g.Cut()
	})
	l.refuses(second)
	if err := first.Start(t.Context(), after.lentTo); err != nil { // with its journal, of the next release too
		t.Fatal(err)
	}
	after.upTo(first, status.Gateway)
	if again := after.lent(first, 4, after.before); again != key {
		t.Errorf("the next release's custodian has the key %s, want %s", again, key)
	}
}
