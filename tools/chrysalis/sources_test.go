package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"chrysalis/attest"
	"chrysalis/attest/attesttest"
	"chrysalis/attest/sevsnp"
	"chrysalis/attest/tdx"
	"chrysalis/measure"
	"chrysalis/measure/config"
	"chrysalis/measure/register"
)

// desk is a folder of files, and a service of both vendors' beside it.
type desk struct {
	t       *testing.T
	dir     string
	service *httptest.Server
	down    bool
	now     time.Time
}

func newDesk(t *testing.T, machine *attesttest.TDXEvidence, snp sevsnp.Evidence) *desk {
	d := &desk{t: t, dir: t.TempDir(), now: time.Now().UTC().Truncate(time.Second)}
	d.service = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case d.down:
			http.NotFound(w, r)
		case r.URL.Path == "/sgx/certification/v4/rootcacrl":
			fmt.Fprintf(w, "%x", machine.Collateral.RootCACRL)
		case attesttest.IntelService(w, r, machine.Collateral):
		case r.URL.Path == "/vcek/v1/Milan/cert_chain":
			w.Write(d.pem(snp.Chain...))
		case r.URL.Path == "/vcek/v1/Milan/crl":
			w.Write(snp.CRL)
		case strings.HasPrefix(r.URL.Path, "/vcek/v1/Milan/"):
			w.Write(snp.Certificate)
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(d.service.Close)
	d.write("root.pem", d.pem(machine.Root.Raw))
	d.write("ark.pem", d.pem(snp.Chain[1]))
	d.write("quote", machine.Quote)
	d.write("report", snp.Report)
	return d
}

func (d *desk) pem(ders ...[]byte) (text []byte) {
	for _, der := range ders {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return text
}

func (d *desk) path(name string) string { return filepath.Join(d.dir, name) }

func (d *desk) write(name string, data []byte) {
	d.t.Helper()
	if err := os.MkdirAll(filepath.Dir(d.path(name)), 0o755); err != nil {
		d.t.Fatal(err)
	}
	if err := os.WriteFile(d.path(name), data, 0o644); err != nil {
		d.t.Fatal(err)
	}
}

// exits runs a verb, with names of files after @ replaced by their paths.
func (d *desk) exits(name string, want int, args ...string) {
	d.t.Helper()
	for i, arg := range args {
		if file, ok := strings.CutPrefix(arg, "@"); ok {
			args[i] = d.path(file)
		}
	}
	if got := run(args); got != want {
		d.t.Errorf("%s: got exit code %d, want %d", name, got, want)
	}
}

func TestSourcesTDX(t *testing.T) {
	m := attesttest.NewTDX(time.Now(), 4, false)
	e := m.Build()
	d := newDesk(t, e, attesttest.NewSNP(sevsnp.Milan, sevsnp.SignerVCEK, time.Now()).Evidence())
	c := e.Collateral
	encoded, err := c.Encode()
	if err != nil {
		t.Fatal(err)
	}
	d.write("set/one.json", encoded)
	answer := func(header string, chain, body []byte) []byte {
		return slices.Concat([]byte("HTTP/2 200 \r\n"+header+": "+url.PathEscape(string(chain))+"\r\n\r\n"), body)
	}
	d.write("tcb", answer("tcb-info-issuer-chain", c.TCBInfoIssuerChain, fmt.Appendf(nil, `{"tcbInfo":%s,"signature":"%x"}`, c.TCBInfo, c.TCBInfoSignature)))
	d.write("qe", answer("sgx-enclave-identity-issuer-chain", c.QEIdentityIssuerChain,
		fmt.Appendf(nil, `{"enclaveIdentity":%s,"signature":"%x"}`, c.QEIdentity, c.QEIdentitySignature)))
	d.write("pck", answer("sgx-pck-crl-issuer-chain", c.PCKCRLIssuerChain, c.PCKCRL))
	d.write("rootcrl", c.RootCACRL)
	appraise := func(more ...string) []string {
		return append([]string{"appraise", "tdx", "--quote", "@quote", "--root", "@root.pem", "--cache", "@cache"}, more...)
	}
	d.exits("fetched from Intel's", 0, appraise("--fetch", "--intel-pcs", d.service.URL, "--intel-certificates", d.service.URL)...)
	d.exits("fetched early", 0, appraise("--fetch", "--tcb-update", "early", "--intel-pcs", d.service.URL, "--intel-certificates", d.service.URL)...)
	d.exits("a PCCS", 0, appraise("--pccs", d.service.URL)...)
	d.exits("a folder", 0, appraise("--collateral-dir", "@set")...)
	at := []string{"--at", d.now.Format(time.RFC3339)}
	d.exits("answers with their headers", 0, appraise(append(at, "--collateral", "@tcb", "--collateral", "@qe", "--collateral", "@pck", "--collateral", "@rootcrl")...)...)
	d.exits("shown", 0, "collateral", "show", "@tcb", "@qe", "@pck", "@rootcrl")
	d.exits("shown, an answer missing", exitRejected, "collateral", "show", "@tcb", "@qe", "@pck")
	d.exits("an answer missing", exitRejected, appraise(append(at, "--collateral", "@tcb", "--collateral", "@qe", "--collateral", "@pck")...)...)
	d.exits("an update that is none", exitUsage, appraise("--fetch", "--tcb-update", "late")...)
	d.exits("a PCCS that is no URL", exitUsage, appraise("--pccs", "pccs:8081")...)
	d.exits("a file and a service", exitUsage, appraise("--fetch", "--collateral", "@set/one.json")...)
	d.exits("nothing", exitUsage, appraise(at...)...)
	d.exits("no time", exitUsage, appraise("--collateral", "@set/one.json")...)
	d.down = true
	d.exits("out of the cache", 0, appraise("--pccs", d.service.URL)...)
	d.exits("an empty folder", exitUnavailable, appraise("--collateral-dir", "@nowhere")...)

	// A quote without a chain.
	m.Certification = tdx.Certification{Type: 3, Data: make([]byte, 404)}
	d.write("quote", m.Quote())
	d.write("pck.pem", m.PEM())
	d.down = false
	fetch := []string{"collateral", "fetch", "--quote", "@quote", "--root", "@root.pem", "--pccs", d.service.URL, "-o", "@fetched.json"}
	d.exits("fetched without the chain", exitUnavailable, slices.Clone(fetch)...)
	d.exits("fetched with the chain", 0, append(slices.Clone(fetch), "--pck-chain", "@pck.pem")...)
	d.exits("fetched, chain and all", 0, appraise(append(at, "--collateral", "@fetched.json")...)...)
	d.down = true
	d.exits("no chain", exitUnavailable, appraise(append(at, "--collateral", "@set/one.json")...)...)
	d.exits("the chain beside", 0, appraise(append(at, "--collateral", "@set/one.json", "--pck-chain", "@pck.pem")...)...)
	d.exits("the chain among the files", 0, appraise(append(at, "--collateral", "@tcb", "--collateral", "@qe", "--collateral", "@pck",
		"--collateral", "@rootcrl", "--collateral", "@pck.pem")...)...)
	d.exits("the chain beside, and a folder", 0, appraise("--collateral-dir", "@set", "--pck-chain", "@pck.pem")...)

	// Azure's runtime data.
	runtime := []byte(`{"keys":[]}`)
	sum := sha256.Sum256(runtime)
	m.Certification, m.Body.ReportData = tdx.Certification{}, [64]byte{}
	copy(m.Body.ReportData[:], sum[:])
	d.write("azure", m.Quote())
	td := make([]byte, 1024)
	copy(td[128:], sum[:])
	d.write("hcl", hclReport(td, runtime, 4))
	d.write("quote", e.Quote)
	azure := func(quote string, more ...string) []string {
		return append([]string{"appraise", "tdx", "--quote", quote, "--root", "@root.pem", "--collateral", "@set/one.json"}, append(slices.Clone(at), more...)...)
	}
	d.exits("Azure's", 0, azure("@azure", "--hcl", "@hcl", "--json")...)
	d.exits("another quote", exitRejected, azure("@quote", "--hcl", "@hcl", "--json")...)
	d.exits("no HCL report", exitRejected, azure("@azure", "--hcl", "@quote")...)
	d.exits("an HCL report as quote", exitUsage, azure("@hcl")...)
}

func hclReport(report, runtime []byte, kind uint32) []byte {
	b := append([]byte("HCLA\x02\x00\x00\x00"), make([]byte, 24)...)
	b = append(append(b, report...), make([]byte, sevsnp.ReportSize-len(report))...)
	for _, n := range []uint32{uint32(20 + len(runtime)), 1, kind, 1, uint32(len(runtime))} {
		b = binary.LittleEndian.AppendUint32(b, n)
	}
	return append(b, runtime...)
}

func TestSourcesSNP(t *testing.T) {
	runtime := []byte(`{"keys":[]}`)
	sum := sha256.Sum256(runtime)
	s := attesttest.NewSNP(sevsnp.Milan, sevsnp.SignerVCEK, time.Now())
	s.Report.ReportData = [64]byte{}
	copy(s.Report.ReportData[:], sum[:])
	e := s.Evidence()
	d := newDesk(t, attesttest.NewTDX(time.Now(), 4, false).Build(), e)
	d.write("set/cert.der", e.Certificate)
	d.write("set/chain.pem", d.pem(e.Chain...))
	d.write("set/crl.der", e.CRL)
	thim, err := json.Marshal(map[string]string{"vcekCert": string(d.pem(e.Certificate)), "certificateChain": string(d.pem(e.Chain...))})
	if err != nil {
		t.Fatal(err)
	}
	d.write("thim.json", thim)
	d.write("hcl", append(hclReport(e.Report, runtime, 2), make([]byte, 64)...))
	td := make([]byte, 1024)
	copy(td[128:], sum[:])
	d.write("td", hclReport(td, runtime, 4))
	d.write("other", hclReport(e.Report, []byte(`{"keys":[1]}`), 2))
	var table, data []byte
	for i, entry := range []struct {
		guid string
		der  []byte
	}{{"63da758de6644564adc5f4b93be8accd", e.Certificate}, {"4ab7b379bbac4fe4a02f05aef327c782", e.Chain[0]}, {"c0b406a4a803495297433fb6014cd0ae", e.Chain[1]}} {
		id, err := hex.DecodeString(entry.guid)
		if err != nil {
			t.Fatal(i, err)
		}
		table = binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(append(table, id...), uint32(96+len(data))), uint32(len(entry.der)))
		data = append(data, entry.der...)
	}
	d.write("extended", slices.Concat(e.Report, table, make([]byte, 24), data))
	d.write("torn", slices.Concat(e.Report, table, make([]byte, 24), data[:100]))
	appraise := func(more ...string) []string {
		return append([]string{"appraise", "sev-snp", "--root", "@ark.pem", "--cache", "@cache"}, more...)
	}
	at := []string{"--at", d.now.Format(time.RFC3339)}
	d.exits("fetched", 0, appraise("--report", "@report", "--fetch", "--amd-kds", d.service.URL)...)
	d.exits("a folder", 0, appraise("--report", "@report", "--collateral-dir", "@set")...)
	d.exits("an empty folder", exitUnavailable, appraise("--report", "@report", "--collateral-dir", "@nowhere")...)
	d.exits("a table of certificates", 0, appraise(append(at, "--report", "@extended", "--crl", "@set/crl.der")...)...)
	d.exits("a torn table", exitRejected, appraise(append(at, "--report", "@torn", "--crl", "@set/crl.der", "--json")...)...)
	d.exits("Azure's certificates", 0, appraise(append(at, "--report", "@report", "--cert", "@thim.json", "--crl", "@set/crl.der")...)...)
	d.exits("Azure's report", 0, appraise(append(at, "--report", "@hcl", "--cert", "@thim.json", "--crl", "@set/crl.der", "--json")...)...)
	d.exits("other runtime data", exitRejected, appraise(append(at, "--report", "@other", "--cert", "@thim.json", "--crl", "@set/crl.der")...)...)
	d.exits("no certificate", exitUsage, appraise(append(at, "--report", "@report", "--crl", "@set/crl.der")...)...)
	d.exits("no chain", exitUsage, appraise(append(at, "--report", "@report", "--cert", "@set/cert.der", "--crl", "@set/crl.der")...)...)
	d.exits("a TD's", exitUsage, appraise(append(at, "--report", "@td", "--crl", "@set/crl.der")...)...)
	d.down = true
	d.exits("out of the cache", 0, appraise("--report", "@report", "--fetch", "--amd-kds", d.service.URL)...)
}

// TestRevocationListAgain: a list of the cache that refuses is asked for again, once, and not when it came just now.
func TestRevocationListAgain(t *testing.T) {
	now := time.Now()
	s := attesttest.NewSNP(sevsnp.Milan, sevsnp.SignerVCEK, now)
	lists := func(issued time.Time) []byte {
		s.CRL.ThisUpdate = issued
		return s.Evidence().CRL
	}
	old, young := lists(now.Add(-2*time.Hour)), lists(now.Add(-time.Minute))
	e := s.Evidence()
	served, asked, down := old, 0, false
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch d := (&desk{t: t}); {
		case down:
			http.NotFound(w, r)
		case r.URL.Path == "/vcek/v1/Milan/cert_chain":
			w.Write(d.pem(e.Chain...))
		case r.URL.Path == "/vcek/v1/Milan/crl":
			asked++
			w.Write(served)
		default:
			w.Write(e.Certificate)
		}
	}))
	defer service.Close()
	d := &desk{t: t, dir: t.TempDir()}
	d.write("ark.pem", d.pem(e.Chain[1]))
	d.write("report", e.Report)
	judge := func(name string, want, requests int, more ...string) {
		t.Helper()
		before := asked
		d.exits(name, want, append([]string{"appraise", "sev-snp", "--root", "@ark.pem", "--cache", "@cache", "--report", "@report", "--fetch",
			"--amd-kds", service.URL}, more...)...)
		if got := asked - before; got != requests {
			t.Errorf("%s: asked %d times for the list, want %d", name, got, requests)
		}
	}
	judge("no age", 0, 1)
	judge("too old, and fetched just now", exitRejected, 0, "--max-crl-age", "1h")
	age := func() {
		t.Helper()
		files, err := filepath.Glob(d.path("cache/*.json"))
		if err != nil || len(files) == 0 {
			t.Fatalf("got %v and %v, want files in the cache", files, err)
		}
		for _, file := range files {
			var answer map[string]any
			data, err := os.ReadFile(file)
			if err == nil {
				err = json.Unmarshal(data, &answer)
			}
			if err != nil {
				t.Fatal(err)
			}
			answer["fetched"] = time.Now().Add(-10 * time.Minute)
			if data, err = json.Marshal(answer); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	age()
	judge("a list of the cache that is good enough", 0, 0)
	judge("the service has none that is newer", exitRejected, 1, "--max-crl-age", "1h")
	age()
	served = young
	judge("the service has a newer one", 0, 1, "--max-crl-age", "1h")
	judge("which was kept", 0, 0, "--max-crl-age", "1h")
	age()
	judge("refused for something else", exitRejected, 0, "--min-tcb", "Milan=bootloader:4,tee:1,snp:255,microcode:213")
	down = true
	judge("no service", exitRejected, 0, "--max-crl-age", "1s")
}

// TestPolicyFloor: a policy for TDX has today's evaluation number, or somebody gave another.
func TestPolicyFloor(t *testing.T) {
	e := attesttest.NewTDX(time.Now(), 4, false).Build()
	d := newDesk(t, e, attesttest.NewSNP(sevsnp.Milan, sevsnp.SignerVCEK, time.Now()).Evidence())
	encoded, err := e.Collateral.Encode()
	if err != nil {
		t.Fatal(err)
	}
	d.write("set/one.json", encoded)
	d.write("broken.json", bytes.Replace(encoded, []byte(`tcbEvaluationDataNumber\":17`), []byte(`tcbEvaluationDataNumber\":99`), 1))
	digest := strings.Repeat("ab", 48)
	d.write("tdx.json", []byte(`{"mrtd":"`+digest+`","rtmr0":"`+digest+`","rtmr1":"`+digest+`","rtmr2":"`+digest+`"}`))
	for _, tt := range []struct {
		name  string
		set   func(f *valueFlags)
		want  uint32
		exits int // 0: accepted
	}{
		{"fetched", func(f *valueFlags) { f.sources.sources.IntelPCS = d.service.URL }, 17, 0},
		{"a PCCS", func(f *valueFlags) { f.sources.sources.PCCS = d.service.URL }, 17, 0},
		{"a folder", func(f *valueFlags) { f.sources.folder = d.path("set") }, 17, 0},
		{"a file", func(f *valueFlags) { f.collateral = []string{d.path("set/one.json")} }, 17, 0},
		{"a file that nobody signed", func(f *valueFlags) { f.collateral = []string{d.path("broken.json")} }, 0, exitUsage},
		{"a file under another root", func(f *valueFlags) { f.collateral, f.root = []string{d.path("set/one.json")}, "" }, 0, exitUsage},
		{"given", func(f *valueFlags) { f.minEvaluation = "18" }, 18, 0},
		{"none", func(f *valueFlags) { f.minEvaluation = "0" }, 0, 0},
		{"no number", func(f *valueFlags) { f.minEvaluation = "-1" }, 0, exitUsage},
		{"offline", func(f *valueFlags) { f.sources.sources.IntelPCS = d.service.URL + "/nothing" }, 0, exitUnavailable},
	} {
		values := register.PCRs{}
		for _, n := range []uint8{0, 2, 3, 4, 5, 7, 8, 9, 11, 12} {
			values[n] = register.Digest{n}
		}
		rules := strictRules(measure.Manifest{Profile: "cpu", SecurityVersion: 1, PCRs: values}, config.Measured{})
		flags := valueFlags{tdx: []string{d.path("tdx.json")}, maxCollateralAge: "168h", root: d.path("root.pem")}
		flags.sources.cache = filepath.Join(t.TempDir(), "cache")
		tt.set(&flags)
		err := flags.apply(t.Context(), &rules)
		if err == nil {
			_, err = rules.Policy()
		}
		var exit exitError
		switch {
		case tt.exits == 0 && (err != nil || rules.TDX.MinTCBEvaluation != tt.want):
			t.Errorf("%s: got %d, %v, want %d", tt.name, rules.TDX.MinTCBEvaluation, err, tt.want)
		case tt.exits == exitUnavailable && (!errors.As(err, &exit) || exit.code != exitUnavailable || !strings.Contains(err.Error(), "--min-tcb-evaluation")):
			t.Errorf("%s: got %v, want it to be unavailable, and what to do", tt.name, err)
		case tt.exits != 0 && err == nil:
			t.Errorf("%s: got no error", tt.name)
		}
	}
	// Where nothing runs on TDX, nothing is asked for.
	rules := attest.Rules{}
	rules.Releases = append(rules.Releases, strictRules(measure.Manifest{}, config.Measured{}).Releases...)
	if err := (&valueFlags{}).apply(t.Context(), &rules); err != nil || rules.TDX.MinTCBEvaluation != 0 {
		t.Errorf("without TDX: got %v", err)
	}
}
