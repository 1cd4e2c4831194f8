package chrysalis

import (
	"go/parser"
	"go/token"
	"path"
	"slices"
	"strings"
	"testing"
)

// TestPackageComments: whoever opens a folder finds what it is for in the file of its package's name, and a command's in main.go.
func TestPackageComments(t *testing.T) {
	folders := map[string]map[string]string{}
	for p, src := range goFiles(t) {
		if strings.HasSuffix(p, "_test.go") {
			continue
		}
		dir := path.Dir(p)
		if folders[dir] == nil {
			folders[dir] = map[string]string{}
		}
		folders[dir][path.Base(p)] = string(src)
	}
	for dir, files := range folders {
		for _, refusal := range judgeComments(t, dir, files) {
			t.Error(refusal)
		}
	}
}

func TestPackageCommentsCanRefuse(t *testing.T) {
	const good, bare = "// Package x is.\npackage x\n", "package x\n"
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  int
	}{
		{"in its file", map[string]string{"x.go": good, "y.go": bare}, 0},
		{"a command", map[string]string{"main.go": "// Command x does.\npackage main\n"}, 0},
		{"after a build constraint", map[string]string{"x.go": "//go:build js\n\n" + good}, 0},
		{"none", map[string]string{"x.go": bare}, 1},
		{"in another file", map[string]string{"doc.go": good, "x.go": bare}, 1},
		{"twice", map[string]string{"x.go": good, "y.go": good}, 1},
		{"of another name", map[string]string{"x.go": "// Package y is.\npackage x\n"}, 1},
		{"a command that says package", map[string]string{"main.go": "// Package main does.\npackage main\n"}, 1},
		{"apart from its package", map[string]string{"x.go": "// Package x is.\n\npackage x\n"}, 1},
	} {
		if got := judgeComments(t, "a/x", tt.files); len(got) != tt.want {
			t.Errorf("%s: got %q, want %d refusals", tt.name, got, tt.want)
		}
	}
}

// judgeComments returns one line if the package of a folder's files has no comment, or has it elsewhere.
func judgeComments(t *testing.T, dir string, files map[string]string) []string {
	t.Helper()
	var in []string
	var want, begins string
	for name, src := range files {
		f, err := parser.ParseFile(token.NewFileSet(), name, src, parser.PackageClauseOnly|parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		want, begins = f.Name.Name+".go", "Package "+f.Name.Name+" "
		if f.Name.Name == "main" {
			want, begins = "main.go", "Command "+path.Base(dir)+" "
		}
		if text := f.Doc.Text(); strings.TrimSpace(text) != "" {
			if !strings.HasPrefix(text, begins) {
				name += " (which does not begin with " + begins + ")"
			}
			in = append(in, name)
		}
	}
	if slices.Sort(in); !slices.Equal(in, []string{want}) {
		return []string{dir + ": package comments stand in " + strings.Join(in, ", ") + "; want one, in " + want}
	}
	return nil
}
