package mount

import (
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMountFlags: nothing that can be written runs a program, gives rights, or holds devices but those of the kernel.
func TestMountFlags(t *testing.T) {
	for _, e := range slices.Concat(early, late) {
		if e.flags&unix.MS_NOSUID == 0 || e.flags&unix.MS_NOEXEC == 0 {
			t.Errorf("%s: flags %#x, want nosuid and noexec", e.dir, e.flags)
		}
		if devices := e.kind == "devtmpfs" || e.kind == "devpts"; e.flags&unix.MS_NODEV == 0 && !devices {
			t.Errorf("%s: flags %#x, want nodev", e.dir, e.flags)
		}
	}
	if len(early) != 3 || len(late) != 8 {
		t.Errorf("got %d and %d mounts, want 3 and 8: say here what another one is for", len(early), len(late))
	}
}
