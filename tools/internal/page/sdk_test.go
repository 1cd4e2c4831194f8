package page

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"chrysalis/attest/evidence"
	"chrysalis/runtime/client/clienttest"
	"chrysalis/runtime/envelope"
	"chrysalis/tools/internal/packages"
	"chrysalis/tools/internal/page/pagetest"
)

// TestSDK has the SDK ask software guests of each platform, streamed and whole, through OpenAI's and Vercel's SDKs too, and gives it what
// a hostile network gives.
func TestSDK(t *testing.T) {
	dir := clients(t)
	withSDK(t, dir)
	type good struct {
		URL, Policy, Platform string
		Roots                 map[string]string
		Charges               bool
		List, ListAfter       string
	}
	type bad struct {
		Name, URL, Policy, Want string
		Roots                   map[string]string
		Connects                bool // it is at the answer that something goes wrong
		List, ListAfter         string
	}
	input := struct {
		Good  []good
		Bad   []bad
		Payer string
	}{Payer: payer.String()}
	guests := map[evidence.Platform]*clienttest.Guest{}
	var fronts []*front
	for _, platform := range evidence.Platforms() {
		g := guestOn(t, platform, platform != evidence.SEVSNP)
		g.Proof = func(target string) string { return target }
		guests[platform] = g
		f := newFront(t, g)
		fronts = append(fronts, f)
		input.Good = append(input.Good, good{URL: f.url, Policy: policyOf(t, g), Platform: platform.String(), Roots: rootsOf(g), Charges: platform != evidence.SEVSNP})
	}
	g := guests[evidence.VTPM]
	spoiled := func(name, want string, connects bool, spoil func(w http.ResponseWriter, r *http.Request, forward func(...func(string, []byte) []byte)) bool) {
		f := newFront(t, g)
		f.spoil = spoil
		input.Bad = append(input.Bad, bad{Name: name, URL: f.url, Policy: policyOf(t, g), Want: want, Roots: rootsOf(g), Connects: connects})
	}
	var elsewhere []byte
	for _, tt := range []struct {
		name, want string
		evidence   bool
		does       func(w http.ResponseWriter, r *http.Request, forward func(...func(string, []byte) []byte))
	}{
		{"an unsealed 200", "unavailable", false, func(w http.ResponseWriter, _ *http.Request, _ func(...func(string, []byte) []byte)) {
			fmt.Fprint(w, `{"choices":[{"message":{"role":"assistant","content":"Bergen"}}]}`)
		}},
		{"an unsealed 500", "unavailable", false, func(w http.ResponseWriter, _ *http.Request, _ func(...func(string, []byte) []byte)) {
			w.WriteHeader(500)
		}},
		{"a redirect", "unavailable", false, func(w http.ResponseWriter, r *http.Request, _ func(...func(string, []byte) []byte)) {
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusTemporaryRedirect)
		}},
		{"a type that lies", "unavailable", false, func(w http.ResponseWriter, _ *http.Request, _ func(...func(string, []byte) []byte)) {
			w.Header().Set("Content-Type", envelope.ResponseType)
			fmt.Fprint(w, strings.Repeat("x", 30))
		}},
		{"forged bytes", "rejected", false, func(w http.ResponseWriter, _ *http.Request, _ func(...func(string, []byte) []byte)) {
			w.Header().Set("Content-Type", envelope.ResponseType)
			w.Write(append(append(make([]byte, 32), 0x41, 0x10), make([]byte, 512)...))
		}},
		{"a bit changed", "rejected", false, func(_ http.ResponseWriter, _ *http.Request, forward func(...func(string, []byte) []byte)) {
			forward(func(_ string, b []byte) []byte { b[50] ^= 1; return b })
		}},
		{"cut", "unavailable", false, func(_ http.ResponseWriter, _ *http.Request, forward func(...func(string, []byte) []byte)) {
			forward(func(_ string, b []byte) []byte { return b[:len(b)-10] })
		}},
		{"another request's answer", "rejected", false, func(_ http.ResponseWriter, _ *http.Request, forward func(...func(string, []byte) []byte)) {
			forward(func(_ string, b []byte) []byte {
				if elsewhere == nil {
					elsewhere = bytes.Clone(b)
					b[40] ^= 1
					return b
				}
				return elsewhere
			})
		}},
		{"always another key", "unavailable", false, func(w http.ResponseWriter, _ *http.Request, _ func(...func(string, []byte) []byte)) {
			clienttest.Rekey(w)
		}},
		{"stale evidence", "rejected", true, func(_ http.ResponseWriter, r *http.Request, forward func(...func(string, []byte) []byte)) {
			r.URL.RawQuery = evidence.DetachedParameter + "=" + strings.Repeat("01", 32)
			forward()
		}},
		{"evidence of a connection", "rejected", true, func(_ http.ResponseWriter, r *http.Request, forward func(...func(string, []byte) []byte)) {
			r.URL.RawQuery = strings.Replace(r.URL.RawQuery, evidence.DetachedParameter, evidence.NonceParameter, 1)
			forward()
		}},
		{"a byte more", "rejected", true, func(_ http.ResponseWriter, _ *http.Request, forward func(...func(string, []byte) []byte)) {
			forward(func(_ string, b []byte) []byte { return append(b, 0) })
		}},
		{"a byte less", "rejected", true, func(_ http.ResponseWriter, _ *http.Request, forward func(...func(string, []byte) []byte)) {
			forward(func(_ string, b []byte) []byte { return b[:len(b)-1] })
		}},
		{"no evidence", "unavailable", true, func(w http.ResponseWriter, _ *http.Request, _ func(...func(string, []byte) []byte)) {
			w.WriteHeader(503)
		}},
		{"evidence without end", "unavailable", true, func(w http.ResponseWriter, _ *http.Request, _ func(...func(string, []byte) []byte)) {
			for range 80 {
				if _, err := w.Write(make([]byte, 64<<10)); err != nil {
					return
				}
			}
		}},
		{"evidence that redirects", "unavailable", true, func(w http.ResponseWriter, r *http.Request, _ func(...func(string, []byte) []byte)) {
			http.Redirect(w, r, fronts[0].url+r.URL.RequestURI(), http.StatusFound)
		}},
	} {
		spoiled(tt.name, tt.want, !tt.evidence, func(w http.ResponseWriter, r *http.Request, forward func(...func(string, []byte) []byte)) bool {
			if answersTo(r) == tt.evidence {
				return false
			}
			tt.does(w, r, forward)
			return true
		})
	}
	refused := func(name, policy, list, after string, roots map[string]string) {
		input.Bad = append(input.Bad, bad{Name: name, URL: fronts[0].url, Policy: policy, Want: "rejected", Roots: roots, List: list, ListAfter: after})
	}
	// Who accepts another guest accepts not this one, and neither does who accepts nothing.
	refused("another platform's policy", policyOf(t, guests[evidence.TDX]), "", "", rootsOf(g))
	refused("no root", policyOf(t, g), "", "", map[string]string{})
	refused("an empty policy", "{}", "", "", rootsOf(g))
	// A list of releases counts when enough stand for it, while it is new, and not after a newer one.
	hourAgo := time.Now().Add(-time.Hour).UTC().Truncate(time.Second)
	policy, list := listed(t, g, hourAgo, 2)
	input.Good = append(input.Good, good{URL: fronts[0].url, Policy: policy, Platform: "vtpm", Roots: rootsOf(g), Charges: true, List: list, ListAfter: hourAgo.Format(time.RFC3339)})
	_, byOne := listed(t, g, hourAgo, 1)
	refused("a list that one of three signed", policy, byOne, "", rootsOf(g))
	_, old := listed(t, g, hourAgo.Add(-168*time.Hour), 2)
	refused("an old list", policy, old, "", rootsOf(g))
	refused("a list before one that was seen", policy, list, hourAgo.Add(time.Minute).Format(time.RFC3339), rootsOf(g))
	refused("a list with a byte changed", policy, strings.Replace(list, "A", "B", 1), "", rootsOf(g))
	before := len(g.Prompts())
	pagetest.Node(t, dir, "sdk.mjs", input)

	for _, f := range fronts {
		for i, seen := range f.requests() {
			if !strings.HasPrefix(seen, "GET /v1/evidence ") && (!strings.HasPrefix(seen, "POST ") || !strings.HasSuffix(seen, " "+envelope.RequestType)) {
				t.Errorf("something else than a question and envelopes went out: %s", seen)
			}
			if strings.Contains(seen, "?") {
				t.Errorf("a query went out around the envelope: %s", seen)
			}
			for name := range f.heads[i] {
				if lower := strings.ToLower(name); strings.Contains(lower, "stainless") || lower == "cookie" || lower == "authorization" || lower == "chrysalis-client" {
					t.Errorf("the header %s went out around the envelope", name)
				}
			}
		}
	}
	if got := len(g.Prompts()) - before; got < 4 {
		t.Errorf("the guest got %d prompts, want at least 4", got)
	}
	if !slices.ContainsFunc(fronts[0].requests(), func(s string) bool { return strings.HasPrefix(s, "POST /v1/models ") }) {
		t.Error("no envelope for the models came, though a method other than POST was meant")
	}
}

// TestTypes compiles a program in TypeScript over the SDK's types.
func TestTypes(t *testing.T) {
	dir := clients(t)
	withSDK(t, dir)
	pagetest.Node(t, dir, "types.mjs", nil)
}

// TestBuiltTwice: the same sources make the same program, package and page, also where Go has nothing in its cache.
func TestBuiltTwice(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles everything anew")
	}
	first := program(t)
	t.Setenv("GOCACHE", t.TempDir())
	second, err := Build(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	if first.SHA256 != second.SHA256 || !bytes.Equal(first.Packed, second.Packed) {
		t.Errorf("built twice, the programs are %s and %s", first.SHA256, second.SHA256)
	}
	var tarballs, pages [2][]byte
	for i, p := range []*Program{first, second} {
		files, err := SDK(p, root, "1.0.0")
		if err != nil {
			t.Fatal(err)
		}
		if tarballs[i], err = packages.Tarball(files); err != nil {
			t.Fatal(err)
		}
		if pages[i], err = HTML(p, root, Settings{}); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(tarballs[0], tarballs[1]) || !bytes.Equal(pages[0], pages[1]) {
		t.Error("made of programs that were built twice, packages or pages differ")
	}
	if _, err := SDK(first, root, "0~20260101"); err == nil {
		t.Error("a version that npm does not take is packed")
	}
}
