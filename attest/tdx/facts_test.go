package tdx_test

import (
	"crypto/x509"
	"errors"
	"fmt"
	"testing"
	"time"

	"chrysalis/attest/check"
	"chrysalis/attest/tdx"
)

// TestFactsChangeNoVerdict judges every vector without facts, and twice with those of all vectors before it: each check
// must say the same.
func TestFactsChangeNoVerdict(t *testing.T) {
	facts := new(check.Facts)
	all := append([]vector{{"", "nothing is wrong", func(*scene) {}}}, vectors()...)
	for _, v := range all {
		s := newScene()
		v.spoil(s)
		s.play(func(quote []byte, c *tdx.Collateral, o tdx.Options, at time.Time, root *x509.Certificate) (*tdx.Result, error) {
			judge := func(f *check.Facts) string {
				o.Facts = f
				r, err := tdx.Verify(quote, c, o, at, root)
				var refused *tdx.Refused
				if errors.As(err, &refused) {
					return fmt.Sprint(err, refused.TCB(), refused.Checks())
				}
				return fmt.Sprint(err, r.TCB(), r.Platform(), r.Checks())
			}
			want := judge(nil)
			for i := range 2 {
				if got := judge(facts); got != want {
					t.Errorf("%s, %s, time %d with facts:\ngot  %s\nwant %s", v.check, v.name, i, got, want)
				}
			}
			return nil, nil
		})
	}
	// The same bytes under another root, and when they no longer hold.
	e := newScene().m.Build()
	o := tdx.Options{Facts: facts}
	for range 2 {
		if _, err := tdx.Verify(e.Quote, e.Collateral, o, now, e.Root); err != nil {
			t.Fatal(err)
		}
		for _, tt := range []struct {
			root *x509.Certificate
			at   time.Time
			want string
		}{{tdx.IntelRoot(), now, "pck-chain"}, {e.Root, now.AddDate(0, 0, 2), "pck-dates"}} {
			_, err := tdx.Verify(e.Quote, e.Collateral, o, tt.at, tt.root)
			var refused *tdx.Refused
			if !errors.As(err, &refused) || refused.Failed.Name != tt.want {
				t.Errorf("under %q at %v: got %v, want a refusal by %s", tt.root.Subject.CommonName, tt.at, err, tt.want)
			}
		}
	}
}
