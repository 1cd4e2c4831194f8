package pki_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"chrysalis/attest/pki"
)

var (
	now     = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	unknown = asn1.ObjectIdentifier{1, 2, 3, 4}
)

// maker is a certificate authority.
type maker struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newKey(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func template(name string, edit func(*x509.Certificate)) *x509.Certificate {
	c := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature,
	}
	if edit != nil {
		edit(c)
	}
	return c
}

func newMaker(t testing.TB, edit func(*x509.Certificate)) *maker {
	t.Helper()
	m := &maker{key: newKey(t, elliptic.P256())}
	c := template("maker", func(c *x509.Certificate) {
		c.IsCA, c.KeyUsage, c.SubjectKeyId = true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign, []byte{1}
		if edit != nil {
			edit(c)
		}
	})
	der, err := x509.CreateCertificate(rand.Reader, c, c, m.key.Public(), m.key)
	if err != nil {
		t.Fatal(err)
	}
	if m.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return m
}

func (m *maker) issue(t testing.TB, key crypto.PublicKey, edit func(*x509.Certificate)) []byte {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template("leaf", edit), m.cert, key, m.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func refuses(t *testing.T, err error, want string) {
	t.Helper()
	if want == "" && err != nil {
		t.Errorf("got %v, want it accepted", err)
	}
	if want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
		t.Errorf("got %v, want an error with %q", err, want)
	}
}

// heavyRSA is a public key of that many bits that nobody has the private half of.
func heavyRSA(t *testing.T, bits int) *rsa.PublicKey {
	t.Helper()
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), uint(bits)))
	if err != nil {
		t.Fatal(err)
	}
	return &rsa.PublicKey{N: n.SetBit(n, bits-1, 1).SetBit(n, 0, 1), E: 65537}
}

func TestParse(t *testing.T) {
	m := newMaker(t, nil)
	edwards, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p256 := newKey(t, elliptic.P256()).Public()
	critical := func(c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{{Id: unknown, Critical: true, Value: []byte{5, 0}}}
	}
	good := m.issue(t, p256, nil)
	exponent := func(e int64) *rsa.PublicKey {
		key := heavyRSA(t, 2048)
		key.E = int(e)
		return key
	}
	for _, tt := range []struct {
		name  string
		der   []byte
		known []asn1.ObjectIdentifier
		want  string
	}{
		{"P-256", good, nil, ""},
		{"P-384", m.issue(t, newKey(t, elliptic.P384()).Public(), nil), nil, ""},
		{"P-521", m.issue(t, newKey(t, elliptic.P521()).Public(), nil), nil, ""},
		{"P-224", m.issue(t, newKey(t, elliptic.P224()).Public(), nil), nil, "key is on P-224"},
		{"Ed25519", m.issue(t, edwards, nil), nil, "key is Ed25519"},
		{"RSA of 4096 bits", m.issue(t, heavyRSA(t, 4096), nil), nil, ""},
		{"RSA of 4097 bits", m.issue(t, heavyRSA(t, 4097), nil), nil, "key is RSA of 4097 bits"},
		{"RSA of 60000 bits", m.issue(t, heavyRSA(t, 60000), nil), nil, "key is RSA of 60000 bits"},
		{"RSA with an exponent of 31 bits", m.issue(t, exponent(1<<31-1), nil), nil, ""},
		{"RSA with an exponent of 32 bits", m.issue(t, exponent(1<<31+1), nil), nil, "exponent 2147483649"},
		{"a critical extension", m.issue(t, p256, critical), nil, "critical extension 1.2.3.4 is unknown"},
		{"a critical extension that the caller knows", m.issue(t, p256, critical), []asn1.ObjectIdentifier{unknown}, ""},
		{"a critical extension beside the known one", m.issue(t, p256, critical), []asn1.ObjectIdentifier{{1, 2, 3}},
			"critical extension 1.2.3.4 is unknown"},
		{"trailing byte", append(slices.Clone(good), 0), nil, "trailing data"},
		{"nothing", nil, nil, "malformed"},
		{"too long", make([]byte, 10001), nil, "10001 bytes, want at most 10000"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := pki.Parse(tt.der, 10000, tt.known...)
			refuses(t, err, tt.want)
		})
	}
}

func TestParsePEM(t *testing.T) {
	m := newMaker(t, nil)
	block := func(der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}) }
	leaf := block(m.issue(t, newKey(t, elliptic.P256()).Public(), nil))
	chain := slices.Concat(leaf, block(m.cert.Raw))
	for _, tt := range []struct {
		name string
		pem  []byte
		n    int
		want string
	}{
		{"two", chain, 2, ""},
		{"zeros after it", append(slices.Clone(chain), 0, 0), 2, ""},
		{"one more", chain, 1, "more than 1 certificates"},
		{"one fewer", chain, 3, "2 certificates, want 3"},
		{"none", nil, 1, "0 certificates, want 1"},
		{"text before it", append([]byte("x"), chain...), 2, "is no -----BEGIN"},
		{"text within", slices.Concat(leaf, []byte("x\n"), block(m.cert.Raw)), 2, "is no -----BEGIN"},
		{"another block", bytes.ReplaceAll(leaf, []byte("CERTIFICATE"), []byte("X509 CRL")), 1, "is no -----BEGIN"},
		{"no end", leaf[:100], 1, "no end of PEM"},
		{"a space in it", bytes.Replace(leaf, []byte("-----\nM"), []byte("-----\n M"), 1), 1, "illegal base64"},
		{"a heavy key", block(m.issue(t, heavyRSA(t, 5000), nil)), 1, "RSA of 5000 bits"},
		{"too long", make([]byte, 1<<14+1), 1, "want at most"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := pki.ParsePEM(tt.pem, 1<<14, tt.n)
			refuses(t, err, tt.want)
		})
	}
}

func TestIssued(t *testing.T) {
	m, other := newMaker(t, nil), newMaker(t, nil)
	stranger := newMaker(t, func(c *x509.Certificate) { c.Subject.CommonName = "stranger" })
	cert := func(edit func(*x509.Certificate)) *x509.Certificate {
		c, err := pki.Parse(m.issue(t, newKey(t, elliptic.P256()).Public(), edit), 10000)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	leaf := cert(nil)
	refuses(t, pki.IssuedBy(leaf, m.cert, x509.ECDSAWithSHA256), "")
	refuses(t, pki.IssuedBy(leaf, other.cert, x509.ECDSAWithSHA256), "ECDSA verification failure")
	refuses(t, pki.IssuedBy(leaf, stranger.cert, x509.ECDSAWithSHA256), `want "CN=stranger"`)
	refuses(t, pki.IssuedBy(leaf, m.cert, x509.SHA384WithRSAPSS), "signature is ECDSA-SHA256")
	old := *leaf
	old.Version = 1
	refuses(t, pki.IssuedBy(&old, m.cert, x509.ECDSAWithSHA256), "version is 1, want 3")

	refuses(t, pki.Authority(m.cert), "")
	refuses(t, pki.Authority(leaf), "no basic constraints")
	refuses(t, pki.Authority(newMaker(t, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign }).cert), "want certificate signing")

	refuses(t, pki.EndEntity(leaf), "")
	refuses(t, pki.EndEntity(m.cert), "is a CA")
	refuses(t, pki.EndEntity(cert(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyAgreement })), "want digital signature")

	if _, err := pki.On(elliptic.P384(), leaf); err == nil {
		t.Error("a P-256 key on P-384: got no error")
	}
	if !pki.SelfIssued(m.cert) || pki.SelfIssued(leaf) {
		t.Errorf("self-issued: maker %t, leaf %t, want true, false", pki.SelfIssued(m.cert), pki.SelfIssued(leaf))
	}

	refuses(t, pki.ForUsage(leaf, pki.TPMAttestation()), "want 2.23.133.8.3 among them")
	refuses(t, pki.ForUsage(cert(func(c *x509.Certificate) {
		c.UnknownExtKeyUsage = []asn1.ObjectIdentifier{{1, 2}, pki.TPMAttestation()}
	}), pki.TPMAttestation()), "")

	pool := x509.NewCertPool()
	pool.AddCert(m.cert)
	refuses(t, pki.Under(pool, now, leaf), "")
	refuses(t, pki.Under(pool, now.Add(2*time.Hour), leaf), "expired")
	refuses(t, pki.Under(x509.NewCertPool(), now, leaf), "unknown authority")
	refuses(t, pki.Under(nil, now, leaf), "no root is trusted")
}

func TestSignedRaw(t *testing.T) {
	key := newKey(t, elliptic.P384())
	digest := sha256.Sum256([]byte("message"))
	r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	good := make([]byte, 96)
	r.FillBytes(good[:48])
	s.FillBytes(good[48:])
	changed := slices.Clone(good)
	changed[90] ^= 1
	for _, tt := range []struct {
		name      string
		signature []byte
		want      bool
	}{
		{"good", good, true},
		{"changed", changed, false},
		{"of another curve's length", good[:64], false},
		{"a zero before each half", slices.Concat([]byte{0}, good[:48], []byte{0}, good[48:]), false},
		{"empty", nil, false},
	} {
		if got := pki.SignedRaw(&key.PublicKey, digest[:], tt.signature); got != tt.want {
			t.Errorf("%s: got %t, want %t", tt.name, got, tt.want)
		}
	}
}

func TestCRL(t *testing.T) {
	m, other := newMaker(t, nil), newMaker(t, nil)
	unable := newMaker(t, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCertSign })
	list := func(edit func(*x509.RevocationList)) []byte {
		l := &x509.RevocationList{
			Number: big.NewInt(1), ThisUpdate: now.Add(-time.Hour), NextUpdate: now.Add(time.Hour),
			RevokedCertificateEntries: []x509.RevocationListEntry{{SerialNumber: big.NewInt(9), RevocationTime: now.Add(-time.Minute)}},
		}
		if edit != nil {
			edit(l)
		}
		der, err := x509.CreateRevocationList(rand.Reader, l, m.cert, m.key)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	critical := []pkix.Extension{{Id: unknown, Critical: true, Value: []byte{5, 0}}}
	for _, tt := range []struct {
		name string
		der  []byte
		want string
	}{
		{"good", list(nil), ""},
		{"trailing byte", append(list(nil), 0), "1 bytes after the list"},
		{"a critical extension", list(func(l *x509.RevocationList) { l.ExtraExtensions = critical }), "critical extension 1.2.3.4 is unknown"},
		{"a critical extension of an entry", list(func(l *x509.RevocationList) { l.RevokedCertificateEntries[0].ExtraExtensions = critical }), "of an entry is unknown"},
		{"nothing", nil, "malformed"},
		{"too long", make([]byte, 4097), "want at most 4096"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := pki.ParseCRL(tt.der, 4096)
			refuses(t, err, tt.want)
		})
	}
	crl, err := pki.ParseCRL(list(nil), 4096)
	if err != nil {
		t.Fatal(err)
	}
	refuses(t, pki.CRLIssuedBy(crl, m.cert, x509.ECDSAWithSHA256), "")
	refuses(t, pki.CRLIssuedBy(crl, other.cert, x509.ECDSAWithSHA256), "ECDSA verification failure")
	refuses(t, pki.CRLIssuedBy(crl, unable.cert, x509.ECDSAWithSHA256), "want revocation list signing")
	refuses(t, pki.CRLIssuedBy(crl, m.cert, x509.SHA384WithRSAPSS), "signature is ECDSA-SHA256")
	stranger := newMaker(t, func(c *x509.Certificate) { c.Subject.CommonName = "stranger" })
	refuses(t, pki.CRLIssuedBy(crl, stranger.cert, x509.ECDSAWithSHA256), `want "CN=stranger"`)

	good, revoked := &x509.Certificate{SerialNumber: big.NewInt(7)}, &x509.Certificate{SerialNumber: big.NewInt(9)}
	if got, since := pki.Revoked(crl, good, revoked); got != revoked || !since.Equal(now.Add(-time.Minute)) {
		t.Errorf("got %v revoked at %v, want the second, a minute ago", got, since)
	}
	if got, _ := pki.Revoked(crl, good); got != nil {
		t.Errorf("got %v revoked, want none", got)
	}
}

// TestNoNextUpdate: a list that does not say until when it holds would hold for ever.
func TestNoNextUpdate(t *testing.T) {
	m := newMaker(t, nil)
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: now.Add(-time.Hour),
		NextUpdate: now}, m.cert, m.key)
	if err != nil {
		t.Fatal(err)
	}
	// The library writes no list without one, so it is taken out: the second of the two times in the signed part.
	var whole struct {
		TBS struct {
			Version    int `asn1:"optional,default:0"`
			Algorithm  pkix.AlgorithmIdentifier
			Issuer     asn1.RawValue
			ThisUpdate time.Time
			NextUpdate time.Time
			Extensions asn1.RawValue `asn1:"optional,tag:0"`
		}
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}
	if _, err := asn1.Unmarshal(der, &whole); err != nil {
		t.Fatal(err)
	}
	without, err := asn1.Marshal(struct {
		TBS struct {
			Version    int
			Algorithm  pkix.AlgorithmIdentifier
			Issuer     asn1.RawValue
			ThisUpdate time.Time
			Extensions asn1.RawValue
		}
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}{struct {
		Version    int
		Algorithm  pkix.AlgorithmIdentifier
		Issuer     asn1.RawValue
		ThisUpdate time.Time
		Extensions asn1.RawValue
	}{whole.TBS.Version, whole.TBS.Algorithm, whole.TBS.Issuer, whole.TBS.ThisUpdate, whole.TBS.Extensions}, whole.Algorithm, whole.Signature})
	if err != nil {
		t.Fatal(err)
	}
	_, err = pki.ParseCRL(without, 4096)
	refuses(t, err, "no nextUpdate")
}

func TestDates(t *testing.T) {
	m := newMaker(t, nil)
	short := *m.cert
	short.NotAfter, short.Subject.CommonName = now.Add(time.Minute), "short"
	for _, tt := range []struct {
		name string
		at   time.Time
		ok   bool
		want string
	}{
		{"at the first moment", now.Add(-time.Hour), true, ""},
		{"a second before", now.Add(-time.Hour - time.Second), false, "(maker)"},
		{"at the last moment of the shorter", now.Add(time.Minute), true, "2026-11-20T11:00:00Z to 2026-11-20T12:01:00Z"},
		{"a second after it", now.Add(time.Minute + time.Second), false, "(short)"},
	} {
		f := pki.Dates(tt.at, m.cert, &short)
		if _, want := f.Words(); f.OK != tt.ok || !strings.Contains(want, tt.want) {
			t.Errorf("%s: got %t, %q, want %t and %q in it", tt.name, f.OK, want, tt.ok, tt.want)
		}
	}
}
