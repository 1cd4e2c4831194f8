package sevsnp_test

import (
	"bytes"
	"crypto/elliptic"
	"errors"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"chrysalis/attest/check"
	"chrysalis/attest/sevsnp"
)

func (r *run) verify() (*sevsnp.Result, error) {
	return sevsnp.Verify(r.Evidence(), r.options, r.at, r.roots)
}

// good returns a run with nothing wrong.
func good(product sevsnp.Product, signer sevsnp.Signer) *run {
	return vector{of: func() *run { return newRun(product, signer) }, change: func(*run) {}}.make()
}

func TestAccepts(t *testing.T) {
	for _, product := range []sevsnp.Product{sevsnp.Milan, sevsnp.Genoa, sevsnp.Turin} {
		for _, signer := range []sevsnp.Signer{sevsnp.SignerVCEK, sevsnp.SignerVLEK} {
			for version := uint32(2); version <= 5; version++ {
				r := good(product, signer)
				r.Report.Version = version
				if version < 5 {
					r.options.LaunchMitigations, r.options.CurrentMitigations = 0, 0
				}
				result, err := r.verify()
				if err != nil {
					t.Errorf("%s, %s, version %d: %v", product, signer, version, err)
					continue
				}
				want := r.Report
				if version < 3 {
					want.CPUID = sevsnp.CPUID{}
				}
				if version < 5 {
					want.LaunchMitigations, want.CurrentMitigations = 0, 0
				}
				got := result.Report()
				got.R, got.S = want.R, want.S
				if got != want || result.Product() != product || (result.CSP() != "") != (signer == sevsnp.SignerVLEK) {
					t.Errorf("%s, %s, version %d: got %+v, want %+v", product, signer, version, got, want)
				}
				if waived := result.Waived(); waived != nil {
					t.Errorf("%s, %s, version %d: waived %q, want none", product, signer, version, waived)
				}
				all, _ := sevsnp.CheckNames()
				if n := len(result.Checks()); n != len(all) {
					t.Errorf("%s, %s, version %d: %d checks, want %d", product, signer, version, n, len(all))
				}
			}
		}
	}
}

func TestAcceptsForms(t *testing.T) {
	for _, v := range forms {
		r := v.make()
		if _, err := r.verify(); err != nil {
			t.Errorf("%s: %v", v.name, err)
		}
	}
}

// TestOptions gives each option that accepts more, and shows that its check is waived and nothing else.
func TestOptions(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*run)
		waived []string
	}{
		{"provisional", func(r *run) {
			r.Report.CurrentTCB[7]++
			r.Report.Current.Build++
			r.options.AllowProvisionalFirmware = true
		}, []string{"provisional-tcb", "provisional-firmware"}},
		{"any chip", func(r *run) { r.options.Chips, r.options.AnyChip = nil, true }, []string{"chip-list"}},
		{"any TCB", func(r *run) { r.options.MinTCB, r.options.InsecureSkipTCB = nil, true }, []string{"tcb-minimum"}},
		{"no CRL", func(r *run) { r.CRL, r.options.InsecureSkipCRL = nil, true }, []string{"crl"}},
		{"VMPL", func(r *run) { r.Report.VMPL, r.options.MaxVMPL = 3, 3 }, nil},
		{"migration agent", func(r *run) {
			r.Report.ReportIDMA = [32]byte{1}
			r.Report.Policy |= sevsnp.PolicyMigrationAgent
			r.options.AllowMigrationAgent = true
		}, []string{"migration", "migration-agent"}},
		{"SMT", func(r *run) { r.Report.Policy ^= sevsnp.PolicySMT; r.options.AllowSMT = true }, []string{"smt"}},
		{"sockets", func(r *run) { r.Report.Policy ^= sevsnp.PolicySingleSocket; r.options.AllowManySockets = true }, []string{"single-socket"}},
		{"CXL", func(r *run) { r.Report.Policy ^= sevsnp.PolicyCXL; r.options.AllowCXL = true }, []string{"cxl"}},
		{"AES-128", func(r *run) { r.Report.Policy ^= sevsnp.PolicyAES256; r.options.AllowAES128 = true }, []string{"aes-256"}},
		{"RAPL", func(r *run) { r.Report.Policy ^= sevsnp.PolicyNoRAPL; r.options.AllowRAPL = true }, []string{"rapl"}},
		{"ciphertext", func(r *run) {
			r.Report.Policy ^= sevsnp.PolicyCiphertextHidden
			r.options.AllowVisibleCiphertext = true
		}, []string{"ciphertext-hiding"}},
		{"page swap", func(r *run) { r.Report.Policy ^= sevsnp.PolicyNoPageSwap; r.options.AllowPageSwap = true }, []string{"page-swap"}},
		{"aliases", func(r *run) {
			r.Report.Platform ^= sevsnp.PlatformAliasesChecked
			r.options.AllowUncheckedAliases = true
		}, []string{"aliases"}},
		{"platform info", func(r *run) { r.Report.Platform |= 1 << 6; r.options.AllowUnknownPlatformInfo = true }, []string{"platform-info"}},
		{"any measurement", func(r *run) { r.options.Measurements, r.options.AnyMeasurement = nil, true }, []string{"measurement"}},
		{"any host data", func(r *run) { r.Report.HostData[0], r.options.AnyHostData = 1, true }, []string{"host-data"}},
		{"any report data", func(r *run) { r.options.ReportData, r.options.AnyReportData = [64]byte{}, true }, []string{"report-data"}},
		{"any id block", func(r *run) { r.Report.FamilyID[0], r.options.AnyIDBlock = 1, true }, []string{"id-block"}},
		{"id block", func(r *run) { r.Report.FamilyID[0], r.options.IDBlock.FamilyID[0] = 1, 1 }, nil},
		{"id block of a key", func(r *run) {
			r.Report.FamilyID[0], r.Report.IDKeyDigest[0], r.Report.AuthorKeyDigest[0], r.Report.AuthorKeyEnabled = 1, 2, 3, true
			r.options.IDKeys = []sevsnp.IDKeys{{IDKeyDigest: [48]byte{7}}, {IDKeyDigest: [48]byte{2}, AuthorKeyDigest: [48]byte{3}}}
		}, nil},
		{"masked chip id", func(r *run) { r.Report.ChipID, r.options.AllowMaskedChip = [64]byte{}, true }, []string{"chip-masked"}},
		{"a revocation list of that very age", func(r *run) { r.options.MaxCRLAge = time.Hour }, nil},
	} {
		r := vector{change: tt.change}.make()
		result, err := r.verify()
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if got := result.Waived(); !slices.Equal(got, tt.waived) {
			t.Errorf("%s: waived %q, want %q", tt.name, got, tt.waived)
		}
	}
}

func TestZeroOptions(t *testing.T) {
	r := good(sevsnp.Genoa, sevsnp.SignerVCEK)
	r.Report.Measurement, r.Report.ReportData = [48]byte{}, [64]byte{}
	_, err := sevsnp.Verify(r.Evidence(), sevsnp.Options{}, now, r.roots)
	if !errors.Is(err, check.ErrRejected) {
		t.Errorf("zero options: got %v, want a rejection", err)
	}
	if _, err := sevsnp.Verify(r.Evidence(), r.options, now, nil); !errors.Is(err, check.ErrRejected) {
		t.Errorf("nil roots: got %v, want a rejection", err)
	}
}

func TestRefuses(t *testing.T) {
	seen := map[string]bool{}
	for _, v := range vectors {
		if seen[v.name] {
			t.Errorf("two vectors are named %q", v.name)
		}
		seen[v.name] = true
		_, err := v.make().verify()
		var refused *sevsnp.Refused
		if !errors.As(err, &refused) {
			t.Errorf("%s: got %v, want a refusal by %s", v.name, err, v.refuse)
			continue
		}
		if refused.Failed.Name != v.refuse {
			t.Errorf("%s: refused by %s (%v), want %s", v.name, refused.Failed.Name, err, v.refuse)
		}
		if unavailable := v.refuse == "crl"; errors.Is(err, check.ErrUnavailable) != unavailable ||
			errors.Is(err, check.ErrRejected) == unavailable {
			t.Errorf("%s: unavailable is %t, want %t", v.name, !unavailable, unavailable)
		}
		if refused.Failed.Verdict != check.Denied {
			t.Errorf("%s: verdict is %q, want %q", v.name, refused.Failed.Verdict, check.Denied)
		}
		checks, _ := sevsnp.CheckNames()
		signed := slices.Index(checks, v.refuse) > slices.Index(checks, "signature") || slices.Contains([]string{
			"ark-validity", "ask-validity", "certificate-validity", "crl", "crl-validity", "crl-age", "revocation"}, v.refuse)
		if report, got := refused.Report(); got != signed || (report == nil) != (v.refuse == "report-format") {
			t.Errorf("%s: report is %v and signed %t, want signed %t", v.name, report, got, signed)
		}
	}
}

// TestEveryCheckIsNeeded drops one check after the other. Each must be missed: some vector is then wrongly accepted, and
// every vector has only the one thing wrong that it says.
func TestEveryCheckIsNeeded(t *testing.T) {
	all, parsers := sevsnp.CheckNames()
	missed := map[string]bool{}
	for _, v := range vectors {
		if parsers[v.refuse] {
			missed[v.refuse] = true
			continue
		}
		r := v.make()
		if _, err := sevsnp.VerifyDropping(r.Evidence(), r.options, r.at, r.roots, v.refuse); err != nil {
			t.Errorf("%s, without %s: got %v, want it accepted", v.name, v.refuse, err)
			continue
		}
		missed[v.refuse] = true
	}
	for _, name := range all {
		if !missed[name] {
			t.Errorf("no vector misses the check %s", name)
		}
	}
}

// TestUnavailableYields shows that a rejection outweighs what could not be checked.
func TestUnavailableYields(t *testing.T) {
	r := vector{change: func(r *run) { r.CRL = nil; r.Report.Policy |= sevsnp.PolicyDebug }}.make()
	_, err := r.verify()
	var refused *sevsnp.Refused
	if !errors.As(err, &refused) || refused.Failed.Name != "debug" || !errors.Is(err, check.ErrRejected) {
		t.Errorf("got %v, want a rejection by debug", err)
	}
}

// TestClock stands one second on each side of every edge.
func TestClock(t *testing.T) {
	edge := now.Add(30 * time.Minute)
	for _, tt := range []struct {
		name   string
		change func(*run)
		after  bool // valid from the edge on, otherwise up to it
	}{
		{"ark-validity", func(r *run) { r.ARK.NotBefore = edge }, true},
		{"ark-validity", func(r *run) { r.ARK.NotAfter = edge }, false},
		{"ask-validity", func(r *run) { r.ASK.NotBefore = edge }, true},
		{"ask-validity", func(r *run) { r.ASK.NotAfter = edge }, false},
		{"certificate-validity", func(r *run) { r.Leaf.NotBefore = edge }, true},
		{"certificate-validity", func(r *run) { r.Leaf.NotAfter = edge }, false},
		{"crl-validity", func(r *run) { r.CRL.ThisUpdate = edge }, true},
		{"crl-validity", func(r *run) { r.CRL.NextUpdate = edge }, false},
	} {
		r := vector{change: tt.change}.make()
		e := r.Evidence()
		for _, at := range []time.Time{edge.Add(-time.Second), edge, edge.Add(time.Second)} {
			want := at.Equal(edge) || at.After(edge) == tt.after
			_, err := sevsnp.Verify(e, r.options, at, r.roots)
			var refused *sevsnp.Refused
			if (err == nil) != want || errors.As(err, &refused) && refused.Failed.Name != tt.name {
				t.Errorf("%s, valid after the edge %t, at %s: got %v, want accepted %t", tt.name, tt.after, at.Sub(edge), err, want)
			}
		}
	}
}

// TestTwice shows that a verification leaves nothing behind for the next.
func TestTwice(t *testing.T) {
	r := good(sevsnp.Genoa, sevsnp.SignerVCEK)
	e := r.Evidence()
	for range 2 {
		if _, err := sevsnp.Verify(e, r.options, now, r.roots); err != nil {
			t.Fatal(err)
		}
	}
	wrong := r.options
	wrong.ReportData[0]++
	if _, err := sevsnp.Verify(e, wrong, now, r.roots); err == nil {
		t.Error("other report data: got no error after an acceptance, want a refusal")
	}
}

// TestOtherSignature: of a report nothing but its signature's S can be written otherwise, which SECURITY.md says.
func TestOtherSignature(t *testing.T) {
	r := good(sevsnp.Genoa, sevsnp.SignerVCEK)
	e := r.Evidence()
	report, err := sevsnp.Parse(e.Report)
	if err != nil {
		t.Fatal(err)
	}
	s := new(big.Int).SetBytes(report.S[:])
	s.Sub(elliptic.P384().Params().N, s).FillBytes(report.S[:])
	e.Report = report.Marshal()
	if _, err := sevsnp.Verify(e, r.options, now, r.roots); err != nil {
		t.Errorf("R and N-S: got %v, want it accepted", err)
	}
}

// TestNewLines: evidence of a line of processors that has no root here is named as what it is, and called no mismatch.
func TestNewLines(t *testing.T) {
	for name, change := range map[string]func(*run){
		"by its family and model": func(r *run) { r.Report.CPUID = sevsnp.CPUID{Family: 0x1a, Model: 0x50} },
		"by its certificate":      func(r *run) { r.Endorsement["2"] = text("Venice-A0") },
		"by its root": func(r *run) {
			r.ARK.Subject.CommonName = "ARK-Venice"
			r.roots = sevsnp.AMDRoots()
		},
		"by the report's version": func(r *run) { r.EditReport = func(b []byte) { b[0] = 6 } },
	} {
		_, err := vector{change: change}.make().verify()
		if !errors.Is(err, check.ErrRejected) || !strings.Contains(err.Error(), "this build") || strings.Contains(err.Error(), "mismatch") {
			t.Errorf("%s: got %v, want a refusal that says what this build knows", name, err)
		}
	}
}

// TestEveryBit flips each bit of a report that is not signed anew. None is left unread: the report is refused, or says
// something else, which the signature over it then does not cover.
func TestEveryBit(t *testing.T) {
	r := good(sevsnp.Genoa, sevsnp.SignerVCEK)
	e := r.Evidence()
	accepting := sevsnp.Options{
		AnyChip: true, InsecureSkipTCB: true, AllowProvisionalFirmware: true, InsecureSkipCRL: true, MaxVMPL: 3, AllowMigrationAgent: true, AllowSMT: true,
		AllowManySockets: true, AllowCXL: true, AllowAES128: true, AllowRAPL: true, AllowVisibleCiphertext: true, AllowPageSwap: true,
		AllowUncheckedAliases: true, AnyMeasurement: true, AnyHostData: true, AnyReportData: true, AnyIDBlock: true,
		Facts: new(check.Facts), // of the certificates, which no bit of the report changes
	}
	e.CRL = nil
	if _, err := sevsnp.Verify(e, accepting, now, r.roots); err != nil {
		t.Fatal(err)
	}
	for i := range e.Report {
		for bit := range 8 {
			e.Report[i] ^= 1 << bit
			if bit != i%8 {
				// One bit of each byte goes through the whole appraisal, which takes long; the others need to be read.
				if r, err := sevsnp.Parse(e.Report); err == nil && !bytes.Equal(r.Marshal(), e.Report) {
					t.Fatalf("bit %d of byte %#x is neither refused nor kept", bit, i)
				}
				e.Report[i] ^= 1 << bit
				continue
			}
			// Nothing but its format, its signer or its signature may refuse it: those are what protects every bit.
			_, err := sevsnp.Verify(e, accepting, now, r.roots)
			var refused *sevsnp.Refused
			if !errors.As(err, &refused) || !slices.Contains([]string{"report-format", "signing-key", "signature"}, refused.Failed.Name) {
				t.Fatalf("bit %d of byte %#x: got %v, want a refusal by format, signing-key or signature", bit, i, err)
			}
			e.Report[i] ^= 1 << bit
		}
	}
}

func TestAMDRoots(t *testing.T) {
	roots := sevsnp.AMDRoots()
	var names []string
	for _, root := range roots {
		names = append(names, root.Subject.CommonName)
	}
	if want := []string{"ARK-Milan", "ARK-Genoa", "ARK-Turin"}; !slices.Equal(names, want) {
		t.Errorf("roots: got %q, want %q", names, want)
	}
}
