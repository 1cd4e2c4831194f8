package tdx

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"sync"

	"chrysalis/attest/pki"
)

// Common names in Intel's certificates: Intel SGX PCK Certificate and CRL Specification 1.5, sections 1.2 and 1.3.
const (
	namePCK         = "Intel SGX PCK Certificate"
	namePlatformCA  = "Intel SGX PCK Platform CA"
	nameProcessorCA = "Intel SGX PCK Processor CA"
	nameTCBSigning  = "Intel SGX TCB Signing"
)

// maxChainBytes bounds a PEM chain.
const maxChainBytes = 16 << 10

// seen is what one appraisal has parsed and checked of certificates: its four chains are made of four certificates, and each
// signature is checked once.
type seen struct {
	root *x509.Certificate

	mu           sync.Mutex
	certificates map[string]*x509.Certificate // by DER
	issued       map[[2]*x509.Certificate]func() error
}

// parse parses a certificate, or returns what it was parsed to before. The root came parsed: only one that pki.Parse would have given
// stands for its bytes.
func (s *seen) parse(der []byte) (*x509.Certificate, error) {
	if s.root != nil && bytes.Equal(der, s.root.Raw) && len(s.root.UnhandledCriticalExtensions) == 0 {
		return s.root, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if cert := s.certificates[string(der)]; cert != nil {
		return cert, nil
	}
	cert, err := pki.Parse(der, maxChainBytes)
	if err == nil {
		if s.certificates == nil {
			s.certificates = map[string]*x509.Certificate{}
		}
		s.certificates[string(der)] = cert
	}
	return cert, err
}

// signedBy is the function of that name, and remembers what it says.
func (s *seen) signedBy(cert, parent *x509.Certificate) error {
	pair := [2]*x509.Certificate{cert, parent}
	s.mu.Lock()
	holds := s.issued[pair]
	if holds == nil {
		holds = sync.OnceValue(func() error { return signedBy(cert, parent) })
		if s.issued == nil {
			s.issued = map[[2]*x509.Certificate]func() error{}
		}
		s.issued[pair] = holds
	}
	s.mu.Unlock()
	return holds()
}

// parseChain parses a PEM chain of exactly n certificates with P-256 keys.
func parseChain(pem []byte, n int) ([]*x509.Certificate, error) { return new(seen).chain(pem, n) }

func (s *seen) chain(pem []byte, n int) ([]*x509.Certificate, error) {
	chain, err := pki.ParsePEMBy(pem, maxChainBytes, n, s.parse)
	if err != nil {
		return nil, err
	}
	for i, cert := range chain {
		if _, err := pki.On(elliptic.P256(), cert); err != nil {
			return nil, fmt.Errorf("certificate %d: %w", i, err)
		}
	}
	return chain, nil
}

// signedBy checks that parent, a CA, issued cert.
func signedBy(cert, parent *x509.Certificate) error {
	if err := pki.Authority(parent); err != nil {
		return err
	}
	return pki.IssuedBy(cert, parent, x509.ECDSAWithSHA256)
}

// verifyRaw checks a signature of 64 bytes, R and S, over the SHA-256 of message.
func verifyRaw(key *ecdsa.PublicKey, message []byte, signature [64]byte) bool {
	digest := sha256.Sum256(message)
	return pki.SignedRaw(key, digest[:], signature[:])
}

// parsePoint reads an uncompressed point on P-256 without its format byte.
func parsePoint(point [64]byte) (*ecdsa.PublicKey, error) {
	return ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append([]byte{4}, point[:]...))
}

// oidSGX names the SGX extension: Intel SGX PCK Certificate and CRL Specification 1.5, section 1.3.5.
var oidSGX = asn1.ObjectIdentifier{1, 2, 840, 113741, 1, 13, 1}

// Platform is what Intel certifies of a machine in the SGX extension of its PCK certificate.
type Platform struct {
	PPID    [16]byte // names the machine
	PCEID   [2]byte
	FMSPC   [6]byte
	CPUSVN  [16]byte
	SGXSVN  [16]byte // security versions of the 16 SGX components
	PCESVN  uint16
	SGXType uint8 // 0 standard, 1 scalable, 2 scalable with integrity

	PlatformInstanceID [16]byte // zeros where the certificate has none

	unknown string // names of entries that this package does not know, in the order of their text
}
