package image

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestModulesAreRecorded holds what the go command would build the guest's programs of against the list in the source tree.
// What the built programs say is compared with the same list beside the end-to-end tests.
func TestModulesAreRecorded(t *testing.T) {
	b := Builder{Source: sourceTree}
	uses, err := b.Modules(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range programs {
		if !slices.ContainsFunc(uses, func(u ModuleUse) bool { return u.Program == p.name }) {
			t.Errorf("%s: got no module", p.name)
		}
	}
	differences, err := CompareModules(sourceTree, uses)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range differences {
		t.Error(line)
	}
	if len(differences) > 0 {
		t.Log("a wanted change is recorded with: chrysalis image modules > " + ModulesFile)
	}
	// The comparison can fail, both ways.
	moved := slices.Clone(uses)
	moved[0].Version += "-moved"
	if more, err := CompareModules(sourceTree, moved); err != nil || len(more) != len(differences)+2 {
		t.Errorf("one module in another version: got %q, error %v, want two lines more", more, err)
	}
}

// TestToolsMoveNoGuest raises a dependency in a copy of the source tree. Where a workstation's tools ask for it, no program of
// the guest moves; where the root module does, they do.
func TestToolsMoveNoGuest(t *testing.T) {
	const raised, version = "github.com/go-json-experiment/json", "v0.99.0"
	if testing.Short() {
		t.Skip("it copies the source tree")
	}
	before, err := (&Builder{Source: sourceTree}).Modules(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, module string
		moves        bool
	}{
		{"tools", "tools", false},
		{"the root module", ".", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			source := copySource(t)
			b := Builder{Source: source}
			g, err := b.findGo(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			// The raised version is the one that is here under another name, so that nothing is downloaded.
			run := func(args ...string) string {
				cmd := exec.CommandContext(t.Context(), goCommand(), args...)
				cmd.Dir, cmd.Env = filepath.Join(source, tt.module), g.environment("0")
				out, err := cmd.CombinedOutput()
				if err != nil {
					t.Fatalf("go %s: %v: %s", strings.Join(args, " "), err, out)
				}
				return strings.TrimSpace(string(out))
			}
			var found struct{ Dir string }
			if err := json.Unmarshal([]byte(run("list", "-m", "-json", raised)), &found); err != nil || found.Dir == "" {
				t.Fatalf("%s lies in %q, error %v", raised, found.Dir, err)
			}
			run("mod", "edit", "-require="+raised+"@"+version, "-replace="+raised+"@"+version+"="+found.Dir)
			if got := run("list", "-m", raised); !strings.HasPrefix(got, raised+" "+version) {
				t.Fatalf("the module asks for %s, want %s: nothing was raised", got, version)
			}
			moved := false
			for _, p := range programs {
				if tt.moves && p.module != tt.module {
					continue // a nested module does not follow before its own go.mod does: its build stops
				}
				got, err := b.modulesOf(t.Context(), g, p)
				if err != nil {
					t.Fatal(err)
				}
				var want []ModuleUse
				for _, u := range before {
					if u.Program == p.name {
						want = append(want, u)
					}
				}
				if len(got) == 0 {
					t.Errorf("%s: got no module", p.name)
				}
				moved = moved || !slices.Equal(got, want)
			}
			if moved != tt.moves {
				t.Errorf("a dependency raised in %s: the guest's modules moved: got %v, want %v", tt.module, moved, tt.moves)
			}
		})
	}
}

// copySource copies what builds of the source tree, without tests' data.
func copySource(t *testing.T) string {
	t.Helper()
	to := t.TempDir()
	skip := []string{"build", ".git", ".ci", "testdata"}
	err := filepath.WalkDir(sourceTree, func(path string, d os.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && slices.Contains(skip, d.Name()):
			return filepath.SkipDir
		case !d.Type().IsRegular() || d.Name() == ".git":
			return nil
		}
		name, err := filepath.Rel(sourceTree, path)
		if err != nil {
			return err
		}
		return copyFile(path, filepath.Join(to, name))
	})
	if err != nil {
		t.Fatal(err)
	}
	return to
}
