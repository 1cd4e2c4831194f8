package acpi

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"chrysalis/measure"
	"chrysalis/tools/internal/qemu"
	"chrysalis/tools/internal/toolstree"
)

// emulatedPhysBits is what QEMU's emulation has as the bits of a physical address.
const emulatedPhysBits = 40

// machine is a QEMU whose CPUs stand still.
type machine struct {
	port *qemu.Port
	qemu *qemu.Process
	tpm  *exec.Cmd
}

// backend finds what a device is connected to.
var backend = regexp.MustCompile(`,(drive|netdev|chardev|tpmdev)=([A-Za-z0-9_-]+)`)

// start starts QEMU for the shape, its CPUs stopped. Tests let a firmware run.
func start(ctx context.Context, tree toolstree.Tree, shape measure.Shape, dir string) (*machine, error) {
	// Nothing is run, but q35 starts with no machine that has no firmware.
	blank := filepath.Join(dir, "firmware")
	if err := os.WriteFile(blank, make([]byte, 64<<10), 0o600); err != nil {
		return nil, err
	}
	return startWith(ctx, tree, shape, dir, "-bios", blank, "-S")
}

// startWith starts QEMU for the shape with nothing behind its devices, except a TPM that was never used: only a real one is
// taken by QEMU.
func startWith(ctx context.Context, tree toolstree.Tree, shape measure.Shape, dir string, extra ...string) (m *machine, err error) {
	m = &machine{}
	defer func() {
		if err != nil {
			m.stop()
		}
	}()
	// That there is a kernel shows in the boot order.
	socket, kernel := filepath.Join(dir, "qtest.sock"), filepath.Join(dir, "kernel")
	if err := os.WriteFile(kernel, emptyKernel(), 0o600); err != nil {
		return m, err
	}
	args := append(qemu.Bare(), "-accel", "tcg", "-cpu", cpu(shape), "-kernel", kernel, "-machine", shape.Machine+",memory-backend=ram",
		"-smp", strconv.Itoa(shape.CPUs),
		// Address space alone: a stranger's shape may have more memory than this machine.
		"-m", strconv.Itoa(shape.MemoryMiB), "-object", fmt.Sprintf("memory-backend-ram,id=ram,size=%dM,reserve=off", shape.MemoryMiB))
	args = append(args, qemu.Boot(shape.StrictBoot)...)
	args = append(args, qemu.Tested(socket)...)
	var connected []string
	for _, d := range shape.Devices {
		for _, b := range backend.FindAllStringSubmatch(d, -1) {
			kind, id := b[1], b[2]
			if slices.Contains(connected, kind+id) {
				return m, fmt.Errorf("%s %s is used twice", kind, id)
			}
			connected = append(connected, kind+id)
			switch kind {
			case "drive":
				args = append(args, "-drive", "if=none,driver=null-co,read-zeroes=on,id="+id)
			case "netdev":
				args = append(args, "-netdev", "hubport,hubid=0,id="+id)
			case "chardev":
				args = append(args, "-chardev", "null,id="+id)
			case "tpmdev":
				tpm := filepath.Join(dir, "tpm.sock")
				if m.tpm != nil {
					return m, errors.New("shape has two TPMs, want one")
				}
				if m.tpm, err = qemu.StartTPM(ctx, tree, dir, tpm); err != nil {
					return m, err
				}
				args = append(args, qemu.Emulator(id, "tpm-"+id, tpm)...)
			}
		}
	}
	for _, d := range shape.Devices {
		args = append(args, "-device", standIn(d))
	}
	args = append(args, extra...)
	if m.qemu, err = qemu.Start(ctx, tree, dir, args...); err != nil {
		return m, err
	}
	m.port, err = m.qemu.Dial(ctx, socket)
	return m, err
}

// standIn is a device that needs nothing of this machine in the place of one that does: a vsock is the kernel's, and no tables or windows
// tell it from another virtio device.
func standIn(device string) string {
	kind, options, _ := strings.Cut(device, ",")
	if kind != "vhost-vsock-pci" {
		return device
	}
	kept := slices.DeleteFunc(strings.Split(options, ","), func(o string) bool { return o == "" || strings.HasPrefix(o, "guest-cid=") })
	return strings.Join(append([]string{"virtio-rng-pci"}, kept...), ",")
}

// emptyKernel returns what QEMU takes for a kernel: the setup header's magic and version and a body of nothing. Linux,
// Documentation/arch/x86/boot.rst.
func emptyKernel() []byte {
	kernel := make([]byte, 16<<10)
	kernel[0x1f1] = 4 // sectors of setup code
	copy(kernel[0x202:], "HdrS")
	binary.LittleEndian.PutUint16(kernel[0x206:], 0x20f) // version 2.15
	kernel[0x211] = 1                                    // loaded high
	return kernel
}

// cpu returns the model that stands for the shape's: emulation knows none that the processor here would have, and of the
// model only the vendor shows in what the firmware is handed.
func cpu(s measure.Shape) string {
	if s.Accelerator == measure.TCG {
		return s.CPU
	}
	return "max,vendor=" + s.CPUVendor
}

// stop ends QEMU and its TPM.
func (m *machine) stop() {
	if m.port != nil {
		_ = m.port.Close()
	}
	if m.qemu != nil {
		m.qemu.Stop()
	}
	if m.tpm != nil {
		_ = m.tpm.Process.Kill()
		_ = m.tpm.Wait()
	}
}
