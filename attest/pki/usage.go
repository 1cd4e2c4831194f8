package pki

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Extended key usages of a TPM's keys, for which x509 has no name: TCG EK Credential Profile 2.5, sections 3.2.16 and 3.3.
var (
	usageEndorsement = asn1.ObjectIdentifier{2, 23, 133, 8, 1} // tcg-kp-EKCertificate
	usageAttestation = asn1.ObjectIdentifier{2, 23, 133, 8, 3} // tcg-kp-AIKCertificate
)

// TPMAttestation returns the extended usage of an attestation key's certificate.
func TPMAttestation() asn1.ObjectIdentifier { return slices.Clone(usageAttestation) }

// TPMEndorsement returns the extended usage of an endorsement key's certificate.
func TPMEndorsement() asn1.ObjectIdentifier { return slices.Clone(usageEndorsement) }

// ForUsage checks that a certificate has the extended usage, among others or alone.
func ForUsage(cert *x509.Certificate, usage asn1.ObjectIdentifier) error {
	if !slices.ContainsFunc(cert.UnknownExtKeyUsage, usage.Equal) {
		return fmt.Errorf("extended key usages are %v, want %v among them", cert.UnknownExtKeyUsage, usage)
	}
	return nil
}

// Under checks that a certificate leads to one of the roots by the intermediates at a time: RFC 5280's path validation, as Go's
// library does it, for any extended usage. It trusts nobody where roots is nil, which the library takes for the system's.
func Under(roots *x509.CertPool, now time.Time, cert *x509.Certificate, intermediates ...*x509.Certificate) error {
	if roots == nil {
		return errors.New("no root is trusted")
	}
	pool := x509.NewCertPool()
	for _, c := range intermediates {
		pool.AddCert(c)
	}
	_, err := cert.Verify(x509.VerifyOptions{Roots: roots, Intermediates: pool, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	return err
}
