package guest

import (
	"slices"
	"strings"

	"chrysalis/init/disks"
	"chrysalis/measure"
	"chrysalis/tools/internal/qemu"
)

// rootSerial and diskSerial name the disk of the root volume alone, and a boot disk that holds it in a partition.
const (
	rootSerial = "serial=" + disks.Root
	diskSerial = "serial=" + disks.Boot
)

// OnDisk returns the shape of the same machine with a boot disk in the place of the root's disk.
func OnDisk(s measure.Shape) measure.Shape {
	s.Devices = slices.Clone(s.Devices)
	for i, d := range s.Devices {
		s.Devices[i] = strings.Replace(d, rootSerial, diskSerial, 1)
	}
	return s
}

// boot returns QEMU's arguments for what is booted: a disk, or a kernel directly.
func (f files) boot() []string {
	if f.disk == "" {
		return append([]string{"-kernel", f.kernel, "-initrd", f.initrd, "-append", f.cmdline}, qemu.Drive("root", "raw", f.root, true)...)
	}
	format := "raw"
	if strings.HasSuffix(f.disk, ".qcow2") {
		format = "qcow2"
	}
	return qemu.Drive("root", format, f.disk, true)
}
