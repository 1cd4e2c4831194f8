package qemu

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"time"

	"chrysalis/tools/internal/toolstree"
)

// kvmTrial is how long the firmware has to run for KVM to count as working. Where it does not, the first emulated
// instruction stops the machine within milliseconds.
const kvmTrial = 1500 * time.Millisecond

// AcceleratedCPU is the processor here, with all its address bits.
const AcceleratedCPU = "host,host-phys-bits=on"

// CPU is what a guest's CPUID says of the processor, as far as its firmware goes by it.
type CPU struct {
	Vendor   string
	PhysBits int // bits of a physical address
}

// Accelerated reports whether this machine's virtualisation runs the firmware, and which processor a guest then sees. A
// device node alone says little: on nested machines KVM may open, and stop at the first instruction that it would have to
// emulate.
func Accelerated(ctx context.Context, tree toolstree.Tree, firmware string) (CPU, bool) {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return CPU{}, false
	}
	f.Close()
	dir, err := os.MkdirTemp("", "chrysalis-kvm-")
	if err != nil {
		return CPU{}, false
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "qmp.sock")
	args := append(Bare(), "-no-reboot", "-machine", "q35", "-accel", "kvm", "-cpu", AcceleratedCPU, "-m", "256")
	args = append(args, slices.Concat(Flash(0, firmware, true), Monitored(socket))...)
	p, err := Start(ctx, tree, "", args...)
	if err != nil {
		return CPU{}, false
	}
	defer p.Stop()
	for end := time.Now().Add(kvmTrial); time.Now().Before(end) && ctx.Err() == nil; time.Sleep(50 * time.Millisecond) {
		if state, err := machineState(socket); err == nil && state != "running" {
			return CPU{}, false
		}
	}
	if state, err := machineState(socket); err != nil || state != "running" {
		return CPU{}, false
	}
	seen, err := cpu(socket)
	return seen, err == nil
}
