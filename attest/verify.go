package attest

import (
	"crypto/x509"
	"errors"
	"slices"
	"strings"
	"time"

	"chrysalis/attest/check"
	"chrysalis/attest/evidence"
	"chrysalis/attest/nvidia"
	"chrysalis/attest/release"
	"chrysalis/attest/sevsnp"
	"chrysalis/attest/tdx"
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
	VTPM   *x509.CertPool      // makers of TPMs, or whoever certifies their attestation keys
	TDX    *x509.Certificate   // tdx.IntelRoot for genuine machines
	SEVSNP []*x509.Certificate // sevsnp.AMDRoots for genuine machines
	NVIDIA nvidia.Roots        // nvidia.NVIDIARoots for genuine GPUs

	// Facts remembers parses and signatures of certificates and collateral between calls, which saves most of the work of
	// verifying a machine again. It trusts nobody, and what it remembers changes no verdict. Nil remembers nothing.
	Facts *Facts
}

// Facts is what a verifier that verifies often remembers. The zero value is ready for use, by many at once.
type Facts = check.Facts

// appraisal is one run of Verify: what it was given, and what it parsed out of the evidence.
type appraisal struct {
	evidence  *evidence.Evidence
	challenge Challenge
	rules     *Rules
	policy    Policy
	now       time.Time
	roots     Roots

	runtime  []eventlog.Record
	rtmr3    func() [48]byte   // what the log makes of it
	sequence eventlog.Sequence // what the log must state for the config
	config   config.Measured

	// What the hardware vouches for: its parts on a vtpm, the judged quote or report elsewhere.
	quote     *vtpm.Quote
	signature vtpm.Signature
	chain     *vtpm.Chain
	boot      []eventlog.BootEvent
	td        *tdx.Result
	guest     *sevsnp.Result
	gpus      *nvidia.Result // nil where the config asks for none

	machine   []byte            // names the machine
	registers map[string][]byte // by name, those that a release fixes
	reference release.Entry     // the release's values that fit best
}

// Verify judges evidence for one challenge at the time now. It returns a Result only when every check has accepted or is
// waived by name; otherwise a *Refused with the checks made so far. No check depends on the network.
func Verify(e *evidence.Evidence, challenge Challenge, policy Policy, now time.Time, roots Roots) (*Result, error) {
	return verify(appraisalOf(e).challenged, e, challenge, policy, now, roots)
}

func verify(steps []step, e *evidence.Evidence, challenge Challenge, policy Policy, now time.Time, roots Roots) (*Result, error) {
	a := &appraisal{evidence: e, challenge: challenge, policy: policy, rules: policy.rules, now: now, roots: roots}
	lines, refusal := check.Run("verifying evidence", steps, a)
	if refusal != nil {
		return nil, refusal
	}
	return newResult(a, lines), nil
}

// OfCollateral reports whether a refusal is for what collateral says of the machine or of itself, so that newer collateral could
// change it.
func OfCollateral(err error) bool {
	var refused *Refused
	if !errors.As(err, &refused) {
		return false
	}
	platform, name, _ := strings.Cut(refused.Failed.Name, ".")
	return platform == "tdx" && tdx.RestsOnCollateral(name) || platform == "sev-snp" && sevsnp.RestsOnCollateral(name) ||
		platform == "nvidia" && nvidia.RestsOnCollateral(name)
}

// VerifyEpoch judges the epoch evidence that a certificate carries for the key in it, as Verify does but for the challenge:
// there is none, so the evidence may be a replay for as long as the statement's not-after allows, and of any connection. It
// shows what kind of guest answers before anything is said to it. No Result comes of it: the keys are for Verify to give.
func VerifyEpoch(e *evidence.Evidence, tlsKey [32]byte, policy Policy, now time.Time, roots Roots) ([]Check, error) {
	a := &appraisal{evidence: e, challenge: Challenge{TLSKey: tlsKey}, policy: policy, rules: policy.rules, now: now, roots: roots}
	lines, refusal := check.Run("verifying evidence", appraisalOf(e).epoch, a)
	if refusal != nil {
		return nil, refusal
	}
	return check.Told(lines), nil
}

// VerifyDetached judges evidence for a nonce that was asked for over somebody else's connection, as Verify does but for the exporter
// and the certificate's key. The Result yields the keys that seal and sign, and no TLS key: nothing is known of the connection.
func VerifyDetached(e *evidence.Evidence, nonce [32]byte, policy Policy, now time.Time, roots Roots) (*Result, error) {
	return verify(appraisalOf(e).detached, e, Challenge{Nonce: nonce}, policy, now, roots)
}

// VerifyAsking judges the evidence of a guest that has no secret yet and asks to have one lent, as Verify does but for what follows from
// a secret: the log must end before keys-released, and the statement name no key but TLSKey, the one that the guest answers for on the
// connection. No Result comes of it: such a guest serves nobody. What Verify accepts is refused here, and the reverse.
func VerifyAsking(e *evidence.Evidence, challenge Challenge, policy Policy, now time.Time, roots Roots) ([]Check, error) {
	a := &appraisal{evidence: e, challenge: challenge, policy: policy, rules: policy.rules, now: now, roots: roots}
	lines, refusal := check.Run("verifying evidence", appraisalOf(e).asking, a)
	if refusal != nil {
		return nil, refusal
	}
	return check.Told(lines), nil
}

// step is a check of this appraisal.
type step = check.Step[*appraisal]

// lists are the appraisals of a platform, each in order. Nothing in the evidence changes a list.
type lists struct{ challenged, detached, epoch, asking []step }

// listsOf takes what a platform proves of itself, and where it keeps the runtime log.
func listsOf(in eventlog.Registers, own ...[]step) lists {
	proved := append(slices.Concat(own...), nvidiaCheck)
	all := slices.Concat(proved, logChecks(in), statementChecks, keyChecks, configChecks)
	return lists{
		slices.Concat(admissionChecks, challengeChecks, all), slices.Concat(admissionChecks, detachedChecks, all),
		slices.Concat(admissionChecks, epochChecks, all),
		slices.Concat(admissionChecks, challengeChecks, proved, askingLogChecks(in), statementChecks, askingKeyChecks, configChecks),
	}
}

var (
	vtpmAppraisal   = listsOf(eventlog.InPCRs, vtpmChecks, registerChecks(release.Registers(evidence.VTPM)))
	tdxAppraisal    = listsOf(eventlog.InRTMR, tdxChecks, registerChecks(release.Registers(evidence.TDX)))
	sevsnpAppraisal = listsOf(eventlog.InRTMR, sevsnpChecks)
)

// appraisalOf returns the appraisal of the evidence's platform. Of a platform that is none the check of the platform denies,
// before anything is read.
func appraisalOf(e *evidence.Evidence) lists {
	if e != nil && e.Platform == evidence.TDX {
		return tdxAppraisal
	}
	if e != nil && e.Platform == evidence.SEVSNP {
		return sevsnpAppraisal
	}
	return vtpmAppraisal
}

func digests(got, want [32]byte) check.Finding { return check.Same(got[:], want[:]) }
