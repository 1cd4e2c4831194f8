package collateral

import (
	"bytes"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"chrysalis/attest/attesttest"
	"chrysalis/attest/check"
	"chrysalis/attest/evidence"
	"chrysalis/attest/sevsnp"
	"chrysalis/attest/tdx"
)

// pccs answers as a provisioning certificate caching service does: the root's list under an address of its own, lists in hexadecimal.
func (w *world) pccs(out http.ResponseWriter, r *http.Request) bool {
	c := w.tdxBuilt.Collateral
	switch r.URL.Path {
	case "/sgx/certification/v4/rootcacrl":
		out.Write([]byte(hex.EncodeToString(c.RootCACRL)))
		return true
	case "/sgx/certification/v4/pckcrl":
		out.Header().Set("SGX-PCK-CRL-Issuer-Chain", strings.ReplaceAll(string(c.PCKCRLIssuerChain), "\n", "%0A"))
		out.Write([]byte(strings.ToUpper(hex.EncodeToString(c.PCKCRL)) + "\n"))
		return true
	case "/IntelSGXRootCA.der":
		http.NotFound(out, r)
		return true
	}
	return false
}

func TestPCCS(t *testing.T) {
	var asked []string
	w := newWorld(t, nil)
	w.hook = func(out http.ResponseWriter, r *http.Request) bool {
		asked = append(asked, r.URL.RequestURI())
		return w.pccs(out, r)
	}
	w.Sources.PCCS, w.Sources.IntelPCS, w.Sources.IntelCerts = w.Sources.IntelPCS+"/", "http://127.0.0.1:1", "http://127.0.0.1:1"
	if err := w.judge(t); err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(asked, "/sgx/certification/v4/rootcacrl") {
		t.Errorf("asked for %q, want the root's list among them", asked)
	}
	w.Cache = t.TempDir()
	for range 2 {
		if err := w.judge(t); err != nil {
			t.Error(err)
		}
	}
	if len(asked) != 8 {
		t.Errorf("got %d requests, want 4 each without and with a cache, and none out of it", len(asked))
	}
}

func TestUpdate(t *testing.T) {
	for update, want := range map[string][]string{
		UpdateEarly:    {"/tdx/certification/v4/tcb?fmspc=50806f000000&update=early", "/tdx/certification/v4/qe/identity?update=early"},
		UpdateStandard: {"/tdx/certification/v4/tcb?fmspc=50806f000000&update=standard", "/tdx/certification/v4/qe/identity?update=standard"},
		"":             {"/tdx/certification/v4/tcb?fmspc=50806f000000", "/tdx/certification/v4/qe/identity"},
	} {
		var asked []string
		w := newWorld(t, func(_ http.ResponseWriter, r *http.Request) bool {
			asked = append(asked, r.URL.RequestURI())
			return false
		})
		w.Sources.Update = update
		if err := w.judge(t); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(asked[:2], want) {
			t.Errorf("update %q: asked for %q, want %q", update, asked[:2], want)
		}
	}
}

func TestEvaluation(t *testing.T) {
	w := newWorld(t, nil)
	if got, err := w.TDXEvaluation(t.Context()); err != nil || got != 17 {
		t.Errorf("got %d, %v, want 17", got, err)
	}
	for name, hook := range map[string]func(http.ResponseWriter, *http.Request) bool{
		"no service": func(out http.ResponseWriter, _ *http.Request) bool { out.WriteHeader(http.StatusNotFound); return true },
		"a page": func(out http.ResponseWriter, _ *http.Request) bool {
			out.Header().Set("SGX-Enclave-Identity-Issuer-Chain", "x")
			out.Write([]byte("<html>"))
			return true
		},
		"another root's": newWorld(t, nil).answer,
	} {
		w.hook = hook
		if got, err := w.TDXEvaluation(t.Context()); !errors.Is(err, check.ErrUnavailable) {
			t.Errorf("%s: got %d, %v, want it to be unavailable", name, got, err)
		}
	}
}

// answer answers in another service's place.
func (w *world) answer(out http.ResponseWriter, r *http.Request) bool { w.serve(out, r); return true }

// TestFolder reads a folder in the place of the services, of which none is there.
func TestFolder(t *testing.T) {
	w := newWorld(t, func(out http.ResponseWriter, _ *http.Request) bool { out.WriteHeader(http.StatusNotFound); return true })
	w.Folder = t.TempDir()
	write := func(name string, data []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(w.Folder, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	encode := func(c *tdx.Collateral) []byte {
		t.Helper()
		b, err := c.Encode()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	report, err := sevsnp.Parse(w.snpBuilt.Report)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range []*evidence.Evidence{w.td(), w.snpGuest()} {
		if err := w.Complete(t.Context(), e); !errors.Is(err, check.ErrUnavailable) {
			t.Errorf("an empty folder, %s: got %v, want it to be unavailable", e.Platform, err)
		}
	}
	// What is of another machine, or older, is there too.
	theirs := w.tdxBuilt.Collateral
	older := *theirs
	w.tdx.TCBInfo.IssueDate = start.Add(-2 * time.Hour)
	older.TCBInfo = w.tdx.Build().Collateral.TCBInfo
	w.tdx.Resign(&older)
	other := *theirs
	w.tdx.TCBInfo.FMSPC = "00906F000000"
	other.TCBInfo = w.tdx.Build().Collateral.TCBInfo
	w.tdx.Resign(&other)
	write("a.json", encode(&older))
	write("b.json", encode(theirs))
	write("c.json", encode(&other))
	stranger := attesttest.NewSNP(sevsnp.Milan, sevsnp.SignerVCEK, start)
	stranger.Endorsement["4"][0]++
	write("stranger.der", stranger.Evidence().Certificate)
	list := *w.snp.CRL
	list.ThisUpdate = list.ThisUpdate.Add(-time.Minute)
	old := *w.snp
	old.CRL = &list
	write("old.crl", old.Evidence().CRL)
	write("new.crl", pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: w.snpBuilt.CRL}))
	write("cert.der", w.snpBuilt.Certificate)
	write("chain.pem", slices.Concat(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: w.snpBuilt.Chain[1]}),
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: w.snpBuilt.Chain[0]})))
	if c, err := w.TDX(t.Context(), w.quote(t)); err != nil || !bytes.Equal(c.TCBInfo, theirs.TCBInfo) {
		t.Errorf("TDX: got %v, want the newest about the machine", err)
	}
	snp, err := w.SNP(t.Context(), report, sevsnp.Milan)
	if err != nil || !bytes.Equal(snp.Certificate, w.snpBuilt.Certificate) || !bytes.Equal(snp.CRL, w.snpBuilt.CRL) || len(snp.Chain) != 2 {
		t.Errorf("SEV-SNP: got %v, want the report's certificate and the newest list", err)
	}
	for _, e := range []*evidence.Evidence{w.td(), w.snpGuest()} {
		if err := w.Complete(t.Context(), e); err != nil || e.Collateral == nil {
			t.Errorf("%s: got %v, want it to be complete", e.Platform, err)
		}
	}
	if got, err := w.TDXEvaluation(t.Context()); err != nil || got != 17 {
		t.Errorf("evaluation: got %d, %v, want 17", got, err)
	}
	if got := w.requests.Load(); got != 0 {
		t.Errorf("got %d requests, want none", got)
	}
	for name, spoil := range map[string]func(){
		"a certificate of another chip alone": func() { write("cert.der", stranger.Evidence().Certificate) },
		"a large file":                        func() { write("large", make([]byte, 9<<20)) },
	} {
		spoil()
		if _, err := w.SNP(t.Context(), report, sevsnp.Milan); !errors.Is(err, check.ErrUnavailable) {
			t.Errorf("%s: got %v, want it to be unavailable", name, err)
		}
	}
	w.Folder = filepath.Join(w.Folder, "nowhere")
	if _, err := w.TDX(t.Context(), w.quote(t)); !errors.Is(err, check.ErrUnavailable) {
		t.Errorf("no folder: got %v, want it to be unavailable", err)
	}
}

// TestAgain: what was refused with collateral out of the cache is judged again with what the service has now, once.
func TestAgain(t *testing.T) {
	w := newWorld(t, nil)
	w.Cache = t.TempDir()
	ask := func(name string, e *evidence.Evidence, want bool, requests int64) {
		t.Helper()
		before := w.requests.Load()
		got, err := w.Again(t.Context(), e)
		if err != nil || got != want || w.requests.Load()-before != requests {
			t.Errorf("%s: got %t, %v and %d requests, want %t and %d", name, got, err, w.requests.Load()-before, want, requests)
		}
	}
	td, snp := w.td(), w.snpGuest()
	for _, e := range []*evidence.Evidence{td, snp} {
		ask("nothing in the cache", e, false, 0)
		if err := w.Complete(t.Context(), e); err != nil {
			t.Fatal(err)
		}
		ask("just fetched", e, false, 0)
	}
	// A recovery: the service says something else now. The copy is young and holds, and the machine is refused by it.
	w.clock = start.Add(10 * time.Minute)
	w.tdx.TCBInfo.IssueDate, w.tdx.TCBInfo.Evaluation = start, 18
	w.tdxBuilt.Collateral.TCBInfo = w.tdx.Build().Collateral.TCBInfo
	w.tdx.Resign(w.tdxBuilt.Collateral)
	judge := func() error {
		c, err := tdx.ParseCollateral(td.Collateral)
		if err != nil {
			t.Fatal(err)
		}
		// Both documents count: the identity's number is lifted by the test's own floor alone.
		_, err = tdx.Verify(td.Quote, c, tdx.Options{MaxCollateralAge: 65 * time.Minute}, w.clock, w.tdxBuilt.Root)
		return err
	}
	if err := judge(); err == nil || !strings.Contains(err.Error(), "-age") {
		t.Fatalf("got %v, want a refusal for its age", err)
	}
	w.tdx.QEIdentity.IssueDate, w.tdx.PCKCRL.Template.ThisUpdate = start, start
	built := w.tdx.Build().Collateral
	w.tdxBuilt.Collateral.QEIdentity = built.QEIdentity
	w.tdx.Resign(w.tdxBuilt.Collateral)
	w.tdxBuilt.Collateral.PCKCRL = built.PCKCRL
	ask("ten minutes old", td, true, 4)
	if err := judge(); err != nil {
		t.Errorf("with what the service has now: got %v, want it accepted", err)
	}
	ask("just fetched again", td, false, 0)
	ask("a list ten minutes old", snp, true, 1)
	w.hook = func(out http.ResponseWriter, _ *http.Request) bool { out.WriteHeader(http.StatusNotFound); return true }
	w.clock = start.Add(20 * time.Minute)
	kept := td.Collateral
	if again, err := w.Again(t.Context(), td); !bytes.Equal(td.Collateral, kept) {
		t.Errorf("no service: got %t, %v and other collateral, want it to stay", again, err)
	}
	for _, e := range []*evidence.Evidence{{Platform: evidence.VTPM}, {Platform: evidence.TDX}, {Platform: evidence.SEVSNP}} {
		ask("nothing to ask for", e, false, 0)
	}
}

// TestOverTime lets days go by on a machine whose service works on some of them, and fails in another way on each of the others.
func TestOverTime(t *testing.T) {
	w := newWorld(t, nil)
	w.Cache = t.TempDir()
	other := newWorld(t, nil)
	publish := func() {
		from, to := w.clock.Add(-time.Hour), w.clock.Add(30*24*time.Hour)
		for _, certified := range []*attesttest.Certified{w.tdx.Root, w.tdx.CA, w.tdx.PCK, w.tdx.Signer} {
			certified.Template.NotAfter = start.Add(1000 * 24 * time.Hour)
		}
		w.tdx.TCBInfo.IssueDate, w.tdx.TCBInfo.NextUpdate, w.tdx.QEIdentity.IssueDate, w.tdx.QEIdentity.NextUpdate = from, to, from, to
		for _, list := range []*attesttest.CRL{w.tdx.PCKCRL, w.tdx.RootCRL} {
			list.Template.ThisUpdate, list.Template.NextUpdate = from, to
		}
		w.build()
		w.IntelRoot = w.tdxBuilt.Root
	}
	publish()
	root := w.tdxBuilt.Root
	if err := w.judge(t); err != nil {
		t.Fatal(err)
	}
	first := *w.tdxBuilt.Collateral
	day := 24 * time.Hour
	for _, tt := range []struct {
		name     string
		after    time.Duration // since the first day
		hook     func(http.ResponseWriter, *http.Request) bool
		accepted bool
		asks     bool
	}{
		{"the service is down, and the cache young", 23 * time.Hour, gone, true, false},
		{"the service is down, and the cache old", 25 * time.Hour, gone, false, true},
		{"the service has what it had", 2 * day, nil, true, true},
		{"a portal", 4 * day, func(out http.ResponseWriter, _ *http.Request) bool { out.Write([]byte("<html>")); return true }, false, true},
		{"another root's documents", 5 * day, other.answer, false, true},
		{"busy", 6 * day, func(out http.ResponseWriter, _ *http.Request) bool { out.WriteHeader(429); return true }, false, true},
		{"the service is back", 6*day + time.Minute, nil, true, true},
		{"the documents' last moment", 30*day - time.Hour, nil, true, true},
		{"past nextUpdate, and the service has nothing newer", 30*day + time.Second, nil, false, true},
		{"past nextUpdate, and the service is down", 30*day + time.Hour, gone, false, true},
	} {
		w.clock, w.hook = start.Add(tt.after), tt.hook
		*w.tdxBuilt.Collateral = first
		before := w.requests.Load()
		err := w.judge(t)
		if (err == nil) != tt.accepted || (w.requests.Load() > before) != tt.asks {
			t.Errorf("%s: got %v after %d requests, want accepted: %t, and asked: %t", tt.name, err, w.requests.Load()-before, tt.accepted, tt.asks)
		}
	}
	// A new month: the service has new documents, and what has ended does not stand in their way.
	w.hook = nil
	publish()
	if bytes.Equal(root.Raw, w.tdxBuilt.Root.Raw) {
		t.Fatal("the root is made anew by each Build")
	}
	if err := w.judge(t); err != nil {
		t.Errorf("new documents: got %v, want them accepted", err)
	}
}

func gone(out http.ResponseWriter, _ *http.Request) bool {
	out.WriteHeader(http.StatusNotFound)
	return true
}

// TestCompleteBeside: a quote without a chain has it from the staple, whose other documents lose to the service's.
func TestCompleteBeside(t *testing.T) {
	w := newWorld(t, nil)
	w.tdx.Certification = tdx.Certification{Type: 3, Data: make([]byte, 404)}
	older := *w.tdxBuilt.Collateral
	w.tdx.TCBInfo.IssueDate = start.Add(-2 * time.Hour)
	older.TCBInfo = w.tdx.Build().Collateral.TCBInfo
	w.tdx.TCBInfo.IssueDate = start.Add(-time.Hour)
	w.build()
	older.TCBInfoIssuerChain, older.QEIdentityIssuerChain = w.tdxBuilt.Collateral.TCBInfoIssuerChain, w.tdxBuilt.Collateral.QEIdentityIssuerChain
	older.QEIdentity, older.PCKChain = w.tdxBuilt.Collateral.QEIdentity, w.tdx.PEM()
	w.tdx.Resign(&older)
	w.IntelRoot = w.tdxBuilt.Root
	e := w.td()
	if err := w.Complete(t.Context(), e); !errors.Is(err, check.ErrUnavailable) {
		t.Errorf("no staple: got %v, want it to be unavailable", err)
	}
	var err error
	if e.Collateral, err = older.Encode(); err != nil {
		t.Fatal(err)
	}
	if err := w.Complete(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	got, err := tdx.ParseCollateral(e.Collateral)
	if err != nil || !bytes.Equal(got.TCBInfo, w.tdxBuilt.Collateral.TCBInfo) || !bytes.Equal(got.PCKChain, older.PCKChain) {
		t.Errorf("got %v, want the service's documents and the staple's chain", err)
	}
	if _, err := tdx.Verify(e.Quote, got, tdx.Options{}, start, w.tdxBuilt.Root); err != nil {
		t.Error(err)
	}
}
