package measure

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"chrysalis/measure/fault"
	"chrysalis/measure/register"
)

// Shape is what a hypervisor makes of a guest: everything that the firmware measures of the machine follows from it and
// from the release's files. A shape.json is one Shape; whoever starts a guest and whoever computes its registers read the
// same one. SHAPE.md says what each field moves.
type Shape struct {
	// Platform is "" on a vtpm, which shapes without the member are of.
	Platform    Platform    `json:"platform,omitzero"`
	QEMU        string      `json:"qemu"`        // version of QEMU, such as 10.0.13
	Machine     string      `json:"machine"`     // -machine, without accelerator and confidential guest support
	Accelerator Accelerator `json:"accelerator"` // what runs the CPUs
	CPU         string      `json:"cpu"`         // -cpu
	CPUVendor   string      `json:"cpu_vendor"`  // CPUID's vendor as the guest sees it
	// Processor is EAX and EDX of CPUID leaf 1 as the guest sees them, 16 digits in the order of their bytes in memory. Emulation's
	// follow from CPU.
	Processor string   `json:"processor,omitzero"`
	PhysBits  int      `json:"phys_bits"`  // bits of a physical address as the guest's CPUID says
	CPUs      int      `json:"cpus"`       // -smp
	MemoryMiB int      `json:"memory_mib"` // -m
	Devices   []string `json:"devices"`    // -device, in order
	// StrictBoot is -boot strict=on: the firmware tries nothing beyond its list of what to boot from. libvirt always asks for it.
	StrictBoot bool     `json:"strict_boot,omitzero"`
	GPUs       []string `json:"gpus"` // -device of each passed-through GPU or NVSwitch, in order, after Devices; which of the host's it is, is not said
	// MMIO64MiB is the size of the firmware's window for PCI addresses above 4 GiB, in MiB: opt/ovmf/X-PciMmio64Mb. 0 is the firmware's own.
	MMIO64MiB int  `json:"mmio64_mib,omitzero"`
	Firmware  File `json:"firmware"` // of the release folder
}

// Platform is what a machine is to its guest.
type Platform string

// The platforms beside a vtpm, whose machine has the guest's TPM.
const (
	TDX    Platform = "tdx"     // the guest is a TD
	SEVSNP Platform = "sev-snp" // the guest is an SEV-SNP guest
)

// Accelerator is what runs a guest's CPUs.
type Accelerator string

// The accelerators.
const (
	TCG Accelerator = "tcg" // emulation
	KVM Accelerator = "kvm"
)

// MaxShapeBytes bounds a shape.json.
const MaxShapeBytes = 64 << 10

// collidingMiB is how much memory a guest with GPUs must not have.
const collidingMiB = 32 << 10

// minMMIO64MiB is the firmware's own window: a smaller one moves nothing.
const minMMIO64MiB = 32 << 10

// MaxMMIO64MiB is the largest window for PCI addresses above 4 GiB that leaves room for memory.
func (s Shape) MaxMMIO64MiB() int { return 1 << (s.PhysBits - 20 - 4) }

// Bounds of a shape.
const (
	maxCPUs        = 1024
	minMemoryMiB   = 256
	maxMemoryMiB   = 16 << 20
	maxDevices     = 64
	maxDeviceBytes = 256
)

// CPU vendors as CPUID names them.
const (
	VendorIntel = "GenuineIntel"
	VendorAMD   = "AuthenticAMD"
)

var (
	shapeVersion = regexp.MustCompile(`^[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}$`)
	// An argument of QEMU: names no path, and no second option. Shapes come from strangers.
	shapeArgument  = regexp.MustCompile(`^[a-z0-9][A-Za-z0-9_.:=,+-]*$`)
	shapeProcessor = regexp.MustCompile(`^[0-9a-f]{16}$`)
	shapeMachine   = regexp.MustCompile(`^(q35|pc-q35-[0-9]{1,2}\.[0-9])(,(smm|pic|hpet|vmport|usb|graphics|i8042|smbus|sata)=(on|off)|,kernel-irqchip=split)*$`)
)

// deviceTypes are the devices that a shape may hold: those that a guest here has a use for.
var deviceTypes = []string{"pcie-root-port", "pvpanic-pci", "tpm-crb", "vhost-vsock-pci", "virtio-blk-pci", "virtio-net-pci", "virtio-rng-pci",
	"virtio-scsi-pci",
	"virtio-serial-pci", "virtserialport"}

// Check reports what is wrong with the shape.
func (s Shape) Check() error {
	switch {
	case !shapeVersion.MatchString(s.QEMU):
		return fmt.Errorf("qemu is %q, want a version such as 10.0.13", s.QEMU)
	case len(s.Machine) > maxDeviceBytes || !shapeMachine.MatchString(s.Machine):
		return fmt.Errorf("machine is %.300q, want q35 with switches that are known here", s.Machine)
	case s.Accelerator != TCG && s.Accelerator != KVM:
		return fmt.Errorf("accelerator is %q, want %q or %q", s.Accelerator, TCG, KVM)
	case len(s.CPU) > maxDeviceBytes || !cpuArgument.MatchString(s.CPU):
		return fmt.Errorf("cpu is %.300q, want a model with its switches", s.CPU)
	case s.CPUVendor != VendorIntel && s.CPUVendor != VendorAMD:
		return fmt.Errorf("cpu_vendor is %q, want %q or %q", s.CPUVendor, VendorIntel, VendorAMD)
	case s.Processor != "" && (s.Accelerator == TCG || !shapeProcessor.MatchString(s.Processor)):
		return fmt.Errorf("processor is %.40q, want 16 hexadecimal digits, and none under %s", s.Processor, TCG)
	case s.PhysBits < 36 || s.PhysBits > 52:
		return fmt.Errorf("phys_bits is %d, want 36 to 52", s.PhysBits)
	case s.CPUs < 1 || s.CPUs > maxCPUs:
		return fmt.Errorf("cpus is %d, want 1 to %d", s.CPUs, maxCPUs)
	case s.MemoryMiB < minMemoryMiB || s.MemoryMiB > maxMemoryMiB:
		return fmt.Errorf("memory_mib is %d, want %d to %d", s.MemoryMiB, minMemoryMiB, maxMemoryMiB)
	case s.Firmware.Name == "" || strings.ContainsAny(s.Firmware.Name, "/\\") || s.Firmware.Size <= 0 ||
		s.Firmware.SHA256 == (register.Digest{}):
		return errors.New("firmware has no name, size or hash")
	case len(s.GPUs) > 0 && s.MemoryMiB == collidingMiB:
		return fmt.Errorf("memory_mib is %d, want less or more with GPUs: with exactly 32 GiB their drivers were seen to fail over windows below 4 GiB; 16 GiB and less, or 64 GiB "+
			"and more, are known to work", s.MemoryMiB)
	case s.MMIO64MiB != 0 && (len(s.GPUs) == 0 || s.MMIO64MiB&(s.MMIO64MiB-1) != 0 || s.MMIO64MiB < minMMIO64MiB || s.MMIO64MiB > s.MaxMMIO64MiB()):
		return fmt.Errorf("mmio64_mib is %d, want a power of two from %d to %d, a sixteenth of what %d address bits reach, and none without GPUs", s.MMIO64MiB, minMMIO64MiB,
			s.MaxMMIO64MiB(), s.PhysBits)
	case len(s.Devices)+len(s.GPUs) > maxDevices:
		return fmt.Errorf("%d devices, want at most %d", len(s.Devices)+len(s.GPUs), maxDevices)
	}
	switch s.Platform {
	case "":
	case TDX:
		if err := s.isTDX(); err != nil {
			return err
		}
	case SEVSNP:
		if err := s.isSNP(); err != nil {
			return err
		}
	default:
		return fmt.Errorf("platform is %.20q, want none, %q or %q", s.Platform, TDX, SEVSNP)
	}
	if i := slices.IndexFunc(s.Devices, func(d string) bool { return isVirtioPCI(d) && !strings.HasSuffix(d, shared) }); i >= 0 && s.Platform != "" {
		return fmt.Errorf("device is %q, want %q at its end, without which a guest of %s does not talk to it", s.Devices[i], shared, s.Platform)
	}
	for _, d := range s.Devices {
		kind, _, _ := strings.Cut(d, ",")
		if len(d) > maxDeviceBytes || !shapeArgument.MatchString(d) || !slices.Contains(deviceTypes, kind) {
			return fmt.Errorf("device is %.300q, want one of %s with plain properties", d, strings.Join(deviceTypes, ", "))
		}
	}
	for _, d := range s.GPUs {
		if kind, _, _ := strings.Cut(d, ","); len(d) > maxDeviceBytes || !shapeArgument.MatchString(d) || kind != "vfio-pci" {
			return fmt.Errorf("gpu is %.300q, want vfio-pci with plain properties", d)
		}
	}
	return nil
}

// shared are the properties by which a virtio device leaves a guest's private memory alone: it speaks version 1 and goes by the
// guest's own mapping. Linux refuses it inside a TD, and an SEV-SNP guest, without.
const shared = ",disable-legacy=on,iommu_platform=on"

// isVirtioPCI reports whether a device is of virtio and on the PCI bus.
func isVirtioPCI(device string) bool {
	kind, _, _ := strings.Cut(device, ",")
	return strings.HasPrefix(kind, "virtio-") || kind == "vhost-vsock-pci"
}

// cpuArgument is a CPU model; its switches may begin with + and -.
var cpuArgument = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.=,+-]*$`)

// EncodeShape checks the shape and returns its one encoding.
func EncodeShape(s Shape) ([]byte, error) {
	if err := s.Check(); err != nil {
		return nil, fmt.Errorf("encoding shape: %w", err)
	}
	b, err := json.Marshal(s, json.Deterministic(true), jsontext.WithIndent("  "))
	if err != nil {
		return nil, fmt.Errorf("encoding shape: %w", err)
	}
	return append(b, '\n'), nil
}

// DecodeShape reads a shape.json: no unknown, repeated or missing members. White space is its writer's.
func DecodeShape(data []byte) (Shape, error) {
	if len(data) > MaxShapeBytes {
		return Shape{}, fmt.Errorf("decoding shape: %d bytes, want at most %d", len(data), MaxShapeBytes)
	}
	var s Shape
	if err := json.Unmarshal(data, &s, json.RejectUnknownMembers(true)); err != nil {
		return Shape{}, fmt.Errorf("decoding shape: %w", fault.JSON(err))
	}
	if err := s.Check(); err != nil {
		return Shape{}, fmt.Errorf("decoding shape: %w", err)
	}
	return s, nil
}

// Newer reports whether the shape's QEMU is of this major version or newer.
func (s Shape) Newer(major int) bool {
	var got int
	_, err := fmt.Sscanf(s.QEMU, "%d.", &got)
	return err == nil && got >= major
}
