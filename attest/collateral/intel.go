package collateral

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"chrysalis/attest/check"
	"chrysalis/attest/dialect"
	"chrysalis/attest/tdx"
)

// TDX fetches the collateral of a quote, by what the quote says of its machine.
func (f *Fetcher) TDX(ctx context.Context, quote *tdx.Quote) (*tdx.Collateral, error) {
	if f.Folder != "" {
		return f.folderTDX(quote)
	}
	fmspc, ca, err := quote.Needs()
	if err != nil {
		return nil, fmt.Errorf("fetching collateral: %w: %w", check.ErrUnavailable, err)
	}
	return f.tdx(ctx, f.intelAddresses(fmspc, ca))
}

// TDXBeside is TDX for a quote without a chain, which stands beside it in PEM: PCK, its CA, root. The collateral carries it.
func (f *Fetcher) TDXBeside(ctx context.Context, chain []byte) (*tdx.Collateral, error) {
	fmspc, ca, err := tdx.NeedsOf(chain)
	if err != nil {
		return nil, fmt.Errorf("fetching collateral: %w: %w", check.ErrUnavailable, err)
	}
	var c *tdx.Collateral
	if f.Folder != "" {
		c, err = f.folderTDX(&tdx.Quote{PCKChain: chain})
	} else {
		c, err = f.tdx(ctx, f.intelAddresses(fmspc, ca))
	}
	if err != nil {
		return nil, err
	}
	beside := *c
	beside.PCKChain = chain
	return &beside, nil
}

// addresses are where the documents of one machine are.
type addresses struct{ info, identity, pckCRL, rootCRL string }

func (a addresses) all() []string { return []string{a.info, a.identity, a.pckCRL, a.rootCRL} }

func (f *Fetcher) intelAddresses(fmspc [6]byte, ca string) addresses {
	pcs, rootCRL := f.Sources.IntelPCS, f.Sources.IntelCerts+"/IntelSGXRootCA.der"
	if f.Sources.PCCS != "" {
		pcs = strings.TrimSuffix(f.Sources.PCCS, "/")
		rootCRL = pcs + "/sgx/certification/v4/rootcacrl"
	}
	a := addresses{fmt.Sprintf("%s/tdx/certification/v4/tcb?fmspc=%x", pcs, fmspc), pcs + "/tdx/certification/v4/qe/identity",
		pcs + "/sgx/certification/v4/pckcrl?encoding=der&ca=" + ca, rootCRL}
	if f.Sources.Update != "" {
		a.info += "&update=" + f.Sources.Update
		a.identity += "?update=" + f.Sources.Update
	}
	return a
}

// TDXEvaluation fetches the identity of the quoting enclave, which depends on no machine, and returns its tcbEvaluationDataNumber.
// Of a folder it is the highest that a whole set has.
func (f *Fetcher) TDXEvaluation(ctx context.Context) (uint32, error) {
	if f.Folder != "" {
		return f.folderEvaluation()
	}
	identity, err := f.get(ctx, f.intelAddresses([6]byte{}, "").identity, headerIdentity, document("enclaveIdentity", f.intelRoot(), tdx.ProveQEIdentity))
	if err != nil {
		return 0, err
	}
	body, _, err := signed(identity.Body, "enclaveIdentity")
	if err != nil {
		return 0, fmt.Errorf("reading %s: %w: %w", identity.URL, check.ErrUnavailable, err)
	}
	var said struct {
		Evaluation uint32 `json:"tcbEvaluationDataNumber"`
	}
	if err := json.Unmarshal(body, &said); err != nil || said.Evaluation == 0 {
		return 0, fmt.Errorf("reading %s: tcbEvaluationDataNumber is %d, want one above 0: %w: %v", identity.URL, said.Evaluation, check.ErrUnavailable, err)
	}
	return said.Evaluation, nil
}

// The headers that carry chains: PCS API 4.
const (
	headerInfo     = "TCB-Info-Issuer-Chain"
	headerIdentity = "SGX-Enclave-Identity-Issuer-Chain"
	headerPCKCRL   = "SGX-PCK-CRL-Issuer-Chain"
)

// document judges a signed document.
func document(member string, root *x509.Certificate, prove func([]byte, [64]byte, []byte, *x509.Certificate) (tdx.Dates, error)) judge {
	return func(a answer) (time.Time, error) {
		body, signature, err := signed(a.Body, member)
		if err != nil {
			return time.Time{}, err
		}
		dates, err := prove(body, signature, []byte(a.Chain), root)
		return dates.Until, err
	}
}

// tdx fetches a set of collateral.
func (f *Fetcher) tdx(ctx context.Context, from addresses) (*tdx.Collateral, error) {
	root := f.intelRoot()
	c := &tdx.Collateral{}
	list := func(a answer) (time.Time, error) {
		var chain []byte
		if a.Chain != "" {
			chain = []byte(a.Chain)
		}
		dates, err := tdx.ProveCRL(dialect.List(a.Body), chain, root) // a PCCS writes hexadecimal digits
		return dates.Until, err
	}
	for _, part := range []struct {
		address, header string
		judged          judge
		take            func(answer) error
	}{
		{from.info, headerInfo, document("tcbInfo", root, tdx.ProveTCBInfo), func(a answer) (err error) {
			c.TCBInfoIssuerChain = []byte(a.Chain)
			c.TCBInfo, c.TCBInfoSignature, err = signed(a.Body, "tcbInfo")
			return err
		}},
		{from.identity, headerIdentity, document("enclaveIdentity", root, tdx.ProveQEIdentity), func(a answer) (err error) {
			c.QEIdentityIssuerChain = []byte(a.Chain)
			c.QEIdentity, c.QEIdentitySignature, err = signed(a.Body, "enclaveIdentity")
			return err
		}},
		{from.pckCRL, headerPCKCRL, list, func(a answer) error {
			c.PCKCRL, c.PCKCRLIssuerChain = dialect.List(a.Body), []byte(a.Chain)
			return nil
		}},
		{from.rootCRL, "", list, func(a answer) error {
			c.RootCACRL = dialect.List(a.Body)
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
