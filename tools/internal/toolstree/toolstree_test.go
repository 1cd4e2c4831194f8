package toolstree

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// fakeTree is a tree whose loader prints the environment's module folder and its arguments, one a line.
func fakeTree(t *testing.T) Tree {
	t.Helper()
	root := filepath.Join(t.TempDir(), "a tree's root")
	for name, text := range map[string]string{
		loader:                        "#!/bin/sh\necho \"$QEMU_MODULE_DIR\"\nprintf '%s\\n' \"$@\"\n",
		"usr/bin/swtpm":               "program",
		"usr/sbin/veritysetup":        "program",
		"usr/bin/qemu-system-x86_64":  "program",
		"usr/share/OVMF/OVMF_CODE.fd": "firmware",
	} {
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	tree, err := Open(root)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func output(t *testing.T, cmd *exec.Cmd) []string {
	t.Helper()
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

func TestCommandUsesTheTreesLoader(t *testing.T) {
	tree := fakeTree(t)
	lib := tree.Path("usr/lib/x86_64-linux-gnu")
	for _, tt := range []struct {
		program string
		want    []string
	}{
		{"swtpm", []string{tree.Path("usr/bin/swtpm"), "--version"}},
		{"veritysetup", []string{tree.Path("usr/sbin/veritysetup"), "--version"}},
		{"qemu-system-x86_64", []string{tree.Path("usr/bin/qemu-system-x86_64"), "-L", tree.Path("usr/share/qemu"), "--version"}},
	} {
		got := output(t, tree.Command(t.Context(), tt.program, "--version"))
		want := slices.Concat([]string{lib + "/qemu", "--library-path", lib + ":" + lib + "/swtpm:" + lib + "/systemd"}, tt.want)
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", tt.program, got, want)
		}
	}
}

// TestNewerQEMU runs the QEMU beside the tree with the tree's own loader and libraries, and every other program as before.
func TestNewerQEMU(t *testing.T) {
	tree := fakeTree(t)
	if _, err := tree.WithNewerQEMU(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no QEMU beside the tree: got error %v, want %v", err, fs.ErrNotExist)
	}
	dir := filepath.Join(filepath.Dir(tree.Path(".")), QEMUDir)
	program := filepath.Join(dir, "usr/bin/qemu-system-x86_64")
	if err := errors.Join(os.MkdirAll(filepath.Dir(program), 0o755), os.WriteFile(program, nil, 0o755)); err != nil {
		t.Fatal(err)
	}
	newer, err := tree.WithNewerQEMU()
	if err != nil {
		t.Fatal(err)
	}
	lib := tree.Path("usr/lib/x86_64-linux-gnu")
	want := []string{filepath.Join(dir, "usr/lib/x86_64-linux-gnu/qemu"), "--library-path", lib + ":" + lib + "/swtpm:" + lib + "/systemd", program,
		"-L", filepath.Join(dir, "usr/share/qemu"), "--version"}
	if got := output(t, newer.Command(t.Context(), "qemu-system-x86_64", "--version")); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := output(t, newer.Command(t.Context(), "swtpm")); got[3] != tree.Path("usr/bin/swtpm") {
		t.Errorf("swtpm: got %q, want the tree's own", got)
	}
	before, err := tree.Stamp("qemu-system-x86_64")
	if err != nil {
		t.Fatal(err)
	}
	if after, err := newer.Stamp("qemu-system-x86_64"); err != nil || after == before {
		t.Errorf("stamp of the newer QEMU: got %q, error %v, want another than %q", after, err, before)
	}
}

func TestMissingProgram(t *testing.T) {
	tree := fakeTree(t)
	if err := tree.Command(t.Context(), "nosuch").Run(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("running a program that is not there: got error %v, want %v", err, fs.ErrNotExist)
	}
	if _, err := Open(t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("opening an empty folder: got error %v, want %v", err, fs.ErrNotExist)
	}
}
