package platform

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestOpen: a machine without a device of any platform is refused, and so is one whose device is none.
func TestOpen(t *testing.T) {
	p := Paths{Dev: t.TempDir(), Sys: t.TempDir()}
	if got, err := Open(p); got != nil || err == nil || !strings.Contains(err.Error(), "vtpm") {
		t.Errorf("no device: got %v and error %v, want one that says what was looked for", got, err)
	}
	if err := os.WriteFile(filepath.Join(p.Dev, "tpmrm0"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := Open(p); got != nil || err == nil || !strings.Contains(err.Error(), "opening platform vtpm") {
		t.Errorf("a file for a TPM: got %v and error %v, want a refusal", got, err)
	}
}
