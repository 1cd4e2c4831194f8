package guest

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"chrysalis/measure"
)

// TestPortIsFree: who has a port is named, and a start asks before it makes anything.
func TestPortIsFree(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::]:0"} { // the second has the port of IPv4 too
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		spec := Spec{Port: l.Addr().(*net.TCPAddr).Port}
		want := fmt.Sprintf("port %d is taken by guest.test (process %d)", spec.Port, os.Getpid())
		for _, spec.Listen = range []string{"", "0.0.0.0"} {
			if err := spec.portIsFree(); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s, listening on %q: got error %v, want one with %q", address, spec.Listen, err, want)
			}
		}
		g := Guest{Dir: t.TempDir()}
		if err := g.Start(t.Context(), spec); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("a start: got error %v, want one with %q", err, want)
		}
		if files, err := os.ReadDir(g.Dir); err != nil || len(files) > 0 {
			t.Errorf("a start on a taken port left %v (error %v), want nothing", files, err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if err := spec.portIsFree(); err != nil {
			t.Errorf("a port that nobody has: %v", err)
		}
		if pid := listener(t.TempDir(), spec.Port); pid != 0 {
			t.Errorf("without a list of sockets: got process %d, want none", pid)
		}
	}
	elsewhere := Spec{Listen: "192.0.2.1", Port: 8443} // RFC 5737, section 3: nobody has it
	if err := elsewhere.portIsFree(); err == nil || !strings.Contains(err.Error(), "192.0.2.1 is no address of this machine") {
		t.Errorf("an address of nobody: got error %v", err)
	}
}

// TestAddress: this machine reaches its guest where it listens, and who else does is said.
func TestAddress(t *testing.T) {
	for _, tt := range []struct {
		listen, address string
		open            bool
	}{
		{"", "127.0.0.1:8443", false},
		{"127.0.0.2", "127.0.0.2:8443", false},
		{"192.0.2.1", "192.0.2.1:8443", true},
		{"0.0.0.0", "127.0.0.1:8443", true},
	} {
		s := Spec{Listen: tt.listen, Port: 8443}
		if s.Address() != tt.address || s.Open() != tt.open {
			t.Errorf("%q: got %s, open %t, want %s, %t", tt.listen, s.Address(), s.Open(), tt.address, tt.open)
		}
	}
	spec := podSpec(t, measure.SEVSNP, Hardware{SNPPolicy: DefaultSNPPolicy})
	spec.Listen, spec.Port = "0.0.0.0", 9000
	f, err := Guest{Dir: t.TempDir()}.files(spec)
	if err != nil || f.listen != "0.0.0.0" || f.hostPort != 9000 {
		t.Errorf("QEMU is told %s:%d (error %v), want what the spec says", f.listen, f.hostPort, err)
	}
}

// TestDying: a process that has lost its command line and holds its files still is not gone; one that waits for its parent is.
func TestDying(t *testing.T) {
	for name, tt := range map[string]struct {
		stat    string
		threads []string
		want    bool
	}{
		"ends":                 {"77 (qemu) (x) R 1 77 77 0 -1 4194308 0 0", []string{"77"}, true},
		"runs":                 {"77 (qemu) R 1 77 77 0 -1 4194304 0 0", []string{"77", "78"}, false},
		"has ended":            {"77 (qemu) Z 1 77 77 0 -1 4194308 0 0", []string{"77"}, false},
		"its first thread has": {"77 (qemu) Z 1 77 77 0 -1 4194308 0 0", []string{"77", "78"}, true},
		"a kernel's thread":    {"77 (kworker/0:0) I 2 0 0 0 -1 69238880 0 0", []string{"77"}, false},
		"nobody":               {"", nil, false},
		"cut short":            {"77 (qemu) R 1", []string{"77"}, false},
	} {
		proc := t.TempDir()
		for _, thread := range append(tt.threads, "") {
			if err := os.MkdirAll(filepath.Join(proc, "77", "task", thread), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(proc, "77", "stat"), []byte(tt.stat), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := dying(proc, 77); got != tt.want {
			t.Errorf("%s: got %t, want %t", name, got, tt.want)
		}
	}
}
