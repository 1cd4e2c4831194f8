package release

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/cavaliergopher/cpio"
	"github.com/erofs/go-erofs"

	"chrysalis/measure/volume"
)

// entry is a file of an initrd.
type entry struct {
	name, data string
	mode       cpio.FileMode
	time       time.Time
	uid        int
}

func exampleInitrd() []entry {
	return []entry{{name: "init", data: "init", mode: 0o755}, {name: "modules/00-a.ko.xz", data: "module", mode: 0o644},
		{name: "root.json", data: "{}", mode: 0o644}}
}

func written(t *testing.T, entries []entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := cpio.NewWriter(&b)
	for i, e := range entries {
		h := &cpio.Header{Name: e.name, Mode: cpio.TypeReg | e.mode, Size: int64(len(e.data)), Inode: int64(i + 1), Links: 1,
			ModTime: e.time, Uid: e.uid}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// folder writes a release folder with a root, an initrd and a command line.
func folder(t *testing.T, tree fstest.MapFS, initrd []entry, cmdline string) string {
	t.Helper()
	dir := t.TempDir()
	root, err := os.Create(filepath.Join(dir, "root.img"))
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if _, err := volume.Pack(t.Context(), tree, root, volume.Options{}); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"initrd": written(t, initrd), "cmdline": []byte(cmdline)} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func exampleTree() fstest.MapFS {
	return fstest.MapFS{
		"usr/bin/init": {Data: bytes.Repeat([]byte("init"), 3000), Mode: 0o755},
		"etc/certs":    {Data: []byte("certificates"), Mode: 0o644},
		"lib":          {Data: []byte("usr/lib"), Mode: fs.ModeSymlink | 0o777},
	}
}

func TestCompare(t *testing.T) {
	a := folder(t, exampleTree(), exampleInitrd(), "quiet")
	for _, tt := range []struct {
		name    string
		change  func(tree fstest.MapFS, initrd *[]entry, cmdline *string)
		file    string
		path    string
		kind    string
		detail  string
		nothing bool
	}{
		{name: "nothing", change: func(fstest.MapFS, *[]entry, *string) {}, nothing: true},
		{name: "a mode", change: func(tree fstest.MapFS, _ *[]entry, _ *string) { tree["etc/certs"].Mode = 0o755 },
			file: "root.img", path: "etc/certs", kind: "mode"},
		{name: "a byte", change: func(tree fstest.MapFS, _ *[]entry, _ *string) { tree["usr/bin/init"].Data[5000] ^= 1 },
			file: "root.img", path: "usr/bin/init", kind: "content", detail: "from byte 5000"},
		{name: "a file more", change: func(tree fstest.MapFS, _ *[]entry, _ *string) {
			tree["bin/sh"] = &fstest.MapFile{Data: []byte("sh"), Mode: 0o755}
		}, file: "root.img", path: "bin", kind: "extra"},
		{name: "a file less", change: func(tree fstest.MapFS, _ *[]entry, _ *string) { delete(tree, "etc/certs") },
			file: "root.img", path: "etc", kind: "missing"},
		{name: "a link", change: func(tree fstest.MapFS, _ *[]entry, _ *string) { tree["lib"].Data = []byte("usr/lob") },
			file: "root.img", path: "lib", kind: "link", detail: "usr/lob"},
		{name: "the initrd", change: func(_ fstest.MapFS, initrd *[]entry, _ *string) { *initrd = (*initrd)[:len(*initrd)-1] },
			file: "initrd", kind: "missing"},
		{name: "a mode in the initrd", change: func(_ fstest.MapFS, initrd *[]entry, _ *string) { (*initrd)[0].mode = 0o700 },
			file: "initrd", path: "init", kind: "mode", detail: "-rwx------"},
		{name: "a time in the initrd", change: func(_ fstest.MapFS, initrd *[]entry, _ *string) { (*initrd)[1].time = time.Unix(1790000000, 0) },
			file: "initrd", path: "modules/00-a.ko.xz", kind: "time", detail: "1790000000."},
		{name: "an owner in the initrd", change: func(_ fstest.MapFS, initrd *[]entry, _ *string) { (*initrd)[2].uid = 1000 },
			file: "initrd", path: "root.json", kind: "owner", detail: "1000:0"},
		{name: "the order in the initrd", change: func(_ fstest.MapFS, initrd *[]entry, _ *string) { slices.Reverse(*initrd) },
			file: "initrd", path: "init", kind: "order", detail: "entry 2"},
		{name: "the command line", change: func(_ fstest.MapFS, _ *[]entry, cmdline *string) { *cmdline = "quiet debug" },
			file: "cmdline", kind: "content", detail: "from byte 5"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tree, initrd, cmdline := exampleTree(), exampleInitrd(), "quiet"
			tt.change(tree, &initrd, &cmdline)
			got, err := Compare(a, folder(t, tree, initrd, cmdline))
			if err != nil {
				t.Fatal(err)
			}
			if tt.nothing {
				if len(got) != 0 {
					t.Errorf("got %+v, want no difference", got)
				}
				return
			}
			if len(got) == 0 {
				t.Fatal("got no difference, want one")
			}
			d := got[0]
			if d.File != tt.file || tt.path != "" && d.Path != tt.path || d.Kind != tt.kind || !strings.Contains(d.A+d.B, tt.detail) {
				t.Errorf("got %+v, want %s in %s %s with %q", d, tt.kind, tt.file, tt.path, tt.detail)
			}
		})
	}
}

// TestDifferingBytes: first, last and number of the differing bytes.
func TestDifferingBytes(t *testing.T) {
	for _, tt := range []struct{ a, b, want string }{
		{"same", "samX", "1 of 4, from byte 3 to byte 3"},
		{"abcd", "Xbcd and more", "1 of 4, from byte 0 to byte 0, and one is 9 bytes longer"},
		{"abcdef", "aXcdXf", "2 of 6, from byte 1 to byte 4"},
		{"abc", "abcdef", "none of the common bytes, and one is 3 bytes longer"},
	} {
		if got := DifferingBytes([]byte(tt.a), []byte(tt.b)); got != tt.want {
			t.Errorf("%q and %q: got %q, want %q", tt.a, tt.b, got, tt.want)
		}
	}
}

// TestSetUserIDShows: a root that another packer made may have what ours never writes.
func TestSetUserIDShows(t *testing.T) {
	read := func(mode fs.FileMode) fs.FileMode {
		t.Helper()
		f, err := os.Create(filepath.Join(t.TempDir(), "root.img"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		w := erofs.Create(f)
		if err := errors.Join(w.CopyFrom(fstest.MapFS{"su": {Data: []byte("program"), Mode: mode}}), w.Close()); err != nil {
			t.Fatal(err)
		}
		image, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		entries, err := readRoot(image)
		if err != nil {
			t.Fatal(err)
		}
		return entries["su"].mode
	}
	if got, want := read(fs.ModeSetuid|0o755), fs.ModeSetuid|0o755; got != want {
		t.Errorf("mode: got %v, want %v", got, want)
	}
	if got, want := read(0o755), fs.FileMode(0o755); got != want {
		t.Errorf("mode: got %v, want %v", got, want)
	}
}

// TestCompareNeedsReleases: nothing is the same as nothing, and says nothing about a release.
func TestCompareNeedsReleases(t *testing.T) {
	full := folder(t, fstest.MapFS{"usr/bin/init": {Data: []byte("init"), Mode: 0o755}}, exampleInitrd(), "quiet")
	if _, err := Compare(full, full); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{t.TempDir(), filepath.Join(t.TempDir(), "nowhere")} {
		for _, pair := range [][2]string{{full, dir}, {dir, full}, {dir, dir}} {
			if _, err := Compare(pair[0], pair[1]); err == nil || !strings.Contains(err.Error(), dir+" holds no file of a release") {
				t.Errorf("Compare(%q): got %v, want %s refused", pair, err, dir)
			}
		}
	}
}
