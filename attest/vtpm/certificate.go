package vtpm

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"time"
)

// attestationKeyUsage is tcg-kp-AIKCertificate: TCG EK Credential Profile 2.5, section 3.3.
var attestationKeyUsage = asn1.ObjectIdentifier{2, 23, 133, 8, 3}

const (
	// MaxCertificates bounds a chain without its root.
	MaxCertificates     = 4
	maxCertificateBytes = 8 << 10
)

// Chain is an attestation key's certificate and the certificates between it and a root, in DER, parsed but not verified.
type Chain struct {
	leaf          *x509.Certificate
	intermediates []*x509.Certificate
}

// ParseChain parses certificates, the attestation key's first.
func ParseChain(certificates [][]byte) (*Chain, error) {
	if n := len(certificates); n == 0 || n > MaxCertificates {
		return nil, fmt.Errorf("parsing attestation key's certificates: got %d, want 1 to %d", n, MaxCertificates)
	}
	var c Chain
	for i, der := range certificates {
		if len(der) > maxCertificateBytes {
			return nil, fmt.Errorf("parsing attestation key's certificate %d: %d bytes, want at most %d", i, len(der), maxCertificateBytes)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("parsing attestation key's certificate %d: %w", i, err)
		}
		if i == 0 {
			c.leaf = cert
		} else {
			c.intermediates = append(c.intermediates, cert)
		}
	}
	if key, ok := c.leaf.PublicKey.(*ecdsa.PublicKey); !ok || key.Curve != elliptic.P256() {
		return nil, fmt.Errorf("parsing attestation key's certificate: key is %s, want ECDSA on P-256", c.leaf.PublicKeyAlgorithm)
	}
	return &c, nil
}

// Key returns the certified key.
func (c *Chain) Key() *ecdsa.PublicKey { return c.leaf.PublicKey.(*ecdsa.PublicKey) }

// ID names the machine: SHA-256 of the attestation key's SubjectPublicKeyInfo.
func (c *Chain) ID() [32]byte { return sha256.Sum256(c.leaf.RawSubjectPublicKeyInfo) }

// Issuer returns the distinguished name of the one who certified the key.
func (c *Chain) Issuer() string { return c.leaf.Issuer.String() }

// Verify checks that the chain ends in roots at the time now, and that the leaf is the certificate of an attestation key:
// no CA, usage digital signature, extended usage tcg-kp-AIKCertificate. No roots, nil among them, trust nobody.
func (c *Chain) Verify(roots *x509.CertPool, now time.Time) error {
	if roots == nil {
		// A nil pool would be the system's.
		return errors.New("verifying attestation key's certificate: no root is trusted")
	}
	if !c.leaf.BasicConstraintsValid || c.leaf.IsCA {
		return errors.New("verifying attestation key's certificate: it has no basic constraints that say it is no CA")
	}
	if c.leaf.KeyUsage != x509.KeyUsageDigitalSignature {
		return fmt.Errorf("verifying attestation key's certificate: key usage is %#b, want digital signature alone", c.leaf.KeyUsage)
	}
	if !slices.ContainsFunc(c.leaf.UnknownExtKeyUsage, attestationKeyUsage.Equal) {
		return fmt.Errorf("verifying attestation key's certificate: extended key usages are %v, want %v among them", c.leaf.UnknownExtKeyUsage, attestationKeyUsage)
	}
	pool := x509.NewCertPool()
	for _, cert := range c.intermediates {
		pool.AddCert(cert)
	}
	// The extended usage has been judged above; x509 knows no name for it.
	_, err := c.leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: pool, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if err != nil {
		return fmt.Errorf("verifying attestation key's certificate: %w", err)
	}
	return nil
}
