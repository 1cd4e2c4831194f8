package collateral

import (
	"errors"
	"net/http"
	"testing"

	sevdata "github.com/google/go-sev-guest/verify/testdata"

	"chrysalis/attest/check"
	"chrysalis/attest/evidence"
	"chrysalis/attest/sevsnp"
	"chrysalis/attest/tdx"
)

func TestComplete(t *testing.T) {
	f, requests := service(t, nil)
	td := &evidence.Evidence{Platform: evidence.TDX, Quote: quote(t).Encode()}
	if err := f.Complete(t.Context(), td); err != nil {
		t.Fatal(err)
	}
	if c, err := tdx.ParseCollateral(td.Collateral); err != nil || string(c.TCBInfo) != tcbInfo {
		t.Errorf("TDX: got %.60q (%v), want the service's collateral", td.Collateral, err)
	}
	report, err := sevsnp.Parse(sevdata.AttestationBytes)
	if err != nil {
		t.Fatal(err)
	}
	report.Version, report.CPUID = 3, sevsnp.CPUID{Family: 0x19, Model: 1, Stepping: 1}
	snp := &evidence.Evidence{Platform: evidence.SEVSNP, Quote: report.Marshal()}
	if err := f.Complete(t.Context(), snp); err != nil {
		t.Fatal(err)
	}
	if string(snp.Collateral) != "crl" || len(snp.Certificates) != 3 {
		t.Errorf("SEV-SNP: got revocation list %q and %d certificates, want the service's and 3", snp.Collateral, len(snp.Certificates))
	}
	before := requests.Load()
	stapled := &evidence.Evidence{Platform: evidence.TDX, Quote: td.Quote, Collateral: []byte("the guest's")}
	for _, e := range []*evidence.Evidence{stapled, {Platform: evidence.VTPM}, {Platform: evidence.TDX, Quote: []byte("no quote")}, {Platform: evidence.SEVSNP}} {
		if err := f.Complete(t.Context(), e); err != nil {
			t.Errorf("%s: got %v, want nothing to be done", e.Platform, err)
		}
	}
	if string(stapled.Collateral) != "the guest's" || requests.Load() != before {
		t.Errorf("stapled collateral became %q after %d requests", stapled.Collateral, requests.Load()-before)
	}
	broken, _ := service(t, func(w http.ResponseWriter, _ *http.Request) bool {
		http.Error(w, "no", http.StatusNotFound)
		return true
	})
	for _, e := range []*evidence.Evidence{{Platform: evidence.TDX, Quote: td.Quote}, {Platform: evidence.SEVSNP, Quote: snp.Quote}, {Platform: evidence.SEVSNP, Quote: sevdata.AttestationBytes}} {
		if err := broken.Complete(t.Context(), e); !errors.Is(err, check.ErrUnavailable) {
			t.Errorf("%s: got %v, want check.ErrUnavailable", e.Platform, err)
		}
	}
}
