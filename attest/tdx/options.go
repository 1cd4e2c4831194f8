package tdx

import (
	"time"

	"chrysalis/attest/check"
)

// Options say what is accepted beyond the strictest.
type Options struct {
	// AcceptStatus lists the statuses that are accepted; default UpToDate alone. Revoked is never accepted.
	AcceptStatus []Status
	// MinTCBEvaluation is the lowest tcbEvaluationDataNumber that collateral may have; default 0. A floor stops collateral
	// that is still valid and older than a TCB recovery.
	MinTCBEvaluation uint32
	// MinTCBDate is the earliest tcbDate that the levels of platform, module and quoting enclave may have; default any. All that
	// was known up to a level's date is mended in it.
	MinTCBDate time.Time
	// MaxCollateralAge is how long after its issue a document is believed: TCB info, QE identity and the PCK's CRL; default as
	// long as it says itself, a month. The root's CRL, which Intel issues once a year, is believed as long as it says.
	MaxCollateralAge time.Duration
	// MRSEAM lists the TDX modules that are accepted; default any that Intel signed, judged by its security version.
	MRSEAM [][48]byte
	// ServiceTDs lists the values of MRSERVICETD that are accepted beside zeros; default none.
	ServiceTDs [][48]byte

	// AllowUnknownExtension accepts a PCK certificate with entries in its SGX extension that this package does not know. Danger: one
	// may be a security version, which nothing here compares.
	AllowUnknownExtension bool
	// AllowUnknownXFAM accepts extended state of the processor that this package does not know. Danger: what it lets the host see is
	// not known.
	AllowUnknownXFAM bool

	// Facts remembers parses and signatures of chains and collateral between calls; default nil, which remembers nothing. What
	// it remembers never changes a verdict.
	Facts *check.Facts

	// InsecureSkipTCB accepts every status but does not hide it; without collateral nothing is known of revocation, of the
	// quoting enclave, or of the TCB, and whoever can run an enclave with the provisioning key on any machine forges quotes.
	InsecureSkipTCB bool
	// InsecureAllowDebug accepts TDs whose memory the host reads and writes.
	InsecureAllowDebug bool
	// InsecureAllowMigratable accepts TDs that a migration TD can move to other machines.
	InsecureAllowMigratable bool
	// InsecureAllowSEPTVE accepts TDs in which the host can make accesses to memory fault into the guest's handlers.
	InsecureAllowSEPTVE bool
}

// statuses returns the accepted ones.
func (o Options) statuses() []Status {
	if len(o.AcceptStatus) == 0 {
		return []Status{UpToDate}
	}
	return o.AcceptStatus
}
