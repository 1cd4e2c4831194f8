package supervise

import (
	"fmt"
	"os"

	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// This package waits for every child of its process, as PID 1 does, so its tests run no child of their own.
var owner = New()

func start(t *testing.T, p Process) *Child {
	t.Helper()
	c, err := owner.Start(p)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func status(t *testing.T, c *Child) syscall.WaitStatus {
	t.Helper()
	select {
	case s := <-c.Exited():
		return s
	case <-time.After(20 * time.Second):
		t.Fatalf("%s did not end", c.Name)
		panic("unreachable")
	}
}

// TestChild starts a shell as a service and looks at what it inherited.
func TestChild(t *testing.T) {
	t.Setenv("LD_PRELOAD_TEST", "inherited")
	out := filepath.Join(t.TempDir(), "out")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c := start(t, Process{Name: "env", Argv: []string{"/bin/sh", "-c",
		"env >" + out + "; ls /proc/self/fd >>" + out + "; echo hello >&3; exit 7"},
		Env: []string{"A=b"}, Files: []*os.File{w}})
	w.Close()
	if s := status(t, c); s.ExitStatus() != 7 {
		t.Errorf("got exit status %d, want 7", s.ExitStatus())
	}
	text, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(text); !strings.Contains(got, "A=b") || strings.Contains(got, "inherited") {
		t.Errorf("environment: got %q, want A=b and nothing inherited", got)
	}
	buf := make([]byte, 16)
	if n, err := r.Read(buf); err != nil || string(buf[:n]) != "hello\n" {
		t.Errorf("descriptor 3: got %q (%v), want hello", buf[:n], err)
	}
}

// TestManyAtOnce loses no exit, however the signals coalesce.
func TestManyAtOnce(t *testing.T) {
	var children []*Child
	for i := range 50 {
		children = append(children, start(t, Process{Name: fmt.Sprint(i), Argv: []string{"/bin/sh", "-c", fmt.Sprintf("exit %d", i)}}))
	}
	for i, c := range children {
		if s := status(t, c); s.ExitStatus() != i {
			t.Errorf("child %d: got exit status %d", i, s.ExitStatus())
		}
	}
}

func TestKill(t *testing.T) {
	c := start(t, Process{Name: "sleep", Argv: []string{"/bin/sleep", "1000"}})
	c.Kill()
	if s := status(t, c); s.Signal() != syscall.SIGKILL {
		t.Errorf("got %v, want the kill signal", s)
	}
	c.Kill() // a child that is gone: nothing happens
}

func TestStartRefuses(t *testing.T) {
	if _, err := owner.Start(Process{Name: "none", Argv: []string{"/no/such/program"}}); err == nil ||
		!strings.Contains(err.Error(), "starting none") {
		t.Errorf("got error %v, want one that names the process", err)
	}
}

// TestNoNetwork needs root; elsewhere it says so.
func TestNoNetwork(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to make a network namespace")
	}
	out := filepath.Join(t.TempDir(), "out")
	status(t, start(t, Process{Name: "net", Argv: []string{"/bin/sh", "-c", "cat /proc/net/dev >" + out}, NoNetwork: true}))
	text, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if name, _, ok := strings.Cut(strings.TrimSpace(line), ":"); ok && name != "lo" {
			t.Errorf("the process sees interface %s", name)
		}
	}
}
