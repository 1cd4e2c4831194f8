package tdx

import (
	"crypto/x509"
	"strings"
	"time"
)

// CheckNames returns the names of all checks in order, and those whose parse the checks after them read.
func CheckNames() (all []string, parsers map[string]bool) {
	parsers = map[string]bool{}
	for _, c := range checks {
		all = append(all, c.name)
		parsers[c.name] = strings.HasSuffix(c.name, "-format") || c.name == checkCollateral
	}
	return all, parsers
}

// VerifyDropping is Verify without one check.
func VerifyDropping(quote []byte, c *Collateral, o Options, at time.Time, root *x509.Certificate, name string) (*Report, error) {
	for i, check := range checks {
		if check.name == name {
			return verify(quote, c, o, at, root, i)
		}
	}
	panic("no check " + name)
}
