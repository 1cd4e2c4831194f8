package status

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// port makes a machine whose port is a pipe, and returns the reader's end.
func port(t *testing.T, name string) (Paths, *os.File) {
	t.Helper()
	p := Paths{Sys: t.TempDir(), Dev: t.TempDir()}
	dir := filepath.Join(p.Sys, "class/virtio-ports/vport0p1")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "name"), []byte(name+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	pipe := filepath.Join(p.Dev, "vport0p1")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := os.OpenFile(pipe, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return p, r
}

func TestLines(t *testing.T) {
	paths, r := port(t, PortName)
	p, err := Open(paths)
	if err != nil {
		t.Fatal(err)
	}
	p.Step("config", 1500*time.Millisecond)
	p.Serving(2 * time.Second)
	p.Event("engine-up")
	p.End("volume-corrupt")
	p.Close()
	buf := make([]byte, 4096)
	n, err := r.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(buf[:n]), "step config 1500\nserving 2000\nevent engine-up\nend volume-corrupt\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestSlowHost: a host that reads nothing does not hold the guest up.
func TestSlowHost(t *testing.T) {
	paths, _ := port(t, PortName)
	p, err := Open(paths)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for range 100_000 { // far more than the pipe holds
		p.Event("engine-up")
	}
}

func TestNoPort(t *testing.T) {
	paths, _ := port(t, "org.example.other")
	p, err := Open(paths)
	if err != nil || p != nil {
		t.Errorf("another port: got %v (%v), want none", p, err)
	}
	p.End("nobody-listens") // must not panic
	p.Close()
}
