package release

import (
	"errors"
	"fmt"
	"slices"

	"chrysalis/attest/evidence"
	"chrysalis/measure/register"
)

// MaxListed bounds a list of releases, reference values, machines or keys.
const MaxListed = 1024

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
	names := register.TD()
	for i, value := range []register.Digest384{v.MRTD, v.RTMR0, v.RTMR1, v.RTMR2} {
		if value != (register.Digest384{}) {
			values[names[i]] = value[:]
		}
	}
	return values
}

// Registers names what a release fixes on a platform, in order. What follows from the config is not among them: PCR 13 and 14,
// RTMR3.
func Registers(p evidence.Platform) (names []string) {
	switch p {
	case evidence.VTPM:
		for _, index := range register.Quoted() {
			if index != 13 && index != 14 {
				names = append(names, register.PCR(index))
			}
		}
	case evidence.TDX:
		names = register.TD()
	case evidence.SEVSNP:
		names = []string{register.Launch}
	}
	return names
}

// Entry is what a guest of a release shows on one shape of machine.
type Entry struct {
	Release *Release
	Values  map[string][]byte // by the register's name
}

// Entries returns the release's entries of a platform.
func (r *Release) Entries(p evidence.Platform) (all []Entry) {
	switch p {
	case evidence.VTPM:
		for _, pcrs := range r.VTPM {
			values := map[string][]byte{}
			for index, value := range pcrs {
				values[register.PCR(index)] = value[:]
			}
			all = append(all, Entry{r, values})
		}
	case evidence.TDX:
		for _, v := range r.TDX {
			all = append(all, Entry{r, v.named()})
		}
	case evidence.SEVSNP:
		for _, digest := range r.SEVSNP {
			all = append(all, Entry{r, map[string][]byte{register.Launch: digest[:]}})
		}
	}
	return all
}

// Validate demands that every register of every entry is either pinned or named in waived, and that there is an entry.
func (r Release) Validate(waived []string) error {
	if r.Name == "" || len(r.Name) > maxReleaseName {
		return fmt.Errorf("its name is empty or longer than %d bytes", maxReleaseName)
	}
	if n := len(r.VTPM) + len(r.TDX) + len(r.SEVSNP); n == 0 || n > MaxListed {
		return fmt.Errorf("%d reference values, want 1 to %d", n, MaxListed)
	}
	for _, platform := range evidence.Platforms() {
		for i, entry := range r.Entries(platform) {
			if err := complete(entry.Values, Registers(platform), waived); err != nil {
				return fmt.Errorf("%s entry %d: %w", platform, i, err)
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
