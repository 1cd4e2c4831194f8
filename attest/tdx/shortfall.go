package tdx

import (
	"cmp"
	"fmt"
	"slices"

	"chrysalis/attest/check"
)

// What is updated, by whose the component is.
const (
	updateBIOS   = "BIOS and microcode"
	updateModule = "the TDX module"
	updatePCE    = "the provisioning certification enclave, of the host's SGX packages"
	updateQE     = "the quoting enclave, of the host's SGX packages"
)

// shortfalls says which security versions hold the TD below the statuses that are accepted, each against the lowest level that
// has one of them. Under TDX 1.5 the module that the TD was launched on and the one that runs now are parts of their own.
func (a *appraisal) shortfalls() []check.Shortfall {
	body, info := &a.quote.Body, a.info.value
	all := a.platformShortfalls(info.levels, body.TEETCBSVN)
	launched := "TDX module"
	if body.TDX15 {
		launched = "TDX module at launch"
		all = append(all, a.platformShortfalls(info.levels, body.TEETCBSVN2)...)
	}
	all = append(all, a.moduleShortfalls(launched, body.TEETCBSVN)...)
	if body.TDX15 {
		all = append(all, a.moduleShortfalls("TDX module that runs", body.TEETCBSVN2)...)
	}
	all = append(all, a.isvShortfalls("quoting enclave", "ISVSVN", updateQE, a.qeID.value.levels, a.qeReport.ISVSVN)...)
	// A component that both sets of a TD's versions have is one.
	slices.SortStableFunc(all, func(x, y check.Shortfall) int {
		return cmp.Or(cmp.Compare(x.Part, y.Part), cmp.Compare(x.Component, y.Component), cmp.Compare(x.Got, y.Got))
	})
	return slices.CompactFunc(all, func(x, y check.Shortfall) bool { return x.Part == y.Part && x.Component == y.Component })
}

func (a *appraisal) accepts(s Status) bool {
	return slices.Contains(Acceptable(), s) && slices.Contains(a.options.statuses(), s)
}

func (a *appraisal) platformShortfalls(levels []tcbLevel, svn [16]byte) (all []check.Shortfall) {
	p, first := a.platform, firstTDX(svn)
	var at known
	status := NotSupported
	good := -1
	for i, level := range levels {
		if status == NotSupported && covers(p.SGXSVN[:], level.sgx[:]) && p.PCESVN >= level.pceSVN && covers(svn[first:], level.tdx[first:]) {
			status, at = level.status, level.known
		}
		if a.accepts(level.status) {
			good = i
		}
	}
	if a.accepts(status) || good < 0 {
		return nil
	}
	need := levels[good]
	short := func(component string, got, want uint64, update string) {
		if got < want {
			all = append(all, check.Shortfall{
				Part: "platform", Component: component, Got: got, Want: want, Status: string(status),
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

func (a *appraisal) moduleShortfalls(part string, svn [16]byte) []check.Shortfall {
	if svn[1] == 0 {
		return nil // one of the platform's components
	}
	identity := a.info.value.module(svn[1])
	if identity == nil {
		return nil // the TCB info knows no module of that version, and no lowest level of it
	}
	return a.isvShortfalls(part, fmt.Sprintf("ISVSVN of version %d", svn[1]), updateModule, identity.levels, uint16(svn[0]))
}

// isvShortfalls judges a module or an enclave. Of its three statuses a verdict takes only UpToDate as good: what is out of date makes
// the whole so.
func (a *appraisal) isvShortfalls(part, component, update string, levels []isvLevel, svn uint16) []check.Shortfall {
	var at known
	status := NotSupported
	good := -1
	for i, level := range levels {
		if status == NotSupported && svn >= level.isvSVN {
			status, at = level.status, level.known
		}
		if level.status == UpToDate {
			good = i
		}
	}
	if status == UpToDate || status == OutOfDate && a.accepts(OutOfDate) || good < 0 || svn >= levels[good].isvSVN {
		return nil
	}
	need := levels[good]
	return []check.Shortfall{{
		Part: part, Component: component, Got: uint64(svn), Want: uint64(need.isvSVN), Status: string(status),
		GotDate: at.date, WantDate: need.date, Advisories: at.advisories, Update: update,
	}}
}
