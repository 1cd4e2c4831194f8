package measure

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"chrysalis/measure/config"
	"chrysalis/measure/register"
)

func testManifest() Manifest {
	m := Manifest{
		Format: ManifestFormat, Profile: "cpu", SecurityVersion: 1, Lock: LockReleased, Kernel: "7.2.12",
		Root:       config.Volume{Root: register.Digest{1}, Blocks: 9},
		PCRs:       register.PCRs{0: {2}, 4: {3}, 9: {4}},
		Toolchains: Toolchain{Go: "go1.26.8", GCC: "14.2.0-19", Mkosi: "25.3-7", Tools: register.Digest{5}},
		Packages:   []Package{{"ca-certificates", "20250419", register.Digest{6}}, {"ovmf", "2025.02-8", register.Digest{7}}},
	}
	for i, name := range ReleaseFiles() {
		m.Files = append(m.Files, File{name, int64(i + 1), register.Digest{byte(i)}})
	}
	for i, name := range ReleaseDocuments() {
		m.Documents = append(m.Documents, File{name, int64(i + 1), register.Digest{0xd0, byte(i)}})
	}
	return m
}

func TestManifestRoundTrip(t *testing.T) {
	data, err := EncodeManifest(testManifest())
	if err != nil {
		t.Fatal(err)
	}
	m, err := DecodeManifest(data)
	if err != nil {
		t.Fatal(err)
	}
	again, err := EncodeManifest(m)
	if err != nil || !bytes.Equal(again, data) {
		t.Errorf("encoding again: got %s, error %v, want %s", again, err, data)
	}
	if f, err := m.File("initrd"); err != nil || f.Name != "initrd" {
		t.Errorf("initrd: got %+v, error %v", f, err)
	}
	if _, err := m.File("nosuch"); err == nil {
		t.Error("a file that is not there: got no error")
	}
}

// TestManifestGolden keeps the format: a client of an older release must read the manifest of a newer one.
func TestManifestGolden(t *testing.T) {
	path := filepath.Join("testdata", "manifest.json")
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := EncodeManifest(testManifest()); err != nil || !bytes.Equal(got, want) {
		t.Errorf("got %s, error %v, want %s", got, err, want)
	}
}

func TestEncodeManifestRefuses(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Manifest)
		want   string
	}{
		{"zero", func(m *Manifest) { *m = Manifest{} }, "format"},
		{"other format", func(m *Manifest) { m.Format = "chrysalis release v2" }, "format"},
		{"unknown lock state", func(m *Manifest) { m.Lock = "" }, "lock"},
		{"no kernel", func(m *Manifest) { m.Kernel = "" }, "empty"},
		{"no toolchain", func(m *Manifest) { m.Toolchains.Go = "" }, "empty"},
		{"no root", func(m *Manifest) { m.Root.Root = register.Digest{} }, "root volume"},
		{"no blocks", func(m *Manifest) { m.Root.Blocks = 0 }, "root volume"},
		{"file missing", func(m *Manifest) { m.Files = m.Files[1:] }, "files are"},
		{"file twice", func(m *Manifest) { m.Files = append(m.Files, m.Files[5]) }, "files are"},
		{"files unsorted", func(m *Manifest) { slices.Reverse(m.Files) }, "files are"},
		{"document missing", func(m *Manifest) { m.Documents = m.Documents[1:] }, "documents are"},
		{"empty document", func(m *Manifest) { m.Documents[0].Size = 0 }, "0 bytes"},
		{"empty file", func(m *Manifest) { m.Files[0].Size = 0 }, "0 bytes"},
		{"no PCR 4", func(m *Manifest) { delete(m.PCRs, 4) }, "PCR 4"},
		{"PCR that is never quoted", func(m *Manifest) { m.PCRs[10] = register.Digest{} }, "PCR 10"},
		{"no packages", func(m *Manifest) { m.Packages = nil }, "no packages"},
		{"package twice", func(m *Manifest) { m.Packages[1] = m.Packages[0] }, "each once"},
		{"package without version", func(m *Manifest) { m.Packages[0].Version = "" }, "want both"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := testManifest()
			tt.change(&m)
			if _, err := EncodeManifest(m); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want one with %q", err, tt.want)
			}
		})
	}
}

func TestDecodeManifestRefuses(t *testing.T) {
	data, err := EncodeManifest(testManifest())
	if err != nil {
		t.Fatal(err)
	}
	good := string(data)
	for _, tt := range []struct{ name, old, new string }{
		{"unknown member", `"profile":`, `"extra": 1, "profile":`},
		{"member twice", `"profile": "cpu",`, `"profile": "cpu", "profile": "cpu",`},
		{"other case", `"profile":`, `"Profile":`},
		{"other spacing", `"profile": `, `"profile":  `},
		{"upper-case hex", `"sha256": "00`, `"sha256": "0A`},
		{"trailing bytes", "\n}\n", "\n}\n\n"},
		{"number as text", `"blocks": 9`, `"blocks": "9"`},
		{"negative size", `"size": 1,`, `"size": -1,`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bad := strings.Replace(good, tt.old, tt.new, 1)
			if bad == good {
				t.Fatalf("the change does nothing: no %q in the manifest", tt.old)
			}
			if _, err := DecodeManifest([]byte(bad)); err == nil {
				t.Error("got no error, want a refusal")
			}
		})
	}
	if _, err := DecodeManifest(make([]byte, MaxManifestBytes+1)); err == nil {
		t.Error("too long: got no error, want a refusal")
	}
}

func FuzzDecodeManifest(f *testing.F) {
	seed, err := os.ReadFile(filepath.Join("testdata", "manifest.json"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := DecodeManifest(data)
		if err != nil {
			return
		}
		if again, err := EncodeManifest(m); err != nil || !bytes.Equal(again, data) {
			t.Errorf("encoding again: got %q, error %v, want %q", again, err, data)
		}
	})
}
