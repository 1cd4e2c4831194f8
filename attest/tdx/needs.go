package tdx

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"chrysalis/attest/pki"
)

// The CAs that issue PCK certificates, by the names that Intel's service gives their CRLs.
const (
	CAPlatform  = "platform"
	CAProcessor = "processor"
)

// Needs says which collateral a quote needs: the model of its machine and the CA of its PCK certificate. It is the quote's
// own, unverified word: wrong collateral is refused by Verify.
func (q *Quote) Needs() (fmspc [6]byte, ca string, err error) {
	if q.Certification.Type != 0 {
		return fmspc, "", fmt.Errorf("reading PCK certificate: %s", q.chainless())
	}
	return NeedsOf(q.PCKChain)
}

// chainless says that the quote has no chain.
func (q *Quote) chainless() string {
	return fmt.Sprintf("the quote's certification data is of type %d, %s, and has no chain", q.Certification.Type, certifications[q.Certification.Type])
}

// NeedsOf says which collateral a quote needs whose PCK chain stands beside it, in PEM.
func NeedsOf(chain []byte) (fmspc [6]byte, ca string, err error) {
	if len(chain) > maxChainBytes {
		return fmspc, "", fmt.Errorf("reading PCK certificate: %d bytes, want at most %d", len(chain), maxChainBytes)
	}
	block, _ := pem.Decode(chain)
	if block == nil {
		return fmspc, "", errors.New("reading PCK certificate: no PEM")
	}
	cert, err := pki.Parse(block.Bytes, maxChainBytes)
	if err != nil {
		return fmspc, "", fmt.Errorf("reading PCK certificate: %w", err)
	}
	platform, err := parsePlatform(cert)
	if err != nil {
		return fmspc, "", fmt.Errorf("reading PCK certificate: %w", err)
	}
	if ca, err = caNamed(cert.Issuer.CommonName); err != nil {
		return fmspc, "", fmt.Errorf("reading PCK certificate: issuer %w", err)
	}
	return platform.FMSPC, ca, nil
}

func caNamed(name string) (string, error) {
	switch name {
	case namePlatformCA:
		return CAPlatform, nil
	case nameProcessorCA:
		return CAProcessor, nil
	}
	return "", fmt.Errorf("is %q, want Intel's PCK Platform CA or Processor CA", name)
}

// For says which machines the collateral is about: their model, and the CA whose revocation list is in it. It verifies nothing.
func (c *Collateral) For() (fmspc [6]byte, ca string, err error) {
	info, err := parseTCBInfo(c.TCBInfo)
	if err != nil {
		return fmspc, "", fmt.Errorf("reading collateral: TCB info: %w", err)
	}
	crl, err := parseCRL(c.PCKCRL)
	if err != nil {
		return fmspc, "", fmt.Errorf("reading collateral: PCK CRL: %w", err)
	}
	if ca, err = caNamed(crl.Issuer.CommonName); err != nil {
		return fmspc, "", fmt.Errorf("reading collateral: PCK CRL: issuer %w", err)
	}
	return info.fmspc, ca, nil
}

// Evaluation returns the lower tcbEvaluationDataNumber of the two documents, which must be signed under the root.
func (c *Collateral) Evaluation(root *x509.Certificate) (uint32, error) {
	_, err := ProveTCBInfo(c.TCBInfo, c.TCBInfoSignature, c.TCBInfoIssuerChain, root)
	if err != nil {
		return 0, fmt.Errorf("reading collateral: TCB info: %w", err)
	}
	if _, err := ProveQEIdentity(c.QEIdentity, c.QEIdentitySignature, c.QEIdentityIssuerChain, root); err != nil {
		return 0, fmt.Errorf("reading collateral: QE identity: %w", err)
	}
	info, errInfo := parseTCBInfo(c.TCBInfo)
	identity, errID := parseQEIdentity(c.QEIdentity)
	if err := errors.Join(errInfo, errID); err != nil {
		return 0, fmt.Errorf("reading collateral: %w", err)
	}
	return min(info.evaluation, identity.evaluation), nil
}

// Described is one document of collateral: what it says of itself, unverified.
type Described struct {
	Document string    `json:"document"`
	From     time.Time `json:"from"`
	Until    time.Time `json:"until"`
	What     string    `json:"what"`
}

// Describe says what the collateral states of itself, for people to read. It verifies nothing.
func (c *Collateral) Describe() ([]Described, error) {
	info, err := parseTCBInfo(c.TCBInfo)
	if err != nil {
		return nil, fmt.Errorf("describing collateral: TCB info: %w", err)
	}
	identity, err := parseQEIdentity(c.QEIdentity)
	if err != nil {
		return nil, fmt.Errorf("describing collateral: QE identity: %w", err)
	}
	all := []Described{
		{"tcb-info", info.issued, info.next, fmt.Sprintf("FMSPC %x, %d levels, evaluation %d", info.fmspc, len(info.levels), info.evaluation)},
		{"qe-identity", identity.issued, identity.next, fmt.Sprintf("%d levels, evaluation %d", len(identity.levels), identity.evaluation)},
	}
	for _, list := range []struct {
		name string
		der  []byte
	}{{"pck-crl", c.PCKCRL}, {"root-ca-crl", c.RootCACRL}} {
		crl, err := parseCRL(list.der)
		if err != nil {
			return nil, fmt.Errorf("describing collateral: %s: %w", list.name, err)
		}
		all = append(all, Described{list.name, crl.ThisUpdate, crl.NextUpdate,
			fmt.Sprintf("%d revoked, by %s", len(crl.RevokedCertificateEntries), crl.Issuer.CommonName)})
	}
	return all, nil
}
