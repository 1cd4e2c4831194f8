// Package guesttest plays a guest's QEMU for tests.
package guesttest

import (
	"os/exec"
	"testing"
)

// Process starts a program that does nothing until the test ends, and whose command line names the file of its process id as QEMU's does.
// It returns the id; who looks for the guest finds it by the file, which the test writes.
func Process(t *testing.T, pidFile string) int {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-c", "echo; read line", "sh", "-pidfile", pidFile)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdin.Close(); cmd.Wait() })
	if _, err := out.Read(make([]byte, 1)); err != nil { // it is the shell by now, and no copy of this program
		t.Fatal(err)
	}
	return cmd.Process.Pid
}
