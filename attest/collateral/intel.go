package collateral

import (
	"context"
	"encoding/hex"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"chrysalis/attest/check"
	"chrysalis/attest/tdx"
)

// TDX fetches the collateral of a quote, by what the quote says of its machine.
func (f *Fetcher) TDX(ctx context.Context, quote *tdx.Quote) (*tdx.Collateral, error) {
	fmspc, ca, err := quote.Needs()
	if err != nil {
		return nil, fmt.Errorf("fetching collateral: %w", err)
	}
	pcs := f.Sources.IntelPCS
	tcbInfo, err := f.get(ctx, fmt.Sprintf("%s/tdx/certification/v4/tcb?fmspc=%x", pcs, fmspc), "TCB-Info-Issuer-Chain")
	if err != nil {
		return nil, err
	}
	identity, err := f.get(ctx, pcs+"/tdx/certification/v4/qe/identity", "SGX-Enclave-Identity-Issuer-Chain")
	if err != nil {
		return nil, err
	}
	pckCRL, err := f.get(ctx, pcs+"/sgx/certification/v4/pckcrl?encoding=der&ca="+ca, "SGX-PCK-CRL-Issuer-Chain")
	if err != nil {
		return nil, err
	}
	rootCRL, err := f.get(ctx, f.Sources.IntelCerts+"/IntelSGXRootCA.der", "")
	if err != nil {
		return nil, err
	}
	c := &tdx.Collateral{
		PCKCRL: pckCRL.Body, RootCACRL: rootCRL.Body,
		PCKCRLIssuerChain: []byte(pckCRL.Chain), TCBInfoIssuerChain: []byte(tcbInfo.Chain), QEIdentityIssuerChain: []byte(identity.Chain),
	}
	if c.TCBInfo, c.TCBInfoSignature, err = signed(tcbInfo.Body, "tcbInfo"); err != nil {
		return nil, fmt.Errorf("reading TCB info: %w: %w", check.ErrUnavailable, err)
	}
	if c.QEIdentity, c.QEIdentitySignature, err = signed(identity.Body, "enclaveIdentity"); err != nil {
		return nil, fmt.Errorf("reading QE identity: %w: %w", check.ErrUnavailable, err)
	}
	return c, nil
}

// signed takes a document of the service apart: the named member, with the exact bytes that are signed, and its signature.
func signed(document []byte, member string) (body []byte, signature [64]byte, err error) {
	var parts map[string]jsontext.Value
	if err := json.Unmarshal(document, &parts); err != nil {
		return nil, signature, err
	}
	var text string
	if err := json.Unmarshal(parts["signature"], &text); err != nil {
		return nil, signature, fmt.Errorf("signature: %w", err)
	}
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != len(signature) {
		return nil, signature, fmt.Errorf("signature has %d bytes, want %d: %v", len(raw), len(signature), err)
	}
	if len(parts) != 2 || len(parts[member]) == 0 {
		return nil, signature, fmt.Errorf("document has %d members, want %s and signature", len(parts), member)
	}
	return parts[member], [64]byte(raw), nil
}
