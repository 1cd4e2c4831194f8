package tdx

import (
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
	block, _ := pem.Decode(q.PCKChain)
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
	switch cert.Issuer.CommonName {
	case "Intel SGX PCK Platform CA":
		ca = CAPlatform
	case "Intel SGX PCK Processor CA":
		ca = CAProcessor
	default:
		return fmspc, "", fmt.Errorf("reading PCK certificate: issuer is %q, want Intel's PCK Platform CA or Processor CA",
			cert.Issuer.CommonName)
	}
	return platform.FMSPC, ca, nil
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
