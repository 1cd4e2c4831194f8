package qemu

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
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

// kvmNode is the kernel's own virtualisation.
const kvmNode = "/dev/kvm"

// Mended says what to do about KVM's node that does not open.
func Mended(err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s is closed to user %d: add the user to its group (usermod -aG kvm USER), and log in again", kvmNode, os.Geteuid())
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s is not there: switch virtualisation on in the machine's firmware, and load kvm_intel or kvm_amd", kvmNode)
	}
	return err
}

// Accelerated returns the processor that a guest sees where this machine's virtualisation runs the firmware, or says why it does not. A
// device node alone says little: on nested machines KVM may open, and stop at the first instruction that it would have to
// emulate.
func Accelerated(ctx context.Context, tree toolstree.Tree, firmware string) (CPU, error) {
	node, err := os.OpenFile(kvmNode, os.O_RDWR, 0)
	if err != nil {
		return CPU{}, Mended(err)
	}
	node.Close()
	dir, err := os.MkdirTemp("", "chrysalis-kvm-")
	if err != nil {
		return CPU{}, err
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "qmp.sock")
	args := append(Bare(), "-no-reboot", "-machine", "q35", "-accel", "kvm", "-cpu", AcceleratedCPU, "-m", "256")
	args = append(args, slices.Concat(Flash(0, firmware, true), Monitored(socket))...)
	p, err := Start(ctx, tree, "", args...)
	if err != nil {
		return CPU{}, err
	}
	defer p.Stop()
	for end := time.Now().Add(kvmTrial); time.Now().Before(end) && ctx.Err() == nil; time.Sleep(50 * time.Millisecond) {
		if state, err := machineState(maxReplyTime, socket); err == nil && state != "running" {
			return CPU{}, stops(state)
		}
	}
	state, err := machineState(maxReplyTime, socket)
	if err != nil {
		return CPU{}, p.Explain(fmt.Errorf("KVM runs no guest here: %w", err))
	}
	if state != "running" {
		return CPU{}, stops(state)
	}
	return cpu(socket)
}

func stops(state string) error {
	return fmt.Errorf("KVM runs no guest here: the firmware stops, the machine is %s (on a rented machine: ask for nested virtualisation)", state)
}
