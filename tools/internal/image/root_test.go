package image

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"chrysalis/measure/config"
)

const sourceTree = "../../.."

func projectRootList(t *testing.T) []rootFile {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(sourceTree, "image", "root.list"))
	if err != nil {
		t.Fatal(err)
	}
	list, err := parseRootList(data)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// TestRootList is the allow-list of the root: adding a file to the image means adding it here and saying why.
func TestRootList(t *testing.T) {
	want := []rootFile{
		{"base", "etc/ssl/certs/ca-certificates.crt", "ca-certificates"}, // for the chain's liteservers and GPU evidence services
		{from: "dir", path: "dev"}, {from: "dir", path: "proc"}, {from: "dir", path: "run"}, {from: "dir", path: "sys"},
		{from: "dir", path: "tmp"},
		{from: "guest", path: "usr/bin/containerd"}, {from: "guest", path: "usr/bin/containerd-shim-runc-v2"},
		{from: "guest", path: "usr/bin/custody"}, // lender and borrower, with the verifier
		{from: "guest", path: "usr/bin/engine-host"},
		{from: "guest", path: "usr/bin/fetch"}, // liteservers
		{from: "guest", path: "usr/bin/init"}, {from: "guest", path: "usr/bin/runc"},
		{from: "guest", path: "usr/bin/runtime"},
		{from: "dir", path: "var"},
	}
	if got := projectRootList(t); !slices.Equal(got, want) {
		t.Errorf("root list: got %v, want %v", got, want)
	}
}

// fill makes a base with all that Debian would bring, and a folder of programs with one too many.
func fill(t *testing.T) (base, guest string) {
	t.Helper()
	base, guest = t.TempDir(), t.TempDir()
	for dir, names := range map[string][]string{
		base: {"etc/ssl/certs/ca-certificates.crt", "etc/passwd", "usr/bin/bash", "usr/bin/perl", "usr/bin/dpkg", "usr/lib/systemd/systemd",
			"usr/bin/init"},
		guest: {"init", "runtime", "custody", "fetch", "engine-host", "containerd", "containerd-shim-runc-v2", "runc", "chrysalis"},
	} {
		for _, name := range names {
			path := filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(filepath.Base(dir)+name), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	return base, guest
}

func TestStagedRootIsTheList(t *testing.T) {
	base, guest := fill(t)
	list := projectRootList(t)
	dir := filepath.Join(t.TempDir(), "root")
	if err := stageRoot(dir, list, base, guest); err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, f := range list {
		for p := f.path; p != "."; p = filepath.Dir(p) {
			want = append(want, p)
		}
	}
	slices.Sort(want)
	want = slices.Compact(want)
	if got := names(t, os.DirFS(dir)); !slices.Equal(got, want) {
		t.Errorf("staged root: got %q, want %q", got, want)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "usr/bin/init")); err != nil || string(got) != filepath.Base(guest)+"init" {
		t.Errorf("init: got %q, error %v, want the guest's own, not the base's", got, err)
	}
}

func names(t *testing.T, tree fs.FS) []string {
	t.Helper()
	var got []string
	err := fs.WalkDir(tree, ".", func(path string, d fs.DirEntry, err error) error {
		if path != "." {
			got = append(got, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(got)
	return got
}

func TestStageRootRefuses(t *testing.T) {
	base, guest := fill(t)
	if err := os.Symlink("bash", filepath.Join(base, "usr/bin/sh")); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		file rootFile
	}{
		{"a file that the base lacks", rootFile{from: "base", path: "etc/nosuch"}},
		{"a program that was not built", rootFile{from: "guest", path: "usr/bin/nosuch"}},
		{"a link", rootFile{from: "base", path: "usr/bin/sh"}},
		{"a folder as a file", rootFile{from: "base", path: "usr/bin"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := stageRoot(filepath.Join(t.TempDir(), "root"), []rootFile{tt.file}, base, guest); err == nil {
				t.Error("got no error, want a refusal")
			}
		})
	}
}

func TestParseRootListRefuses(t *testing.T) {
	for _, text := range []string{"", "# only a comment\n", "base\n", "copy etc/passwd\n", "dir var by base-files\n", "base etc/passwd by\n",
		"base etc/passwd by base-passwd too\n", "base /etc/passwd\n", "base ../etc/passwd\n", "dir dev/\n"} {
		if list, err := parseRootList([]byte(text)); err == nil {
			t.Errorf("%q: got %v, want a refusal", text, list)
		}
	}
}

// TestRootVolumeIsReproducible packs the same root from two folders of another name and umask, and one with one changed mode.
func TestRootVolumeIsReproducible(t *testing.T) {
	pack := func(change func(base, guest string)) config.Volume {
		t.Helper()
		base, guest := t.TempDir(), t.TempDir()
		for _, f := range projectRootList(t) {
			path := filepath.Join(base, f.path)
			mode := os.FileMode(0o644)
			if f.from == "guest" {
				path, mode = filepath.Join(guest, filepath.Base(f.path)), 0o755
			}
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(f.path), mode); err != nil {
				t.Fatal(err)
			}
		}
		change(base, guest)
		b := Builder{Source: sourceTree, Work: t.TempDir()}
		ref, err := b.buildRoot(t.Context(), base, guest, filepath.Join(t.TempDir(), "root.img"))
		if err != nil {
			t.Fatal(err)
		}
		return ref
	}
	chmod := func(path string, mode os.FileMode) {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	first := pack(func(base, guest string) {})
	strict := pack(func(base, guest string) {
		chmod(filepath.Join(base, "etc/ssl/certs/ca-certificates.crt"), 0o600)
		chmod(filepath.Join(guest, "init"), 0o700)
	})
	if first != strict {
		t.Errorf("modes as under umask 077: got root %x, want %x", strict.Root, first.Root)
	}
	changed := pack(func(base, guest string) { chmod(filepath.Join(base, "etc/ssl/certs/ca-certificates.crt"), 0o755) })
	if first == changed {
		t.Error("one changed mode: got the same root, want another")
	}
}

func TestModelIsTheOneDescribed(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(sourceTree, "image/model/tiny.gguf"))
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile(filepath.Join(sourceTree, "image/model/README.md"))
	if err != nil {
		t.Fatal(err)
	}
	if sum := fmt.Sprintf("%x", sha256.Sum256(data)); !strings.Contains(string(readme), sum) {
		t.Errorf("image/model/README.md does not name the model's hash %s", sum)
	}
}
