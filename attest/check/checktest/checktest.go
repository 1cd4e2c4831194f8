// Package checktest has what tests do to a list of checks. Nothing else imports it.
package checktest

import (
	"slices"

	"chrysalis/attest/check"
)

// Dropping returns the list with one check that accepts whatever it finds, to show that it is missed. It panics when no check has
// the name: a test that drops nothing shows nothing.
func Dropping[A any](steps []check.Step[A], name string) []check.Step[A] {
	i := slices.IndexFunc(steps, func(s check.Step[A]) bool { return s.Name == name })
	if i < 0 {
		panic("checktest: no check is named " + name)
	}
	dropped := slices.Clone(steps)
	judge := dropped[i].Judge
	dropped[i].Judge = func(a A) check.Finding {
		found := judge(a)
		found.OK = true
		return found
	}
	return dropped
}
