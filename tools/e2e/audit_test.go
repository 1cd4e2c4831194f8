package e2e

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"chrysalis/tools/internal/audit"
)

// TestAudit audits the built release, and the same release with one byte of its initrd changed. The rebuild is TestReproducible's.
func TestAudit(t *testing.T) {
	needsBuild(t)
	folder, err := filepath.Abs(filepath.Join(built, "release"))
	if err != nil {
		t.Fatal(err)
	}
	changed := filepath.Join(t.TempDir(), "changed")
	if err := os.CopyFS(changed, os.DirFS(folder)); err != nil {
		t.Fatal(err)
	}
	initrd := filepath.Join(changed, "initrd")
	data, err := os.ReadFile(initrd)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(initrd, data, 0o644); err != nil {
		t.Fatal(err)
	}
	good := auditOf(t, folder, "--rebuilt", changed)
	for _, part := range []string{"files", "documents", "registers"} {
		if o := good[part].Outcome; o != audit.Accepted {
			t.Errorf("the release: %s is %s, %s, want accepted", part, o, good[part].Reason)
		}
	}
	if n := len(good["registers"].Checks); n != 14 {
		t.Errorf("the release: %d checks of measurements, want 14", n)
	}
	if p := good["rebuild"]; p.Outcome != audit.Rejected || !strings.HasPrefix(p.Reason, "initrd: got initrd: ") {
		t.Errorf("against the changed one: got %s, %q, want a refusal that names the initrd", p.Outcome, p.Reason)
	}
	bad := auditOf(t, changed, "--rebuilt", folder)
	for part, reason := range map[string]string{"files": "initrd: got", "documents": "files inside: got", "registers": "pcr-9: got",
		"rebuild": "initrd: got"} {
		if p := bad[part]; p.Outcome != audit.Rejected || !strings.HasPrefix(p.Reason, reason) {
			t.Errorf("the changed one: %s is %s, %q, want a refusal with %q", part, p.Outcome, p.Reason, reason)
		}
	}
}

// auditOf audits a folder and returns the report's parts by name.
func auditOf(t *testing.T, folder string, args ...string) map[string]audit.Part {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out")
	args = append([]string{"audit", folder, "-o", out, "--without", "advisories"}, args...)
	output, err := exec.CommandContext(t.Context(), filepath.Join(built, "bin/chrysalis"), args...).CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatalf("%v: %s", err, output)
	}
	data, err := os.ReadFile(filepath.Join(out, "report.json"))
	if err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	var r audit.Report
	if err := json.Unmarshal(data, &r); err != nil {
		t.Fatal(err)
	}
	parts := map[string]audit.Part{}
	for _, p := range r.Parts {
		parts[p.Name] = p
	}
	return parts
}
