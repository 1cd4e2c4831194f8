package e2e

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"chrysalis/measure"
)

// TestReleaseIsReproducible builds the release and the volumes again in another folder, with another host name, under another
// umask and with empty caches: a tools tree, base, kernel and Go caches of its own. Only the packages come out of one store,
// where their hashes are checked. Every byte must be that of the first build. Then it changes one mode and builds again.
func TestReleaseIsReproducible(t *testing.T) {
	needsGuests(t)
	if os.Geteuid() != 0 {
		t.Skip("building an image needs root")
	}
	source, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "chrysalis")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "chrysalis/tools/chrysalis").CombinedOutput(); err != nil {
		t.Fatalf("building chrysalis: %v: %s", err, out)
	}
	other := elsewhere(t, source)
	build := func() {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", `echo auditor >/proc/sys/kernel/hostname && umask 077 && exec "$0" image build`, program)
		cmd.Dir = other
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUTS}
		cmd.Env = append(os.Environ(), "TZ=Asia/Kathmandu", "LANG=de_DE.UTF-8", "GOCACHE="+filepath.Join(other, "gocache"), "RELOCK=",
			"CHRYSALIS_STORE="+filepath.Join(source, "build/cache/packages"))
		text, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("building elsewhere: %v\n%s", err, text)
		}
		t.Logf("built elsewhere:\n%s", text)
	}
	files := []string{"release/manifest.json", "volumes/engine.img", "volumes/model.img"}
	for _, name := range measure.ReleaseFiles() {
		files = append(files, "release/"+name)
	}

	build()
	for _, name := range files {
		a, b := readBuilt(t, source, name), readBuilt(t, other, name)
		if !bytes.Equal(a, b) {
			t.Errorf("%s: the two builds differ (%d and %d bytes, first at %d)", name, len(a), len(b), firstDifference(a, b))
		}
	}

	// The twin: one changed mode shows in the root and in everything that names it.
	if err := os.Chmod(filepath.Join(other, "build/base/root/etc/ssl/certs/ca-certificates.crt"), 0o755); err != nil {
		t.Fatal(err)
	}
	build()
	for _, name := range []string{"release/root.img", "release/initrd", "release/manifest.json"} {
		if bytes.Equal(readBuilt(t, source, name), readBuilt(t, other, name)) {
			t.Errorf("%s: equal after one mode was changed, want another", name)
		}
	}
}

// elsewhere copies the source tree to another folder, with the modes of a checkout under umask 077. Where the first build
// had to resolve a lock anew, the copy has that lock.
func elsewhere(t *testing.T, source string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "another place", "chrysalis")
	copied := func(from, to string) {
		t.Helper()
		data, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o700), os.WriteFile(to, data, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	err := fs.WalkDir(os.DirFS(source), ".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil || path == ".":
			return err
		case d.IsDir() && (path == "build" || strings.HasPrefix(d.Name(), ".")):
			return fs.SkipDir
		case d.Type().IsRegular():
			copied(filepath.Join(source, path), filepath.Join(dir, path))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	fresh, err := filepath.Glob(filepath.Join(source, "build/locks/*.lock"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range fresh {
		copied(file, filepath.Join(dir, "image", filepath.Base(file)))
	}
	return dir
}

// readBuilt reads a file below build. In a manifest the state of the locks is made equal: a lock that the first build
// resolved anew is the second one's own.
func readBuilt(t *testing.T, source, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(source, "build", name))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(name, "manifest.json") {
		return data
	}
	m, err := measure.DecodeManifest(data)
	if err != nil {
		t.Fatal(err)
	}
	m.Lock = measure.LockReleased
	if data, err = measure.EncodeManifest(m); err != nil {
		t.Fatal(err)
	}
	return data
}

func firstDifference(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}
