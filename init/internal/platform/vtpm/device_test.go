package vtpm

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestBootLog: the firmware's log is read below the sysfs mount, whole, and within its bound.
func TestBootLog(t *testing.T) {
	for _, tt := range []struct {
		name string
		log  []byte // nil: there is none
		want string
	}{
		{"a log", []byte("log"), ""},
		{"an empty log", []byte{}, ""},
		{"as long as may be", bytes.Repeat([]byte{1}, maxBootLogBytes), ""},
		{"a byte longer", make([]byte, maxBootLogBytes+1), "more than 262144 bytes"},
		{"none", nil, "no such file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dev, sys := t.TempDir(), t.TempDir()
			if err := os.Symlink("/dev/null", filepath.Join(dev, deviceName)); err != nil { // a character device that answers nothing
				t.Fatal(err)
			}
			if tt.log != nil {
				file := filepath.Join(sys, bootLog)
				if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, tt.log, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			device, err := Open(dev, sys)
			if err != nil {
				t.Fatal(err)
			}
			got, err := device.BootLog()
			if tt.want != "" {
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("got %v, want an error with %q", err, tt.want)
				}
				return
			}
			if err != nil || !bytes.Equal(got, tt.log) {
				t.Errorf("got %d bytes (%v), want %d", len(got), err, len(tt.log))
			}
		})
	}
}
