package tdx

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// Dates are the first and the last moment at which a document holds.
type Dates struct{ From, Until time.Time }

// with narrows the dates to those of certificates.
func (d Dates) with(chain []*x509.Certificate) Dates {
	for _, cert := range chain {
		if cert.NotAfter.Before(d.Until) {
			d.Until = cert.NotAfter
		}
	}
	return d
}

// The functions below say of one document of collateral whether whoever fetched it should keep it: it parses, and a signer under the
// root signed it. Whether it is the one that a quote needs, and recent enough, is for Verify.

// ProveTCBInfo judges TCB info with its signature and the signer's chain in PEM.
func ProveTCBInfo(document []byte, signature [64]byte, chain []byte, root *x509.Certificate) (Dates, error) {
	return proveDocument("tcb-info", document, signature, chain, root, parseTCBInfo)
}

// ProveQEIdentity judges the quoting enclave's identity in the same way.
func ProveQEIdentity(document []byte, signature [64]byte, chain []byte, root *x509.Certificate) (Dates, error) {
	return proveDocument("qe-identity", document, signature, chain, root, parseQEIdentity)
}

func proveDocument[T interface{ dated() dates }](kind string, document []byte, signature [64]byte, chain []byte, root *x509.Certificate,
	parse func([]byte) (T, error)) (Dates, error) {
	a := &appraisal{root: root}
	signers := a.chainOf("signer chain", chain, 2, a.signerChain)
	if err := signers.err(); err != nil {
		return Dates{}, fmt.Errorf("signer's chain: %w", err)
	}
	signed := documentOf(a, kind, document, signature, signers.value[0], parse)
	if err := signed.err(); err != nil {
		return Dates{}, err
	}
	of := signed.value.dated()
	return Dates{of.issued, of.next}.with(signers.value), nil
}

// ProveCRL judges a revocation list in DER: the root's own, or with a chain in PEM that of a CA under it.
func ProveCRL(der, chain []byte, root *x509.Certificate) (Dates, error) {
	if root == nil {
		return Dates{}, errors.New("no root is trusted")
	}
	a := &appraisal{root: root}
	issuers := []*x509.Certificate{root}
	if chain != nil {
		above := a.chainOf("issuer chain", chain, 2, a.issuerChain)
		if err := above.err(); err != nil {
			return Dates{}, fmt.Errorf("issuer's chain: %w", err)
		}
		issuers = above.value
	}
	list := a.crlOf(der, issuers[0])
	if err := list.err(); err != nil {
		return Dates{}, err
	}
	return Dates{list.value.ThisUpdate, list.value.NextUpdate}.with(issuers), nil
}

// Latest returns for each document the one of later issue among two sets of collateral for one machine. A document of a wins only if it
// proves under the root, by the same signers as b's and about the same machines; b is taken as it is.
func Latest(a, b *Collateral, root *x509.Certificate) *Collateral {
	latest := *b
	if latest.PCKChain == nil {
		latest.PCKChain = a.PCKChain
	}
	later := func(prove func(c *Collateral) (Dates, error)) bool {
		mine, err := prove(a)
		if err != nil {
			return false
		}
		other, err := prove(b)
		return err != nil || mine.From.After(other.From)
	}
	infoA, errA := parseTCBInfo(a.TCBInfo)
	infoB, errB := parseTCBInfo(b.TCBInfo)
	about := errA == nil && errB == nil && infoA.fmspc == infoB.fmspc && infoA.pceID == infoB.pceID
	if about && bytes.Equal(a.TCBInfoIssuerChain, b.TCBInfoIssuerChain) && later(func(c *Collateral) (Dates, error) {
		return ProveTCBInfo(c.TCBInfo, c.TCBInfoSignature, c.TCBInfoIssuerChain, root)
	}) {
		latest.TCBInfo, latest.TCBInfoSignature = a.TCBInfo, a.TCBInfoSignature
	}
	if bytes.Equal(a.QEIdentityIssuerChain, b.QEIdentityIssuerChain) && later(func(c *Collateral) (Dates, error) {
		return ProveQEIdentity(c.QEIdentity, c.QEIdentitySignature, c.QEIdentityIssuerChain, root)
	}) {
		latest.QEIdentity, latest.QEIdentitySignature = a.QEIdentity, a.QEIdentitySignature
	}
	if bytes.Equal(a.PCKCRLIssuerChain, b.PCKCRLIssuerChain) && later(func(c *Collateral) (Dates, error) {
		return ProveCRL(c.PCKCRL, c.PCKCRLIssuerChain, root)
	}) {
		latest.PCKCRL = a.PCKCRL
	}
	if later(func(c *Collateral) (Dates, error) { return ProveCRL(c.RootCACRL, nil, root) }) {
		latest.RootCACRL = a.RootCACRL
	}
	return &latest
}
