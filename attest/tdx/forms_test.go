package tdx_test

import (
	"bytes"
	"crypto/elliptic"
	"errors"
	"math/big"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"chrysalis/attest/attesttest"
	"chrysalis/attest/check"
	"chrysalis/attest/tdx"
)

// TestChainBeside: a quote that names its PCK and carries no chain is judged with the chain beside it, and with no other machine's.
func TestChainBeside(t *testing.T) {
	for typ, size := range map[uint16]int{1: 36, 2: 276, 3: 404, 4: 1000, 7: 17} {
		s := newScene()
		s.m.Certification = tdx.Certification{Type: typ, Data: make([]byte, size)}
		if typ == 1 {
			copy(s.m.Certification.Data, s.m.Platform.PPID[:])
		}
		for _, tt := range []struct {
			name   string
			chain  func(e *attesttest.TDXEvidence) []byte
			class  error
			refuse string
		}{
			{"its own", func(*attesttest.TDXEvidence) []byte { return s.m.PEM() }, nil, ""},
			{"none", func(*attesttest.TDXEvidence) []byte { return nil }, check.ErrUnavailable, "pck-chain-format"},
			{"another machine's", func(*attesttest.TDXEvidence) []byte {
				own := s.m.QuoteChain
				defer func() { s.m.QuoteChain = own }()
				s.m.QuoteChain = []*attesttest.Certified{s.m.PCK.Authority(s.m.CA, nil), s.m.CA, s.m.Root}
				return s.m.PEM()
			}, check.ErrRejected, "qe-report-signature"},
			{"another document", func(e *attesttest.TDXEvidence) []byte { return e.Collateral.TCBInfoIssuerChain }, check.ErrRejected, "pck-chain-format"},
			{"no PEM", func(*attesttest.TDXEvidence) []byte { return []byte("chain") }, check.ErrRejected, "pck-chain-format"},
		} {
			s.edit = func(e *attesttest.TDXEvidence) {
				e.Collateral.PCKChain = tt.chain(e)
				if typ == 4 { // nothing signs it
					e.Quote = withCertificate(t, e.Quote, s.m.PEM())
				}
			}
			_, err := s.play(tdx.Verify)
			var refused *tdx.Refused
			if tt.class == nil && err != nil || tt.class != nil && (!errors.Is(err, tt.class) || !errors.As(err, &refused) || refused.Failed.Name != tt.refuse) {
				t.Errorf("type %d, the chain is %s: got %v, want %v by %q", typ, tt.name, err, tt.class, tt.refuse)
			}
		}
		s.edit = nil
		raw := s.m.Build().Quote
		if q, err := tdx.Parse(raw); err != nil || !bytes.Equal(q.Encode(), raw) || q.PCKChain != nil {
			t.Errorf("type %d: got %v, want the quote to be written again as it is", typ, err)
		}
	}
	// A quote's own chain decides, whatever stands beside it.
	s := newScene()
	s.edit = func(e *attesttest.TDXEvidence) { e.Collateral.PCKChain = []byte("another") }
	if _, err := s.play(tdx.Verify); err != nil {
		t.Errorf("a chain of its own beside another: got %v", err)
	}
}

// TestOtherEncodings holds the sentence of SECURITY.md on what may be written otherwise: it is accepted, and says the same.
func TestOtherEncodings(t *testing.T) {
	security, err := os.ReadFile("../../SECURITY.md")
	if err != nil {
		t.Fatal(err)
	}
	const sentence = "Evidence has one reading, not one encoding: an ECDSA signature (R, S) may be written as (R, N−S), line ends may stand anywhere in PEM, zeros may follow a quote or its chain, and certification data that is no chain is a name that nothing signs; nothing else of a quote or a report may differ."
	if !strings.Contains(strings.Join(strings.Fields(string(security)), " "), sentence) {
		t.Errorf("SECURITY.md does not say %q", sentence)
	}
	e := newScene().m.Build()
	want, err := tdx.Parse(e.Quote)
	if err != nil {
		t.Fatal(err)
	}
	turn := func(signature *[64]byte) {
		s := new(big.Int).SetBytes(signature[32:])
		s.Sub(elliptic.P256().Params().N, s).FillBytes(signature[32:])
	}
	for name, tt := range map[string]struct {
		change func(q *tdx.Quote)
		accept bool
	}{
		"the quote's signature":      {func(q *tdx.Quote) { turn(&q.Signature) }, true},
		"the QE report's signature":  {func(q *tdx.Quote) { turn(&q.QEReportSignature) }, true},
		"line ends in the chain":     {func(q *tdx.Quote) { q.PCKChain = bytes.ReplaceAll(q.PCKChain, []byte("\n"), []byte("\r\n\n")) }, true},
		"no line ends in the base64": {func(q *tdx.Quote) { q.PCKChain = bytes.ReplaceAll(q.PCKChain, []byte("\n"), nil) }, true},
		"zeros after the chain":      {func(q *tdx.Quote) { q.PCKChain = append(q.PCKChain, 0, 0, 0) }, true},
		"a space in the chain":       {func(q *tdx.Quote) { q.PCKChain = bytes.Replace(q.PCKChain, []byte("\n"), []byte(" \n"), 1) }, false},
		"a header in the chain":      {func(q *tdx.Quote) { q.PCKChain = bytes.Replace(q.PCKChain, []byte("\n"), []byte("\nA: b\n\n"), 1) }, false},
		"more padding of base64": {func(q *tdx.Quote) {
			end := bytes.Index(q.PCKChain, []byte("-----END"))
			q.PCKChain = slices.Concat(q.PCKChain[:end], []byte("="), q.PCKChain[end:])
		}, false},
		"R and N": {func(q *tdx.Quote) { q.Signature[0] ^= 1 }, false},
	} {
		q := *want
		q.PCKChain = bytes.Clone(want.PCKChain)
		tt.change(&q)
		raw := q.Encode()
		r, err := tdx.Verify(append(raw, 0, 0), e.Collateral, tdx.Options{}, now, e.Root)
		if (err == nil) != tt.accept || bytes.Equal(raw, e.Quote) {
			t.Errorf("%s: got %v, want accepted: %t", name, err, tt.accept)
		}
		if err == nil && r.Body() != want.Body {
			t.Errorf("%s: another body", name)
		}
	}
}

// withCertificate puts the first certificate of a chain into a quote as its certification data.
func withCertificate(t *testing.T, quote, chain []byte) []byte {
	t.Helper()
	q, err := tdx.Parse(quote)
	if err != nil {
		t.Fatal(err)
	}
	const end = "-----END CERTIFICATE-----"
	q.Certification.Data = chain[:bytes.Index(chain, []byte(end))+len(end)]
	return q.Encode()
}

// TestBitsWithoutChain flips each bit of quotes that carry no chain. What nothing signs is the name of the PCK: where one bit of it is
// another and the quote is accepted all the same, it is one that only names the machine to its owner's services.
func TestBitsWithoutChain(t *testing.T) {
	for typ, size := range map[uint16]int{1: 36, 3: 404, 7: 17} {
		s := newScene()
		s.m.Certification = tdx.Certification{Type: typ, Data: make([]byte, size)}
		if typ == 1 {
			copy(s.m.Certification.Data, s.m.Platform.PPID[:])
		}
		e := s.m.Build()
		e.Collateral.PCKChain = s.m.PEM()
		options := tdx.Options{Facts: new(check.Facts)}
		want, err := tdx.Parse(bytes.Clone(e.Quote))
		if err != nil {
			t.Fatal(err)
		}
		for bit := range len(e.Quote) * 8 {
			// TestEveryBitOfQuote flips all of what is before; under js a signature takes twenty times as long.
			if bit/8 < len(e.Quote)-size-10 && (bit%8 != bit/8%8 || bit/8%3 != 0) || runtime.GOOS == "js" && bit%61 != 0 {
				continue
			}
			e.Quote[bit/8] ^= 1 << (bit % 8)
			if r, err := tdx.Verify(e.Quote, e.Collateral, options, now, e.Root); err == nil {
				q, err := tdx.Parse(e.Quote)
				if err != nil || r.Body() != want.Body || q.QEReport != want.QEReport || !bytes.Equal(q.QEAuthData, want.QEAuthData) ||
					bytes.Equal(q.Certification.Data, want.Certification.Data) && q.Certification.Type == typ {
					t.Fatalf("type %d, bit %d of byte %d: accepted", typ, bit%8, bit/8)
				}
				if typ == 1 && !bytes.Equal(q.Certification.Data[:16], want.Certification.Data[:16]) && q.Certification.Type == typ {
					t.Fatalf("bit %d of byte %d: accepted with another PPID", bit%8, bit/8)
				}
			}
			e.Quote[bit/8] ^= 1 << (bit % 8)
		}
	}
}

// TestNewLines: what is newer than this build or the collateral knows is named as such.
func TestNewLines(t *testing.T) {
	for name, change := range map[string]func(*scene){
		"a module that runs":   func(s *scene) { s.m.Body.TEETCBSVN2[1] = 9 },
		"a module at launch":   func(s *scene) { s.m.Body.TEETCBSVN[1] = 9 },
		"a body of type 4":     func(s *scene) { s.edit = func(e *attesttest.TDXEvidence) { e.Quote[48] = 4 } },
		"a quote of version 6": func(s *scene) { s.edit = func(e *attesttest.TDXEvidence) { e.Quote[0] = 6 } },
	} {
		s := newScene()
		change(s)
		_, err := s.play(tdx.Verify)
		if !errors.Is(err, check.ErrRejected) || !strings.Contains(err.Error(), "does not know") && !strings.Contains(err.Error(), "newer than") {
			t.Errorf("%s: got %v, want a refusal that says so", name, err)
		}
	}
}
