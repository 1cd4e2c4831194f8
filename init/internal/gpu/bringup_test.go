package gpu

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"chrysalis/attest/attesttest"
	"chrysalis/attest/check"
	"chrysalis/attest/evidence"
	"chrysalis/attest/nvidia"
	"chrysalis/init/gpuhelper"
	"chrysalis/init/internal/boot"
	"chrysalis/init/status"
	"chrysalis/measure/config"
)

var now = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// world is a machine in a folder, with a software board in it, and a helper that speaks to it.
type world struct {
	*testing.T
	Machine
	board   *attesttest.Board
	state   gpuhelper.State
	happens []string // in order
	deaf    bool     // the GPUs do not begin to work
	beats   net.Conn // the helper's end

	refuses func(what string) error                           // by the driver
	edit    func(devices []evidence.Device) []evidence.Device // of the evidence
}

func (w *world) State() (gpuhelper.State, error) { return w.state, w.refuses("state") }

func (w *world) Evidence(nonce [32]byte) ([]evidence.Device, error) {
	w.happens = append(w.happens, "evidence")
	return w.edit(w.board.Answer(nonce).Devices), w.refuses("evidence")
}

func (w *world) SetReady(ready bool) error {
	w.happens = append(w.happens, fmt.Sprintf("ready %t", ready))
	if err := w.refuses("ready"); err != nil {
		return err
	}
	w.state.Ready = ready && !w.deaf
	return nil
}

func (w *world) write(address, file, text string) {
	w.Helper()
	dir := filepath.Join(w.Sys, "bus/pci/devices", address)
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644)); err != nil {
		w.Fatal(err)
	}
}

func (w *world) read(address, file string) string {
	w.Helper()
	b, err := os.ReadFile(filepath.Join(w.Sys, "bus/pci/devices", address, file))
	if err != nil {
		w.Fatal(err)
	}
	return string(b)
}

func address(i int) string { return fmt.Sprintf("0000:4%d:00.0", i) }

// add puts a GPU on the bus.
func (w *world) add(i int) {
	for file, text := range map[string]string{"vendor": "0x10de\n", "class": "0x030200\n", "reset_method": "flr bus\n", "reset": "",
		"config": "\xde\x10\x30\x23"} {
		w.write(address(i), file, text)
	}
}

func newWorld(t *testing.T, board *attesttest.Board) *world {
	w := &world{T: t, board: board, refuses: func(string) error { return nil }, edit: func(d []evidence.Device) []evidence.Device { return d }}
	stapled := board.Answer([32]byte{})
	w.Machine = Machine{Sys: t.TempDir(), Rule: board.Found().Rule,
		Verifier: Verifier{Roots: board.Roots(), Now: func() time.Time { return now }, Facts: new(check.Facts), Stapled: evidence.GPUs{RIMs: stapled.RIMs, OCSP: stapled.OCSP}}}
	w.state.Confidential = true
	for i := range board.GPUs {
		w.add(i)
		w.state.Devices = append(w.state.Devices, gpuhelper.Device{Kind: evidence.KindGPU, Address: address(i)})
	}
	for i := range board.Switches {
		w.state.Devices = append(w.state.Devices, gpuhelper.Device{Kind: evidence.KindSwitch, Address: fmt.Sprintf("0000:0%d:00.0", i)})
	}
	w.LoadDriver = func() error {
		w.happens = append(w.happens, "driver")
		for i := range board.GPUs {
			if reset := w.read(address(i), "reset"); reset != "1" {
				t.Errorf("%s has a driver before it was reset", address(i))
			}
			if err := os.Symlink("../../../bus/pci/drivers/nvidia", w.at(address(i), "driver")); err != nil {
				return err
			}
		}
		return nil
	}
	w.StartHelper = func() (requests, beats net.Conn, err error) {
		w.happens = append(w.happens, "helper")
		ours, theirs := net.Pipe()
		beats, w.beats = net.Pipe()
		go gpuhelper.Serve(theirs, w)
		t.Cleanup(func() { ours.Close() })
		return ours, beats, nil
	}
	w.Log = func(found string) error {
		w.happens = append(w.happens, "log "+found)
		return w.refuses("log")
	}
	return w
}

func (w *world) at(address, file string) string {
	return filepath.Join(w.Sys, "bus/pci/devices", address, file)
}

// TestBringUp: each board comes up in the one order, and what it signs then a client verifies.
func TestBringUp(t *testing.T) {
	for name, board := range map[string]*attesttest.Board{"one": attesttest.NewBoard(now), "two": attesttest.NewBlackwellBoard(2, now),
		"ppcie": attesttest.NewPPCIeBoard(4, 2, now)} {
		w := newWorld(t, board)
		gpus, err := BringUp(t.Context(), w.Machine)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		text, err := board.Found().Text()
		if err != nil {
			t.Fatal(err)
		}
		if want := []string{"driver", "helper", "evidence", "log " + text, "ready true"}; !slices.Equal(w.happens, want) {
			t.Errorf("%s: got %q, want %q", name, w.happens, want)
		}
		if way := w.read(address(0), "reset_method"); way != "flr" {
			t.Errorf("%s: it was reset by %q, want flr", name, way)
		}
		nonce := [32]byte{9}
		shown, err := gpus.Evidence(nonce)
		if err != nil || len(shown.Devices) != len(board.GPUs)+len(board.Switches) || len(shown.RIMs) == 0 || len(shown.OCSP) == 0 {
			t.Fatalf("%s: got %d devices and error %v, want the board's, with what is stapled", name, len(shown.Devices), err)
		}
		e := nvidia.Evidence{RIMs: shown.RIMs, OCSP: shown.OCSP}
		for _, d := range shown.Devices {
			if d.Kind == evidence.KindGPU {
				e.GPUs = append(e.GPUs, nvidia.Device{Report: d.Report, Chain: d.Chain})
			} else {
				e.Switches = append(e.Switches, nvidia.Device{Report: d.Report, Chain: d.Chain})
			}
		}
		options := board.Options()
		options.Nonce = nonce
		if _, err := nvidia.Verify(e, options, now, board.Roots()); err != nil {
			t.Errorf("%s: a client: %v", name, err)
		}
	}
}

// TestNoGPU: none asked for and none found is a result of its own, and nothing is started for it.
func TestNoGPU(t *testing.T) {
	w := newWorld(t, attesttest.NewBoard(now))
	w.Rule = config.GPUNone
	if gpus, err := BringUp(t.Context(), w.Machine); gpus != nil || codeOf(err) != status.GPUUnasked {
		t.Errorf("one that nobody asked for: got %v and %v, want the end %s", gpus, err, status.GPUUnasked)
	}
	if err := os.RemoveAll(filepath.Join(w.Sys, "bus")); err != nil {
		t.Fatal(err)
	}
	if gpus, err := BringUp(t.Context(), w.Machine); gpus != nil || err != nil || !slices.Equal(w.happens, []string{"log none"}) {
		t.Errorf("none: got %v, %v and %q, want none alone in the log", gpus, err, w.happens)
	}
}

func codeOf(err error) status.Code {
	var coded boot.Coded
	errors.As(err, &coded)
	return coded.Code
}

// TestBringUpFails spoils one thing at a time: each has its end, nothing later happens, and no GPU is left at work.
func TestBringUpFails(t *testing.T) {
	refuses := func(what string) func(*world) {
		return func(w *world) {
			w.refuses = func(asked string) error {
				if asked == what {
					return errors.New("no")
				}
				return nil
			}
		}
	}
	for _, tt := range []struct {
		name  string
		end   status.Code
		last  string // what happens last, before the GPUs are told not to work
		spoil func(*world)
	}{
		{"none found", status.GPUNone, "", func(w *world) { os.RemoveAll(filepath.Join(w.Sys, "bus")) }},
		{"one fewer", status.GPUCount, "", func(w *world) { os.RemoveAll(w.at(address(1), "")) }},
		{"one more", status.GPUCount, "", func(w *world) { w.add(2) }},
		{"a device that can't be read", status.GPU.Failed(), "", func(w *world) { os.Remove(w.at(address(1), "class")) }},
		{"one that a driver has before its reset", status.GPUReset, "", func(w *world) { os.Symlink("x/vfio-pci", w.at(address(1), "driver")) }},
		{"one that is reset with others alone", status.GPUReset, "", func(w *world) { w.write(address(0), "reset_method", "bus\n") }},
		{"one that can't be reset", status.GPUReset, "", func(w *world) {
			os.Remove(w.at(address(1), "reset"))
			os.Mkdir(w.at(address(1), "reset"), 0o755)
		}},
		{"one that is gone after its reset", status.GPUReset, "", func(w *world) { w.write(address(1), "config", "\xff\xff\xff\xff") }},
		{"no driver", status.GPUDriver, "", func(w *world) { w.LoadDriver = func() error { return errors.New("no such device") } }},
		{"another driver", status.GPUDriver, "", func(w *world) {
			w.LoadDriver = func() error { return os.Symlink("x/nouveau", w.at(address(0), "driver")) }
		}},
		{"no helper", status.GPUDriver, "driver", func(w *world) {
			w.StartHelper = func() (requests, beats net.Conn, err error) { return nil, nil, errors.New("no such file") }
		}},
		{"a helper that refuses", status.GPUState, "helper", refuses("state")},
		{"confidential mode off", status.GPUState, "helper", func(w *world) { w.state.Confidential = false }},
		{"development mode", status.GPUState, "helper", func(w *world) { w.state.Development = true }},
		{"at work before", status.GPUState, "helper", func(w *world) { w.state.Ready = true }},
		{"a driver that has one fewer", status.GPUState, "helper", func(w *world) { w.state.Devices = w.state.Devices[1:] }},
		{"a driver that has another", status.GPUState, "helper", func(w *world) { w.state.Devices[1].Address = "0000:77:00.0" }},
		{"a switch that nobody asked for", status.GPUState, "helper", func(w *world) {
			w.state.Devices = append(w.state.Devices, gpuhelper.Device{Kind: evidence.KindSwitch, Address: "0000:01:00.0"})
		}},
		{"no evidence", status.GPUUnverified, "evidence", refuses("evidence")},
		{"evidence of one", status.GPUUnverified, "evidence", func(w *world) {
			w.edit = func(d []evidence.Device) []evidence.Device { return d[:1] }
		}},
		{"evidence over another nonce", status.GPUUnverified, "evidence", func(w *world) {
			w.edit = func([]evidence.Device) []evidence.Device { return w.board.Answer([32]byte{1}).Devices }
		}},
		{"other makers", status.GPUUnverified, "evidence", func(w *world) { w.Verifier.Roots = nvidia.NVIDIARoots() }},
		{"no reference values", status.GPUUnverified, "evidence", func(w *world) { w.Verifier.Stapled.RIMs = nil }},
		{"other measurements", status.GPUUnverified, "evidence", func(w *world) { w.board.GPUs[1].Measure(1, make([]byte, 48)) }},
		{"another mode than the rule", status.GPUUnverified, "evidence", func(w *world) {
			for _, g := range w.board.GPUs {
				g.Set(36, []byte{0, 0})
			}
		}},
		{"a log that is broken", status.GPU.Failed(), "log verified 2 blackwell mpt driver 590.48.01 vbios 97.00.D9.00.35", refuses("log")},
		{"a driver that does not let them work", status.GPUReady, "ready true", refuses("ready")},
		{"GPUs that do not begin", status.GPUReady, "ready true", func(w *world) { w.deaf = true }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, attesttest.NewBlackwellBoard(2, now))
			tt.spoil(w)
			gpus, err := BringUp(t.Context(), w.Machine)
			if gpus != nil || codeOf(err) != tt.end {
				t.Fatalf("got %v and %v, want the end %s", gpus, err, tt.end)
			}
			happened := w.happens
			if i := slices.Index(happened, "helper"); i >= 0 {
				if last := happened[len(happened)-1]; last != "ready false" {
					t.Errorf("at last %q, want the GPUs told not to work", last)
				}
				happened = happened[:len(happened)-1]
			}
			if last := slices.Concat([]string{""}, happened); last[len(last)-1] != tt.last {
				t.Errorf("got %q, want nothing after %q", w.happens, tt.last)
			}
			if w.state.Ready && tt.name != "at work before" {
				t.Error("the GPUs are at work")
			}
		})
	}
}

// TestAttach: a driver that never takes a GPU is waited for as long as the boot lets it.
func TestAttach(t *testing.T) {
	w := newWorld(t, attesttest.NewBoard(now))
	w.LoadDriver = func() error { return nil }
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := BringUp(ctx, w.Machine); codeOf(err) != status.GPUDriver || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the end %s over %v", err, status.GPUDriver, context.DeadlineExceeded)
	}
}

// TestEvidenceAgain: what has changed since the log was written gets no evidence, and nothing else of it changes.
func TestEvidenceAgain(t *testing.T) {
	other := attesttest.NewBlackwellBoard(3, now)
	for _, tt := range []struct {
		name, want string
		spoil      func(*world, *GPUs)
	}{
		{"nothing", "", func(*world, *GPUs) {}},
		{"answers that have expired, which are for clients", "", func(w *world, _ *GPUs) {
			w.board.GPUs[0].Chain[1].Answer.NextUpdate = now.Add(-time.Hour)
		}},
		{"other measurements", "measurements", func(w *world, _ *GPUs) { w.board.GPUs[0].Measure(1, make([]byte, 48)) }},
		{"another nonce", "nonce", func(w *world, _ *GPUs) {
			w.edit = func([]evidence.Device) []evidence.Device { return w.board.Answer([32]byte{1}).Devices }
		}},
		{"another device in the place of one", "and were", func(w *world, _ *GPUs) {
			w.edit = func(d []evidence.Device) []evidence.Device {
				return []evidence.Device{d[0], other.Answer(w.board.GPUs[0].Report.Nonce).Devices[2]}
			}
		}},
		{"a device fewer", "count", func(w *world, _ *GPUs) { w.edit = func(d []evidence.Device) []evidence.Device { return d[1:] } }},
		{"another driver, with reference values of its own", "and the log says", func(w *world, gpus *GPUs) {
			for _, g := range w.board.GPUs {
				g.Set(3, []byte("590.48.02\x00"))
			}
			w.board.RIMs[0].Version = "590.48.02"
			gpus.verifier.Stapled.RIMs = w.board.Answer([32]byte{}).RIMs
		}},
		{"a driver that refuses", "refused", func(w *world, _ *GPUs) { w.refuses = func(string) error { return errors.New("no") } }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, attesttest.NewBlackwellBoard(2, now))
			gpus, err := BringUp(t.Context(), w.Machine)
			if err != nil {
				t.Fatal(err)
			}
			tt.spoil(w, gpus)
			shown, err := gpus.Evidence([32]byte{5})
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || shown.Devices != nil) {
				t.Errorf("got %d devices and %v, want an error with %q", len(shown.Devices), err, tt.want)
			}
		})
	}
}

// TestLost: a helper that says so, or says nothing, has lost a GPU.
func TestLost(t *testing.T) {
	w := newWorld(t, attesttest.NewBoard(now))
	gpus, err := BringUp(t.Context(), w.Machine)
	if err != nil {
		t.Fatal(err)
	}
	lost := make(chan error, 1)
	go func() { lost <- gpus.Watch() }()
	if err := gpuhelper.Beat(w.beats); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if err := <-lost; err == nil || time.Since(start) > time.Second {
		t.Errorf("silence: got %v after %s, want a loss within a second", err, time.Since(start))
	}
}
