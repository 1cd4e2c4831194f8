package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// GPURule says which GPUs the guest must find: none, or so many of an architecture in a confidential mode, such as "1 hopper spt",
// "8 blackwell mpt" or "8 hopper ppcie 4 switches".
type GPURule string

// GPUNone asks for none: finding one is a failure.
const GPUNone GPURule = "none"

// GPUs is what a rule asks for. The zero GPUs are none.
type GPUs struct {
	Count        int
	Architecture string
	Mode         string
	Switches     int // NVSwitches in the guest
}

// The words of a rule. In the mode spt a GPU is passed through alone, in mpt several are and encrypt what goes between them, in ppcie all
// GPUs and NVSwitches of a board are in one guest.
const (
	hopper, blackwell = "hopper", "blackwell"
	spt, mpt, ppcie   = "spt", "mpt", "ppcie"
	maxGPUs           = 8
	maxSwitches       = 4
)

// Rule returns the one way to write what is asked for.
func (g GPUs) Rule() GPURule {
	if g == (GPUs{}) {
		return GPUNone
	}
	text := fmt.Sprintf("%d %s %s", g.Count, g.Architecture, g.Mode)
	if g.Switches > 0 {
		text += fmt.Sprintf(" %d switches", g.Switches)
	}
	return GPURule(text)
}

// GPUs returns what the rule asks for.
func (r GPURule) GPUs() (GPUs, error) {
	if r == GPUNone {
		return GPUs{}, nil
	}
	var g GPUs
	words := strings.Split(string(r), " ")
	if len(words) >= 3 {
		g.Count, _ = strconv.Atoi(words[0]) // what is no number is not the rule of its own GPUs
		g.Architecture, g.Mode = words[1], words[2]
	}
	if len(words) > 3 {
		g.Switches, _ = strconv.Atoi(words[3])
	}
	if g.Rule() != r || !g.sensible() {
		return GPUs{}, fmt.Errorf(`gpu is %.40q, want %q, or how many of which architecture (%s, %s) in which mode: "1 hopper %s", `+
			`2 to %d in %s, or 2 to %d in %s of %s with 1 to %d switches, as "8 hopper ppcie 4 switches"`,
			r, GPUNone, hopper, blackwell, spt, maxGPUs, mpt, maxGPUs, ppcie, hopper, maxSwitches)
	}
	return g, nil
}

// sensible refuses what no machine is. Protected PCIe is Hopper's alone, and the only mode in which switches are a guest's.
func (g GPUs) sensible() bool {
	several := g.Count >= 2 && g.Count <= maxGPUs
	switch g.Mode {
	case spt:
		return g.Count == 1 && g.Switches == 0 && slices.Contains([]string{hopper, blackwell}, g.Architecture)
	case mpt:
		return several && g.Switches == 0 && slices.Contains([]string{hopper, blackwell}, g.Architecture)
	case ppcie:
		return several && g.Architecture == hopper && g.Switches >= 1 && g.Switches <= maxSwitches
	}
	return false
}
