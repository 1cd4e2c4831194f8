package tdx

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"chrysalis/attest/check"
)

// What is updated, by whose the component is.
const (
	updateBIOS   = "BIOS and microcode"
	updateModule = "the TDX module"
	updatePCE    = "the provisioning certification enclave, of the host's SGX packages"
	updateTD     = "the TD: the module that runs is in order, and the TD has to be started again"
	updateQE     = "the quoting enclave, of the host's SGX packages"
)

// The parts of a machine that have levels of their own. Under TDX 1.5 the module that the TD was launched on and the one that runs now
// are two.
const (
	partPlatform = "platform"
	partModule   = "TDX module"
	partLaunched = "TDX module at launch"
	partRunning  = "TDX module that runs"
	partQE       = "quoting enclave"
)

// level is what a part's security versions amount to.
type level struct {
	status Status
	known
}

// partLevel is the level of a part. What has none is NotSupported, without a date.
type partLevel struct {
	part string
	level
}

// parts returns the level of each part, the platform's once for each set of a TD's versions.
func (a *appraisal) parts() (all []partLevel) {
	body, info := &a.quote.Body, a.info.value
	launched := partModule
	if body.TDX15 {
		launched = partLaunched
	}
	add := func(svn [16]byte, module string) {
		all = append(all, partLevel{partPlatform, platformLevel(info.levels, a.platform, svn)})
		if svn[1] > 0 {
			all = append(all, partLevel{module, isvLevelOf(a.moduleLevels(svn), uint16(svn[0]))})
		}
	}
	add(body.TEETCBSVN, launched)
	if body.TDX15 {
		add(body.TEETCBSVN2, partRunning)
	}
	return append(all, partLevel{partQE, isvLevelOf(a.qeID.value.levels, a.qeReport.ISVSVN)})
}

// unmended says what the machine's levels are open to where no version is too low: there is nothing to update then, but to configure, or
// to wait for.
func (a *appraisal) unmended() (text string) {
	for _, p := range a.parts() {
		good := a.acceptsPart
		if p.part == partPlatform {
			good = a.accepts
		}
		if !good(p.level) && len(p.advisories) > 0 && !strings.Contains(text, p.part+"'s level") {
			text += fmt.Sprintf("; the %s's level of %s is open to %s", p.part, p.date.UTC().Format(time.DateOnly), strings.Join(p.advisories, ", "))
		}
	}
	return text
}

// earliest returns the earliest date of a part's level, and the part. A level without a date is earlier than all.
func (a *appraisal) earliest() (time.Time, string) {
	first := slices.MinFunc(a.parts(), func(x, y partLevel) int { return x.date.Compare(y.date) })
	return first.date, first.part
}

func platformLevel(levels []tcbLevel, p Platform, svn [16]byte) level {
	first := firstTDX(svn)
	for _, l := range levels {
		if covers(p.SGXSVN[:], l.sgx[:]) && p.PCESVN >= l.pceSVN && covers(svn[first:], l.tdx[first:]) {
			return level{l.status, l.known}
		}
	}
	return level{status: NotSupported}
}

func isvLevelOf(levels []isvLevel, svn uint16) level {
	for _, l := range levels {
		if svn >= l.isvSVN {
			return level{l.status, l.known}
		}
	}
	return level{status: NotSupported}
}

func (a *appraisal) moduleLevels(svn [16]byte) []isvLevel {
	if identity := a.info.value.module(svn[1]); identity != nil {
		return identity.levels
	}
	return nil // the TCB info knows no module of that version, and no lowest level of it
}

// accepts reports whether a platform's level is good to the options.
func (a *appraisal) accepts(l level) bool {
	return slices.Contains(Acceptable(), l.status) && slices.Contains(a.options.statuses(), l.status)
}

// acceptsPart reports whether a module's or an enclave's level is. Of their three statuses a verdict takes only UpToDate as good: what
// is out of date makes the whole so.
func (a *appraisal) acceptsPart(l level) bool {
	return l.status == UpToDate || l.status == OutOfDate && a.accepts(l)
}

// shortfalls says which security versions hold the TD below the levels that are good, each against the lowest good one.
func (a *appraisal) shortfalls(goodPlatform, goodPart func(level) bool) []check.Shortfall {
	body, info := &a.quote.Body, a.info.value
	launched := partModule
	all := platformShortfalls(info.levels, a.platform, body.TEETCBSVN, goodPlatform)
	if body.TDX15 {
		launched = partLaunched
		all = append(all, platformShortfalls(info.levels, a.platform, body.TEETCBSVN2, goodPlatform)...)
	}
	module := func(part, update string, svn [16]byte) {
		if svn[1] > 0 { // else one of the platform's components
			all = append(all, isvShortfalls(part, fmt.Sprintf("ISVSVN of version %d", svn[1]), update, a.moduleLevels(svn), uint16(svn[0]),
				goodPart)...)
		}
	}
	update := updateModule
	if body.TDX15 {
		if running := body.TEETCBSVN2; running[1] > 0 && goodPart(isvLevelOf(a.moduleLevels(running), uint16(running[0]))) {
			update = updateTD
		}
		module(partRunning, updateModule, body.TEETCBSVN2)
	}
	module(launched, update, body.TEETCBSVN)
	all = append(all, isvShortfalls(partQE, "ISVSVN", updateQE, a.qeID.value.levels, a.qeReport.ISVSVN, goodPart)...)
	// A component that both sets of a TD's versions have is one.
	slices.SortStableFunc(all, func(x, y check.Shortfall) int {
		return cmp.Or(cmp.Compare(x.Part, y.Part), cmp.Compare(x.Component, y.Component), cmp.Compare(x.Got, y.Got))
	})
	return slices.CompactFunc(all, func(x, y check.Shortfall) bool { return x.Part == y.Part && x.Component == y.Component })
}

func platformShortfalls(levels []tcbLevel, p Platform, svn [16]byte, good func(level) bool) (all []check.Shortfall) {
	first, at := firstTDX(svn), platformLevel(levels, p, svn)
	lowest := -1
	for i, l := range levels {
		if good(level{l.status, l.known}) {
			lowest = i
		}
	}
	if good(at) || lowest < 0 {
		return nil
	}
	need := levels[lowest]
	short := func(component string, got, want uint64, update string) {
		if got < want {
			all = append(all, check.Shortfall{
				Part: partPlatform, Component: component, Got: got, Want: want, Status: string(at.status),
				GotDate: at.date, WantDate: need.date, Advisories: at.advisories, Update: update,
			})
		}
	}
	named := func(kind string, i int, name string) string {
		if name == "" {
			return fmt.Sprintf("%s component %d", kind, i+1)
		}
		return fmt.Sprintf("%s component %d (%s)", kind, i+1, name)
	}
	for i := range need.sgx {
		short(named("SGX", i, need.sgxNames[i]), uint64(p.SGXSVN[i]), uint64(need.sgx[i]), updateBIOS)
	}
	short("PCESVN", uint64(p.PCESVN), uint64(need.pceSVN), updatePCE)
	for i := first; i < len(need.tdx); i++ {
		update := updateModule
		if i > 1 {
			update = updateBIOS
		}
		short(named("TDX", i, need.tdxNames[i]), uint64(svn[i]), uint64(need.tdx[i]), update)
	}
	return all
}

func isvShortfalls(part, component, update string, levels []isvLevel, svn uint16, good func(level) bool) []check.Shortfall {
	at := isvLevelOf(levels, svn)
	lowest := -1
	for i, l := range levels {
		if good(level{l.status, l.known}) {
			lowest = i
		}
	}
	if good(at) || lowest < 0 || svn >= levels[lowest].isvSVN {
		return nil
	}
	need := levels[lowest]
	return []check.Shortfall{{
		Part: part, Component: component, Got: uint64(svn), Want: uint64(need.isvSVN), Status: string(at.status),
		GotDate: at.date, WantDate: need.date, Advisories: at.advisories, Update: update,
	}}
}
