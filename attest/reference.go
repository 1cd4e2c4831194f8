package attest

import (
	"bytes"
	"encoding/hex"
	"maps"
	"slices"

	"chrysalis/attest/check"
	"chrysalis/attest/evidence"
	"chrysalis/attest/release"
)

// waiverConfidentiality is the waiver without which no vtpm is accepted.
const waiverConfidentiality = "confidentiality"

// waiverHeldBy is the waiver of who has held the secret before.
const waiverHeldBy = "held-by"

// waivable are the names that a policy can waive.
func waivable() []string {
	all := slices.Concat([]string{waiverConfidentiality, waiverHeldBy, waiverRTMR3, waiverConfigID, waiverACPI, waiverHostData},
		release.Registers(evidence.VTPM), release.Registers(evidence.TDX))
	all = slices.AppendSeq(slices.AppendSeq(all, maps.Keys(sevsnpWaivers)), maps.Keys(tdxWaivers))
	slices.Sort(all)
	return all
}

// references lists the entries of a platform, of all releases.
func (r *Rules) references(p evidence.Platform) (all []release.Entry) {
	for i := range r.Releases {
		all = append(all, r.Releases[i].Entries(p)...)
	}
	return all
}

// platforms names the platforms that some release runs on.
func (p Policy) platforms() (names []string) {
	for _, platform := range evidence.Platforms() {
		if len(p.entries[platform]) > 0 {
			names = append(names, platform.String())
		}
	}
	return names
}

// nearest returns the entry of which the most registers fit, so that a refusal names what differs from the release and
// shape that were probably meant. The checks of each register decide whether it runs. Where the registers that are not waived
// don't tell two releases apart, the guest is taken for the one of the lower security version.
func (p Policy) nearest(platform evidence.Platform, registers map[string][]byte) (best release.Entry) {
	most := -1
	for _, entry := range p.entries[platform] {
		fit := 0
		for name, value := range entry.Values {
			if bytes.Equal(registers[name], value) {
				fit++
			}
		}
		newer := fit == most && entry.Release.SecurityVersion > best.Release.SecurityVersion
		older := fit == most && entry.Release.SecurityVersion < best.Release.SecurityVersion
		// Of two that differ from the guest equally the newer was probably meant.
		if all := fit == len(entry.Values); fit > most || all && older || !all && newer {
			best, most = entry, fit
		}
	}
	return best
}

// registerChecks has one check for each register that a release fixes. Waiving one is the policy's business: no entry has a
// value for it then.
func registerChecks(registers []string) (list []step) {
	for _, name := range registers {
		list = append(list, step{Name: name, Waived: waives(name), Judge: func(a *appraisal) check.Finding {
			want, pinned := a.reference.Values[name]
			if !pinned {
				return check.Found(hex.EncodeToString(a.registers[name]), "not judged", false)
			}
			return check.Same(a.registers[name], want)
		}})
	}
	return list
}
