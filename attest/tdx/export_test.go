package tdx

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"chrysalis/attest/check/checktest"
	"chrysalis/measure/fault"
)

// CheckNames returns the names of all checks in order, and those whose parse the checks after them read.
func CheckNames() (all []string, parsers map[string]bool) {
	parsers = map[string]bool{}
	for _, c := range checks {
		all = append(all, c.Name)
		parsers[c.Name] = strings.HasSuffix(c.Name, "-format") || c.Name == checkCollateral
	}
	return all, parsers
}

// VerifyDropping is Verify without one check.
func VerifyDropping(quote []byte, c *Collateral, o Options, at time.Time, root *x509.Certificate, name string) (*Result, error) {
	return verify(checktest.Dropping(checks, name), quote, c, o, at, root)
}

// ParseSigned is what reads a signed document, before its dates and contents are judged.
func ParseSigned(b []byte) (tcbInfo, qeIdentity error) {
	_, tcbInfo = parseTCBInfo(b)
	_, qeIdentity = parseQEIdentity(b)
	return tcbInfo, qeIdentity
}

// ParseChain reads a PEM chain and returns its certificates' DER.
func ParseChain(pem []byte, n int) (der [][]byte, err error) {
	chain, err := parseChain(pem, n)
	for _, c := range chain {
		der = append(der, c.Raw)
	}
	return der, err
}

// ParseCRL reads a CRL.
func ParseCRL(der []byte) (*x509.RevocationList, error) { return parseCRL(der) }

// ParseSGX reads an SGX extension.
func ParseSGX(extension []byte) (Platform, error) {
	return parsePlatform(&x509.Certificate{Extensions: []pkix.Extension{{Id: oidSGX, Value: extension}}})
}

// ParseComponents reads the components of a level.
func ParseComponents(b []byte) (svn [16]byte, names [16]string, err error) {
	var c components
	if err := fault.JSON(json.Unmarshal(b, &c)); err != nil {
		return svn, names, err
	}
	return c.parsed()
}
