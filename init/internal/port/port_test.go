package port

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"golang.org/x/sys/unix"

	"chrysalis/init/status"
	"chrysalis/runtime/numbers"
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
	paths, r := port(t, status.PortName)
	p, err := Open(paths)
	if err != nil {
		t.Fatal(err)
	}
	p.Begun(status.PID1)
	p.Done(status.Config)
	p.Serving()
	p.Event(status.EngineUp)
	p.End(status.VolumeCorrupt)
	p.End(status.Platform.Failed())
	p.Close()
	buf := make([]byte, 4096)
	n, err := r.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	want := regexp.MustCompile(`^step pid1 [0-9]+\nstep config [0-9]+\nserving [0-9]+\nevent engine-up\nend volume-corrupt\nend platform-failed\n$`)
	if got := buf[:n]; !want.Match(got) {
		t.Errorf("got %q, want %s", got, want)
	}
	lines, err := status.ParseAll(buf[:n])
	if err != nil || len(lines) != 6 || lines[1].Uptime < lines[0].Uptime || lines[0].Uptime == 0 {
		t.Errorf("parsed: got %v (%v), want six lines whose clock goes on", lines, err)
	}
}

// TestSlowHost: a host that reads nothing does not hold the guest up.
func TestSlowHost(t *testing.T) {
	paths, _ := port(t, status.PortName)
	p, err := Open(paths)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for range 100_000 { // far more than the pipe holds
		p.Event(status.EngineUp)
	}
}

// TestProofs: the port of the proofs is another, is written whole, and need not be there.
func TestProofs(t *testing.T) {
	paths, r := port(t, status.ProofsPortName)
	w, err := Proofs(paths)
	if err != nil {
		t.Fatal(err)
	}
	if p, err := Open(paths); p != nil || err != nil {
		t.Errorf("the status port: got %v and error %v, want none", p, err)
	}
	const lines = "proof a b\nproof c d\n"
	if _, err := io.WriteString(w, lines); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 64)
	if n, err := r.Read(b); err != nil || string(b[:n]) != lines {
		t.Errorf("got %q and error %v, want %q", b[:n], err, lines)
	}
	paths, _ = port(t, status.PortName)
	if w, err := Proofs(paths); w != io.Discard || err != nil {
		t.Errorf("no such port: got %v and error %v, want what drops all", w, err)
	}
}

func TestNoPort(t *testing.T) {
	paths, _ := port(t, "org.example.other")
	p, err := Open(paths)
	if err != nil || p != nil {
		t.Errorf("another port: got %v (%v), want none", p, err)
	}
	p.End(status.Broken) // must not panic
	p.Close()
}

// TestNumbers: the port of the numbers never waits for a host, and need not be there.
func TestNumbers(t *testing.T) {
	paths, r := port(t, numbers.PortName)
	w, err := Numbers(paths)
	if err != nil {
		t.Fatal(err)
	}
	line := numbers.Values{numbers.Asked: 7}.Line() + "\n"
	if _, err := io.WriteString(w, line); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 2*numbers.MaxLineBytes)
	if n, err := r.Read(b); err != nil || string(b[:n]) != line {
		t.Errorf("got %q and error %v, want %q", b[:n], err, line)
	}
	for range 10_000 { // far more than the pipe holds
		if n, err := io.WriteString(w, line); n != len(line) || err != nil {
			t.Fatalf("a host that takes nothing: got %d bytes and error %v, want none of its affair", n, err)
		}
	}
	paths, _ = port(t, status.PortName)
	if w, err := Numbers(paths); w != io.Discard || err != nil {
		t.Errorf("no such port: got %v and error %v, want what drops all", w, err)
	}
}
