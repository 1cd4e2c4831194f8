package lock

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var hello = Package{Name: "hello", Version: "1", Archive: Debian, Filename: "pool/hello.deb", Size: 5,
	SHA256: sha256.Sum256([]byte("hello"))}

func server(t *testing.T, handler http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	return s.URL
}

func serving(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, body) }
}

func fetchHello(t *testing.T, p Places) error {
	t.Helper()
	if p.Cache == "" {
		p.Cache = t.TempDir()
	}
	var done int64
	err := p.Fetch(t.Context(), http.DefaultClient, Lock{Packages: []Package{hello}}, func(n int64) { done += n })
	got, readErr := os.ReadFile(p.Cached(hello))
	switch {
	case err == nil && (string(got) != "hello" || done != 5):
		t.Errorf("fetched: got %q (%v) and %d bytes told, want the package", got, readErr, done)
	case err != nil && readErr == nil && string(got) == "hello":
		t.Errorf("refused with %v, but the package is in the cache", err)
	}
	return err
}

func TestFetchRefusesWrongBytes(t *testing.T) {
	for _, tt := range []struct {
		name    string
		handler http.HandlerFunc
		want    string
	}{
		{"wrong bytes", serving("hallo"), "sha256"},
		{"short", serving("hell"), "4 bytes, want 5"},
		{"cut off", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "5")
			io.WriteString(w, "hel")
		}, "unexpected EOF"},
		{"oversize", serving("hello and more"), "more than 5 bytes"},
		{"endless", func(w http.ResponseWriter, r *http.Request) {
			for {
				if _, err := w.Write(make([]byte, 1<<16)); err != nil {
					return
				}
			}
		}, "more than 5 bytes"},
		{"404", http.NotFound, "status 404, want 200"},
		{"empty 204", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNoContent) }, "status 204, want 200"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			base := server(t, tt.handler)
			err := fetchHello(t, Places{Mirrors: map[string][]string{Debian: {base}}})
			var missing *MissingError
			if !errors.As(err, &missing) {
				t.Fatalf("got error %v, want a MissingError", err)
			}
			for _, part := range []string{tt.want, "hello 1", base + "/pool/hello.deb"} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("got error %q, want %q in it", err, part)
				}
			}
		})
	}
}

func TestFetchTakesWhoeverHasTheBytes(t *testing.T) {
	store := t.TempDir()
	if err := os.WriteFile(filepath.Join(store, fmt.Sprintf("%x", hello.SHA256)), []byte("hello"), 0o644); err != nil {
		t.Fatal(err)
	}
	good, bad := server(t, serving("hello")), server(t, serving("hallo"))
	for _, tt := range []struct {
		name   string
		places Places
	}{
		{"mirror", Places{Mirrors: map[string][]string{Debian: {good}}}},
		{"second mirror after a wrong one", Places{Mirrors: map[string][]string{Debian: {bad, good}}}},
		{"security mirror", Places{Mirrors: map[string][]string{Debian: {bad}, Security: {good}}}},
		{"snapshot service", Places{Mirrors: map[string][]string{Debian: {bad}}, Snapshot: good}},
		{"store on the network", Places{Store: good, Mirrors: map[string][]string{Debian: {bad}}}},
		{"store on the network, no mirror", Places{Store: good + "/"}},
		{"store, no mirror", Places{Store: store}},
		{"mirror after an empty store", Places{Store: t.TempDir(), Mirrors: map[string][]string{Debian: {good}}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := fetchHello(t, tt.places); err != nil {
				t.Errorf("got error %v, want the package", err)
			}
		})
	}
}

func TestFetchAsksNobodyForACachedPackage(t *testing.T) {
	var asked atomic.Int32
	base := server(t, func(w http.ResponseWriter, r *http.Request) { asked.Add(1); io.WriteString(w, "hello") })
	p := Places{Cache: t.TempDir(), Mirrors: map[string][]string{Debian: {base}}}
	for range 2 {
		if err := fetchHello(t, p); err != nil {
			t.Fatal(err)
		}
	}
	if got := asked.Load(); got != 1 {
		t.Errorf("the mirror was asked %d times, want 1", got)
	}
	// A file of the right name with other bytes is no package.
	if err := os.WriteFile(p.Cached(hello), []byte("hallo"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := fetchHello(t, p); err != nil {
		t.Fatal(err)
	}
	if got := asked.Load(); got != 2 {
		t.Errorf("with a damaged cache the mirror was asked %d times, want 2", got)
	}
}

// TestFetchOrder asks everybody for a package that nobody has: once each, in the order that is written down.
func TestFetchOrder(t *testing.T) {
	var mu sync.Mutex
	var asked []string
	nobody := func(name string) string {
		return server(t, func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			asked = append(asked, name+" "+r.URL.Path)
			http.NotFound(w, r)
		})
	}
	p := Places{Cache: t.TempDir(), Store: nobody("store"), Snapshot: nobody("snapshot"),
		Mirrors: map[string][]string{Debian: {nobody("mirror") + "/debian"}, Security: {nobody("security") + "/debian-security"}}}
	date := time.Date(2026, 9, 12, 7, 55, 41, 0, time.UTC)
	l := Lock{Packages: []Package{hello}, Releases: []Release{{Archive: Debian, Date: date}, {Archive: Security, Date: date.Add(time.Hour)}}}
	err := p.Fetch(t.Context(), http.DefaultClient, l, func(int64) {})
	var missing *MissingError
	if !errors.As(err, &missing) {
		t.Fatalf("got error %v, want a MissingError", err)
	}
	hash := fmt.Sprintf("%x", hello.SHA256)
	want := []string{"mirror /debian/pool/hello.deb", "security /debian-security/pool/hello.deb", "store /" + hash,
		"snapshot /archive/debian/20260912T075541Z/pool/hello.deb"}
	if !slices.Equal(asked, want) {
		t.Errorf("asked %q, want %q", asked, want)
	}
	var places []string
	for _, a := range missing.Missing[0].Attempts {
		places = append(places, a.Place)
		if !strings.Contains(err.Error(), a.Place) {
			t.Errorf("the error does not name %s: %v", a.Place, err)
		}
	}
	if len(places) != 5 || places[0] != p.Cached(hello) {
		t.Errorf("places tried: got %q, want the cache and the four that were asked", places)
	}
}

func TestFetchRepeatsAfterAFault(t *testing.T) {
	var asked atomic.Int32
	base := server(t, func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) < tries {
			panic(http.ErrAbortHandler)
		}
		io.WriteString(w, "hello")
	})
	if err := fetchHello(t, Places{Mirrors: map[string][]string{Debian: {base}}}); err != nil {
		t.Errorf("got error %v, want the package at try %d", err, tries)
	}
}

func TestFetchWithoutAnyPlace(t *testing.T) {
	if err := fetchHello(t, Places{}); !errors.Is(err, ErrNoMirror) {
		t.Errorf("got error %v, want %v", err, ErrNoMirror)
	}
}

func TestFetchStops(t *testing.T) {
	base := server(t, serving("hello"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	p := Places{Cache: t.TempDir(), Mirrors: map[string][]string{Debian: {base}}}
	if err := p.Fetch(ctx, http.DefaultClient, Lock{Packages: []Package{hello}}, func(int64) {}); !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v, want %v", err, context.Canceled)
	}
}

func TestExport(t *testing.T) {
	base := server(t, serving("hello"))
	p := Places{Cache: t.TempDir(), Mirrors: map[string][]string{Debian: {base}}}
	if err := fetchHello(t, p); err != nil {
		t.Fatal(err)
	}
	store := t.TempDir()
	if err := p.Export(Lock{Packages: []Package{hello}}, store); err != nil {
		t.Fatal(err)
	}
	if err := fetchHello(t, Places{Store: store}); err != nil {
		t.Errorf("fetching from an exported store: %v", err)
	}
}
