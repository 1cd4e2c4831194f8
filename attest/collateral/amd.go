package collateral

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
	"time"

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
	if f.Folder != "" {
		return f.folderSNP(report, product)
	}
	query, err := report.VCEKQuery(product)
	if err != nil {
		return nil, fmt.Errorf("fetching certificates: %w", err)
	}
	roots := f.amdRoots()
	base := fmt.Sprintf("%s/vcek/v1/%s", f.Sources.AMDKDS, product)
	chain, err := f.get(ctx, base+"/cert_chain", "", func(a answer) (time.Time, error) {
		return sevsnp.Prove(certificates(a.Body), nil, nil, roots)
	})
	if err != nil {
		return nil, err
	}
	s := &SNP{Chain: certificates(chain.Body)}
	certificate, err := f.get(ctx, base+"/"+query, "", func(a answer) (time.Time, error) { return sevsnp.Prove(s.Chain, a.Body, nil, roots) })
	if err != nil {
		return nil, err
	}
	if s.CRL, err = f.snpCRL(ctx, product, sevsnp.SignerVCEK, s.Chain); err != nil {
		return nil, err
	}
	s.Certificate = certificate.Body
	return s, nil
}

// SNPAgain is for a report that was refused for what the list of SNP says: where that came out of the cache, and not just now, it is
// dropped and asked for again. It returns nil where there is nothing newer to be had.
func (f *Fetcher) SNPAgain(ctx context.Context, report *sevsnp.Report, product sevsnp.Product) (*SNP, error) {
	if f.Folder != "" || !f.drop(f.crlAddress(product, report.Signer)) {
		return nil, nil
	}
	return f.SNP(ctx, report, product)
}

// snpCRL fetches the revocation list of the authorities, which are those of a VCEK or of a VLEK.
func (f *Fetcher) snpCRL(ctx context.Context, product sevsnp.Product, signer sevsnp.Signer, authorities [][]byte) ([]byte, error) {
	if f.Folder != "" {
		return f.folderCRL(authorities)
	}
	crl, err := f.get(ctx, f.crlAddress(product, signer), "", func(a answer) (time.Time, error) { return sevsnp.Prove(authorities, nil, a.Body, f.amdRoots()) })
	return crl.Body, err
}

func (f *Fetcher) crlAddress(product sevsnp.Product, signer sevsnp.Signer) string {
	return fmt.Sprintf("%s/%s/v1/%s/crl", f.Sources.AMDKDS, strings.ToLower(signer.String()), product)
}

func (f *Fetcher) amdRoots() []*x509.Certificate {
	if f.AMDRoots != nil {
		return f.AMDRoots
	}
	return sevsnp.AMDRoots()
}

// certificates takes PEM apart.
func certificates(text []byte) (all [][]byte) {
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return all
		}
		all = append(all, block.Bytes)
	}
}
