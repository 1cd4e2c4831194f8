package release

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/cavaliergopher/cpio"

	"chrysalis/measure"
)

// TestCheckContents: contents are held against what lies in the folder and inside its archives, in both directions.
func TestCheckContents(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	initrd := append(exampleInitrd()[1:], entry{name: "init", data: string(program), mode: 0o755})
	slices.SortFunc(initrd, func(a, b entry) int { return strings.Compare(a.name, b.name) })
	fill := func(dir string) string {
		for _, name := range measure.ReleaseFiles() {
			if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
				if err := os.WriteFile(filepath.Join(dir, name), []byte("content of "+name), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}
		return dir
	}
	dir := fill(folder(t, exampleTree(), initrd, "quiet"))
	good, err := Describe(dir, measure.ReleaseFiles(), func(_, path string) (Origin, error) {
		if path == "init" {
			return Origin{FromGo, "chrysalis/tools/internal/release.test"}, nil
		}
		return Origin{Kind: FromBuild}, nil
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		dir  func() string
		list func(c *Contents)
		want string // "" is accepted
	}{
		{name: "as listed"},
		{name: "a byte in the root", dir: func() string {
			tree := exampleTree()
			tree["usr/bin/init"].Data[5000] ^= 1
			return fill(folder(t, tree, initrd, "quiet"))
		}, want: "root.img: usr/bin/init is -rwxr-xr-x"},
		{name: "a mode in the root", dir: func() string {
			tree := exampleTree()
			tree["etc/certs"].Mode = 0o755
			return fill(folder(t, tree, initrd, "quiet"))
		}, want: "root.img: etc/certs is -rwxr-xr-x"},
		{name: "a file more", dir: func() string {
			tree := exampleTree()
			tree["bin/sh"] = &fstest.MapFile{Data: []byte("sh"), Mode: 0o755}
			return fill(folder(t, tree, initrd, "quiet"))
		}, want: "root.img: bin is not listed"},
		{name: "a file less", dir: func() string { return fill(folder(t, exampleTree(), initrd[:len(initrd)-1], "quiet")) },
			want: "initrd: root.json is listed, and not there"},
		{name: "a file of the folder", dir: func() string { return fill(folder(t, exampleTree(), initrd, "quiet debug")) },
			want: "cmdline is -rw-r--r--"},
		{name: "another setting of a program", list: func(c *Contents) { c.Programs[0].Settings = []string{"-race=true"} },
			want: "programs are not those"},
		{name: "no program", list: func(c *Contents) { c.Programs = nil }, want: "programs are not those"},
		{name: "a root that is none", dir: func() string {
			dir := fill(folder(t, exampleTree(), initrd, "quiet"))
			if err := os.WriteFile(filepath.Join(dir, "root.img"), []byte("x"), 0o644); err != nil {
				t.Fatal(err)
			}
			return dir
		}, want: "reading root.img"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			at, c := dir, good
			c.Programs = slices.Clone(good.Programs)
			if tt.dir != nil {
				at = tt.dir()
			}
			if tt.list != nil {
				tt.list(&c)
			}
			err := CheckContents(at, c)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want one with %q", err, tt.want)
			}
		})
	}
}

func TestInitrdFile(t *testing.T) {
	dir := folder(t, exampleTree(), append(exampleInitrd(), entry{name: "run", mode: cpio.TypeDir | 0o755}), "quiet")
	if got, err := InitrdFile(dir, "root.json"); err != nil || string(got) != "{}" {
		t.Errorf("got %q, error %v, want {}", got, err)
	}
	if _, err := InitrdFile(dir, "image.json"); err == nil {
		t.Error("a file that is not there: got no error")
	}
	if _, err := InitrdFile(t.TempDir(), "root.json"); err == nil {
		t.Error("no initrd: got no error")
	}
}

// TestHashFile: what is no regular file is refused before it is opened, for a pipe's reader waits.
func TestHashFile(t *testing.T) {
	dir := t.TempDir()
	if _, _, err := HashFile(dir); err == nil || !strings.Contains(err.Error(), "no regular file") {
		t.Errorf("a folder: got error %v", err)
	}
	if _, _, err := HashFile(filepath.Join(dir, "nothing")); err == nil {
		t.Error("nothing: got no error")
	}
	if err := os.WriteFile(filepath.Join(dir, "x"), []byte("hello\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if sum, n, err := HashFile(filepath.Join(dir, "x")); err != nil || n != 6 ||
		sum.String() != "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03" {
		t.Errorf("got %s, %d, %v", sum, n, err)
	}
}
