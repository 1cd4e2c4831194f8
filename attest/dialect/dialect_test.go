package dialect_test

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-sev-guest/abi"

	"chrysalis/attest/attesttest"
	"chrysalis/attest/check"
	"chrysalis/attest/dialect"
	"chrysalis/attest/sevsnp"
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
				if (at+i)%17 != 0 {
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

// hcl is Azure's report around hardware's, with runtime data that binds.
func hcl(report, runtime []byte, kind uint32) []byte {
	b := append([]byte("HCLA"), make([]byte, 28)...)
	b[4] = 2
	b = append(b, report...)
	b = append(b, make([]byte, 32+sevsnp.ReportSize-len(b))...)
	for _, n := range []uint32{uint32(20 + len(runtime)), 1, kind, 1, uint32(len(runtime))} {
		b = binary.LittleEndian.AppendUint32(b, n)
	}
	return append(b, runtime...)
}

var runtimeData = []byte(`{"keys":[{"kid":"HCLAkPub","kty":"RSA","e":"AQAB","n":"00"}],"vm-configuration":{"secure-boot":true},"user-data":"00"}`)

func azureSNP() (*attesttest.SNP, []byte) {
	s := attesttest.NewSNP(sevsnp.Milan, sevsnp.SignerVCEK, now)
	sum := sha256.Sum256(runtimeData)
	s.Report.ReportData = [64]byte{}
	copy(s.Report.ReportData[:], sum[:])
	return s, append(hcl(s.Evidence().Report, runtimeData, 2), make([]byte, 100)...)
}

func tdReport() []byte {
	td := make([]byte, 1024)
	td[0] = 0x81
	sum := sha256.Sum256(runtimeData)
	copy(td[128:], sum[:])
	return td
}

func TestHCL(t *testing.T) {
	s, raw := azureSNP()
	h, err := dialect.ParseHCL(raw)
	if err != nil || h.TD != nil || !bytes.Equal(h.Runtime, runtimeData) {
		t.Fatalf("got %+v, %v", h, err)
	}
	e := s.Evidence()
	e.Report = h.SNP
	o := s.Options(sevsnp.Milan)
	o.ReportData = h.ReportData()
	if _, err := sevsnp.Verify(e, o, now, []*x509.Certificate{s.Root()}); err != nil {
		t.Error(err)
	}
	// Other runtime data is not what the report binds.
	other, err := dialect.ParseHCL(hcl(h.SNP, []byte(`{"keys":[]}`), 2))
	if err != nil {
		t.Fatal(err)
	}
	o.ReportData = other.ReportData()
	if _, err := sevsnp.Verify(e, o, now, []*x509.Certificate{s.Root()}); !errors.Is(err, check.ErrRejected) || !strings.Contains(err.Error(), "report-data") {
		t.Errorf("other runtime data: got %v, want a refusal by report-data", err)
	}
	if h, err = dialect.ParseHCL(hcl(tdReport(), runtimeData, 4)); err != nil || h.SNP != nil || len(h.TD) != 1024 {
		t.Errorf("a TD's: got %+v, %v", h, err)
	}
	edit := func(at int, value byte) []byte {
		b := bytes.Clone(raw)
		b[at] = value
		return b
	}
	const request = 32 + sevsnp.ReportSize
	for _, tt := range []struct {
		name string
		raw  []byte
		want string
	}{
		{"empty", nil, "0 bytes"},
		{"cut", raw[:1000], "1000 bytes"},
		{"another magic", edit(0, 'X'), "HCLA"},
		{"version", edit(4, 3), "version is 3"},
		{"type", edit(request+8, 3), "type 3"},
		{"hash", edit(request+12, 4), "hashed by 4"},
		{"no runtime data", hcl(h.SNP, nil, 2), "0 bytes"},
		{"runtime data past the end", edit(request+17, 1), "runtime data has"},
		{"runtime data too long", hcl(h.SNP, make([]byte, 33<<10), 2), "runtime data has"},
		{"something behind", append(bytes.Clone(raw), 1), "after the runtime data"},
		{"a TD's report of other data", hcl(tdReport(), []byte("{}"), 4), "report data of the TD's report"},
		{"something behind a TD's report", hcl(append(tdReport(), 1), runtimeData, 4), "after the TD's report"},
		{"too large", make([]byte, dialect.MaxFileBytes+1), "want at most"},
	} {
		if _, err := dialect.ParseHCL(tt.raw); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want an error with %q", tt.name, err, tt.want)
		}
	}
}

// TestEveryBitOfHCL: whatever bit is changed, what is accepted is the same report with the same runtime data.
func TestEveryBitOfHCL(t *testing.T) {
	s, raw := azureSNP()
	e := s.Evidence()
	report := raw[32 : 32+sevsnp.ReportSize]
	facts := new(check.Facts)
	for at := range raw {
		for bit := range 8 {
			if in := at - 32; in >= 0 && in < sevsnp.ReportSize && bit != at%8 {
				continue // package sevsnp flips each bit of a report
			}
			changed := bytes.Clone(raw)
			changed[at] ^= 1 << bit
			h, err := dialect.ParseHCL(changed)
			if err != nil {
				continue
			}
			e.Report = h.SNP
			o := s.Options(sevsnp.Milan)
			o.ReportData, o.Facts = h.ReportData(), facts
			if _, err := sevsnp.Verify(e, o, now, []*x509.Certificate{s.Root()}); err != nil {
				continue
			}
			if !bytes.Equal(h.SNP, report) || !bytes.Equal(h.Runtime, runtimeData) {
				t.Fatalf("bit %d of byte %d: accepted with another report or other runtime data", bit, at)
			}
		}
	}
}

// extended is a report with the table that go-sev-guest writes.
func extended(t testing.TB, e sevsnp.Evidence, leaf string) []byte {
	t.Helper()
	var table []byte
	offset := 4 * 24
	var data []byte
	for _, entry := range []struct {
		guid string
		der  []byte
	}{{leaf, e.Certificate}, {abi.AskGUID, e.Chain[0]}, {abi.ArkGUID, e.Chain[1]}} {
		id, err := hex.DecodeString(strings.ReplaceAll(entry.guid, "-", ""))
		if err != nil {
			t.Fatal(err)
		}
		table = append(table, id...)
		table = binary.LittleEndian.AppendUint32(table, uint32(offset+len(data)))
		table = binary.LittleEndian.AppendUint32(table, uint32(len(entry.der)))
		data = append(data, entry.der...)
	}
	table = append(append(table, make([]byte, 24)...), data...)
	// go-sev-guest reads what is written here.
	parsed := new(abi.CertTable)
	if err := parsed.Unmarshal(table); err != nil {
		t.Fatal(err)
	}
	if der, err := parsed.GetByGUIDString(leaf); err != nil || !bytes.Equal(der, e.Certificate) {
		t.Fatalf("go-sev-guest reads another certificate: %v", err)
	}
	return append(bytes.Clone(e.Report), table...)
}

func TestExtended(t *testing.T) {
	for signer, leaf := range map[sevsnp.Signer]string{sevsnp.SignerVCEK: abi.VcekGUID, sevsnp.SignerVLEK: abi.VlekGUID} {
		s := attesttest.NewSNP(sevsnp.Milan, signer, now)
		want := s.Evidence()
		raw := extended(t, want, leaf)
		x, err := dialect.ParseExtended(raw)
		if err != nil {
			t.Fatal(err)
		}
		e := sevsnp.Evidence{Report: x.Report, Certificate: x.Certificate, Chain: x.Chain, CRL: want.CRL}
		if _, err := sevsnp.Verify(e, s.Options(sevsnp.Milan), now, []*x509.Certificate{s.Root()}); err != nil {
			t.Errorf("%s: %v", signer, err)
		}
		facts := new(check.Facts)
		for at := sevsnp.ReportSize; at < len(raw); at += 7 {
			changed := bytes.Clone(raw)
			changed[at] ^= 1 << (at % 8)
			x, err := dialect.ParseExtended(changed)
			if err != nil {
				continue
			}
			e := sevsnp.Evidence{Report: x.Report, Certificate: x.Certificate, Chain: x.Chain, CRL: want.CRL}
			o := s.Options(sevsnp.Milan)
			o.Facts = facts
			if _, err := sevsnp.Verify(e, o, now, []*x509.Certificate{s.Root()}); err == nil &&
				(!bytes.Equal(x.Certificate, want.Certificate) || !bytes.Equal(x.Chain[0], want.Chain[0])) {
				t.Fatalf("byte %d: accepted with another certificate", at)
			}
		}
		table := raw[sevsnp.ReportSize:]
		twice := slices.Concat(raw[:sevsnp.ReportSize], table[:24], table[:24], make([]byte, 24), table)
		for name, tt := range map[string]struct {
			raw  []byte
			want string
		}{
			"a report alone": {want.Report, "want a report of"}, "no end": {slices.Concat(raw[:sevsnp.ReportSize], append([]byte{1}, make([]byte, 46)...)), "no end"},
			"twice": {twice, "twice"}, "past the end": {raw[:len(raw)-1], "want it within"},
		} {
			if _, err := dialect.ParseExtended(tt.raw); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: got %v, want an error with %q", name, err, tt.want)
			}
		}
	}
}

func TestTHIM(t *testing.T) {
	s := attesttest.NewSNP(sevsnp.Milan, sevsnp.SignerVCEK, now)
	e := s.Evidence()
	text := func(ders ...[]byte) (all string) {
		for _, der := range ders {
			all += string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
		}
		return all
	}
	answer := func(leaf, chain string) []byte {
		b, err := json.Marshal(map[string]string{"vcekCert": leaf, "certificateChain": chain, "tcbm": "DB18000000000004", "cacheControl": "86400"})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	got, err := dialect.ParseTHIM(answer(text(e.Certificate), text(e.Chain...)))
	if err != nil || !bytes.Equal(got.Certificate, e.Certificate) || len(got.Chain) != 2 {
		t.Fatalf("got %+v, %v", got, err)
	}
	for name, raw := range map[string][]byte{
		"no JSON": []byte("x"), "no VCEK": answer("", text(e.Chain...)), "two VCEKs": answer(text(e.Chain...), text(e.Chain...)),
		"no chain": answer(text(e.Certificate), ""), "text in the chain": answer(text(e.Certificate), text(e.Chain...)+"more"),
		"too large": make([]byte, dialect.MaxFileBytes+1),
	} {
		if _, err := dialect.ParseTHIM(raw); err == nil {
			t.Errorf("%s: got no error", name)
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

func FuzzHCL(f *testing.F) {
	_, raw := azureSNP()
	for _, seed := range [][]byte{raw, hcl(tdReport(), runtimeData, 4)} {
		if _, err := dialect.ParseHCL(seed); err != nil {
			f.Fatal(err)
		}
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := dialect.ParseHCL(b)
		if err == nil && (len(h.SNP)+len(h.TD) == 0 || !bytes.Contains(b, h.Runtime) || len(h.Runtime) == 0) {
			t.Errorf("got %+v of %x", h, b)
		}
	})
}

func FuzzExtended(f *testing.F) {
	raw := extended(f, attesttest.NewSNP(sevsnp.Milan, sevsnp.SignerVCEK, now).Evidence(), abi.VcekGUID)
	if _, err := dialect.ParseExtended(raw); err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, b []byte) {
		if e, err := dialect.ParseExtended(b); err == nil && (len(e.Report) != sevsnp.ReportSize || !bytes.Contains(b, e.Certificate)) {
			t.Errorf("got %+v of %x", e, b)
		}
	})
}

func FuzzTHIM(f *testing.F) {
	f.Add([]byte(`{"vcekCert":"","certificateChain":""}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if answer, err := dialect.ParseTHIM(b); err == nil && (len(answer.Certificate) == 0 || len(answer.Chain) == 0) {
			t.Errorf("%s: got %+v", b, answer)
		}
	})
}
