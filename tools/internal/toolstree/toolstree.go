// Package toolstree runs the programs of the tools tree: a Debian root, built from a lock, that holds every program the
// build and the tests need (mkosi, gcc, QEMU, swtpm, veritysetup, nginx), so that the machine's own versions never matter.
//
// Command runs one program through the tree's own dynamic loader: no root, the machine's file system stays as it is. Enter
// makes the tree the root of a private mount namespace and needs root; it is for programs that start others by path.
// The tree is not a sandbox: both run with the caller's rights.
package toolstree

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// Tree is a tools tree on disk.
type Tree struct {
	root string
	qemu string // folder whose QEMU is used instead of the tree's own; "" is none
}

// QEMUDir is the folder, beside a tools tree, of another QEMU that runs over the tree's libraries: the newer one, which
// knows confidential guests.
const QEMUDir = "qemu"

// LibvirtDir is the folder, beside a tools tree, of a tree with libvirt and that QEMU.
const LibvirtDir = "libvirt"

// WithLibvirt returns the tree with libvirt.
func (t Tree) WithLibvirt() (Tree, error) {
	tree, err := Open(filepath.Join(filepath.Dir(t.root), LibvirtDir))
	if err != nil {
		return Tree{}, fmt.Errorf("opening libvirt beside the tools tree: %w", err)
	}
	return tree, nil
}

// BrowserDir is the folder, beside a tools tree, of a tree with browsers that need no screen.
const BrowserDir = "browser"

// WithBrowser returns the tree with the browsers.
func (t Tree) WithBrowser() (Tree, error) {
	tree, err := Open(filepath.Join(filepath.Dir(t.root), BrowserDir))
	if err != nil {
		return Tree{}, fmt.Errorf("opening the browsers beside the tools tree: %w", err)
	}
	return tree, nil
}

// WithNewerQEMU returns the tree with the QEMU beside it instead of its own.
func (t Tree) WithNewerQEMU() (Tree, error) {
	dir := filepath.Join(filepath.Dir(t.root), QEMUDir)
	if _, err := os.Stat(filepath.Join(dir, "usr/bin/qemu-system-x86_64")); err != nil {
		return Tree{}, fmt.Errorf("opening QEMU beside the tools tree: %w", err)
	}
	t.qemu = dir
	return t, nil
}

const loader = "usr/lib64/ld-linux-x86-64.so.2"

// Open returns the tree at root.
func Open(root string) (Tree, error) {
	if runtime.GOOS != "linux" {
		return Tree{}, fmt.Errorf("opening tools tree: its programs are Linux's, and this is %s", runtime.GOOS)
	}
	abs, err := filepath.Abs(root)
	if err != nil {
		return Tree{}, fmt.Errorf("opening tools tree: %w", err)
	}
	if _, err := os.Stat(filepath.Join(abs, loader)); err != nil {
		return Tree{}, fmt.Errorf("opening tools tree: %w", err)
	}
	return Tree{root: abs}, nil
}

// Path returns the path of a file of the tree, given relative to the tree's root.
func (t Tree) Path(name string) string { return filepath.Join(t.root, name) }

// Firmware returns the paths of OVMF's code and of its empty variable store.
func (t Tree) Firmware() (code, vars string) {
	return t.Path("usr/share/OVMF/OVMF_CODE_4M.fd"), t.Path("usr/share/OVMF/OVMF_VARS_4M.fd")
}

// Stamp tells builds of a program apart without running it: its path's file, size and time.
func (t Tree) Stamp(program string) (string, error) {
	argv, err := t.argv(program)
	if err != nil {
		return "", err
	}
	path := argv[len(argv)-1]
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s %d %d", path, info.Size(), info.ModTime().UnixNano()), nil
}

// Command returns a command that runs the named program of the tree with the tree's own loader and libraries. It inherits
// the environment; QEMU additionally gets the tree's data and module folders. A program that is not there shows as Err.
func (t Tree) Command(ctx context.Context, program string, args ...string) *exec.Cmd {
	argv, err := t.argv(program)
	if err != nil {
		cmd := exec.CommandContext(ctx, program)
		cmd.Err = err
		return cmd
	}
	if strings.HasPrefix(program, "qemu-system-") {
		argv = append(argv, "-L", filepath.Join(t.qemuRoot(), "usr/share/qemu"))
	}
	cmd := exec.CommandContext(ctx, argv[0], append(argv[1:], args...)...)
	cmd.Env = append(os.Environ(), "QEMU_MODULE_DIR="+filepath.Join(t.qemuRoot(), "usr/lib/x86_64-linux-gnu/qemu"))
	return cmd
}

func (t Tree) qemuRoot() string { return cmp.Or(t.qemu, t.root) }

func (t Tree) argv(program string) ([]string, error) {
	root := t.root
	if strings.HasPrefix(program, "qemu-system-") {
		root = t.qemuRoot()
	}
	for _, dir := range []string{"usr/bin", "usr/sbin"} {
		path := filepath.Join(root, dir, program)
		_, err := os.Stat(path)
		if err == nil {
			return []string{t.Path(loader), "--library-path", t.libraries(), path}, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("finding %s in the tools tree: %w", program, err)
		}
	}
	return nil, fmt.Errorf("finding %s in the tools tree %s: %w", program, t.root, fs.ErrNotExist)
}

func (t Tree) libraries() string {
	lib := t.Path("usr/lib/x86_64-linux-gnu")
	return lib + ":" + filepath.Join(lib, "swtpm") + ":" + filepath.Join(lib, "systemd")
}
