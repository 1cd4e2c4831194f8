package guest

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"chrysalis/init/disks"
	"chrysalis/init/status"
	"chrysalis/measure"
	"chrysalis/measure/engines"
	"chrysalis/measure/register"
	"chrysalis/runtime/numbers"
	"chrysalis/tools/internal/qemu"
	"chrysalis/tools/internal/toolstree"
)

// emulated is the processor of an emulated guest; QEMU's emulation knows no other address bits.
var emulated = qemu.CPU{Vendor: measure.VendorAMD, PhysBits: 40}

// emulatedCPU is the type of that processor: all that QEMU emulates, but for what makes a guest slow under emulation. Repeated moves that a
// processor says are fast go one byte at a time there, and the kernel then fills its pages so; a fifth level of page tables is one more
// to walk; and what an engine computes with AVX and its fused sums takes eight times what it takes with SSE.
const emulatedCPU = "max,erms=off,fsrm=off,fzrm=off,fsrs=off,fsrc=off,la57=off,avx=off"

// DefaultShape is the demo's machine over a firmware file: accelerated over the processor that a guest would see, or emulated
// where that is nil.
func DefaultShape(qemuVersion string, accelerated *qemu.CPU, firmware string) (measure.Shape, error) {
	s := measure.Shape{
		QEMU: qemuVersion, Machine: "q35", Accelerator: measure.TCG, CPU: emulatedCPU, CPUVendor: emulated.Vendor, PhysBits: emulated.PhysBits,
		CPUs: 2, MemoryMiB: 640,
		Devices: []string{
			"tpm-crb,tpmdev=tpm0",
			"virtio-blk-pci,drive=root,serial=" + disks.Root + ",bootindex=1",
			"virtio-blk-pci,drive=config,serial=" + disks.Config,
			"virtio-blk-pci,drive=journal,serial=" + disks.Journal,
			"virtio-blk-pci,drive=engine,serial=" + disks.Engine,
			"virtio-blk-pci,drive=model,serial=" + disks.Model,
			"virtio-net-pci,netdev=net0,romfile=",
			"virtio-serial-pci",
			"virtserialport,chardev=status,name=" + status.PortName,
			"virtserialport,chardev=proofs,name=" + status.ProofsPortName,
			"virtserialport,chardev=numbers,name=" + numbers.PortName,
		},
		GPUs: []string{},
	}
	if accelerated != nil {
		s.Accelerator, s.CPU, s.CPUVendor, s.PhysBits = measure.KVM, qemu.AcceleratedCPU, accelerated.Vendor, accelerated.PhysBits
	}
	var err error
	if s.Firmware, err = FirmwareFile(firmware); err != nil {
		return s, err
	}
	return s, s.Check()
}

// WithModels returns the machine with the disks of so many models: engine and model of each, in the config's order, where one pair stood. A machine
// that has them stays as it is, and one that has others is refused.
func WithModels(s measure.Shape, models int) (measure.Shape, error) {
	var want, has []string
	for at := range models {
		for _, d := range []struct{ drive, serial string }{{"engine", disks.Engine}, {"model", disks.Model}} {
			want = append(want, fmt.Sprintf("virtio-blk-pci,drive=%s,serial=%s", engines.Nth(d.drive, at, models), engines.Nth(d.serial, at, models)))
		}
	}
	first := -1
	more := "" // what stands behind each, on a confidential machine
	rest := slices.DeleteFunc(slices.Clone(s.Devices), func(d string) bool {
		begin, _, ok := strings.Cut(d, ",serial=")
		drive := strings.TrimPrefix(begin, "virtio-blk-pci,drive=")
		if name, _, _ := strings.Cut(drive, "-"); !ok || drive == begin || name != "engine" && name != "model" {
			return false
		}
		if first < 0 {
			first = slices.Index(s.Devices, d)
		}
		_, serial, _ := strings.Cut(d, ",serial=")
		serial, behind, _ := strings.Cut(serial, ",")
		if behind != "" {
			more = "," + behind
		}
		has = append(has, begin+",serial="+serial)
		return true
	})
	one := []string{"virtio-blk-pci,drive=engine,serial=" + disks.Engine, "virtio-blk-pci,drive=model,serial=" + disks.Model}
	switch {
	case slices.Equal(has, want), models == 1 && len(has) == 0: // a machine of somebody else's making, which calls them otherwise
		return s, nil
	case !slices.Equal(has, one):
		return s, fmt.Errorf("the machine has the disks %q, want those of %d models, %q", has, models, want)
	}
	for i := range want {
		want[i] += more
	}
	s.Devices = slices.Insert(rest, first, want...)
	return s, s.Check()
}

// emulatedTD is the processor of an emulated TD. Its highest CPUID leaf is 0x21, where a TD is told that it is one. It is of a model that
// looks nothing up before it may (an Atom): a TD's own says so in a register that QEMU does not have, and a kernel that is not told changes
// its page tables at each call, which under emulation costs an eighth of the boot.
const emulatedTD = emulatedCPU + ",vendor=" + measure.VendorIntel + ",level=33,family=6,model=54"

// SoftwareTDX is the machine of an emulated TD over the firmware of TDX guests: the demo's, with the one CPU that the double plays.
func SoftwareTDX(qemuVersion, firmware string) (measure.Shape, error) {
	s, err := DefaultShape(qemuVersion, nil, firmware)
	if err != nil {
		return s, err
	}
	s = s.ForTD()
	s.CPU, s.CPUs = emulatedTD, 1
	return s, s.Check()
}

// emulatedSNP is the processor of an emulated SEV-SNP guest: its highest extended CPUID leaf is 0x8000001F, where a guest is told so.
const emulatedSNP = snpCPU + ",xlevel=0x8000001f"

// SoftwareSNP is the machine of an emulated SEV-SNP guest over the firmware of such guests: the demo's, with the one CPU that the double
// plays.
func SoftwareSNP(qemuVersion, firmware string) (measure.Shape, error) {
	s, err := DefaultShape(qemuVersion, nil, firmware)
	if err != nil {
		return s, err
	}
	s = s.ForSNP(emulatedSNP)
	s.CPUs = 1
	return s, s.Check()
}

// SoftwareHere is SoftwareTDX or SoftwareSNP under the QEMU beside the tools tree: the older one has no plugins that change a guest.
func SoftwareHere(ctx context.Context, tree toolstree.Tree, p measure.Platform, firmware string) (measure.Shape, error) {
	newer, err := tree.WithNewerQEMU()
	if err != nil {
		return measure.Shape{}, err
	}
	version, err := qemu.Version(ctx, newer)
	if err != nil {
		return measure.Shape{}, err
	}
	if p == measure.SEVSNP {
		return SoftwareSNP(version, firmware)
	}
	return SoftwareTDX(version, firmware)
}

// maxFirmwareBytes bounds a firmware file.
const maxFirmwareBytes = 64 << 20

// FirmwareFile names a firmware file as a shape does.
func FirmwareFile(path string) (measure.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return measure.File{}, err
	}
	defer f.Close()
	sum := sha256.New()
	n, err := io.Copy(sum, io.LimitReader(f, maxFirmwareBytes+1))
	if err != nil {
		return measure.File{}, err
	}
	if n > maxFirmwareBytes {
		return measure.File{}, fmt.Errorf("firmware %s has more than %d bytes", path, maxFirmwareBytes)
	}
	return measure.File{Name: filepath.Base(path), Size: n, SHA256: register.Digest(sum.Sum(nil))}, nil
}

// MachineShape is DefaultShape on this machine, as fast as it goes here; slow says why it is emulated, where it is.
func MachineShape(ctx context.Context, tree toolstree.Tree, firmware string) (s measure.Shape, slow, err error) {
	version, err := qemu.Version(ctx, tree)
	if err != nil {
		return s, nil, err
	}
	seen, slow := qemu.Accelerated(ctx, tree, firmware)
	if slow != nil {
		s, err = DefaultShape(version, nil, firmware)
	} else {
		s, err = DefaultShape(version, &seen, firmware)
	}
	return s, slow, err
}

// ReadShape reads a shape.json.
func ReadShape(file string) (measure.Shape, error) {
	f, err := os.Open(file)
	if err != nil {
		return measure.Shape{}, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, measure.MaxShapeBytes+1))
	if err != nil {
		return measure.Shape{}, err
	}
	s, err := measure.DecodeShape(data)
	if err != nil {
		return measure.Shape{}, fmt.Errorf("reading %s: %w", file, err)
	}
	return s, nil
}

// hasFirmware checks that the file is the shape's firmware: a guest of another would show other registers.
func hasFirmware(s measure.Shape, firmware string) error {
	got, err := FirmwareFile(firmware)
	if err == nil && got != s.Firmware {
		err = fmt.Errorf("firmware is %s (%d bytes, SHA-256 %s), want the shape's %s (%d bytes, SHA-256 %s)",
			got.Name, got.Size, got.SHA256, s.Firmware.Name, s.Firmware.Size, s.Firmware.SHA256)
	}
	return err
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
func arguments(s measure.Shape, f files) ([]string, error) {
	machine, tee := s.Machine, []string(nil)
	if s.Accelerator == measure.KVM { // emulation has a plugin in its place
		words, object, err := confidential(s, f.hardware, f.measured)
		if err != nil {
			return nil, err
		}
		machine, tee = machine+words, object
	}
	restricted := "on"
	if f.reachesOut {
		restricted = "off" // QEMU's own network lets a guest dial everything or nothing
	}
	accelerator := string(s.Accelerator)
	if s.Accelerator == measure.TCG {
		accelerator = "tcg,thread=multi"
	}
	args := append(qemu.Bare(), "-no-reboot", "-machine", machine, "-accel", accelerator, "-cpu", s.CPU,
		"-smp", fmt.Sprint(s.CPUs), "-m", fmt.Sprint(s.MemoryMiB),
		"-chardev", "file,id=status,path="+qemu.Escape(f.status),
		"-chardev", "file,id=proofs,append=on,path="+qemu.Escape(f.proofs),
		// Appended to, so that whoever reads it may cut it short.
		"-chardev", "file,id=numbers,append=on,path="+qemu.Escape(f.numbers),
		"-netdev", fmt.Sprintf("user,id=net0,restrict=%s,hostfwd=tcp:%s:%d-:%d", restricted, f.listen, f.hostPort, f.guestPort),
		"-pidfile", f.pid)
	args = append(args, tee...)
	if s.Platform != "" {
		args = append(args, "-bios", f.firmware)
	} else {
		args = slices.Concat(args, qemu.Flash(0, f.firmware, true), qemu.Flash(1, f.variables, false), qemu.Emulator("tpm0", "tpm", f.tpmSocket))
	}
	args = append(args, qemu.Monitored(f.qmp)...)
	args = append(args, qemu.Boot(s.StrictBoot)...)
	args = append(args, f.boot()...)
	for _, d := range f.disks()[1:] {
		args = append(args, qemu.Drive(d.id, "raw", d.file, d.readOnly)...)
	}
	for _, d := range s.Devices {
		if s.Accelerator == measure.TCG {
			d = inEmulation(d)
		}
		args = append(args, "-device", d)
	}
	return slices.Concat(args, gpuArguments(s, f.hardware), f.extra), nil
}

// diskFile is what is behind a disk, by the name that a shape's device has for it.
type diskFile struct {
	id, file string
	readOnly bool
}

// disks are the guest's disks, the one that it starts from first.
func (f files) disks() []diskFile {
	all := []diskFile{{"root", cmp.Or(f.disk, f.root), true}, {"config", f.config, true}, {"journal", f.journal, false}}
	for at, v := range f.volumes {
		all = append(all, diskFile{engines.Nth("engine", at, len(f.volumes)), v.Engine, true}, diskFile{engines.Nth("model", at, len(f.volumes)), v.Model, true})
	}
	return all
}

// files are the paths and ports of one start.
type files struct {
	firmware, variables, kernel, initrd, cmdline string
	root, disk, config, journal                  string
	volumes                                      []Volumes
	tpm, tpmSocket, qmp, pid                     string // tpm: the folder of its state
	status, proofs, numbers                      string // what leaves by each port
	listen                                       string // address of this machine
	hostPort, guestPort                          int
	hardware                                     Hardware
	measured                                     []byte // the config's measured bytes
	reachesOut                                   bool   // the guest dials its custodian
	extra                                        []string
}
