package attest

import "time"

// VerifyDropping is Verify with the check of the given name not judged.
func VerifyDropping(e *Evidence, c Challenge, p Policy, now time.Time, roots Roots, name string) (*Result, error) {
	for i, check := range vtpmAppraisal {
		if check.name == name {
			return verify(e, c, p, now, roots, i)
		}
	}
	panic("no check is named " + name)
}

// CheckNames lists the checks, and those whose verdict can't be dropped, because later checks read what they parse.
func CheckNames() (all []string, parsers map[string]bool) {
	parsers = map[string]bool{"policy": true}
	for _, c := range vtpmAppraisal {
		all = append(all, c.name)
		if len(c.name) > 7 && c.name[len(c.name)-7:] == "-format" {
			parsers[c.name] = true
		}
	}
	return all, parsers
}
