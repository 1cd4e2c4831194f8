package attest

import (
	"errors"
	"time"

	"chrysalis/attest/check"
	"chrysalis/attest/evidence"
	"chrysalis/attest/sevsnp"
	"chrysalis/attest/tdx"
)

// Shortfalls says which security versions of the machine under a guest are below what the policy accepts, for explanations: it judges the
// quote or the report alone, with the collateral that the evidence carries, and nothing of what runs there. Of evidence whose hardware
// is not proven under the roots it says nothing, and neither does the zero Policy.
func (p Policy) Shortfalls(e *evidence.Evidence, now time.Time, roots Roots) (all []check.Shortfall) {
	if p.rules == nil || e == nil {
		return nil
	}
	a := &appraisal{evidence: e, policy: p, rules: p.rules, now: now, roots: roots}
	var err error
	switch e.Platform {
	case evidence.TDX:
		collateral, wrong := tdx.ParseCollateral(e.Collateral)
		if wrong != nil {
			return nil
		}
		_, err = tdx.Verify(e.Quote, collateral, a.tdxOptions(), now, roots.TDX)
	case evidence.SEVSNP:
		report := sevsnp.Evidence{Report: e.Quote, CRL: e.Collateral}
		if len(e.Certificates) > 0 {
			report.Certificate, report.Chain = e.Certificates[0], e.Certificates[1:]
		}
		_, err = sevsnp.Verify(report, a.sevsnpOptions(), now, roots.SEVSNP)
	}
	var refused interface{ Checks() []check.Line }
	if errors.As(err, &refused) {
		for _, line := range refused.Checks() {
			all = append(all, line.Shortfalls...)
		}
	}
	return all
}
