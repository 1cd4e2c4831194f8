package metrics

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"chrysalis/init/status"
	"chrysalis/runtime/numbers"
)

// full is a guest of which everything is known, each value another.
func full(t *testing.T) Guest {
	t.Helper()
	lines, err := status.ParseAll([]byte("event engine-up\nserving 7000\nevent engine-down\nevent quote-late\nevent engine-up\n"))
	if err != nil {
		t.Fatal(err)
	}
	g := Guest{Name: `a"b\c`, State: "serving", Model: "tiny", Serving: true, Lines: lines, Counted: true, Age: 1500 * time.Millisecond,
		Earned: &Earned{Claims: 3, Unproved: 1, Tokens: 60, Nanoton: 1200}}
	for n := range g.Numbers {
		g.Numbers[n] = uint64(1000 * (n + 1))
	}
	return g
}

// samples reads Prometheus' text format: of each metric its kind and its values by guest.
func samples(t *testing.T, text string) (kinds map[string]string, values map[string]map[string]float64) {
	t.Helper()
	kinds, values = map[string]string{}, map[string]map[string]float64{}
	sample := regexp.MustCompile(`^([a-z_]+)\{guest="((?:[^"\\]|\\.)*)"(?:,[a-z]+="(?:[^"\\]|\\.)*")*\} ([0-9.]+)$`)
	var last string
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if help, ok := strings.CutPrefix(line, "# HELP "); ok {
			last, _, _ = strings.Cut(help, " ")
			continue
		}
		if kind, ok := strings.CutPrefix(line, "# TYPE "+last+" "); ok {
			if kinds[last] != "" {
				t.Errorf("%s is described twice", last)
			}
			kinds[last] = kind
			continue
		}
		m := sample.FindStringSubmatch(line)
		if m == nil || m[1] != last {
			t.Fatalf("line %q is no sample of %s", line, last)
		}
		v, err := strconv.ParseFloat(m[3], 64)
		if err != nil || math.IsNaN(v) {
			t.Fatalf("line %q: %v", line, err)
		}
		if values[last] == nil {
			values[last] = map[string]float64{}
		}
		values[last][m[2]] = v
	}
	return kinds, values
}

// TestText: every metric of the table comes with its kind and its value, and what is not known of a guest is not said of it.
func TestText(t *testing.T) {
	g := full(t)
	kinds, values := samples(t, string(Text([]Guest{g, {Name: "off", State: "stopped"}})))
	all := All()
	if len(kinds) != len(all)+1 || kinds[infoName] != gauge || len(values[infoName]) != 2 {
		t.Errorf("got %d metrics, want the table's %d and %s", len(kinds), len(all), infoName)
	}
	name := `a\"b\\c`
	for _, m := range all {
		if kinds[m.Name] != m.Kind {
			t.Errorf("%s: kind is %q, want %q", m.Name, kinds[m.Name], m.Kind)
		}
		if _, said := values[m.Name][name]; !said {
			t.Errorf("%s is not said of a guest of which it is known", m.Name)
		}
		if _, said := values[m.Name]["off"]; said != (m.Name == prefix+"up") {
			t.Errorf("%s of a guest that is off: said: %t", m.Name, said)
		}
	}
	for metric, want := range map[string]float64{
		"up": 1, "engine_up": 1, "boot_seconds": 7, "engine_down_total": 1, "quotes_failed_total": 1, "numbers_age_seconds": 1.5, "claims": 3, "claims_unproved": 1,
		"first_token_seconds_total": float64(numbers.FirstToken + 1), "begun_total": 1000 * float64(numbers.Begun+1), "earned_tokens": 60, "earned_nanoton": 1200, "asked_total": 1000, "answered_total": 2000, "journal_bytes": 1000 * float64(numbers.JournalBytes+1),
		"key_ends_timestamp_seconds": 1000 * float64(numbers.KeyEnds+1),
	} {
		if got := values[prefix+metric][name]; got != want {
			t.Errorf("%s: got %v, want %v", metric, got, want)
		}
	}
	if got := values[prefix+"up"]["off"]; got != 0 {
		t.Errorf("a guest that is off is up: %v", got)
	}
}

// TestWanted: what whoever runs a guest looks at first is there, and METRICS.md says where.
func TestWanted(t *testing.T) {
	document, err := os.ReadFile("METRICS.md")
	if err != nil {
		t.Fatal(err)
	}
	_, values := samples(t, string(Text([]Guest{full(t)})))
	for _, wanted := range []string{"throughput", "time to first token", "queue", "tokens", "claims", "age of evidence"} {
		row := regexp.MustCompile(`(?m)^\| ` + wanted + ` \| (.*) \|$`).FindSubmatch(document)
		if row == nil {
			t.Errorf("METRICS.md does not say where to look for %s", wanted)
			continue
		}
		for _, name := range regexp.MustCompile(`chrysalis_[a-z_]+`).FindAllString(string(row[1]), -1) {
			if len(values[name]) != 1 {
				t.Errorf("%s: nobody exports %s", wanted, name)
			}
		}
	}
}

// TestAgree: port, exporter, board and document have the same metrics, each once.
func TestAgree(t *testing.T) {
	var names []string
	ofPort := 0
	for _, m := range All() {
		if names = append(names, m.Name); m.Port {
			ofPort++
		}
		if !regexp.MustCompile(`^chrysalis_[a-z_]+$`).MatchString(m.Name) || m.Help == "" || m.Unit == "" || (m.Kind == counter) != strings.HasSuffix(m.Name, "_total") {
			t.Errorf("%+v is not named or described as Prometheus wants it", m)
		}
	}
	if ofPort != int(numbers.Count) {
		t.Errorf("%d metrics are of the port, want all of its %d numbers", ofPort, numbers.Count)
	}
	if sorted := slices.Compact(slices.Sorted(slices.Values(names))); len(sorted) != len(names) {
		t.Errorf("a name stands twice in %q", names)
	}

	text, err := Board()
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &board); err != nil {
		t.Fatal(err)
	}
	shown := map[string]int{}
	for _, p := range board.Panels {
		for _, target := range p.Targets {
			for _, name := range regexp.MustCompile(`chrysalis_[a-z_]+`).FindAllString(target.Expr, -1) {
				shown[name]++
			}
		}
	}
	for _, name := range append(names, infoName) {
		if shown[name] != 1 {
			t.Errorf("the board shows %s %d times, want once", name, shown[name])
		}
		delete(shown, name)
	}
	if len(shown) > 0 {
		t.Errorf("the board shows %v, which nobody exports", shown)
	}

	document, err := os.ReadFile("METRICS.md")
	if err != nil {
		t.Fatal(err)
	}
	table := "| metric | kind | from | what it is |\n|---|---|---|---|\n" + fmt.Sprintf("| `%s` | %s | host | %s |\n", infoName, gauge, infoHelp)
	for _, m := range All() {
		from := "host"
		if m.Port {
			from = "guest"
		}
		table += fmt.Sprintf("| `%s` | %s | %s | %s |\n", m.Name, m.Kind, from, m.Help)
	}
	if !strings.Contains(string(document), table) {
		t.Errorf("METRICS.md lacks:\n%s", table)
	}
}
