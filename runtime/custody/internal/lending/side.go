package lending

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"chrysalis/attest"
	"chrysalis/attest/evidence"
	"chrysalis/attest/handover"
	"chrysalis/attest/nvidia"
	"chrysalis/attest/release"
	"chrysalis/attest/sevsnp"
	"chrysalis/attest/tdx"
	"chrysalis/measure/config"
	"chrysalis/measure/register"
)

// Side is what a lender or a borrower knows of itself, by which it judges the other. It never changes.
type Side struct {
	identity  []byte // JSON of the config's identity part
	config    config.Measured
	image     handover.Image
	platform  evidence.Platform
	registers map[string][]byte
	roots     attest.Roots
	now       func() time.Time
}

// NewSide returns the side of a guest whose own evidence this is, fresh from its own hardware, with its measured config and what its
// image says of itself. now is the clock that dates are judged by, nil for time.Now: the host's.
func NewSide(own *evidence.Evidence, measured []byte, image handover.Image, now func() time.Time) (*Side, error) {
	if now == nil {
		now = time.Now
	}
	s := &Side{image: image, platform: own.Platform, now: now}
	err := s.read(own, measured)
	if err != nil {
		return nil, fmt.Errorf("knowing oneself: %w", err)
	}
	return s, nil
}

func (s *Side) read(own *evidence.Evidence, measured []byte) (err error) {
	if !bytes.Equal(own.Config, measured) {
		return errors.New("the guest's evidence is of another config than its own")
	}
	if s.identity, _, err = config.Split(measured); err != nil {
		return err
	}
	if s.config, err = config.Decode(measured); err != nil {
		return err
	}
	if got := s.config.Identity.Sealing; got != config.SealCustodian {
		return fmt.Errorf("sealing is %q, want %q", got, config.SealCustodian)
	}
	if s.registers, err = attest.Claimed(own); err != nil {
		return err
	}
	s.roots, err = rootsOf(s.platform, s.config.Identity.Custody.Roots)
	return err
}

// rootsOf returns who vouches for the hardware of a platform: those that the identity names, or else its makers.
func rootsOf(p evidence.Platform, named [][]byte) (roots attest.Roots, err error) {
	roots.NVIDIA = nvidia.NVIDIARoots()
	var given []*x509.Certificate
	for at, der := range named {
		root, err := x509.ParseCertificate(der)
		if err != nil {
			return roots, fmt.Errorf("root %d: %w", at, err)
		}
		given = append(given, root)
	}
	switch p {
	case evidence.VTPM:
		roots.VTPM = x509.NewCertPool()
		for _, root := range given {
			roots.VTPM.AddCert(root)
		}
		if len(given) == 0 {
			return roots, errors.New("the identity names no maker of TPMs, want one")
		}
	case evidence.TDX:
		if roots.TDX = tdx.IntelRoot(); len(given) > 0 {
			roots.TDX = given[0]
		}
		if len(given) > 1 {
			return roots, fmt.Errorf("the identity names %d roots, want one for %s", len(given), p)
		}
	case evidence.SEVSNP:
		if roots.SEVSNP = sevsnp.AMDRoots(); len(given) > 0 {
			roots.SEVSNP = given
		}
	}
	return roots, nil
}

// Custodian reports whether the guest is one.
func (s *Side) Custodian() bool { return s.config.Service.Custodian }

func (s *Side) party() handover.Party {
	return handover.Party{Platform: s.platform, Registers: s.registers, Identity: config.IdentityDigest(s.identity)}
}

// judged is the other side, as its evidence claims: proved once the policy that comes with it has been held against that evidence.
type judged struct {
	policy       attest.Policy
	giver, taker register.Digest // measurements
}

// judge reads what evidence claims and has the rule of handovers judge it. Its policy accepts exactly what was claimed: what it proves is
// what the rule has let pass.
//
// The other gives, or else takes, and is a custodian or a guest that serves.
func (s *Side) judge(e *evidence.Evidence, list []byte, gives, custodian bool) (j judged, err error) {
	if e.Platform != s.platform {
		return j, fmt.Errorf("the other's platform is %s, want %s", e.Platform, s.platform)
	}
	identity, _, err := config.Split(e.Config)
	if err != nil {
		return j, err
	}
	if !bytes.Equal(identity, s.identity) {
		return j, fmt.Errorf("the other's identity is %s, want %s", config.IdentityDigest(identity), config.IdentityDigest(s.identity))
	}
	m, err := config.Decode(e.Config)
	if err != nil {
		return j, err
	}
	if m.Service.Custodian != custodian {
		return j, fmt.Errorf("the other is a custodian: %t, want %t", m.Service.Custodian, custodian)
	}
	claimed, err := attest.Claimed(e)
	if err != nil {
		return j, err
	}
	own, other := s.party(), handover.Party{Platform: e.Platform, Registers: claimed, Identity: config.IdentityDigest(identity)}
	h := handover.Handover{Giver: own, Taker: other, Image: s.image, Narrowed: s.config.Identity.Handover, List: list}
	rule := h.Judge
	if gives {
		h.Giver, h.Taker = other, own
		rule = h.JudgeGiver
	}
	if err := rule(); err != nil {
		return j, err
	}
	if j.giver, err = handover.Measurement(h.Giver.Platform, h.Giver.Registers); err != nil {
		return j, err
	}
	if j.taker, err = handover.Measurement(h.Taker.Platform, h.Taker.Registers); err != nil {
		return j, err
	}
	j.policy, err = s.policy(m, claimed)
	return j, err
}

// waived is what neither side asks of the other on a platform. Who held the secret before is for clients to judge; a TPM keeps nothing from
// its host, and the registers beside those that name an image follow from the machine; nothing measures ACPI tables on SEV-SNP.
func waived(p evidence.Platform) []string {
	names := []string{"held-by"}
	switch p {
	case evidence.VTPM:
		names = append(names, "confidentiality")
		for _, name := range release.Registers(p) {
			if !slices.Contains(handover.Naming(p), name) {
				names = append(names, name)
			}
		}
	case evidence.SEVSNP:
		names = append(names, "acpi")
	}
	return names
}

// policy accepts a guest of this config with these registers, on whatever machine the roots vouch for and the identity's bounds let pass.
func (s *Side) policy(m config.Measured, registers map[string][]byte) (attest.Policy, error) {
	c := s.config.Identity.Custody
	r := release.Release{Name: "the other side's", SecurityVersion: 1}
	switch s.platform {
	case evidence.VTPM:
		pcrs := register.PCRs{}
		for index := range uint8(24) {
			if value := registers[register.PCR(index)]; slices.Contains(handover.Naming(s.platform), register.PCR(index)) {
				pcrs[index] = register.Digest(value)
			}
		}
		r.VTPM = []register.PCRs{pcrs}
	case evidence.TDX:
		r.TDX = []release.TDXValues{{MRTD: register.Digest384(registers[register.MRTD]), RTMR0: register.Digest384(registers[register.RTMR(0)]),
			RTMR1: register.Digest384(registers[register.RTMR(1)]), RTMR2: register.Digest384(registers[register.RTMR(2)])}}
	case evidence.SEVSNP:
		r.SEVSNP = []register.Digest384{register.Digest384(registers[register.Launch])}
	}
	age := fmt.Sprintf("%dh", c.CollateralHours)
	rules := attest.Rules{
		Version: 1, Releases: []release.Release{r}, MinSecurityVersion: 1, Waive: waived(s.platform), Platforms: attest.Platforms{Any: true},
		Config: attest.ExactConfig(m),
		TDX:    attest.TDXRules{AcceptStatus: []tdx.Status{tdx.UpToDate}, MinTCBEvaluation: c.MinTCBEvaluation, MaxCollateralAge: age},
		SEVSNP: attest.SEVSNPRules{MaxCRLAge: age, MinTCB: map[sevsnp.Product]sevsnp.TCB{}},
	}
	for _, l := range c.MinTCB {
		levels := sevsnp.TCB{FMC: l.FMC, Bootloader: l.Bootloader, TEE: l.TEE, SNP: l.SNP, Microcode: l.Microcode}
		rules.SEVSNP.MinTCB[sevsnp.Product(l.Product)] = levels
	}
	if m.Service.GPU != config.GPUNone {
		// The secret is in no GPU. That there are some, as the config says, is judged; which versions are good enough is for clients to say.
		rules.GPU = attest.GPURules{AnyVersion: true, AnyRIM: true, AnyDevice: true, MaxOCSPAge: age}
	}
	return rules.Policy()
}

// Giver returns the policy by which whoever takes the secret judges who claims to be its custodian.
func (s *Side) Giver(e *evidence.Evidence, list []byte) (attest.Policy, error) {
	j, err := s.judge(e, list, true, true)
	return j.policy, err
}

// Taker judges the evidence, for one challenge, of a guest that borrows the secret, or of a custodian that takes it over, and returns the
// measurements of both sides.
func (s *Side) Taker(e *evidence.Evidence, challenge attest.Challenge, list []byte, custodian bool) (giver, taker register.Digest, err error) {
	j, err := s.judge(e, list, false, custodian)
	if err != nil {
		return giver, taker, fmt.Errorf("%w: judging borrower: %w", attest.ErrRejected, err)
	}
	if _, err := attest.VerifyAsking(e, challenge, j.policy, s.now(), s.roots); err != nil {
		return giver, taker, fmt.Errorf("judging borrower: %w", err)
	}
	return j.giver, j.taker, nil
}
