package e2e

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"chrysalis/measure"
	"chrysalis/tools/internal/guest"
	"chrysalis/tools/internal/qemu"
)

var oneGPU = []string{"0000:41:00.0"}

// TestHardwareLines gives QEMU the lines of guests on hardware that is not here. It must read every word of them, and stop where it
// asks the hardware; a word that it does not know, or a value that it does not take, stops it earlier and with another complaint.
func TestHardwareLines(t *testing.T) {
	needsBuild(t)
	demo := demoSpec(t)
	newer, err := tree(t).WithNewerQEMU()
	if err != nil {
		t.Fatal(err)
	}
	version, err := qemu.Version(t.Context(), newer)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name     string
		platform measure.Platform
		firmware string
		hardware guest.Hardware
		change   func([]string) []string // what makes the line wrong; nil: nothing
		want     string
	}{
		{"tdx", measure.TDX, "OVMF.inteltdx.fd", guest.Hardware{QuoteSocket: guest.DefaultQuoteSocket}, nil, "KVM required"},
		{"tdx with a socket", measure.TDX, "OVMF.inteltdx.fd", guest.Hardware{QuoteSocket: "unix:/run/qgs.socket"}, nil, "KVM required"},
		{"tdx without a service", measure.TDX, "OVMF.inteltdx.fd", guest.Hardware{}, nil, "KVM required"},
		{"sev-snp", measure.SEVSNP, "OVMF.amdsev.fd", guest.Hardware{SNPPolicy: guest.DefaultSNPPolicy}, nil, "KVM required"},
		{"tdx with an unknown member", measure.TDX, "OVMF.inteltdx.fd", guest.Hardware{}, replaced(`"mrconfigid":"`, `"mrconfigids":"`), "mrconfigids"},
		{"sev-snp with an unknown word", measure.SEVSNP, "OVMF.amdsev.fd", guest.Hardware{SNPPolicy: guest.DefaultSNPPolicy},
			replaced("host-data=", "host-datum="), "host-datum"},
		{"sev-snp with long host data", measure.SEVSNP, "OVMF.amdsev.fd", guest.Hardware{SNPPolicy: guest.DefaultSNPPolicy},
			replaced("host-data=", "host-data=AAAA"), "35 not equal to 32"},
		{"tdx with a GPU", measure.TDX, "OVMF.inteltdx.fd", guest.Hardware{GPUs: oneGPU}, nil, "/dev/iommu"},
		{"tdx with a GPU, without the kernel's interface", measure.TDX, "OVMF.inteltdx.fd", guest.Hardware{GPUs: oneGPU}, replaced("iommufd,id=", "rng-builtin,id="), "KVM required"},
		// A machine without protection is made as far as its devices, which are looked for on the host.
		{"a GPU", "", "OVMF_CODE.fd", guest.Hardware{GPUs: oneGPU}, nil, "/dev/iommu"},
		{"a GPU without the kernel's interface", "", "OVMF_CODE.fd", guest.Hardware{GPUs: oneGPU}, replaced("iommufd,id=", "rng-builtin,id=", ",iommufd=iommufd0", ""),
			"0000:41:00.0: no such host device"},
		{"a GPU with an unknown word", "", "OVMF_CODE.fd", guest.Hardware{GPUs: oneGPU}, replaced("iommufd,id=", "rng-builtin,id=", "rombar=", "rombars="), "rombars"},
		{"a GPU behind no port", "", "OVMF_CODE.fd", guest.Hardware{GPUs: oneGPU}, replaced("iommufd,id=", "rng-builtin,id=", "bus=gpu0", "bus=gpu1"), "Bus 'gpu1' not found"},
		{"a port with an unknown word", "", "OVMF_CODE.fd", guest.Hardware{GPUs: oneGPU}, replaced("iommufd,id=", "rng-builtin,id=", "hotplug=", "hotplugs="), "hotplugs"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			seen := qemu.CPU{Vendor: measure.VendorIntel, PhysBits: 46}
			shape, err := guest.HardwareShape(version, tt.platform, seen, filepath.Join(demo.Release, tt.firmware))
			if tt.platform == "" {
				shape, err = guest.DefaultShape(version, &seen, filepath.Join(demo.Release, tt.firmware))
				shape.Devices = shape.Devices[1:] // no TPM, which would be asked first
			}
			if err != nil {
				t.Fatal(err)
			}
			if n := len(tt.hardware.GPUs); n > 0 {
				shape = guest.WithGPUs(shape, n, guest.GPUWindowMiB(256<<30))
			}
			g := guest.Guest{Dir: t.TempDir(), Tree: tree(t)}
			for _, disk := range []string{"config.disk", "journal.disk", "variables.fd"} {
				if err := os.WriteFile(g.Path(disk), make([]byte, 1<<20), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			spec := onOwnPort(t, demo)
			spec.Shape, spec.Hardware = shape, tt.hardware
			if spec.Config, err = guest.ReadConfig(tt.platform, "", spec.Engine, spec.Model); err != nil {
				t.Fatal(err)
			}
			args, err := g.Arguments(spec)
			if err != nil {
				t.Fatal(err)
			}
			// Emulation in KVM's place, with a CPU that it has: the rest is the line.
			for i, word := range args {
				switch word {
				case "-accel":
					args[i+1] = "tcg"
				case "-cpu":
					args[i+1] = strings.Replace(args[i+1], qemu.AcceleratedCPU, "max", 1)
				case "-chardev", "-tpmdev": // nor is there a TPM, whose program would be asked before a device is
					if strings.HasPrefix(args[i+1], "socket,id=tpm,") || strings.HasPrefix(args[i+1], "emulator,") {
						args[i], args[i+1] = "-name", "none"
					}
				}
			}
			if tt.change != nil {
				args = tt.change(args)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			out, err := qemu.Command(ctx, newer, args...).CombinedOutput()
			if err == nil || ctx.Err() != nil || !strings.Contains(string(out), tt.want) {
				t.Errorf("QEMU said %q (%v), want %q", out, err, tt.want)
			}
		})
	}
}

// TestUpLeavesNothing: a guest that does not come up leaves nothing that runs, and QEMU's own words are shown.
func TestUpLeavesNothing(t *testing.T) {
	needsGuests(t)
	for _, tt := range []struct {
		name, want string
		args       []string
	}{
		{"QEMU ends", "-nonsense: invalid option", []string{"--qemu-arg", "-nonsense"}},
		{"the time is over", "nothing runs any more", []string{"--wait", "2s"}},
		{"in the foreground", "nothing runs any more", []string{"--wait", "2s", "--foreground"}},
	} {
		g := newGuest(t)
		_, stderr := chrysalis(t, 3, slices.Concat([]string{"up"}, upFlags(g), tt.args)...)
		if !strings.Contains(stderr, tt.want) || !strings.Contains(stderr, "under tcg, which emulates, as --accelerator says") {
			t.Errorf("%s: got %q, want %q in it, and what runs the machine", tt.name, stderr, tt.want)
		}
		nothingRuns(t, tt.name, g)
	}

	g := newGuest(t)
	cmd := exec.CommandContext(t.Context(), filepath.Join(built, "bin/chrysalis"), slices.Concat([]string{"up"}, upFlags(g), []string{"--foreground"})...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); !g.Running(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("no guest in the foreground after a minute")
		}
	}
	if err := errors.Join(cmd.Process.Signal(syscall.SIGTERM), cmd.Wait()); err != nil {
		t.Errorf("SIGTERM in the foreground: %v, want exit code 0", err)
	}
	nothingRuns(t, "SIGTERM in the foreground", g)
}

// upFlags have up start the emulated demo in the guest's folder.
func upFlags(g guest.Guest) []string {
	return []string{"--release", filepath.Join(built, "release"), "--engine", filepath.Join(built, "volumes/engine.img"), "--model",
		filepath.Join(built, "volumes/model.img"), "--tools-tree", filepath.Join(built, "tools-tree"), "--accelerator", "tcg", "--dir", g.Dir}
}

// nothingRuns checks that no process has the guest's folder in its command line. A TPM takes its process id back before it is gone.
func nothingRuns(t *testing.T, when string, g guest.Guest) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		runs := running(t, g)
		if runs == "" {
			return
		}
		if time.Now().After(end) {
			t.Errorf("%s: still runs: %q", when, runs)
			return
		}
	}
}

// running returns the command line of a process of the guest, or nothing.
func running(t *testing.T, g guest.Guest) string {
	t.Helper()
	processes, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil || len(processes) == 0 {
		t.Fatalf("no processes found: %v", err)
	}
	for _, file := range processes {
		if line, _ := os.ReadFile(file); strings.Contains(string(line), g.Dir) {
			return string(line)
		}
	}
	return ""
}

// replaced replaces a word within the arguments.
func replaced(pairs ...string) func([]string) []string {
	return func(args []string) []string {
		args = slices.Clone(args)
		for i := range args {
			args[i] = strings.NewReplacer(pairs...).Replace(args[i])
		}
		return args
	}
}
