package vtpm

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"strings"
	"testing"
	"time"

	"chrysalis/attest/pki"
)

var made = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

type maker struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// newMaker returns a certificate authority under parent, or a root when that is nil.
func newMaker(t testing.TB, parent *maker, change func(*x509.Certificate)) *maker {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "maker"}, NotBefore: made.Add(-time.Hour), NotAfter: made.Add(time.Hour),
		BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign,
	}
	if change != nil {
		change(template)
	}
	m := &maker{template, key}
	if parent == nil {
		parent = m
	}
	m.cert = parse(t, sign(t, template, parent, &key.PublicKey))
	return m
}

func sign(t testing.TB, template *x509.Certificate, parent *maker, key *ecdsa.PublicKey) []byte {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent.cert, key, parent.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func parse(t testing.TB, der []byte) *x509.Certificate {
	t.Helper()
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func leaf(t testing.TB, parent *maker) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return sign(t, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "key"}, NotBefore: made.Add(-time.Hour), NotAfter: made.Add(time.Hour),
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature, UnknownExtKeyUsage: []asn1.ObjectIdentifier{pki.TPMAttestation()},
	}, parent, &key.PublicKey)
}

func TestChain(t *testing.T) {
	root := newMaker(t, nil, nil)
	between := newMaker(t, root, func(c *x509.Certificate) { c.Subject.CommonName = "maker between" })
	noCA := newMaker(t, root, func(c *x509.Certificate) {
		c.Subject.CommonName, c.IsCA, c.KeyUsage = "no maker", false, x509.KeyUsageDigitalSignature
	})
	expired := newMaker(t, root, func(c *x509.Certificate) { c.Subject.CommonName, c.NotAfter = "old maker", made.Add(-time.Minute) })
	roots := x509.NewCertPool()
	roots.AddCert(root.cert)
	for _, tt := range []struct {
		name  string
		chain [][]byte
		roots *x509.CertPool
		want  string
	}{
		{"under the root", [][]byte{leaf(t, root)}, roots, ""},
		{"with a maker between", [][]byte{leaf(t, between), between.cert.Raw}, roots, ""},
		{"the maker between is missing", [][]byte{leaf(t, between)}, roots, "unknown authority"},
		{"the maker between is no CA", [][]byte{leaf(t, noCA), noCA.cert.Raw}, roots, "cannot sign this kind"},
		{"the maker between has expired", [][]byte{leaf(t, expired), expired.cert.Raw}, roots, "expired"},
		{"no roots", [][]byte{leaf(t, root)}, nil, "no root is trusted"},
		{"empty roots", [][]byte{leaf(t, root)}, x509.NewCertPool(), "unknown authority"},
		{"the root's own key", [][]byte{root.cert.Raw}, roots, "no basic constraints that say it is no CA"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			chain, err := ParseChain(tt.chain)
			if err != nil {
				t.Fatal(err)
			}
			err = chain.Verify(tt.roots, made)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
	five := [][]byte{leaf(t, root), root.cert.Raw, root.cert.Raw, root.cert.Raw, root.cert.Raw}
	for name, chain := range map[string][][]byte{"none": nil, "five": five, "no DER": {{1}},
		"a long one": {make([]byte, maxCertificateBytes+1)}} {
		if _, err := ParseChain(chain); err == nil {
			t.Errorf("%s: got no error, want a refusal", name)
		}
	}
}

func FuzzParseChain(f *testing.F) {
	root := newMaker(f, nil, nil)
	roots := x509.NewCertPool()
	roots.AddCert(root.cert)
	f.Add(leaf(f, root), root.cert.Raw)
	f.Fuzz(func(t *testing.T, first, second []byte) {
		chain, err := ParseChain([][]byte{first, second})
		if err != nil {
			return
		}
		if err := chain.Verify(roots, made); err == nil && chain.Key() == nil {
			t.Error("verified without a key")
		}
	})
}

// TestHeavyKeys: an intermediate's key decides what a signature's check costs, and it comes from whoever is judged. It is refused
// before any signature is checked.
func TestHeavyKeys(t *testing.T) {
	root := newMaker(t, nil, nil)
	for _, tt := range []struct {
		name string
		bits int
		want string
	}{
		{"as long as any in use", 4096, ""},
		{"a bit longer", 4097, "key is RSA of 4097 bits"},
		{"60000 bits", 60000, "key is RSA of 60000 bits"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), uint(tt.bits)))
			if err != nil {
				t.Fatal(err)
			}
			heavy := &rsa.PublicKey{N: n.SetBit(n, tt.bits-1, 1).SetBit(n, 0, 1), E: 1<<31 - 1}
			template := &x509.Certificate{SerialNumber: big.NewInt(5), Subject: pkix.Name{CommonName: "heavy"}, NotBefore: made.Add(-time.Hour),
				NotAfter: made.Add(time.Hour), BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign}
			der, err := x509.CreateCertificate(rand.Reader, template, root.cert, heavy, root.key)
			if err != nil {
				t.Fatal(err)
			}
			_, err = ParseChain([][]byte{leaf(t, root), der})
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}
