package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestConsole shows what a guest says to itself: the log of the kernel and of every program, which a release keeps inside. It
// boots the built image with a console, and so with another initrd and other registers than the release's. For whoever looks
// for a fault: make console.
func TestConsole(t *testing.T) {
	if os.Getenv("CHRYSALIS_CONSOLE") == "" {
		t.Skip("for whoever looks for a fault: make console")
	}
	spec := demoSpec(t)
	cmdline, err := os.ReadFile(filepath.Join(spec.Release, "cmdline"))
	if err != nil {
		t.Fatal(err)
	}
	loud, ok := strings.CutPrefix(string(cmdline), "quiet loglevel=0 ")
	if !ok {
		t.Fatalf("command line is %q, want one that begins with quiet loglevel=0", cmdline)
	}
	loud = "console=ttyS0 loglevel=7 " + loud
	file := filepath.Join(t.TempDir(), "cmdline")
	if err := os.WriteFile(file, []byte(loud), 0o644); err != nil {
		t.Fatal(err)
	}
	g := newGuest(t)
	t.Cleanup(func() {
		said, err := os.ReadFile(g.Path("console.log"))
		t.Logf("the guest's console (error %v):\n%s", err, said)
	})
	start(t, g, withRelease(t, relaxed(t, spec, loud), "cmdline", file), "-serial", "file:"+g.Path("console.log"))
}
