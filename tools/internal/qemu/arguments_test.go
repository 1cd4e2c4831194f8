package qemu

import (
	"slices"
	"testing"
)

// TestArguments: a comma in a path must not become another option.
func TestArguments(t *testing.T) {
	for _, tt := range []struct {
		name      string
		got, want []string
	}{
		{"code", Flash(0, "/a,b/code.fd", true), []string{"-drive", "if=pflash,unit=0,format=raw,readonly=on,file=/a,,b/code.fd"}},
		{"variables", Flash(1, "vars.fd", false), []string{"-drive", "if=pflash,unit=1,format=raw,file=vars.fd"}},
		{"disk", Drive("root", "raw", "root,readonly=off", true),
			[]string{"-drive", "if=none,format=raw,id=root,readonly=on,file=root,,readonly=off"}},
		{"disk to write on", Drive("journal", "qcow2", "j", false), []string{"-drive", "if=none,format=qcow2,id=journal,readonly=off,file=j"}},
		{"TPM", Emulator("tpm0", "tpm", "a,b"), []string{"-chardev", "socket,id=tpm,path=a,,b", "-tpmdev", "emulator,id=tpm0,chardev=tpm"}},
		{"monitor", Monitored("a,b"), []string{"-qmp", "unix:a,,b,server=on,wait=off"}},
		{"test port", Tested("q"), []string{"-qtest", "unix:q,server=on,wait=off", "-qtest-log", "/dev/null"}},
	} {
		if !slices.Equal(tt.got, tt.want) {
			t.Errorf("%s: got %q, want %q", tt.name, tt.got, tt.want)
		}
	}
	if a, b := append(Bare(), "x"), append(Bare(), "y"); a[len(a)-1] != "x" || b[len(b)-1] != "y" {
		t.Errorf("two machines share arguments: %q and %q", a, b)
	}
}
