package guest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"chrysalis/measure"
	"chrysalis/measure/config"
)

// stopped is the folder of a guest that is off, with some of the files that it has.
func stopped(t *testing.T, change func(*Spec)) (Guest, map[string][]byte) {
	t.Helper()
	spec := Spec{Release: "release", Config: DemoConfig()}
	if change != nil {
		change(&spec)
	}
	text, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	records := make([]byte, 150_000) // two blocks and a part of one, of which the second holds something
	copy(records[100_000:], "a record")
	g := Guest{Dir: t.TempDir()}
	files := map[string][]byte{specFile: text, tpmState: []byte("a TPM"), journal: records, ProofsFile: []byte("proof\n"), RootsFile: []byte("a root")}
	for name, data := range files {
		if err := os.MkdirAll(filepath.Dir(g.Path(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(g.Path(name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(g.Path("qemu.log"), []byte("made at each start"), 0o644); err != nil {
		t.Fatal(err)
	}
	return g, files
}

func TestBackup(t *testing.T) {
	g, files := stopped(t, nil)
	var archive bytes.Buffer
	made := time.Date(2026, 11, 20, 12, 0, 0, 5, time.UTC)
	if b, err := g.Backup(&archive, made); err != nil || len(b.Files) != len(files) {
		t.Fatalf("got %d files and error %v, want %d", len(b.Files), err, len(files))
	}
	if archive.Len() > 10_000 {
		t.Errorf("the backup of a journal of zeros has %d bytes", archive.Len())
	}
	to := Guest{Dir: filepath.Join(t.TempDir(), "there", "guest")}
	b, err := to.Restore(bytes.NewReader(archive.Bytes()))
	if err != nil || !b.Made.Equal(made.Truncate(time.Second)) {
		t.Fatalf("got a backup of %v and error %v", b.Made, err)
	}
	for name, want := range files {
		if got, err := os.ReadFile(to.Path(name)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: got %d bytes (%v), want those that were there, %d", name, len(got), err, len(want))
		}
	}
	if _, err := os.Stat(to.Path("qemu.log")); err == nil {
		t.Error("qemu.log was restored")
	}
	// A second time it would write over a guest.
	if _, err := to.Restore(bytes.NewReader(archive.Bytes())); err == nil || !strings.Contains(err.Error(), "is there already") {
		t.Errorf("over a guest: got %v, want a refusal", err)
	}
	// A damaged byte is found or changes nothing, and leaves no folder.
	for at := 0; at < archive.Len(); at += 7 {
		bad := bytes.Clone(archive.Bytes())
		bad[at] ^= 0x10
		to := Guest{Dir: filepath.Join(t.TempDir(), "guest")}
		if _, err := to.Restore(bytes.NewReader(bad)); err == nil {
			for name, want := range files {
				if got, err := os.ReadFile(to.Path(name)); err != nil || !bytes.Equal(got, want) {
					t.Fatalf("byte %d changed: %s is another (%v), and nobody noticed", at, name, err)
				}
			}
			continue
		}
		if left, _ := os.ReadDir(filepath.Dir(to.Dir)); len(left) != 0 {
			t.Fatalf("byte %d changed: the refusal left %v", at, left)
		}
	}
}

// TestBackupRefuses: what would not come back is not taken.
func TestBackupRefuses(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		change     func(*Spec)
	}{
		{"keys that end with the boot", "ephemeral", func(s *Spec) { s.Config.Identity.Sealing = config.SealNothing }},
		{"hardware that is software", "made anew", func(s *Spec) { s.Shape.Platform, s.Shape.Accelerator = measure.SEVSNP, measure.TCG }},
	} {
		g, _ := stopped(t, tt.change)
		if _, err := g.Backup(&bytes.Buffer{}, time.Now()); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got error %v, want one with %q", tt.name, err, tt.want)
		}
	}
	if _, err := (Guest{Dir: t.TempDir()}).Backup(&bytes.Buffer{}, time.Now()); err == nil {
		t.Error("no guest: got no error, want one")
	}
}

// TestRestoreRefuses writes archives that no backup makes.
func TestRestoreRefuses(t *testing.T) {
	spec, err := json.Marshal(Spec{Config: DemoConfig()})
	if err != nil {
		t.Fatal(err)
	}
	type file struct {
		name string
		kind byte
		data string
	}
	good := file{specFile, tar.TypeReg, string(spec)}
	for _, tt := range []struct {
		name, want string
		listed     []file // in the index
		packed     []file
		format     string
	}{
		{"as it should be", "", []file{good}, []file{good}, backupFormat},
		{"another format", "format is", []file{good}, []file{good}, "chrysalis guest backup v2"},
		{"a way out", "is no file of a guest", []file{{"../evil", tar.TypeReg, "x"}}, []file{{"../evil", tar.TypeReg, "x"}}, backupFormat},
		{"a file that is not the guest's", "is no file of a guest", []file{good, {"qemu.log", tar.TypeReg, "x"}}, []file{good, {"qemu.log", tar.TypeReg, "x"}}, backupFormat},
		{"one twice", "out of order", []file{good, good}, []file{good, good}, backupFormat},
		{"out of order", "out of order", []file{{journal, tar.TypeReg, "x"}, good}, []file{{journal, tar.TypeReg, "x"}, good}, backupFormat},
		{"a link", "of kind '2'", []file{good}, []file{{specFile, tar.TypeSymlink, ""}}, backupFormat},
		{"another file than listed", "want guest.json", []file{good}, []file{{journal, tar.TypeReg, "x"}}, backupFormat},
		{"other contents", "with SHA-256", []file{good}, []file{{specFile, tar.TypeReg, strings.ToUpper(string(spec))}}, backupFormat},
		{"too large", "at most", []file{{specFile, tar.TypeReg, strings.Repeat("x", maxSmallBytes+1)}}, []file{{specFile, tar.TypeReg, strings.Repeat("x", maxSmallBytes+1)}}, backupFormat},
		{"a file more", "want the end", []file{good}, []file{good, {journal, tar.TypeReg, "x"}}, backupFormat},
		{"a file less", "looking for", []file{good, {journal, tar.TypeReg, "x"}}, []file{good}, backupFormat},
		{"no guest", "guest.json", []file{}, []file{}, backupFormat},
	} {
		t.Run(tt.name, func(t *testing.T) {
			index := Backup{Format: tt.format, Files: []BackupFile{}}
			for _, f := range tt.listed {
				index.Files = append(index.Files, BackupFile{f.name, int64(len(f.data)), sha256.Sum256([]byte(f.data))})
			}
			text, err := json.Marshal(index)
			if err != nil {
				t.Fatal(err)
			}
			var archive bytes.Buffer
			packed := gzip.NewWriter(&archive)
			out := tar.NewWriter(packed)
			for _, f := range append([]file{{backupIndex, tar.TypeReg, string(text)}}, tt.packed...) {
				if err := out.WriteHeader(&tar.Header{Typeflag: f.kind, Name: f.name, Size: int64(len(f.data)), Linkname: "/etc/passwd"}); err != nil {
					t.Fatal(err)
				}
				if _, err := out.Write([]byte(f.data)); err != nil {
					t.Fatal(err)
				}
			}
			if err := out.Close(); err != nil {
				t.Fatal(err)
			}
			if err := packed.Close(); err != nil {
				t.Fatal(err)
			}
			to := Guest{Dir: filepath.Join(t.TempDir(), "guest")}
			_, err = to.Restore(&archive)
			if tt.want == "" {
				if err != nil {
					t.Errorf("got %v, want it restored", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want one with %q", err, tt.want)
			}
			if left, _ := os.ReadDir(filepath.Dir(to.Dir)); len(left) != 0 {
				t.Errorf("the refusal left %v", left)
			}
		})
	}
}
