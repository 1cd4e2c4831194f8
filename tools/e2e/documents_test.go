package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"chrysalis/tools/internal/release"
)

// TestContentsNameEveryFile compares contents.json with what the root holds, and a program's build information with what the go
// command reads out of it.
func TestContentsNameEveryFile(t *testing.T) {
	needsBuild(t)
	folder := filepath.Join(built, "release")
	data, err := os.ReadFile(filepath.Join(folder, release.ContentsName))
	if err != nil {
		t.Fatal(err)
	}
	c, err := release.DecodeContents(data)
	if err != nil {
		t.Fatal(err)
	}
	var listed []string
	for _, f := range c.Files {
		if f.File == "root.img" && f.Path != "" {
			listed = append(listed, f.Path)
		}
	}
	held := listVolume(t, filepath.Join(folder, "root.img"))
	slices.Sort(held)
	if !slices.Equal(listed, held) {
		t.Errorf("contents list %q of the root, want %q", listed, held)
	}
	if len(c.Programs) != 9 { // init twice: in the root and in the initrd
		t.Errorf("contents describe %d programs, want 9", len(c.Programs))
	}
	for _, p := range c.Programs {
		out, err := exec.CommandContext(t.Context(), "go", "version", "-m", filepath.Join(built, "programs", filepath.Base(p.Path))).Output()
		if err != nil {
			t.Fatal(err)
		}
		// The tree's root has no version: a program of a nested module is built of it as of its own.
		if got := strings.Count(string(out), "\tdep\t") - strings.Count(string(out), "\tdep\tchrysalis\t"); got != len(p.Modules) || got == 0 {
			t.Errorf("%s: contents name %d modules, go version -m %d", p.Path, len(p.Modules), got)
		}
		for _, m := range p.Modules {
			if !strings.Contains(string(out), "\tdep\t"+m.Path+"\t"+m.Version+"\t"+m.Sum) {
				t.Errorf("%s: go version -m does not know %s %s", p.Path, m.Path, m.Version)
			}
		}
	}
	statement, err := os.ReadFile(filepath.Join(folder, release.ProvenanceName))
	if err != nil {
		t.Fatal(err)
	}
	if err := release.CheckProvenance(folder, statement); err != nil {
		t.Error(err)
	}
}
