package collateral

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"chrysalis/attest/attesttest"
	"chrysalis/attest/check"
	"chrysalis/attest/sevsnp"
	"chrysalis/attest/tdx"
)

var start = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// world is a TDX machine, an SEV-SNP guest, and the vendors' services for both. A test changes what they publish and builds anew.
type world struct {
	*Fetcher
	requests atomic.Int64
	clock    time.Time

	tdx      *attesttest.TDX
	tdxBuilt *attesttest.TDXEvidence
	snp      *attesttest.SNP
	snpBuilt sevsnp.Evidence
	hook     func(w http.ResponseWriter, r *http.Request) bool // answers first, where it does
}

func newWorld(t *testing.T, hook func(w http.ResponseWriter, r *http.Request) bool) *world {
	t.Helper()
	w := &world{clock: start, tdx: attesttest.NewTDX(start, 5, true),
		snp: attesttest.NewSNP(sevsnp.Milan, sevsnp.SignerVCEK, start), hook: hook}
	w.build()
	server := httptest.NewServer(http.HandlerFunc(w.serve))
	t.Cleanup(server.Close)
	w.Fetcher = &Fetcher{
		Sources: Sources{IntelPCS: server.URL, IntelCerts: server.URL, AMDKDS: server.URL}, Wait: func(ctx context.Context, _ time.Duration) error { return ctx.Err() },
		Now: func() time.Time { return w.clock }, IntelRoot: w.tdxBuilt.Root, AMDRoots: []*x509.Certificate{w.snp.Root()},
	}
	return w
}

// build has the vendors publish what the machines' fields say now.
func (w *world) build() { w.tdxBuilt, w.snpBuilt = w.tdx.Build(), w.snp.Evidence() }

// serve answers as Intel's and AMD's services do.
func (w *world) serve(out http.ResponseWriter, r *http.Request) {
	w.requests.Add(1)
	if w.hook != nil && w.hook(out, r) {
		return
	}
	if attesttest.IntelService(out, r, w.tdxBuilt.Collateral) {
		return
	}
	e := w.snpBuilt
	switch r.URL.Path {
	case "/vcek/v1/Milan/cert_chain":
		for _, der := range e.Chain {
			pem.Encode(out, &pem.Block{Type: "CERTIFICATE", Bytes: der})
		}
	case "/vcek/v1/Milan/crl", "/vlek/v1/Milan/crl":
		out.Write(e.CRL)
	default:
		if strings.HasPrefix(r.URL.Path, "/vcek/v1/Milan/") {
			out.Write(e.Certificate)
			return
		}
		http.NotFound(out, r)
	}
}

func (w *world) quote(t *testing.T) *tdx.Quote {
	t.Helper()
	q, err := tdx.Parse(w.tdxBuilt.Quote)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// judge fetches collateral and has the quote judged with it.
func (w *world) judge(t *testing.T) error {
	t.Helper()
	c, err := w.TDX(t.Context(), w.quote(t))
	if err != nil {
		return err
	}
	_, err = tdx.Verify(w.tdxBuilt.Quote, c, tdx.Options{}, w.clock, w.tdxBuilt.Root)
	return err
}

func TestTDX(t *testing.T) {
	var asked []string
	w := newWorld(t, func(_ http.ResponseWriter, r *http.Request) bool {
		asked = append(asked, r.URL.RequestURI())
		return false
	})
	got, err := w.TDX(t.Context(), w.quote(t))
	if err != nil {
		t.Fatal(err)
	}
	if want := w.tdxBuilt.Collateral; !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want the service's exact bytes, %+v", got, want)
	}
	want := []string{"/tdx/certification/v4/tcb?fmspc=50806f000000", "/tdx/certification/v4/qe/identity",
		"/sgx/certification/v4/pckcrl?encoding=der&ca=platform", "/IntelSGXRootCA.der"}
	if !slices.Equal(asked, want) {
		t.Errorf("asked for %q, want %q", asked, want)
	}
	encoded, err := got.Encode()
	if err != nil {
		t.Fatal(err)
	}
	again, err := tdx.ParseCollateral(encoded)
	if err != nil || !reflect.DeepEqual(again, got) {
		t.Errorf("encoded and parsed: got %+v (%v)", again, err)
	}
}

func TestSNP(t *testing.T) {
	var asked []string
	w := newWorld(t, func(_ http.ResponseWriter, r *http.Request) bool {
		asked = append(asked, r.URL.RequestURI())
		return false
	})
	report, err := sevsnp.Parse(w.snpBuilt.Report)
	if err != nil {
		t.Fatal(err)
	}
	got, err := w.SNP(t.Context(), report, sevsnp.Milan)
	if err != nil {
		t.Fatal(err)
	}
	if want := (&SNP{w.snpBuilt.Certificate, w.snpBuilt.Chain, w.snpBuilt.CRL}); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want the service's exact bytes", got)
	}
	if want := fmt.Sprintf("/vcek/v1/Milan/%x?blSPL=04&teeSPL=01&snpSPL=22&ucodeSPL=213", report.ChipID); !slices.Contains(asked, want) {
		t.Errorf("asked for %q, want %s among them", asked, want)
	}
}

// TestFailures has the service fail in every way. Each is check.ErrUnavailable.
func TestFailures(t *testing.T) {
	status := func(code int) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(code); return true }
	}
	for _, tt := range []struct {
		name     string
		hook     func(http.ResponseWriter, *http.Request) bool
		want     string
		requests int64
	}{
		{"not found", status(http.StatusNotFound), "404", 1},
		{"always busy", status(http.StatusTooManyRequests), "4 attempts", 4},
		{"broken", status(http.StatusInternalServerError), "4 attempts", 4},
		{"redirect to nowhere", func(w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, r.URL.Path, http.StatusFound)
			return true
		}, "redirects", 40},
		{"no chain", func(w http.ResponseWriter, _ *http.Request) bool { w.Write([]byte("{}")); return true }, "TCB-Info-Issuer-Chain", 1},
		{"empty body", func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("TCB-Info-Issuer-Chain", "x")
			return true
		}, "0 bytes", 1},
		{"endless body", func(w http.ResponseWriter, _ *http.Request) bool {
			for range maxBodyBytes/1024 + 1 {
				w.Write(make([]byte, 1024))
			}
			return true
		}, "want 1 to", 1},
		{"cut in the middle", func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Content-Length", "100")
			w.Write([]byte("short"))
			return true
		}, "4 attempts", 4},
		{"not JSON", func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("TCB-Info-Issuer-Chain", "x")
			w.Header().Set("SGX-Enclave-Identity-Issuer-Chain", "x")
			w.Header().Set("SGX-PCK-CRL-Issuer-Chain", "x")
			w.Write([]byte("<html>"))
			return true
		}, "not what was asked for", 4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newWorld(t, tt.hook)
			_, err := f.TDX(t.Context(), f.quote(t))
			if !errors.Is(err, check.ErrUnavailable) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want one of class unavailable that says %q", err, tt.want)
			}
			if got := f.requests.Load(); got != tt.requests {
				t.Errorf("got %d requests, want %d", got, tt.requests)
			}
		})
	}
}

// TestSilence: a service where nobody speaks is given up after Reach, and asked once.
func TestSilence(t *testing.T) {
	mute, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	f := newWorld(t, nil)
	f.Sources.IntelPCS, f.Client, f.Reach = "https://"+mute.Addr().String(), nil, 50*time.Millisecond
	f.Wait = func(context.Context, time.Duration) error { t.Error("asked again"); return nil }
	_, err = f.TDX(t.Context(), f.quote(t))
	if want := "nothing came from the service in 50ms"; !errors.Is(err, check.ErrUnavailable) || !strings.Contains(err.Error(), want) {
		t.Errorf("got error %v, want one of class unavailable with %q", err, want)
	}
}

// TestRetryAfter: the service says how long to wait, and is then asked again.
func TestRetryAfter(t *testing.T) {
	var waits []time.Duration
	busy := true
	f := newWorld(t, func(w http.ResponseWriter, _ *http.Request) bool {
		if busy {
			busy = false
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(http.StatusTooManyRequests)
			return true
		}
		return false
	})
	f.Wait = func(_ context.Context, d time.Duration) error { waits = append(waits, d); return nil }
	if _, err := f.TDX(t.Context(), f.quote(t)); err != nil {
		t.Fatal(err)
	}
	if want := []time.Duration{7 * time.Second}; !slices.Equal(waits, want) {
		t.Errorf("waited %v, want %v", waits, want)
	}
}

func TestCache(t *testing.T) {
	f := newWorld(t, nil)
	f.Cache, f.MaxAge = t.TempDir(), 2*time.Hour
	fetch := func(want int64) {
		t.Helper()
		before := f.requests.Load()
		if _, err := f.TDX(t.Context(), f.quote(t)); err != nil {
			t.Fatal(err)
		}
		if got := f.requests.Load() - before; got != want {
			t.Errorf("got %d requests, want %d", got, want)
		}
	}
	fetch(4)
	fetch(0)
	f.clock = f.clock.Add(2*time.Hour + time.Second) // too old
	fetch(4)
	f.clock = f.clock.Add(-time.Hour) // from the future
	fetch(4)
	files, err := filepath.Glob(filepath.Join(f.Cache, "*.json"))
	if err != nil || len(files) != 4 {
		t.Fatalf("cache holds %q (%v), want 4 files", files, err)
	}
	if err := os.WriteFile(files[0], []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	fetch(1)
}

// TestCacheHoldsNothingLongerThanItHolds: a document that has ended is asked for again, however young its copy.
func TestCacheHoldsNothingLongerThanItHolds(t *testing.T) {
	w := newWorld(t, nil)
	w.Cache = t.TempDir()
	publish := func(issued, next time.Time) {
		w.tdx.TCBInfo.IssueDate, w.tdx.TCBInfo.NextUpdate = issued, next
		w.tdxBuilt.Collateral.TCBInfo = w.tdx.Build().Collateral.TCBInfo // everything else is as it was
		w.tdx.Resign(w.tdxBuilt.Collateral)
	}
	publish(start.Add(-time.Hour), start.Add(time.Hour))
	if err := w.judge(t); err != nil {
		t.Fatal(err)
	}
	w.clock = start.Add(2 * time.Hour)
	publish(start.Add(30*time.Minute), start.Add(20*time.Hour)) // the service has a newer document now
	before := w.requests.Load()
	if err := w.judge(t); err != nil {
		t.Errorf("after a document ended: got %v, want the newer one to be accepted", err)
	}
	if got := w.requests.Load() - before; got != 1 {
		t.Errorf("after one document ended: got %d requests, want 1", got)
	}
}

// TestWrongAnswerIsNotKept: what a portal answers in a service's place is asked for again at once, and never kept.
func TestWrongAnswerIsNotKept(t *testing.T) {
	other := newWorld(t, nil)
	other.tdx.TCBInfo.Evaluation++
	other.build()
	for name, wrong := range map[string]func(w *world, out http.ResponseWriter, r *http.Request) bool{
		"a page": func(_ *world, out http.ResponseWriter, _ *http.Request) bool {
			for _, header := range []string{"TCB-Info-Issuer-Chain", "SGX-Enclave-Identity-Issuer-Chain", "SGX-PCK-CRL-Issuer-Chain"} {
				out.Header().Set(header, "x")
			}
			out.Write([]byte("<html>sign in</html>"))
			return true
		},
		"documents that another root's signer signed": func(_ *world, out http.ResponseWriter, r *http.Request) bool {
			other.serve(out, r)
			return true
		},
		"a revocation list cut short": func(w *world, out http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, ".der") {
				return false
			}
			out.Write(w.tdxBuilt.Collateral.RootCACRL[:40])
			return true
		},
		"a changed byte": func(w *world, out http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, "/tcb") {
				return false
			}
			c := w.tdxBuilt.Collateral
			out.Header().Set("TCB-Info-Issuer-Chain", url.PathEscape(string(c.TCBInfoIssuerChain)))
			fmt.Fprintf(out, `{"tcbInfo":%s,"signature":"%x"}`, bytes.Replace(c.TCBInfo, []byte("UpToDate"), []byte("Revoked "),
				1), c.TCBInfoSignature)
			return true
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			w.Cache = t.TempDir()
			w.hook = func(out http.ResponseWriter, r *http.Request) bool { return wrong(w, out, r) }
			if err := w.judge(t); !errors.Is(err, check.ErrUnavailable) || !strings.Contains(err.Error(), "not what was asked for") {
				t.Errorf("got %v, want unavailable: the answer is not what was asked for", err)
			}
			w.hook = nil
			if err := w.judge(t); err != nil {
				t.Errorf("once the service is itself again: got %v, want the machine accepted", err)
			}
			// One wrong answer among right ones costs one request.
			fresh := newWorld(t, nil)
			once := true
			fresh.hook = func(out http.ResponseWriter, r *http.Request) bool {
				if once && wrong(fresh, out, r) {
					once = false
					return true
				}
				return false
			}
			if err := fresh.judge(t); err != nil || fresh.requests.Load() != 5 {
				t.Errorf("one wrong answer: got %v after %d requests, want the machine accepted after 5", err, fresh.requests.Load())
			}
		})
	}
}

// TestWrongAnswerOfAMD is the same for certificates and revocation list.
func TestWrongAnswerOfAMD(t *testing.T) {
	w := newWorld(t, nil)
	w.Cache = t.TempDir()
	report, err := sevsnp.Parse(w.snpBuilt.Report)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"cert_chain", "crl", fmt.Sprintf("%x", report.ChipID)} {
		w.hook = func(out http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, path) {
				return false
			}
			out.Write([]byte("<html>sign in</html>"))
			return true
		}
		if _, err := w.SNP(t.Context(), report, sevsnp.Milan); !errors.Is(err, check.ErrUnavailable) {
			t.Errorf("%s: got %v, want unavailable", path, err)
		}
		w.hook = nil
		if _, err := w.SNP(t.Context(), report, sevsnp.Milan); err != nil {
			t.Errorf("%s, once the service is itself again: got %v", path, err)
		}
		w.Cache = t.TempDir()
	}
}

func TestCancel(t *testing.T) {
	f := newWorld(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.TDX(ctx, f.quote(t)); !errors.Is(err, check.ErrUnavailable) {
		t.Errorf("got error %v, want unavailable", err)
	}
}

// TestCacheThatCanNotBeWritten: what can't be kept is not had.
func TestCacheThatCanNotBeWritten(t *testing.T) {
	f := newWorld(t, nil)
	f.Cache = filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(f.Cache, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := f.TDX(t.Context(), f.quote(t)); !errors.Is(err, check.ErrUnavailable) {
		t.Errorf("got %v, want it to be unavailable", err)
	}
}

// tcbInfo has white space and an order of its own: the signed bytes must come through as they are.
const tcbInfo = `{"version": 3,  "id":"TDX"}`

func FuzzSigned(f *testing.F) {
	signature := strings.Repeat("ab", 64)
	seed := []byte(`{"tcbInfo":` + tcbInfo + `,"signature":"` + signature + `"}`)
	if body, _, err := signed(seed, "tcbInfo"); err != nil || string(body) != tcbInfo {
		f.Fatalf("got %q and %v, want %q", body, err, tcbInfo)
	}
	f.Add(seed)
	f.Add([]byte(`{"signature":"` + signature + `","enclaveIdentity":{}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		body, _, err := signed(b, "tcbInfo")
		if err == nil && (len(body) == 0 || !bytes.Contains(b, body)) {
			t.Errorf("%q: the signed bytes %q are not in it", b, body)
		}
	})
}
