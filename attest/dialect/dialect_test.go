package dialect_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"chrysalis/attest/attesttest"
	"chrysalis/attest/check"
	"chrysalis/attest/dialect"
	"chrysalis/attest/tdx"
)

var now = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// answers are those of Intel's service, as curl -i writes them.
func answers(c *tdx.Collateral) [][]byte {
	answer := func(header string, chain, body []byte) []byte {
		if header != "" {
			header += ": " + url.PathEscape(string(chain)) + "\r\n"
		}
		return slices.Concat([]byte("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nRequest-ID: 7\r\n"+header+"\r\n"), body)
	}
	return [][]byte{
		answer("TCB-Info-Issuer-Chain", c.TCBInfoIssuerChain, fmt.Appendf(nil, `{"tcbInfo":%s,"signature":"%x"}`, c.TCBInfo, c.TCBInfoSignature)),
		answer("SGX-Enclave-Identity-Issuer-Chain", c.QEIdentityIssuerChain,
			fmt.Appendf(nil, `{"enclaveIdentity":%s,"signature":"%x"}`, c.QEIdentity, c.QEIdentitySignature)),
		answer("SGX-PCK-CRL-Issuer-Chain", c.PCKCRLIssuerChain, c.PCKCRL),
		answer("", nil, c.RootCACRL),
	}
}

// platformCollaterals is what Intel's PcsClientTool writes: documents as objects that Python has spaced out, the identity of the
// quoting enclave for TDs as a string.
func platformCollaterals(t testing.TB, sets ...*tdx.Collateral) []byte {
	t.Helper()
	c := sets[0]
	var infos []any
	for _, set := range sets {
		fmspc, _, err := set.For()
		if err != nil {
			t.Fatal(err)
		}
		infos = append(infos, map[string]any{"fmspc": hex.EncodeToString(fmspc[:]),
			"sgx_tcbinfo": json.RawMessage(`{"tcbInfo":{"id":"SGX","version":3},"signature":"` + strings.Repeat("00", 64) + `"}`),
			"tdx_tcbinfo": json.RawMessage(fmt.Appendf(nil, `{"tcbInfo":%s,"signature":"%x"}`, set.TCBInfo, set.TCBInfoSignature))})
	}
	identity := fmt.Sprintf(`{"enclaveIdentity":%s,"signature":"%x"}`, c.QEIdentity, c.QEIdentitySignature)
	b, err := json.MarshalIndent(map[string]any{
		"platforms": []any{map[string]string{"qe_id": "00"}},
		"collaterals": map[string]any{
			"version": 4, "pck_certs": []any{}, "tcbinfos": infos, "qeidentity": "", "tdqeidentity": identity, "tdqeidentity_early": "",
			"pckcacrl": map[string]string{"processorCrl": "", "platformCrl": hex.EncodeToString(c.PCKCRL)},
			"certificates": map[string]any{
				"SGX-PCK-Certificate-Issuer-Chain":  map[string]string{"PLATFORM": url.PathEscape(string(c.PCKCRLIssuerChain)), "PROCESSOR": ""},
				"TCB-Info-Issuer-Chain":             url.PathEscape(string(c.TCBInfoIssuerChain)),
				"SGX-Enclave-Identity-Issuer-Chain": url.PathEscape(string(c.QEIdentityIssuerChain)),
			},
			"rootcacrl": hex.EncodeToString(c.RootCACRL),
		},
	}, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// forms are the ways in which the collateral of one machine is written.
func forms(t testing.TB, m *attesttest.TDX, c *tdx.Collateral) map[string][][]byte {
	t.Helper()
	own, err := c.Encode()
	if err != nil {
		t.Fatal(err)
	}
	beside := *c
	beside.PCKChain = m.PEM()
	qvl, err := beside.Encode()
	if err != nil {
		t.Fatal(err)
	}
	pieces := answers(c)
	pccs := slices.Clone(pieces)
	pccs[3] = []byte(hex.EncodeToString(c.RootCACRL) + "\n")
	listed := slices.Clone(pieces)
	listed[3] = pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: c.RootCACRL})
	return map[string][][]byte{
		"this project's": {own}, "dcap-qvl's": {qvl}, "Intel's answers": pieces, "a PCCS's answers": pccs, "answers and a list in PEM": listed,
		"PcsClientTool's": {platformCollaterals(t, c)},
	}
}

func TestCollateral(t *testing.T) {
	m := attesttest.NewTDX(now, 5, true)
	e := m.Build()
	quote, err := tdx.Parse(e.Quote)
	if err != nil {
		t.Fatal(err)
	}
	for name, files := range forms(t, m, e.Collateral) {
		sets, err := dialect.Collateral(files...)
		if err != nil || len(sets) != 1 {
			t.Errorf("%s: got %d sets, %v, want one", name, len(sets), err)
			continue
		}
		c, err := dialect.Pick(sets, quote, e.Root)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if _, err := tdx.Verify(e.Quote, c, tdx.Options{}, now, e.Root); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !bytes.Equal(c.TCBInfo, e.Collateral.TCBInfo) || !bytes.Equal(c.QEIdentity, e.Collateral.QEIdentity) {
			t.Errorf("%s: the documents are not those that were signed", name)
		}
	}
	// The chain stands beside a quote that has none.
	m.Certification = tdx.Certification{Type: 3, Data: make([]byte, 404)}
	e = m.Build()
	all := forms(t, m, e.Collateral)
	for name, files := range map[string][][]byte{"dcap-qvl's": all["dcap-qvl's"], "PEM": append(slices.Clone(all["Intel's answers"]), m.PEM())} {
		sets, err := dialect.Collateral(files...)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := tdx.Verify(e.Quote, sets[0], tdx.Options{}, now, e.Root); err != nil {
			t.Errorf("%s, chain beside the quote: %v", name, err)
		}
	}
}

// TestPick: of several sets the one about the machine is taken, and of each document the latest.
func TestPick(t *testing.T) {
	m := attesttest.NewTDX(now, 5, true)
	e := m.Build()
	quote, err := tdx.Parse(e.Quote)
	if err != nil {
		t.Fatal(err)
	}
	older := *e.Collateral
	m.TCBInfo.FMSPC = "00906F000000"
	other := *e.Collateral
	other.TCBInfo = m.Build().Collateral.TCBInfo
	m.Resign(&other)
	m.TCBInfo.FMSPC, m.TCBInfo.IssueDate = "50806F000000", now
	newer := *e.Collateral
	newer.TCBInfo = m.Build().Collateral.TCBInfo
	m.Resign(&newer)
	for name, sets := range map[string][]*tdx.Collateral{"newer first": {&newer, &other, &older}, "newer last": {&other, &older, &newer}} {
		got, err := dialect.Pick(sets, quote, e.Root)
		if err != nil || !bytes.Equal(got.TCBInfo, newer.TCBInfo) {
			t.Errorf("%s: got %v, want the newer document about the machine", name, err)
		}
	}
	if _, err := dialect.Pick([]*tdx.Collateral{&other, &other}, quote, e.Root); !errors.Is(err, check.ErrUnavailable) || !strings.Contains(err.Error(), "50806f000000") {
		t.Errorf("none about the machine: got %v, want it to be unavailable", err)
	}
	sets, err := dialect.Collateral(platformCollaterals(t, &older, &other))
	if err != nil || len(sets) != 2 {
		t.Fatalf("got %d sets, %v, want 2", len(sets), err)
	}
	if got, err := dialect.Pick(sets, quote, e.Root); err != nil || !bytes.Equal(got.TCBInfo, older.TCBInfo) {
		t.Errorf("PcsClientTool's, of two machines: got %v, want the one about this", err)
	}
}

func TestCollateralRefuses(t *testing.T) {
	m := attesttest.NewTDX(now, 4, false)
	c := m.Build().Collateral
	pieces := answers(c)
	bare := fmt.Appendf(nil, `{"tcbInfo":%s,"signature":"%x"}`, c.TCBInfo, c.TCBInfoSignature)
	for _, tt := range []struct {
		name  string
		files [][]byte
		want  string
	}{
		{"nothing", nil, "0 files"},
		{"an empty file", [][]byte{{}}, "neither JSON"},
		{"too long", [][]byte{make([]byte, dialect.MaxFileBytes+1)}, "want at most"},
		{"too many", make([][]byte, dialect.MaxFiles+1), "want 1 to 256"},
		{"an answer without its headers", [][]byte{bare}, "without its headers"},
		{"an answer missing", pieces[:3], "0 of the root"},
		{"an error for an answer", [][]byte{[]byte("HTTP/1.1 404 Not Found\r\n\r\n")}, "404"},
		{"headers without an end", [][]byte{[]byte("HTTP/1.1 200 OK\r\n")}, "no end"},
		{"a chain twice", [][]byte{[]byte("HTTP/1.1 200 OK\r\nTCB-Info-Issuer-Chain: a\r\ntcb-info-issuer-chain: b\r\n\r\n{}")}, "twice"},
		{"chains of two kinds", [][]byte{[]byte("HTTP/1.1 200 OK\r\nTCB-Info-Issuer-Chain: a\r\nSGX-PCK-CRL-Issuer-Chain: b\r\n\r\n{}")}, "2 kinds"},
		{"a member beside", [][]byte{bytes.Replace(pieces[0], []byte(`"signature"`), []byte(`"more":1,"signature"`), 1)}, "3 members"},
		{"a short signature", [][]byte{bytes.Replace(pieces[0], []byte(`"signature":"`), []byte(`"signature":"00`), 1)}, "65 bytes"},
		{"two chains", append(slices.Clone(pieces), m.PEM(), m.PEM()), "a second chain"},
		{"no collaterals", [][]byte{[]byte(`{"collaterals":{}}`)}, "no set"},
		{"collaterals of another form", [][]byte{[]byte(`{"collaterals":[]}`)}, "platform_collaterals"},
		{"an unknown member", [][]byte{[]byte(`{"pck":""}`)}, "unknown"},
	} {
		if _, err := dialect.Collateral(tt.files...); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want an error with %q", tt.name, err, tt.want)
		}
	}
}

// TestBytesOfCollateral changes each form in many places: what is still accepted has the very documents that were signed.
func TestBytesOfCollateral(t *testing.T) {
	m := attesttest.NewTDX(now, 4, false)
	e := m.Build()
	quote, err := tdx.Parse(e.Quote)
	if err != nil {
		t.Fatal(err)
	}
	options := tdx.Options{Facts: new(check.Facts)}
	for name, files := range forms(t, m, e.Collateral) {
		for i, file := range files {
			for at := range file {
				if (at+i)%17 != 0 || runtime.GOOS == "js" && at%13 != 0 {
					continue // a set is judged for each: one byte of seventeen, spread over names, values and encodings
				}
				changed := slices.Clone(files)
				changed[i] = bytes.Clone(file)
				changed[i][at] ^= 1 << (at % 7)
				sets, err := dialect.Collateral(changed...)
				if err != nil {
					continue
				}
				c, err := dialect.Pick(sets, quote, e.Root)
				if err != nil {
					continue
				}
				if _, err := tdx.Verify(e.Quote, c, options, now, e.Root); err != nil {
					continue
				}
				for _, same := range [][2][]byte{{c.TCBInfo, e.Collateral.TCBInfo}, {c.QEIdentity, e.Collateral.QEIdentity}} {
					if !bytes.Equal(same[0], same[1]) {
						t.Fatalf("%s: file %d, byte %d: accepted with another document", name, i, at)
					}
				}
			}
		}
	}
}

func FuzzCollateral(f *testing.F) {
	m := attesttest.NewTDX(now, 4, false)
	c := m.Build().Collateral
	for _, files := range forms(f, m, c) {
		if _, err := dialect.Collateral(files...); err != nil {
			f.Fatal(err)
		}
		f.Add(files[0])
	}
	pieces := answers(c)
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, files := range [][][]byte{{b}, {b, pieces[1], pieces[2], pieces[3]}} {
			sets, err := dialect.Collateral(files...)
			if err == nil && len(sets) == 0 {
				t.Error("no error, and no set")
			}
			for _, set := range sets {
				if set == nil {
					t.Error("no set where one is said to be")
				}
			}
		}
	})
}
