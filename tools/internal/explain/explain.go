// Package explain says in plain words where a guest's measurements differ from those that were expected, and why. The expected
// events are computed from the release's files, the shape of the machine and the config; the guest's are those of the logs in
// its evidence.
//
//	report, err := explain.Explain(ctx, explain.Inputs{Evidence: evidence, Release: release, Shape: &shape, Machines: qemu})
//
// A log is its writer's word: it is believed as far as it replays to the registers of the quote, and an event's data as far
// as it hashes to the event's digest. Nothing here judges a guest, and the quote's signature is not checked: attest.Verify does.
package explain

import (
	"context"
	"fmt"
	"slices"
	"time"

	"chrysalis/attest"
	"chrysalis/attest/check"
	"chrysalis/attest/evidence"
	"chrysalis/measure"
	"chrysalis/measure/bootdisk"
)

// Inputs are what a guest showed and what was expected of it.
type Inputs struct {
	Evidence *evidence.Evidence
	Release  Release
	Disk     *bootdisk.Disk // what the guest was to boot from; nil: directly
	Shape    *measure.Shape // of its machine; nil: what follows from it is not compared
	Config   []byte         // measured bytes; nil: those that the evidence carries
	Policy   *attest.Rules  // may be nil
	Roots    attest.Roots   // under which the machine's security versions are judged by the policy; zero: they are not
	At       time.Time      // when they are
	Machines Machines       // with Shape
	Progress func(tried, most int)
}

// Machines tells what a hypervisor would make of shapes.
type Machines interface {
	Tables(context.Context, measure.Shape) (measure.Tables, error)
	Versions() []string // of the hypervisors that can be asked
}

// Report is the answer.
type Report struct {
	Verdict   string     `json:"verdict"` // Expected or Different
	Platform  string     `json:"platform"`
	Causes    []Cause    `json:"causes"` // the first difference first
	Notes     []string   `json:"notes"`  // what was not compared
	Registers []Register `json:"registers"`
	// Shortfalls are the security versions of the machine that the policy finds too low.
	Shortfalls []check.Shortfall `json:"shortfalls,omitempty"`
}

// State is how an expected value or event stands to the guest's.
type State string

// The verdicts of a report, and the states of a register or event.
const (
	Expected    State = "as expected"
	Different   State = "different"
	NotCompared State = "not compared"
)

// Cause is a difference with what is likely behind it.
type Cause struct {
	Kind     string `json:"cause"`
	Register string `json:"register"`
	Event    string `json:"event"`   // of the guest's log, such as "boot 14"; empty where the log has none
	Meaning  string `json:"meaning"` // of the first event that differs
	Expected string `json:"expected"`
	Actual   string `json:"actual"`
	Says     string `json:"says"`
	Do       string `json:"do"`

	place int
}

// Register is a register with the events behind it.
type Register struct {
	Name     string `json:"name"`
	Expected string `json:"expected"` // hexadecimal; empty where it was not computed
	Actual   string `json:"actual"`
	State    State  `json:"state"`
	Rows     []Row  `json:"events"`
}

// Row is an expected event beside the guest's. One of the two may be missing.
type Row struct {
	Event    string `json:"event"` // in the guest's log
	Meaning  string `json:"meaning"`
	Expected string `json:"expected"` // digest
	Actual   string `json:"actual"`   // digest
	Proven   bool   `json:"proven"`   // the guest's data hashes to its digest
	State    State  `json:"state"`
}

// explanation is one run of Explain.
type explanation struct {
	Inputs
	guest  *shown
	want   map[string][]event // by register; a register that is not there is not compared
	values map[string]string  // expected values of registers without events
	pairs  map[string][]pair
	report Report
}

// Explain compares. An error means that it could not. Of an SEV-SNP guest, which has nothing to compare, it says what the policy finds
// too low, where it does.
func Explain(ctx context.Context, in Inputs) (*Report, error) {
	guest, err := read(in.Evidence)
	if err != nil && in.Evidence.Platform == evidence.SEVSNP {
		x := &explanation{Inputs: in}
		if short := x.shortfalls(); len(short) > 0 {
			return &Report{Verdict: string(Different), Platform: in.Evidence.Platform.String(), Causes: []Cause{}, Notes: []string{err.Error()},
				Registers: []Register{}, Shortfalls: short}, nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("reading evidence: %w", err)
	}
	x := &explanation{Inputs: in, guest: guest, want: map[string][]event{}, values: map[string]string{}, pairs: map[string][]pair{}}
	x.report = Report{Verdict: string(Expected), Platform: in.Evidence.Platform.String(), Causes: []Cause{}, Notes: []string{},
		Registers: []Register{}}
	x.report.Causes = append(x.report.Causes, guest.doubts...)
	if err := x.expect(ctx); err != nil {
		return nil, fmt.Errorf("computing what was expected: %w", err)
	}
	for _, name := range guest.names {
		x.compare(name)
	}
	causes, err := x.causes(ctx)
	if err != nil {
		return nil, fmt.Errorf("looking for the cause: %w", err)
	}
	causes = append(causes, x.policyCauses()...)
	slices.SortStableFunc(causes, func(a, b Cause) int { return a.place - b.place })
	x.report.Causes = append(x.report.Causes, causes...)
	if len(x.report.Causes) > 0 {
		x.report.Verdict = string(Different)
	}
	x.report.Shortfalls = x.shortfalls()
	return &x.report, nil
}

// shortfalls says what the policy finds too low on the machine. A policy that is none finds nothing: its causes say so.
func (x *explanation) shortfalls() []check.Shortfall {
	if x.Policy == nil {
		return nil
	}
	policy, err := x.Policy.Policy()
	if err != nil {
		return nil
	}
	return policy.Shortfalls(x.Evidence, x.At, x.Roots)
}

func (x *explanation) note(format string, args ...any) {
	x.report.Notes = append(x.report.Notes, fmt.Sprintf(format, args...))
}

// compare puts the expected events of a register beside the guest's.
func (x *explanation) compare(name string) {
	r := Register{Name: name, Actual: x.guest.values[name], Rows: []Row{}, State: NotCompared}
	want, events := x.want[name]
	if events {
		r.Expected = replay(want, len(r.Actual)/2)
	} else if value, ok := x.values[name]; ok {
		r.Expected = value
	}
	if r.Expected != "" {
		r.State = Different
		if r.Expected == r.Actual {
			r.State = Expected
		}
	}
	pairs := align(want, x.guest.events[name])
	for _, p := range pairs {
		row := Row{State: Different}
		if p.want != nil {
			row.Meaning, row.Expected = p.want.meaning(), p.want.digest
		}
		if p.got != nil {
			row.Event, row.Actual, row.Proven = p.got.place(), p.got.digest, p.got.proven
			if p.want == nil {
				row.Meaning = p.got.meaning()
			}
		}
		if row.Expected == row.Actual {
			row.State = Expected
		} else if !events {
			row.State = NotCompared
		}
		r.Rows = append(r.Rows, row)
	}
	x.pairs[name] = pairs
	x.report.Registers = append(x.report.Registers, r)
}

// register returns a compared register.
func (x *explanation) register(name string) Register {
	i := slices.IndexFunc(x.report.Registers, func(r Register) bool { return r.Name == name })
	if i < 0 {
		return Register{State: NotCompared}
	}
	return x.report.Registers[i]
}
