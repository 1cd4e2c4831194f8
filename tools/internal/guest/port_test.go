package guest

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
)

// TestPortIsFree: who has a port is named, and a start asks before it makes anything.
func TestPortIsFree(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	want := fmt.Sprintf("port %d is taken by guest.test (process %d)", port, os.Getpid())
	if err := portIsFree(port); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got error %v, want one with %q", err, want)
	}
	g := Guest{Dir: t.TempDir()}
	if err := g.Start(t.Context(), Spec{Port: port}); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("a start: got error %v, want one with %q", err, want)
	}
	if files, err := os.ReadDir(g.Dir); err != nil || len(files) > 0 {
		t.Errorf("a start on a taken port left %v (error %v), want nothing", files, err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := portIsFree(port); err != nil {
		t.Errorf("a port that nobody has: %v", err)
	}
	if pid := listener(t.TempDir(), port); pid != 0 {
		t.Errorf("without a list of sockets: got process %d, want none", pid)
	}
}
