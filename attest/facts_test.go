package attest_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"chrysalis/attest"
	"chrysalis/attest/evidence"
)

// TestFactsChangeNoVerdict judges every vector of every platform without facts, and twice with those of all vectors before
// it: each check must say the same.
func TestFactsChangeNoVerdict(t *testing.T) {
	facts := new(attest.Facts)
	for _, platform := range platforms {
		for _, v := range append([]vector{{"", "nothing is wrong", func(*scene) {}}}, vectorsOn(platform)...) {
			s := newSceneOn(t, platform)
			v.spoil(s)
			s.play(t, func(e *evidence.Evidence, c attest.Challenge, p attest.Policy, now time.Time, roots attest.Roots) (*attest.Result, error) {
				judge := func(f *attest.Facts) string {
					roots.Facts = f
					r, err := attest.Verify(e, c, p, now, roots)
					var refused *attest.Refused
					if errors.As(err, &refused) {
						return fmt.Sprint(err, refused.Checks())
					}
					return fmt.Sprint(err, r.Checks())
				}
				want := judge(nil)
				for i := range 2 {
					if got := judge(facts); got != want {
						t.Errorf("%s, %s, %s, time %d with facts:\ngot  %s\nwant %s", platform, v.check, v.name, i, got, want)
					}
				}
				return nil, nil
			})
		}
	}
}

// TestFactsKeepTheirBytes: whoever uses the buffer again in which evidence lay does not change what was proven of it.
func TestFactsKeepTheirBytes(t *testing.T) {
	for _, platform := range platforms {
		s := newSceneOn(t, platform)
		policy, err := s.rules.Policy()
		if err != nil {
			t.Fatal(err)
		}
		roots := s.source.Roots()
		roots.Facts = new(attest.Facts)
		encoded, err := s.source.Evidence(s.challenge).Encode()
		if err != nil {
			t.Fatal(err)
		}
		judge := func(b []byte) error {
			e, err := evidence.Decode(b)
			if err != nil {
				t.Fatal(err)
			}
			_, err = attest.Verify(e, s.challenge, policy, now, roots)
			return err
		}
		buffer := bytes.Clone(encoded)
		if err := judge(buffer); err != nil {
			t.Fatal(err)
		}
		clear(buffer)
		for range 2 {
			if err := judge(bytes.Clone(encoded)); err != nil {
				t.Errorf("%s, after the first buffer was used again: got %v", platform, err)
			}
		}
	}
}
