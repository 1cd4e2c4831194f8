package pki

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// ParseCRL parses a revocation list in DER of at most so many bytes. It must say until when it holds. A critical extension, of the
// list or of an entry, would limit or shift what the list says: a delta list and one of a part of the certificates say so in one.
func ParseCRL(der []byte, most int) (*x509.RevocationList, error) {
	if len(der) > most {
		return nil, fmt.Errorf("%d bytes, want at most %d", len(der), most)
	}
	crl, err := x509.ParseRevocationList(der)
	if err != nil {
		return nil, err
	}
	if after := len(der) - len(crl.Raw); after != 0 {
		return nil, fmt.Errorf("%d bytes after the list, want none", after) // x509 passes over them
	}
	if crl.NextUpdate.IsZero() {
		return nil, errors.New("no nextUpdate")
	}
	for _, e := range crl.Extensions {
		if e.Critical {
			return nil, fmt.Errorf("critical extension %v is unknown", e.Id)
		}
	}
	for _, entry := range crl.RevokedCertificateEntries {
		for _, e := range entry.Extensions {
			if e.Critical {
				return nil, fmt.Errorf("critical extension %v of an entry is unknown", e.Id)
			}
		}
	}
	return crl, nil
}

// CRLIssuedBy checks that issuer, whose certificate lets it, signed the list with a signature of that kind.
func CRLIssuedBy(crl *x509.RevocationList, issuer *x509.Certificate, kind x509.SignatureAlgorithm) error {
	if !bytes.Equal(crl.RawIssuer, issuer.RawSubject) {
		return fmt.Errorf("issuer is %q, want %q", crl.Issuer, issuer.Subject)
	}
	if issuer.KeyUsage&x509.KeyUsageCRLSign == 0 {
		return fmt.Errorf("key usage of %q is %#b, want revocation list signing in it", issuer.Subject.CommonName, issuer.KeyUsage)
	}
	if crl.SignatureAlgorithm != kind {
		return fmt.Errorf("signature is %s, want %s", crl.SignatureAlgorithm, kind)
	}
	return issuer.CheckSignature(kind, crl.RawTBSRevocationList, crl.Signature)
}

// Revoked returns the first of the certificates that the list has, and since when, or nil. The list must be their issuer's.
func Revoked(crl *x509.RevocationList, certificates ...*x509.Certificate) (cert *x509.Certificate, since time.Time) {
	for _, entry := range crl.RevokedCertificateEntries {
		for _, cert := range certificates {
			if entry.SerialNumber.Cmp(cert.SerialNumber) == 0 {
				return cert, entry.RevocationTime
			}
		}
	}
	return nil, time.Time{}
}
