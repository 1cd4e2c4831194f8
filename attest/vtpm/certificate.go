package vtpm

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"chrysalis/attest/pki"
)

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
		cert, err := pki.Parse(der, maxCertificateBytes)
		if err != nil {
			return nil, fmt.Errorf("parsing attestation key's certificate %d: %w", i, err)
		}
		if i == 0 {
			c.leaf = cert
		} else {
			c.intermediates = append(c.intermediates, cert)
		}
	}
	if _, err := pki.On(elliptic.P256(), c.leaf); err != nil {
		return nil, fmt.Errorf("parsing attestation key's certificate: %w", err)
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
	if !c.leaf.BasicConstraintsValid || c.leaf.IsCA {
		return errors.New("verifying attestation key's certificate: it has no basic constraints that say it is no CA")
	}
	if c.leaf.KeyUsage != x509.KeyUsageDigitalSignature {
		return fmt.Errorf("verifying attestation key's certificate: key usage is %#b, want digital signature alone", c.leaf.KeyUsage)
	}
	if err := pki.ForUsage(c.leaf, pki.TPMAttestation()); err != nil {
		return fmt.Errorf("verifying attestation key's certificate: %w", err)
	}
	if err := pki.Under(roots, now, c.leaf, c.intermediates...); err != nil {
		return fmt.Errorf("verifying attestation key's certificate: %w", err)
	}
	return nil
}
