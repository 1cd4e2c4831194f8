package collateral

import (
	"bytes"
	"errors"
	"net/http"
	"testing"
	"time"

	"chrysalis/attest/attesttest"
	"chrysalis/attest/check"
	"chrysalis/attest/evidence"
	"chrysalis/attest/sevsnp"
	"chrysalis/attest/tdx"
)

func (w *world) td() *evidence.Evidence {
	return &evidence.Evidence{Platform: evidence.TDX, Quote: w.tdxBuilt.Quote}
}

func (w *world) snpGuest() *evidence.Evidence {
	return &evidence.Evidence{Platform: evidence.SEVSNP, Quote: w.snpBuilt.Report}
}

func TestComplete(t *testing.T) {
	w := newWorld(t, nil)
	td := w.td()
	if err := w.Complete(t.Context(), td); err != nil {
		t.Fatal(err)
	}
	if want, err := w.tdxBuilt.Collateral.Encode(); err != nil || !bytes.Equal(td.Collateral, want) {
		t.Errorf("TDX: got %.60q (%v), want the service's collateral", td.Collateral, err)
	}
	snp := w.snpGuest()
	if err := w.Complete(t.Context(), snp); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(snp.Collateral, w.snpBuilt.CRL) || len(snp.Certificates) != 3 ||
		!bytes.Equal(snp.Certificates[0], w.snpBuilt.Certificate) {
		t.Errorf("SEV-SNP: got a list of %d bytes and %d certificates, want the service's", len(snp.Collateral), len(snp.Certificates))
	}
	before := w.requests.Load()
	stapled := &evidence.Evidence{Platform: evidence.TDX, Quote: td.Quote, Collateral: []byte("the guest's")}
	for _, e := range []*evidence.Evidence{stapled, {Platform: evidence.VTPM}, {Platform: evidence.TDX, Quote: []byte("no quote")},
		{Platform: evidence.SEVSNP}} {
		if err := w.Complete(t.Context(), e); err != nil {
			t.Errorf("%s: got %v, want nothing to be done", e.Platform, err)
		}
	}
	if string(stapled.Collateral) != "the guest's" || w.requests.Load() != before {
		t.Errorf("what does not parse became %q after %d requests", stapled.Collateral, w.requests.Load()-before)
	}
	w.hook = func(out http.ResponseWriter, _ *http.Request) bool {
		http.Error(out, "no", http.StatusNotFound)
		return true
	}
	old := *w.snp
	old.Report.Version, old.Report.CPUID = 2, sevsnp.CPUID{} // names no line of processors
	nameless := &evidence.Evidence{Platform: evidence.SEVSNP, Quote: old.Evidence().Report}
	for _, e := range []*evidence.Evidence{w.td(), w.snpGuest(), nameless} {
		if err := w.Complete(t.Context(), e); !errors.Is(err, check.ErrUnavailable) {
			t.Errorf("%s: got %v, want check.ErrUnavailable", e.Platform, err)
		}
	}
}

// TestStaple: the owner of a machine, who hands out its evidence, does not decide how old the collateral is. Of each document the
// later issue is taken, and where there is no service the staple stays.
func TestStaple(t *testing.T) {
	hours := func(n int) time.Time { return start.Add(time.Duration(n) * time.Hour) }
	for _, tt := range []struct {
		name         string
		issued, next int  // of the stapled TCB info, in hours from now; the service's was issued an hour ago
		broken       bool // the service
		accepted     bool
		stapled      bool // the staple's TCB info is what stays
	}{
		{"ended, and a service", -30 * 24, -1, false, true, false},
		{"ended, and no service", -30 * 24, -1, true, false, true},
		{"29 days old, and a service", -29 * 24, 24, false, true, false},
		{"29 days old, and no service", -29 * 24, 24, true, true, true},
		{"newer than the service's", 0, 24, false, true, true},
		{"as old as the service's", -1, 23, false, true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, nil)
			theirs := w.tdxBuilt.Collateral
			w.tdx.TCBInfo.IssueDate, w.tdx.TCBInfo.NextUpdate = hours(tt.issued), hours(tt.next)
			own := *theirs
			own.TCBInfo = w.tdx.Build().Collateral.TCBInfo
			w.tdx.Resign(&own)
			if tt.broken {
				w.hook = func(out http.ResponseWriter, _ *http.Request) bool { out.WriteHeader(http.StatusNotFound); return true }
			}
			e := w.td()
			var err error
			if e.Collateral, err = own.Encode(); err != nil {
				t.Fatal(err)
			}
			if err := w.Complete(t.Context(), e); err != nil {
				t.Fatal(err)
			}
			got, err := tdx.ParseCollateral(e.Collateral)
			if err != nil {
				t.Fatal(err)
			}
			if stapled := bytes.Equal(got.TCBInfo, own.TCBInfo); stapled != tt.stapled {
				t.Errorf("the stapled TCB info stays: got %t, want %t", stapled, tt.stapled)
			}
			if _, err := tdx.Verify(e.Quote, got, tdx.Options{}, start, w.tdxBuilt.Root); (err == nil) != tt.accepted {
				t.Errorf("verdict: got %v, want accepted: %t", err, tt.accepted)
			}
		})
	}
}

// TestStapleOfOthers: a later date alone lets no document in: it must be by the same signers, about the same machines.
func TestStapleOfOthers(t *testing.T) {
	for name, other := range map[string]func(m *attesttest.TDX){
		"another machine's TCB info":  func(m *attesttest.TDX) { m.TCBInfo.FMSPC = "00906F000000" },
		"another signer":              func(m *attesttest.TDX) { m.TCBInfoChain[0] = m.Signer.Authority(m.Root, nil) },
		"an older document":           func(m *attesttest.TDX) { m.TCBInfo.IssueDate = start.Add(-2 * time.Hour) },
		"the same signer's newer one": nil,
	} {
		t.Run(name, func(t *testing.T) {
			own := newWorld(t, nil)
			older := own.tdxBuilt.Collateral.TCBInfo
			own.tdx.TCBInfo.IssueDate = start
			if other != nil {
				other(own.tdx)
			}
			e := own.tdx.Build() // both sets are under this root: it is made anew each time
			fetched := *e.Collateral
			fetched.TCBInfo, fetched.TCBInfoIssuerChain = older, fetched.QEIdentityIssuerChain
			own.tdx.TCBInfoChain = own.tdx.QEIdentityChain
			own.tdx.Resign(&fetched)
			got := tdx.Latest(e.Collateral, &fetched, e.Root)
			if won := bytes.Equal(got.TCBInfo, e.Collateral.TCBInfo); won != (other == nil) {
				t.Errorf("the stapled document won: got %t, want %t", won, other == nil)
			}
		})
	}
	w := newWorld(t, nil)
	// Nor does one under another root.
	other := newWorld(t, nil)
	other.tdx.TCBInfo.IssueDate = start
	other.build()
	if got := tdx.Latest(other.tdxBuilt.Collateral, w.tdxBuilt.Collateral, w.tdxBuilt.Root); !bytes.Equal(got.TCBInfo,
		w.tdxBuilt.Collateral.TCBInfo) {
		t.Error("a document under another root won")
	}
}

// TestStapledCRL is TestStaple for SEV-SNP's revocation list.
func TestStapledCRL(t *testing.T) {
	for _, tt := range []struct {
		name    string
		issued  time.Duration // of the staple, against the service's
		forged  bool
		broken  bool
		stapled bool
	}{
		{"older", -time.Hour, false, false, false},
		{"older, and no service", -time.Hour, false, true, true},
		{"newer", time.Minute, false, false, true},
		{"newer, signed by somebody else", time.Minute, true, false, false},
		{"as old", 0, false, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, nil)
			service := w.snpBuilt.CRL
			list := *w.snp.CRL
			list.ThisUpdate = list.ThisUpdate.Add(tt.issued)
			w.snp.CRL = &list
			if tt.forged {
				w.snp.CRLKey = w.snp.ASKKey
			}
			staple := w.snp.Evidence()
			if tt.broken {
				w.hook = func(out http.ResponseWriter, _ *http.Request) bool { out.WriteHeader(http.StatusNotFound); return true }
			}
			e := w.snpGuest()
			e.Certificates, e.Collateral = append([][]byte{staple.Certificate}, staple.Chain...), staple.CRL
			if err := w.Complete(t.Context(), e); err != nil {
				t.Fatal(err)
			}
			if want := service; bytes.Equal(e.Collateral, want) == tt.stapled && tt.issued != 0 {
				t.Errorf("the staple stays: got %t, want %t", !bytes.Equal(e.Collateral, want), tt.stapled)
			}
		})
	}
}
