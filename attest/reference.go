package attest

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"chrysalis/attest/check"
	"chrysalis/attest/evidence"
	"chrysalis/measure/register"
)

// Release is a release and its reference values: what its guests show on each platform, one entry for each shape of machine
// that it may run on. Without an entry for a platform it does not run there.
type Release struct {
	Name            string          `json:"name"`
	SecurityVersion uint32          `json:"security_version"`
	VTPM            []register.PCRs `json:"vtpm"` // registers outside PCR 13 and 14, which follow from the config
	TDX             []TDXValues     `json:"tdx"`
	// SEVSNP are launch digests: firmware, kernel, initrd, command line, and number and kind of processors.
	SEVSNP []register.Digest384 `json:"sev_snp"`
}

// TDXValues are the registers of a TD that a release and a shape fix. RTMR3 follows from the config. A waived register is
// zeros.
type TDXValues struct {
	MRTD  register.Digest384 `json:"mrtd"`
	RTMR0 register.Digest384 `json:"rtmr0"`
	RTMR1 register.Digest384 `json:"rtmr1"`
	RTMR2 register.Digest384 `json:"rtmr2"`
}

// named returns the values by the names of the registers, without those that are zeros.
func (v TDXValues) named() map[string][]byte {
	values := map[string][]byte{}
	for i, value := range []register.Digest384{v.MRTD, v.RTMR0, v.RTMR1, v.RTMR2} {
		if value != (register.Digest384{}) {
			values[register.TD()[i]] = value[:]
		}
	}
	return values
}

// waiverConfidentiality is the waiver without which no vtpm is accepted.
const waiverConfidentiality = "confidentiality"

// pinnedPCRs are the quoted registers whose values a release fixes. The other two follow from the config.
func pinnedPCRs() (names []string) {
	for _, index := range register.Quoted() {
		if index != 13 && index != 14 {
			names = append(names, register.PCR(index))
		}
	}
	return names
}

// waivable are the names that a policy can waive.
func waivable() []string {
	all := slices.Concat([]string{waiverConfidentiality, waiverRTMR3, waiverConfigID, waiverACPI, waiverHostData}, pinnedPCRs(), register.TD())
	for name := range sevsnpWaivers {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

// reference is one entry of a release.
type reference struct {
	release *Release
	values  map[string][]byte // by the register's name
}

// references lists the entries of a platform, of all releases.
func (r *Rules) references(p evidence.Platform) (all []reference) {
	for i := range r.Releases {
		all = append(all, r.Releases[i].references(p)...)
	}
	return all
}

func (r *Release) references(p evidence.Platform) (all []reference) {
	switch p {
	case evidence.VTPM:
		for _, pcrs := range r.VTPM {
			values := map[string][]byte{}
			for index, value := range pcrs {
				values[register.PCR(uint(index))] = value[:]
			}
			all = append(all, reference{r, values})
		}
	case evidence.TDX:
		for _, v := range r.TDX {
			all = append(all, reference{r, v.named()})
		}
	case evidence.SEVSNP:
		for _, digest := range r.SEVSNP {
			all = append(all, reference{r, map[string][]byte{register.Launch: digest[:]}})
		}
	}
	return all
}

// platforms names the platforms that some release runs on.
func (p Policy) platforms() (names []string) {
	for _, platform := range []evidence.Platform{evidence.VTPM, evidence.TDX, evidence.SEVSNP} {
		if len(p.entries[platform]) > 0 {
			names = append(names, platform.String())
		}
	}
	return names
}

// nearest returns the entry of which the most registers fit, so that a refusal names what differs from the release and
// shape that were probably meant. The checks of each register decide whether it runs. Where the registers that are not waived
// don't tell two releases apart, the guest is taken for the one of the lower security version.
func (p Policy) nearest(platform evidence.Platform, registers map[string][]byte) (best reference) {
	most := -1
	for _, entry := range p.entries[platform] {
		fit := 0
		for name, value := range entry.values {
			if bytes.Equal(registers[name], value) {
				fit++
			}
		}
		newer := fit == most && entry.release.SecurityVersion > best.release.SecurityVersion
		older := fit == most && entry.release.SecurityVersion < best.release.SecurityVersion
		// Of two that differ from the guest equally the newer was probably meant.
		if all := fit == len(entry.values); fit > most || all && older || !all && newer {
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
			want, pinned := a.reference.values[name]
			if !pinned {
				return check.Found(hex.EncodeToString(a.registers[name]), "not judged", false)
			}
			return check.Same(a.registers[name], want)
		}})
	}
	return list
}

func (r Release) validate(waived []string) error {
	if r.Name == "" || len(r.Name) > 128 {
		return errors.New("its name is empty or longer than 128 bytes")
	}
	if n := len(r.VTPM) + len(r.TDX) + len(r.SEVSNP); n == 0 || n > maxListed {
		return fmt.Errorf("%d reference values, want 1 to %d", n, maxListed)
	}
	for _, platform := range []struct {
		platform  evidence.Platform
		registers []string
	}{{evidence.VTPM, pinnedPCRs()}, {evidence.TDX, register.TD()}, {evidence.SEVSNP, []string{register.Launch}}} {
		for i, entry := range r.references(platform.platform) {
			if err := complete(entry.values, platform.registers, waived); err != nil {
				return fmt.Errorf("%s entry %d: %w", platform.platform, i, err)
			}
		}
	}
	if slices.Contains(r.SEVSNP, register.Digest384{}) {
		return errors.New("sev-snp: a launch digest of zeros")
	}
	return nil
}

// complete demands that each register is either pinned or waived.
func complete(values map[string][]byte, registers, waived []string) error {
	pinned := 0
	for _, name := range registers {
		_, is := values[name]
		if waived := slices.Contains(waived, name); is == waived {
			return fmt.Errorf("%s: pinned is %t and waived is %t, want one of them", name, is, waived)
		}
		if is {
			pinned++
		}
	}
	if pinned != len(values) {
		return fmt.Errorf("it pins registers outside %v", registers)
	}
	return nil
}
