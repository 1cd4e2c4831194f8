package vtpm

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"chrysalis/attest/vtpm"
	"chrysalis/attest/vtpm/enrol"
	"chrysalis/attest/vtpm/template"
)

// maker certifies endorsement keys.
type maker struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pool        *x509.CertPool
}

func newMaker(t *testing.T, now time.Time) maker {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	m := maker{key: key, pool: x509.NewCertPool()}
	m.certificate = m.sign(t, &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "maker"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, &key.PublicKey)
	m.pool.AddCert(m.certificate)
	return m
}

func (m maker) sign(t *testing.T, template *x509.Certificate, key any) *x509.Certificate {
	t.Helper()
	parent := m.certificate
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key, m.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// endorse certifies the endorsement key of a TPM by the template, as makers do: without a subject, so that the name is a
// critical extension.
func (m maker) endorse(t *testing.T, device transport.TPM, template tpm2.TPMTPublic, now time.Time, change func(*x509.Certificate)) []byte {
	t.Helper()
	ek, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHEndorsement, InPublic: tpm2.New2B(template)}.Execute(device)
	if err != nil {
		t.Fatal(err)
	}
	defer tpm2.FlushContext{FlushHandle: ek.ObjectHandle}.Execute(device)
	public, err := ek.OutPublic.Contents()
	if err != nil {
		t.Fatal(err)
	}
	key, err := tpm2.Pub(*public)
	if err != nil {
		t.Fatal(err)
	}
	san, err := asn1.Marshal([]asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 4, IsCompound: true, Bytes: []byte{0x30, 0}}})
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), KeyUsage: x509.KeyUsageKeyAgreement,
		BasicConstraintsValid: true, UnknownExtKeyUsage: []asn1.ObjectIdentifier{{2, 23, 133, 8, 1}},
		ExtraExtensions: []pkix.Extension{{Id: []int{2, 5, 29, 17}, Critical: true, Value: san}},
	}
	if change != nil {
		change(c)
	}
	return m.sign(t, c, key).Raw
}

// TestEnrolment certifies the attestation key of a real TPM, and refuses every other key, TPM and maker.
func TestEnrolment(t *testing.T) {
	now := time.Now()
	device, other := start(t, t.TempDir()), start(t, t.TempDir())
	m, stranger := newMaker(t, now), newMaker(t, now)
	ek := m.endorse(t, device, template.EK(), now, nil)
	ak, err := enrol.AKPublic(device)
	if err != nil {
		t.Fatal(err)
	}
	otherAK, err := enrol.AKPublic(other)
	if err != nil {
		t.Fatal(err)
	}
	begin := func(e enrol.Enrolment, at time.Time) (*enrol.Pending, *enrol.Credential) {
		t.Helper()
		pending, credential, err := e.Challenge(m.pool, at)
		if err != nil {
			t.Fatal(err)
		}
		return pending, credential
	}
	good := enrol.Enrolment{EKCertificates: [][]byte{ek}, AK: ak}

	pending, credential := begin(good, now)
	answer, err := enrol.Activate(device, credential)
	if err != nil {
		t.Fatal(err)
	}
	der, err := pending.Certify(answer, m.certificate, m.key, now.Add(-time.Minute), now.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	chain, err := vtpm.ParseChain([][]byte{der})
	if err != nil {
		t.Fatal(err)
	}
	if err := chain.Verify(m.pool, now); err != nil {
		t.Errorf("the certificate that was issued: %v", err)
	}
	if _, err := pending.Certify(answer, m.certificate, m.key, now, now.Add(time.Hour)); err == nil {
		t.Error("a second certificate for one answer: got no error")
	}

	// Another TPM can't open it, and this one opens nothing that names another's attestation key.
	pending, credential = begin(good, now)
	if _, err := enrol.Activate(other, credential); err == nil {
		t.Error("another TPM: opened the credential")
	}
	if _, err := pending.Certify(make([]byte, 32), m.certificate, m.key, now, now.Add(time.Hour)); err == nil ||
		!strings.Contains(err.Error(), "another TPM") {
		t.Errorf("a guessed answer: got %v, want a refusal", err)
	}
	if _, err := pending.Certify(answer, m.certificate, m.key, now, now.Add(time.Hour)); err == nil {
		t.Error("an answer after a wrong one: got no error")
	}
	_, credential = begin(enrol.Enrolment{EKCertificates: [][]byte{ek}, AK: otherAK}, now)
	if _, err := enrol.Activate(device, credential); err == nil {
		t.Error("a credential that names another TPM's key: opened")
	}

	edited := func(change func(*tpm2.TPMTPublic)) []byte {
		public, err := tpm2.Unmarshal[tpm2.TPMTPublic](ak)
		if err != nil {
			t.Fatal(err)
		}
		change(public)
		return tpm2.Marshal(public)
	}
	for _, tt := range []struct {
		name, want string
		e          enrol.Enrolment
		makers     *x509.CertPool
		at         time.Time
	}{
		{"no makers", "no maker is trusted", good, nil, now},
		{"another maker", "certificate signed by unknown authority", good, stranger.pool, now},
		{"expired", "expired", good, m.pool, now.Add(2 * time.Hour)},
		{"no endorsement", "got 0", enrol.Enrolment{AK: ak}, m.pool, now},
		{"no certificate", "endorsement key's certificate 0", enrol.Enrolment{EKCertificates: [][]byte{{1}}, AK: ak}, m.pool, now},
		{"an attestation key's certificate", "2.23.133.8.3", enrol.Enrolment{EKCertificates: [][]byte{der}, AK: ak}, m.pool, now},
		{"a CA's certificate", "a CA's", enrol.Enrolment{EKCertificates: [][]byte{m.certificate.Raw}, AK: ak}, m.pool, now},
		{"another critical extension", "critical extension 1.2.3 is unknown",
			enrol.Enrolment{EKCertificates: [][]byte{m.endorse(t, device, template.EK(), now, func(c *x509.Certificate) {
				c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: []int{1, 2, 3}, Critical: true, Value: []byte{5, 0}})
			})}, AK: ak}, m.pool, now},
		{"no attestation key", "public area", enrol.Enrolment{EKCertificates: [][]byte{ek}}, m.pool, now},
		{"too long", "at most", enrol.Enrolment{EKCertificates: [][]byte{ek}, AK: make([]byte, 2000)}, m.pool, now},
		{"trailing byte", "public area", enrol.Enrolment{EKCertificates: [][]byte{ek}, AK: append(edited(func(*tpm2.TPMTPublic) {}), 0)},
			m.pool, now},
		{"a key that is not restricted", "by the template",
			enrol.Enrolment{EKCertificates: [][]byte{ek}, AK: edited(func(p *tpm2.TPMTPublic) { p.ObjectAttributes.Restricted = false })},
			m.pool, now},
		{"a key that can leave its TPM", "by the template",
			enrol.Enrolment{EKCertificates: [][]byte{ek}, AK: edited(func(p *tpm2.TPMTPublic) { p.ObjectAttributes.FixedTPM = false })},
			m.pool, now},
		{"a key that came from outside", "by the template",
			enrol.Enrolment{EKCertificates: [][]byte{ek}, AK: edited(func(p *tpm2.TPMTPublic) { p.ObjectAttributes.SensitiveDataOrigin = false })},
			m.pool, now},
	} {
		if p, c, err := tt.e.Challenge(tt.makers, tt.at); p != nil || c != nil || err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want an error with %q", tt.name, err, tt.want)
		}
	}

	// Many makers certify an RSA key.
	if _, _, err := (enrol.Enrolment{EKCertificates: [][]byte{m.endorse(t, device, tpm2.RSAEKTemplate, now, nil)}, AK: ak}).Challenge(m.pool,
		now); err != nil {
		t.Errorf("an RSA endorsement key: %v", err)
	}
}
