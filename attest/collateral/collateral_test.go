package collateral

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	sevdata "github.com/google/go-sev-guest/verify/testdata"
	tdxdata "github.com/google/go-tdx-guest/testing/testdata"

	"chrysalis/attest/check"
	"chrysalis/attest/sevsnp"
	"chrysalis/attest/tdx"
)

const chain = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"

// tcbInfo has white space and an order of its own: the signed bytes must come through as they are.
const tcbInfo = `{"version": 3,  "id":"TDX"}`

// service answers as Intel's and AMD's do. Each hook may answer first.
func service(t *testing.T, hook func(w http.ResponseWriter, r *http.Request) bool) (*Fetcher, *atomic.Int64) {
	t.Helper()
	var requests atomic.Int64
	signature := strings.Repeat("ab", 64)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		if hook != nil && hook(w, r) {
			return
		}
		issuers := url.PathEscape(chain)
		switch r.URL.Path {
		case "/tdx/certification/v4/tcb":
			w.Header().Set("TCB-Info-Issuer-Chain", issuers)
			w.Write([]byte(`{"tcbInfo":` + tcbInfo + `,"signature":"` + signature + `"}`))
		case "/tdx/certification/v4/qe/identity":
			w.Header().Set("SGX-Enclave-Identity-Issuer-Chain", issuers)
			w.Write([]byte(`{"enclaveIdentity":{"id":"TD_QE"},"signature":"` + signature + `"}`))
		case "/sgx/certification/v4/pckcrl":
			w.Header().Set("SGX-PCK-CRL-Issuer-Chain", issuers)
			w.Write([]byte("pck " + r.URL.Query().Get("ca")))
		case "/IntelSGXRootCA.der":
			w.Write([]byte("root"))
		case "/vcek/v1/Milan/cert_chain":
			for range 2 {
				pem.Encode(w, &pem.Block{Type: "CERTIFICATE", Bytes: []byte{1}})
			}
		case "/vcek/v1/Milan/crl":
			w.Write([]byte("crl"))
		default:
			if strings.HasPrefix(r.URL.Path, "/vcek/v1/Milan/") {
				w.Write([]byte("vcek " + r.URL.RawQuery))
				return
			}
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(server.Close)
	return &Fetcher{Sources: Sources{server.URL, server.URL, server.URL}, Wait: func(ctx context.Context, _ time.Duration) error { return ctx.Err() }}, &requests
}

func quote(t *testing.T) *tdx.Quote {
	t.Helper()
	raw := tdxdata.RawQuote
	if at := strings.Index(string(raw), "\nextra bytes"); at >= 0 { // the sample has text behind the quote
		raw = raw[:at]
	}
	q, err := tdx.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func TestTDX(t *testing.T) {
	var asked []string
	f, _ := service(t, func(_ http.ResponseWriter, r *http.Request) bool {
		asked = append(asked, r.URL.RequestURI())
		return false
	})
	got, err := f.TDX(t.Context(), quote(t))
	if err != nil {
		t.Fatal(err)
	}
	if string(got.TCBInfo) != tcbInfo || string(got.QEIdentity) != `{"id":"TD_QE"}` || string(got.TCBInfoIssuerChain) != chain || hex.EncodeToString(got.TCBInfoSignature[:2]) != "abab" {
		t.Errorf("got %+v, want the service's exact bytes", got)
	}
	want := []string{"/tdx/certification/v4/tcb?fmspc=50806f000000", "/tdx/certification/v4/qe/identity", "/sgx/certification/v4/pckcrl?encoding=der&ca=platform", "/IntelSGXRootCA.der"}
	if !slices.Equal(asked, want) {
		t.Errorf("asked for %q, want %q", asked, want)
	}
	encoded, err := got.Encode()
	if err != nil {
		t.Fatal(err)
	}
	again, err := tdx.ParseCollateral(encoded)
	if err != nil || string(again.TCBInfo) != tcbInfo || string(again.PCKCRL) != "pck platform" {
		t.Errorf("encoded and parsed: got %+v (%v)", again, err)
	}
}

func TestSNP(t *testing.T) {
	f, _ := service(t, nil)
	report, err := sevsnp.Parse(sevdata.AttestationBytes)
	if err != nil {
		t.Fatal(err)
	}
	got, err := f.SNP(t.Context(), report, sevsnp.Milan)
	if err != nil {
		t.Fatal(err)
	}
	if want := "vcek blSPL=02&teeSPL=00&snpSPL=05&ucodeSPL=68"; string(got.Certificate) != want || len(got.Chain) != 2 || string(got.CRL) != "crl" {
		t.Errorf("got certificate %q, %d in the chain, list %q; want %q, 2 and crl", got.Certificate, len(got.Chain), got.CRL, want)
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
		}, "reading TCB info", 4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, requests := service(t, tt.hook)
			_, err := f.TDX(t.Context(), quote(t))
			if !errors.Is(err, check.ErrUnavailable) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want one of class unavailable that says %q", err, tt.want)
			}
			if got := requests.Load(); got != tt.requests {
				t.Errorf("got %d requests, want %d", got, tt.requests)
			}
		})
	}
}

// TestRetryAfter: the service says how long to wait, and is then asked again.
func TestRetryAfter(t *testing.T) {
	var waits []time.Duration
	busy := true
	f, _ := service(t, func(w http.ResponseWriter, _ *http.Request) bool {
		if busy {
			busy = false
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(http.StatusTooManyRequests)
			return true
		}
		return false
	})
	f.Wait = func(_ context.Context, d time.Duration) error { waits = append(waits, d); return nil }
	if _, err := f.TDX(t.Context(), quote(t)); err != nil {
		t.Fatal(err)
	}
	if want := []time.Duration{7 * time.Second}; !slices.Equal(waits, want) {
		t.Errorf("waited %v, want %v", waits, want)
	}
}

func TestCache(t *testing.T) {
	f, requests := service(t, nil)
	f.Cache = t.TempDir()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	f.Now = func() time.Time { return now }
	fetch := func(want int64) {
		t.Helper()
		before := requests.Load()
		if _, err := f.TDX(t.Context(), quote(t)); err != nil {
			t.Fatal(err)
		}
		if got := requests.Load() - before; got != want {
			t.Errorf("got %d requests, want %d", got, want)
		}
	}
	fetch(4)
	fetch(0)
	now = now.Add(24*time.Hour + time.Second) // too old
	fetch(4)
	now = now.Add(-time.Hour) // from the future
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

func TestCancel(t *testing.T) {
	f, _ := service(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.TDX(ctx, quote(t)); !errors.Is(err, check.ErrUnavailable) {
		t.Errorf("got error %v, want unavailable", err)
	}
}

// TestCacheThatCanNotBeWritten: what can't be kept is not had.
func TestCacheThatCanNotBeWritten(t *testing.T) {
	f, _ := service(t, nil)
	f.Cache = filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(f.Cache, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	quote, err := tdx.Parse(tdxdata.RawQuoteV5)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.TDX(t.Context(), quote); !errors.Is(err, check.ErrUnavailable) {
		t.Errorf("got %v, want it to be unavailable", err)
	}
}

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
