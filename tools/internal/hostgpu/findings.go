package hostgpu

import (
	"fmt"
	"slices"
	"strings"
)

// Weight is how much a finding weighs.
type Weight string

// The weights.
const (
	Fine    Weight = "ok"
	Unknown Weight = "slow"    // a guest starts, and something can't be said
	Missing Weight = "missing" // no guest gets the devices as they are, or none can prove them
)

// Finding is one thing about the devices.
type Finding struct {
	Name        string
	Weight      Weight
	Found, Need string
	Mend        string // what to do, where something is to be done
}

// Look says of the named devices, or of all where none is named, whether a guest can be given them: one that proves them, where it is
// confidential.
func Look(h Host, named []string, confidential bool) []Finding {
	all, err := h.Find()
	if err != nil {
		return []Finding{{Name: "gpu", Weight: Missing, Found: err.Error(), Need: "the devices of the machine", Mend: "mount sysfs at /sys"}}
	}
	chosen := all
	if named != nil {
		chosen = nil
		for _, address := range named {
			i := slices.IndexFunc(all, func(d Device) bool { return d.Address == address })
			if i < 0 {
				return []Finding{{Name: "gpu", Weight: Missing, Found: fmt.Sprintf("no device of NVIDIA's at %s; there is %s", address, listed(all, nil)), Need: "the devices that are named",
					Mend: "lspci -Dnn | grep -i nvidia shows them with their addresses"}}
			}
			chosen = append(chosen, all[i])
		}
	}
	present := Finding{Name: "gpu", Found: listed(chosen, nil), Need: "a GPU of NVIDIA's", Weight: Fine}
	if !slices.ContainsFunc(chosen, func(d Device) bool { return !d.Switch }) {
		present.Weight, present.Mend = Missing, "lspci -Dnn | grep -i nvidia shows the GPUs of a machine"
		return []Finding{present}
	}
	found := []Finding{present, driver(chosen), group(chosen, all), h.iommufd(), windows(chosen)}
	if confidential {
		found = append(found, h.mode(chosen))
	}
	return append(found, h.vbios(chosen))
}

// listed are the devices that a condition holds of; nil is any.
func listed(all []Device, holds func(Device) bool) string {
	var names []string
	for _, d := range all {
		if holds == nil || holds(d) {
			names = append(names, d.Address)
		}
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

func driver(chosen []Device) Finding {
	f := Finding{Name: "gpu-driver", Weight: Fine, Found: "all with " + vfio, Need: "each bound to " + vfio}
	var mend []string
	for _, d := range chosen {
		if d.Driver == vfio {
			continue
		}
		has := d.Driver
		if has == "" {
			has = "no driver"
		}
		if len(mend) == 0 {
			f.Found = ""
		}
		f.Found = strings.TrimPrefix(f.Found+", "+d.Address+" has "+has, ", ")
		mend = append(mend, "driverctl set-override "+d.Address+" "+vfio)
	}
	if mend != nil {
		f.Weight, f.Mend = Missing, strings.Join(mend, " && ")
	}
	return f
}

// group wants each device in an IOMMU group whose other members are given to a guest too.
func group(chosen, all []Device) Finding {
	f := Finding{Name: "gpu-iommu", Weight: Fine, Found: "each in a group of its own", Need: "an IOMMU group for each, with nothing beside that the host keeps"}
	for _, d := range chosen {
		if d.Group == "" {
			f.Weight, f.Found = Missing, d.Address+" is in no group"
			f.Mend = "firmware: VT-d or AMD's IOMMU on; kernel: intel_iommu=on, or amd_iommu left on"
			return f
		}
		for _, other := range d.Beside {
			given := func(o Device) bool { return o.Address == other && o.Driver == vfio }
			if !slices.ContainsFunc(all, given) {
				f.Weight, f.Found = Missing, fmt.Sprintf("%s is in group %s with %s", d.Address, d.Group, other)
				f.Mend = "give " + other + " to " + vfio + " too, or switch ACS on in the machine's firmware, so that groups are smaller"
				return f
			}
		}
	}
	return f
}

func (h Host) iommufd() Finding {
	f := Finding{Name: "iommufd", Weight: Fine, Found: "/dev/iommu opens", Need: "/dev/iommu, open to this user"}
	if err := h.Opens("/dev/iommu"); err != nil {
		f.Weight, f.Found = Missing, err.Error()
		f.Mend = "modprobe iommufd, of a kernel with CONFIG_IOMMUFD and CONFIG_VFIO_DEVICE_CDEV (6.6 or newer), and start as root or give the user's group the device and /dev/vfio/devices"
	}
	return f
}

func windows(chosen []Device) Finding {
	f := Finding{Name: "gpu-windows", Weight: Fine, Need: "windows to each device's memory"}
	var sum uint64
	for _, d := range chosen {
		if d.Bytes() == 0 {
			f.Weight, f.Found = Missing, d.Address+" has no window"
			f.Mend = "firmware: Above 4G Decoding and Resizable BAR on, and enough address space for PCI"
			return f
		}
		sum += d.Bytes()
	}
	f.Found = fmt.Sprintf("%d MiB in all", sum>>20)
	return f
}

// mode wants one mode of all GPUs, in which they prove themselves.
func (h Host) mode(chosen []Device) Finding {
	f := Finding{Name: "gpu-mode", Weight: Fine, Need: "confidential mode on in each GPU, or protected PCIe in all of a board"}
	var first Mode
	for _, d := range chosen {
		if d.Switch {
			continue
		}
		mode, err := h.ModeOf(d)
		if err != nil {
			f.Weight, f.Found = Unknown, err.Error()
			f.Mend = "look as root, with the GPU awake: echo on > /sys/bus/pci/devices/" + d.Address + "/power/control"
			return f
		}
		if first == "" {
			first = mode
		}
		if mode != first || mode != On && mode != Protected {
			f.Weight, f.Found = Missing, fmt.Sprintf("%s is %s", d.Address, mode)
			f.Mend = "NVIDIA's gpu-admin-tools: nvidia_gpu_tools.py --gpu-bdf " + d.Address + " --set-cc-mode=on --reset-after-cc-mode-switch"
			return f
		}
	}
	f.Found = string(first) + " in all"
	return f
}

func (h Host) vbios(chosen []Device) Finding {
	f := Finding{Name: "gpu-vbios", Weight: Fine, Need: "firmware that clients accept (min_vbios of their policies)"}
	var versions []string
	for _, d := range chosen {
		if v := h.VBIOS(d); v != "" {
			versions = append(versions, d.Address+" has "+v)
		}
	}
	if f.Found = strings.Join(versions, ", "); versions == nil {
		f.Found = "not said while " + vfio + " has them: the guest's verdict names it"
	}
	return f
}
