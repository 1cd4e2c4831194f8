package collateral

import (
	"context"
	"encoding/pem"
	"fmt"

	"chrysalis/attest/check"
	"chrysalis/attest/sevsnp"
)

// SNP is what AMD's service has for a report.
type SNP struct {
	Certificate []byte   // VCEK, DER
	Chain       [][]byte // ASK and ARK, DER
	CRL         []byte   // DER
}

// SNP fetches the endorsement key's certificate of a report, its chain and the revocation list. A report that is signed by a
// VLEK has its certificate from the cloud that runs it, not from this service.
func (f *Fetcher) SNP(ctx context.Context, report *sevsnp.Report, product sevsnp.Product) (*SNP, error) {
	query, err := report.VCEKQuery(product)
	if err != nil {
		return nil, fmt.Errorf("fetching certificates: %w", err)
	}
	base := fmt.Sprintf("%s/vcek/v1/%s", f.Sources.AMDKDS, product)
	certificate, err := f.get(ctx, base+"/"+query, "")
	if err != nil {
		return nil, err
	}
	chain, err := f.get(ctx, base+"/cert_chain", "")
	if err != nil {
		return nil, err
	}
	crl, err := f.get(ctx, base+"/crl", "")
	if err != nil {
		return nil, err
	}
	s := &SNP{Certificate: certificate.Body, CRL: crl.Body}
	for rest := chain.Body; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		s.Chain = append(s.Chain, block.Bytes)
	}
	if len(s.Chain) != 2 {
		return nil, fmt.Errorf("reading certificate chain: %w: %d certificates, want ASK and ARK", check.ErrUnavailable, len(s.Chain))
	}
	return s, nil
}
