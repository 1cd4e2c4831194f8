package sevsnp

import (
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"strings"

	"chrysalis/attest/pki"
)

const (
	maxCertificateBytes = 8 << 10
	maxCRLBytes         = 1 << 20
	chainLength         = 2 // ASK or ASVK, and ARK
	arkBits             = 4096
	maxStructVersion    = 1 // 1 is Turin's, with an FMC and a short chip id
)

// amdArc holds the extensions of a VCEK or VLEK: AMD 57230, Versioned Chip Endorsement Key (VCEK) Certificate and KDS
// Interface Specification, table 8.
var amdArc = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1}

// The extensions by what follows amdArc.
const (
	extStructVersion = "1"
	extProduct       = "2"
	extBootloader    = "3.1"
	extTEE           = "3.2"
	extSNP           = "3.3"
	extSPL4          = "3.4" // 3.4 to 3.7 are reserved
	extSPL5          = "3.5"
	extSPL6          = "3.6"
	extSPL7          = "3.7"
	extMicrocode     = "3.8"
	extFMC           = "3.9" // Turin alone
	extHWID          = "4"   // VCEK alone
	extCSP           = "5"   // VLEK alone
)

// endorsement is what AMD says in a VCEK or VLEK about the key, beside what X.509 says.
type endorsement struct {
	productName string
	product     Product
	tcb         TCB
	hasFMC      bool
	hwid        []byte // 64 bytes, on Turin 8; nil in a VLEK
	csp         string // cloud that was given the key; empty in a VCEK
}

// signer returns which key the endorsement is for.
func (e *endorsement) signer() Signer {
	if e.csp != "" {
		return SignerVLEK
	}
	return SignerVCEK
}

// chain is a certificate chain, parsed but not verified.
type chain struct {
	ark, ask, leaf *x509.Certificate
	endorsement    *endorsement
}

// parseChain parses DER.
func parseChain(leaf []byte, above [][]byte) (*chain, error) {
	ask, ark, err := parseAuthorities(above)
	if err != nil {
		return nil, err
	}
	c := &chain{ask: ask, ark: ark}
	if c.leaf, err = pki.Parse(leaf, maxCertificateBytes); err != nil {
		return nil, fmt.Errorf("certificate 0: %w", err)
	}
	if _, err := pki.On(elliptic.P384(), c.leaf); err != nil {
		return nil, fmt.Errorf("endorsement %w", err)
	}
	c.endorsement, err = parseEndorsement(c.leaf)
	return c, err
}

// parseAuthorities parses DER. The ARK is told from the ASK by being named as its own issuer, so their order is free.
func parseAuthorities(above [][]byte) (ask, ark *x509.Certificate, err error) {
	if len(above) != chainLength {
		return nil, nil, fmt.Errorf("%d certificates above the endorsement key, want %d: ASK or ASVK, and ARK", len(above), chainLength)
	}
	var parsed [chainLength]*x509.Certificate
	for i, der := range above {
		if parsed[i], err = pki.Parse(der, maxCertificateBytes); err != nil {
			return nil, nil, fmt.Errorf("certificate %d: %w", 1+i, err)
		}
	}
	ask, ark = parsed[0], parsed[1]
	if pki.SelfIssued(ask) {
		ask, ark = ark, ask
	}
	if !pki.SelfIssued(ark) || pki.SelfIssued(ask) {
		return nil, nil, errors.New("want one certificate among ASK and ARK that names itself as its issuer")
	}
	return ask, ark, nil
}

// product returns the product whose root the ARK claims to be, or "".
func (c *chain) product() Product {
	name, ok := strings.CutPrefix(c.ark.Subject.CommonName, "ARK-")
	if p := productNamed(name); ok && string(p) == name {
		return p
	}
	return ""
}

// parseEndorsement reads AMD's extensions. An unknown one below AMD's arc may hold the patch level of a part that nothing
// here compares, so it is refused.
func parseEndorsement(cert *x509.Certificate) (*endorsement, error) {
	values := map[string][]byte{}
	for _, ext := range cert.Extensions {
		if len(ext.Id) <= len(amdArc) || !amdArc.Equal(ext.Id[:len(amdArc)]) {
			continue
		}
		name := ext.Id[len(amdArc):].String()
		switch name {
		case extStructVersion, extProduct, extBootloader, extTEE, extSNP, extSPL4, extSPL5, extSPL6, extSPL7, extMicrocode, extFMC,
			extHWID, extCSP:
		default:
			return nil, fmt.Errorf("extension %v is unknown", ext.Id)
		}
		if _, ok := values[name]; ok {
			return nil, fmt.Errorf("extension %v is there twice", ext.Id)
		}
		values[name] = ext.Value
	}
	e := &endorsement{}
	var errs []error
	text := func(name string, needed bool) string {
		value, ok := values[name]
		var s string
		if !ok && !needed {
			return ""
		}
		if rest, err := asn1.UnmarshalWithParams(value, &s, "ia5"); err != nil || len(rest) != 0 || s == "" || len(s) > 128 ||
			value[0] != asn1.TagIA5String {
			errs = append(errs, fmt.Errorf("extension %v.%s is %x, want an IA5String", amdArc, name, value))
		}
		return s
	}
	level := func(name string, needed bool) uint8 {
		value, ok := values[name]
		var n int
		if !ok && !needed {
			return 0
		}
		if rest, err := asn1.Unmarshal(value, &n); err != nil || len(rest) != 0 || n < 0 || n > 255 {
			errs = append(errs, fmt.Errorf("extension %v.%s is %x, want an INTEGER of 0 to 255", amdArc, name, value))
		}
		return uint8(n)
	}
	if n := level(extStructVersion, true); n > maxStructVersion {
		errs = append(errs, fmt.Errorf("structure version is %d, want at most %d", n, maxStructVersion))
	}
	e.productName = text(extProduct, true)
	e.product = productNamed(e.productName)
	if e.product == "" {
		errs = append(errs, fmt.Errorf("product is %q, %s; want %s, %s or %s, with or without a stepping", e.productName, newest, Milan, Genoa, Turin))
	}
	_, e.hasFMC = values[extFMC]
	e.tcb = TCB{FMC: level(extFMC, e.product == Turin), Bootloader: level(extBootloader, true), TEE: level(extTEE, true),
		SNP: level(extSNP, true), Microcode: level(extMicrocode, true)}
	if e.hasFMC && e.product != Turin {
		errs = append(errs, fmt.Errorf("%s has a patch level of an FMC, which only %s has", e.product, Turin))
	}
	for _, name := range []string{extSPL4, extSPL5, extSPL6, extSPL7} {
		if n := level(name, false); n != 0 {
			errs = append(errs, fmt.Errorf("reserved patch level %v.%s is %d, want 0", amdArc, name, n))
		}
	}
	e.csp = text(extCSP, false)
	if value, ok := values[extHWID]; ok {
		var err error
		if e.hwid, err = parseHWID(value, e.product); err != nil {
			errs = append(errs, err)
		}
	}
	if (e.hwid == nil) == (e.csp == "") {
		errs = append(errs, fmt.Errorf("chip id of %d bytes beside the cloud's name %q, want one of them", len(e.hwid), e.csp))
	}
	return e, errors.Join(errs...)
}

// parseHWID returns a chip id: 64 bytes, on Turin 8. AMD writes it bare, without the OCTET STRING around it that X.509
// has in every extension; both are read.
func parseHWID(value []byte, p Product) ([]byte, error) {
	sizes := []int{64}
	if p == Turin {
		sizes = []int{8, 64}
	}
	if slices.Contains(sizes, len(value)) {
		return value, nil
	}
	var id []byte
	if rest, err := asn1.Unmarshal(value, &id); err != nil || len(rest) != 0 || !slices.Contains(sizes, len(id)) {
		return nil, fmt.Errorf("chip id is %x, want one of %v bytes", value, sizes)
	}
	return id, nil
}

// chipID returns the CHIP_ID that a report of the endorsed chip shows.
func (e *endorsement) chipID() (id [64]byte) {
	copy(id[:], e.hwid)
	return id
}

// checkAuthority checks that cert is a certificate authority with the name that AMD gives it, signed by parent's RSA-4096
// key with PSS and SHA-384.
func checkAuthority(cert, parent *x509.Certificate, name string, pathLen int) error {
	if got := cert.Subject.CommonName; got != name {
		return fmt.Errorf("its name is %q, want %q", got, name)
	}
	if key, ok := cert.PublicKey.(*rsa.PublicKey); !ok || key.N.BitLen() != arkBits {
		return fmt.Errorf("its key is %s, want RSA of %d bits", cert.PublicKeyAlgorithm, arkBits)
	}
	if err := pki.Authority(cert); err != nil {
		return err
	}
	if cert.MaxPathLen != pathLen {
		return fmt.Errorf("its path length is %d, want %d", cert.MaxPathLen, pathLen)
	}
	return pki.IssuedBy(cert, parent, x509.SHA384WithRSAPSS)
}

// checkEndorsed checks that the leaf is a VCEK or VLEK that the ASK or ASVK signed.
func (c *chain) checkEndorsed() error {
	if got, want := c.leaf.Subject.CommonName, "SEV-"+c.endorsement.signer().String(); got != want {
		return fmt.Errorf("its name is %q, want %q", got, want)
	}
	if c.leaf.IsCA {
		return errors.New("it is a certificate authority")
	}
	return pki.IssuedBy(c.leaf, c.ask, x509.SHA384WithRSAPSS)
}

// askName returns the name of the authority between ARK and endorsement key.
func askName(p Product, s Signer) string {
	if s == SignerVLEK {
		return "SEV-VLEK-" + string(p)
	}
	return "SEV-" + string(p)
}
