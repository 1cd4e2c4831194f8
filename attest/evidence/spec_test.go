package evidence_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"chrysalis/attest/evidence"
)

// TestSpecification pins the numbers and names that EVIDENCE.md states.
func TestSpecification(t *testing.T) {
	b, err := os.ReadFile("EVIDENCE.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		evidence.ExporterLabel, fmt.Sprintf("| 9 | %d | statement |", evidence.StatementSize), fmt.Sprintf("at most %d MiB",
			evidence.MaxBytes>>20),
	} {
		if !strings.Contains(string(b), want) {
			t.Errorf("EVIDENCE.md does not say %q", want)
		}
	}
}
