package role

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestMain turns the test binary into a role that takes its descriptors, when the environment names one.
func TestMain(m *testing.M) {
	if name := os.Getenv("CHRYSALIS_ROLE"); name != "" {
		files, err := Named(name).Inherit()
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		for _, f := range Named(name).Files() {
			fmt.Print(files[f].Name(), " ")
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestInherit starts a process with descriptors as init does, and with one missing, doubled or of another kind.
func TestInherit(t *testing.T) {
	pipe := func() *os.File {
		out, in, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { out.Close(); in.Close() })
		return in
	}
	socket := func() *os.File {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		f, err := l.File()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close(); f.Close() })
		return f
	}
	disk := func() *os.File {
		f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	secretPipe, journal, listener, proofs, numbers, status := pipe(), disk(), socket(), pipe(), pipe(), pipe()
	for _, tt := range []struct {
		name  string
		role  Role
		files []*os.File
		want  string
	}{
		{"the keeper's", Keeper, []*os.File{secretPipe, journal, listener, proofs, socket(), status}, "secret journal socket proofs chain status "},
		{"the gateway's", Gateway, []*os.File{listener, socket(), socket(), numbers, status}, "listener quotes wipes numbers status "},
		{"engine-host's", EngineHost, []*os.File{socket(), status}, "wipes status "},
		{"none", Keeper, nil, "descriptor 3, secret: "},
		{"the last missing", Keeper, []*os.File{secretPipe, journal, listener, proofs, socket()}, "descriptor 8, status: "},
		{"one left out", Keeper, []*os.File{secretPipe, listener, proofs, status}, "descriptor 4, journal: its kind"},
		{"two changed places", Keeper, []*os.File{journal, secretPipe, listener, proofs, status}, "descriptor 3, secret: its kind"},
		{"the same pipe twice", Keeper, []*os.File{secretPipe, journal, listener, proofs, socket(), secretPipe}, "descriptor 8, status, is the same file as secret"},
		{"the same socket twice", Gateway, []*os.File{listener, listener, socket(), numbers, status}, "descriptor 4, quotes, is the same file as listener"},
		{"a file for a pipe", EngineHost, []*os.File{socket(), journal}, "want a pipe"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := exec.CommandContext(t.Context(), os.Args[0])
			c.Env = append(os.Environ(), "CHRYSALIS_ROLE="+tt.role.String())
			c.ExtraFiles = tt.files
			out, err := c.Output()
			taken := strings.HasSuffix(tt.want, " ") && !strings.Contains(tt.want, "descriptor")
			if !strings.Contains(string(out), tt.want) || taken != (err == nil) {
				t.Errorf("got %q (%v), want %q", out, err, tt.want)
			}
		})
	}
}
