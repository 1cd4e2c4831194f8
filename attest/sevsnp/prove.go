package sevsnp

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"chrysalis/attest/pki"
)

// Prove says of what was fetched whether it should be kept, and until when it holds: the authorities lead to one of the roots, and
// the endorsement key's certificate and the revocation list, each of which may be nil, are theirs. Whether they are those that a
// report needs is for Verify.
func Prove(authorities [][]byte, certificate, crl []byte, roots []*x509.Certificate) (until time.Time, err error) {
	ask, ark, err := parseAuthorities(authorities)
	if err != nil {
		return until, err
	}
	if !slices.ContainsFunc(roots, ark.Equal) {
		return until, fmt.Errorf("root is %q, want one that is trusted", ark.Subject.CommonName)
	}
	c := &chain{ark: ark, ask: ask}
	product := c.product()
	if product == "" {
		return until, fmt.Errorf("root is %q, want the ARK of Milan, Genoa or Turin", ark.Subject.CommonName)
	}
	signer := SignerVCEK
	if ask.Subject.CommonName == askName(product, SignerVLEK) {
		signer = SignerVLEK
	}
	if err := errors.Join(checkAuthority(ark, ark, "ARK-"+string(product), -1),
		checkAuthority(ask, ark, askName(product, signer), 0)); err != nil {
		return until, err
	}
	held := []time.Time{ark.NotAfter, ask.NotAfter}
	if certificate != nil {
		if c, err = parseChain(certificate, authorities); err != nil {
			return until, err
		}
		if err := c.checkEndorsed(); err != nil {
			return until, fmt.Errorf("endorsement key: %w", err)
		}
		held = append(held, c.leaf.NotAfter)
	}
	if crl != nil {
		list, err := pki.ParseCRL(crl, maxCRLBytes)
		if err != nil {
			return until, fmt.Errorf("revocation list: %w", err)
		}
		if err := pki.CRLIssuedBy(list, ark, x509.SHA384WithRSAPSS); err != nil {
			return until, fmt.Errorf("revocation list: %w", err)
		}
		held = append(held, list.NextUpdate)
	}
	return slices.MinFunc(held, time.Time.Compare), nil
}

// LatestCRL returns the revocation list of later issue. a wins only if it is the authorities' under one of the roots; b is taken as
// it is.
func LatestCRL(a, b []byte, authorities [][]byte, roots []*x509.Certificate) []byte {
	if _, err := Prove(authorities, nil, a, roots); err != nil {
		return b
	}
	mine, err := pki.ParseCRL(a, maxCRLBytes)
	if err != nil {
		return b
	}
	if other, err := pki.ParseCRL(b, maxCRLBytes); err == nil && !mine.ThisUpdate.After(other.ThisUpdate) {
		return b
	}
	return a
}
