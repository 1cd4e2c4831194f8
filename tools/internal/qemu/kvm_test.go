package qemu

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
)

// TestMended: a node of KVM's that does not open is told with what mends it.
func TestMended(t *testing.T) {
	other := errors.New("another")
	for err, want := range map[error]string{
		&fs.PathError{Op: "open", Path: kvmNode, Err: fs.ErrNotExist}:   "is not there: switch virtualisation on",
		&fs.PathError{Op: "open", Path: kvmNode, Err: fs.ErrPermission}: "add the user to its group",
		other: "another",
	} {
		if got := Mended(err); got == nil || !strings.Contains(got.Error(), want) {
			t.Errorf("%v: got %v, want words with %q", err, got, want)
		}
	}
}
