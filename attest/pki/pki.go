// Package pki is what the vendors' certificates have in common: parsing within bounds, who issued what, revocation lists, and
// dates as checks of an appraisal. Each vendor's names, extensions and key kinds are its own package's business.
//
//	cert, err := pki.Parse(der, maxBytes)
//	err = pki.IssuedBy(cert, ca, x509.ECDSAWithSHA256)
//	finding := pki.Dates(now, cert, ca)
//
// It trusts no root by itself, never asks the system's, and does nothing that a bound does not come before: the size of what is
// parsed, the kind and length of a key before a signature under it is checked.
package pki

import (
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"chrysalis/attest/check"
)

// Between judges a time against the first and the last moment at which something holds, both included.
func Between(at, from, to time.Time) check.Finding {
	return check.Saying(!at.Before(from) && !at.After(to), func() (string, string) {
		return at.UTC().Format(time.RFC3339), from.UTC().Format(time.RFC3339) + " to " + to.UTC().Format(time.RFC3339)
	})
}

// Age judges how long ago something was issued, where most is not zero.
func Age(at, issued time.Time, most time.Duration) check.Finding {
	return check.Saying(most == 0 || at.Sub(issued) <= most, func() (string, string) {
		got := fmt.Sprintf("issued at %s, %s ago", issued.UTC().Format(time.RFC3339), at.Sub(issued).Truncate(time.Second))
		if most == 0 {
			return got, "any age while it holds"
		}
		return got, fmt.Sprintf("at most %s ago", most)
	})
}

// Dates judges certificates, of which there must be one, at a time.
func Dates(at time.Time, chain ...*x509.Certificate) check.Finding {
	for _, cert := range chain {
		if f := Between(at, cert.NotBefore, cert.NotAfter); !f.OK {
			got, want := f.Words()
			return check.Found(got, want+" ("+cert.Subject.CommonName+")", false)
		}
	}
	latest := slices.MaxFunc(chain, func(a, b *x509.Certificate) int { return a.NotBefore.Compare(b.NotBefore) })
	earliest := slices.MinFunc(chain, func(a, b *x509.Certificate) int { return a.NotAfter.Compare(b.NotAfter) })
	return Between(at, latest.NotBefore, earliest.NotAfter)
}
