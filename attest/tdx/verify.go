package tdx

import (
	"crypto/ecdsa"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"chrysalis/attest/check"
)

// Refused is the refusal of Verify. errors.Is reports it as check.ErrRejected or as check.ErrUnavailable.
type Refused struct {
	*check.Refusal
	body   *Body
	signed bool
	tcb    TCB
}

// Body returns what the refused quote says, for explanations alone, or nil when it could not be parsed. The second result
// reports whether a key that the root certifies has signed it.
func (r *Refused) Body() (*Body, bool) {
	if r.body == nil {
		return nil, false
	}
	b := *r.body
	return &b, r.signed
}

// TCB returns the statuses, empty when the refusal came before they could be judged.
func (r *Refused) TCB() TCB { return r.tcb }

// Result is what is true of a TD and its machine. Only Verify makes one.
type Result struct {
	body       Body
	platform   Platform
	tcb        TCB
	evaluation uint32
	checks     []check.Line
	weaknesses []string
}

// Body returns what the TDX module measured.
func (r *Result) Body() Body { return r.body }

// Platform returns what Intel certifies of the machine.
func (r *Result) Platform() Platform { return r.platform }

// TCB returns how the machine's security versions stand.
func (r *Result) TCB() TCB { return r.tcb }

// TCBEvaluation returns the lower tcbEvaluationDataNumber of the two documents, 0 without collateral.
func (r *Result) TCBEvaluation() uint32 { return r.evaluation }

// Checks returns every check, in order.
func (r *Result) Checks() []check.Line { return check.Told(r.checks) }

// Lines returns the checks for the finding of an appraisal around this one, which are told with its own.
func (r *Result) Lines() []check.Line { return r.checks }

// Weaknesses says, in sentences for people, what this acceptance does not cover.
func (r *Result) Weaknesses() []string { return slices.Clone(r.weaknesses) }

// appraisal is one run of Verify: what it was given, and what it parsed.
type appraisal struct {
	raw        []byte
	collateral *Collateral
	options    Options
	at         time.Time
	root       *x509.Certificate

	quote    *Quote
	chain    []*x509.Certificate // PCK, its CA, root
	platform Platform
	qeReport QEReport

	tcb TCB

	seen
	chainProof proven[[]*x509.Certificate]
	beside

	attestationKeyProven bool
}

// Verify judges a quote and its collateral at a time, under one root. It returns a Result only when every check has
// accepted or is waived by name; otherwise a *Refused with the checks made so far, which is check.ErrUnavailable when there
// is no collateral and the options do not skip it. Nothing depends on the network.
func Verify(quote []byte, collateral *Collateral, options Options, at time.Time, root *x509.Certificate) (*Result, error) {
	return verify(checks, quote, collateral, options, at, root)
}

func verify(steps []check.Step[*appraisal], quote []byte, collateral *Collateral, options Options, at time.Time,
	root *x509.Certificate) (*Result, error) {
	a := &appraisal{raw: quote, collateral: collateral, options: options, at: at, root: root, seen: seen{root: root}}
	lines, refusal := check.Run("verifying TDX quote", steps, a)
	a.leaveBeside() // the collateral is the caller's again
	if refusal != nil {
		r := &Refused{Refusal: refusal, tcb: a.tcb, signed: a.attestationKeyProven}
		if a.quote != nil {
			r.body = &a.quote.Body
		}
		return nil, r
	}
	return newResult(a, lines), nil
}

func newResult(a *appraisal, done []check.Line) *Result {
	r := &Result{body: a.quote.Body, platform: a.platform, tcb: a.tcb, checks: done}
	if a.collateral == nil {
		r.tcb = TCB{Unchecked, Unchecked, Unchecked, Unchecked}
		r.weaknesses = append(r.weaknesses,
			"no collateral was judged: the machine may be revoked or out of date, and the quoting enclave anybody's")
	} else {
		r.evaluation = min(a.info.value.evaluation, a.qeID.value.evaluation)
	}
	for _, c := range done {
		if c.Verdict == check.Waived && c.Name != checkCollateral {
			r.weaknesses = append(r.weaknesses, fmt.Sprintf("%s was waived: got %s, want %s", c.Name, c.Got, c.Want))
		}
	}
	if a.collateral != nil && !slices.ContainsFunc(done, func(c check.Line) bool { return c.Verdict == check.Waived }) &&
		a.tcb.Status != UpToDate {
		r.weaknesses = append(r.weaknesses, fmt.Sprintf("the machine's TCB is %s, which the options accept", a.tcb.Status))
	}
	return r
}

// checks lists the appraisal in order. Nothing in the quote changes the list.
var checks = slices.Concat(quoteChecks, bodyChecks, []check.Step[*appraisal]{collateralCheck}, crlChecks, tcbInfoChecks,
	qeIdentityChecks, statusChecks)

// RestsOnCollateral reports whether newer collateral could change a check's verdict.
func RestsOnCollateral(name string) bool {
	for _, list := range [][]check.Step[*appraisal]{crlChecks, tcbInfoChecks, qeIdentityChecks, statusChecks} {
		if slices.ContainsFunc(list, func(s check.Step[*appraisal]) bool { return s.Name == name }) {
			return true
		}
	}
	return false
}

func zeros(got []byte) check.Finding {
	return check.Saying(allZero(got), func() (string, string) { return fmt.Sprintf("%x", got), "zeros" })
}

func signature(key *ecdsa.PublicKey, message []byte, signature [64]byte, by string) check.Finding {
	ok := verifyRaw(key, message, signature)
	return check.Saying(ok, func() (string, string) {
		if want := "signed by " + by; ok {
			return want, want
		}
		return "another signature", "signed by " + by
	})
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
