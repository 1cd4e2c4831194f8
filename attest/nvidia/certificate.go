package nvidia

import (
	"bytes"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"chrysalis/attest/check"
	"chrysalis/attest/pki"
)

const (
	maxCertificateBytes = 4 << 10
	maxChainBytes       = 16 << 10
	maxChain            = 6
	minDeviceChain      = 4 // firmware's key, the device's, and two authorities
	minRIMChain         = 2
	signatureKind       = x509.ECDSAWithSHA384
)

// Root names a root by the SHA-256 of its certificate. The certificate itself comes with the evidence.
type Root [sha256.Size]byte

// RootOf names a certificate.
func RootOf(cert *x509.Certificate) Root { return sha256.Sum256(cert.Raw) }

// Roots are who is trusted. Nil trusts nobody.
type Roots struct {
	Device []Root // of the certificates of devices
	RIM    []Root // of the certificates of those who sign reference values
}

// chain is a certificate chain, parsed and with each certificate signed by the next one's key, the last by its own. Whether the last is
// trusted is not judged yet.
type chain []*x509.Certificate

func (c chain) leaf() *x509.Certificate { return c[0] }
func (c chain) root() *x509.Certificate { return c[len(c)-1] }

// parsePEM parses PEM of at least so many certificates.
func parsePEM(facts *check.Facts, text []byte, least int) (chain, error) {
	n := bytes.Count(text, []byte("-----BEGIN"))
	if n < least || n > maxChain {
		return nil, fmt.Errorf("%d certificates, want %d to %d", n, least, maxChain)
	}
	certs, err := pki.ParsePEM(text, maxChainBytes, n)
	if err != nil {
		return nil, err
	}
	return checked(facts, certs)
}

// parseDERs parses certificates in DER, of which there must be at least so many.
func parseDERs(facts *check.Facts, ders [][]byte, least int) (chain, error) {
	if len(ders) < least || len(ders) > maxChain {
		return nil, fmt.Errorf("%d certificates, want %d to %d", len(ders), least, maxChain)
	}
	var certs chain
	for i, der := range ders {
		cert, err := pki.Parse(der, maxCertificateBytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", i, err)
		}
		certs = append(certs, cert)
	}
	return checked(facts, certs)
}

// checked checks who issued what. All of NVIDIA's keys are on P-384, and all signatures are ECDSA with SHA-384.
func checked(facts *check.Facts, c chain) (chain, error) {
	for i, cert := range c {
		issuer := cert
		if i+1 < len(c) {
			issuer = c[i+1]
		}
		if _, err := pki.On(elliptic.P384(), cert); err != nil {
			return nil, fmt.Errorf("certificate %d: %w", i, err)
		}
		// Whole boards share what lies above their devices.
		if _, err := check.Prove(facts, "nvidia issued", func() (struct{}, error) {
			return struct{}{}, pki.IssuedBy(cert, issuer, signatureKind)
		}, cert.Raw, issuer.Raw); err != nil {
			return nil, fmt.Errorf("certificate %d: %w", i, err)
		}
		if i == 0 {
			if err := pki.EndEntity(cert); err != nil {
				return nil, fmt.Errorf("certificate 0: %w", err)
			}
			continue
		}
		if err := pki.Authority(cert); err != nil {
			return nil, fmt.Errorf("certificate %d: %w", i, err)
		}
		// MaxPathLen is -1 where there is no limit, and 0 without MaxPathLenZero in a certificate that has no constraint.
		if limit := cert.MaxPathLen; (limit > 0 || cert.MaxPathLenZero) && i-1 > limit {
			return nil, fmt.Errorf("certificate %d has %d authorities below it, want at most %d", i, i-1, limit)
		}
	}
	return c, nil
}

func (c chain) trusted(roots []Root) bool { return slices.Contains(roots, RootOf(c.root())) }

// ID names a device as its maker certified it: by the chip and the serial number of the key that the chip was made with, which no
// firmware changes.
type ID struct {
	Chip   string // such as GH100; GB20X stands for GB202 and its likes
	Serial string // in hexadecimal
}

func (d ID) String() string { return d.Chip + ":" + d.Serial }

// parseID reads a device's names: NVIDIA's certificates are of "GH100 A01 GSP BROM" and, below it, "GH100 A01 GSP FMC LF".
func (c chain) parseID() (ID, error) {
	leaf, device := c[0].Subject.CommonName, c[1].Subject
	chip, rest, ok := strings.Cut(device.CommonName, " ")
	if !ok || chip == "" || !strings.HasSuffix(rest, " BROM") {
		return ID{}, fmt.Errorf("device's certificate is of %q, want a chip and its BROM", device.CommonName)
	}
	if below, _, _ := strings.Cut(leaf, " "); below != chip {
		return ID{}, fmt.Errorf("certificate is of %q, want one of the chip %s as above it", leaf, chip)
	}
	serial := strings.ToUpper(device.SerialNumber)
	if b, err := hex.DecodeString(serial); err != nil || len(b) < pdiSize {
		return ID{}, fmt.Errorf("device's serial number is %q, want at least %d bytes in hexadecimal", device.SerialNumber, pdiSize)
	}
	return ID{Chip: chip, Serial: serial}, nil
}

// pdi returns the name that the device has for links: the end of its serial number.
func (d ID) pdi() PDI {
	b, err := hex.DecodeString(d.Serial)
	if err != nil || len(b) < pdiSize {
		return PDI{}
	}
	return PDI(b[len(b)-pdiSize:])
}

// Extensions that carry the FWID, the digest of the firmware that the key was derived from.
var (
	oidRIoT    = asn1.ObjectIdentifier{2, 23, 133, 5, 4, 1}    // Hopper and LS10: a CompositeDeviceID of RIoT
	oidTcbInfo = asn1.ObjectIdentifier{2, 23, 133, 5, 4, 1, 1} // from Blackwell on: DiceTcbInfo of TCG's DICE Attestation Architecture 1.1
	oidSHA384  = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 2}
)

type fwid struct {
	Algorithm asn1.ObjectIdentifier
	Digest    []byte
}

// firmware returns the FWID of a chain's leaf.
func (c chain) firmware() (digest []byte, err error) {
	for _, e := range c.leaf().Extensions {
		var found fwid
		switch {
		case e.Id.Equal(oidRIoT):
			var composite struct {
				Version int
				Device  asn1.RawValue
				FWID    fwid
			}
			if err := whole(e.Value, &composite); err != nil {
				return nil, fmt.Errorf("extension %v: %w", e.Id, err)
			}
			found = composite.FWID
		case e.Id.Equal(oidTcbInfo):
			if found, err = tcbInfoFWID(e.Value); err != nil {
				return nil, fmt.Errorf("extension %v: %w", e.Id, err)
			}
		default:
			continue
		}
		if !found.Algorithm.Equal(oidSHA384) || len(found.Digest) != fwidSize {
			return nil, fmt.Errorf("FWID is %x of %v, want one of SHA-384", found.Digest, found.Algorithm)
		}
		if digest != nil {
			return nil, errors.New("two FWIDs")
		}
		digest = found.Digest
	}
	if digest == nil {
		return nil, errors.New("no FWID")
	}
	return digest, nil
}

func whole(der []byte, to any) error {
	rest, err := asn1.Unmarshal(der, to)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("%d bytes follow", len(rest))
	}
	return err
}

// tcbInfoFWID returns the first FWID of a DiceTcbInfo: that of the first mutable firmware.
func tcbInfoFWID(der []byte) (fwid, error) {
	const tagFWIDs = 6
	var info asn1.RawValue
	if err := whole(der, &info); err != nil {
		return fwid{}, err
	}
	for rest := info.Bytes; len(rest) > 0; {
		var member asn1.RawValue
		var err error
		if rest, err = asn1.Unmarshal(rest, &member); err != nil {
			return fwid{}, err
		}
		if member.Class != asn1.ClassContextSpecific || member.Tag != tagFWIDs {
			continue
		}
		var first fwid
		if _, err := asn1.Unmarshal(member.Bytes, &first); err != nil {
			return fwid{}, err
		}
		return first, nil
	}
	return fwid{}, errors.New("no FWIDs")
}
