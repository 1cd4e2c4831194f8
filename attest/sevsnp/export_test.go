package sevsnp

import (
	"crypto/x509"
	"errors"
	"slices"
	"strings"
	"time"

	"chrysalis/attest/check/checktest"
	"chrysalis/attest/pki"
)

// VerifyDropping is Verify with the check of the given name not judged.
func VerifyDropping(e Evidence, o Options, at time.Time, roots []*x509.Certificate, name string) (*Result, error) {
	return verify(checktest.Dropping(checks, name), e, o, at, roots)
}

// CheckNames lists the checks, and those that can't be dropped, because later checks read what they parse.
func CheckNames() (all []string, parsers map[string]bool) {
	parsers = map[string]bool{}
	for _, c := range checks {
		all = append(all, c.Name)
		parsers[c.Name] = strings.HasSuffix(c.Name, "-format")
	}
	return all, parsers
}

// ParseChain parses a chain for the fuzz test, and verifies its signatures.
func ParseChain(leaf []byte, above [][]byte) (verified bool, err error) {
	c, err := parseChain(leaf, above)
	if err != nil {
		return false, err
	}
	product := c.product()
	verified = product != "" && checkAuthority(c.ark, c.ark, "ARK-"+string(product), -1) == nil &&
		checkAuthority(c.ask, c.ark, askName(product, c.endorsement.signer()), 0) == nil && c.checkEndorsed() == nil
	return verified, nil
}

// ParseCRL parses a revocation list for the fuzz test.
func ParseCRL(der []byte) error {
	_, err := pki.ParseCRL(der, maxCRLBytes)
	return err
}

// CheckAuthorities checks an ASK or ASVK and an ARK in DER, and that the ARK is embedded.
func CheckAuthorities(ask, ark []byte, p Product, s Signer) error {
	a, err := x509.ParseCertificate(ask)
	if err != nil {
		return err
	}
	r, err := x509.ParseCertificate(ark)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(AMDRoots(), r.Equal) {
		return errors.New("the root is not embedded")
	}
	return errors.Join(checkAuthority(r, r, "ARK-"+string(p), -1), checkAuthority(a, r, askName(p, s), 0))
}
