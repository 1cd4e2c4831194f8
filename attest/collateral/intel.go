package collateral

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"time"

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
	root := f.intelRoot()
	c := &tdx.Collateral{}
	document := func(member string, prove func([]byte, [64]byte, []byte, *x509.Certificate) (tdx.Dates, error)) judge {
		return func(a answer) (time.Time, error) {
			body, signature, err := signed(a.Body, member)
			if err != nil {
				return time.Time{}, err
			}
			dates, err := prove(body, signature, []byte(a.Chain), root)
			return dates.Until, err
		}
	}
	list := func(a answer) (time.Time, error) {
		var chain []byte
		if a.Chain != "" {
			chain = []byte(a.Chain)
		}
		dates, err := tdx.ProveCRL(a.Body, chain, root)
		return dates.Until, err
	}
	pcs := f.Sources.IntelPCS
	for _, part := range []struct {
		address, header string
		judged          judge
		take            func(answer) error
	}{
		{fmt.Sprintf("%s/tdx/certification/v4/tcb?fmspc=%x", pcs, fmspc), "TCB-Info-Issuer-Chain",
			document("tcbInfo", tdx.ProveTCBInfo), func(a answer) (err error) {
				c.TCBInfoIssuerChain = []byte(a.Chain)
				c.TCBInfo, c.TCBInfoSignature, err = signed(a.Body, "tcbInfo")
				return err
			}},
		{pcs + "/tdx/certification/v4/qe/identity", "SGX-Enclave-Identity-Issuer-Chain",
			document("enclaveIdentity", tdx.ProveQEIdentity), func(a answer) (err error) {
				c.QEIdentityIssuerChain = []byte(a.Chain)
				c.QEIdentity, c.QEIdentitySignature, err = signed(a.Body, "enclaveIdentity")
				return err
			}},
		{pcs + "/sgx/certification/v4/pckcrl?encoding=der&ca=" + ca, "SGX-PCK-CRL-Issuer-Chain", list, func(a answer) error {
			c.PCKCRL, c.PCKCRLIssuerChain = a.Body, []byte(a.Chain)
			return nil
		}},
		{f.Sources.IntelCerts + "/IntelSGXRootCA.der", "", list, func(a answer) error {
			c.RootCACRL = a.Body
			return nil
		}},
	} {
		a, err := f.get(ctx, part.address, part.header, part.judged)
		if err != nil {
			return nil, err
		}
		if err := part.take(a); err != nil {
			return nil, fmt.Errorf("reading %s: %w: %w", part.address, check.ErrUnavailable, err)
		}
	}
	return c, nil
}

func (f *Fetcher) intelRoot() *x509.Certificate {
	if f.IntelRoot != nil {
		return f.IntelRoot
	}
	return tdx.IntelRoot()
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
