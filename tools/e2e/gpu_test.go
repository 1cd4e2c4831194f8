package e2e

import (
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/erofs/go-erofs"

	"chrysalis/attest/attesttest"
	"chrysalis/attest/evidence"
	"chrysalis/attest/nvidia"
	"chrysalis/init/gpuhelper"
	"chrysalis/init/status"
	"chrysalis/measure/config"
	"chrysalis/tools/internal/guest"
)

// What makes a root of the test's out of the release's: where init looks for the GPUs' driver and helper, and the port on which the
// test's helper asks its host.
const (
	gpuModules = "usr/lib/chrysalis/gpu"
	gpuHelper  = "usr/bin/gpu-helper"
	gpuPort    = "org.chrysalis.gpu"
	// gpuDriver stands in for NVIDIA's: a module that Debian has signed, and that takes a device with NVIDIA's number.
	gpuDriver = "ahci"
)

// hostedBoard answers the helper of a guest for a board of software GPUs.
type hostedBoard struct {
	mu    sync.Mutex
	board *attesttest.Board
	state gpuhelper.State
	ready []bool // what it was told
	edit  func(*attesttest.Board, [32]byte) []evidence.Device
}

func (h *hostedBoard) State() (gpuhelper.State, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.state, nil
}

func (h *hostedBoard) Evidence(nonce [32]byte) ([]evidence.Device, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.edit != nil {
		return h.edit(h.board, nonce), nil
	}
	return h.board.Answer(nonce).Devices, nil
}

func (h *hostedBoard) SetReady(ready bool) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ready = append(h.ready, ready)
	h.state.Ready = ready
	return nil
}

func (h *hostedBoard) told() []bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.ready)
}

// listen answers guests at the socket until the test ends, and returns QEMU's arguments for the port that leads there.
func (h *hostedBoard) listen(t *testing.T, socket string) []string {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = gpuhelper.Serve(conn, h) // it ends with its guest
			conn.Close()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-ended
	})
	return []string{"-chardev", "socket,id=gpu,path=" + socket, "-device", "virtserialport,chardev=gpu,name=" + gpuPort}
}

// initOf builds init for other makers of GPUs than NVIDIA, with another driver, and with patience for a helper that is emulated beside other
// guests: in the sources that the compiler sees, four words are others, and nothing else is.
func initOf(t *testing.T, roots nvidia.Roots, file string) {
	t.Helper()
	source, err := filepath.Abs(filepath.Join(built, ".."))
	if err != nil {
		t.Fatal(err)
	}
	theirs, replaced := nvidia.NVIDIARoots(), map[string]string{}
	for name, words := range map[string][]string{
		"attest/nvidia/roots.go": {fmt.Sprintf("%x", theirs.Device[0]), fmt.Sprintf("%x", roots.Device[0]), fmt.Sprintf("%x", theirs.RIM[0]),
			fmt.Sprintf("%x", roots.RIM[0])},
		"init/internal/gpu/gpu.go": {`driverName = "nvidia"`, `driverName = "` + gpuDriver + `"`},
		"init/gpuhelper/beat.go":   {"Patience  = 700 * time.Millisecond", "Patience  = 10 * time.Second"},
	} {
		text, err := os.ReadFile(filepath.Join(source, name))
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(words); i += 2 {
			if n := strings.Count(string(text), words[i]); n != 1 {
				t.Fatalf("%s has %q %d times, want it once", name, words[i], n)
			}
		}
		to := filepath.Join(t.TempDir(), filepath.Base(name))
		if err := os.WriteFile(to, []byte(strings.NewReplacer(words...).Replace(string(text))), 0o644); err != nil {
			t.Fatal(err)
		}
		replaced[filepath.Join(source, name)] = to
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replaced})
	if err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(t.TempDir(), "overlay.json")
	if err := os.WriteFile(list, overlay, 0o644); err != nil {
		t.Fatal(err)
	}
	goBuild(t, source, file, "chrysalis/init", "-overlay", list)
}

// goBuild builds a program without cgo.
func goBuild(t *testing.T, dir, file, pkg string, flags ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", slices.Concat([]string{"build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", file}, flags,
		[]string{pkg})...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building %s: %v: %s", pkg, err, out)
	}
}

// unpacked writes the files of a volume into a folder.
func unpacked(t *testing.T, volume, dir string) {
	t.Helper()
	f, err := os.Open(volume)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	img, err := erofs.Open(f)
	if err == nil {
		err = os.CopyFS(dir, img)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// withGPUDriver returns the spec over the release with a driver and a helper for GPUs of the roots' makers.
func withGPUDriver(t *testing.T, spec guest.Spec, roots nvidia.Roots) guest.Spec {
	t.Helper()
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	unpacked(t, filepath.Join(spec.Release, "root.img"), root)
	if err := os.Remove(filepath.Join(root, "usr/bin/init")); err != nil {
		t.Fatal(err)
	}
	initOf(t, roots, filepath.Join(root, "usr/bin/init"))
	goBuild(t, ".", filepath.Join(dir, "helper"), "./gpuhelper")
	copyTo(t, filepath.Join(dir, "helper"), filepath.Join(root, gpuHelper))
	if err := os.MkdirAll(filepath.Join(root, gpuModules), 0o755); err != nil {
		t.Fatal(err)
	}
	for i, module := range moduleFiles(t, gpuDriver) {
		copyTo(t, module, filepath.Join(root, gpuModules, fmt.Sprintf("%02d-%s", i, filepath.Base(module))))
	}
	packed := filepath.Join(dir, "root.img")
	chrysalis(t, 0, "volume", "pack", "engine", root, "-o", packed)
	ref, err := guest.VolumeRef(packed)
	if err != nil {
		t.Fatal(err)
	}
	name, err := json.Marshal(ref)
	if err != nil {
		t.Fatal(err)
	}
	return withRelease(t, repacked(t, spec, "root.json", string(name)), "root.img", packed)
}

// moduleFiles are a module of the kernel and what it needs, each after what it needs.
func moduleFiles(t *testing.T, name string) (files []string) {
	t.Helper()
	lists, err := filepath.Glob(filepath.Join(built, "kernel/usr/lib/modules/*/modules.dep"))
	if err != nil || len(lists) != 1 {
		t.Fatalf("the kernel has lists of modules %q (error %v), want one", lists, err)
	}
	list, err := os.ReadFile(lists[0])
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(list)) {
		file, needs, _ := strings.Cut(strings.TrimSpace(line), ":")
		if strings.HasPrefix(filepath.Base(file), name+".ko") {
			for _, f := range slices.Backward(append([]string{file}, strings.Fields(needs)...)) {
				files = append(files, filepath.Join(filepath.Dir(lists[0]), f))
			}
			return files
		}
	}
	t.Fatalf("%s has no module %s", lists[0], name)
	return nil
}

// gpuGuest is a guest with a GPU on its bus, and a host that answers for it.
type gpuGuest struct {
	guest.Guest
	spec  guest.Spec
	gpu   *pciGPU
	host  *hostedBoard
	extra []string
}

// newGPUGuest returns a guest of the spec, whose config asks for the board.
func newGPUGuest(t *testing.T, spec guest.Spec, board *attesttest.Board) gpuGuest {
	t.Helper()
	g := gpuGuest{Guest: newGuest(t), spec: onOwnPort(t, spec)}
	g.gpu = newPCIGPU(t, g.Path("pci.sock"), true)
	g.host = &hostedBoard{board: board, state: gpuhelper.State{Confidential: true}}
	g.extra = append(g.gpu.argument(), g.host.listen(t, g.Path("gpu.sock"))...)
	g.spec.Config.Service.GPU = board.Found().Rule
	stapled := board.Answer([32]byte{})
	g.spec.Hardware.Endorsements.RIMs, g.spec.Hardware.Endorsements.OCSP = stapled.RIMs, stapled.OCSP
	t.Cleanup(g.Cut) // before those who answer it
	return g
}

// TestGPU boots guests with a software GPU on their bus. An SEV-SNP guest's launch digest says nothing of devices, so that a policy
// which is computed from files holds for it: it is the one that serves.
func TestGPU(t *testing.T) {
	needsGuests(t)
	now := time.Now()
	release := snpSpec(t)
	spec := withGPUDriver(t, release, attesttest.NewBoard(now).Roots())
	// The same image on the other platforms, as far as the guests that end.
	td, vtpm := tdSpec(t), demoSpec(t)
	td.Release, vtpm.Release = spec.Release, spec.Release
	var err error
	if vtpm.Shape, err = guest.DefaultShape(td.Shape.QEMU, nil, filepath.Join(spec.Release, "OVMF_CODE.fd")); err != nil {
		t.Fatal(err)
	}
	vtpm.Shape.CPUs = 1

	t.Run("served, verified, lost", func(t *testing.T) {
		beside(t)
		gpuServes(t, newGPUGuest(t, spec, attesttest.NewBoard(now)))
	})
	for _, tt := range []struct {
		name  string
		spec  guest.Spec
		want  status.Code
		spoil func(*gpuGuest)
	}{
		{"the release, and a device that claims to be one", release, status.GPUDriver, func(*gpuGuest) {}},
		{"one that nobody asked for", release, status.GPUUnasked, func(g *gpuGuest) { g.spec.Config.Service.GPU = config.GPUNone }},
		{"evidence over another nonce, on a vtpm", vtpm, status.GPUUnverified, func(g *gpuGuest) {
			g.host.edit = func(b *attesttest.Board, _ [32]byte) []evidence.Device { return b.Answer([32]byte{1}).Devices }
		}},
		{"measurements that no reference values have, in a TD", td, status.GPUUnverified, func(g *gpuGuest) { g.host.board.GPUs[0].Measure(1, make([]byte, 48)) }},
		{"development mode", spec, status.GPUState, func(g *gpuGuest) { g.host.state.Development = true }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			beside(t)
			g := newGPUGuest(t, tt.spec, attesttest.NewBoard(now))
			tt.spoil(&g)
			if got, want := ending(t, g.Guest, g.spec, g.extra...), tt.want.String(); got != want {
				t.Errorf("the guest's last word: got %q, want %q", got, want)
			}
			if slices.Contains(g.host.told(), true) {
				t.Errorf("the GPU was told %v, want never that it may work", g.host.told())
			}
			if want := 1; tt.want != status.GPUUnasked && g.gpu.wasReset() != want {
				t.Errorf("the GPU was reset %d times by the guest, want %d", g.gpu.wasReset(), want)
			}
		})
	}
}

// gpuServes has a guest with a GPU serve, a client judge both, and the GPU fall off the bus.
func gpuServes(t *testing.T, g gpuGuest) {
	t.Helper()
	start(t, g.Guest, g.spec, g.extra...)
	if got, want := g.host.told(), []bool{true}; !slices.Equal(got, want) || g.gpu.wasReset() != 1 {
		t.Errorf("the GPU was told %v and reset %d times, want %v and 1", got, g.gpu.wasReset(), want)
	}
	for name, c := range map[string]*attesttest.BoardCertificate{gpuRootFile: g.host.board.Root, gpuRIMRootFile: g.host.board.RIMRoot} {
		if err := os.WriteFile(g.Path(name), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.DER()}), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	rules := g.host.board.Rules()
	more := []string{"--manifest", filepath.Join(g.spec.Release, "manifest.json"), "--min-driver", rules.MinDriver}
	for chip, version := range rules.MinVBIOS {
		more = append(more, "--min-vbios", chip+"="+version)
	}
	c := newClient(t, g.Guest, g.spec, more...)
	v := c.verify(0)
	if v.Verdict != "accepted" || v.verdictOf(t, "nvidia.gpu.0.nonce") != "accepted" || v.verdictOf(t, "nvidia.gpu.0.measurements") != "accepted" {
		t.Fatalf("a guest with a GPU: got %+v, want it accepted", v)
	}
	if !slices.ContainsFunc(v.Weaknesses, func(w string) bool { return strings.Contains(w, "not NVIDIA's but software's") }) {
		t.Errorf("weaknesses are %q, want that the GPU's root is software", v.Weaknesses)
	}
	if a := c.ask(question); a.text != oslo {
		t.Errorf("answer: got %q, want %q", a.text, oslo)
	}
	if v := c.edited(rules.MinDriver, "999.0").verify(1); v.Check != "nvidia.gpu.0.driver-minimum" {
		t.Errorf("under a policy that wants a newer driver: got refused by %q (%s), want by nvidia.gpu.0.driver-minimum", v.Check, v.Reason)
	}
	// What was put onto its bus later is no longer what the log says.
	g.host.mu.Lock()
	g.host.board.GPUs[0].Measure(1, make([]byte, 48))
	g.host.mu.Unlock()
	if _, _, code := try(t, c.remote("verify")...); code == 0 {
		t.Error("a GPU whose measurements have changed is accepted over a fresh nonce")
	}
	began := time.Now()
	g.gpu.withdraw()
	code, err := g.WaitEnd(t.Context())
	if err != nil || code != status.GPULost {
		t.Errorf("a GPU that fell off the bus: the guest ended with %s (error %v), want %s", code, err, status.GPULost)
	}
	t.Logf("the guest was gone %s after its GPU", time.Since(began).Round(time.Millisecond))
}

// TestGPUAbsent searches the release for what a guest with software GPUs is made of.
func TestGPUAbsent(t *testing.T) {
	needsBuild(t)
	for _, name := range listVolume(t, filepath.Join(built, "release/root.img")) {
		if strings.HasPrefix(name, gpuModules) || name == gpuHelper || strings.Contains(name, "gpu") {
			t.Errorf("the release's root has %s", name)
		}
	}
	ours := filepath.Join(t.TempDir(), "init")
	board := attesttest.NewBoard(time.Now())
	initOf(t, board.Roots(), ours)
	for file, makers := range map[string][2]nvidia.Roots{filepath.Join(built, "programs/init"): {nvidia.NVIDIARoots(), board.Roots()}, ours: {board.Roots(), nvidia.NVIDIARoots()}} {
		binary, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for i, of := range makers {
			for _, root := range slices.Concat(of.Device, of.RIM) {
				if has := strings.Contains(string(binary), fmt.Sprintf("%x", root)); has != (i == 0) {
					t.Errorf("%s names the root %x: %t, want %t", file, root, has, i == 0)
				}
			}
		}
	}
	helper := filepath.Join(t.TempDir(), "helper")
	goBuild(t, ".", helper, "./gpuhelper")
	programs, err := filepath.Glob(filepath.Join(built, "programs/*"))
	if err != nil || len(programs) == 0 {
		t.Fatal(programs, err)
	}
	for _, file := range append(programs, helper, filepath.Join(built, "bin/chrysalis")) {
		binary, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if has := strings.Contains(string(binary), gpuPort); err != nil || has != (file == helper) {
			t.Errorf("%s knows the port of software GPUs: %t (error %v), want %t", file, has, err, file == helper)
		}
	}
}
