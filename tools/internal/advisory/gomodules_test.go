package advisory

import (
	"archive/zip"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

const (
	stdlibEntry = `{"schema_version":"1.3.1","id":"GO-2026-0001","modified":"2026-11-01T00:00:00Z","published":"2026-10-01T00:00:00Z","aliases":["CVE-2026-1"],
"summary":"a fault in net/http","details":"d","affected":[{"package":{"name":"stdlib","ecosystem":"Go"},"ranges":[{"type":"SEMVER","events":[
{"introduced":"0"},{"fixed":"1.25.9"},{"introduced":"1.26.0-0"},{"fixed":"1.26.2"}]}],"ecosystem_specific":{"imports":[{"path":"net/http","symbols":["Serve","Server.Serve"]}]}}],
"references":[{"type":"FIX","url":"u"}],"database_specific":{"url":"u"}}`
	moduleEntry = `{"id":"GO-2026-0002","modified":"2026-11-02T00:00:00Z","affected":[{"package":{"name":"example.org/m","ecosystem":"Go"},"ranges":[{"type":"SEMVER","events":[{"introduced":"1.2.0"}]}]}]}`
	goneEntry   = `{"id":"GO-2026-0003","modified":"2026-11-03T00:00:00Z","withdrawn":"2026-11-03T00:00:00Z","affected":[{"package":{"name":"example.org/m","ecosystem":"Go"}}]}`
)

// database writes entries into a folder, and the same into a zip file.
func database(t *testing.T, files map[string]string) (folder, archive string) {
	t.Helper()
	tree := fstest.MapFS{}
	for name, text := range files {
		tree[name] = &fstest.MapFile{Data: []byte(text)}
	}
	folder, archive = t.TempDir(), filepath.Join(t.TempDir(), "db.zip")
	err := os.CopyFS(folder, tree)
	out, err2 := os.Create(archive)
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	z := zip.NewWriter(out)
	if err := errors.Join(z.AddFS(tree), z.Close(), out.Close()); err != nil {
		t.Fatal(err)
	}
	return folder, archive
}

func TestOpenGo(t *testing.T) {
	files := map[string]string{"ID/GO-2026-0001.json": stdlibEntry, "ID/GO-2026-0002.json": moduleEntry, "ID/GO-2026-0003.json": goneEntry,
		"index/vulns.json": "[]", "README.md": "x"}
	for _, dated := range []struct {
		index string
		want  string
	}{{`{"modified":"2026-11-20T10:00:00Z"}`, "2026-11-20T10:00:00Z"}, {"", "2026-11-03T00:00:00Z"}} {
		if dated.index != "" {
			files["index/db.json"] = dated.index
		} else {
			delete(files, "index/db.json")
		}
		folder, archive := database(t, files)
		for _, file := range []string{folder, archive} {
			d, err := OpenGo(file)
			if err != nil {
				t.Fatal(err)
			}
			if got := d.Modified.Format(time.RFC3339); d.Entries != 3 || got != dated.want {
				t.Errorf("%s: got %d entries of %s, want 3 of %s", file, d.Entries, got, dated.want)
			}
			for _, tt := range []struct{ module, version, want string }{
				{Stdlib, "go1.25.8", "GO-2026-0001<1.25.9"}, {Stdlib, "go1.25.9", ""}, {Stdlib, "go1.26", "GO-2026-0001<1.26.2"},
				{Stdlib, "go1.26rc2", "GO-2026-0001<1.26.2"}, {Stdlib, "go1.26.2", ""}, {Stdlib, "go1.27.0", ""}, {Toolchain, "go1.25.8", ""},
				{"example.org/m", "v1.1.9", ""}, {"example.org/m", "v1.2.0-rc.1", ""}, {"example.org/m", "v1.2.0", "GO-2026-0002"},
				{"example.org/m", "v1.9.0+incompatible", "GO-2026-0002"}, {"example.org/other", "v0.0.1", ""},
			} {
				found, err := d.Affecting(tt.module, tt.version)
				var plain []Finding
				for _, f := range found {
					plain = append(plain, f.Finding)
				}
				if got := ids(plain); err != nil || got != tt.want {
					t.Errorf("%s %s: got %q and error %v, want %q", tt.module, tt.version, got, err, tt.want)
				}
			}
			for _, version := range []string{"devel", "go1", "1.26.8", ""} {
				if _, err := d.Affecting(Stdlib, version); err == nil {
					t.Errorf("Go %q: got no error, want one", version)
				}
			}
			if _, err := d.Affecting("example.org/m", "(devel)"); err == nil {
				t.Error("a module without a version: got no error, want one")
			}
		}
	}
}

func TestOpenGoRefuses(t *testing.T) {
	edit := func(old, new string) string { return strings.Replace(stdlibEntry, old, new, 1) }
	for _, tt := range []struct{ name, text, want string }{
		{"nothing of the standard library", moduleEntry, "none is of Go's standard library"},
		{"no entry", `{"id":"x"}`, "affects nothing"},
		{"no JSON", `{`, "unexpected EOF"},
		{"a member twice", edit(`"id":`, `"id":"x","id":`), "duplicate"},
		{"another ecosystem", edit(`"Go"`, `"npm"`), `of "npm"`},
		{"another kind of range", edit("SEMVER", "GIT"), `type "GIT"`},
		{"a version that is none", edit("1.25.9", "latest"), `version "latest"`},
		{"fixed before it was introduced", edit(`{"introduced":"0"},`, ""), "in turns"},
		{"too large", edit(`"details":"d"`, `"details":"`+strings.Repeat("d", maxEntryBytes)+`"`), "more than 1048576 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			folder, _ := database(t, map[string]string{"GO-2026-0001.json": tt.text})
			if _, err := OpenGo(folder); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want one with %q", err, tt.want)
			}
		})
	}
	if _, err := OpenGo(filepath.Join(t.TempDir(), "nothing")); err == nil {
		t.Error("no file: got no error")
	}
}

// FuzzGoEntry: an entry that is taken affects versions that are ordered as its ranges say.
func FuzzGoEntry(f *testing.F) {
	for _, text := range []string{stdlibEntry, moduleEntry, goneEntry} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d := GoDatabase{affected: map[string][]affected{}}
		if d.read(fstest.MapFS{"a.json": {Data: []byte(text)}}) != nil {
			return
		}
		for module := range d.affected {
			if module == Stdlib || module == Toolchain {
				continue
			}
			found, err := d.Affecting(module, "v1.2.3")
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range found {
				if v.ID == "" || v.Fixed == "1.2.3" {
					t.Fatalf("v1.2.3 of %s is affected by %+v", module, v)
				}
			}
		}
	})
}

func concerned(path string, symbols ...string) GoFinding {
	return GoFinding{Imports: []Import{{Path: path, Symbols: symbols}}}
}

//go:noinline
func linkedWhole(n int) int { return linkedInto(n) * 3 }

func linkedInto(n int) int {
	if n < 0 {
		panic("negative")
	}
	return n + 1
}

type linkedType[T any] struct{ of T }

//go:noinline
func (l *linkedType[T]) method() T { return l.of }

// TestLinked reads this very program: functions that were put into others are found, and those that nothing calls are not.
func TestLinked(t *testing.T) {
	if linkedWhole(1) != 6 || (&linkedType[int]{1}).method() != 1 {
		t.Fatal("arithmetic")
	}
	file, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	n, err := NamesOf(program)
	if err != nil {
		t.Fatal(err)
	}
	const own = "chrysalis/tools/internal/advisory"
	windows := concerned("os", "Open")
	windows.Imports[0].GOOS = []string{"windows"}
	for _, tt := range []struct {
		name string
		v    GoFinding
		want string
	}{
		{"a function", concerned(own, "linkedWhole"), own + ".linkedWhole"},
		{"one that is in another", concerned(own, "linkedInto"), own + ".linkedInto"},
		{"one that is not there", concerned(own, "linked"), ""},
		{"a method", concerned("testing", "M.none", "T.Run"), "testing.T.Run"},
		{"a method of a generic type", concerned(own, "linkedType.method"), own + ".linkedType.method"},
		{"a package", concerned("archive/zip"), "archive/zip"},
		{"a package that is not there", concerned("net/http"), ""},
		{"a package whose path has another's in it", concerned("golang.org/x/net/dns"), ""},
		{"a module", GoFinding{}, "the whole module"},
		{"of another system", windows, ""},
		{"of this system", concerned("os", "Open"), "os.Open"},
		{"a dot in the path", concerned("pault.ag/go/debian/version", "Parse"), "pault.ag/go/debian/version.Parse"},
	} {
		linked, any := n.Linked(tt.v)
		if got := strings.Join(linked, " "); got != tt.want || any != (tt.want != "") {
			t.Errorf("%s: got %q, %t, want %q", tt.name, got, any, tt.want)
		}
	}
	if got := symbolPrefix("gopkg.in/yaml.v3"); got != "gopkg.in/yaml%2ev3" {
		t.Errorf("a dot behind the last slash: got %s", got)
	}
	for name, bad := range map[string][]byte{"nothing": nil, "a script": []byte("#!/bin/sh\n"), "half": program[:len(program)/2]} {
		if _, err := NamesOf(bad); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}
