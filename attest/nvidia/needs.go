package nvidia

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"chrysalis/attest/pki"
)

// Question is a certificate about which a responder is asked, and its issuer.
type Question struct{ Certificate, Issuer *x509.Certificate }

// Needs is what a device's evidence needs beside it.
type Needs struct {
	RIMs      []string // names of reference values, as NVIDIA's service has them
	Questions []Question
}

// Kind returns what a device is, by its own unverified word.
func (d Device) Kind() Kind {
	if c, err := parsePEM(nil, d.Chain, minDeviceChain); err == nil {
		if id, err := c.parseID(); err == nil && id.Chip == switchChip {
			return Switch
		}
	}
	return GPU
}

// Sort tells GPUs from switches, by their own unverified word.
func Sort(devices []Device) (gpus, switches []Device) {
	for _, d := range devices {
		if d.Kind() == Switch {
			switches = append(switches, d)
		} else {
			gpus = append(gpus, d)
		}
	}
	return gpus, switches
}

// Needs returns what a device needs, by its own unverified word.
func (d Device) Needs() (Needs, error) {
	c, err := parsePEM(nil, d.Chain, minDeviceChain)
	if err != nil {
		return Needs{}, fmt.Errorf("chain: %w", err)
	}
	id, err := c.parseID()
	if err != nil {
		return Needs{}, err
	}
	r, err := Parse(d.Report)
	if err != nil {
		return Needs{}, err
	}
	n := Needs{Questions: c.questions(deviceCertificates.skip)}
	if id.Chip == switchChip {
		claims, err := r.SwitchClaims()
		n.RIMs = []string{claims.VBIOSRIM(Switch)}
		return n, err
	}
	claims, err := r.Claims()
	n.RIMs = []string{claims.DriverRIM(architectureOf(id.Chip)), claims.VBIOSRIM(GPU)}
	return n, err
}

func (c chain) questions(skip int) (all []Question) {
	for i := skip; i+1 < len(c); i++ {
		all = append(all, Question{c[i], c[i+1]})
	}
	return all
}

// Questions are about the certificates of whom a document says that it is by.
func (r *RIM) Questions() []Question { return r.chain.questions(0) }

// ProveRIM says of a document that was fetched whether it should be kept, and until when it holds: a root vouches for who signed it.
// Whether it is a device's is for Verify.
func ProveRIM(document []byte, roots []Root) (r *RIM, until time.Time, err error) {
	if r, err = ParseRIM(document); err != nil {
		return nil, until, err
	}
	if r.wrong != nil {
		return nil, until, r.wrong
	}
	if !r.chain.trusted(roots) {
		return nil, until, fmt.Errorf("root is %q, want one that is trusted for reference values", r.chain.root().Subject.CommonName)
	}
	until = slices.MinFunc(r.chain, func(a, b *x509.Certificate) int { return a.NotAfter.Compare(b.NotAfter) }).NotAfter
	if !r.notAfter.IsZero() && r.notAfter.Before(until) {
		until = r.notAfter
	}
	return r, until, nil
}

// Request returns the question as a responder takes it. It has no nonce, so that the answer can be kept.
func (q Question) Request() ([]byte, error) { return pki.OCSPRequest(q.Certificate, q.Issuer, nil) }

// Prove says of a responder's answer whether it should be kept, and until when it holds: it is about the certificate, and by its issuer or
// by whom that has certified for it.
func (q Question) Prove(answer []byte) (until time.Time, err error) {
	o, err := pki.ParseOCSP(answer, maxOCSP)
	if err != nil {
		return until, err
	}
	if !o.About(q.Certificate, q.Issuer) {
		return until, errors.New("the answer is about another certificate")
	}
	return o.NextUpdate, pki.OCSPIssuedBy(o, q.Issuer, signatureKind)
}
