package packages

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var files = []File{{Path: "usr/share/doc/x/copyright", Data: []byte("free\n")}, {Path: "usr/bin/x", Program: true, Data: []byte("program")}, {Path: "usr/bin/y", Data: nil}}

var control = Control{Name: "xx", Version: "1.0~rc1", Architecture: "amd64", Maintainer: "Somebody <somebody@example.invalid>", Section: "net", Summary: "does x",
	Description: "It does x.\n\nAnd no more."}

// listed are the entries of a tar archive under gzip.
func listed(t *testing.T, data []byte) (entries []string) {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	r := tar.NewReader(z)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return entries
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil || h.Uid != 0 || h.Gid != 0 || !h.ModTime.Equal(epoch) {
			t.Errorf("%s: %v, owner %d/%d, made %s", h.Name, err, h.Uid, h.Gid, h.ModTime)
		}
		entries = append(entries, fmt.Sprintf("%o %s %s", h.Mode, h.Name, content))
	}
}

// TestTarball: folders come before what is in them, in order, and the order of the files that are given does not matter.
func TestTarball(t *testing.T) {
	data, err := Tarball(files)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"755 usr/ ", "755 usr/bin/ ", "755 usr/bin/x program", "644 usr/bin/y ", "755 usr/share/ ", "755 usr/share/doc/ ", "755 usr/share/doc/x/ ",
		"644 usr/share/doc/x/copyright free\n"}
	if got := listed(t, data); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	backwards := slices.Clone(files)
	slices.Reverse(backwards)
	if again, err := Tarball(backwards); err != nil || !bytes.Equal(again, data) {
		t.Errorf("another order makes other bytes (%v)", err)
	}
	for _, bad := range []string{"/etc/passwd", "../x", "a/../b", "", ".", "a//b"} {
		if _, err := Tarball([]File{{Path: bad}}); err == nil {
			t.Errorf("path %q: got no error", bad)
		}
	}
	if _, err := Tarball([]File{{Path: "a"}, {Path: "a"}}); err == nil {
		t.Error("a path twice: got no error")
	}
	if _, err := Tarball([]File{{Path: "a"}, {Path: "a/b"}}); err == nil {
		t.Error("a file that is a folder: got no error")
	}
}

// TestDeb: the package is made of what it must be made of, twice the same, and dpkg reads it where there is one.
func TestDeb(t *testing.T) {
	deb, err := Deb(control, files)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Deb(control, files); err != nil || !bytes.Equal(again, deb) {
		t.Errorf("twice the same makes other bytes (%v)", err)
	}
	rest, ok := bytes.CutPrefix(deb, []byte("!<arch>\n"))
	var names []string
	members := map[string][]byte{}
	for ok && len(rest) > 0 {
		var size int
		name := strings.TrimSpace(string(rest[:16]))
		if _, err := fmt.Sscan(string(rest[48:58]), &size); err != nil || string(rest[58:60]) != "`\n" {
			t.Fatalf("header %q: %v", rest[:60], err)
		}
		names, members[name] = append(names, name), rest[60:60+size]
		rest = rest[60+size+size%2:]
	}
	if want := []string{"debian-binary", "control.tar.gz", "data.tar.gz"}; !slices.Equal(names, want) || string(members["debian-binary"]) != "2.0\n" {
		t.Fatalf("members are %q, want %q", names, want)
	}
	about := strings.Join(listed(t, members["control.tar.gz"]), "\n")
	for _, want := range []string{"644 ./control Package: xx\nVersion: 1.0~rc1\nArchitecture: amd64\n", "Installed-Size: 1\n", "Description: does x\n It does x.\n .\n And no more.\n",
		"644 ./md5sums ", "  usr/bin/x\n"} {
		if !strings.Contains(about, want) {
			t.Errorf("control lacks %q:\n%s", want, about)
		}
	}
	if got := listed(t, members["data.tar.gz"]); !slices.Contains(got, "755 ./usr/bin/x program") {
		t.Errorf("data holds %q", got)
	}
	for name, change := range map[string]func(*Control){
		"a name":      func(c *Control) { c.Name = "X" },
		"a version":   func(c *Control) { c.Version = "v1" },
		"a revision":  func(c *Control) { c.Version = "1-1" },
		"a line more": func(c *Control) { c.Summary = "x\nDepends: y" },
		"nobody":      func(c *Control) { c.Maintainer = "" },
	} {
		c := control
		change(&c)
		if _, err := Deb(c, files); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
	dpkg, err := exec.LookPath("dpkg-deb")
	if err != nil {
		t.Skip("no dpkg-deb here to read the package")
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "x.deb")
	if err := os.WriteFile(file, deb, 0o600); err != nil {
		t.Fatal(err)
	}
	said, err := exec.CommandContext(t.Context(), dpkg, "--field", file, "Version", "Installed-Size").CombinedOutput()
	if err != nil || string(said) != "Version: 1.0~rc1\nInstalled-Size: 1\n" {
		t.Errorf("dpkg-deb says %q (%v)", said, err)
	}
	if said, err := exec.CommandContext(t.Context(), dpkg, "--extract", file, filepath.Join(dir, "root")).CombinedOutput(); err != nil || len(said) > 0 {
		t.Errorf("dpkg-deb --extract says %q (%v)", said, err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "root/usr/bin/x")); err != nil || string(got) != "program" {
		t.Errorf("what dpkg-deb extracts is %q (%v)", got, err)
	}
}
