package main

import (
	"bytes"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"chrysalis/measure"
	"chrysalis/measure/register"
)

// TestPass: the machine gets a port, a device and a window for what is named, and no guest is started with a device that is not ready.
func TestPass(t *testing.T) {
	ready := with(with(tdHost, oneGPU...), "/sys/bus/pci/devices/0000:41:00.0/config", "\xde\x10\x35\x23\x06\x00\x10\x00")
	h := recordedHost(ready, "/dev/kvm", "/dev/iommu")
	h.register = func(fs.FS, string, int64) (uint32, error) { return 1, nil }
	shape := measure.Shape{QEMU: "11.1.3", Machine: "q35", Accelerator: measure.KVM, CPU: "host", CPUVendor: measure.VendorIntel, PhysBits: 46, CPUs: 2, MemoryMiB: 1024,
		Devices: []string{"virtio-rng-pci"}, GPUs: []string{}, Firmware: measure.File{Name: "OVMF.fd", Size: 1, SHA256: register.Digest{1}}}
	for _, tt := range []struct {
		name   string
		flags  passedFlags
		change func(*measure.Shape)
		prints bool
		want   string // an error's words; "" is none
		window int
	}{
		{"none", passedFlags{}, nil, false, "", 0},
		{"one, printed", passedFlags{addresses: []string{"0000:41:00.0"}}, nil, true, "", 64 << 10},
		{"one of another machine, printed", passedFlags{addresses: []string{"0000:42:00.0"}, windowMiB: 1 << 20}, nil, true, "", 1 << 20},
		{"one of another machine, without a window", passedFlags{addresses: []string{"0000:42:00.0"}}, nil, true, "or --gpu-window", 0},
		{"a window for none", passedFlags{windowMiB: 64 << 10}, nil, true, "for the devices that --gpu names", 0},
		{"a window that no shape takes", passedFlags{addresses: []string{"0000:41:00.0"}, windowMiB: 100}, nil, true, "mmio64_mib is 100", 0},
		{"a window beside a shape's", passedFlags{addresses: []string{"0000:41:00.0"}, windowMiB: 64 << 10}, func(s *measure.Shape) { s.GPUs = []string{"vfio-pci,bus=gpu0"} }, true,
			"theirs says mmio64_mib", 0},
		{"32 GiB", passedFlags{addresses: []string{"0000:41:00.0"}}, func(s *measure.Shape) { s.MemoryMiB = 32 << 10 }, true, "memory_mib is 32768", 0},
		{"one that nothing has, started", passedFlags{addresses: []string{"0000:41:00.0"}}, nil, false, "driverctl set-override 0000:41:00.0 vfio-pci", 0},
		{"one of another machine, started", passedFlags{addresses: []string{"0000:42:00.0"}, windowMiB: 1 << 20}, nil, false, "no device of NVIDIA's at 0000:42:00.0", 0},
	} {
		s := shape
		if tt.change != nil {
			tt.change(&s)
		}
		var hints bytes.Buffer
		got, err := tt.flags.pass(s, h.gpus(), tt.prints, &hints)
		if tt.want != "" {
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: got error %v, want one with %q", tt.name, err, tt.want)
			}
			continue
		}
		if err != nil || len(got.GPUs) != len(tt.flags.addresses) || got.MMIO64MiB != tt.window {
			t.Errorf("%s: got %d devices, a window of %d MiB and error %v, want %d and %d", tt.name, len(got.GPUs), got.MMIO64MiB, err, len(tt.flags.addresses), tt.window)
		}
		if ports := slices.DeleteFunc(slices.Clone(got.Devices), func(d string) bool { return !strings.HasPrefix(d, "pcie-root-port,") }); len(ports) != len(tt.flags.addresses) {
			t.Errorf("%s: got the ports %q, want one for each device", tt.name, ports)
		}
	}
}
