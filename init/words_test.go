package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"strings"
	"testing"
)

// TestEveryWordIsSaid: a word of the status port that init never says would be a promise to whoever reads the port.
func TestEveryWordIsSaid(t *testing.T) {
	words, said := map[string]bool{}, map[string]bool{}
	err := fs.WalkDir(os.DirFS("."), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(p, ".go") || strings.HasSuffix(p, "_test.go") {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), p, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if selector, ok := n.(*ast.SelectorExpr); ok {
				if of, ok := selector.X.(*ast.Ident); ok && of.Name == "status" {
					said[selector.Sel.Name] = true
				}
			}
			if group, ok := n.(*ast.GenDecl); ok && group.Tok == token.CONST && p == "status/status.go" && group.Lparen.IsValid() {
				for _, spec := range group.Specs {
					if name := spec.(*ast.ValueSpec).Names[0]; name.IsExported() {
						words[name.Name] = true
					}
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(words) < 30 {
		t.Fatalf("found %d words, want all of them", len(words))
	}
	for word := range words {
		if !said[word] {
			t.Errorf("init says status.%s nowhere", word)
		}
	}
}
