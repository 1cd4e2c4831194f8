package guest

import (
	"slices"
	"strings"

	"chrysalis/measure"
)

// rootSerial and diskSerial name the disk of the root volume alone, and a boot disk that holds it in a partition.
const (
	rootSerial = "serial=chrysalis-root"
	diskSerial = "serial=chrysalis-disk"
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
		return []string{"-kernel", f.kernel, "-initrd", f.initrd, "-append", f.cmdline,
			"-drive", "if=none,format=raw,id=root,readonly=on,file=" + escape(f.root)}
	}
	format := "raw"
	if strings.HasSuffix(f.disk, ".qcow2") {
		format = "qcow2"
	}
	return []string{"-drive", "if=none,format=" + format + ",id=root,readonly=on,file=" + escape(f.disk)}
}
