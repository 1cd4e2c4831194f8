package tdx

import (
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"sync"

	"chrysalis/attest/check"
	"chrysalis/attest/pki"
)

// proven is what bytes parse to and whether who should have signed them did. Both are facts, which never change: with
// Options.Facts they are remembered. Dates, revocation and policy are no facts.
type proven[T any] struct {
	value          T
	format, signed error
	parsed         bool // false when the signature did not hold and nothing was parsed
}

func (p proven[T]) err() error { return errors.Join(p.format, p.signed) }

// parsedAndSigned parses first: certificates and CRLs carry their signature inside.
func parsedAndSigned[T any](a *appraisal, kind string, parse func() (T, error), signed func(T) error, of ...[]byte) proven[T] {
	p, _ := check.Prove(a.options.Facts, kind, func() (p proven[T], err error) {
		p.parsed = true
		if p.value, p.format = parse(); p.format == nil {
			p.signed = signed(p.value)
		}
		return p, p.err()
	}, of...)
	return p
}

// chainOf proves a PEM chain of n certificates by a rule that ends in the trusted root.
func (a *appraisal) chainOf(kind string, pem []byte, n int, rule func(chain []*x509.Certificate,
	root *x509.Certificate) error) proven[[]*x509.Certificate] {
	parse := func() ([]*x509.Certificate, error) { return a.seen.chain(pem, n) }
	if a.root == nil {
		chain, err := parse()
		return proven[[]*x509.Certificate]{value: chain, format: err, signed: errors.New("no root is trusted"), parsed: true}
	}
	return parsedAndSigned(a, kind, parse, func(chain []*x509.Certificate) error { return rule(chain, a.root) }, pem, a.root.Raw)
}

// crlOf proves a CRL of an issuer.
func (a *appraisal) crlOf(der []byte, issuer *x509.Certificate) proven[*x509.RevocationList] {
	return parsedAndSigned(a, "crl", func() (*x509.RevocationList, error) { return parseCRL(der) },
		func(crl *x509.RevocationList) error { return pki.CRLIssuedBy(crl, issuer, x509.ECDSAWithSHA256) }, der, issuer.Raw)
}

// documentOf proves a signed document of collateral. It is not parsed before its signature holds.
func documentOf[T any](a *appraisal, kind string, document []byte, signature [64]byte, signer *x509.Certificate,
	parse func([]byte) (T, error)) proven[T] {
	p, _ := check.Prove(a.options.Facts, kind, func() (p proven[T], err error) {
		if !verifyRaw(signer.PublicKey.(*ecdsa.PublicKey), document, signature) {
			p.signed = errors.New("another signature")
			return p, p.signed
		}
		p.parsed = true
		p.value, p.format = parse(document)
		return p, p.format
	}, document, signature[:], signer.Raw)
	return p
}

// read returns the document, parsed now when it was not.
func (p proven[T]) read(document []byte, parse func([]byte) (T, error)) (T, error) {
	if !p.parsed {
		return parse(document)
	}
	return p.value, p.format
}

// document is a signed document of collateral on its way through the appraisal.
type document[T any] struct {
	raw    []byte
	parse  func([]byte) (T, error)
	chain  proven[[]*x509.Certificate] // signer, root
	signed proven[T]
	value  T
}

// beside is what can be said of collateral without the quote: most of the signatures of an appraisal. It is proven while the quote is, on
// another processor where there is one, and by the appraisal itself where that one comes late.
type beside struct {
	lists, documents sync.Once

	rootCRL, pckCRL proven[*x509.RevocationList]
	crlChain        proven[[]*x509.Certificate] // signer, root
	info            document[*tcbInfo]
	qeID            document[*qeIdentity]
}

// proveBeside begins.
func (a *appraisal) proveBeside() {
	if a.collateral != nil {
		go func() {
			a.proveDocuments()
			a.proveLists()
		}()
	}
}

// joinBeside returns when all is proven, and takes what nobody has begun.
func (a *appraisal) joinBeside() {
	a.proveLists()
	a.proveDocuments()
}

// leaveBeside returns when nobody reads the collateral any more, or will.
func (a *appraisal) leaveBeside() {
	a.beside.lists.Do(func() {})
	a.beside.documents.Do(func() {})
}

func (a *appraisal) proveLists() {
	a.beside.lists.Do(func() {
		c := a.collateral
		a.rootCRL = a.crlOf(c.RootCACRL, a.root)
		if a.crlChain = a.chainOf("issuer chain", c.PCKCRLIssuerChain, 2, a.issuerChain); a.crlChain.format == nil {
			a.pckCRL = a.crlOf(c.PCKCRL, a.crlChain.value[0])
		}
	})
}

func (a *appraisal) proveDocuments() {
	a.beside.documents.Do(func() {
		c := a.collateral
		a.info = documentUnder(a, "tcb-info", c.TCBInfoIssuerChain, c.TCBInfo, c.TCBInfoSignature, parseTCBInfo)
		a.qeID = documentUnder(a, "qe-identity", c.QEIdentityIssuerChain, c.QEIdentity, c.QEIdentitySignature, parseQEIdentity)
	})
}

// documentUnder proves a document's chain, and the document by its head.
func documentUnder[T any](a *appraisal, kind string, chain, raw []byte, signature [64]byte, parse func([]byte) (T, error)) document[T] {
	d := document[T]{raw: raw, parse: parse, chain: a.chainOf("signer chain", chain, 2, a.signerChain)}
	if d.chain.format == nil {
		d.signed = documentOf(a, kind, raw, signature, d.chain.value[0], parse)
	}
	return d
}
