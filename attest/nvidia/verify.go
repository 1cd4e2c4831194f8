package nvidia

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"chrysalis/attest/check"
	"chrysalis/attest/pki"
)

// Evidence is what somebody hands in about the devices of one machine. All of it is untrusted.
type Evidence struct {
	GPUs, Switches []Device
	RIMs           [][]byte // reference values of the drivers and firmware, in either form
	OCSP           [][]byte // answers of responders about certificates, in DER
	Authorities    [][]byte // certificates that the chains of RIMs may lack, in DER
}

// Device is the evidence of one.
type Device struct {
	Report []byte
	Chain  []byte // PEM: the firmware's certificate first, NVIDIA's root last
}

// Bounds of evidence.
const (
	MaxDevices = 8 // of each kind
	MaxRIMs    = 24
	MaxOCSP    = 96
	maxOCSP    = 8 << 10 // bytes of one answer
)

// Outcome is what became of the question for GPUs.
type Outcome string

// The outcomes. A refusal for anything else has none.
const (
	NoneAsked Outcome = "none asked"
	NoneFound Outcome = "none found"
	Verified  Outcome = "verified"
)

// Appraised is what is true of one device.
type Appraised struct {
	Kind         Kind
	ID           ID
	Architecture Architecture // of a GPU
	Claims       Claims
	RIMs         []UsedRIM // driver's and firmware's
	Compared     int       // measurements
}

// UsedRIM names reference values that measurements were compared with.
type UsedRIM struct{ Name, Tag string }

// Mismatch is a measurement that is not what reference values want.
type Mismatch struct {
	Device string // such as gpu.0
	Index  uint8  // of SPDM
	Got    []byte // nil where the report has none
	Want   [][]byte
	RIM    string
}

// Refused is the refusal of Verify. errors.Is reports it as check.ErrRejected or as check.ErrUnavailable.
type Refused struct {
	*check.Refusal
	outcome    Outcome
	mismatches []Mismatch
	devices    []Appraised
}

// Outcome is NoneFound where GPUs were asked for and none was there, and "" otherwise.
func (r *Refused) Outcome() Outcome { return r.outcome }

// Mismatches are the measurements that differ, of all devices that signed them.
func (r *Refused) Mismatches() []Mismatch { return slices.Clone(r.mismatches) }

// Devices returns what the reports say, for explanations alone, of those that a key signed for which a root vouches.
func (r *Refused) Devices() []Appraised { return slices.Clone(r.devices) }

// Result is what is true of a machine's devices. Only Verify makes one.
type Result struct {
	outcome Outcome
	devices []Appraised
	checks  []check.Line
}

// Outcome is NoneAsked or Verified.
func (r *Result) Outcome() Outcome { return r.outcome }

// Devices returns the devices, the GPUs first.
func (r *Result) Devices() []Appraised { return slices.Clone(r.devices) }

// Versions returns the driver of the GPUs, and the versions of their firmware and of the switches', each once, in ascending order.
func (r *Result) Versions() (driver string, vbios, bios []string) {
	for _, d := range r.devices {
		if d.Kind == GPU {
			driver, vbios = d.Claims.Driver, append(vbios, d.Claims.VBIOS)
		} else {
			bios = append(bios, d.Claims.VBIOS)
		}
	}
	slices.Sort(vbios)
	slices.Sort(bios)
	return driver, slices.Compact(vbios), slices.Compact(bios)
}

// Checks returns every check, in order.
func (r *Result) Checks() []check.Line { return check.Told(r.checks) }

// Lines returns the checks for the finding of an appraisal around this one, which are told with its own.
func (r *Result) Lines() []check.Line { return r.checks }

// Waived returns the names of the checks that did not hold and that an option does without.
func (r *Result) Waived() []string {
	var names []string
	for _, c := range r.Checks() {
		if c.Verdict == check.Waived {
			names = append(names, c.Name)
		}
	}
	return names
}

// machine is one run of Verify: what it was given, and what it parsed out of the evidence.
type machine struct {
	evidence Evidence
	options  *Options
	facts    *check.Facts
	at       time.Time
	roots    Roots
	steps    []check.Step[*device]

	rims    []*RIM
	answers []*pki.OCSP
	devices []*device // those that were judged, GPUs first
}

// Verify judges evidence at the time at. It returns a Result only when every check has accepted or an option waives it by
// name; otherwise a *Refused with the checks made so far. No check depends on the network, and empty roots trust nobody.
func Verify(evidence Evidence, options Options, at time.Time, roots Roots) (*Result, error) {
	return verify(machineChecks, deviceChecks, evidence, options, at, roots)
}

func verify(steps []check.Step[*machine], each []check.Step[*device], evidence Evidence, options Options, at time.Time,
	roots Roots) (*Result, error) {
	m := &machine{evidence: evidence, options: &options, facts: options.Facts, at: at, roots: roots, steps: each}
	if m.facts == nil {
		m.facts = new(check.Facts) // for what the devices share
	}
	lines, refusal := check.Run("verifying nvidia evidence", steps, m)
	if refusal != nil {
		refused := &Refused{Refusal: refusal}
		if !options.NoGPU && options.GPUs > 0 && len(evidence.GPUs) == 0 {
			refused.outcome = NoneFound
		}
		for _, d := range m.devices {
			refused.mismatches = append(refused.mismatches, d.mismatches...)
			if d.signed {
				refused.devices = append(refused.devices, d.appraised())
			}
		}
		return nil, refused
	}
	result := &Result{outcome: Verified, checks: lines}
	if options.NoGPU {
		result.outcome = NoneAsked
	}
	for _, d := range m.devices {
		result.devices = append(result.devices, d.appraised())
	}
	return result, nil
}

// RestsOnCollateral reports whether newer answers of responders or other reference values could change a check's verdict.
func RestsOnCollateral(name string) bool {
	return strings.Contains(name, "-rim") || strings.Contains(name, "-ocsp") || strings.HasSuffix(name, "-hold") ||
		strings.HasSuffix(name, "-revocation") || strings.HasSuffix(name, "measurements")
}

// prepare parses what the devices share.
func (m *machine) prepare() error {
	m.rims = make([]*RIM, len(m.evidence.RIMs))
	errs := make([]error, len(m.rims)+len(m.evidence.OCSP))
	m.answers = make([]*pki.OCSP, len(m.evidence.OCSP))
	var all sync.WaitGroup
	for i, document := range m.evidence.RIMs {
		all.Go(func() {
			m.rims[i], errs[i] = check.Prove(m.facts, "nvidia rim", func() (*RIM, error) {
				return parseRIM(m.facts, slices.Clone(document), m.evidence.Authorities)
			}, append([][]byte{document}, m.evidence.Authorities...)...)
			if errs[i] != nil {
				errs[i] = fmt.Errorf("document %d: %w", i, errs[i])
			}
		})
	}
	for i, answer := range m.evidence.OCSP {
		m.answers[i], errs[len(m.rims)+i] = check.Prove(m.facts, "nvidia ocsp", func() (*pki.OCSP, error) {
			return pki.ParseOCSP(slices.Clone(answer), maxOCSP)
		}, answer)
		if err := errs[len(m.rims)+i]; err != nil {
			errs[len(m.rims)+i] = fmt.Errorf("answer %d: %w", i, err)
		}
	}
	all.Wait()
	return errors.Join(errs...)
}

// judge judges devices of one kind, side by side, and returns their lines under their numbers.
func (m *machine) judge(kind Kind, evidence []Device) check.Finding {
	type verdict struct {
		lines   []check.Line
		refusal *check.Refusal
	}
	verdicts := make([]verdict, len(evidence))
	devices := make([]*device, len(evidence))
	var all sync.WaitGroup
	for i := range evidence {
		devices[i] = &device{m: m, kind: kind, number: i, evidence: evidence[i]}
		all.Go(func() {
			verdicts[i].lines, verdicts[i].refusal = check.Run("judging "+devices[i].name(), m.steps, devices[i])
		})
	}
	all.Wait()
	m.devices = append(m.devices, devices...)
	want := fmt.Sprintf("%d verified", len(evidence))
	f := check.Finding{Got: want, Want: want, OK: true, Unavailable: true, Lines: []check.Line{}}
	for i, v := range verdicts {
		number, lines := fmt.Sprint(i), v.lines
		if v.refusal != nil {
			lines = v.refusal.Checks()
			unavailable := errors.Is(v.refusal, check.ErrUnavailable)
			// A rejection outweighs what could not be checked, of another device too.
			if f.OK || f.Unavailable && !unavailable {
				f.Failed, f.Got = number+"."+v.refusal.Decided(), v.refusal.Error()
			}
			f.OK, f.Unavailable = false, f.Unavailable && unavailable
		}
		f.Lines = append(f.Lines, check.Under(number, lines)...)
	}
	return f
}
