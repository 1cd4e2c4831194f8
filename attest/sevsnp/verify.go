package sevsnp

import (
	"crypto/x509"
	"errors"
	"slices"
	"strings"
	"time"

	"chrysalis/attest/check"
)

// Evidence is what somebody hands in. All of it is untrusted.
type Evidence struct {
	Report      []byte   // ATTESTATION_REPORT
	Certificate []byte   // VCEK or VLEK, DER
	Chain       [][]byte // ASK or ASVK, and ARK, in any order, DER
	CRL         []byte   // of the ARK, DER; none only with InsecureSkipCRL
}

// Refused is the refusal of Verify. errors.Is reports it as check.ErrRejected or as check.ErrUnavailable.
type Refused struct {
	*check.Refusal
	report *Report
	signed bool
	tcb    TCBs
}

// Report returns what the refused report says, for explanations alone, or nil when it could not be parsed. The second
// result reports whether a key that a root vouches for has signed it.
func (r *Refused) Report() (*Report, bool) {
	if r.report == nil {
		return nil, false
	}
	report := *r.report
	return &report, r.signed
}

// TCBs returns the patch levels of a report that is signed, zeros when they can't be told.
func (r *Refused) TCBs() TCBs { return r.tcb }

// Result is what is true of a guest's platform. Only Verify makes one.
type Result struct {
	report  Report
	product Product
	tcb     TCBs
	csp     string
	chip    [64]byte
	checks  []check.Line
}

// TCBs are the patch levels of a report.
type TCBs struct {
	Reported  TCB `json:"reported"`
	Committed TCB `json:"committed"`
	Current   TCB `json:"current"`
	Launch    TCB `json:"launch"`
}

// lowest returns the lowest level of each part that the guest may have run on or could be moved to.
func (t TCBs) lowest() TCB { return t.Reported.min(t.Committed).min(t.Current).min(t.Launch) }

// Report returns the report.
func (r *Result) Report() Report { return r.report }

// Product returns the line of processors.
func (r *Result) Product() Product { return r.product }

// TCBs returns the patch levels, which the certificate and the options agree to.
func (r *Result) TCBs() TCBs { return r.tcb }

// ChipID returns the chip: the report's, or where that is masked the certificate's; zeros where neither names one.
func (r *Result) ChipID() [64]byte { return r.chip }

// CSP returns the cloud whose VLEK signed, or "" when the chip's own key did.
func (r *Result) CSP() string { return r.csp }

// Checks returns every check, in order.
func (r *Result) Checks() []check.Line { return check.Told(r.checks) }

// Lines returns the checks for the finding of an appraisal around this one, which are told with its own.
func (r *Result) Lines() []check.Line { return r.checks }

// Waived returns the names of the checks that did not hold and that an option does without.
func (r *Result) Waived() []string {
	var names []string
	for _, c := range r.checks {
		if c.Verdict == check.Waived {
			names = append(names, c.Name)
		}
	}
	return names
}

// TCBsOf takes the patch levels of a report apart. It proves nothing about them.
func TCBsOf(r *Report, p Product) (TCBs, error) {
	var t TCBs
	var errs [4]error
	t.Reported, errs[0] = r.ReportedTCB.Parts(p)
	t.Committed, errs[1] = r.CommittedTCB.Parts(p)
	t.Current, errs[2] = r.CurrentTCB.Parts(p)
	t.Launch, errs[3] = r.LaunchTCB.Parts(p)
	return t, errors.Join(errs[:]...)
}

// appraisal is one run of Verify: what it was given, and what it parsed out of the evidence.
type appraisal struct {
	evidence Evidence
	options  *Options
	at       time.Time
	roots    []*x509.Certificate

	report  *Report
	chain   *chain
	product Product
	crl     *x509.RevocationList
	tcb     TCBs
	signed  bool // the report's signature has been verified under a root
}

// Verify judges evidence at the time at. It returns a Result only when every check has accepted or an option waives it by
// name; otherwise a *Refused with the checks made so far. No check depends on the network, and nil roots trust nobody.
func Verify(evidence Evidence, options Options, at time.Time, roots []*x509.Certificate) (*Result, error) {
	return verify(checks, evidence, options, at, roots)
}

func verify(steps []check.Step[*appraisal], evidence Evidence, options Options, at time.Time, roots []*x509.Certificate) (*Result, error) {
	a := &appraisal{evidence: evidence, options: &options, at: at, roots: roots}
	lines, refusal := check.Run("verifying sev-snp report", steps, a)
	if refusal != nil {
		return nil, &Refused{Refusal: refusal, report: a.report, signed: a.signed, tcb: a.tcb}
	}
	return &Result{report: *a.report, product: a.product, tcb: a.tcb, csp: a.chain.endorsement.csp,
		chip: a.chipID(), checks: lines}, nil
}

// RestsOnCollateral reports whether a newer revocation list could change a check's verdict.
func RestsOnCollateral(name string) bool {
	return strings.HasPrefix(name, "crl-") || name == "revocation"
}

// checks lists the appraisal in order. Nothing in the evidence changes the list.
var checks = slices.Concat(chainChecks, reportChecks, tcbChecks, policyChecks, guestChecks)
