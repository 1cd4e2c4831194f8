// Package audit holds the report of an audit of a release: which parts were looked at, how, with which result, and what was not.
//
// A report is a list of parts. Each part has checks, which decide, and facts, which were computed for the reader. A part is accepted,
// rejected, waived (it did not hold, and the auditor does without it by name), unavailable (it could not be checked) or unchecked (it
// was left out, or nothing was given to check). The same report is written as JSON, for machines, and as one HTML page, for people:
// REPORT.md describes both.
//
// A report promises what its auditor is worth: it is not signed, and whoever has it can change it. A signed statement about a
// rebuild is another document (package attest/release).
package audit

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"chrysalis/attest/check"
	"chrysalis/measure/register"
)

// Format names the one format of a report.
const Format = "chrysalis audit v1"

// Outcome is what became of a part.
type Outcome string

// The outcomes.
const (
	Accepted    Outcome = "accepted"
	Rejected    Outcome = "rejected"
	Waived      Outcome = "waived"
	Unavailable Outcome = "unavailable"
	Unchecked   Outcome = "unchecked"
)

// Report is what an audit found.
type Report struct {
	Format  string    `json:"format"`
	Verdict string    `json:"verdict"` // accepted, rejected or unavailable
	Summary string    `json:"summary"` // the verdict in a sentence
	Auditor string    `json:"auditor,omitempty"`
	Subject Subject   `json:"release"`
	Tool    Tool      `json:"tool"`
	Source  Source    `json:"source"`
	Begun   time.Time `json:"begun"`
	Ended   time.Time `json:"ended"`
	Parts   []Part    `json:"parts"`
	// Uncovered says what no part of any audit covers.
	Uncovered []string `json:"uncovered"`
}

// Subject is the release that was audited, as far as its manifest can be read.
type Subject struct {
	Folder          string          `json:"folder"`
	Manifest        register.Digest `json:"manifest,omitzero"` // SHA-256 of manifest.json
	Profile         string          `json:"profile,omitempty"`
	SecurityVersion uint32          `json:"security_version,omitzero"`
	Kernel          string          `json:"kernel,omitempty"`
	Root            register.Digest `json:"root,omitzero"` // root hash of the root volume
	Go              string          `json:"go,omitempty"`  // toolchain of the guest's programs
}

// Tool is the program that wrote the report.
type Tool struct {
	Version   string          `json:"version"`
	Go        string          `json:"go"`
	System    string          `json:"system"`          // operating system and architecture
	SHA256    register.Digest `json:"sha256,omitzero"` // of the program's file
	Arguments []string        `json:"arguments"`
}

// Source is the source tree that was rebuilt from, or whose locks were read.
type Source struct {
	Folder string `json:"folder,omitempty"`
	Commit string `json:"commit,omitempty"` // "": not known
	// Changed says that files differ from the commit.
	Changed bool `json:"changed"`
}

// Part is one thing that was looked at.
type Part struct {
	Name    string  `json:"name"`
	Title   string  `json:"title"`
	How     string  `json:"how"` // what was done, in words
	Outcome Outcome `json:"outcome"`
	Reason  string  `json:"reason,omitempty"` // why it is not accepted
	// Checks decide the outcome.
	Checks []check.Line `json:"checks"`
	// Facts were computed and decide nothing.
	Facts []Fact `json:"facts,omitempty"`
	// Notes are what an acceptance does not cover.
	Notes   []string `json:"notes,omitempty"`
	Seconds float64  `json:"seconds"`
}

// Fact is a value for the reader.
type Fact struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Check adds a check. It holds where got is want.
func (p *Part) Check(name, got, want string) {
	verdict := check.Accepted
	if got != want {
		verdict = check.Denied
	}
	p.Checks = append(p.Checks, check.Line{Name: name, Got: got, Want: want, Verdict: verdict})
}

// Holds adds a check that holds where err is nil, and reports whether it does.
func (p *Part) Holds(name, want string, err error) bool {
	got := want
	if err != nil {
		got = err.Error()
	}
	p.Check(name, got, want)
	return err == nil
}

// Fact adds a fact.
func (p *Part) Fact(name, value string) { p.Facts = append(p.Facts, Fact{name, value}) }

// Note adds what an acceptance does not cover.
func (p *Part) Note(format string, args ...any) {
	p.Notes = append(p.Notes, fmt.Sprintf(format, args...))
}

// Judge gives the part its outcome: by its checks, and by err, the error of whoever made them. An error that is no rejection says
// that something could not be checked; a check that was refused outweighs it, but for an appraisal's own check.ErrUnavailable.
func (p *Part) Judge(err error) {
	p.Outcome, p.Reason = Accepted, ""
	denied := slices.DeleteFunc(slices.Clone(p.Checks), func(l check.Line) bool { return l.Verdict != check.Denied })
	switch {
	case errors.Is(err, check.ErrUnavailable): // an appraisal says so only where it rejected nothing
		p.Outcome, p.Reason = Unavailable, err.Error()
	case len(denied) > 0:
		p.Outcome, p.Reason = Rejected, fmt.Sprintf("%s: got %s, want %s", denied[0].Name, denied[0].Got, denied[0].Want)
		if n := len(denied) - 1; n > 0 {
			p.Reason += fmt.Sprintf(" (and %d more)", n)
		}
	case errors.Is(err, check.ErrRejected):
		p.Outcome, p.Reason = Rejected, err.Error()
	case err != nil:
		p.Outcome, p.Reason = Unavailable, err.Error()
	case len(p.Checks) == 0: // what checks nothing accepts nothing
		p.Outcome, p.Reason = Unavailable, "no check was made"
	}
}

// Waive has the report do without a part that does not hold.
func (p *Part) Waive() {
	if p.Outcome == Rejected || p.Outcome == Unavailable {
		p.Outcome = Waived
	}
}

// Close ends the report: its verdict is that of its parts. One that was rejected decides, then one that could not be checked.
func (r *Report) Close(now time.Time) {
	r.Format, r.Ended = Format, now.UTC().Truncate(time.Second)
	names := map[Outcome][]string{}
	for _, p := range r.Parts {
		names[p.Outcome] = append(names[p.Outcome], p.Name)
	}
	said := func(o Outcome) string { return strings.Join(names[o], ", ") }
	switch {
	case len(names[Rejected]) > 0:
		r.Verdict, r.Summary = check.WordRejected, "Rejected: "+said(Rejected)+"."
	case len(names[Unavailable]) > 0:
		r.Verdict, r.Summary = check.WordUnavailable, "Could not be checked: "+said(Unavailable)+"."
	case len(names[Accepted]) == 0:
		r.Verdict, r.Summary = check.WordUnavailable, "Nothing was checked."
	default:
		r.Verdict, r.Summary = check.WordAccepted, "Accepted: "+said(Accepted)+"."
	}
	if len(names[Waived]) > 0 {
		r.Summary += " Waived: " + said(Waived) + "."
	}
	if len(names[Unchecked]) > 0 {
		r.Summary += " Not checked: " + said(Unchecked) + "."
	}
}

// Encode returns the report as JSON. Text that others wrote is in it as they wrote it, but for what moves a cursor or hides words.
func (r Report) Encode() ([]byte, error) {
	b, err := json.Marshal(r.shown(), json.Deterministic(true), jsontext.WithIndent("  "))
	if err != nil {
		return nil, fmt.Errorf("writing report: %w", err)
	}
	return append(b, '\n'), nil
}

// shown returns the report with no text that a reader would see otherwise than it is.
func (r Report) shown() Report {
	for _, s := range []*string{&r.Summary, &r.Auditor, &r.Subject.Folder, &r.Subject.Profile, &r.Subject.Kernel, &r.Subject.Go,
		&r.Source.Folder} {
		*s = visible(*s)
	}
	r.Tool.Arguments = allVisible(r.Tool.Arguments)
	r.Parts = slices.Clone(r.Parts)
	for i := range r.Parts {
		p := &r.Parts[i]
		p.Reason, p.Notes = visible(p.Reason), allVisible(p.Notes)
		p.Checks, p.Facts = append([]check.Line{}, p.Checks...), slices.Clone(p.Facts)
		for j := range p.Checks {
			c := &p.Checks[j]
			c.Name, c.Got, c.Want = visible(c.Name), visible(c.Got), visible(c.Want)
		}
		for j := range p.Facts {
			p.Facts[j] = Fact{visible(p.Facts[j].Name), visible(p.Facts[j].Value)}
		}
	}
	return r
}

// maxShown bounds a text that somebody else wrote.
const maxShown = 4000

// visible makes characters that are not seen, or change how others are seen, into what says so.
func visible(s string) string {
	if len(s) > maxShown {
		s = strings.ToValidUTF8(s[:maxShown], "") + "…"
	}
	var b strings.Builder
	for _, r := range strings.ToValidUTF8(s, "\ufffd") {
		if r != '\n' && (unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Co)) {
			fmt.Fprintf(&b, "\\u%04x", r)
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

func allVisible(all []string) []string {
	shown := make([]string, 0, len(all))
	for _, s := range all {
		shown = append(shown, visible(s))
	}
	return shown
}
