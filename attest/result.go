package attest

import (
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

	"chrysalis/attest/check"
	"chrysalis/attest/evidence"
	"chrysalis/attest/nvidia"
	"chrysalis/attest/sevsnp"
	"chrysalis/attest/tdx"
	"chrysalis/measure/cocoon"
	"chrysalis/measure/config"
	"chrysalis/measure/eventlog"
	"chrysalis/measure/pubkey"
	"chrysalis/measure/register"
)

// The words of an appraisal, which are those of package check.
type (
	// Verdict is what became of a check.
	Verdict = check.Verdict
	// Check is one line of an appraisal.
	Check = check.Line
	// Refused is the refusal of Verify. errors.Is reports it as ErrRejected or as ErrUnavailable.
	Refused = check.Refusal
)

// The verdicts.
const (
	Accepted = check.Accepted
	Denied   = check.Denied
	Waived   = check.Waived
)

// The two classes of a refusal. Both deny.
var (
	ErrRejected    = check.ErrRejected
	ErrUnavailable = check.ErrUnavailable
)

// Result is what is true of a guest. Only Verify makes one.
type Result struct {
	platform        evidence.Platform
	machine         []byte
	tcb             string
	release         string
	securityVersion uint32
	held            []register.Digest
	loan            eventlog.Loan
	statement       evidence.Statement
	hpke            []byte
	detached        bool // no connection was bound
	config          []byte
	measured        config.Measured
	gpus            []nvidia.Appraised
	checks          []Check
	weaknesses      []string
	image           register.Digest    // as COCOON's root contract names it; zeros on a vtpm
	evidence        *evidence.Evidence // as it was judged
	nonce           [32]byte           // that it answers
}

func newResult(a *appraisal, done []Check) *Result {
	r := &Result{
		platform: a.evidence.Platform, machine: slices.Clone(a.machine), release: a.reference.Release.Name,
		securityVersion: a.reference.Release.SecurityVersion, held: slices.Clone(a.sequence.Held), loan: a.sequence.Loan,
		statement: a.evidence.Statement, hpke: slices.Clone(a.evidence.HPKE), config: slices.Clone(a.evidence.Config), measured: a.config, checks: done, evidence: a.evidence, nonce: a.challenge.Nonce,
	}
	if a.gpus != nil {
		r.gpus = a.gpus.Devices()
	}
	if r.detached = a.challenge.Exporter == ([32]byte{}); r.detached {
		r.weaknesses = append(r.weaknesses,
			"no connection is bound: whoever has the guest's HPKE key reads all that is sealed to it until it is replaced")
	}
	switch r.platform {
	case evidence.VTPM:
		r.weaknesses = append(r.weaknesses,
			"vtpm proves measurement and protocol, not confidentiality: the host runs the TPM and can read the guest's memory")
	case evidence.TDX:
		r.tcb = string(a.td.TCB().Status)
		body := a.td.Body()
		r.image = cocoon.TD{MRTD: body.MRTD, MRConfigID: body.MRCONFIGID, MROwner: body.MROWNER, MROwnerConfig: body.MROWNERCONFIG, RTMR: body.RTMR}.ImageHash()
		if !tdx.IsIntelRoot(a.roots.TDX) {
			r.weaknesses = append(r.weaknesses,
				"the root of this TDX is not Intel's but software's: it proves measurement and protocol, not confidentiality")
		}
		r.weaknesses = append(r.weaknesses, a.td.Weaknesses()...)
		if a.config.Identity.Cocoon {
			r.weaknesses = append(r.weaknesses, cocoonWeakness)
		}
		if service := a.td.Body().MRSERVICETD; service != [48]byte{} {
			r.weaknesses = append(r.weaknesses, fmt.Sprintf("the policy accepts the service TD %x, which can reach what this TD keeps", service))
		}
	case evidence.SEVSNP:
		r.tcb = a.guest.TCBs().Reported.String()
		r.image = cocoon.SNPImageHash(a.guest.Report().Measurement)
		if slices.ContainsFunc(a.roots.SEVSNP, func(c *x509.Certificate) bool { return !sevsnp.IsAMDRoot(c) }) {
			r.weaknesses = append(r.weaknesses,
				"a root for this SEV-SNP is not AMD's but software's: it proves measurement and protocol, not confidentiality")
		}
		r.weaknesses = append(r.weaknesses,
			"the runtime log is bound by report data alone, which is weaker than a register: it is the guest's own word for what it did before")
		if key := a.guest.Report().IDKeyDigest; key != [48]byte{} {
			r.weaknesses = append(r.weaknesses, fmt.Sprintf("the policy accepts id blocks of the key %x, whose owner says what the guest is called", key))
		}
	}
	for _, c := range done {
		if text, told := waived[c.Name]; c.Verdict == Waived && told {
			r.weaknesses = append(r.weaknesses, text)
		} else if c.Verdict == Waived && c.Name != waiverConfidentiality && !strings.HasPrefix(c.Name, "tdx.") && !strings.HasPrefix(c.Name, "nvidia.") {
			r.weaknesses = append(r.weaknesses, c.Name+" was not judged: the policy waives it")
		}
	}
	r.weaknesses = append(r.weaknesses, a.gpuWeaknesses()...)
	if a.rules.Platforms.Any {
		r.weaknesses = append(r.weaknesses, "any machine is accepted: the keys of one that its owner has broken forge this evidence")
	}
	return r
}

// cocoonWeakness is what COCOON's public identity costs.
const cocoonWeakness = "identity.cocoon: config and runtime log are bound by a key that the guest's init made, and by no register: it is the guest's own word " +
	"for what it read, and whoever gets that key out of the guest's memory can state anything in its name, however old the quote"

// waived says what some waivers mean.
var waived = map[string]string{
	waiverHeldBy:   "held-by: an image that the policy does not know has held the guest's secret, and could have kept a copy",
	waiverACPI:     "acpi: not measured, so bytecode of the host's choice ran in the guest's kernel",
	waiverRTMR3:    "rtmr-3 was not extended: the runtime log is bound by report data alone, which is weaker than a register",
	waiverConfigID: "mr-config-id is zeros: the config is bound by the runtime log alone, and not from the guest's start",
	waiverHostData: "host-data is zeros: the config is bound by report data alone, and not from the guest's start",
}

// Evidence returns what was judged, encoded, and the nonce that it answers, so that somebody else can judge it too: with VerifyDetached
// where no connection was bound.
func (r *Result) Evidence() (encoded []byte, nonce [32]byte, err error) {
	encoded, err = r.evidence.Encode()
	return encoded, r.nonce, err
}

// Platform returns the kind of hardware that signed.
func (r *Result) Platform() evidence.Platform { return r.platform }

// Machine returns the id of the machine: on a vtpm the SHA-256 of its attestation key (32 bytes), on TDX the PPID (16), on
// SEV-SNP the chip id (64).
func (r *Result) Machine() []byte { return slices.Clone(r.machine) }

// TCB says how the machine's security versions stand: on TDX the converged status, on SEV-SNP the reported patch levels, ""
// on a vtpm.
func (r *Result) TCB() string { return r.tcb }

// Release returns the policy's name of the release that runs.
func (r *Result) Release() string { return r.release }

// SecurityVersion returns the security version that the policy gives the release.
func (r *Result) SecurityVersion() uint32 { return r.securityVersion }

// TLSKey returns SHA-256 of the SubjectPublicKeyInfo of the guest's TLS key: zeros of a guest that was asked over somebody else's
// connection.
func (r *Result) TLSKey() [32]byte {
	if r.detached {
		return [32]byte{}
	}
	return r.statement.TLSKey
}

// HPKEKey returns the key that the guest opens envelopes with, nil when it has shown none.
func (r *Result) HPKEKey() []byte { return slices.Clone(r.hpke) }

// ReceiptKey returns the key that signs the guest's receipts.
func (r *Result) ReceiptKey() pubkey.Ed25519 { return r.statement.ReceiptKey }

// ImageHash returns the hash by which COCOON's root contract lists images: of a TD its registers, the config among them; of an SEV-SNP guest its
// launch digest. A vtpm has none, and ok is false.
func (r *Result) ImageHash() (hash register.Digest, ok bool) {
	return r.image, r.image != register.Digest{}
}

// ClaimKey returns the key that signs the guest's claims.
func (r *Result) ClaimKey() pubkey.Ed25519 { return r.statement.ClaimKey }

// SecretHash names the sealed secret behind the keys.
func (r *Result) SecretHash() [32]byte { return r.statement.SecretHash }

// Held returns the measurements (package attest/handover) of the images that have held the secret before this one, the first at first.
func (r *Result) Held() []register.Digest { return slices.Clone(r.held) }

// Loan returns which loan of a custodian's the secret is, and by which machine it was lent: zero of a guest that borrowed none.
func (r *Result) Loan() eventlog.Loan { return r.loan }

// Epoch returns the number of the key set.
func (r *Result) Epoch() uint64 { return r.statement.Epoch }

// NotAfter returns the time until which the TLS key is used. A longer connection needs new evidence.
func (r *Result) NotAfter() time.Time { return time.Unix(int64(r.statement.NotAfter), 0) }

// Config returns the measured config.
func (r *Result) Config() config.Measured {
	m := r.measured
	m.Service.Engine.Argv = slices.Clone(m.Service.Engine.Argv)
	m.Service.Engine.Env = slices.Clone(m.Service.Engine.Env)
	m.Service.Models = slices.Clone(m.Service.Models)
	for i := range m.Service.Models {
		e := &m.Service.Models[i].Engine
		e.Argv, e.Env = slices.Clone(e.Argv), slices.Clone(e.Env)
	}
	return m
}

// ConfigBytes returns the measured config as it was hashed.
func (r *Result) ConfigBytes() []byte { return slices.Clone(r.config) }

// Checks returns every check, in order.
func (r *Result) Checks() []Check { return check.Told(r.checks) }

// Weaknesses says, in sentences for people, what this acceptance does not cover.
func (r *Result) Weaknesses() []string { return slices.Clone(r.weaknesses) }
