package guest

import (
	"fmt"
	"regexp"
	"slices"

	"chrysalis/measure"
)

// gpuAddress is a device's address on the host's PCI, as sysfs writes it.
var gpuAddress = regexp.MustCompile(`^[0-9a-f]{4}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]$`)

// iommufd is QEMU's name for the kernel's interface by which devices reach a guest's memory.
const iommufd = "iommufd0"

// WithGPUs returns the shape with so many devices passed through, each behind a port of its own, and a window of so many MiB for their memory.
// Nothing can be plugged into the ports later, and no option ROM of a device's runs in the guest or is measured.
func WithGPUs(s measure.Shape, count, windowMiB int) measure.Shape {
	s.Devices, s.GPUs, s.MMIO64MiB = slices.Clone(s.Devices), nil, windowMiB
	for i := range count {
		port := fmt.Sprintf("gpu%d", i)
		s.Devices = append(s.Devices, fmt.Sprintf("pcie-root-port,id=%s,chassis=%d,hotplug=off", port, i+1))
		s.GPUs = append(s.GPUs, "vfio-pci,bus="+port+",rombar=0")
	}
	return s
}

// GPUWindowMiB is the window for devices with so many bytes of memory in all: twice that, for alignment, as a power of two, and at least the
// smallest that changes anything.
func GPUWindowMiB(bytes uint64) int {
	mib := 64 << 10
	for uint64(mib)<<20 < 2*bytes {
		mib *= 2
	}
	return mib
}

// checkGPUs wants an address of the host's for each device of the shape.
func (h Hardware) checkGPUs(s measure.Shape) error {
	if len(h.GPUs) != len(s.GPUs) {
		return fmt.Errorf("%d of the host's devices are named, and the shape has %d: name one for each (--gpu)", len(h.GPUs), len(s.GPUs))
	}
	for i, address := range h.GPUs {
		if !gpuAddress.MatchString(address) {
			return fmt.Errorf("device is %.40q, want an address such as 0000:41:00.0", address)
		}
		if slices.Contains(h.GPUs[:i], address) {
			return fmt.Errorf("device %s is named twice", address)
		}
	}
	return nil
}

// gpuArguments are QEMU's for the shape's devices: those of the host that they are, and the firmware's window.
func gpuArguments(s measure.Shape, h Hardware) (args []string) {
	if len(s.GPUs) == 0 {
		return nil
	}
	args = []string{"-object", "iommufd,id=" + iommufd}
	if s.MMIO64MiB != 0 {
		args = append(args, "-fw_cfg", fmt.Sprintf("name=opt/ovmf/X-PciMmio64Mb,string=%d", s.MMIO64MiB))
	}
	for i, d := range s.GPUs {
		args = append(args, "-device", fmt.Sprintf("%s,host=%s,iommufd=%s", d, h.GPUs[i], iommufd))
	}
	return args
}
