package nvidia

import (
	"fmt"
	"slices"
	"strings"

	"chrysalis/attest/check"
)

// machineChecks lists the appraisal of a machine in order. Nothing in the evidence changes the list.
var machineChecks = []check.Step[*machine]{
	{Name: "evidence", Proof: true, Judge: func(m *machine) check.Finding {
		e := &m.evidence
		ok := len(e.GPUs) <= MaxDevices && len(e.Switches) <= MaxDevices && len(e.RIMs) <= MaxRIMs && len(e.OCSP) <= MaxOCSP &&
			len(e.Authorities) <= maxChain
		return check.Found(fmt.Sprintf("%d GPUs, %d switches, %d RIMs, %d answers, %d authorities", len(e.GPUs), len(e.Switches), len(e.RIMs),
			len(e.OCSP), len(e.Authorities)),
			fmt.Sprintf("at most %d, %d, %d, %d and %d", MaxDevices, MaxDevices, MaxRIMs, MaxOCSP, maxChain), ok)
	}},
	{Name: "count", Judge: func(m *machine) check.Finding {
		got := fmt.Sprintf("%d GPUs", len(m.evidence.GPUs))
		if len(m.evidence.GPUs) == 0 {
			got = "no GPU"
		}
		o := m.options
		switch {
		case o.NoGPU:
			return check.Found(got, "none, and none asked for", len(m.evidence.GPUs) == 0 && o.GPUs == 0 && o.Switches == 0)
		case o.GPUs < 1:
			return check.Found(got, "options that say how many, or that none is asked for", false)
		}
		return check.Found(got, fmt.Sprint(o.GPUs), len(m.evidence.GPUs) == o.GPUs)
	}},
	{Name: "switch-count", Judge: func(m *machine) check.Finding {
		return check.Found(fmt.Sprint(len(m.evidence.Switches)), fmt.Sprint(m.options.Switches), len(m.evidence.Switches) == m.options.Switches)
	}},
	{Name: "collateral-format", Proof: true, Judge: func(m *machine) check.Finding {
		return check.Holds(m.prepare(), "reference values and answers of responders")
	}},
	{Name: "gpu", Proof: true, Judge: func(m *machine) check.Finding { return m.judge(GPU, m.evidence.GPUs) }},
	{Name: "switch", Proof: true, Judge: func(m *machine) check.Finding { return m.judge(Switch, m.evidence.Switches) }},
	{Name: "distinct", Judge: func(m *machine) check.Finding {
		const want = "each device once"
		seen := map[ID]bool{}
		for _, d := range m.devices {
			if seen[d.id] {
				return check.Found(d.id.String()+" twice", want, false)
			}
			seen[d.id] = true
		}
		return check.Found(want, want, true)
	}},
	{Name: "alike", Judge: func(m *machine) check.Finding {
		const want = "GPUs of one chip, mode and driver"
		for _, d := range m.devices[min(1, len(m.devices)):] {
			first := m.devices[0]
			if d.kind == GPU && (d.id.Chip != first.id.Chip || d.claims.Mode != first.claims.Mode || d.claims.Driver != first.claims.Driver) {
				return check.Found(fmt.Sprintf("%s: %s in the mode %s under %s; %s: %s in the mode %s under %s", first.name(), first.id.Chip,
					first.claims.Mode,
					first.claims.Driver, d.name(), d.id.Chip, d.claims.Mode, d.claims.Driver), want, false)
			}
		}
		return check.Found(want, want, true)
	}},
	{Name: "topology", Judge: func(m *machine) check.Finding { return m.topology() }},
}

// topology judges how GPUs and switches are linked. In protected PCIe, where NVLink is not encrypted, each GPU must see exactly the
// switches that are there, and each switch exactly the GPUs. Switches elsewhere belong to nobody.
func (m *machine) topology() check.Finding {
	const want = "each GPU linked to each switch, and to no others"
	var gpus, switches []*device
	for _, d := range m.devices {
		if d.kind == GPU {
			gpus = append(gpus, d)
		} else {
			switches = append(switches, d)
		}
	}
	protected := slices.ContainsFunc(gpus, func(d *device) bool { return d.claims.Mode == ModePPCIe })
	if !protected {
		return check.Found(fmt.Sprintf("%d switches, no protected PCIe", len(switches)), "no switches where PCIe is not protected",
			len(switches) == 0)
	}
	for _, g := range gpus {
		if got, named := g.claims.SwitchPDIs, pdisOf(switches, func(d *device) PDI { return d.claims.OwnPDI }); !sameSet(got, named) {
			return check.Found(fmt.Sprintf("%s is linked to the switches %s, and there are %s", g.name(), listed(got), listed(named)), want, false)
		}
	}
	for _, s := range switches {
		if got, named := s.claims.GPUPDIs, pdisOf(gpus, func(d *device) PDI { return d.id.pdi() }); !sameSet(got, named) {
			return check.Found(fmt.Sprintf("%s is linked to the GPUs %s, and there are %s", s.name(), listed(got), listed(named)), want, false)
		}
	}
	return check.Found(fmt.Sprintf("%d GPUs and %d switches, linked", len(gpus), len(switches)), want, len(switches) > 0)
}

func pdisOf(devices []*device, of func(*device) PDI) (all []PDI) {
	for _, d := range devices {
		all = append(all, of(d))
	}
	return all
}

func sameSet(a, b []PDI) bool {
	has := func(all []PDI, p PDI) bool { return slices.Contains(all, p) }
	return !slices.ContainsFunc(a, func(p PDI) bool { return !has(b, p) }) && !slices.ContainsFunc(b, func(p PDI) bool { return !has(a, p) })
}

func listed(all []PDI) string {
	names := make([]string, 0, len(all))
	for _, p := range all {
		names = append(names, p.String())
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, " ")
}
