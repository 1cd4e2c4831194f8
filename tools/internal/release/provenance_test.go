package release

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"chrysalis/measure"
	"chrysalis/measure/register"
)

// fullFolder writes every file that provenance speaks of, with small contents, and returns the folder and its provenance.
func fullFolder(t *testing.T) (dir string, statement []byte) {
	t.Helper()
	dir = t.TempDir()
	for _, name := range Subjects() {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("content of "+name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	statement, err := Provenance(dir, measure.Manifest{Profile: "cpu", Lock: measure.LockReleased}, []Material{
		{Name: "image/image.lock", SHA256: register.Digest{1}}, {Name: "golang.org/toolchain@v0.0.1-go1.26.8.linux-amd64", Note: "by name"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, ProvenanceName), statement, 0o644); err != nil {
		t.Fatal(err)
	}
	return dir, statement
}

func TestProvenance(t *testing.T) {
	dir, statement := fullFolder(t)
	if _, again := fullFolder(t); !bytes.Equal(statement, again) {
		t.Error("the same files in another folder have another statement")
	}
	if err := CheckProvenance(dir, statement); err != nil {
		t.Errorf("the folder itself: %v", err)
	}
	for _, want := range []string{`"_type":"https://in-toto.io/Statement/v1"`, `"predicateType":"https://slsa.dev/provenance/v1"`,
		`"name":"image/image.lock"`, "go1.26.8"} {
		if !bytes.Contains(statement, []byte(want)) {
			t.Errorf("the statement has no %s: %s", want, statement)
		}
	}
	for _, name := range Subjects() {
		dir, statement := fullFolder(t)
		if err := os.WriteFile(filepath.Join(dir, name), []byte("other content"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := CheckProvenance(dir, statement); err == nil || !strings.Contains(err.Error(), name+": sha256") {
			t.Errorf("%s changed: got error %v, want one that names it", name, err)
		}
	}
	for _, tt := range []struct{ name, old, new, want string }{
		{"another predicate", "slsa.dev/provenance/v1", "slsa.dev/verification/v1", "predicate"},
		{"a subject less", `"name":"vmlinuz"`, `"name":"cmdline"`, "twice"},
		{"a subject of another name", `"name":"vmlinuz"`, `"name":"vmlinux"`, "subjects are"},
		{"a subject without SHA-256", `{"digest":{"sha256"`, `{"digest":{"other"`, ""},
		{"another statement", "in-toto.io/Statement/v1", "in-toto.io/Statement/v9", "type"},
		{"no JSON", "{", "[", ""},
	} {
		bad := strings.Replace(string(statement), tt.old, tt.new, -1)
		if bad == string(statement) {
			t.Fatalf("%s: the change does nothing", tt.name)
		}
		if err := CheckProvenance(dir, []byte(bad)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got error %v, want one with %q", tt.name, err, tt.want)
		}
	}
}
