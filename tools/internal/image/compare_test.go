package image

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"chrysalis/measure/volume"
)

// release writes a folder with a root, an initrd and a command line.
func release(t *testing.T, tree fstest.MapFS, initrd []entry, cmdline string) string {
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

func TestCompareReleases(t *testing.T) {
	a := release(t, exampleTree(), testEntries(t), "quiet")
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
		{name: "the command line", change: func(_ fstest.MapFS, _ *[]entry, cmdline *string) { *cmdline = "quiet debug" },
			file: "cmdline", kind: "content", detail: "from byte 5"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tree, initrd, cmdline := exampleTree(), testEntries(t), "quiet"
			tt.change(tree, &initrd, &cmdline)
			got, err := CompareReleases(a, release(t, tree, initrd, cmdline))
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
