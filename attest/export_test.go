package attest

import (
	"strings"
	"time"

	"chrysalis/attest/check/checktest"
	"chrysalis/attest/evidence"
)

// VerifyDropping is Verify with the check of the given name not judged.
func VerifyDropping(e *evidence.Evidence, c Challenge, p Policy, now time.Time, roots Roots, name string) (*Result, error) {
	return verify(checktest.Dropping(appraisalOf(e).challenged, name), e, c, p, now, roots)
}

// CheckNames lists the checks of a platform, and those whose verdict can't be dropped, because later checks read what they
// parse or judge.
func CheckNames(p evidence.Platform) (all []string, parsers map[string]bool) {
	parsers = map[string]bool{"policy": true, "release-list": true, "platform": true, "tdx": true, "sev-snp": true, "nvidia": true}
	for _, c := range appraisalOf(&evidence.Evidence{Platform: p}).challenged {
		all = append(all, c.Name)
		if strings.HasSuffix(c.Name, "-format") {
			parsers[c.Name] = true
		}
	}
	return all, parsers
}

// Waivable lists the names that a policy can waive.
func Waivable() []string { return waivable() }
