package toolstree

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestEnter(t *testing.T) {
	tree, err := Open("../../../build/tools-tree")
	if err != nil || os.Geteuid() != 0 {
		t.Skipf("needs root and a tools tree: user %d, %v", os.Geteuid(), err)
	}
	bind := t.TempDir()
	t.Setenv("LEAK", "leaked")
	before, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	script := `umask; cat /mnt/in/file; touch /usr/x 2>/dev/null || echo read-only; echo made >/mnt/in/made; ls -A /mnt /tmp /root; echo "[$LEAK]"; pwd; . /etc/os-release; echo $VERSION_CODENAME`
	if err := os.WriteFile(filepath.Join(bind, "file"), []byte("bound\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := tree.Enter(t.Context(), Entry{Binds: map[string]string{"in": bind}, Dir: "/mnt/in"}, "sh", "-c", script)
	got := output(t, cmd)
	want := []string{"0022", "bound", "read-only", "/mnt:", "in", "", "/root:", "", "/tmp:", "[]", "/mnt/in", "trixie"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if made, err := os.ReadFile(filepath.Join(bind, "made")); err != nil || string(made) != "made\n" {
		t.Errorf("file made inside: got %q, error %v", made, err)
	}
	if after, err := os.ReadFile("/proc/self/mounts"); err != nil || string(after) != string(before) {
		t.Errorf("mounts of the machine: got %s, error %v, want those of before", after, err)
	}
	if err := tree.Enter(t.Context(), Entry{Binds: map[string]string{"../etc": bind}}, "true").Run(); err == nil {
		t.Error("a bind out of /mnt: got no error, want a refusal")
	}
	if _, err := os.Stat(tree.Path("usr/x")); err == nil {
		t.Error("the tree was written to")
	}
}
