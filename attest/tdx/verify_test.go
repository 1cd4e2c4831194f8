package tdx_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"chrysalis/attest/attesttest"
	"chrysalis/attest/check"
	"chrysalis/attest/tdx"
)

var now = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

func TestVerifyAccepts(t *testing.T) {
	for _, tt := range []struct {
		name    string
		version uint16
		tdx15   bool
	}{{"version 4", 4, false}, {"version 5, TDX 1.0", 5, false}, {"version 5, TDX 1.5", 5, true}} {
		t.Run(tt.name, func(t *testing.T) {
			m := attesttest.NewTDX(now, tt.version, tt.tdx15)
			e := m.Build()
			for range 2 { // nothing is used up by its first use
				r, err := tdx.Verify(append(e.Quote, 0, 0), e.Collateral, tdx.Options{}, now, e.Root)
				if err != nil {
					t.Fatal(err)
				}
				if r.Body() != m.Body {
					t.Errorf("body: got %+v, want %+v", r.Body(), m.Body)
				}
				if r.Platform() != m.Platform {
					t.Errorf("platform: got %+v, want %+v", r.Platform(), m.Platform)
				}
				if want := (tdx.TCB{Status: tdx.UpToDate, Platform: tdx.UpToDate, Module: tdx.UpToDate, QE: tdx.UpToDate}); r.TCB() != want {
					t.Errorf("TCB: got %+v, want %+v", r.TCB(), want)
				}
				if r.TCBEvaluation() != 17 || len(r.Weaknesses()) != 0 {
					t.Errorf("evaluation %d and weaknesses %q, want 17 and none", r.TCBEvaluation(), r.Weaknesses())
				}
			}
			if _, err := tdx.Verify(e.Quote, e.Collateral, tdx.Options{}, now, tdx.IntelRoot()); !errors.Is(err, check.ErrRejected) {
				t.Errorf("under Intel's root: got %v, want a refusal", err)
			}
		})
	}
}

// TestVectors has each vector refused by its check, and by no other.
func TestVectors(t *testing.T) {
	for _, v := range vectors() {
		t.Run(v.check+"/"+v.name, func(t *testing.T) {
			s := newScene()
			v.spoil(s)
			r, err := s.play(tdx.Verify)
			var rejected *tdx.Refused
			if r != nil || !errors.As(err, &rejected) || !errors.Is(err, check.ErrRejected) || errors.Is(err, check.ErrUnavailable) {
				t.Fatalf("got %v, %v, want a *Refused", r, err)
			}
			for _, c := range rejected.Checks() {
				if (c.Verdict == check.Denied) != (c.Name == v.check) {
					t.Errorf("check %s is %s: got %s, want %s", c.Name, c.Verdict, c.Got, c.Want)
				}
			}
			if rejected.Failed.Name != v.check {
				t.Errorf("failed: got %s, want %s", rejected.Failed.Name, v.check)
			}
		})
	}
}

// TestEachCheckIsNeeded deletes each check in turn: the vectors that it refuses must then pass.
func TestEachCheckIsNeeded(t *testing.T) {
	all, parsers := tdx.CheckNames()
	tested := map[string]bool{"collateral": true} // by TestWithoutCollateral
	for _, v := range vectors() {
		tested[v.check] = true
		if parsers[v.check] || v.name == "no root is trusted" {
			continue
		}
		t.Run(v.check+"/"+v.name, func(t *testing.T) {
			s := newScene()
			v.spoil(s)
			_, err := s.play(func(quote []byte, c *tdx.Collateral, o tdx.Options, at time.Time, root *x509.Certificate) (*tdx.Result, error) {
				return tdx.VerifyDropping(quote, c, o, at, root, v.check)
			})
			if err != nil {
				t.Errorf("without the check: got %v, want it accepted: another check refuses it too", err)
			}
		})
	}
	for _, name := range all {
		if !tested[name] {
			t.Errorf("check %s: no vector is refused by it", name)
		}
	}
}

// TestCollateralIsGivenBack writes over the collateral of a refused quote: nothing may still read it (the race detector says so).
func TestCollateralIsGivenBack(t *testing.T) {
	s := newScene()
	s.edit = func(e *attesttest.TDXEvidence) { e.Quote[48+584+4] ^= 1 } // the first byte of its signature
	_, err := s.play(func(quote []byte, c *tdx.Collateral, o tdx.Options, at time.Time, root *x509.Certificate) (*tdx.Result, error) {
		r, err := tdx.Verify(quote, c, o, at, root)
		for _, of := range [][]byte{c.RootCACRL, c.PCKCRL, c.PCKCRLIssuerChain, c.TCBInfo, c.TCBInfoIssuerChain, c.QEIdentity,
			c.QEIdentityIssuerChain} {
			for i := range of {
				of[i] ^= 1
			}
		}
		return r, err
	})
	if !errors.Is(err, check.ErrRejected) {
		t.Errorf("got %v, want it rejected", err)
	}
}

// TestEdges freezes the clock one second to either side of each end of each validity.
func TestEdges(t *testing.T) {
	from, to := now.Add(-10*time.Minute), now.Add(10*time.Minute)
	for _, tt := range []struct {
		check  string
		narrow func(*scene)
	}{
		{"pck-dates", func(s *scene) { s.m.PCK.Template.NotBefore, s.m.PCK.Template.NotAfter = from, to }},
		{"root-crl-dates", func(s *scene) { s.m.RootCRL.Template.ThisUpdate, s.m.RootCRL.Template.NextUpdate = from, to }},
		{"pck-crl-dates", func(s *scene) { s.m.PCKCRL.Template.ThisUpdate, s.m.PCKCRL.Template.NextUpdate = from, to }},
		{"pck-crl-chain-dates", func(s *scene) {
			template := *s.m.CA.Template
			template.NotBefore, template.NotAfter = from, to
			s.m.CRLChain[0] = &attesttest.Certified{Template: &template, Key: s.m.CA.Key, Issuer: s.m.Root}
		}},
		{"tcb-info-dates", func(s *scene) { s.m.TCBInfo.IssueDate, s.m.TCBInfo.NextUpdate = from, to }},
		{"qe-identity-dates", func(s *scene) { s.m.QEIdentity.IssueDate, s.m.QEIdentity.NextUpdate = from, to }},
		{"tcb-info-signer-dates", func(s *scene) {
			s.m.TCBInfoChain[0] = s.m.Signer.Authority(s.m.Root, func(c *x509.Certificate) { c.NotBefore, c.NotAfter = from, to })
		}},
		{"qe-identity-signer-dates", func(s *scene) {
			s.m.QEIdentityChain[0] = s.m.Signer.Authority(s.m.Root, func(c *x509.Certificate) { c.NotBefore, c.NotAfter = from, to })
		}},
	} {
		for _, edge := range []struct {
			at   time.Time
			fine bool
		}{{from.Add(-time.Second), false}, {from, true}, {to, true}, {to.Add(time.Second), false}} {
			s := newScene()
			tt.narrow(s)
			s.at = edge.at
			_, err := s.play(tdx.Verify)
			var rejected *tdx.Refused
			switch {
			case edge.fine && err != nil:
				t.Errorf("%s at %s: got %v, want it accepted", tt.check, edge.at, err)
			case !edge.fine && (!errors.As(err, &rejected) || rejected.Failed.Name != tt.check):
				t.Errorf("%s at %s: got %v, want its refusal", tt.check, edge.at, err)
			}
		}
	}
}

// TestWithoutCollateral denies without a verdict on the quote, unless the options do without collateral by name.
func TestWithoutCollateral(t *testing.T) {
	s := newScene()
	s.edit = func(e *attesttest.TDXEvidence) { e.Collateral = nil }
	if r, err := s.play(tdx.Verify); r != nil || !errors.Is(err, check.ErrUnavailable) || errors.Is(err, check.ErrRejected) {
		t.Errorf("without collateral: got %v, %v, want ErrUnavailable", r, err)
	}
	s.options.InsecureSkipTCB = true
	r, err := s.play(tdx.Verify)
	if err != nil {
		t.Fatal(err)
	}
	if r.TCB().Status != tdx.Unchecked || len(r.Weaknesses()) == 0 {
		t.Errorf("skipped: got %+v and weaknesses %q, want unchecked and a weakness", r.TCB(), r.Weaknesses())
	}
	s.m.Body.TDAttributes[0] = 1
	if _, err := s.play(tdx.Verify); !errors.Is(err, check.ErrRejected) {
		t.Errorf("a TD under debug, TCB skipped: got %v, want a refusal", err)
	}
}

// TestOptions shows that each option waives one thing, and that the report says so.
func TestOptions(t *testing.T) {
	for _, tt := range []struct {
		name string
		set  func(*scene)
	}{
		{"td-debug", func(s *scene) { s.options.InsecureAllowDebug, s.m.Body.TDAttributes[0] = true, 1 }},
		{"td-sept-ve-disable", func(s *scene) { s.options.InsecureAllowSEPTVE, s.m.Body.TDAttributes[3] = true, 0 }},
		{"pck-extension-known", func(s *scene) {
			s.options.AllowUnknownExtension = true
			s.m.Extension = func(e []attesttest.SGXEntry) []attesttest.SGXEntry {
				return append(e, attesttest.SGXEntry{Name: asn1.ObjectIdentifier{1, 2, 3}, Value: asn1.RawValue{FullBytes: asn1.NullBytes}})
			}
		}},
		{"xfam-known", func(s *scene) { s.options.AllowUnknownXFAM, s.m.Body.XFAM[7] = true, 1 }},
		{"td-migratable", func(s *scene) { s.options.InsecureAllowMigratable, s.m.Body.TDAttributes[3] = true, 0x30 }},
		{"tcb-status", func(s *scene) {
			s.options.InsecureSkipTCB = true
			s.m.TCBInfo.Levels[0].Status = tdx.Revoked
		}},
		{"SWHardeningNeeded", func(s *scene) {
			s.options.AcceptStatus = []tdx.Status{tdx.UpToDate, tdx.SWHardeningNeeded}
			s.m.TCBInfo.Levels[0].Status = tdx.SWHardeningNeeded
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newScene()
			tt.set(s)
			r, err := s.play(tdx.Verify)
			if err != nil {
				t.Fatal(err)
			}
			if w := strings.Join(r.Weaknesses(), "; "); len(r.Weaknesses()) != 1 || !strings.Contains(w, tt.name) {
				t.Errorf("weaknesses: got %q, want one that names %s", w, tt.name)
			}
		})
	}
	s := newScene()
	s.m.Body.MRSERVICETD[0], s.options.ServiceTDs, s.options.MRSEAM = 1, [][48]byte{{1}}, [][48]byte{s.m.Body.MRSEAM}
	if _, err := s.play(tdx.Verify); err != nil {
		t.Errorf("listed service TD and module: got %v, want them accepted", err)
	}
	s = newScene()
	s.options.MinTCBDate, s.options.MaxCollateralAge = floor, time.Hour
	if _, err := s.play(tdx.Verify); err != nil {
		t.Errorf("levels of that very date, and collateral of that very age: got %v, want them accepted", err)
	}
	s = newScene()
	s.m.CA.Template.Subject.CommonName = "Intel SGX PCK Processor CA"
	if _, err := s.play(tdx.Verify); err != nil {
		t.Errorf("a PCK of the processor CA: got %v, want it accepted", err)
	}
}

// TestEveryBitOfQuote flips each bit of a quote, of its certificates' text some.
func TestEveryBitOfQuote(t *testing.T) {
	e := newScene().m.Build()
	quote := append(e.Quote, 0)
	// The quote's own checks must do. What was proven of parts that a bit leaves alone is remembered, as a client would.
	options := tdx.Options{InsecureSkipTCB: true, Facts: new(check.Facts)}
	if _, err := tdx.Verify(quote, nil, options, now, e.Root); err != nil {
		t.Fatal(err)
	}
	chain := bytes.Index(quote, []byte("-----BEGIN"))
	const parts = 4
	for part := range parts {
		t.Run(fmt.Sprint(part), func(t *testing.T) {
			t.Parallel()
			quote := bytes.Clone(quote)
			for bit := part; bit < len(quote)*8; bit += parts {
				// Three certificates are parsed for each bit of their text: two bits of each byte are enough there, and under
				// js, where a signature takes twenty times as long, a few of all.
				if at := bit / 8; at > chain && bit%8 != at%8 && bit%8 != (at+3)%8 || runtime.GOOS == "js" && bit/parts%61 != 0 {
					continue
				}
				quote[bit/8] ^= 1 << (bit % 8)
				_, err := tdx.Verify(quote, nil, options, now, e.Root)
				if at := bit / 8; errors.Is(err, check.ErrUnavailable) && at == chain-6 {
					err = check.ErrRejected // the type of the data: a chain that is called something else is no chain
				}
				if !errors.Is(err, check.ErrRejected) {
					t.Fatalf("bit %d of byte %d: got %v, want a refusal", bit%8, bit/8, err)
				}
				quote[bit/8] ^= 1 << (bit % 8)
			}
		})
	}
}

// TestRefusalSaysDebug: whoever is refused learns that the TD was under debug, and what a genuine machine signed.
func TestRefusalSaysDebug(t *testing.T) {
	s := newScene()
	s.m.Body.TDAttributes[0] = 1
	s.m.TCBInfo.Levels[0].Status = tdx.OutOfDate
	_, err := s.play(tdx.Verify)
	var rejected *tdx.Refused
	if !errors.As(err, &rejected) {
		t.Fatal(err)
	}
	body, signed := rejected.Body()
	if body == nil || !signed || !body.Debug() || rejected.TCB().Status != tdx.OutOfDate {
		t.Errorf("got body %+v, signed %t, TCB %+v, want a signed body under debug that is out of date", body, signed, rejected.TCB())
	}
	s.m.SigningKey = newKey()
	if _, err = s.play(tdx.Verify); !errors.As(err, &rejected) {
		t.Fatal(err)
	}
	if _, signed := rejected.Body(); signed || rejected.TCB() != (tdx.TCB{}) {
		t.Error("a forged quote counts as signed")
	}
}

// BenchmarkVerify is a whole appraisal of fresh quotes, chains and collateral included: nothing is cached.
func BenchmarkVerify(b *testing.B) {
	e := newScene().m.Build()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := tdx.Verify(e.Quote, e.Collateral, tdx.Options{}, now, e.Root); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkP256 is its reference: one of the signatures that it checks.
func BenchmarkP256(b *testing.B) {
	key, digest := newKey(), make([]byte, 32)
	signature, err := ecdsa.SignASN1(rand.Reader, key, digest)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if !ecdsa.VerifyASN1(&key.PublicKey, digest, signature) {
			b.Fatal("not verified")
		}
	}
}
