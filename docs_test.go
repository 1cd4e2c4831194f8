package chrysalis

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	testName   = regexp.MustCompile(`\bTest[A-Z][A-Za-z0-9]+`)
	testFunc   = regexp.MustCompile(`(?m)^func (Test[A-Za-z0-9]+)\(`)
	quotedPath = regexp.MustCompile("`([a-z0-9._/-]+/[a-zA-Z0-9._/-]+)`")
	linkedPath = regexp.MustCompile(`\]\(([^)#]+)\)`)
)

// TestSecurityNamesRealTests: a row of SECURITY.md whose test is gone would be an open hole that looks closed.
func TestSecurityNamesRealTests(t *testing.T) {
	tests := map[string]bool{}
	err := fs.WalkDir(os.DirFS("."), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && p == "build" {
			return fs.SkipDir
		}
		if !strings.HasSuffix(p, "_test.go") {
			return nil
		}
		src, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		for _, m := range testFunc.FindAllStringSubmatch(string(src), -1) {
			tests[m[1]] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("SECURITY.md")
	if err != nil {
		t.Fatal(err)
	}
	names := testName.FindAllString(string(text), -1)
	if len(names) == 0 {
		t.Fatal("SECURITY.md names no test")
	}
	for _, name := range names {
		if !tests[name] {
			t.Errorf("SECURITY.md names %s, which does not exist", name)
		}
	}
	rows := 0
	for line := range strings.Lines(string(text)) {
		if cells := strings.Split(line, " | "); strings.HasPrefix(line, "| ") && len(cells) == 4 && !strings.HasPrefix(line, "| threat") &&
			!strings.HasPrefix(line, "| hardening") {
			rows++
			if !testName.MatchString(cells[3]) {
				t.Errorf("SECURITY.md: a row without a test: %s", strings.TrimSpace(line))
			}
		}
	}
	if rows == 0 {
		t.Fatal("SECURITY.md has no rows")
	}
}

// TestDocumentsPointSomewhere looks at the paths and links of the documents.
func TestDocumentsPointSomewhere(t *testing.T) {
	documents, err := filepath.Glob("*.md")
	if err != nil || len(documents) < 3 {
		t.Fatalf("got %q (%v), want README, SECURITY and CONTRIBUTING", documents, err)
	}
	for _, document := range documents {
		text, err := os.ReadFile(document)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range append(quotedPath.FindAllStringSubmatch(string(text), -1), linkedPath.FindAllStringSubmatch(string(text), -1)...) {
			if strings.HasPrefix(m[1], "build/") || strings.HasPrefix(m[1], "testdata/") || strings.Contains(m[1], "://") {
				continue
			}
			if matches, err := filepath.Glob(m[1]); err != nil || len(matches) == 0 {
				t.Errorf("%s speaks of %s, which does not exist", document, m[1])
			}
		}
	}
}

// TestLinksLeadSomewhere follows the links of every document, those beside packages too.
func TestLinksLeadSomewhere(t *testing.T) {
	links := 0
	err := fs.WalkDir(os.DirFS("."), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (p == "build" || p == ".git") {
			return fs.SkipDir
		}
		if filepath.Ext(p) != ".md" {
			return nil
		}
		text, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		for _, m := range linkedPath.FindAllStringSubmatch(string(text), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			links++
			if _, err := os.Stat(filepath.Join(filepath.Dir(p), m[1])); err != nil {
				t.Errorf("%s links to %s: %v", p, m[1], err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if links < 10 {
		t.Errorf("found %d links, want more", links)
	}
}
