// Package hostgpu looks at a host's NVIDIA devices as one who would give them to a confidential guest: which there are, what has them, and
// in which mode they are.
//
//	for _, f := range hostgpu.Look(host, nil, true) {
//		fmt.Println(f.Name, f.Found, f.Mend)
//	}
//
// It changes nothing on the host. What it says is for the host's owner: a guest believes none of it, and asks its devices itself.
package hostgpu

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Host is a machine that is looked at. Tests have recorded ones.
type Host struct {
	Files fs.FS                                                       // its root
	Opens func(path string) error                                     // for reading and writing
	Read  func(file fs.FS, path string, offset int64) (uint32, error) // a register in the memory of a device's resource file
}

// Device is one of NVIDIA's on the host's PCI.
type Device struct {
	Address string   // such as 0000:41:00.0
	Switch  bool     // an NVSwitch, not a GPU
	Number  uint16   // PCI's device ID
	Driver  string   // "" has none
	Group   string   // IOMMU group; "" is in none
	Beside  []string // other devices of the group that are no bridges
	BARs    []uint64 // bytes of each window into its memory
	Memory  bool     // it answers to reads of its memory
}

// PCI's numbers, as sysfs writes them.
const (
	vendor       = "0x10de"
	displayClass = "0x03"
	switchClass  = "0x0680"
	bridgeClass  = "0x0604"
	pciRoot      = "sys/bus/pci/devices"
	vfio         = "vfio-pci"
)

// Find returns the devices, by ascending address.
func (h Host) Find() (all []Device, err error) {
	entries, err := fs.ReadDir(h.Files, pciRoot)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		dir := path.Join(pciRoot, e.Name())
		class := h.text(path.Join(dir, "class"))
		isSwitch := strings.HasPrefix(class, switchClass)
		if h.text(path.Join(dir, "vendor")) != vendor || !isSwitch && !strings.HasPrefix(class, displayClass) {
			continue
		}
		d := Device{Address: e.Name(), Switch: isSwitch, Driver: h.link(path.Join(dir, "driver")), Group: h.link(path.Join(dir, "iommu_group"))}
		number, _ := strconv.ParseUint(h.text(path.Join(dir, "device")), 0, 16)
		d.Number = uint16(number)
		d.BARs = bars(h.text(path.Join(dir, "resource")))
		if command, err := h.bytes(path.Join(dir, "config"), 6); err == nil && len(command) == 6 {
			d.Memory = command[4]&2 != 0
		}
		if d.Group != "" {
			d.Beside = h.beside(d)
		}
		all = append(all, d)
	}
	slices.SortFunc(all, func(a, b Device) int { return strings.Compare(a.Address, b.Address) })
	return all, nil
}

// beside are the other devices of the group, without bridges, which nobody passes on.
func (h Host) beside(d Device) (others []string) {
	members, _ := fs.ReadDir(h.Files, path.Join("sys/kernel/iommu_groups", d.Group, "devices"))
	for _, m := range members {
		if m.Name() != d.Address && !strings.HasPrefix(h.text(path.Join(pciRoot, m.Name(), "class")), bridgeClass) {
			others = append(others, m.Name())
		}
	}
	return others
}

// bars reads the sizes of the first six windows: lines of first address, last address and flags.
func bars(resource string) (sizes []uint64) {
	for line := range strings.Lines(resource) {
		var first, last, flags uint64
		if _, err := fmt.Sscanf(line, "0x%x 0x%x 0x%x", &first, &last, &flags); err != nil || len(sizes) == 6 {
			break
		}
		size := uint64(0)
		if last > first {
			size = last - first + 1
		}
		sizes = append(sizes, size)
	}
	return slices.DeleteFunc(sizes, func(n uint64) bool { return n == 0 })
}

// Bytes is how much address space the device's windows take.
func (d Device) Bytes() (n uint64) {
	for _, b := range d.BARs {
		n += b
	}
	return n
}

// maxText bounds a file of sysfs.
const maxText = 64 << 10

func (h Host) bytes(name string, most int64) ([]byte, error) {
	f, err := h.Files.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, most))
}

func (h Host) text(name string) string {
	b, _ := h.bytes(name, maxText)
	return strings.TrimSpace(string(b))
}

// link is the last element of what a link names, or "".
func (h Host) link(name string) string {
	to, err := fs.ReadLink(h.Files, name)
	if err != nil {
		return ""
	}
	return path.Base(to)
}

// Mode is a GPU's confidential mode.
type Mode string

// The modes. In protected PCIe a Hopper board is passed on whole, and its GPUs' confidential mode is off.
const (
	Off       Mode = "off"
	On        Mode = "on"
	Devtools  Mode = "devtools"
	Protected Mode = "ppcie"
)

// Where a GPU says its mode: two bits, and on Hopper one more. NVIDIA/gpu-admin-tools, nvidia_gpu_tools.py: query_cc_mode_hopper,
// query_cc_mode_blackwell, query_ppcie_mode.
const (
	hopperMode, blackwellMode = 0x1182cc, 0x590
	modeBits, protectedBit    = 3, 0x20
)

// Architecture is the line of a GPU by its device ID: hopper, blackwell, or "" for another.
// NVIDIA/gpu-admin-tools, gpu/devid_chips.py and gpu/devid_names.py.
func (d Device) Architecture() string {
	for _, line := range []struct {
		from, to uint16
		name     string
	}{{0x2300, 0x237f, "hopper"}, {0x2900, 0x29ff, "blackwell"}, {0x2b80, 0x2bff, "blackwell"}, {0x3180, 0x327f, "blackwell"}} {
		if d.Number >= line.from && d.Number <= line.to {
			return line.name
		}
	}
	return ""
}

// ModeOf reads a GPU's mode out of its registers, which root alone may.
func (h Host) ModeOf(d Device) (Mode, error) {
	offset := map[string]int64{"hopper": hopperMode, "blackwell": blackwellMode}[d.Architecture()]
	switch {
	case d.Switch || offset == 0:
		return "", fmt.Errorf("%s has no mode that is known here", d.Address)
	case !d.Memory:
		return "", fmt.Errorf("%s sleeps: its memory does not answer", d.Address)
	}
	word, err := h.Read(h.Files, path.Join(pciRoot, d.Address, "resource0"), offset)
	if err != nil {
		return "", err
	}
	if word == ^uint32(0) {
		return "", fmt.Errorf("%s answers all ones: it is gone, or asleep", d.Address)
	}
	switch {
	case offset == hopperMode && word&protectedBit != 0:
		return Protected, nil
	case word&modeBits == 3:
		return Devtools, nil
	case word&modeBits == 1:
		return On, nil
	case word&modeBits == 0:
		return Off, nil
	}
	return "", fmt.Errorf("%s says %#x of its mode, want 0, 1 or 3 in the lowest bits", d.Address, word)
}

// VBIOS is the version of a GPU's firmware, which NVIDIA's driver on the host says as long as it has the device.
func (h Host) VBIOS(d Device) string {
	for line := range strings.Lines(h.text(path.Join("proc/driver/nvidia/gpus", d.Address, "information"))) {
		if name, value, ok := strings.Cut(line, ":"); ok && name == "Video BIOS" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
