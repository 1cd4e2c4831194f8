package image

import (
	"archive/tar"
	"bytes"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"chrysalis/tools/internal/release"
)

func TestPackageFiles(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range []tar.Header{{Name: "./", Typeflag: tar.TypeDir}, {Name: "./lib/", Typeflag: tar.TypeDir},
		{Name: "./lib/modules/a.ko", Typeflag: tar.TypeReg},
		{Name: "./usr/lib/modules/b.ko", Typeflag: tar.TypeReg}, {Name: "./usr/bin/sh", Typeflag: tar.TypeSymlink,
			Linkname: "dash"}, {Name: "./etc/../../x", Typeflag: tar.TypeReg}} {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "cat")
	cmd.Stdin = bytes.NewReader(b.Bytes())
	got, err := packageFiles(cmd)
	if want := []string{"usr/lib/modules/a.ko", "usr/lib/modules/b.ko", "usr/bin/sh", "x"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, error %v, want %q", got, err, want)
	}
	cut := exec.CommandContext(t.Context(), "cat")
	cut.Stdin = bytes.NewReader(b.Bytes()[:700])
	if _, err := packageFiles(cut); err == nil {
		t.Error("an archive that is cut short: got no error")
	}
	if _, err := packageFiles(exec.CommandContext(t.Context(), "false")); err == nil {
		t.Error("a command that fails: got no error")
	}
}

func TestOwnersFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "list")
	want := map[string]string{"usr/bin/a file": "one", "usr/bin/b": "two"}
	if err := writeOwners(file, want); err != nil {
		t.Fatal(err)
	}
	if got, err := readOwners(file); err != nil || !maps.Equal(got, want) {
		t.Errorf("got %v, error %v, want %v", got, err, want)
	}
	if err := writeOwners(file, map[string]string{"a\nb": "one"}); err == nil {
		t.Error("a path with a line break: got no error")
	}
	if err := os.WriteFile(file, []byte("nothing\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := readOwners(file); err == nil {
		t.Error("a line without a path: got no error")
	}
}

// TestOrigins: every file of a release has one owner, and a file whose owner nobody knows stops the build.
func TestOrigins(t *testing.T) {
	o := origins{
		cmdline: DefaultProfile.file(profileCmdline),
		owners:  map[string]string{"etc/shipped": "base-files", "etc/both": "base-files"},
		modules: map[string]string{"a.ko.xz": "linux-modules", "vmlinuz": "linux-binary"},
		list: []rootFile{{from: "base", path: "etc/shipped"}, {from: "base", path: "etc/made", by: "ca-certificates"},
			{from: "base", path: "etc/nobody"},
			{from: "base", path: "etc/both", by: "ca-certificates"}, {from: "guest", path: "usr/bin/runc"}, {from: "guest", path: "usr/bin/other"},
			{from: "dir", path: "var"}},
	}
	for _, tt := range []struct {
		file, path string
		want       release.Origin
		err        string
	}{
		{"OVMF_CODE.fd", "", release.Origin{Kind: release.FromPackage, Name: "ovmf"}, ""},
		{"vmlinuz", "", release.Origin{Kind: release.FromPackage, Name: "linux-binary"}, ""},
		{"cmdline", "", release.Origin{Kind: release.FromSource, Name: "image/mkosi.profiles/cpu/cmdline"}, ""},
		{"root.img", "", release.Origin{Kind: release.FromBuild}, ""},
		{"root.img", "etc", release.Origin{Kind: release.FromBuild}, ""},
		{"root.img", "var", release.Origin{Kind: release.FromBuild}, ""},
		{"root.img", "etc/shipped", release.Origin{Kind: release.FromPackage, Name: "base-files"}, ""},
		{"root.img", "etc/made", release.Origin{Kind: release.FromScript, Name: "ca-certificates"}, ""},
		{"root.img", "etc/nobody", release.Origin{}, "want exactly one"},
		{"root.img", "etc/both", release.Origin{}, "want exactly one"},
		{"root.img", "usr/bin/runc", release.Origin{Kind: release.FromGo, Name: "github.com/opencontainers/runc"}, ""},
		{"root.img", "usr/bin/other", release.Origin{}, "none of the programs"},
		{"initrd", "init", release.Origin{Kind: release.FromGo, Name: "chrysalis/init"}, ""},
		{"initrd", "root.json", release.Origin{Kind: release.FromBuild}, ""},
		{"initrd", "modules/00-a.ko.xz", release.Origin{Kind: release.FromPackage, Name: "linux-modules"}, ""},
		{"initrd", "modules/01-b.ko.xz", release.Origin{}, "no package"},
	} {
		got, err := o.of(tt.file, tt.path)
		if got != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s %s: got %+v, error %v, want %+v, %q", tt.file, tt.path, got, err, tt.want, tt.err)
		}
	}
}
