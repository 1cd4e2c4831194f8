package attest

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"time"

	"chrysalis/measure/config"
)

// The two classes of a refusal. Both deny.
var (
	// ErrRejected: the evidence is wrong, or it is not what the policy accepts.
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
	Waived   Verdict = "waived" // it did not hold, and the policy does without it by name
)

// Check is one line of an appraisal.
type Check struct {
	Name    string  `json:"name"`
	Got     string  `json:"got"`
	Want    string  `json:"want"`
	Verdict Verdict `json:"verdict"`
}

// Rejected is the refusal of Verify. errors.Is reports it as ErrRejected.
type Rejected struct {
	Failed Check // the first check that refused
	checks []Check
}

func (r *Rejected) Error() string {
	return fmt.Sprintf("verifying evidence: %s: got %s, want %s", r.Failed.Name, r.Failed.Got, r.Failed.Want)
}

// Is makes a Rejected an ErrRejected.
func (r *Rejected) Is(target error) bool { return target == ErrRejected }

// Checks returns the checks that were made, in order. None after a failed proof is among them.
func (r *Rejected) Checks() []Check { return slices.Clone(r.checks) }

// Result is what is true of a guest. Only Verify makes one.
type Result struct {
	platform        Platform
	machine         [32]byte
	release         string
	securityVersion uint32
	statement       Statement
	config          []byte
	measured        config.Measured
	checks          []Check
	weaknesses      []string
}

func newResult(a *appraisal, done []Check) *Result {
	r := &Result{
		platform: a.evidence.Platform, machine: a.chain.ID(), release: a.release.Name, securityVersion: a.release.SecurityVersion,
		statement: a.evidence.Statement, config: slices.Clone(a.evidence.Config), measured: a.config, checks: done,
		weaknesses: []string{"vtpm proves measurement and protocol, not confidentiality: the host runs the TPM and can read the guest's memory"},
	}
	for _, c := range done {
		if c.Verdict == Waived && c.Name != waiverConfidentiality {
			r.weaknesses = append(r.weaknesses, c.Name+" was not judged: the policy waives it")
		}
	}
	if a.rules.Platforms.Any {
		r.weaknesses = append(r.weaknesses, "any machine is accepted: the keys of one that its owner has broken forge this evidence")
	}
	return r
}

// Platform returns the kind of hardware that signed.
func (r *Result) Platform() Platform { return r.platform }

// Machine returns the id of the machine: on a vtpm the SHA-256 of its attestation key.
func (r *Result) Machine() [32]byte { return r.machine }

// Release returns the policy's name of the release that runs.
func (r *Result) Release() string { return r.release }

// SecurityVersion returns the security version that the policy gives the release.
func (r *Result) SecurityVersion() uint32 { return r.securityVersion }

// TLSKey returns SHA-256 of the SubjectPublicKeyInfo of the guest's TLS key.
func (r *Result) TLSKey() [32]byte { return r.statement.TLSKey }

// HPKEKey returns SHA-256 of the guest's HPKE key, zeros when it has none.
func (r *Result) HPKEKey() [32]byte { return r.statement.HPKEKey }

// ReceiptKey returns the key that signs the guest's receipts.
func (r *Result) ReceiptKey() ed25519.PublicKey { return slices.Clone(r.statement.ReceiptKey[:]) }

// ClaimKey returns the key that signs the guest's claims.
func (r *Result) ClaimKey() ed25519.PublicKey { return slices.Clone(r.statement.ClaimKey[:]) }

// SecretHash names the sealed secret behind the keys.
func (r *Result) SecretHash() [32]byte { return r.statement.SecretHash }

// Epoch returns the number of the key set.
func (r *Result) Epoch() uint64 { return r.statement.Epoch }

// NotAfter returns the time until which the TLS key is used. A longer connection needs new evidence.
func (r *Result) NotAfter() time.Time { return time.Unix(int64(r.statement.NotAfter), 0) }

// Config returns the measured config.
func (r *Result) Config() config.Measured {
	m := r.measured
	m.Service.Engine.Argv = slices.Clone(m.Service.Engine.Argv)
	m.Service.Engine.Env = slices.Clone(m.Service.Engine.Env)
	return m
}

// ConfigBytes returns the measured config as it was hashed.
func (r *Result) ConfigBytes() []byte { return slices.Clone(r.config) }

// Checks returns every check, in order.
func (r *Result) Checks() []Check { return slices.Clone(r.checks) }

// Weaknesses says, in sentences for people, what this acceptance does not cover.
func (r *Result) Weaknesses() []string { return slices.Clone(r.weaknesses) }
