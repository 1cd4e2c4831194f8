package main

import (
	"os"
	"path/filepath"
	"testing"

	attestrelease "chrysalis/attest/release"
	"chrysalis/measure"
	"chrysalis/measure/pubkey"
	"chrysalis/measure/register"
	"chrysalis/tools/internal/release"
)

func testManifest(t *testing.T) (measure.Manifest, []byte) {
	t.Helper()
	data, err := os.ReadFile("../../measure/testdata/manifest.json")
	if err != nil {
		t.Fatal(err)
	}
	m, err := measure.DecodeManifest(data)
	if err != nil {
		t.Fatal(err)
	}
	return m, data
}

// TestCompareRebuiltManifest: of a manifest alone every value counts, not the files' hashes only. A published manifest with the
// right files and a wrong register would have clients accept another guest.
func TestCompareRebuiltManifest(t *testing.T) {
	published, data := testManifest(t)
	for _, tt := range []struct {
		name   string
		change func(*measure.Manifest)
		file   string // "" is the same
	}{
		{"the same", func(*measure.Manifest) {}, ""},
		{"a file", func(m *measure.Manifest) { m.Files[0].SHA256[0] ^= 1 }, published.Files[0].Name},
		{"a document", func(m *measure.Manifest) { m.Documents[0].SHA256[0] ^= 1 }, "contents.json"},
		{"a register", func(m *measure.Manifest) { m.PCRs[4] = register.Digest{0xff} }, "manifest.json"},
		{"the security version", func(m *measure.Manifest) { m.SecurityVersion++ }, "manifest.json"},
		{"the lock", func(m *measure.Manifest) { m.Lock = measure.LockUnreleased }, "manifest.json"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rebuilt, _ := testManifest(t)
			tt.change(&rebuilt)
			got, err := compareRebuilt(data, published, "", "", rebuilt)
			if err != nil {
				t.Fatal(err)
			}
			if tt.file == "" {
				if len(got.Differences) != 0 {
					t.Errorf("got %+v, want no difference", got.Differences)
				}
				return
			}
			if len(got.Differences) == 0 || got.Differences[0].File != tt.file {
				t.Errorf("got %+v, want a difference in %s", got.Differences, tt.file)
			}
		})
	}
}

func TestRebuildStatement(t *testing.T) {
	dir := t.TempDir()
	public, err := release.NewKey(filepath.Join(dir, "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	s := rebuildStatement{keyFile: filepath.Join(dir, "key.pem"), name: "auditor.example", out: filepath.Join(dir, "rebuild.json")}
	if err := s.check(); err != nil {
		t.Fatal(err)
	}
	if err := s.write(register.Digest{2}, measure.LockUnreleased); err == nil {
		t.Error("a release that nobody else can build: it was attested")
	}
	if _, err := os.Stat(s.out); err == nil {
		t.Error("a refused statement was written")
	}
	if err := s.write(register.Digest{2}, measure.LockReleased); err != nil {
		t.Fatal(err)
	}
	signed, err := os.ReadFile(s.out)
	if err != nil {
		t.Fatal(err)
	}
	r, key, err := attestrelease.VerifyRebuild(signed, []pubkey.Ed25519{public})
	if err != nil || key != public || r.Manifest != (register.Digest{2}) || r.Rebuilder != "auditor.example" {
		t.Errorf("got %+v by %s, error %v", r, key, err)
	}
	for name, s := range map[string]rebuildStatement{"a key without a name": {keyFile: s.keyFile},
		"a name without a key": {name: "auditor.example"}, "no such key": {keyFile: "nosuch", name: "a"}} {
		if err := s.check(); err == nil {
			t.Errorf("%s: got no error, want a refusal", name)
		}
	}
	var none rebuildStatement
	if err := none.check(); err != nil {
		t.Errorf("no statement asked for: %v", err)
	}
}
