package tdx_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"slices"
	"time"

	"chrysalis/attest/attesttest"
	"chrysalis/attest/tdx"
)

// scene is one appraisal. A vector changes one thing of it.
type scene struct {
	m       *attesttest.TDX
	options tdx.Options
	at      time.Time
	// edit changes what the machine has made. May be nil.
	edit func(*attesttest.TDXEvidence)
}

func newScene() *scene { return &scene{m: attesttest.NewTDX(now, 5, true), at: now} }

type verifier func([]byte, *tdx.Collateral, tdx.Options, time.Time, *x509.Certificate) (*tdx.Result, error)

func (s *scene) play(v verifier) (*tdx.Result, error) {
	e := s.m.Build()
	if s.edit != nil {
		s.edit(e)
	}
	return v(e.Quote, e.Collateral, s.options, s.at, e.Root)
}

// floor is the date of the software machine's levels.
var floor = time.Date(2026, 8, 12, 0, 0, 0, 0, time.UTC)

func newKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
}

func revoke(c *attesttest.CRL, who *attesttest.Certified) {
	c.Template.RevokedCertificateEntries = []x509.RevocationListEntry{{SerialNumber: who.Template.SerialNumber,
		RevocationTime: now.Add(-time.Minute)}}
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
		{"quote-format", "a byte after the quote",
			func(s *scene) { s.edit = func(e *attesttest.TDXEvidence) { e.Quote = append(e.Quote, 0, 1) } }},
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
		{"pck-extension-known", "an unknown entry", func(s *scene) {
			s.m.Extension = func(e []attesttest.SGXEntry) []attesttest.SGXEntry {
				return append(e, attesttest.SGXEntry{Name: asn1.ObjectIdentifier{1, 2, 3}, Value: asn1.RawValue{FullBytes: asn1.NullBytes}})
			}
		}},
		{"pck-extension-known", "an unknown entry of the TCB", func(s *scene) {
			s.m.Extension = func(e []attesttest.SGXEntry) []attesttest.SGXEntry {
				var tcb []attesttest.SGXEntry
				if _, err := asn1.Unmarshal(e[1].Value.FullBytes, &tcb); err != nil {
					panic(err)
				}
				return replace(1, append(tcb, attesttest.SGXEntry{Name: asn1.ObjectIdentifier{1, 2, 3}, Value: asn1.RawValue{FullBytes: []byte{2, 1, 7}}}))(e)
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
		{"certification-data", "another PCE", func(s *scene) {
			s.m.Certification = tdx.Certification{Type: 3, Data: make([]byte, 404)}
			s.m.Certification.Data[403] = 1
			m := s.m
			s.edit = func(e *attesttest.TDXEvidence) { e.Collateral.PCKChain = m.PEM() }
		}},
		{"certification-data", "another PPID", func(s *scene) {
			s.m.Certification = tdx.Certification{Type: 1, Data: make([]byte, 36)}
			m := s.m
			s.edit = func(e *attesttest.TDXEvidence) { e.Collateral.PCKChain = m.PEM() }
		}},
		{"certification-data", "another certificate", func(s *scene) {
			s.m.Certification = tdx.Certification{Type: 4, Data: []byte("another")}
			m := s.m
			s.edit = func(e *attesttest.TDXEvidence) { e.Collateral.PCKChain = m.PEM() }
		}},
		{"td-debug", "DEBUG", func(s *scene) { s.m.Body.TDAttributes[0] = 1 }},
		{"td-sept-ve-disable", "SEPT_VE_DISABLE off", func(s *scene) { s.m.Body.TDAttributes[3] = 0 }},
		{"td-migratable", "MIGRATABLE", func(s *scene) { s.m.Body.TDAttributes[3] |= 0x20 }},
		{"td-attributes", "HGS_PLUS_PROF", func(s *scene) { s.m.Body.TDAttributes[0] = 0x10 }},
		{"td-attributes", "PERF_PROF", func(s *scene) { s.m.Body.TDAttributes[0] = 0x20 }},
		{"td-attributes", "a reserved bit", func(s *scene) { s.m.Body.TDAttributes[4] = 1 }},
		{"td-attributes", "TPA", func(s *scene) { s.m.Body.TDAttributes[7] = 0x40 }},
		{"xfam", "no SSE", func(s *scene) { s.m.Body.XFAM[0] &^= 2 }},
		{"xfam-known", "a reserved bit", func(s *scene) { s.m.Body.XFAM[7] = 1 }},
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
		{"root-crl-format", "a byte after the CRL", func(s *scene) {
			s.edit = func(e *attesttest.TDXEvidence) { e.Collateral.RootCACRL = append(e.Collateral.RootCACRL, 0) }
		}},
		{"root-crl-format", "a CRL for some certificates", func(s *scene) {
			s.m.RootCRL.Template.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 28}, Critical: true,
				Value: []byte{0x30, 0}}}
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
		{"pck-crl-format", "a byte after the CRL", func(s *scene) {
			s.edit = func(e *attesttest.TDXEvidence) { e.Collateral.PCKCRL = append(e.Collateral.PCKCRL, 0) }
		}},
		{"pck-crl-format", "no CRL", func(s *scene) { s.edit = func(e *attesttest.TDXEvidence) { e.Collateral.PCKCRL = nil } }},
		{"pck-crl-signature", "another key", func(s *scene) { otherKey(s.m.PCKCRL) }},
		{"pck-crl-dates", "over", func(s *scene) { s.m.PCKCRL.Template.NextUpdate = now.Add(-time.Second) }},
		{"pck-crl-dates", "of tomorrow", func(s *scene) { s.m.PCKCRL.Template.ThisUpdate = now.Add(time.Second) }},
		{"pck-crl-age", "too old", func(s *scene) {
			s.options.MaxCollateralAge, s.m.PCKCRL.Template.ThisUpdate = time.Hour, now.Add(-time.Hour-time.Second)
		}},
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
		{"tcb-info-format", "levels out of order", func(s *scene) { slices.Reverse(s.m.TCBInfo.Levels) }},
		{"tcb-info-format", "a level twice", func(s *scene) { s.m.TCBInfo.Levels = append(s.m.TCBInfo.Levels, s.m.TCBInfo.Levels[1]) }},
		{"tcb-info-format", "levels of a module out of order", func(s *scene) { slices.Reverse(s.m.TCBInfo.Modules[0].Levels) }},
		{"qe-identity-format", "levels out of order", func(s *scene) { slices.Reverse(s.m.QEIdentity.Levels) }},
		{"tcb-info-dates", "over", func(s *scene) { s.m.TCBInfo.NextUpdate = now.Add(-time.Second) }},
		{"tcb-info-dates", "of tomorrow", func(s *scene) { s.m.TCBInfo.IssueDate = now.Add(time.Second) }},
		{"tcb-info-evaluation", "below the floor", func(s *scene) { s.options.MinTCBEvaluation, s.m.TCBInfo.Evaluation = 17, 16 }},
		{"tcb-info-age", "too old", func(s *scene) {
			s.options.MaxCollateralAge, s.m.TCBInfo.IssueDate = time.Hour, now.Add(-time.Hour-time.Second)
		}},
		{"qe-identity-age", "too old", func(s *scene) {
			s.options.MaxCollateralAge, s.m.QEIdentity.IssueDate = time.Hour, now.Add(-time.Hour-time.Second)
		}},
		{"tcb-date", "a platform's level of another day", func(s *scene) { s.options.MinTCBDate, s.m.TCBInfo.Levels[0].Date = floor, "2026-08-11T00:00:00Z" }},
		{"tcb-date", "a module's", func(s *scene) {
			s.options.MinTCBDate, s.m.TCBInfo.Modules[0].Levels[0].Date = floor, "2026-08-11T00:00:00Z"
		}},
		{"tcb-date", "the quoting enclave's", func(s *scene) { s.options.MinTCBDate, s.m.QEIdentity.Levels[0].Date = floor, "2026-08-11T00:00:00Z" }},
		{"tcb-date", "none", func(s *scene) { s.options.MinTCBDate, s.m.QEIdentity.Levels[0].Date = floor, "" }},
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
			vector{doc.name + "-chain", "another name", mistaken(doc.info,
				func(c *attesttest.Certified) { c.Template.Subject.CommonName = "Intel SGX PCK Certificate" })},
			vector{doc.name + "-chain", "a CA", mistaken(doc.info, func(c *attesttest.Certified) { c.Template.IsCA = true })},
			vector{doc.name + "-chain", "another key signed it", mistaken(doc.info, func(c *attesttest.Certified) { c.SignedBy = newKey() })},
			vector{doc.name + "-signer-dates", "over", mistaken(doc.info,
				func(c *attesttest.Certified) { c.Template.NotAfter = now.Add(-time.Second) })},
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
