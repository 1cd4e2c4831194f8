package page

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"chrysalis/attest"
	"chrysalis/attest/attesttest"
	"chrysalis/attest/evidence"
	"chrysalis/attest/release"
	"chrysalis/attest/sevsnp"
	"chrysalis/measure/config"
	"chrysalis/measure/pubkey"
	"chrysalis/measure/register"
	"chrysalis/measure/ton"
	"chrysalis/runtime/api"
	"chrysalis/runtime/client/clienttest"
	"chrysalis/runtime/envelope"
	"chrysalis/tools/internal/page/pagetest"
)

// root is the house's folder.
const root = "../../.."

var built = sync.OnceValues(func() (*Program, error) { return Build(context.Background(), root) })

func program(t testing.TB) *Program {
	t.Helper()
	p, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

var payer = ton.Address{Account: [32]byte{0xc1, 0x1e, 0x47}}

// guestOn starts a software guest.
func guestOn(t testing.TB, platform evidence.Platform, charges bool) *clienttest.Guest {
	t.Helper()
	var change []func(*config.Measured)
	if !charges {
		change = append(change, clienttest.Free)
	}
	raw, now := clienttest.Measured(t, change...), time.Now()
	var guest *clienttest.Guest
	switch platform {
	case evidence.TDX:
		g := attesttest.NewTDXGuest(raw, now)
		guest = clienttest.On(t, g, &g.Contents)
	case evidence.SEVSNP:
		g := attesttest.NewSNPGuest(raw, sevsnp.Genoa, now)
		guest = clienttest.On(t, g, &g.Contents)
	default:
		guest = clienttest.New(t, raw)
	}
	guest.Spoil = func(_ []byte, r *clienttest.Reply) {
		r.Events = func(events []string) []string {
			return slices.Insert(events, len(events)-2, `data: {"choices":[{"delta":{},"finish_reason":"stop"}]}`)
		}
	}
	return guest
}

// rootsOf are the guest's roots in the names of JavaScript.
func rootsOf(g *clienttest.Guest) map[string]string {
	text := func(c *x509.Certificate) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	}
	switch on := g.Hardware.(type) {
	case *attesttest.Guest:
		return map[string]string{"vtpm": text(on.Root)}
	case *attesttest.TDXGuest:
		return map[string]string{"tdx": text(on.Roots().TDX)}
	default:
		return map[string]string{"sevsnp": text(g.Roots().SEVSNP[0])}
	}
}

func policyOf(t testing.TB, g *clienttest.Guest, change ...func(*attest.Rules)) string {
	t.Helper()
	rules := g.Rules()
	for _, c := range change {
		c(&rules)
	}
	text, err := json.Marshal(rules)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// releaseKeys are the keys of three who sign lists of releases, and of two who rebuild.
var releaseKeys = func() (all []ed25519.PrivateKey) {
	for i := range 5 {
		all = append(all, ed25519.NewKeyFromSeed(bytes.Repeat([]byte{byte(i + 1)}, ed25519.SeedSize)))
	}
	return all
}()

// listed are a policy that takes a guest's releases from a list that two of three signed and one of two rebuilt, and such a list, by as many signers as are named.
func listed(t testing.TB, g *clienttest.Guest, issued time.Time, signers int) (policy, list string) {
	t.Helper()
	manifest := register.Digest{7}
	rebuild, err := release.SignRebuild(manifest, "somebody", issued.UTC().Truncate(time.Second), releaseKeys[3])
	if err != nil {
		t.Fatal(err)
	}
	document := release.NewDocument(issued, 30*24*time.Hour)
	policy = policyOf(t, g, func(r *attest.Rules) {
		for _, v := range r.Releases {
			document.Releases = append(document.Releases, release.Listed{Manifest: manifest, Values: v, Rebuilds: []release.Envelope{}})
		}
		r.Releases = nil
		r.ReleaseList = attest.ListRules{Threshold: 2, MaxAge: "168h", RebuildThreshold: 1}
		for i, key := range releaseKeys {
			if of := &r.ReleaseList.Signers; i < 3 {
				*of = append(*of, pubkey.Of(key))
			} else {
				r.ReleaseList.Rebuilders = append(r.ReleaseList.Rebuilders, pubkey.Of(key))
			}
		}
	})
	if err := document.AddRebuild(rebuild); err != nil {
		t.Fatal(err)
	}
	signed, err := release.EncodeList(document)
	for _, key := range releaseKeys[:signers] {
		if err == nil {
			signed, err = release.SignList(signed, key)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return policy, string(signed)
}

// front is somebody who ends TLS in front of a guest, and does with what passes what a test says. It lets pages of any origin in, as guests do.
type front struct {
	url string
	// spoil may answer in the guest's place, and reports whether it did. Nil never does.
	spoil func(w http.ResponseWriter, r *http.Request, forward func(change ...func(path string, body []byte) []byte)) bool

	mu    sync.Mutex
	seen  []string // method, path, type and length of what came
	heads []http.Header
}

func newFront(t testing.TB, g *clienttest.Guest) *front {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	t.Cleanup(transport.CloseIdleConnections)
	f := &front{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Access-Control-Allow-Origin", "*")
		if r.Method == http.MethodOptions {
			h.Set("Access-Control-Allow-Methods", "GET, POST")
			h.Set("Access-Control-Allow-Headers", "Content-Type, "+envelope.KeyHeader)
			h.Set("Access-Control-Allow-Private-Network", "true")
			w.WriteHeader(http.StatusNoContent)
			return
		}
		f.mu.Lock()
		target := r.URL.Path
		if r.Method != http.MethodGet { // a question's query is its nonce
			target = r.RequestURI
		}
		f.seen = append(f.seen, r.Method+" "+target+" "+r.Header.Get("Content-Type"))
		f.heads = append(f.heads, r.Header.Clone())
		f.mu.Unlock()
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		forward := func(change ...func(string, []byte) []byte) {
			out, err := http.NewRequestWithContext(r.Context(), r.Method, g.URL+r.URL.RequestURI(), bytes.NewReader(body))
			if err != nil {
				t.Error(err)
				return
			}
			for _, name := range []string{"Content-Type", envelope.KeyHeader} {
				if v := r.Header.Get(name); v != "" {
					out.Header.Set(name, v)
				}
			}
			response, err := transport.RoundTrip(out)
			if err != nil {
				return // the client has gone
			}
			defer response.Body.Close()
			h.Set("Content-Type", response.Header.Get("Content-Type"))
			w.WriteHeader(response.StatusCode)
			if len(change) > 0 {
				all, err := io.ReadAll(response.Body)
				if err != nil {
					t.Error(err)
				}
				for _, c := range change {
					all = c(r.URL.Path, all)
				}
				_, _ = w.Write(all) // the client may be gone
				return
			}
			buffer := make([]byte, 4096)
			for {
				n, err := response.Body.Read(buffer)
				if _, wrote := w.Write(buffer[:n]); wrote != nil || http.NewResponseController(w).Flush() != nil || err != nil {
					return
				}
			}
		}
		if f.spoil == nil || !f.spoil(w, r, forward) {
			forward()
		}
	}))
	t.Cleanup(server.Close)
	f.url = server.URL
	return f
}

// requests returns what came.
func (f *front) requests() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string{}, f.seen...)
}

// installed is the folder of other people's libraries, which every test of a run shares.
var installed struct {
	sync.Once
	dir, skip string
}

func TestMain(m *testing.M) {
	_ = os.Getenv("CHRYSALIS_SOURCES") // make sets it, so that what Go caches of these tests is of the sources of other modules, too
	code := m.Run()
	os.RemoveAll(installed.dir)
	os.Exit(code)
}

// clients installs other people's libraries, at the versions of their lock file, and returns their folder.
func clients(t testing.TB) string {
	t.Helper()
	installed.Do(func() {
		dir, err := os.MkdirTemp("", "page-clients-")
		if err != nil {
			t.Fatal(err)
		}
		installed.dir, installed.skip = dir, pagetest.Install(root, dir)
	})
	if installed.skip != "" {
		t.Skip(installed.skip)
	}
	return installed.dir
}

// withSDK installs the SDK's package as npm would unpack it.
func withSDK(t testing.TB, dir string) {
	t.Helper()
	files, err := SDK(program(t), root, "0.0.0")
	if err != nil {
		t.Fatal(err)
	}
	pagetest.Write(t, filepath.Join(dir, "node_modules", "chrysalis-sdk"), files)
}

// answersTo reports whether a request asks for an answer.
func answersTo(r *http.Request) bool { return r.URL.Path == api.ChatCompletions }
