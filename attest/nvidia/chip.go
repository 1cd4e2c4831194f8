package nvidia

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
)

// Architecture is a generation of GPUs, which share a form of evidence.
type Architecture string

// The architectures with confidential computing that this build knows.
const (
	Hopper    Architecture = "hopper"
	Blackwell Architecture = "blackwell"
)

const newest = "which this build does not know: Blackwell is the newest it knows"

// Kind is what a device is.
type Kind string

// The kinds.
const (
	GPU    Kind = "gpu"
	Switch Kind = "switch"
)

// switchChip is the NVSwitch of Hopper's boards.
const switchChip = "LS_10"

// architectureOf returns that of a chip as certificates name it, or "". GB20X stands for the GB202 and its likes.
func architectureOf(chip string) Architecture {
	switch {
	case chip == "GH100":
		return Hopper
	case len(chip) == 5 && (strings.HasPrefix(chip, "GB10") || strings.HasPrefix(chip, "GB20")):
		return Blackwell
	}
	return ""
}

// The parts of a name that a switch's report does not have: LS10 has one of each.
const switchBoard = "5612_0002_890"

// DriverRIM returns the name under which NVIDIA's service has the reference values of a GPU's driver. It is what NVIDIA's attestation SDK
// makes of a report.
func (c Claims) DriverRIM(a Architecture) string {
	if a == Hopper {
		return "NV_GPU_DRIVER_GH100_" + c.Driver
	}
	return "NV_GPU_CC_DRIVER_" + cmp.Or(c.Chip, "GB100") + "_" + c.Driver
}

// VBIOSRIM returns the name under which NVIDIA's service has the reference values of the device's own firmware.
func (c Claims) VBIOSRIM(k Kind) string {
	version := strings.ReplaceAll(c.VBIOS, ".", "")
	if k == Switch {
		return "NV_SWITCH_BIOS_" + switchBoard + "_" + version
	}
	return strings.Join([]string{"NV_GPU_VBIOS", c.Project, c.ProjectSKU, c.ChipSKU, version}, "_")
}

// version is one of dotted numbers.
type version []uint64

// parseVersion reads a version whose numbers have that base.
func parseVersion(text string, base int) (version, error) {
	var v version
	for part := range strings.SplitSeq(text, ".") {
		n, err := strconv.ParseUint(part, base, 32)
		if err != nil || len(v) == 8 {
			return nil, fmt.Errorf("version is %q, want numbers with dots between them", text)
		}
		v = append(v, n)
	}
	return v, nil
}

// below reports whether a version is lower than another. Numbers that are not there are zeros.
func (v version) below(w version) bool {
	at := func(v version, i int) uint64 {
		if i < len(v) {
			return v[i]
		}
		return 0
	}
	for i := range max(len(v), len(w)) {
		if a, b := at(v, i), at(w, i); a != b {
			return a < b
		}
	}
	return false
}
