package chrysalis

import (
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

// goMod is what the tests ask of a go.mod, in the form of `go mod edit -json`.
type goMod struct {
	Module        struct{ Path string }
	Go, Toolchain string
	Require       []struct{ Path, Version string }
	Replace       []struct {
		Old, New struct{ Path, Version string }
	}
}

// nested returns the folders of the modules below the root's.
func nested(t *testing.T) (folders []string) {
	t.Helper()
	err := fs.WalkDir(os.DirFS("."), ".", func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (p == "build" || strings.HasPrefix(d.Name(), ".") && p != "." || d.Name() == "testdata"):
			return fs.SkipDir
		case d.Name() == "go.work":
			t.Errorf("%s: one workspace would give all modules the versions of the most demanding one", p)
		case d.Name() == "go.mod" && p != "go.mod":
			folders = append(folders, path.Dir(p))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(folders) == 0 {
		t.Fatal("no nested module found: the test looked in the wrong place")
	}
	return folders
}

func readGoMod(t *testing.T, folder string) (m goMod) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "mod", "edit", "-json")
	cmd.Dir = folder
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: reading go.mod: %v", folder, err)
	}
	if err := json.Unmarshal(out, &m); err != nil {
		t.Fatalf("%s: reading go.mod: %v", folder, err)
	}
	return m
}

// TestModules holds the walls between modules: what a nested one requires moves nothing of the root's.
func TestModules(t *testing.T) {
	root := readGoMod(t, ".")
	if len(root.Replace) != 0 {
		t.Errorf("the root module replaces %v, want nothing replaced: those who import it would not follow", root.Replace)
	}
	for _, folder := range nested(t) {
		m := readGoMod(t, folder)
		for _, refusal := range judgeModule(root, m, folder) {
			t.Error(refusal)
		}
		if slices.ContainsFunc(root.Require, func(r struct{ Path, Version string }) bool { return r.Path == m.Module.Path }) {
			t.Errorf("the root module requires %s", m.Module.Path)
		}
	}
}

// judgeModule returns one line for each thing in a nested module's go.mod that is not as it must be.
func judgeModule(root, m goMod, folder string) (refused []string) {
	if want := root.Module.Path + "/" + folder; m.Module.Path != want {
		refused = append(refused, folder+": the module is "+m.Module.Path+", want "+want)
	}
	if m.Go != root.Go || m.Toolchain != root.Toolchain {
		refused = append(refused, folder+": go "+m.Go+" and toolchain "+m.Toolchain+", want those of the root: "+root.Go+" and "+root.Toolchain)
	}
	up := strings.Repeat("../", strings.Count(folder, "/")+1)
	if len(m.Replace) != 1 || m.Replace[0].Old.Path != root.Module.Path || m.Replace[0].New.Path != up {
		refused = append(refused, folder+": replaces something else than the root module by "+up)
	}
	return refused
}

func TestModulesCanRefuse(t *testing.T) {
	root := goMod{Go: "1.26.6", Toolchain: "go1.26.8"}
	root.Module.Path = "chrysalis"
	replace := func(old, by string) (r struct {
		Old, New struct{ Path, Version string }
	}) {
		r.Old.Path, r.New.Path = old, by
		return r
	}
	good := func() goMod {
		m := root
		m.Module.Path = "chrysalis/a/b"
		m.Replace = append(m.Replace, replace("chrysalis", "../../"))
		return m
	}
	if got := judgeModule(root, good(), "a/b"); len(got) != 0 {
		t.Errorf("a module as it should be: got %q", got)
	}
	for name, change := range map[string]func(*goMod){
		"another name":          func(m *goMod) { m.Module.Path = "chrysalis/b" },
		"another toolchain":     func(m *goMod) { m.Toolchain = "go1.26.9" },
		"another language":      func(m *goMod) { m.Go = "1.27" },
		"the root not here":     func(m *goMod) { m.Replace = nil },
		"another root":          func(m *goMod) { m.Replace[0].New.Path = "../" },
		"more that is replaced": func(m *goMod) { m.Replace = append(m.Replace, replace("golang.org/x/sys", "../sys")) },
	} {
		m := good()
		change(&m)
		if got := judgeModule(root, m, "a/b"); len(got) != 1 {
			t.Errorf("%s: got %q, want one refusal", name, got)
		}
	}
}
