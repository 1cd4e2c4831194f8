package e2e

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"chrysalis/init/status"
	"chrysalis/measure"
	"chrysalis/tools/internal/guest"
	"chrysalis/tools/internal/qemu"
	"chrysalis/tools/internal/toolstree"
)

// built is where `make beside` leaves what is tested.
const built = "../../build"

// bootLimit is how long a boot under emulation may take on a busy machine before the test gives up.
const bootLimit = 5 * time.Minute

// TestMain says at the end which tests took longest: what is to be made faster, or to share a guest.
func TestMain(m *testing.M) {
	code := m.Run()
	for i, line := range slowest(10) {
		if i == 0 {
			fmt.Println("the slowest tests, each beside others:")
		}
		fmt.Println(line)
	}
	os.Exit(code)
}

// took is how long each test with a build ran, without its wait for a turn.
var took struct {
	sync.Mutex
	tests map[string]time.Duration
}

func timed(t *testing.T) {
	began := time.Now()
	t.Cleanup(func() {
		took.Lock()
		defer took.Unlock()
		if took.tests == nil {
			took.tests = map[string]time.Duration{}
		}
		took.tests[t.Name()] = time.Since(began)
	})
}

// slowest are lines about the n tests that took longest, those within others each for itself.
func slowest(n int) (lines []string) {
	names := slices.SortedFunc(maps.Keys(took.tests), func(a, b string) int { return cmp.Compare(took.tests[b], took.tests[a]) })
	names = slices.DeleteFunc(names, func(name string) bool { // it waited for those within it, and they for a turn
		return slices.ContainsFunc(slices.Collect(maps.Keys(took.tests)), func(other string) bool { return strings.HasPrefix(other, name+"/") })
	})
	for _, name := range names[:min(n, len(names))] {
		lines = append(lines, fmt.Sprintf("%7.1f s  %s", took.tests[name].Seconds(), name))
	}
	return lines
}

// needsBuild skips a test where nobody says that what it looks at is built.
func needsBuild(t *testing.T) {
	t.Helper()
	skipUnbuilt(t)
	timed(t)
}

func skipUnbuilt(t *testing.T) {
	t.Helper()
	if os.Getenv("CHRYSALIS_E2E") == "" {
		t.Skip("needs the image: runs in make test, or with CHRYSALIS_E2E=1 after make beside")
	}
}

// needsGuests is needsBuild for a test with guests, each in a folder and on a port of its own: it runs beside others, because
// a guest under emulation keeps little more than one core busy.
func needsGuests(t *testing.T) {
	t.Helper()
	skipUnbuilt(t)
	beside(t)
}

// beside has a test with guests, or one within it, run beside others.
func beside(t *testing.T) {
	t.Helper()
	t.Parallel()
	timed(t)
}

func tree(t *testing.T) toolstree.Tree {
	t.Helper()
	tree, err := toolstree.Open(filepath.Join(built, "tools-tree"))
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

var shapeOnce = sync.OnceValues(func() (measure.Shape, error) {
	tree, err := toolstree.Open(filepath.Join(built, "tools-tree"))
	if err != nil {
		return measure.Shape{}, err
	}
	firmware := filepath.Join(built, "release/OVMF_CODE.fd")
	if os.Getenv("CHRYSALIS_KVM") != "" {
		s, _, err := guest.MachineShape(context.Background(), tree, firmware)
		return s, err
	}
	// Emulation is the same on every machine, so what is shown here is shown everywhere.
	version, err := qemu.Version(context.Background(), tree)
	if err != nil {
		return measure.Shape{}, err
	}
	return guest.DefaultShape(version, nil, firmware)
})

// demoSpec is the demo's guest with one processor and on a port of its own. Under emulation a second one takes a fifth more of this machine
// for each boot; demoMachine has both.
func demoSpec(t *testing.T) guest.Spec {
	t.Helper()
	spec := demoMachine(t)
	spec.Shape.CPUs = 1
	return spec
}

// demoMachine is the demo's guest on a port of its own.
func demoMachine(t *testing.T) guest.Spec {
	t.Helper()
	abs := func(name string) string {
		path, err := filepath.Abs(filepath.Join(built, name))
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	spec := guest.Spec{Release: abs("release"), Engine: abs("volumes/engine.img"), Model: abs("volumes/model.img")}
	var err error
	if spec.Config, err = guest.ReadConfig("", "", spec.Engine, spec.Model); err != nil {
		t.Fatal(err)
	}
	if spec.Shape, err = shapeOnce(); err != nil {
		t.Fatal(err)
	}
	return onOwnPort(t, spec)
}

// snpSpec is the demo's guest as an SEV-SNP guest of the software processor.
func snpSpec(t *testing.T) guest.Spec {
	t.Helper()
	spec := demoSpec(t)
	var err error
	if spec.Shape, err = guest.SoftwareHere(t.Context(), tree(t), measure.SEVSNP, filepath.Join(built, "release/OVMF.amdsev.fd")); err != nil {
		t.Fatal(err)
	}
	if spec.Config, err = guest.ReadConfig(measure.SEVSNP, "", spec.Engine, spec.Model); err != nil {
		t.Fatal(err)
	}
	spec.Hardware.SNPPolicy = guest.StrictSNPPolicy
	return spec
}

// tdSpec is the demo's guest as a TD of the software TDX.
func tdSpec(t *testing.T) guest.Spec {
	t.Helper()
	spec := demoSpec(t)
	var err error
	if spec.Shape, err = guest.SoftwareHere(t.Context(), tree(t), measure.TDX, filepath.Join(built, "release/OVMF.inteltdx.fd")); err != nil {
		t.Fatal(err)
	}
	if spec.Config, err = guest.ReadConfig(measure.TDX, "", spec.Engine, spec.Model); err != nil {
		t.Fatal(err)
	}
	return spec
}

// onOwnPort returns the spec with a port that no other guest has: two guests of one spec can then run at once.
func onOwnPort(t *testing.T, spec guest.Spec) guest.Spec {
	t.Helper()
	var err error
	if spec.Port, err = guest.FreePort(); err != nil {
		t.Fatal(err)
	}
	return spec
}

// newGuest returns a guest in a folder of its own, stopped when the test ends. With CHRYSALIS_KEEP=1 the folder of a test that
// failed stays, and the test says where.
func newGuest(t *testing.T) guest.Guest {
	t.Helper()
	// Sockets have short names: the test's own folder may be too deep for one.
	dir, err := os.MkdirTemp("", "guest-")
	if err != nil {
		t.Fatal(err)
	}
	double, err := filepath.Abs(filepath.Join(built, "double"))
	if err != nil {
		t.Fatal(err)
	}
	g := guest.Guest{Dir: dir, Tree: tree(t), Double: double}
	t.Cleanup(func() {
		g.Cut()
		if keeps(t.Failed(), os.Getenv("CHRYSALIS_KEEP")) {
			t.Logf("kept: %s (chrysalis status --dir %s)", dir, dir)
			return
		}
		os.RemoveAll(dir)
	})
	return g
}

// keeps reports whether a guest's folder outlives its test.
func keeps(failed bool, keep string) bool { return failed && keep != "" }

// TestSlowest: a test within another is told for itself, and the other, which waited for it, is not.
func TestSlowest(t *testing.T) {
	took.Lock()
	was := took.tests
	took.tests = map[string]time.Duration{"TestA": time.Hour, "TestA/x": time.Minute, "TestB": 2 * time.Minute, "TestAB": time.Second}
	got := strings.Join(slowest(3), "\n")
	took.tests = was
	took.Unlock()
	if want := "  120.0 s  TestB\n   60.0 s  TestA/x\n    1.0 s  TestAB"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestKeeps(t *testing.T) {
	for _, tt := range []struct {
		failed bool
		keep   string
		want   bool
	}{{false, "", false}, {true, "", false}, {false, "1", false}, {true, "1", true}} {
		if got := keeps(tt.failed, tt.keep); got != tt.want {
			t.Errorf("failed %t, CHRYSALIS_KEEP=%s: got %t, want %t", tt.failed, tt.keep, got, tt.want)
		}
	}
}

// start starts g and waits until it serves.
func start(t *testing.T, g guest.Guest, spec guest.Spec, extra ...string) {
	t.Helper()
	began := time.Now()
	if err := g.Start(t.Context(), spec, extra...); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), bootLimit)
	defer cancel()
	lines := 0
	wait := func() error {
		return g.Wait(ctx, func(line status.Line) { lines++; t.Logf("%5.1f s  %s", time.Since(began).Seconds(), line) })
	}
	err := wait()
	// Emulation with several processors now and then resets a machine while its firmware or its kernel starts, before any program of
	// the guest's has run. What a guest does once it has spoken is never tried twice.
	if ended := (guest.EndedError{}); errors.As(err, &ended) && ended.Code == 0 && lines == 0 {
		t.Logf("%5.1f s  the emulated machine stopped before its kernel spoke: started once more", time.Since(began).Seconds())
		if err := g.Start(t.Context(), spec, extra...); err != nil {
			t.Fatal(err)
		}
		err = wait()
	}
	if err != nil {
		said, _ := os.ReadFile(g.Path("qemu.log"))
		t.Fatalf("after %.1f s: %v; QEMU says %q", time.Since(began).Seconds(), err, said)
	}
}

// shows has a guest of the changed spec show its evidence to a client of the spec. It is a custodian, which does so without engine and model, in
// two thirds of the time. It returns the spec as that custodian's, too.
func shows(t *testing.T, spec, changed guest.Spec, extra ...string) (client, guest.Spec) {
	t.Helper()
	l := newLending(t, spec)
	spec.Config, spec.SoftwareRoot = l.kept.Config, l.kept.SoftwareRoot
	changed.Config, changed.SoftwareRoot = l.kept.Config, l.kept.SoftwareRoot
	start(t, l.keeper, changed, extra...)
	return newClient(t, l.keeper, spec), spec
}

// cutAt boots g and takes the power away at once when each of the steps is done, one boot after the other. No boot may end by itself.
func cutAt(t *testing.T, g guest.Guest, spec guest.Spec, steps ...status.Step) {
	t.Helper()
	for _, step := range steps {
		if err := g.Start(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), bootLimit)
		cut := false
		err := g.Wait(ctx, func(line status.Line) {
			if line.Step == step {
				cut = true
				g.Cut()
			}
		})
		cancel()
		if ended := (guest.EndedError{}); !cut || !errors.As(err, &ended) || ended.Code != 0 {
			t.Fatalf("power cut at %s: cut is %t, and the guest: %v", step, cut, err)
		}
	}
}

// ending starts g, which must end, and returns its last word: "" when it stopped without one. Reaching "serving" is a
// failure.
func ending(t *testing.T, g guest.Guest, spec guest.Spec, extra ...string) string {
	t.Helper()
	if err := g.Start(t.Context(), spec, extra...); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), bootLimit)
	defer cancel()
	code, err := g.WaitEnd(ctx)
	if err != nil {
		t.Fatal(err)
	}
	_, lines, err := g.State()
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range lines {
		t.Log(line)
		if line.Serving {
			t.Error("the guest served, want it to end before")
		}
	}
	return code.String()
}

// tampered copies file into the test's folder and changes one byte of it.
func tampered(t *testing.T, file string, offset int64) string {
	t.Helper()
	in, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.Create(filepath.Join(t.TempDir(), filepath.Base(file)))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1)
	if _, err := out.ReadAt(b, offset); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := out.WriteAt(b, offset); err != nil {
		t.Fatal(err)
	}
	return out.Name()
}

// runtimeBlock returns where root has a byte of the runtime program without which it can't start. Go writes a program's build
// information, which names its main package, twice: the later one begins the writable segment.
func runtimeBlock(t *testing.T, root string) int64 {
	t.Helper()
	data, err := os.ReadFile(root)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.LastIndex(data, []byte("path\tchrysalis/runtime\n"))
	if at < 0 {
		t.Fatalf("%s does not hold the runtime program", root)
	}
	return int64(at)
}

// withRelease returns spec over a copy of its release folder in which name is replaced.
func withRelease(t *testing.T, spec guest.Spec, name, file string) guest.Spec {
	t.Helper()
	dir := t.TempDir()
	entries, err := os.ReadDir(spec.Release)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		target := filepath.Join(spec.Release, e.Name())
		if e.Name() == name {
			target = file
		}
		if err := os.Symlink(target, filepath.Join(dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	spec.Release = dir
	return spec
}
