//go:build !js

package tdx_test

import (
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tdx-guest/pcs"
	oracletest "github.com/google/go-tdx-guest/testing"
	"github.com/google/go-tdx-guest/testing/testdata"
	oracle "github.com/google/go-tdx-guest/verify"
	"github.com/google/logger"

	"chrysalis/attest/attesttest"
	"chrysalis/attest/check"
	"chrysalis/attest/tdx"
)

func TestMain(m *testing.M) {
	logger.Init("oracle", false, false, io.Discard)
	logger.SetLevel(0)
	os.Exit(m.Run())
}

// askOracle has go-tdx-guest judge the same quote and collateral at the same time under the same root.
func askOracle(e *attesttest.TDXEvidence, at time.Time) error {
	pool := x509.NewCertPool()
	pool.AddCert(e.Root)
	c := e.Collateral
	header := func(name string, chain []byte) map[string][]string {
		return map[string][]string{name: {url.QueryEscape(string(chain))}}
	}
	body := func(name string, document []byte, signature [64]byte) []byte {
		return fmt.Appendf(nil, `{"%s":%s,"signature":"%x"}`, name, document, signature)
	}
	return oracle.RawTdxQuote(e.Quote, &oracle.Options{
		CheckRevocations: true, GetCollateral: true, TrustedRoots: pool,
		Now: &oracle.TimeSet{PckCertChain: at, TcbInfo: at, QeIdentity: at, PckCrl: at, RootCaCrl: at},
		Getter: &oracletest.Getter{Responses: map[string]oracletest.HTTPResponse{
			pcs.QeIdentityURL(): {Header: header(pcs.SgxQeIdentityIssuerChainPhrase, c.QEIdentityIssuerChain),
				Body: body("enclaveIdentity", c.QEIdentity, c.QEIdentitySignature)},
			pcs.TcbInfoURL("50806f000000"): {Header: header(pcs.TcbInfoIssuerChainPhrase, c.TCBInfoIssuerChain),
				Body: body("tcbInfo", c.TCBInfo, c.TCBInfoSignature)},
			pcs.PckCrlURL("platform"): {Header: header(pcs.SgxPckCrlIssuerChainPhrase, c.PCKCRLIssuerChain), Body: c.PCKCRL},
			"https://certificates.trustedservices.intel.com/IntelSGXRootCA.der": {Body: c.RootCACRL},
		}},
	})
}

// disagreements are the vectors that go-tdx-guest accepts. DIFFERENCES.md explains each.
var disagreements = map[string]bool{
	"quote-format/a byte after the quote":                          true,
	"pck-chain/a PCK that is a CA":                                 true,
	"pck-chain/a PCK that may not sign":                            true,
	"pck-extension-known/an unknown entry":                         true,
	"pck-extension-format/PPID twice":                              true,
	"pck-extension-format/an SGX type of 3":                        true,
	"td-debug/DEBUG":                                               true,
	"td-sept-ve-disable/SEPT_VE_DISABLE off":                       true,
	"td-migratable/MIGRATABLE":                                     true,
	"td-attributes/HGS_PLUS_PROF":                                  true,
	"td-attributes/PERF_PROF":                                      true,
	"td-attributes/a reserved bit":                                 true,
	"td-attributes/TPA":                                            true,
	"xfam/no SSE":                                                  true,
	"xfam-known/a reserved bit":                                    true,
	"mr-service-td/a service TD":                                   true,
	"root-crl-format/a CRL for some certificates":                  true,
	"root-crl-signature/a signature over SHA-384":                  true,
	"pck-ca-revoked/the CA's certificate in the CRL's chain alone": true,
	"root-crl-dates/of tomorrow":                                   true,
	"pck-crl-chain/another root":                                   true,
	"pck-crl-chain/a CA that another key signed":                   true,
	"pck-crl-dates/of tomorrow":                                    true,
	"tcb-info-chain/a CA":                                          true,
	"tcb-info-format/a member twice":                               true,
	"root-crl-format/a byte after the CRL":                         true,
	"pck-crl-format/a byte after the CRL":                          true,
	"tcb-info-format/fifteen components":                           true,
	"tcb-info-format/a module twice":                               true,
	"tcb-info-format/levels out of order":                          true,
	"tcb-info-format/a level twice":                                true,
	"tcb-info-dates/of tomorrow":                                   true,
	"tdx-module-signer/another signer":                             true,
	"tdx-module-attributes/other attributes":                       true,
	"qe-identity-chain/a CA":                                       true,
	"qe-identity-dates/of tomorrow":                                true,
}

// TestAgainstOracle has go-tdx-guest judge every vector: it must refuse those too, or be known not to.
func TestAgainstOracle(t *testing.T) {
	if err := askOracle(newScene().m.Build(), now); err != nil {
		t.Fatalf("go-tdx-guest refuses a sound machine: %v", err)
	}
	seen := map[string]bool{}
	for _, v := range vectors() {
		s := newScene()
		v.spoil(s)
		if s.options.AcceptStatus != nil || s.options.MRSEAM != nil || s.options.ServiceTDs != nil || s.options.MinTCBEvaluation != 0 ||
			s.options.MaxCollateralAge != 0 || !s.options.MinTCBDate.IsZero() {
			continue // it has no such option
		}
		e := s.m.Build()
		if s.edit != nil {
			s.edit(e)
		}
		if e.Root == nil {
			continue // nil is Intel's root there
		}
		name := v.check + "/" + v.name
		err := askOracle(e, s.at)
		if disagreements[name] != (err == nil) {
			t.Errorf("%s: go-tdx-guest says %v, want it to accept: %t", name, err, disagreements[name])
		}
		seen[name] = true
	}
	document, err := os.ReadFile("DIFFERENCES.md")
	if err != nil {
		t.Fatal(err)
	}
	for name := range disagreements {
		if !seen[name] {
			t.Errorf("disagreement %q is no vector", name)
		}
		if name, _, _ := strings.Cut(name, "/"); !regexp.MustCompile(`(?m)^\| (?:\S+, )*` + name + `(?:, \S+)* \|`).Match(document) {
			t.Errorf("DIFFERENCES.md has no row for the check %s", name)
		}
	}
}

// TestOracleDropsPlatformStatus pins the difference that matters most: with a TDX module that has a version, go-tdx-guest
// takes the module's status alone.
func TestOracleDropsPlatformStatus(t *testing.T) {
	for _, status := range []tdx.Status{tdx.OutOfDate, tdx.Revoked, tdx.SWHardeningNeeded, tdx.ConfigurationNeeded,
		tdx.ConfigurationAndSWHardeningNeeded, tdx.OutOfDateConfigurationNeeded} {
		for _, module := range []byte{0, 1} {
			m := attesttest.NewTDX(now, 4, false)
			m.TCBInfo.Levels[0].Status = status
			m.Body.TEETCBSVN[1] = module
			e := m.Build()
			if _, err := tdx.Verify(e.Quote, e.Collateral, tdx.Options{}, now, e.Root); !errors.Is(err, check.ErrRejected) {
				t.Errorf("platform %s: got %v, want a refusal", status, err)
			}
			if err := askOracle(e, now); (err == nil) != (module > 0) {
				t.Errorf("platform %s, module version %d: go-tdx-guest says %v", status, module, err)
			}
		}
	}
}

// intelCollateral is what go-tdx-guest's test data has for one of its quotes.
func intelCollateral(t *testing.T, tcbInfo []byte) *tdx.Collateral {
	t.Helper()
	chain := func(header map[string][]string, name string) []byte {
		text, err := url.QueryUnescape(header[name][0])
		if err != nil {
			t.Fatal(err)
		}
		return []byte(text)
	}
	c := &tdx.Collateral{
		PCKCRL: testdata.PckCrlBody, RootCACRL: testdata.RootCrlBody,
		PCKCRLIssuerChain:     chain(oracletest.PckCrlHeader, pcs.SgxPckCrlIssuerChainPhrase),
		TCBInfoIssuerChain:    chain(oracletest.TcbInfoHeader, pcs.TcbInfoIssuerChainPhrase),
		QEIdentityIssuerChain: chain(oracletest.QeIdentityHeader, pcs.SgxQeIdentityIssuerChainPhrase),
	}
	document := func(body []byte, member string, signature *[64]byte) []byte {
		var m map[string]json.RawMessage
		if err := json.Unmarshal(body, &m); err != nil {
			t.Fatal(err)
		}
		var text string
		if err := json.Unmarshal(m["signature"], &text); err != nil {
			t.Fatal(err)
		}
		if n, err := hex.Decode(signature[:], []byte(text)); err != nil || n != 64 {
			t.Fatalf("signature of %s: %d bytes, %v", member, n, err)
		}
		return m[member]
	}
	c.TCBInfo = document(tcbInfo, "tcbInfo", &c.TCBInfoSignature)
	c.QEIdentity = document(testdata.QeIdentityBody, "enclaveIdentity", &c.QEIdentitySignature)
	return c
}

// TestGenuine judges what Intel signed, at the times at which it held.
func TestGenuine(t *testing.T) {
	july2023, february2026 := time.Date(2023, 7, 1, 1, 0, 0, 0, time.UTC), time.Date(2026, 2, 10, 0, 0, 0, 0, time.UTC)
	quotes := genuine(t)
	t.Run("version 4", func(t *testing.T) {
		// Its TD may take faults on its own memory, and its platform has a TCB older than every level.
		_, err := tdx.Verify(quotes[0], intelCollateral(t, testdata.TcbInfoBody), tdx.Options{}, july2023, tdx.IntelRoot())
		var rejected *tdx.Refused
		if !errors.As(err, &rejected) {
			t.Fatalf("got %v, want a refusal", err)
		}
		var denied []string
		for _, c := range rejected.Checks() {
			if c.Verdict == check.Denied {
				denied = append(denied, c.Name)
			}
		}
		if got, want := strings.Join(denied, " "), "td-sept-ve-disable tcb-status"; got != want {
			t.Errorf("refused by %s, want %s", got, want)
		}
		if got, want := rejected.TCB(), (tdx.TCB{Status: tdx.NotSupported, Platform: tdx.NotSupported, Module: tdx.UpToDate,
			QE: tdx.UpToDate}); got != want {
			t.Errorf("TCB: got %+v, want %+v", got, want)
		}
		if body, signed := rejected.Body(); !signed || body.Debug() {
			t.Error("the quote does not count as signed, or as one of a TD under debug")
		}
		r, err := tdx.Verify(quotes[0], intelCollateral(t, testdata.TcbInfoBody),
			tdx.Options{InsecureSkipTCB: true, InsecureAllowSEPTVE: true}, july2023, tdx.IntelRoot())
		if err != nil {
			t.Fatal(err)
		}
		if p := r.Platform(); fmt.Sprintf("%x", p.PPID) != "089ddfdb9c0359c82a3bc7719239574e" || p.PCESVN != 11 ||
			p.SGXSVN != [16]byte{3, 3, 2, 2, 2, 1, 0, 2} {
			t.Errorf("platform: got %+v", p)
		}
		// The appended text is refused, and so is another root.
		if _, err := tdx.Parse(testdata.RawQuote); err == nil {
			t.Error("text after the quote: got no error")
		}
		if _, err := tdx.Verify(quotes[0], nil, tdx.Options{InsecureSkipTCB: true, InsecureAllowSEPTVE: true}, july2023,
			newScene().m.Build().Root); !errors.Is(err, check.ErrRejected) {
			t.Errorf("under another root: got %v, want a refusal", err)
		}
	})
	t.Run("version 5", func(t *testing.T) {
		r, err := tdx.Verify(quotes[1], nil, tdx.Options{InsecureSkipTCB: true}, february2026, tdx.IntelRoot())
		if err != nil {
			t.Fatal(err)
		}
		if b := r.Body(); !b.TDX15 || b.TEETCBSVN2 != [16]byte{13, 1, 4} || b.TEETCBSVN != [16]byte{11, 1, 4} {
			t.Errorf("body: got %+v", b)
		}
		// The collateral that came with it is of three ages; each part must say so.
		_, err = tdx.Verify(quotes[1], intelCollateral(t, testdata.TcbInfoBodyV5), tdx.Options{}, february2026, tdx.IntelRoot())
		var rejected *tdx.Refused
		if !errors.As(err, &rejected) {
			t.Fatalf("got %v, want a refusal", err)
		}
		var denied []string
		for _, c := range rejected.Checks() {
			if c.Verdict == check.Denied {
				denied = append(denied, c.Name)
			}
		}
		want := "root-crl-dates pck-crl-dates tcb-info-signer-dates qe-identity-signer-dates qe-identity-dates"
		if got := strings.Join(denied, " "); got != want {
			t.Errorf("refused by %s, want %s", got, want)
		}
		if rejected.TCB().Status != tdx.UpToDate {
			t.Errorf("TCB: got %+v, want it up to date", rejected.TCB())
		}
	})
}
