// Package check is the form that every appraisal here has: a flat, numbered list of checks, judged in order, each with what
// it got and what it wanted. One run makes all verdicts and has one exit, so that no check can be passed by returning early.
package check

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
)

// The two classes of a refusal. Both deny.
var (
	// ErrRejected: what was judged is wrong, or it is not what is accepted.
	ErrRejected = errors.New("rejected")
	// ErrUnavailable: it could not be checked.
	ErrUnavailable = errors.New("could not be checked")
)

// Verdict is what became of a check.
type Verdict string

// The verdicts.
const (
	Accepted Verdict = "accepted"
	Denied   Verdict = "rejected"
	Waived   Verdict = "waived" // it did not hold, and the policy or an option does without it by name
)

// Line is one check that was made.
type Line struct {
	Name    string  `json:"name"`
	Got     string  `json:"got"`
	Want    string  `json:"want"`
	Verdict Verdict `json:"verdict"`
	// Shortfalls say which security versions a check on them found too low.
	Shortfalls []Shortfall `json:"shortfalls,omitempty"`

	// Of a check that accepted, the words are not written before somebody asks for them, which Told does: most are never read, and
	// they took longer than the judgement.
	within string // the check around this one
	say    func() (got, want string)
}

// Told returns the lines with all of their words. Run's own have some of them unwritten.
func Told(lines []Line) []Line {
	told := slices.Clone(lines)
	for i := range told {
		told[i].tell()
	}
	return told
}

func (l *Line) tell() {
	if l.within != "" {
		l.Name, l.within = l.within+"."+l.Name, ""
	}
	if l.say != nil {
		l.Got, l.Want = l.say()
		l.say = nil
	}
}

// Finding is what a check saw, what it wanted to see, and whether the two agree.
type Finding struct {
	Got, Want string
	OK        bool
	// Lines are the lines of an appraisal within this one. They stand in place of the check's own line, each under its name
	// behind the check's. When one of them denies, so does the check.
	Lines []Line
	// Failed names the one of them by which that appraisal was refused; "" is the first that denies.
	Failed string
	// Unavailable says that the appraisal within could not check something.
	Unavailable bool
	Shortfalls  []Shortfall

	say func() (got, want string)
}

// Words returns what was seen and what was wanted.
func (f Finding) Words() (got, want string) {
	if f.say != nil {
		return f.say()
	}
	return f.Got, f.Want
}

// Saying makes a finding whose words are written when somebody asks for them. say must read nothing that changes: values of its own,
// and what the appraisal has parsed.
func Saying(ok bool, say func() (got, want string)) Finding { return Finding{OK: ok, say: say} }

// Found makes a finding.
func Found(got, want string, ok bool) Finding { return Finding{Got: got, Want: want, OK: ok} }

// Parsed makes a finding of a parser's error.
func Parsed(err error, want string) Finding {
	if err != nil {
		return Found(err.Error(), want, false)
	}
	return Found("well formed", want, true)
}

// Holds makes a finding of a rule's error.
func Holds(err error, want string) Finding {
	if err != nil {
		return Found(err.Error(), want, false)
	}
	return Found(want, want, true)
}

// Same compares digests and other bytes.
func Same(got, want []byte) Finding {
	var buffer [192]byte // a digest's digits fit
	text := string(hex.AppendEncode(buffer[:0], got))
	if bytes.Equal(got, want) {
		return Found(text, text, true)
	}
	return Found(text, hex.EncodeToString(want), false)
}

// Step is one numbered line of an appraisal that keeps what it parses in A.
type Step[A any] struct {
	Name string
	// Proof marks the checks that everything after them rests on: when one of them denies, the run ends.
	Proof bool
	// Unavailable marks a check whose failure says that something could not be checked.
	Unavailable bool
	// Applies reports whether the check is made. Nil: always.
	Applies func(A) bool
	// Waived reports whether the policy or an option does without the check. Nil for most, which nothing waives.
	Waived func(A) bool
	Judge  func(A) Finding
}

// Decided is the name of the check that refused: of the first that rejects, or else of the first that could not be made.
func (r *Refusal) Decided() string { return r.Failed.Name }

// Refusal is an appraisal that denies. errors.Is reports it as ErrRejected or as ErrUnavailable.
type Refusal struct {
	Failed Line // the first check that refused
	doing  string
	class  error
	lines  []Line
}

func (r *Refusal) Error() string {
	return fmt.Sprintf("%s: %s: got %s, want %s", r.doing, r.Failed.Name, r.Failed.Got, r.Failed.Want)
}

// Is makes a Refusal an error of its class.
func (r *Refusal) Is(target error) bool { return target == r.class }

// Refused returns the first check that refused.
func (r *Refusal) Refused() Line { return r.Failed }

// Checks returns the checks that were made, in order. None after a failed proof is among them.
func (r *Refusal) Checks() []Line { return Told(r.lines) }

// expectedLines is how many checks the longest appraisal here makes, those within others included.
const expectedLines = 128

// Run judges a by the steps. doing begins the refusal's text.
func Run[A any](doing string, steps []Step[A], a A) ([]Line, *Refusal) {
	lines := make([]Line, 0, expectedLines)
	refusal := &Refusal{doing: doing}
	for i := range steps {
		s := &steps[i]
		if s.Applies != nil && !s.Applies(a) {
			continue
		}
		found := s.Judge(a)
		verdict := Accepted
		switch {
		case found.OK:
		case s.Waived != nil && s.Waived(a):
			verdict = Waived
		default:
			verdict = Denied
		}
		failed := Line{Name: s.Name, Got: found.Got, Want: found.Want, Verdict: verdict, Shortfalls: found.Shortfalls, say: found.say}
		if verdict != Accepted {
			failed.tell()
		}
		if found.Lines != nil {
			lines, failed = within(lines, found.Lines, failed, found.Failed)
		} else {
			lines = append(lines, failed)
		}
		if verdict != Denied {
			continue
		}
		class := ErrRejected
		if s.Unavailable || found.Unavailable {
			class = ErrUnavailable
		}
		// A rejection outweighs what could not be checked.
		if refusal.class == nil || refusal.class == ErrUnavailable && class == ErrRejected {
			refusal.Failed, refusal.class = failed, class
		}
		// After a structure that can't be read or a proof that fails, the later checks would judge a forger's words.
		if s.Proof {
			break
		}
	}
	if refusal.class != nil {
		refusal.lines = lines
		return nil, refusal
	}
	return lines, nil
}

// Under returns the lines of an appraisal with its name before each of theirs, for a Finding that holds the lines of several.
func Under(name string, lines []Line) []Line {
	all := make([]Line, len(lines))
	for i, line := range lines {
		if line.within != "" {
			line.Name = line.within + "." + line.Name
		}
		line.within = name
		all[i] = line
	}
	return all
}

// within adds the lines of an appraisal inside a step, under the step's name, and returns the first of them that denies, or
// the step's own line when none does.
func within(lines, inner []Line, own Line, decided string) (all []Line, failed Line) {
	failed = own
	first := true
	for _, line := range inner {
		if line.within != "" {
			line.Name = line.within + "." + line.Name
		}
		decides := line.Name == decided
		line.within = own.Name
		if line.Verdict != Accepted {
			line.tell()
		}
		if line.Verdict == Denied && (first || decides) {
			failed, first = line, false
		}
		lines = append(lines, line)
	}
	return lines, failed
}
