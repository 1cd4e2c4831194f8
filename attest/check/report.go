package check

import (
	"errors"
)

// The words for a whole appraisal.
const (
	WordAccepted    = "accepted"
	WordRejected    = "rejected"
	WordUnavailable = "unavailable"
)

// Report is a verdict in JSON, of whatever was judged and by whichever program: the command line, the page and libraries hand on
// this form, with what they know beside it.
type Report struct {
	Verdict    string   `json:"verdict"`    // accepted, rejected or unavailable
	Check      string   `json:"check"`      // the first that refused; "" when none did
	Reason     string   `json:"reason"`     // the refusal in words
	Weaknesses []string `json:"weaknesses"` // what an acceptance does not cover
	Checks     []Line   `json:"checks"`     // those that were made, in order
}

// Accept returns the report of an acceptance.
func Accept(checks []Line, weaknesses []string) Report {
	return Report{Verdict: WordAccepted, Weaknesses: append([]string{}, weaknesses...), Checks: append([]Line{}, checks...)}
}

// Refuse returns the report of a refusal: with its checks when it is a Refusal, and else with its words alone.
func Refuse(err error) Report {
	r := Report{Verdict: WordRejected, Reason: err.Error(), Weaknesses: []string{}, Checks: []Line{}}
	if errors.Is(err, ErrUnavailable) {
		r.Verdict = WordUnavailable
	}
	var refusal interface {
		Refused() Line
		Checks() []Line
	}
	if errors.As(err, &refusal) {
		r.Check, r.Checks = refusal.Refused().Name, refusal.Checks()
	}
	return r
}
