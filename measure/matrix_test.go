package measure

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	matrixRow = regexp.MustCompile(`^\| ([0-9.]+) \| ([0-9]+) \| ([0-9]+) \| ([0-9a-f]{16}) \| ([0-9a-f]{16}) \| ([0-9a-f]{16}) \|$`)
	movesRow  = regexp.MustCompile(`^\| ([A-Z0-9a-z][^|]*) \|((?: [× ] ?\|){9})$`)
)

// TestMatrixForm checks what can be known of the document without QEMU: each machine stands once, and registers move with
// the inputs that they can follow from. make test computes it anew.
func TestMatrixForm(t *testing.T) {
	text, err := os.ReadFile("MATRIX.md")
	if err != nil {
		t.Fatal(err)
	}
	type key struct{ version, memory, cpus string }
	rows := map[key][]string{}
	moves := map[string]string{}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		if m := matrixRow.FindStringSubmatch(line); m != nil {
			k := key{m[1], m[2], m[3]}
			if rows[k] != nil {
				t.Errorf("machine %v stands twice", k)
			}
			rows[k] = m[4:]
		} else if m := movesRow.FindStringSubmatch(line); m != nil {
			moves[m[1]] = strings.ReplaceAll(strings.ReplaceAll(m[2], " ", ""), "|", ",")
		}
	}
	values := map[string][]key{} // RTMR0 to machines
	launch := map[string]string{}
	var versions, memory, cpus []string
	for k, row := range rows {
		versions, memory, cpus = append(versions, k.version), append(memory, k.memory), append(cpus, k.cpus)
		values[row[1]] = append(values[row[1]], k)
		if was, ok := launch[k.cpus]; ok && was != row[2] {
			t.Errorf("launch digests of %s CPUs: got %s and %s, want one, for neither memory nor QEMU is in it", k.cpus, was, row[2])
		}
		launch[k.cpus] = row[2]
	}
	count := func(all []string) int { slices.Sort(all); return len(slices.Compact(all)) }
	if v, m, c := count(versions), count(memory), count(cpus); v != 2 || m < 3 || c < 3 || len(rows) != v*m*c {
		t.Errorf("%d machines of %d versions, %d memory sizes, %d CPU counts, want each together once", len(rows), v, m, c)
	}
	for value, machines := range values {
		if len(machines) != 1 {
			t.Errorf("RTMR0 %s is that of %v, want one machine each", value, machines)
		}
	}
	if !strings.Contains(string(text), fmt.Sprintf("tables of %d machines", len(rows))) {
		t.Errorf("the text does not say that there are %d machines", len(rows))
	}
	// PCR 0, PCR 1, PCR 4, PCR 9, MRTD, RTMR0, RTMR1, RTMR2, launch digest.
	for what, want := range map[string]string{
		"kernel": ",,×,,,,×,,×,", "initrd": ",,,×,,,,×,×,", "command line": ",,,×,,,,×,×,", "CPUs 2 to 4": ",×,,,,×,,,×,",
		"one device more": ",×,,,,×,,,,",
	} {
		if moves[what] != want {
			t.Errorf("%s moves: got %q, want %q", what, moves[what], want)
		}
	}
}
