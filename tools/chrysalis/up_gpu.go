package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"chrysalis/measure"
	"chrysalis/tools/internal/guest"
	"chrysalis/tools/internal/hostgpu"
)

// passedFlags name this machine's devices that a guest gets.
type passedFlags struct {
	addresses []string
	windowMiB int
}

func (f *passedFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringSliceVar(&f.addresses, "gpu", nil, "GPUs and NVSwitches of this machine that the guest gets, by their addresses on PCI, such as 0000:41:00.0,0000:c1:00.0 (chrysalis doctor --gpu looks at them)")
	flags.IntVar(&f.windowMiB, "gpu-window", 0, "with --gpu: MiB of the guest's window for their memory, a power of two (default: twice what they have)")
}

// pass passes the devices on to a machine of the shape, which has none, or as many. A guest that is started wants them ready; one that is
// printed may be another machine's, where its window is said.
func (f *passedFlags) pass(s measure.Shape, h hostgpu.Host, printsOnly bool, hints io.Writer) (measure.Shape, error) {
	if len(f.addresses) == 0 {
		if f.windowMiB != 0 {
			return s, errors.New("--gpu-window is for the devices that --gpu names")
		}
		return s, nil
	}
	all, err := h.Find()
	if err != nil {
		return s, err
	}
	if len(s.GPUs) == 0 {
		window := f.windowMiB
		if window == 0 {
			var bytes uint64
			for _, address := range f.addresses {
				i := slices.IndexFunc(all, func(d hostgpu.Device) bool { return d.Address == address })
				if i < 0 {
					return s, fmt.Errorf("--gpu names %.40q, and this machine has no device of NVIDIA's there: want one that it has (chrysalis doctor --gpu), or --gpu-window, and a guest that is only printed", address)
				}
				bytes += all[i].Bytes()
			}
			window = guest.GPUWindowMiB(bytes)
		}
		s = guest.WithGPUs(s, len(f.addresses), window)
	} else if f.windowMiB != 0 {
		return s, errors.New("--gpu-window is for a machine whose shape has no GPUs yet: theirs says mmio64_mib")
	}
	if err := s.Check(); err != nil {
		return s, fmt.Errorf("--gpu: %w", err)
	}
	if printsOnly {
		return s, nil
	}
	for _, finding := range hostgpu.Look(h, f.addresses, s.Platform != "") {
		switch finding.Weight {
		case hostgpu.Missing:
			return s, fmt.Errorf("--gpu: %s: found %s, want %s\nchrysalis: hint: %s", finding.Name, finding.Found, finding.Need, finding.Mend)
		case hostgpu.Unknown:
			fmt.Fprintf(hints, "chrysalis: hint: --gpu: %s: %s\n", finding.Name, strings.TrimSpace(finding.Found))
		}
	}
	return s, nil
}
