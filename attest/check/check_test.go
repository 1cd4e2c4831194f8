package check_test

import (
	"errors"
	"testing"

	"chrysalis/attest/check"
	"chrysalis/attest/check/checktest"
)

type subject struct {
	odd, even, known bool
	waive            bool
	decided          string // which of them decides
	inner            []check.Line
	seen             int
}

func ok(of func(*subject) bool) func(*subject) check.Finding {
	return func(s *subject) check.Finding {
		s.seen++
		return check.Found("got", "want", of(s))
	}
}

func steps() []check.Step[*subject] {
	return []check.Step[*subject]{
		{Name: "odd", Judge: ok(func(s *subject) bool { return s.odd })},
		{Name: "even", Waived: func(s *subject) bool { return s.waive }, Judge: ok(func(s *subject) bool { return s.even })},
		{Name: "known", Proof: true, Unavailable: true, Judge: ok(func(s *subject) bool { return s.known })},
		{Name: "inner", Applies: func(s *subject) bool { return s.inner != nil }, Judge: func(s *subject) check.Finding {
			return check.Finding{Got: "got", Want: "want", OK: s.inner[len(s.inner)-1].Verdict == check.Accepted, Lines: s.inner, Failed: s.decided}
		}},
		{Name: "last", Judge: ok(func(*subject) bool { return true })},
	}
}

func TestRun(t *testing.T) {
	good := subject{odd: true, even: true, known: true}
	for _, tt := range []struct {
		name   string
		change func(*subject)
		drop   string
		failed string // "" when accepted
		class  error
		lines  int
	}{
		{"all hold", func(*subject) {}, "", "", nil, 4},
		{"one denies, the others are judged still", func(s *subject) { s.odd = false }, "", "odd", check.ErrRejected, 4},
		{"one is dropped", func(s *subject) { s.odd = false }, "odd", "", nil, 4},
		{"another is dropped", func(s *subject) { s.odd = false }, "even", "odd", check.ErrRejected, 4},
		{"one is waived", func(s *subject) { s.even, s.waive = false, true }, "", "", nil, 4},
		{"a proof ends the run", func(s *subject) { s.known = false }, "", "known", check.ErrUnavailable, 3},
		{"a rejection outweighs", func(s *subject) { s.odd, s.known = false, false }, "", "odd", check.ErrRejected, 3},
		{"an appraisal within accepts", func(s *subject) {
			s.inner = []check.Line{{Name: "a"},
				{Name: "b", Verdict: check.Accepted}}
		}, "", "", nil, 6},
		{"an appraisal within denies", func(s *subject) {
			s.inner = []check.Line{{Name: "a", Verdict: check.Accepted}, {Name: "b", Verdict: check.Denied}, {Name: "c", Verdict: check.Denied}}
		}, "", "inner.b", check.ErrRejected, 6 + 1},
		{"an appraisal within denies by another than the first", func(s *subject) {
			s.inner = []check.Line{{Name: "a", Verdict: check.Accepted}, {Name: "b", Verdict: check.Denied}, {Name: "c", Verdict: check.Denied}}
			s.decided = "c"
		}, "", "inner.c", check.ErrRejected, 6 + 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := good
			tt.change(&s)
			list := steps()
			if tt.drop != "" {
				list = checktest.Dropping(list, tt.drop)
			}
			lines, refusal := check.Run("judging", list, &s)
			if (refusal == nil) != (tt.failed == "") || (lines == nil) != (refusal != nil) {
				t.Fatalf("got %v and %v, want %q to refuse", lines, refusal, tt.failed)
			}
			if refusal != nil {
				lines = refusal.Checks()
				var as *check.Refusal
				if err := error(refusal); !errors.As(err, &as) || !errors.Is(err, tt.class) || refusal.Failed.Name != tt.failed ||
					err.Error() != "judging: "+tt.failed+": got "+refusal.Failed.Got+", want "+refusal.Failed.Want {
					t.Errorf("got %q of class %v, want %s of %v", err, errors.Is(err, check.ErrUnavailable), tt.failed, tt.class)
				}
				for _, other := range []error{check.ErrRejected, check.ErrUnavailable} {
					if other != tt.class && errors.Is(refusal, other) {
						t.Errorf("the refusal is of class %v too", other)
					}
				}
			}
			if len(lines) != tt.lines {
				t.Errorf("got %d lines, want %d: %v", len(lines), tt.lines, lines)
			}
		})
	}
}

// TestRefusalIsImmutable changes what a refusal hands out.
func TestRefusalIsImmutable(t *testing.T) {
	_, refusal := check.Run("judging", steps(), &subject{})
	refusal.Checks()[0].Name = "x"
	if refusal.Checks()[0].Name != "odd" {
		t.Error("a refusal's checks changed through what it returned")
	}
}
