package sevsnp_test

import (
	"errors"
	"fmt"
	"testing"

	"chrysalis/attest/check"
	"chrysalis/attest/sevsnp"
)

// TestFactsChangeNoVerdict judges every vector without facts, and twice with those of all vectors before it: each check
// must say the same.
func TestFactsChangeNoVerdict(t *testing.T) {
	facts := new(check.Facts)
	for _, v := range append([]vector{{name: "nothing is wrong", change: func(*run) {}}}, vectors...) {
		r := v.make()
		e := r.Evidence()
		judge := func(f *check.Facts) string {
			r.options.Facts = f
			result, err := sevsnp.Verify(e, r.options, r.at, r.roots)
			var refused *sevsnp.Refused
			if errors.As(err, &refused) {
				return fmt.Sprint(err, refused.TCBs(), refused.Checks())
			}
			return fmt.Sprint(err, result.TCBs(), result.Checks())
		}
		want := judge(nil)
		for i := range 2 {
			if got := judge(facts); got != want {
				t.Errorf("%s, time %d with facts:\ngot  %s\nwant %s", v.name, i, got, want)
			}
		}
	}
}
