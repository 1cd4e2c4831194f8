package attest

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"chrysalis/attest/vtpm"
	"chrysalis/measure/config"
	"chrysalis/measure/eventlog"
)

// challengeChecks come first: whether there is a policy, and whether the answer is to this client's question.
var challengeChecks = []check{
	{name: "policy", proof: true, judge: func(a *appraisal) finding {
		if a.rules == nil {
			// Later checks read the rules.
			return finding{"the zero policy, which accepts nothing", "a policy", false}
		}
		return finding{"a policy", "a policy", true}
	}},
	{name: "platform", proof: true, judge: func(a *appraisal) finding {
		if a.evidence == nil {
			return finding{"no evidence", VTPM.String(), false}
		}
		return finding{a.evidence.Platform.String(), VTPM.String(), a.evidence.Platform == VTPM}
	}},
	{name: "confidentiality", waiver: waiverConfidentiality, judge: func(a *appraisal) finding {
		return finding{"none: the host runs the TPM", "hardware that hides memory", false}
	}},
	{name: "nonce", proof: true, judge: func(a *appraisal) finding {
		return given(a.challenge.Nonce, "the client's own random nonce")
	}},
	{name: "exporter", proof: true, judge: func(a *appraisal) finding {
		return given(a.challenge.Exporter, "the exporter of the client's connection")
	}},
	{name: "challenge", proof: true, judge: func(a *appraisal) finding {
		root, err := a.evidence.Path.Root(Leaf(a.challenge.Nonce, a.challenge.Exporter))
		if err != nil {
			return finding{err.Error(), "a path from nonce and exporter to the statement", false}
		}
		return digests(root, a.evidence.Statement.NonceRoot)
	}},
	{name: "tls-key", proof: true, judge: func(a *appraisal) finding {
		return digests(a.evidence.Statement.TLSKey, a.challenge.TLSKey)
	}},
	{name: "not-after", judge: func(a *appraisal) finding {
		const layout = time.RFC3339
		want := "at or after " + a.now.UTC().Format(layout)
		if a.evidence.Statement.NotAfter > 1<<40 {
			return finding{fmt.Sprint(a.evidence.Statement.NotAfter), want, false}
		}
		until := time.Unix(int64(a.evidence.Statement.NotAfter), 0)
		return finding{until.UTC().Format(layout), want, !until.Before(a.now)}
	}},
}

func given(value [32]byte, want string) finding {
	if value == ([32]byte{}) {
		return finding{"zeros", want, false}
	}
	return finding{hex.EncodeToString(value[:]), want, true}
}

// vtpmChecks prove that a TPM which a root vouches for signed this statement and these registers.
var vtpmChecks = []check{
	{name: "quote-format", proof: true, judge: func(a *appraisal) (f finding) {
		var err error
		a.quote, err = vtpm.ParseQuote(a.evidence.Quote)
		return parsed(err, "a TPMS_ATTEST of a quote")
	}},
	{name: "signature-format", proof: true, judge: func(a *appraisal) finding {
		var err error
		a.signature, err = vtpm.ParseSignature(a.evidence.Signature)
		return parsed(err, "a TPMT_SIGNATURE")
	}},
	{name: "certificate-format", proof: true, judge: func(a *appraisal) finding {
		var err error
		a.chain, err = vtpm.ParseChain(a.evidence.Certificates)
		return parsed(err, "certificates of a P-256 key")
	}},
	{name: "boot-log-format", proof: true, judge: func(a *appraisal) finding {
		var err error
		a.boot, err = eventlog.ParseBoot(a.evidence.BootLog)
		return parsed(err, "a TCG2 log")
	}},
	{name: "runtime-log-format", proof: true, judge: func(a *appraisal) finding {
		var err error
		a.runtime, err = eventlog.ParseRuntime(a.evidence.RuntimeLog)
		return parsed(err, "a runtime log")
	}},
	{name: "config-format", proof: true, judge: func(a *appraisal) finding {
		var err error
		if a.config, err = config.Decode(a.evidence.Config); err == nil {
			a.identity, _, err = config.Split(a.evidence.Config)
		}
		return parsed(err, "a measured config")
	}},
	{name: "certificate", proof: true, judge: func(a *appraisal) finding {
		if err := a.chain.Verify(a.roots.VTPM, a.now); err != nil {
			return finding{err.Error(), "a chain to a trusted root", false}
		}
		return finding{"issued by " + a.chain.Issuer(), "a chain to a trusted root", true}
	}},
	{name: "quote-signature", proof: true, judge: func(a *appraisal) finding {
		ok := a.signature.Verify(a.chain.Key(), a.evidence.Quote)
		return yes(ok, "signed by the certified key", "not the certified key's signature")
	}},
	{name: "report-data", proof: true, judge: func(a *appraisal) finding {
		want := ReportData(a.evidence.Statement)
		return finding{hex.EncodeToString(a.quote.Extra), hex.EncodeToString(want[:]), bytes.Equal(a.quote.Extra, want[:])}
	}},
	{name: "pcr-selection", proof: true, judge: func(a *appraisal) finding {
		return finding{fmt.Sprint(a.quote.Selections), fmt.Sprint([]vtpm.Selection{vtpm.SHA256Selection(vtpm.QuotedPCRs())}), a.quote.Selects(vtpm.QuotedPCRs())}
	}},
	{name: "pcr-digest", proof: true, judge: func(a *appraisal) finding {
		a.bank = a.replay()
		a.release = a.nearestRelease()
		var values [][32]byte
		for _, register := range vtpm.QuotedPCRs() {
			values = append(values, a.bank[register])
		}
		want := vtpm.Digest(values)
		return finding{hex.EncodeToString(a.quote.Digest), hex.EncodeToString(want[:]), bytes.Equal(a.quote.Digest, want[:])}
	}},
	{name: "boot-log-data", judge: func(a *appraisal) finding {
		const want = "data that hashes to its digest"
		for i, e := range a.boot {
			if e.Hashed() && !e.Proven() {
				return finding{fmt.Sprintf("event %d of PCR %d has other data", i, e.Register), want, false}
			}
		}
		return finding{fmt.Sprintf("%d events", len(a.boot)), want, true}
	}},
	{name: "machine", judge: func(a *appraisal) finding {
		id := a.chain.ID()
		if a.rules.Platforms.Any {
			return finding{hex.EncodeToString(id[:]), "any machine", true}
		}
		var names []string
		for _, allowed := range a.rules.Platforms.VTPM {
			names = append(names, allowed.String())
		}
		return finding{hex.EncodeToString(id[:]), either(names), slices.Contains(a.rules.Platforms.VTPM, config.Digest(id))}
	}},
	{name: "security-version", judge: func(a *appraisal) finding {
		got, want := a.release.SecurityVersion, a.rules.MinSecurityVersion
		return finding{fmt.Sprintf("%d, of release %q", got, a.release.Name), fmt.Sprintf("at least %d", want), got >= want}
	}},
}

// replay returns the quoted registers: 13 and 14 out of the runtime log, the others out of the boot log.
func (a *appraisal) replay() map[uint][32]byte {
	bank := map[uint][32]byte{}
	boot := eventlog.ReplayBoot(a.boot)
	for _, register := range pinnedPCRs() {
		bank[register] = boot[register]
	}
	bank[13] = eventlog.Replay256(a.runtime, eventlog.PCR13)
	bank[14] = eventlog.Replay256(a.runtime, eventlog.PCR14)
	return bank
}

// nearestRelease returns the listed release of which the most registers fit, so that a refusal names what differs from
// the release that was probably meant. The checks of each register decide whether it runs.
func (a *appraisal) nearestRelease() *Release {
	best, most := &a.rules.Releases[0], -1
	for i := range a.rules.Releases {
		r := &a.rules.Releases[i]
		fit := 0
		for register, value := range r.VTPM {
			if a.bank[uint(register)] == value {
				fit++
			}
		}
		// Of two that fit equally the higher security version is meant.
		if fit > most || fit == most && r.SecurityVersion > best.SecurityVersion {
			best, most = r, fit
		}
	}
	return best
}

// pcrChecks has one check for each register that a release fixes.
func pcrChecks() (list []check) {
	for _, register := range pinnedPCRs() {
		list = append(list, pcrCheck(register))
	}
	return list
}

// pcrCheck compares a register with the release's value. Waiving it is the policy's business: a waived register has none.
func pcrCheck(register uint) check {
	return check{name: waiverPCR(register), waiver: waiverPCR(register), judge: func(a *appraisal) finding {
		want, pinned := a.release.VTPM[uint8(register)]
		if !pinned {
			got := a.bank[register]
			return finding{hex.EncodeToString(got[:]), "not judged", false}
		}
		return digests(a.bank[register], want)
	}}
}

func yes(ok bool, is, isNot string) finding {
	if ok {
		return finding{is, is, true}
	}
	return finding{isNot, is, false}
}
