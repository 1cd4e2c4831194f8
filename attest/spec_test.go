package attest_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"chrysalis/attest"
)

// TestSpecification pins the numbers and names that EVIDENCE.md states.
func TestSpecification(t *testing.T) {
	b, err := os.ReadFile("EVIDENCE.md")
	if err != nil {
		t.Fatal(err)
	}
	spec := string(b)
	for _, want := range []string{
		attest.ExporterLabel, fmt.Sprintf("| 9 | %d | statement |", attest.StatementSize), fmt.Sprintf("at most %d MiB", attest.MaxEvidenceBytes>>20),
	} {
		if !strings.Contains(spec, want) {
			t.Errorf("EVIDENCE.md does not say %q", want)
		}
	}
	var all []string
	for _, platform := range platforms {
		names, _ := attest.CheckNames(platform)
		all = append(all, names...)
	}
	for _, name := range all {
		if strings.HasPrefix(name, "config.") || strings.HasPrefix(name, "event-") || strings.HasPrefix(name, "statement-") || strings.HasPrefix(name, "pcr-") {
			continue // named together
		}
		if !strings.Contains(spec, name) {
			t.Errorf("EVIDENCE.md does not name the check %s", name)
		}
	}
}
