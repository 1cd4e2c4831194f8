// Package attest decides whether a confidential inference guest is what a client wants to talk to.
//
//	evidence, err := attest.DecodeEvidence(bytes)
//	result, err := attest.Verify(evidence, challenge, policy, time.Now(), roots)
//
// Evidence goes in, a Result comes out; nothing else makes a Result, and nothing but a Result tells which keys the guest
// holds. The package works offline, on any operating system and in a browser. It denies by default: the zero Policy, the
// zero Challenge and zero Roots accept nothing, and what a policy does not mention is refused.
//
// EVIDENCE.md beside this file is the specification of the formats.
//
// What a Result does not promise: that nobody with physical access has broken the hardware that signed. On the vtpm
// platform it proves measurement and protocol alone; the host runs that TPM and can read the guest's memory.
package attest

import (
	"crypto/x509"
	"encoding/hex"
	"slices"
	"time"

	"chrysalis/attest/vtpm"
	"chrysalis/measure/config"
	"chrysalis/measure/eventlog"
)

// Challenge is what binds evidence to the client that asks and to the connection it asks over.
type Challenge struct {
	Nonce    [32]byte // random, made by the client for this one answer
	Exporter [32]byte // of the client's own TLS connection, with ExporterLabel
	TLSKey   [32]byte // SHA-256 of the SubjectPublicKeyInfo that the connection's certificate carries
}

// Roots are whom the client trusts to vouch for hardware. The zero value trusts nobody.
type Roots struct {
	VTPM *x509.CertPool // makers of TPMs, or whoever certifies their attestation keys
}

// appraisal is one run of Verify: what it was given, and what it parsed out of the evidence.
type appraisal struct {
	evidence  *Evidence
	challenge Challenge
	rules     *Rules
	policy    Policy
	now       time.Time
	roots     Roots

	quote     *vtpm.Quote
	signature vtpm.Signature
	chain     *vtpm.Chain
	boot      []eventlog.BootEvent
	runtime   []eventlog.Record
	bank      map[uint][32]byte // replayed registers
	config    config.Measured
	identity  []byte // identity part of the config, as it lies in the evidence
	release   *Release
}

// Verify judges evidence for one challenge at the time now. It returns a Result only when every check has accepted or is
// waived by name; otherwise a *Rejected with the checks made so far. No check depends on the network.
func Verify(evidence *Evidence, challenge Challenge, policy Policy, now time.Time, roots Roots) (*Result, error) {
	return verify(evidence, challenge, policy, now, roots, dropNone)
}

// dropNone drops no check. Tests drop one at a time, to show that each is missed.
const dropNone = -1

func verify(evidence *Evidence, challenge Challenge, policy Policy, now time.Time, roots Roots, drop int) (*Result, error) {
	a := &appraisal{evidence: evidence, challenge: challenge, policy: policy, rules: policy.rules, now: now, roots: roots}
	var done []Check
	var failed *Check
	for i, c := range vtpmAppraisal {
		found := c.judge(a)
		verdict := Accepted
		switch {
		case found.ok || i == drop:
		case c.waiver != "" && policy.waives(c.waiver):
			verdict = Waived
		default:
			verdict = Denied
		}
		done = append(done, Check{Name: c.name, Got: found.got, Want: found.want, Verdict: verdict})
		if verdict == Denied {
			if failed == nil {
				failed = &Check{Name: c.name, Got: found.got, Want: found.want, Verdict: Denied}
			}
			// After a structure that can't be read or a proof that fails, the later checks would judge a forger's words.
			if c.proof {
				break
			}
		}
	}
	if failed != nil {
		return nil, &Rejected{Failed: *failed, checks: done}
	}
	return newResult(a, done), nil
}

// finding is what a check saw and what it wanted to see.
type finding struct {
	got, want string
	ok        bool
}

// check is one numbered line of the appraisal.
type check struct {
	name string
	// proof marks the checks that everything after them rests on.
	proof bool
	// waiver is the name under which a policy can do without the check; most have none.
	waiver string
	judge  func(*appraisal) finding
}

// vtpmAppraisal lists the appraisal of a vtpm in order. Nothing in the evidence changes the list.
var vtpmAppraisal = slices.Concat(challengeChecks, vtpmChecks, pcrChecks(), logChecks, configChecks)

// parsed makes a finding of a parser's error.
func parsed(err error, want string) finding {
	if err != nil {
		return finding{err.Error(), want, false}
	}
	return finding{"well formed", want, true}
}

func digests(got, want [32]byte) finding {
	return finding{hex.EncodeToString(got[:]), hex.EncodeToString(want[:]), got == want}
}
