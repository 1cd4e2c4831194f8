package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/go/packages"
)

// TestOtherSystems has the whole command line type-checked as it would be compiled for other systems; make cross compiles it, which takes
// many times as long. Bodies of functions of other people's packages are left out: those compile there, and what they offer is checked.
func TestOtherSystems(t *testing.T) {
	if testing.Short() {
		t.Skip("reads every package that the command line is made of")
	}
	if found := mistakes(t, "darwin", "arm64", nil); len(found) > 0 {
		t.Errorf("the command line does not compile for macOS:\n%s", strings.Join(found, "\n"))
	}
	// With one mistake, so that what finds none is known to look.
	overlay := map[string][]byte{filepath.Join(here(t), "mistake.go"): []byte(`package main

import "syscall"

var _ = syscall.SysProcAttr{Pdeathsig: 9}
`)}
	if found := mistakes(t, "windows", "amd64", overlay); len(found) != 1 || !strings.Contains(found[0], "Pdeathsig") {
		t.Errorf("for Windows, with a field that Linux alone has: want one mistake that names Pdeathsig, got:\n%s", strings.Join(found, "\n"))
	}
}

func here(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// mistakes are what a compiler for that system would say of this repository's packages.
func mistakes(t *testing.T, system, arch string, overlay map[string][]byte) (found []string) {
	t.Helper()
	ours := filepath.Join(here(t), "../..") + string(filepath.Separator)
	config := packages.Config{
		Context: t.Context(),
		Mode: packages.NeedName | packages.NeedFiles | packages.NeedCompiledGoFiles | packages.NeedImports | packages.NeedDeps |
			packages.NeedTypes | packages.NeedSyntax | packages.NeedTypesInfo | packages.NeedTypesSizes | packages.NeedModule,
		Env:     append(os.Environ(), "GOOS="+system, "GOARCH="+arch, "CGO_ENABLED=0"),
		Overlay: overlay,
		ParseFile: func(set *token.FileSet, name string, source []byte) (*ast.File, error) {
			file, err := parser.ParseFile(set, name, source, parser.SkipObjectResolution)
			if file != nil && !strings.HasPrefix(name, ours) {
				for _, d := range file.Decls {
					if f, ok := d.(*ast.FuncDecl); ok {
						f.Body = nil
					}
				}
			}
			return file, err
		},
	}
	roots, err := packages.Load(&config, ".")
	if err != nil {
		t.Fatal(err)
	}
	packages.Visit(roots, nil, func(p *packages.Package) {
		if p.PkgPath != "main" && !strings.HasPrefix(p.PkgPath, "chrysalis/") {
			return
		}
		for _, e := range p.Errors {
			found = append(found, e.Error())
		}
	})
	return found
}
