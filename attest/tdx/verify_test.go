package tdx_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"runtime"
	"strings"
	"testing"
	"time"

	"chrysalis/attest/attesttest"
	"chrysalis/attest/tdx"
)

var now = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// scene is one appraisal. A vector changes one thing of it.
type scene struct {
	m       *attesttest.TDX
	options tdx.Options
	at      time.Time
	// edit changes what the machine has made. May be nil.
	edit func(*attesttest.TDXEvidence)
}

func newScene() *scene { return &scene{m: attesttest.NewTDX(now, 5, true), at: now} }

type verifier func([]byte, *tdx.Collateral, tdx.Options, time.Time, *x509.Certificate) (*tdx.Report, error)

func (s *scene) play(v verifier) (*tdx.Report, error) {
	e := s.m.Build()
	if s.edit != nil {
		s.edit(e)
	}
	return v(e.Quote, e.Collateral, s.options, s.at, e.Root)
}

func newKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
}

func revoke(c *attesttest.CRL, who *attesttest.Certified) {
	c.Template.RevokedCertificateEntries = []x509.RevocationListEntry{{SerialNumber: who.Template.SerialNumber, RevocationTime: now.Add(-time.Minute)}}
}

// replace gives an entry of the SGX extension another value.
func replace(i int, value any) func([]attesttest.SGXEntry) []attesttest.SGXEntry {
	return func(e []attesttest.SGXEntry) []attesttest.SGXEntry {
		der, err := asn1.Marshal(value)
		if err != nil {
			panic(err)
		}
		e[i].Value = asn1.RawValue{FullBytes: der}
		return e
	}
}

// component gives an entry of the TCB in the SGX extension another value.
func component(i, value int) func([]attesttest.SGXEntry) []attesttest.SGXEntry {
	return func(e []attesttest.SGXEntry) []attesttest.SGXEntry {
		var tcb []attesttest.SGXEntry
		if _, err := asn1.Unmarshal(e[1].Value.FullBytes, &tcb); err != nil {
			panic(err)
		}
		return replace(1, replace(i, value)(tcb))(e)
	}
}

// again certifies a key a second time, under another serial number.
func again(c, issuer *attesttest.Certified) *attesttest.Certified {
	template := *c.Template
	template.SerialNumber = big.NewInt(4711)
	return &attesttest.Certified{Template: &template, Key: c.Key, Issuer: issuer}
}

// vector is one thing that is wrong, and the check that must refuse it.
type vector struct {
	check, name string
	spoil       func(*scene)
}

func quoteVectors() []vector {
	return []vector{
		{"quote-format", "a byte after the quote", func(s *scene) { s.edit = func(e *attesttest.TDXEvidence) { e.Quote = append(e.Quote, 0, 1) } }},
		{"pck-chain-format", "two certificates", func(s *scene) { s.m.QuoteChain = s.m.QuoteChain[:2] }},
		{"pck-chain-format", "four certificates", func(s *scene) { s.m.QuoteChain = append(s.m.QuoteChain, s.m.Root) }},
		{"pck-chain-format", "an unknown critical extension", func(s *scene) {
			s.m.CA.Template.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: asn1.NullBytes}}
		}},
		{"pck-chain", "a signature over SHA-384", func(s *scene) { s.m.PCK.Template.SignatureAlgorithm = x509.ECDSAWithSHA384 }},
		{"pck-chain", "no root is trusted", func(s *scene) { s.edit = func(e *attesttest.TDXEvidence) { e.Root = nil } }},
		{"pck-chain", "another root ends the chain", func(s *scene) {
			other := s.m.Root.Authority(nil, nil)
			s.m.QuoteChain[2] = other
		}},
		{"pck-chain", "a CA that another key signed", func(s *scene) {
			s.m.QuoteChain[1] = &attesttest.Certified{Template: s.m.CA.Template, Key: s.m.CA.Key, Issuer: s.m.Root, SignedBy: newKey()}
		}},
		{"pck-chain", "a PCK that another key signed", func(s *scene) { s.m.PCK.SignedBy = newKey() }},
		{"pck-chain", "a CA of another name", func(s *scene) { s.m.CA.Template.Subject.CommonName = "Intel SGX Other CA" }},
		{"pck-chain", "a PCK of another name", func(s *scene) { s.m.PCK.Template.Subject.CommonName = "Intel SGX Other Certificate" }},
		{"pck-chain", "a PCK that is a CA", func(s *scene) { s.m.PCK.Template.IsCA = true }},
		{"pck-chain", "a PCK that may not sign", func(s *scene) { s.m.PCK.Template.KeyUsage = x509.KeyUsageKeyAgreement }},
		{"pck-chain", "a CA that may not certify", func(s *scene) { s.m.CA.Template.KeyUsage = x509.KeyUsageCRLSign }},
		{"pck-dates", "a PCK that has expired", func(s *scene) { s.m.PCK.Template.NotAfter = now.Add(-time.Second) }},
		{"pck-dates", "a PCK of tomorrow", func(s *scene) { s.m.PCK.Template.NotBefore = now.Add(time.Second) }},
		{"pck-extension-format", "no FMSPC", func(s *scene) {
			s.m.Extension = func(e []attesttest.SGXEntry) []attesttest.SGXEntry { return append(e[:3:3], e[4:]...) }
		}},
		{"pck-extension-format", "an unknown entry", func(s *scene) {
			s.m.Extension = func(e []attesttest.SGXEntry) []attesttest.SGXEntry {
				return append(e, attesttest.SGXEntry{Name: asn1.ObjectIdentifier{1, 2, 3}, Value: asn1.RawValue{FullBytes: asn1.NullBytes}})
			}
		}},
		{"pck-extension-format", "PPID twice", func(s *scene) {
			s.m.Extension = func(e []attesttest.SGXEntry) []attesttest.SGXEntry { return append(e, e[0]) }
		}},
		{"pck-extension-format", "a PPID of 15 bytes", func(s *scene) { s.m.Extension = replace(0, make([]byte, 15)) }},
		{"pck-extension-format", "a PCEID that is no octet string", func(s *scene) { s.m.Extension = replace(2, 7) }},
		{"pck-extension-format", "no TCB", func(s *scene) { s.m.Extension = replace(1, []attesttest.SGXEntry{}) }},
		{"pck-extension-format", "a component of 256", func(s *scene) { s.m.Extension = component(0, 256) }},
		{"pck-extension-format", "a component of -1", func(s *scene) { s.m.Extension = component(15, -1) }},
		{"pck-extension-format", "a PCESVN of 65536", func(s *scene) { s.m.Extension = component(16, 65536) }},
		{"pck-extension-format", "an SGX type of 3", func(s *scene) { s.m.Platform.SGXType = 3 }},
		{"qe-report-signature", "a QE report that another key signed", func(s *scene) { s.m.QEKey = newKey() }},
		{"qe-report-data", "another attestation key", func(s *scene) { s.m.QEReportData = func(d *[64]byte) { d[0]++ } }},
		{"qe-report-data", "more than a digest", func(s *scene) { s.m.QEReportData = func(d *[64]byte) { d[63]++ } }},
		{"quote-signature", "a quote that another key signed", func(s *scene) { s.m.SigningKey = newKey() }},
		{"td-debug", "DEBUG", func(s *scene) { s.m.Body.TDAttributes[0] = 1 }},
		{"td-sept-ve-disable", "SEPT_VE_DISABLE off", func(s *scene) { s.m.Body.TDAttributes[3] = 0 }},
		{"td-migratable", "MIGRATABLE", func(s *scene) { s.m.Body.TDAttributes[3] |= 0x20 }},
		{"td-attributes", "HGS_PLUS_PROF", func(s *scene) { s.m.Body.TDAttributes[0] = 0x10 }},
		{"td-attributes", "PERF_PROF", func(s *scene) { s.m.Body.TDAttributes[0] = 0x20 }},
		{"td-attributes", "a reserved bit", func(s *scene) { s.m.Body.TDAttributes[4] = 1 }},
		{"td-attributes", "TPA", func(s *scene) { s.m.Body.TDAttributes[7] = 0x40 }},
		{"xfam", "no SSE", func(s *scene) { s.m.Body.XFAM[0] &^= 2 }},
		{"xfam", "a reserved bit", func(s *scene) { s.m.Body.XFAM[7] = 1 }},
		{"mr-seam", "a module that is not listed", func(s *scene) { s.options.MRSEAM = [][48]byte{{1}} }},
		{"mr-signer-seam", "another signer, whom the TCB info knows", func(s *scene) {
			s.m.Body.MRSIGNERSEAM[0] = 1
			s.m.TCBInfo.Modules[0].MRSIGNER = "01" + s.m.TCBInfo.Modules[0].MRSIGNER[2:]
		}},
		{"seam-attributes", "a debug module, which the TCB info allows", func(s *scene) {
			s.m.Body.SEAMAttributes[0] = 1
			s.m.TCBInfo.Modules[0].Attributes = "0100000000000000"
		}},
		{"mr-service-td", "a service TD", func(s *scene) { s.m.Body.MRSERVICETD[0] = 1 }},
		{"mr-service-td", "another service TD", func(s *scene) { s.m.Body.MRSERVICETD[0], s.options.ServiceTDs = 1, [][48]byte{{2}} }},
	}
}

func crlVectors() []vector {
	otherKey := func(c *attesttest.CRL) { c.SignedBy = newKey() }
	return []vector{
		{"root-crl-format", "no CRL", func(s *scene) { s.edit = func(e *attesttest.TDXEvidence) { e.Collateral.RootCACRL = []byte{0x30, 0} } }},
		{"root-crl-format", "a CRL for some certificates", func(s *scene) {
			s.m.RootCRL.Template.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 28}, Critical: true, Value: []byte{0x30, 0}}}
		}},
		{"root-crl-signature", "another key", func(s *scene) { otherKey(s.m.RootCRL) }},
		{"root-crl-signature", "another issuer", func(s *scene) {
			s.m.RootCRL.Issuer = s.m.Root.Authority(nil, func(c *x509.Certificate) { c.Subject.CommonName = "other" })
		}},
		{"root-crl-signature", "a signature over SHA-384", func(s *scene) { s.m.RootCRL.Template.SignatureAlgorithm = x509.ECDSAWithSHA384 }},
		{"root-crl-dates", "over", func(s *scene) { s.m.RootCRL.Template.NextUpdate = now.Add(-time.Second) }},
		{"root-crl-dates", "of tomorrow", func(s *scene) { s.m.RootCRL.Template.ThisUpdate = now.Add(time.Second) }},
		{"pck-crl-chain-format", "no root", func(s *scene) { s.m.CRLChain = s.m.CRLChain[:1] }},
		{"pck-crl-chain", "another root", func(s *scene) {
			root := s.m.Root.Authority(nil, nil)
			s.m.CRLChain = []*attesttest.Certified{{Template: s.m.CA.Template, Key: s.m.CA.Key, Issuer: root}, root}
		}},
		{"pck-crl-chain", "a CA that another key signed", func(s *scene) {
			s.m.CRLChain[0] = &attesttest.Certified{Template: s.m.CA.Template, Key: s.m.CA.Key, Issuer: s.m.Root, SignedBy: newKey()}
		}},
		{"pck-crl-chain-dates", "a certificate of the CA that has expired", func(s *scene) {
			template := *s.m.CA.Template
			template.NotAfter = now.Add(-time.Second)
			s.m.CRLChain[0] = &attesttest.Certified{Template: &template, Key: s.m.CA.Key, Issuer: s.m.Root}
		}},
		{"pck-crl-issuer", "the processor CA's CRL", func(s *scene) {
			other := s.m.CA.Authority(s.m.Root, func(c *x509.Certificate) { c.Subject.CommonName = "Intel SGX PCK Processor CA" })
			s.m.CRLChain[0], s.m.PCKCRL.Issuer = other, other
		}},
		{"pck-crl-issuer", "another key of the same CA", func(s *scene) {
			other := s.m.CA.Authority(s.m.Root, nil)
			s.m.CRLChain[0], s.m.PCKCRL.Issuer = other, other
		}},
		{"pck-crl-format", "no CRL", func(s *scene) { s.edit = func(e *attesttest.TDXEvidence) { e.Collateral.PCKCRL = nil } }},
		{"pck-crl-signature", "another key", func(s *scene) { otherKey(s.m.PCKCRL) }},
		{"pck-crl-dates", "over", func(s *scene) { s.m.PCKCRL.Template.NextUpdate = now.Add(-time.Second) }},
		{"pck-crl-dates", "of tomorrow", func(s *scene) { s.m.PCKCRL.Template.ThisUpdate = now.Add(time.Second) }},
		{"pck-revoked", "the PCK", func(s *scene) { revoke(s.m.PCKCRL, s.m.PCK) }},
		{"pck-ca-revoked", "the PCK's CA", func(s *scene) { revoke(s.m.RootCRL, s.m.CA) }},
		{"pck-ca-revoked", "the CA's certificate in the quote alone", func(s *scene) {
			s.m.CRLChain[0] = again(s.m.CA, s.m.Root)
			revoke(s.m.RootCRL, s.m.CA)
		}},
		{"pck-ca-revoked", "the CA's certificate in the CRL's chain alone", func(s *scene) {
			s.m.CRLChain[0] = again(s.m.CA, s.m.Root)
			revoke(s.m.RootCRL, s.m.CRLChain[0])
		}},
	}
}

func collateralVectors() []vector {
	mistaken := func(info bool, change func(*attesttest.Certified)) func(*scene) {
		return func(s *scene) {
			signer := s.m.Signer.Authority(s.m.Root, nil)
			change(signer)
			if info {
				s.m.TCBInfoChain[0] = signer
			} else {
				s.m.QEIdentityChain[0] = signer
			}
		}
	}
	foreign := func(s *scene) []*attesttest.Certified {
		root := s.m.Root.Authority(nil, nil)
		return []*attesttest.Certified{s.m.Signer.Authority(root, nil), root}
	}
	document := func(change func(*tdx.Collateral)) func(*scene) {
		return func(s *scene) {
			m := s.m
			s.edit = func(e *attesttest.TDXEvidence) {
				change(e.Collateral)
				m.Resign(e.Collateral)
			}
		}
	}
	list := []vector{
		{"tcb-info-format", "a member twice", document(func(c *tdx.Collateral) {
			c.TCBInfo = bytes.Replace(c.TCBInfo, []byte(`{"id"`), []byte(`{"id":"SGX","id"`), 1)
		})},
		{"tcb-info-format", "for SGX", func(s *scene) { s.m.TCBInfo.ID = "SGX" }},
		{"tcb-info-format", "version 2", func(s *scene) { s.m.TCBInfo.Version = 2 }},
		{"tcb-info-format", "no levels", func(s *scene) { s.m.TCBInfo.Levels = nil }},
		{"tcb-info-format", "fifteen components", func(s *scene) { s.m.TCBInfo.Levels[0].TCB.SGX = s.m.TCBInfo.Levels[0].TCB.SGX[:15] }},
		{"tcb-info-format", "an unknown status", func(s *scene) { s.m.TCBInfo.Levels[1].Status = "Fine" }},
		{"tcb-info-format", "a module twice", func(s *scene) { s.m.TCBInfo.Modules = append(s.m.TCBInfo.Modules, s.m.TCBInfo.Modules[0]) }},
		{"tcb-info-dates", "over", func(s *scene) { s.m.TCBInfo.NextUpdate = now.Add(-time.Second) }},
		{"tcb-info-dates", "of tomorrow", func(s *scene) { s.m.TCBInfo.IssueDate = now.Add(time.Second) }},
		{"tcb-info-evaluation", "below the floor", func(s *scene) { s.options.MinTCBEvaluation, s.m.TCBInfo.Evaluation = 17, 16 }},
		{"fmspc", "of another kind of machine", func(s *scene) { s.m.TCBInfo.FMSPC = "50806F000001" }},
		{"pce-id", "of another PCE", func(s *scene) { s.m.TCBInfo.PCEID = "0001" }},
		{"tdx-module-signer", "another signer", func(s *scene) {
			s.m.TCBInfo.Modules[0].MRSIGNER = "01" + s.m.TCBInfo.Modules[0].MRSIGNER[2:]
		}},
		{"tdx-module-signer", "of TDX 1.0", func(s *scene) {
			s.m.Body.TEETCBSVN[1] = 0
			s.m.TCBInfo.Module.MRSIGNER = "01" + s.m.TCBInfo.Module.MRSIGNER[2:]
		}},
		{"tdx-module-attributes", "other attributes", func(s *scene) { s.m.TCBInfo.Modules[0].Attributes = "0100000000000000" }},
		{"qe-identity-format", "of an SGX quoting enclave", func(s *scene) { s.m.QEIdentity.ID = "QE" }},
		{"qe-identity-format", "version 1", func(s *scene) { s.m.QEIdentity.Version = 1 }},
		{"qe-identity-format", "no levels", func(s *scene) { s.m.QEIdentity.Levels = nil }},
		{"qe-identity-dates", "over", func(s *scene) { s.m.QEIdentity.NextUpdate = now.Add(-time.Second) }},
		{"qe-identity-dates", "of tomorrow", func(s *scene) { s.m.QEIdentity.IssueDate = now.Add(time.Second) }},
		{"qe-identity-evaluation", "below the floor", func(s *scene) { s.options.MinTCBEvaluation, s.m.QEIdentity.Evaluation = 17, 16 }},
		{"qe-signer", "another signer", func(s *scene) { s.m.QE.MRSIGNER[0]++ }},
		{"qe-product", "another product", func(s *scene) { s.m.QE.ISVProdID = 1 }},
		{"qe-misc-select", "a bit of MISCSELECT", func(s *scene) { s.m.QE.MiscSelect[0] = 1 }},
		{"qe-attributes", "a quoting enclave under debug", func(s *scene) { s.m.QE.Attributes[0] |= 2 }},
		{"tcb-status", "an unknown module", func(s *scene) { s.m.TCBInfo.Modules[0].ID = "TDX_02" }},
		{"tcb-status", "older than every level", func(s *scene) { s.m.Platform.SGXSVN[0] = 3 }},
		{"tcb-status", "nothing is accepted", func(s *scene) { s.options.AcceptStatus = []tdx.Status{"Anything"} }},
		{"tcb-status", "revoked, and accepted by mistake", func(s *scene) {
			s.options.AcceptStatus = []tdx.Status{tdx.Revoked}
			s.m.TCBInfo.Levels[0].Status = tdx.Revoked
		}},
	}
	for _, doc := range []struct {
		name string
		info bool
	}{{"tcb-info", true}, {"qe-identity", false}} {
		list = append(list,
			vector{doc.name + "-chain-format", "no root", func(s *scene) {
				if doc.info {
					s.m.TCBInfoChain = s.m.TCBInfoChain[:1]
				} else {
					s.m.QEIdentityChain = s.m.QEIdentityChain[:1]
				}
			}},
			vector{doc.name + "-chain", "another root", func(s *scene) {
				if doc.info {
					s.m.TCBInfoChain = foreign(s)
				} else {
					s.m.QEIdentityChain = foreign(s)
				}
			}},
			vector{doc.name + "-chain", "another name", mistaken(doc.info, func(c *attesttest.Certified) { c.Template.Subject.CommonName = "Intel SGX PCK Certificate" })},
			vector{doc.name + "-chain", "a CA", mistaken(doc.info, func(c *attesttest.Certified) { c.Template.IsCA = true })},
			vector{doc.name + "-chain", "another key signed it", mistaken(doc.info, func(c *attesttest.Certified) { c.SignedBy = newKey() })},
			vector{doc.name + "-signer-dates", "over", mistaken(doc.info, func(c *attesttest.Certified) { c.Template.NotAfter = now.Add(-time.Second) })},
			vector{doc.name + "-signer-revoked", "revoked", func(s *scene) {
				mistaken(doc.info, func(c *attesttest.Certified) {
					c.Template.SerialNumber = big.NewInt(77)
					revoke(s.m.RootCRL, c)
				})(s)
			}},
			vector{doc.name + "-signature", "another key", func(s *scene) {
				if doc.info {
					s.m.TCBInfoKey = newKey()
				} else {
					s.m.QEIdentityKey = newKey()
				}
			}},
		)
	}
	return list
}

func vectors() []vector {
	return append(append(quoteVectors(), crlVectors()...), collateralVectors()...)
}

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
			if _, err := tdx.Verify(e.Quote, e.Collateral, tdx.Options{}, now, tdx.IntelRoot()); !errors.Is(err, tdx.ErrRejected) {
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
			var rejected *tdx.Rejected
			if r != nil || !errors.As(err, &rejected) || !errors.Is(err, tdx.ErrRejected) || errors.Is(err, tdx.ErrUnavailable) {
				t.Fatalf("got %v, %v, want a *Rejected", r, err)
			}
			for _, c := range rejected.Checks() {
				if (c.Verdict == tdx.Denied) != (c.Name == v.check) {
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
			_, err := s.play(func(quote []byte, c *tdx.Collateral, o tdx.Options, at time.Time, root *x509.Certificate) (*tdx.Report, error) {
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
			var rejected *tdx.Rejected
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
	if r, err := s.play(tdx.Verify); r != nil || !errors.Is(err, tdx.ErrUnavailable) || errors.Is(err, tdx.ErrRejected) {
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
	if _, err := s.play(tdx.Verify); !errors.Is(err, tdx.ErrRejected) {
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
	s.m.CA.Template.Subject.CommonName = "Intel SGX PCK Processor CA"
	if _, err := s.play(tdx.Verify); err != nil {
		t.Errorf("a PCK of the processor CA: got %v, want it accepted", err)
	}
}

// TestEveryBitOfQuote flips each bit of a quote.
func TestEveryBitOfQuote(t *testing.T) {
	e := newScene().m.Build()
	quote := append(e.Quote, 0)
	options := tdx.Options{InsecureSkipTCB: true} // the quote's own checks must do
	if _, err := tdx.Verify(quote, nil, options, now, e.Root); err != nil {
		t.Fatal(err)
	}
	const parts = 4
	step := parts
	if runtime.GOOS == "js" {
		step = 61 * parts // without assembly a signature takes twenty times as long
	}
	for first := range parts {
		t.Run(fmt.Sprint(first), func(t *testing.T) {
			t.Parallel()
			quote := bytes.Clone(quote)
			for bit := first; bit < len(quote)*8; bit += step {
				quote[bit/8] ^= 1 << (bit % 8)
				if _, err := tdx.Verify(quote, nil, options, now, e.Root); !errors.Is(err, tdx.ErrRejected) {
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
	var rejected *tdx.Rejected
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
