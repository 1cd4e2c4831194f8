package pki_test

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"math/big"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"chrysalis/attest/attesttest"
	"chrysalis/attest/pki"
)

var ocspNow = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// answered returns a certificate that a responder speaks of.
func answered(change func(*attesttest.BoardAnswer)) *attesttest.BoardCertificate {
	c := attesttest.NewBoard(ocspNow).GPUs[0].Chain[1]
	if change != nil {
		change(c.Answer)
	}
	return c
}

// TestOCSP reads answers of each kind, and holds what it reads against golang.org/x/crypto/ocsp.
func TestOCSP(t *testing.T) {
	for name, change := range map[string]func(*attesttest.BoardAnswer){
		"good":             nil,
		"on hold":          func(a *attesttest.BoardAnswer) { a.Status = pki.OCSPHold },
		"revoked":          func(a *attesttest.BoardAnswer) { a.Status = pki.OCSPRevoked },
		"unknown":          func(a *attesttest.BoardAnswer) { a.Status = pki.OCSPUnknown },
		"by the issuer":    func(a *attesttest.BoardAnswer) { a.Responder = nil },
		"by SHA-1":         func(a *attesttest.BoardAnswer) { a.Hash = crypto.SHA1 },
		"by SHA-256":       func(a *attesttest.BoardAnswer) { a.Hash = crypto.SHA256 },
		"without an end":   func(a *attesttest.BoardAnswer) { a.NextUpdate = time.Time{} },
		"with a nonce":     func(a *attesttest.BoardAnswer) { a.Nonce = []byte("nonce") },
		"with much serial": func(a *attesttest.BoardAnswer) { a.Serial = new(big.Int).Lsh(big.NewInt(1), 150) },
	} {
		c := answered(change)
		cert, issuer := c.Certificate(), c.Issuer.Certificate()
		got, err := pki.ParseOCSP(c.Answered(), 8<<10)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err := pki.OCSPIssuedBy(got, issuer, x509.ECDSAWithSHA384); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if about := c.Answer.Serial == nil; got.About(cert, issuer) != about || got.About(issuer, issuer) || got.About(cert, cert) {
			t.Errorf("%s: about the certificate is %t, want %t", name, !about, about)
		}
		want, err := ocsp.ParseResponse(c.Answered(), issuer)
		if err != nil {
			t.Fatalf("%s: the other parser: %v", name, err)
		}
		status := map[int]pki.OCSPStatus{ocsp.Good: pki.OCSPGood, ocsp.Revoked: pki.OCSPRevoked, ocsp.Unknown: pki.OCSPUnknown}[want.Status]
		if want.RevocationReason == ocsp.CertificateHold {
			status = pki.OCSPHold
		}
		if got.Status != status || got.Status != c.Answer.Status || got.Reason != want.RevocationReason ||
			!got.ThisUpdate.Equal(want.ThisUpdate) ||
			!got.NextUpdate.Equal(want.NextUpdate) || !got.RevokedAt.Equal(want.RevokedAt) || got.Serial.Cmp(want.SerialNumber) != 0 ||
			!got.Produced.Equal(want.ProducedAt) ||
			!bytes.Equal(got.Nonce, c.Answer.Nonce) {
			t.Errorf("%s: got %+v, want %+v", name, got, want)
		}
	}
}

// TestOthersOCSP reads what golang.org/x/crypto/ocsp writes.
func TestOthersOCSP(t *testing.T) {
	c := answered(nil)
	der, err := ocsp.CreateResponse(c.Issuer.Certificate(), c.Issuer.Certificate(),
		ocsp.Response{Status: ocsp.Revoked, SerialNumber: c.Template.SerialNumber,
			ThisUpdate: ocspNow, NextUpdate: ocspNow.Add(time.Hour), RevokedAt: ocspNow, RevocationReason: ocsp.CertificateHold,
			IssuerHash: crypto.SHA256}, c.Issuer.Key)
	if err != nil {
		t.Fatal(err)
	}
	got, err := pki.ParseOCSP(der, 8<<10)
	if err != nil || got.Status != pki.OCSPHold || !got.About(c.Certificate(), c.Issuer.Certificate()) {
		t.Fatalf("got %+v, %v", got, err)
	}
	if err := pki.OCSPIssuedBy(got, c.Issuer.Certificate(), x509.ECDSAWithSHA384); err != nil {
		t.Error(err)
	}
	if err := pki.OCSPIssuedBy(got, c.Issuer.Certificate(), x509.ECDSAWithSHA256); err == nil {
		t.Error("another kind of signature: not refused")
	}
	if err := pki.OCSPIssuedBy(got, c.Issuer.Issuer.Certificate(), x509.ECDSAWithSHA384); err == nil {
		t.Error("another issuer: not refused")
	}
}

func TestOCSPRefuses(t *testing.T) {
	sound := answered(nil).Answered()
	editing := func(from, to string) []byte {
		if !bytes.Contains(sound, []byte(from)) {
			t.Fatalf("nothing to replace: %x", from)
		}
		return bytes.Replace(sound, []byte(from), []byte(to), 1)
	}
	for name, der := range map[string][]byte{
		"nothing":                    nil,
		"cut short":                  sound[:len(sound)-1],
		"a byte after":               append(bytes.Clone(sound), 0),
		"long":                       append(bytes.Clone(sound), make([]byte, 8<<10)...),
		"an error":                   {0x30, 3, 0x0a, 1, 6},
		"another type":               editing("\x2b\x06\x01\x05\x05\x07\x30\x01\x01", "\x2b\x06\x01\x05\x05\x07\x30\x01\x09"),
		"names hashed otherwise":     editing("\x60\x86\x48\x01\x65\x03\x04\x02\x02", "\x60\x86\x48\x01\x65\x03\x04\x02\x03"),
		"hash of another size":       editing("\x60\x86\x48\x01\x65\x03\x04\x02\x02", "\x60\x86\x48\x01\x65\x03\x04\x02\x01"),
		"another kind of signature":  editing("\x2a\x86\x48\xce\x3d\x04\x03\x03\x03", "\x2a\x86\x48\xce\x3d\x04\x03\x04\x03"),
		"unknown critical extension": answered(func(a *attesttest.BoardAnswer) { a.Critical = true }).Answered(),
		"version 2":                  answered(func(a *attesttest.BoardAnswer) { a.Version = 1 }).Answered(),
		"long nonce":                 answered(func(a *attesttest.BoardAnswer) { a.Nonce = make([]byte, 33) }).Answered(),
		"empty nonce":                answered(func(a *attesttest.BoardAnswer) { a.Nonce = []byte{} }).Answered(),
	} {
		if o, err := pki.ParseOCSP(der, 8<<10); err == nil {
			t.Errorf("%s: got %+v, want a refusal", name, o)
		}
	}
}

// TestOCSPRequest asks in the form that golang.org/x/crypto/ocsp reads.
func TestOCSPRequest(t *testing.T) {
	c := answered(nil)
	plain, err := pki.OCSPRequest(c.Certificate(), c.Issuer.Certificate(), nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ocsp.ParseRequest(plain)
	if err != nil || got.SerialNumber.Cmp(c.Template.SerialNumber) != 0 || got.HashAlgorithm != crypto.SHA384 {
		t.Fatalf("got %+v, %v", got, err)
	}
	want, err := ocsp.CreateRequest(c.Certificate(), c.Issuer.Certificate(), &ocsp.RequestOptions{Hash: crypto.SHA384})
	if err != nil {
		t.Fatal(err)
	}
	// The other writer gives the algorithm's parameters as NULL, which RFC 5754 leaves out.
	if short := strings.Replace(string(want), "\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00", "\x60\x86\x48\x01\x65\x03\x04\x02\x02",
		1); len(short) != len(plain) {
		t.Errorf("got %x, want %x but for NULL and lengths", plain, want)
	}
	nonced, err := pki.OCSPRequest(c.Certificate(), c.Issuer.Certificate(), []byte("nonce"))
	if err != nil || !bytes.Contains(nonced, []byte("\x04\x05nonce")) {
		t.Errorf("got %x, %v", nonced, err)
	}
	if rest, err := asn1.Unmarshal(nonced, new(asn1.RawValue)); err != nil || len(rest) > 0 {
		t.Errorf("got %x after it, %v", rest, err)
	}
}

// FuzzOCSP shows that nothing but what a responder signed is taken.
func FuzzOCSP(f *testing.F) {
	c := answered(nil)
	issuer := c.Issuer.Certificate()
	f.Add(c.Answered())
	f.Add(answered(func(a *attesttest.BoardAnswer) { a.Status, a.Nonce = pki.OCSPHold, []byte("nonce") }).Answered())
	f.Fuzz(func(t *testing.T, der []byte) {
		o, err := pki.ParseOCSP(der, 8<<10)
		if err != nil || pki.OCSPIssuedBy(o, issuer, x509.ECDSAWithSHA384) != nil {
			return
		}
		if o.Status == pki.OCSPRevoked || !o.About(c.Certificate(), issuer) {
			t.Errorf("an answer that nobody gave: %+v", o)
		}
	})
}
