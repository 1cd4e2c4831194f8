// Package guest makes, starts and stops guests on this machine: their TPM and its maker's certificate, their disks, QEMU.
//
// Everything here is the host's side, which a guest does not trust.
package guest

import (
	"fmt"
	"os"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Shape is what QEMU makes of a guest: everything that the firmware measures of the machine follows from it and from the
// release files.
type Shape struct {
	QEMU      string   `json:"qemu"`       // version of QEMU
	Machine   string   `json:"machine"`    // -machine, without the accelerator
	CPU       string   `json:"cpu"`        // -cpu
	CPUs      int      `json:"cpus"`       // -smp
	MemoryMiB int      `json:"memory_mib"` // -m
	Devices   []string `json:"devices"`    // -device, in order
}

// DefaultShape is the demo's machine. accelerated says whether the processor's own virtualisation is used.
func DefaultShape(qemuVersion string, accelerated bool) Shape {
	cpu := "max"
	if accelerated {
		cpu = "host"
	}
	return Shape{
		QEMU: qemuVersion, Machine: "q35", CPU: cpu, CPUs: 2, MemoryMiB: 1024,
		Devices: []string{
			"tpm-crb,tpmdev=tpm0",
			"virtio-blk-pci,drive=root,serial=chrysalis-root,bootindex=1",
			"virtio-blk-pci,drive=config,serial=chrysalis-config",
			"virtio-blk-pci,drive=journal,serial=chrysalis-journal",
			"virtio-blk-pci,drive=engine,serial=chrysalis-engine",
			"virtio-blk-pci,drive=model,serial=chrysalis-model",
			"virtio-net-pci,netdev=net0,romfile=",
			"virtio-serial-pci",
			"virtserialport,chardev=status,name=org.chrysalis.status",
		},
	}
}

// ReadShape reads a shape.json.
func ReadShape(file string) (Shape, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return Shape{}, err
	}
	var s Shape
	if err := json.Unmarshal(data, &s, json.RejectUnknownMembers(true)); err != nil {
		return Shape{}, fmt.Errorf("reading %s: %v", file, err)
	}
	if s.CPUs < 1 || s.MemoryMiB < 256 || s.Machine == "" || s.CPU == "" {
		return Shape{}, fmt.Errorf("reading %s: %d CPUs, %d MiB, machine %q, cpu %q: want at least 1, 256 and both names", file, s.CPUs, s.MemoryMiB, s.Machine, s.CPU)
	}
	return s, nil
}

// writeJSON writes v, indented for readers, to file.
func writeJSON(file string, v any) error {
	data, err := json.Marshal(v, jsontext.WithIndent("  "))
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(data, '\n'), 0o644)
}

// arguments returns QEMU's command line for the shape; files are those of the guest.
func (s Shape) arguments(f files) []string {
	args := []string{
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-machine", s.Machine, "-accel", f.accelerator, "-cpu", s.CPU,
		"-smp", fmt.Sprint(s.CPUs), "-m", fmt.Sprint(s.MemoryMiB),
		"-drive", "if=pflash,unit=0,format=raw,readonly=on,file=" + escape(f.firmware),
		"-drive", "if=pflash,unit=1,format=raw,file=" + escape(f.variables),
		"-chardev", "socket,id=tpm,path=" + escape(f.tpmSocket), "-tpmdev", "emulator,id=tpm0,chardev=tpm",
		"-chardev", "file,id=status,path=" + escape(f.status),
		"-netdev", fmt.Sprintf("user,id=net0,restrict=on,hostfwd=tcp:127.0.0.1:%d-:%d", f.hostPort, f.guestPort),
		"-qmp", "unix:" + escape(f.qmp) + ",server=on,wait=off",
		"-pidfile", f.pid,
	}
	args = append(args, f.boot()...)
	for _, d := range []struct{ id, file, mode string }{
		{"config", f.config, "on"}, {"journal", f.journal, "off"}, {"engine", f.engine, "on"}, {"model", f.model, "on"},
	} {
		args = append(args, "-drive", "if=none,format=raw,id="+d.id+",readonly="+d.mode+",file="+escape(d.file))
	}
	for _, d := range s.Devices {
		args = append(args, "-device", d)
	}
	return append(args, f.extra...)
}

// escape doubles commas, which separate QEMU's options.
func escape(path string) string {
	out := make([]rune, 0, len(path))
	for _, r := range path {
		if r == ',' {
			out = append(out, ',')
		}
		out = append(out, r)
	}
	return string(out)
}

// files are the paths and ports of one start.
type files struct {
	accelerator, firmware, variables, kernel, initrd, cmdline string
	root, disk, config, journal, engine, model                string
	tpmSocket, status, qmp, pid                               string
	hostPort, guestPort                                       int
	extra                                                     []string
}
