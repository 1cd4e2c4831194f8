package attest

import (
	"encoding/hex"
	"fmt"
	"slices"

	"chrysalis/attest/check"
	"chrysalis/attest/evidence"
	"chrysalis/attest/vtpm"
	"chrysalis/measure/eventlog"
	"chrysalis/measure/register"
)

// vtpmChecks prove that a TPM which a root vouches for signed this statement and these registers.
var vtpmChecks = []step{
	{Name: waiverConfidentiality, Waived: waives(waiverConfidentiality), Judge: func(a *appraisal) check.Finding {
		return check.Found("none: the host runs the TPM", "hardware that hides memory", false)
	}},
	{Name: "quote-format", Proof: true, Judge: func(a *appraisal) check.Finding {
		var err error
		a.quote, err = vtpm.ParseQuote(a.evidence.Quote)
		return check.Parsed(err, "a TPMS_ATTEST of a quote")
	}},
	{Name: "signature-format", Proof: true, Judge: func(a *appraisal) check.Finding {
		var err error
		a.signature, err = vtpm.ParseSignature(a.evidence.Signature)
		return check.Parsed(err, "a TPMT_SIGNATURE")
	}},
	{Name: "certificate-format", Proof: true, Judge: func(a *appraisal) check.Finding {
		var err error
		a.chain, err = vtpm.ParseChain(a.evidence.Certificates)
		return check.Parsed(err, "certificates of a P-256 key")
	}},
	{Name: "boot-log-format", Proof: true, Judge: func(a *appraisal) check.Finding {
		var err error
		a.boot, err = eventlog.ParseBoot(a.evidence.BootLog)
		return check.Parsed(err, "a TCG2 log")
	}},
	runtimeLogFormat, configFormat, noBindingCheck,
	{Name: "collateral-absent", Judge: func(a *appraisal) check.Finding { return absent(a.evidence.Collateral, "collateral") }},
	{Name: "certificate", Proof: true, Judge: func(a *appraisal) check.Finding {
		if err := a.chain.Verify(a.roots.VTPM, a.now); err != nil {
			return check.Found(err.Error(), "a chain to a trusted root", false)
		}
		return check.Found("issued by "+a.chain.Issuer(), "a chain to a trusted root", true)
	}},
	{Name: "quote-signature", Proof: true, Judge: func(a *appraisal) check.Finding {
		if !a.signature.Verify(a.chain.Key(), a.evidence.Quote) {
			return check.Found("not the certified key's signature", "signed by the certified key", false)
		}
		return check.Found("signed by the certified key", "signed by the certified key", true)
	}},
	{Name: "report-data", Proof: true, Judge: func(a *appraisal) check.Finding {
		want := evidence.ReportData(a.evidence.Statement)
		return check.Same(a.quote.Extra, want[:])
	}},
	{Name: "pcr-selection", Proof: true, Judge: func(a *appraisal) check.Finding {
		return check.Found(fmt.Sprint(a.quote.Selections), fmt.Sprint([]vtpm.Selection{vtpm.SHA256Selection(register.Quoted())}),
			a.quote.Selects(register.Quoted()))
	}},
	{Name: "pcr-digest", Proof: true, Judge: func(a *appraisal) check.Finding {
		bank := a.replay()
		var values [][32]byte
		for _, index := range register.Quoted() {
			values = append(values, bank[index])
		}
		want := vtpm.Digest(values)
		a.registers = map[string][]byte{}
		for _, index := range register.Quoted() {
			value := bank[index]
			a.registers[register.PCR(index)] = value[:]
		}
		id := a.chain.ID()
		a.machine = id[:]
		a.reference = a.policy.nearest(evidence.VTPM, a.registers)
		return check.Same(a.quote.Digest, want[:])
	}},
	{Name: "boot-log-data", Judge: func(a *appraisal) check.Finding { return hashedData(a.boot) }},
	{Name: "machine", Judge: func(a *appraisal) check.Finding {
		return a.listed(named(a.rules.Platforms.VTPM, func(d register.Digest) []byte { return d[:] }))
	}},
	securityVersion, rebuiltCheck,
}

// replay returns the quoted registers: 13 and 14 out of the runtime log, the others out of the boot log.
func (a *appraisal) replay() map[uint][32]byte {
	bank := map[uint][32]byte{}
	boot := eventlog.ReplayBoot(a.boot)
	for _, index := range register.Quoted() {
		bank[index] = boot[index]
	}
	bank[13] = eventlog.Replay256(a.runtime, eventlog.PCR13)
	bank[14] = eventlog.Replay256(a.runtime, eventlog.PCR14)
	return bank
}

// hashedData judges each event of a boot log whose digest is defined over its data. An event of a register that no replay speaks
// of would be a story that nothing holds.
func hashedData(log []eventlog.BootEvent) check.Finding {
	const want = "data that hashes to its digest, in PCR 0 to 15"
	for i, e := range log {
		if e.Register > 15 && e.Register != eventlog.NoRegister {
			return check.Found(fmt.Sprintf("event %d is of register %d", i, e.Register), want, false)
		}
		if e.Broken() {
			return check.Found(fmt.Sprintf("event %d of register %d has other data", i, e.Register), want, false)
		}
	}
	return check.Found(fmt.Sprintf("%d events", len(log)), want, true)
}

func absent(b []byte, what string) check.Finding {
	want := "no " + what
	if len(b) != 0 {
		return check.Found(fmt.Sprintf("%s of %d bytes", what, len(b)), want, false)
	}
	return check.Found(want, want, true)
}

// The checks of what every platform's evidence carries.
var (
	runtimeLogFormat = step{Name: "runtime-log-format", Proof: true, Judge: func(a *appraisal) check.Finding {
		log, err := check.Prove(a.roots.Facts, "runtime log", func() (parsedLog, error) { return parseLog(a.evidence.RuntimeLog) },
			a.evidence.RuntimeLog)
		a.runtime, a.rtmr3 = log.records, log.rtmr3
		return check.Parsed(err, "a runtime log")
	}}
	configFormat = step{Name: "config-format", Proof: true, Judge: func(a *appraisal) check.Finding {
		parsed, err := check.Prove(a.roots.Facts, "config", func() (parsedConfig, error) { return parseConfig(a.evidence.Config) }, a.evidence.Config)
		a.config, a.sequence = parsed.measured, parsed.sequence
		return check.Parsed(err, "a measured config")
	}}
	securityVersion = step{Name: "security-version", Judge: func(a *appraisal) check.Finding {
		got, want := a.reference.Release.SecurityVersion, a.rules.MinSecurityVersion
		name := a.reference.Release.Name
		return check.Saying(got >= want, func() (string, string) {
			return fmt.Sprintf("%d, of release %q", got, name), fmt.Sprintf("at least %d", want)
		})
	}}
)

// listed judges the machine against those that the policy names.
func (a *appraisal) listed(allowed [][]byte) check.Finding {
	id := hex.EncodeToString(a.machine)
	if a.rules.Platforms.Any {
		return check.Found(id, "any machine", true)
	}
	var names []string
	for _, machine := range allowed {
		names = append(names, hex.EncodeToString(machine))
	}
	return check.Found(id, either(names), slices.Contains(names, id))
}

func named[T any](list []T, bytes func(T) []byte) (names [][]byte) {
	for _, item := range list {
		names = append(names, bytes(item))
	}
	return names
}

// waives is for the checks that a policy can do without by that name.
func waives(name string) func(*appraisal) bool {
	return func(a *appraisal) bool { return a.policy.waives(name) }
}
