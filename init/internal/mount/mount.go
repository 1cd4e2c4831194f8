// Package mount makes the guest's file systems: a fixed table, no fstab, nothing from a disk that is not verified.
package mount

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

type entry struct {
	kind, dir string
	flags     uintptr
	data      string
}

const guarded = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// early is what both stages need; the second finds it moved over from the first.
var early = []entry{
	{"devtmpfs", "/dev", unix.MS_NOSUID | unix.MS_NOEXEC, "mode=0755"},
	{"proc", "/proc", guarded, "hidepid=invisible"},
	{"sysfs", "/sys", guarded, ""},
}

// late is what PID 1 adds on the verified root.
var late = []entry{
	{"configfs", "/sys/kernel/config", guarded, ""}, // requests for evidence of TDX and SEV-SNP
	{"securityfs", "/sys/kernel/security", guarded | unix.MS_RDONLY, ""},
	{"cgroup2", "/sys/fs/cgroup", guarded, "nsdelegate,memory_recursiveprot"},
	{"devpts", "/dev/pts", unix.MS_NOSUID | unix.MS_NOEXEC, "mode=0620,ptmxmode=0666"},
	{"tmpfs", "/dev/shm", guarded, "mode=1777,size=16m"},
	{"tmpfs", "/run", guarded, "mode=0755,size=64m"},
	{"tmpfs", "/tmp", guarded, "mode=1777,size=16m"},
	{"tmpfs", "/var", guarded, "mode=0755,size=64m"},
}

// Early mounts what the initrd needs.
func Early() error { return all(early) }

// Late mounts what the root needs beyond Early.
func Late() error { return all(late) }

func all(entries []entry) error {
	for _, e := range entries {
		if err := os.MkdirAll(e.dir, 0o755); err != nil {
			return fmt.Errorf("mounting %s: %v", e.dir, err)
		}
		if err := unix.Mount(e.kind, e.dir, e.kind, e.flags, e.data); err != nil {
			return fmt.Errorf("mounting %s on %s: %v", e.kind, e.dir, err)
		}
	}
	return nil
}

// Volume mounts the erofs of a verity device, read-only. Programs run from it only with exec.
func Volume(device, dir string, exec bool) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("mounting volume on %s: %v", dir, err)
	}
	flags := uintptr(unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV)
	if !exec {
		flags |= unix.MS_NOEXEC
	}
	if err := unix.Mount(device, dir, "erofs", flags, ""); err != nil {
		return fmt.Errorf("mounting volume %s on %s: %v", device, dir, err)
	}
	return nil
}

// Bind makes dir visible at target.
func Bind(dir, target string) error {
	if err := os.MkdirAll(target, 0o755); err != nil {
		return fmt.Errorf("binding %s: %v", target, err)
	}
	if err := unix.Mount(dir, target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("binding %s at %s: %v", dir, target, err)
	}
	return nil
}

// SwitchRoot moves the early mounts into newRoot, makes it the root and frees the initrd's files.
func SwitchRoot(newRoot string) error {
	for _, e := range early {
		if err := unix.Mount(e.dir, newRoot+e.dir, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("switching root: moving %s: %v", e.dir, err)
		}
	}
	for _, name := range []string{"/init", "/modules", "/root.json", "/image.json", "/cmdline", "/.extra"} {
		if err := os.RemoveAll(name); err != nil {
			return fmt.Errorf("switching root: %v", err)
		}
	}
	if err := unix.Chdir(newRoot); err != nil {
		return fmt.Errorf("switching root: %v", err)
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("switching root: moving %s: %v", newRoot, err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("switching root: %v", err)
	}
	return unix.Chdir("/")
}
