package attest

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"chrysalis/attest/check"
	"chrysalis/attest/release"
	"chrysalis/measure/pubkey"
)

// ListRules says who may say which releases may run, in place of a policy that names them itself. Empty, the policy's own
// releases count.
type ListRules struct {
	// Signers are Ed25519 keys, of which Threshold must have signed the list.
	Signers   []pubkey.Ed25519 `json:"signers"`
	Threshold int              `json:"threshold"`
	// MaxAge is how long after its issue a list is believed, such as "168h": whoever keeps a newer list from a client gains
	// that much time, however late the list expires.
	MaxAge string `json:"max_age"`
	// Rebuilders are Ed25519 keys, of which RebuildThreshold must say that they rebuilt the release bit for bit. None: the
	// signers alone are believed.
	Rebuilders       []pubkey.Ed25519 `json:"rebuilders"`
	RebuildThreshold int              `json:"rebuild_threshold"`
}

// used reports whether the policy asks for a list.
func (r ListRules) used() bool { return len(r.Signers) > 0 }

func (r ListRules) validate(releases int) error {
	if !r.used() {
		if r.Threshold != 0 || r.MaxAge != "" || len(r.Rebuilders) != 0 || r.RebuildThreshold != 0 {
			return errors.New("rules for a list without signers")
		}
		return nil
	}
	if releases != 0 {
		return fmt.Errorf("signers of a list beside %d releases of the policy's own, want one of them", releases)
	}
	if n := len(r.Signers); n > release.MaxListed || r.Threshold < 1 || r.Threshold > n {
		return fmt.Errorf("threshold is %d of %d signers, want 1 to all of at most %d", r.Threshold, n, release.MaxListed)
	}
	if n := len(r.Rebuilders); n > release.MaxListed || n == 0 && r.RebuildThreshold != 0 ||
		n > 0 && (r.RebuildThreshold < 1 || r.RebuildThreshold > n) {
		return fmt.Errorf("rebuild_threshold is %d of %d rebuilders, want 1 to all of at most %d, or neither",
			r.RebuildThreshold, n, release.MaxListed)
	}
	return validAge("max_age", r.MaxAge)
}

// maxAge returns MaxAge, which validate has parsed.
func (r ListRules) maxAge() time.Duration {
	age, _ := time.ParseDuration(r.MaxAge)
	return age
}

// WithReleases returns the policy with the releases of a signed list, which enough of the policy's signers must stand for.
// Whether the list is fresh is judged by each Verify; when it no longer is, the caller needs a newer one. A policy that
// names its releases itself takes no list.
func (p Policy) WithReleases(signed []byte) (Policy, error) {
	if p.rules == nil || !p.rules.ReleaseList.used() {
		return Policy{}, errors.New("taking release list: the policy names no signers of one")
	}
	rules := *p.rules
	list, err := release.ParseList(signed, rules.ReleaseList.Signers, rules.ReleaseList.Threshold)
	if err != nil {
		return Policy{}, err
	}
	rules.Releases = nil
	for _, r := range list.Releases() {
		if err := r.Values.Validate(rules.Waive); err != nil {
			return Policy{}, fmt.Errorf("%w: taking release list: release %q: %v", ErrRejected, r.Values.Name, err)
		}
		rules.Releases = append(rules.Releases, r.Values)
	}
	if err := rules.validatePlatforms(); err != nil {
		return Policy{}, fmt.Errorf("%w: taking release list: %v", ErrRejected, err)
	}
	with := policyOf(&rules)
	with.list = list
	with.rebuilt = map[string]error{}
	if keys := rules.ReleaseList.Rebuilders; len(keys) > 0 {
		for _, r := range rules.Releases {
			with.rebuilt[r.Name] = list.Rebuilt(r.Name, keys, rules.ReleaseList.RebuildThreshold)
		}
	}
	return with, nil
}

// noneOf says why a list without releases accepts nothing.
func noneOf(l *release.List) string {
	var revoked []string
	for _, r := range l.Revoked() {
		revoked = append(revoked, fmt.Sprintf("%q: %s", r.Name, r.Reason))
	}
	if len(revoked) == 0 {
		return "nothing: the list names no release"
	}
	return "nothing: the list names no release and revokes " + strings.Join(revoked, ", ")
}

// The checks of a release list stand in every appraisal; without one they have nothing to say.
var (
	listCheck = step{Name: "release-list", Proof: true, Unavailable: true, Applies: wantsList, Judge: func(a *appraisal) check.Finding {
		if a.policy.list == nil {
			return check.Found("none", "a list that the policy's signers stand for", false)
		}
		return check.Found("issued "+a.policy.list.Issued().Format(time.RFC3339), "a list that the policy's signers stand for", true)
	}}
	listFreshCheck = step{Name: "release-list-fresh", Proof: true, Applies: wantsList, Judge: func(a *appraisal) check.Finding {
		want := fmt.Sprintf("a list that has not expired, at most %s old", a.rules.ReleaseList.MaxAge)
		return check.Holds(a.policy.list.Fresh(a.now, a.rules.ReleaseList.maxAge()), want)
	}}
	rebuiltCheck = step{Name: "release-rebuilt", Applies: wantsRebuilds, Judge: func(a *appraisal) check.Finding {
		want := fmt.Sprintf("%d rebuilds by the policy's rebuilders", a.rules.ReleaseList.RebuildThreshold)
		return check.Holds(a.policy.rebuilt[a.reference.Release.Name], want)
	}}
)

func wantsList(a *appraisal) bool { return a.rules.ReleaseList.used() }

func wantsRebuilds(a *appraisal) bool { return len(a.rules.ReleaseList.Rebuilders) > 0 }
