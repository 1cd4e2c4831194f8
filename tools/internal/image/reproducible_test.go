package image

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"chrysalis/measure"
	"chrysalis/tools/internal/lock"
	"chrysalis/tools/internal/progress"
)

// slow is the variable that allows tests of minutes, which also need root.
const slow = "CHRYSALIS_SLOW"

// TestReleaseIsReproducible builds the release twice: here, with what earlier builds left, and in another folder, with another
// host name, under another umask and with empty caches (a tools tree, base, kernel and Go caches of its own; only the
// packages come out of one store, where their hashes are checked). Then it changes one mode in the second and builds that.
func TestReleaseIsReproducible(t *testing.T) {
	if os.Getenv(slow) == "" || os.Geteuid() != 0 {
		t.Skipf("builds an image in minutes and as root: set %s=1", slow)
	}
	source, err := filepath.Abs(sourceTree)
	if err != nil {
		t.Fatal(err)
	}
	work := filepath.Join(source, "build")
	places, err := lock.FindPlaces("/etc/apt", filepath.Join(work, "cache", "packages"), os.Getenv)
	if err != nil {
		t.Fatal(err)
	}
	here := &Builder{Source: source, Work: work, Places: places, Relock: Relock(os.Getenv("RELOCK")), Progress: progress.New(os.Stderr)}
	if here.Relock == RelockAlways {
		here.Relock = RelockAuto // both builds must have the same packages
	}
	first := filepath.Join(t.TempDir(), "release")
	want, err := here.Build(t.Context(), first)
	if err != nil {
		t.Fatal(err)
	}

	other := elsewhere(t, here)
	program := filepath.Join(t.TempDir(), "chrysalis")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "chrysalis/tools/chrysalis").CombinedOutput(); err != nil {
		t.Fatalf("building chrysalis: %v: %s", err, out)
	}
	build := func() string {
		t.Helper()
		out := filepath.Join(other, "build", "release")
		cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", `hostname auditor && umask 077 && exec "$0" image build`, program)
		cmd.Dir = other
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUTS}
		cmd.Env = append(os.Environ(), "TZ=Asia/Kathmandu", "LANG=de_DE.UTF-8", "GOCACHE="+filepath.Join(other, "gocache"), "RELOCK=", "CHRYSALIS_STORE="+here.Places.Cache)
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("building elsewhere: %v\n%s", err, text)
		} else {
			t.Logf("built elsewhere:\n%s", text)
		}
		return out
	}
	second := build()
	for _, name := range append(measure.ReleaseFiles(), "manifest.json") {
		a, b := readRelease(t, first, name, want.Lock), readRelease(t, second, name, want.Lock)
		if !bytes.Equal(a, b) {
			t.Errorf("%s: the two builds differ (%d and %d bytes, first at %d)", name, len(a), len(b), firstDifference(a, b))
		}
	}

	// The twin: one changed mode shows in everything that follows from the root.
	if err := os.Chmod(filepath.Join(other, "build/base/root/etc/ssl/certs/ca-certificates.crt"), 0o755); err != nil {
		t.Fatal(err)
	}
	twin := build()
	for _, name := range []string{"root.img", "initrd", "manifest.json"} {
		if bytes.Equal(readRelease(t, first, name, want.Lock), readRelease(t, twin, name, want.Lock)) {
			t.Errorf("%s: equal after one mode was changed, want another", name)
		}
	}
}

// elsewhere copies the source tree to another folder. If the first build had to resolve locks anew, the copy has those.
func elsewhere(t *testing.T, here *Builder) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "another place", "chrysalis")
	for _, name := range sourceFiles(t, here.Source) {
		if err := copyFile(filepath.Join(here.Source, name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		// A checkout under umask 077 has such modes.
		if err := os.Chmod(filepath.Join(dir, name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range here.relocked {
		data, err := os.ReadFile(here.freshLockFile(name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "image", name+".lock"), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// sourceFiles lists what a build may read: everything but build output and what starts with a dot.
func sourceFiles(t *testing.T, root string) []string {
	t.Helper()
	var files []string
	err := fs.WalkDir(os.DirFS(root), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == "." {
			return err
		}
		if d.IsDir() && (path == "build" || strings.HasPrefix(d.Name(), ".")) {
			return fs.SkipDir
		}
		if d.Type().IsRegular() {
			files = append(files, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(files, "go.mod") {
		t.Fatalf("no go.mod in %s", root)
	}
	return files
}

// readRelease reads a file of a release. The manifest of the second build says "released" where the first one's locks were
// resolved anew, because its source tree got those locks; that one word is made equal.
func readRelease(t *testing.T, dir, name, lockState string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	if name != "manifest.json" {
		return data
	}
	m, err := measure.DecodeManifest(data)
	if err != nil {
		t.Fatal(err)
	}
	m.Lock = lockState
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

// TestMissingPackageStopsTheBuild asks for a package that is nowhere, under each rule for relocking.
func TestMissingPackageStopsTheBuild(t *testing.T) {
	source := t.TempDir()
	if err := os.Mkdir(filepath.Join(source, "image"), 0o755); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(sourceTree, "image", "engine.lock"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(source, "image", "engine.lock"), data, 0o644); err != nil {
		t.Fatal(err)
	}
	b := &Builder{Source: source, Work: t.TempDir(), Places: lock.Places{Cache: t.TempDir(), Store: t.TempDir()}}
	_, err = b.packages(t.Context(), "engine")
	var missing *lock.MissingError
	if !errors.As(err, &missing) || len(missing.Missing) == 0 || len(b.relocked) != 0 {
		t.Fatalf("got error %v and relocked %q, want a MissingError and none", err, b.relocked)
	}
	l, err := readLock(b.lockFile("engine"))
	if err != nil {
		t.Fatal(err)
	}
	if len(missing.Missing) != len(l.Packages) {
		t.Errorf("%d packages listed, want all %d", len(missing.Missing), len(l.Packages))
	}
	// An earlier run with RELOCK=auto left a lock whose packages are there: it is used, and the result says so.
	b.Relock = RelockAuto
	fresh := l
	fresh.Packages = nil
	if err := os.Mkdir(filepath.Dir(b.freshLockFile("engine")), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b.freshLockFile("engine"), fresh.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := b.packages(t.Context(), "engine"); err != nil || !slices.Equal(b.relocked, []string{"engine"}) {
		t.Errorf("RELOCK=auto: got error %v and relocked %q, want the fresh lock of engine", err, b.relocked)
	}
	// RELOCK=1 resolves in any case, and without a mirror says what to set.
	b.Relock = RelockAlways
	if _, err := b.packages(context.WithoutCancel(t.Context()), "engine"); !errors.Is(err, lock.ErrNoMirror) {
		t.Errorf("RELOCK=1 without a mirror: got error %v, want %v", err, lock.ErrNoMirror)
	}
}
