package page

import (
	"os"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"chrysalis/attest/evidence"
	"chrysalis/tools/internal/page/pagetest"
)

// TestBench prints what the page and the SDK weigh and how long they take, lowest of several, beside what they should.
func TestBench(t *testing.T) {
	if os.Getenv("CHRYSALIS_BENCH") == "" {
		t.Skip("set CHRYSALIS_BENCH to measure: make bench does")
	}
	dir := clients(t)
	withSDK(t, dir)
	files := t.TempDir()
	b := pagetest.Chromium(t, root, files)
	g := guestOn(t, evidence.TDX, true)
	f := newFront(t, g)
	html := htmlOf(t, settingsOf(t, g, f.url))
	said := pagetest.Node(t, dir, "bench.mjs", struct {
		DevTools, URL, Guest, Policy, Payer string
		Roots                               map[string]string
	}{b.DevTools, pagetest.Save(t, files, "bench.html", html), f.url, policyOf(t, g), payer.String(), rootsOf(g)})
	var ms struct{ Cold, Again, Longest, Seal float64 }
	if err := json.Unmarshal([]byte(strings.TrimSuffix(said, "passed\n")), &ms, json.MatchCaseInsensitiveNames(true)); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		what      string
		got, want float64
		unit      string
	}{
		{"the page", float64(len(html)) / 1e6, 3.6, "MB"}, {"its program, packed", float64(len(program(t).Packed)) / 1e6, 1.9, "MB"},
		{"a TD accepted in Chromium, from nothing", ms.Cold, 2500, "ms"}, {"its evidence judged again, in Node", ms.Again, 60, "ms"},
		{"longest task on the page's own thread", ms.Longest, 50, "ms"}, {"2 kB sealed, in Node", ms.Seal, 5, "ms"},
	} {
		met := "met"
		if row.got > row.want {
			met = "MISSED"
		}
		t.Logf("%-42s %8.2f %s, want at most %g: %s", row.what, row.got, row.unit, row.want, met)
	}
}
