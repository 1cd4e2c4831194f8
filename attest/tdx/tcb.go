package tdx

import "fmt"

// Status says how a security version stands, in Intel's words: Intel PCS API, TCB info version 3, tcbStatus.
type Status string

// The statuses. Only TCB info gives ConfigurationNeeded and SWHardeningNeeded, alone or combined; modules and quoting
// enclaves are up to date, out of date or revoked.
const (
	UpToDate                             Status = "UpToDate"
	SWHardeningNeeded                    Status = "SWHardeningNeeded"
	ConfigurationNeeded                  Status = "ConfigurationNeeded"
	ConfigurationAndSWHardeningNeeded    Status = "ConfigurationAndSWHardeningNeeded"
	OutOfDate                            Status = "OutOfDate"
	OutOfDateConfigurationNeeded         Status = "OutOfDateConfigurationNeeded"
	TDRelaunchAdvised                    Status = "TDRelaunchAdvised"
	TDRelaunchAdvisedConfigurationNeeded Status = "TDRelaunchAdvisedConfigurationNeeded"
	Revoked                              Status = "Revoked"
	// NotSupported: older than the oldest level that Intel lists.
	NotSupported Status = "NotSupported"
	// Unchecked: the caller skips the TCB.
	Unchecked Status = "Unchecked"
)

// Acceptable lists the statuses that Options may accept. Revoked and NotSupported are never accepted.
func Acceptable() []Status {
	return []Status{
		UpToDate, SWHardeningNeeded, ConfigurationNeeded, ConfigurationAndSWHardeningNeeded, OutOfDate, OutOfDateConfigurationNeeded,
		TDRelaunchAdvised, TDRelaunchAdvisedConfigurationNeeded,
	}
}

// TCB is how the machine's security versions stand: what to judge by, and what it was converged from.
type TCB struct {
	Status   Status // converged over the three
	Platform Status // microcode, firmware, PCE
	Module   Status // TDX module; UpToDate for TDX 1.0, whose module is one of the platform's components
	QE       Status // quoting enclave
}

// matchPlatform finds the platform's level: the first of which no component is newer than the machine's. For a TDX module
// with a version of its own the first two TDX components belong to its identity and are judged there.
// Intel PCS API, TCB info version 3, "Determining the status of a TDX TCB level".
func matchPlatform(levels []tcbLevel, p Platform, svn [16]byte) (platform, sgx Status) {
	platform, sgx = NotSupported, NotSupported
	first := firstTDX(svn)
	for _, level := range levels {
		if !covers(p.SGXSVN[:], level.sgx[:]) || p.PCESVN < level.pceSVN {
			continue
		}
		if sgx == NotSupported {
			sgx = level.status
		}
		if covers(svn[first:], level.tdx[first:]) {
			return level.status, sgx
		}
	}
	return NotSupported, sgx
}

// firstTDX is the first of a TD's security versions that the platform's level judges.
func firstTDX(svn [16]byte) int {
	if svn[1] > 0 {
		return 2
	}
	return 0
}

// covers reports whether no component of have is below that of need.
func covers(have, need []byte) bool {
	for i := range need {
		if have[i] < need[i] {
			return false
		}
	}
	return true
}

// matchISVSVN finds a module's or enclave's level: the first that is not newer.
func matchISVSVN(levels []isvLevel, svn uint16) Status {
	for _, level := range levels {
		if svn >= level.isvSVN {
			return level.status
		}
	}
	return NotSupported
}

// converge joins the platform's status with that of a part which is judged by itself, a TDX module or quoting enclave: a
// part that is out of date makes the whole so, and keeps what has to be configured.
func converge(platform, part Status) Status {
	switch {
	case platform == Revoked || part == Revoked:
		return Revoked
	case platform == NotSupported || part == NotSupported:
		return NotSupported
	case part == OutOfDate && (platform == UpToDate || platform == SWHardeningNeeded):
		return OutOfDate
	case part == OutOfDate && (platform == ConfigurationNeeded || platform == ConfigurationAndSWHardeningNeeded):
		return OutOfDateConfigurationNeeded
	}
	return platform
}

// relaunch joins the status of the security versions under which a TD of TDX 1.5 was made with that of those which run now,
// after Intel has updated the module below the TD: when the first are out of date and the second are in order, the TD has to
// be started again and the machine is fine. The other way round the TD runs on what is worse.
func relaunch(launch, current Status) Status {
	inOrder := func(s Status) bool {
		return s == UpToDate || s == SWHardeningNeeded || s == ConfigurationNeeded || s == ConfigurationAndSWHardeningNeeded
	}
	switch {
	case launch == Revoked || current == Revoked:
		return Revoked
	case launch == NotSupported || current == NotSupported:
		return NotSupported
	case !inOrder(launch) && inOrder(current):
		if launch == OutOfDateConfigurationNeeded || current == ConfigurationNeeded || current == ConfigurationAndSWHardeningNeeded {
			return TDRelaunchAdvisedConfigurationNeeded
		}
		return TDRelaunchAdvised
	case inOrder(launch) && current == OutOfDate:
		return converge(launch, current)
	case inOrder(launch) && current == OutOfDateConfigurationNeeded:
		return current
	}
	return launch
}

// judgeTCB converges the statuses of platform, module and quoting enclave by the rule of Intel's quote verification
// library (checkTcbLevel), with two differences: a revoked SGX level is never outweighed by a lower one, and a TD is never
// judged better than the module on which it runs now.
func judgeTCB(info *tcbInfo, p Platform, body *Body, qe Status) TCB {
	tcb := evaluate(info, p, body.TEETCBSVN, qe)
	if body.TDX15 {
		tcb.Status = relaunch(tcb.Status, evaluate(info, p, body.TEETCBSVN2, qe).Status)
	}
	return tcb
}

// evaluate judges one set of a TD's security versions: tdxEvaluateTCB of Intel's library.
func evaluate(info *tcbInfo, p Platform, svn [16]byte, qe Status) TCB {
	platform, sgx := matchPlatform(info.levels, p, svn)
	if sgx == Revoked {
		platform = Revoked
	}
	module := UpToDate
	if version := svn[1]; version > 0 {
		module = NotSupported
		if identity := info.module(version); identity != nil {
			module = matchISVSVN(identity.levels, uint16(svn[0]))
		}
	}
	return TCB{Status: converge(converge(platform, module), qe), Platform: platform, Module: module, QE: qe}
}

// knownStatus checks a status that a signed document gives, out of those that it may give.
func knownStatus(s string, among ...Status) (Status, error) {
	for _, known := range among {
		if s == string(known) {
			return known, nil
		}
	}
	return "", fmt.Errorf("status %q is unknown", s)
}
