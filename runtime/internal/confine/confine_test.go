package confine

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestProcess builds a program that tries things, and runs it confined in each way and not at all: without the twin that
// can do everything, a probe that tries nothing would pass.
func TestProcess(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can give up being root")
	}
	probe := filepath.Join(t.TempDir(), "probe")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", probe, "./testdata/probe")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building: %v\n%s", err, out)
	}
	for _, tt := range []struct {
		name string
		args []string
		want string
	}{
		{"not confined", nil, "could: open, list, run, tcp, udp, connect, send, unix, ptrace, unshare, memfd, setuid, open in another thread"},
		{"gateway", []string{"gateway"}, "could: unix"},
		{"keeper", []string{"keeper"}, "could: "},
		{"fetch", []string{"fetch"}, "could: connect"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, err := exec.CommandContext(t.Context(), probe, tt.args...).CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if got := strings.TrimSuffix(string(out), "\n"); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestProcessRefusesRoot(t *testing.T) {
	if err := Process(Options{}); err == nil {
		t.Error("user 0: got no error, want one")
	}
}
