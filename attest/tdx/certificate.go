package tdx

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

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
	certificates map[string]*x509.Certificate // by DER
	issued       map[[2]*x509.Certificate]error
}

// parse parses a certificate, or returns what it was parsed to before.
func (s *seen) parse(der []byte) (*x509.Certificate, error) {
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
	err, done := s.issued[pair]
	if done {
		return err
	}
	err = signedBy(cert, parent)
	if s.issued == nil {
		s.issued = map[[2]*x509.Certificate]error{}
	}
	s.issued[pair] = err
	return err
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

// The SGX extension: Intel SGX PCK Certificate and CRL Specification 1.5, section 1.3.5.
var (
	oidSGX = asn1.ObjectIdentifier{1, 2, 840, 113741, 1, 13, 1}
	oidTCB = sgxOID(2)
)

func sgxOID(path ...int) asn1.ObjectIdentifier { return append(slices.Clone(oidSGX), path...) }

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

// entry is one element of the SGX extension: a name and a value.
type entry struct {
	Name  asn1.ObjectIdentifier
	Value asn1.RawValue
}

// parseEntries reads a SEQUENCE OF entry in which no name is twice.
func parseEntries(der []byte) (map[string]asn1.RawValue, error) {
	var list []entry
	if rest, err := asn1.Unmarshal(der, &list); err != nil {
		return nil, err
	} else if len(rest) != 0 {
		return nil, fmt.Errorf("%d bytes after it", len(rest))
	}
	entries := map[string]asn1.RawValue{}
	for _, e := range list {
		name := e.Name.String()
		if _, twice := entries[name]; twice {
			return nil, fmt.Errorf("%s is there twice", name)
		}
		entries[name] = e.Value
	}
	return entries, nil
}

func parsePlatform(cert *x509.Certificate) (p Platform, err error) {
	var extension []byte
	for _, e := range cert.Extensions {
		if e.Id.Equal(oidSGX) {
			extension = e.Value // x509 refuses extensions that are there twice
		}
	}
	if extension == nil {
		return p, errors.New("no SGX extension")
	}
	entries, err := parseEntries(extension)
	if err != nil {
		return p, fmt.Errorf("SGX extension: %w", err)
	}
	tcb, err := parseEntries(entries[oidTCB.String()].FullBytes)
	if err != nil {
		return p, fmt.Errorf("SGX extension: TCB: %w", err)
	}
	delete(entries, oidTCB.String())
	x := &extensionReader{}
	x.octets(entries, sgxOID(1), p.PPID[:])
	x.octets(entries, sgxOID(3), p.PCEID[:])
	x.octets(entries, sgxOID(4), p.FMSPC[:])
	if _, ok := entries[sgxOID(5).String()]; ok {
		p.SGXType = uint8(x.integer(entries, sgxOID(5), asn1.TagEnum, 2))
	}
	if _, ok := entries[sgxOID(6).String()]; ok {
		x.octets(entries, sgxOID(6), p.PlatformInstanceID[:])
	}
	delete(entries, sgxOID(7).String()) // configuration: says nothing about the TCB
	for i := range p.SGXSVN {
		p.SGXSVN[i] = uint8(x.integer(tcb, append(slices.Clone(oidTCB), i+1), asn1.TagInteger, 255))
	}
	p.PCESVN = uint16(x.integer(tcb, append(slices.Clone(oidTCB), 17), asn1.TagInteger, 65535))
	x.octets(tcb, append(slices.Clone(oidTCB), 18), p.CPUSVN[:])
	// What Intel adds is signed by it. Whether to go by a certificate of which a part is not understood is for the caller to say.
	p.unknown = strings.Join(slices.Sorted(maps.Keys(merged(entries, tcb))), ", ")
	if x.err != nil {
		return p, fmt.Errorf("SGX extension: %w", x.err)
	}
	return p, nil
}

// extensionReader takes entries out by name and keeps the first error.
type extensionReader struct{ err error }

func (x *extensionReader) take(entries map[string]asn1.RawValue, oid asn1.ObjectIdentifier, tag int) []byte {
	name := oid.String()
	value, ok := entries[name]
	delete(entries, name)
	switch {
	case x.err != nil:
	case !ok:
		x.err = fmt.Errorf("no %s", name)
	case value.Class != asn1.ClassUniversal || value.Tag != tag || value.IsCompound:
		x.err = fmt.Errorf("%s has tag %d of class %d, want %d", name, value.Tag, value.Class, tag)
	}
	return value.Bytes
}

func (x *extensionReader) octets(entries map[string]asn1.RawValue, oid asn1.ObjectIdentifier, into []byte) {
	value := x.take(entries, oid, asn1.TagOctetString)
	if x.err == nil && len(value) != len(into) {
		x.err = fmt.Errorf("%s has %d bytes, want %d", oid, len(value), len(into))
	}
	if x.err == nil {
		copy(into, value)
	}
}

func (x *extensionReader) integer(entries map[string]asn1.RawValue, oid asn1.ObjectIdentifier, tag int, most uint32) (n uint32) {
	value := x.take(entries, oid, tag)
	if x.err != nil {
		return 0
	}
	// DER: the shortest two's complement. Four bytes hold whatever is allowed here.
	if len(value) == 0 || len(value) > 4 || value[0]&0x80 != 0 || len(value) > 1 && value[0] == 0 && value[1]&0x80 == 0 {
		x.err = fmt.Errorf("%s is the integer %x, want one of at most %d", oid, value, most)
		return 0
	}
	for _, b := range value {
		n = n<<8 | uint32(b)
	}
	if n > most {
		x.err = fmt.Errorf("%s is %d, want at most %d", oid, n, most)
	}
	return n
}

func merged(a, b map[string]asn1.RawValue) map[string]asn1.RawValue {
	maps.Copy(a, b)
	return a
}
