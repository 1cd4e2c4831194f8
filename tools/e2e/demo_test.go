package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestDemoTells: the demonstration numbers its steps, each once and up to the last, and writes no colour into a pipe. What it runs is played.
func TestDemoTells(t *testing.T) {
	script, err := os.ReadFile("demo.sh") // read here, so that go test knows what the result rests on
	steps, more := os.ReadFile("steps.sh")
	if err := errors.Join(err, more); err != nil {
		t.Fatal(err)
	}
	for _, keep := range []string{"", "1"} {
		dir := t.TempDir()
		stub := `#!/bin/bash
[ "$1" = down ] && exit
while [ $# -gt 0 ]; do
	[ "$1" = --save ] && mkdir -p "$2" && echo "The capital of Norway is Oslo." >"$2/answer.txt" && touch "$2/charge.boc" "$2/claim-key.hex" "$2/contract.txt"
	shift
done
echo https://127.0.0.1:1
`
		for name, text := range map[string]string{"chrysalis": stub, "demo.sh": string(script), "steps.sh": string(steps), "build/release/manifest.json": "{}"} {
			file := filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		cmd := exec.CommandContext(t.Context(), "bash", "demo.sh", filepath.Join(dir, "chrysalis"))
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "KEEP="+keep, "PLATFORM=vtpm")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("KEEP=%s: %v\n%s", keep, err, out)
		}
		const steps = 7
		for i := 1; i <= steps; i++ {
			if want := fmt.Sprintf("\n== %d of %d: ", i, steps); strings.Count(string(out), want) != 1 {
				t.Errorf("KEEP=%s: %q is not there once:\n%s", keep, want, out)
			}
		}
		if n := strings.Count(string(out), "\n== "); n != steps || !strings.HasSuffix(string(out), "demo: ok\n") || strings.Contains(string(out), "\x1b") {
			t.Errorf("KEEP=%s: got %d steps, want %d and no colour:\n%s", keep, n, steps, out)
		}
	}
}
