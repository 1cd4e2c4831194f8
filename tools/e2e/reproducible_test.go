package e2e

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"chrysalis/measure"
)

// TestReleaseIsReproducible builds the release and the volumes a second time with everything else that a machine can differ
// in, and with empty caches: a tools tree, base, kernel and Go caches of its own. Only the packages come out of one store, where
// their hashes are checked. Every byte must be that of the first build, also of the second tools tree. Then it changes one
// mode and builds again, so that the comparison is known to be able to fail.
func TestReleaseIsReproducible(t *testing.T) {
	needsBuild(t)
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
	ahead := buildAhead(t)
	other := elsewhere(t, source, otherFileSystem(t))
	for _, v := range [][3]string{
		{"folder", source, other}, {"host name", hostname(t), "auditor"}, {"umask", "the caller's", "077"},
		{"time zone", "the caller's", "Asia/Kathmandu"},
		{"locale", "the caller's", "tr_TR.UTF-8"}, {"clock", "the machine's", "a year ahead"}, {"cores", fmt.Sprint(runtime.NumCPU()), "1"},
		{"caches", "whatever is there", "empty"},
	} {
		t.Logf("%-12s first: %-30s second: %s", v[0], v[1], v[2])
	}
	build := func() (string, error) {
		began := time.Now()
		cmd := exec.CommandContext(t.Context(), "taskset", "--cpu-list", firstCore(t), ahead, yearInSeconds, "/bin/sh", "-c",
			`echo auditor >/proc/sys/kernel/hostname && umask 077 && exec "$0" image build`, program)
		cmd.Dir = other
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUTS}
		cmd.Env = append(os.Environ(), "TZ=Asia/Kathmandu", "LANG=tr_TR.UTF-8", "LC_ALL=tr_TR.UTF-8",
			"GOCACHE="+filepath.Join(other, "gocache"), "RELOCK=",
			"CHRYSALIS_STORE="+filepath.Join(source, "build/cache/packages"))
		cmd.WaitDelay = 10 * time.Second // a build that is ended may leave programs that hold its output
		text, err := cmd.CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("building elsewhere: %w\n%s", err, text)
		}
		return fmt.Sprintf("built elsewhere in %.0f s:\n%s", time.Since(began).Seconds(), text), nil
	}
	files := []string{"release/manifest.json", "volumes/engine.img", "volumes/model.img"}
	for _, name := range slices.Concat(measure.ReleaseFiles(), measure.ReleaseDocuments()) {
		files = append(files, "release/"+name)
	}

	if released(t, source) { // provenance names the state of the locks, which a fresh lock's copy does not share
		files = append(files, "release/provenance.json")
	}

	// On one core beside the guests of the other tests, which begin when this test steps back.
	var said string
	var failed error
	done := make(chan struct{})
	go func() {
		defer close(done)
		said, failed = build()
	}()
	t.Cleanup(func() { <-done }) // t.Context has ended it
	t.Parallel()
	if <-done; failed != nil {
		t.Fatal(failed)
	}
	t.Log(said)
	numbered(t, said)
	for _, name := range files {
		a, b := readBuilt(t, source, name), readBuilt(t, other, name)
		if !bytes.Equal(a, b) {
			t.Errorf("%s: the two builds differ (%d and %d bytes, first at %d)", name, len(a), len(b), firstDifference(a, b))
		}
	}
	sameTools(t, filepath.Join(source, "build/tools-tree"), filepath.Join(other, "build/tools-tree"))

	// The twin: one changed mode shows in the root and in everything that names it, and is told by its path and owner.
	if err := os.Chmod(filepath.Join(other, "build/base/root/etc/ssl/certs/ca-certificates.crt"), 0o755); err != nil {
		t.Fatal(err)
	}
	if said, failed = build(); failed != nil {
		t.Fatal(failed)
	}
	t.Log(said)
	numbered(t, said)
	for _, name := range []string{"release/root.img", "release/initrd", "release/manifest.json", "release/contents.json",
		"release/provenance.json"} {
		if bytes.Equal(readBuilt(t, source, name), readBuilt(t, other, name)) {
			t.Errorf("%s: equal after one mode was changed, want another", name)
		}
	}
	out, err := exec.CommandContext(t.Context(), program, "image", "diff", filepath.Join(source, "build/release"),
		filepath.Join(other, "build/release")).Output()
	want := "root.img: etc/ssl/certs/ca-certificates.crt: mode: installation script of package ca-certificates "
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(string(out), want) {
		t.Errorf("image diff after one mode was changed: got %v and %s, want exit code 1 and %q", err, out, want)
	}
}

// numbered checks that a build's steps are told each once, in their order and to the last, with the time that it took.
func numbered(t *testing.T, said string) {
	t.Helper()
	n, last := 0, 0
	for _, line := range regexp.MustCompile(`(?m)^ *([0-9]+) of ([0-9]+)  .* [0-9.]+ s  (.*)$`).FindAllStringSubmatch(said, -1) {
		if line[3] == "so far" {
			continue
		}
		if n++; fmt.Sprint(n) != line[1] {
			t.Errorf("step %d is told as %q", n, line[0])
		}
		fmt.Sscan(line[2], &last)
	}
	if n == 0 || n != last {
		t.Errorf("a build tells %d steps of %d, want all:\n%s", n, last, said)
	}
}

const yearInSeconds = "31622400"

// buildAhead builds the program that gives a command another clock, and tries it: on a dynamic program, and on itself, which is
// static and asks in its own way.
func buildAhead(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "ahead")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "chrysalis/tools/e2e/ahead")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building ahead: %v: %s", err, out)
	}
	for _, command := range [][]string{{"date", "+%Y"}, {program, "now"}} {
		real, err := exec.CommandContext(t.Context(), command[0], command[1:]...).Output()
		if err != nil {
			t.Fatal(err)
		}
		shifted, err := exec.CommandContext(t.Context(), program, append([]string{yearInSeconds}, command...)...).Output()
		if err != nil {
			t.Fatal(err)
		}
		var was, is int
		fmt.Sscan(string(real), &was)
		fmt.Sscan(string(shifted), &is)
		if was == 0 || is <= was {
			t.Fatalf("%q: the year is %q, and ahead %q, want a later one", command, real, shifted)
		}
	}
	return program
}

// otherFileSystem returns a folder that lists names in another order than the disk does: on tmpfs the newest name comes
// first, on a disk's file system the names are sorted by a hash or kept as they came.
func otherFileSystem(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "another place")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	const needs = 8 << 30 // the folder takes half of it, the guests beside this test some of the rest
	if availableBytes(t) < needs {
		t.Logf("%-12s the same: less than %d GiB of memory for a tmpfs", "file system", needs>>30)
		return dir
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0700,size=8g"); err != nil {
		t.Logf("%-12s the same: mounting a tmpfs: %v", "file system", err)
		return dir
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	t.Logf("%-12s first: the disk's %19s second: tmpfs", "file system", "")
	return dir
}

// availableBytes is what the kernel would give to new programs, caches dropped.
func availableBytes(t *testing.T) uint64 {
	t.Helper()
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		var kib uint64
		if n, _ := fmt.Sscanf(line, "MemAvailable: %d kB", &kib); n == 1 {
			return kib << 10
		}
	}
	return 0
}

func hostname(t *testing.T) string {
	t.Helper()
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// firstCore is the number of a core that this process may run on.
func firstCore(t *testing.T) string {
	t.Helper()
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		t.Fatal(err)
	}
	for i := range 1024 {
		if set.IsSet(i) {
			return fmt.Sprint(i)
		}
	}
	t.Fatal("no core to run on")
	return ""
}

// sameTools compares the programs and libraries of two tools trees, which were built from one lock: path, mode, content.
func sameTools(t *testing.T, a, b string) {
	t.Helper()
	list := func(root string) map[string]string {
		all := map[string]string{}
		err := filepath.WalkDir(filepath.Join(root, "usr"), func(file string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			name := strings.TrimPrefix(file, root)
			text := info.Mode().String()
			switch {
			case d.Type().IsRegular():
				data, err := os.ReadFile(file)
				if err != nil {
					return err
				}
				text += fmt.Sprintf(" %x", sha256.Sum256(data))
			case d.Type() == fs.ModeSymlink:
				target, err := os.Readlink(file)
				if err != nil {
					return err
				}
				text += " " + target
			}
			all[name] = text
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	inA, inB := list(a), list(b)
	if len(inA) < 10000 {
		t.Errorf("the tools tree has %d names, want more", len(inA))
	}
	for name, text := range inA {
		if inB[name] != text {
			t.Errorf("tools trees differ in %s: %s and %s", name, text, inB[name])
		}
	}
	for name := range inB {
		if _, ok := inA[name]; !ok {
			t.Errorf("the second tools tree has %s more", name)
		}
	}
	t.Logf("tools trees: %d names, the same", len(inA))
}

// elsewhere copies the source tree to a folder below parent, with the modes of a checkout under umask 077. Where the first build
// had to resolve a lock anew, the copy has that lock.
func elsewhere(t *testing.T, source, parent string) string {
	t.Helper()
	dir := filepath.Join(parent, "chrysalis")
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

// released reports whether the first build was made from the locks of the source tree.
func released(t *testing.T, source string) bool {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(source, "build/release/manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := measure.DecodeManifest(data)
	if err != nil {
		t.Fatal(err)
	}
	return m.Lock == measure.LockReleased
}

func firstDifference(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}
