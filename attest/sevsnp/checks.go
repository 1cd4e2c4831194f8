package sevsnp

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"math/big"
	"math/bits"
	"slices"
	"time"
)

// chainChecks prove that a root vouches for the key that must have signed.
var chainChecks = []check{
	{name: "report-format", proof: true, judge: func(a *appraisal) finding {
		r, err := Parse(a.evidence.Report)
		a.report = r
		return held(err, "an attestation report of version 2 to 5")
	}},
	{name: "certificate-format", proof: true, judge: func(a *appraisal) finding {
		c, err := parseChain(a.evidence.Certificate, a.evidence.Chain)
		if err == nil {
			a.chain, a.product = c, c.product()
		}
		return held(err, "endorsement key, ASK and ARK")
	}},
	{name: "root", proof: true, judge: func(a *appraisal) finding {
		const want = "one of the roots that are trusted"
		got := a.chain.ark.Subject.CommonName
		return finding{got, want, slices.ContainsFunc(a.roots, a.chain.ark.Equal)}
	}},
	{name: "ark", proof: true, judge: func(a *appraisal) finding {
		if a.product == "" {
			return finding{a.chain.ark.Subject.CommonName, "ARK of Milan, Genoa or Turin", false}
		}
		err := checkAuthority(a.chain.ark, a.chain.ark, "ARK-"+string(a.product), -1)
		return held(err, "ARK-"+string(a.product)+", signed by itself")
	}},
	{name: "ask", proof: true, judge: func(a *appraisal) finding {
		name := askName(a.product, a.chain.endorsement.signer())
		return held(checkAuthority(a.chain.ask, a.chain.ark, name, 0), name+", signed by the ARK")
	}},
	{name: "certificate", proof: true, judge: func(a *appraisal) finding {
		want := fmt.Sprintf("SEV-%s, signed by %s", a.chain.endorsement.signer(), a.chain.ask.Subject.CommonName)
		return held(a.chain.checkEndorsed(), want)
	}},
	{name: "ark-validity", judge: func(a *appraisal) finding { return within(a.at, a.chain.ark.NotBefore, a.chain.ark.NotAfter) }},
	{name: "ask-validity", judge: func(a *appraisal) finding { return within(a.at, a.chain.ask.NotBefore, a.chain.ask.NotAfter) }},
	{name: "certificate-validity", judge: func(a *appraisal) finding { return within(a.at, a.chain.leaf.NotBefore, a.chain.leaf.NotAfter) }},
	{name: "crl", unavailable: true, waived: func(o *Options) bool { return o.InsecureSkipCRL }, judge: func(a *appraisal) finding {
		const want = "a revocation list"
		if a.evidence.CRL == nil {
			return finding{"none", want, false}
		}
		return finding{want, want, true}
	}},
	{name: "crl-format", proof: true, judge: withCRL(func(a *appraisal) finding {
		var err error
		a.crl, err = parseCRL(a.evidence.CRL)
		return held(err, "a revocation list")
	})},
	{name: "crl-signature", proof: true, judge: withCRL(func(a *appraisal) finding {
		return held(checkCRLSigned(a.crl, a.chain.ark), "a revocation list signed by the ARK")
	})},
	{name: "crl-validity", judge: withCRL(func(a *appraisal) finding { return within(a.at, a.crl.ThisUpdate, a.crl.NextUpdate) })},
	{name: "revocation", judge: withCRL(func(a *appraisal) finding {
		const want = "no certificate of the chain revoked"
		if name := a.chain.revoked(a.crl); name != "" {
			return finding{name + " revoked", want, false}
		}
		return finding{want, want, true}
	})},
}

// withCRL judges only where a revocation list was given. Whether one must be is the check crl.
func withCRL(judge func(*appraisal) finding) func(*appraisal) finding {
	return func(a *appraisal) finding {
		if a.evidence.CRL == nil {
			return finding{"no list given", "no list given", true}
		}
		return judge(a)
	}
}

func within(at, from, to time.Time) finding {
	const layout = time.RFC3339
	want := from.UTC().Format(layout) + " to " + to.UTC().Format(layout)
	return finding{at.UTC().Format(layout), want, !at.Before(from) && !at.After(to)}
}

// reportChecks prove that this key signed the report, and that key and report speak of one chip.
var reportChecks = []check{
	{name: "signing-key", proof: true, judge: func(a *appraisal) finding {
		got, want := a.report.Signer, a.chain.endorsement.signer()
		return finding{got.String(), want.String() + ", as the certificate", got == want}
	}},
	{name: "signature", proof: true, judge: func(a *appraisal) finding {
		const want = "a signature by the endorsement key"
		r := a.report
		digest := sha512.Sum384(a.evidence.Report[:signatureOffset])
		key := a.chain.leaf.PublicKey.(*ecdsa.PublicKey)
		a.signed = ecdsa.Verify(key, digest[:], new(big.Int).SetBytes(r.R[:]), new(big.Int).SetBytes(r.S[:]))
		if !a.signed {
			return finding{"a signature that does not verify", want, false}
		}
		return finding{want, want, true}
	}},
	{name: "mask-chip-key", judge: func(a *appraisal) finding {
		// With the chip's key masked the firmware can only sign by a VLEK.
		got := a.report.MaskChipKey && a.report.Signer == SignerVCEK
		return finding{fmt.Sprintf("masked: %t", got), "not masked, where a VCEK signs", !got}
	}},
	{name: "product", judge: func(a *appraisal) finding {
		want := string(a.product) + ", as the ARK"
		if named := a.chain.endorsement.product; named != a.product {
			return finding{string(named) + " in the certificate", want, false}
		}
		if id := a.report.CPUID; a.report.Version >= cpuidVersion && productOf(id) != a.product {
			return finding{fmt.Sprintf("processor of family %#x, model %#x", id.Family, id.Model), want, false}
		}
		return finding{string(a.product), want, true}
	}},
	{name: "chip", judge: func(a *appraisal) finding {
		e := a.chain.endorsement
		if e.signer() == SignerVLEK {
			return finding{"a VLEK of " + e.csp, "the chip of a VCEK, or any for a VLEK", true}
		}
		want := e.chipID()
		return equal(a.report.ChipID[:], want[:])
	}},
	{name: "chip-list", waived: func(o *Options) bool { return o.AnyChip && len(o.Chips) == 0 }, judge: func(a *appraisal) finding {
		return listed(a.report.ChipID[:], slices.ContainsFunc(a.options.Chips, func(id [64]byte) bool { return id == a.report.ChipID }) &&
			a.report.ChipID != [64]byte{}, "a chip that the options name")
	}},
}

// tcbChecks judge patch levels. The reported one is believed because the key was derived for it; the others because the
// report is signed.
var tcbChecks = []check{
	{name: "tcb-format", proof: true, judge: func(a *appraisal) finding {
		var err error
		a.tcb, err = TCBsOf(a.report, a.product)
		return held(err, "patch levels of "+string(a.product))
	}},
	{name: "tcb-certificate", judge: func(a *appraisal) finding {
		want := a.chain.endorsement.tcb
		return finding{a.tcb.Reported.String(), want.String() + ", as the certificate", a.tcb.Reported == want}
	}},
	{name: "tcb-reported", judge: func(a *appraisal) finding {
		// AMD's order is reported, committed, current; the last two are compared below.
		return finding{a.tcb.Reported.String(), "at most the committed " + a.tcb.Committed.String(), a.tcb.Reported.AtMost(a.tcb.Committed)}
	}},
	{name: "tcb-launch", judge: func(a *appraisal) finding {
		return finding{a.tcb.Launch.String(), "at most the current " + a.tcb.Current.String(), a.tcb.Launch.AtMost(a.tcb.Current)}
	}},
	{name: "tcb-committed", judge: func(a *appraisal) finding {
		return finding{a.tcb.Committed.String(), "at most the current " + a.tcb.Current.String(), a.tcb.Committed.AtMost(a.tcb.Current)}
	}},
	{name: "firmware-committed", judge: func(a *appraisal) finding {
		r := a.report
		return finding{r.Committed.String(), "at most the current " + r.Current.String(), !r.Current.less(r.Committed)}
	}},
	{name: "provisional-tcb", waived: func(o *Options) bool { return o.AllowProvisionalFirmware }, judge: func(a *appraisal) finding {
		return finding{a.tcb.Committed.String(), "the current " + a.tcb.Current.String(), a.tcb.Committed == a.tcb.Current}
	}},
	{name: "provisional-firmware", waived: func(o *Options) bool { return o.AllowProvisionalFirmware }, judge: func(a *appraisal) finding {
		return finding{a.report.Committed.String(), "the current " + a.report.Current.String(), a.report.Committed == a.report.Current}
	}},
	{name: "tcb-minimum", waived: func(o *Options) bool { return o.InsecureSkipTCB && o.MinTCB == TCB{} }, judge: func(a *appraisal) finding {
		got, want := a.tcb.lowest(), a.options.MinTCB
		if want == (TCB{}) {
			return finding{got.String(), "a minimum, which the options do not give", false}
		}
		return finding{got.String(), "at least " + want.String(), want.AtMost(got)}
	}},
	{name: "firmware-minimum", judge: func(a *appraisal) finding {
		got := a.report.Committed
		if a.report.Current.less(got) {
			got = a.report.Current
		}
		return finding{got.String(), "at least " + a.options.MinFirmware.String(), !got.less(a.options.MinFirmware)}
	}},
	{name: "launch-mitigations", judge: func(a *appraisal) finding { return vector(a.report.LaunchMitigations, a.options.LaunchMitigations) }},
	{name: "current-mitigations", judge: func(a *appraisal) finding { return vector(a.report.CurrentMitigations, a.options.CurrentMitigations) }},
}

func vector(got, want uint64) finding {
	return finding{fmt.Sprintf("%#x", got), fmt.Sprintf("the bits %#x", want), got&want == want}
}

// policyChecks judge what the guest's owner allowed the host, and how the machine was set up.
var policyChecks = []check{
	{name: "debug", judge: policy(PolicyDebug, false)}, // no option: the host reads such a guest's memory
	{name: "migration", waived: func(o *Options) bool { return o.AllowMigrationAgent }, judge: policy(PolicyMigrationAgent, false)},
	{name: "migration-agent", waived: func(o *Options) bool { return o.AllowMigrationAgent }, judge: func(a *appraisal) finding {
		return equal(a.report.ReportIDMA[:], bytes.Repeat([]byte{0xff}, len(a.report.ReportIDMA)))
	}},
	{name: "smt", waived: func(o *Options) bool { return o.AllowSMT }, judge: policy(PolicySMT, false)},
	{name: "single-socket", waived: func(o *Options) bool { return o.AllowManySockets }, judge: policy(PolicySingleSocket, true)},
	{name: "cxl", waived: func(o *Options) bool { return o.AllowCXL }, judge: policy(PolicyCXL, false)},
	{name: "aes-256", waived: func(o *Options) bool { return o.AllowAES128 }, judge: policy(PolicyAES256, true)},
	{name: "rapl", waived: func(o *Options) bool { return o.AllowRAPL }, judge: policy(PolicyNoRAPL, true)},
	{name: "ciphertext-hiding", waived: func(o *Options) bool { return o.AllowVisibleCiphertext }, judge: policy(PolicyCiphertextHidden, true)},
	{name: "page-swap", waived: func(o *Options) bool { return o.AllowPageSwap }, judge: policy(PolicyNoPageSwap, true)},
	{name: "abi", judge: func(a *appraisal) finding {
		major, minor := a.report.Policy.ABI()
		want := [2]uint8{a.options.MinABIMajor, a.options.MinABIMinor}
		got := [2]uint8{major, minor}
		return finding{fmt.Sprintf("%d.%d", major, minor), fmt.Sprintf("at least %d.%d", want[0], want[1]), bytes.Compare(got[:], want[:]) >= 0}
	}},
	{name: "aliases", waived: func(o *Options) bool { return o.AllowUncheckedAliases }, judge: func(a *appraisal) finding {
		ok := a.report.Platform&PlatformAliasesChecked != 0
		return finding{fmt.Sprintf("checked: %t", ok), "memory checked for aliases", ok}
	}},
	{name: "vmpl", judge: func(a *appraisal) finding {
		most := min(a.options.MaxVMPL, maxVMPL)
		return finding{fmt.Sprint(a.report.VMPL), fmt.Sprintf("at most %d", most), a.report.VMPL <= most}
	}},
}

const maxVMPL = 3 // the lowest privilege level that a guest has

func policy(bit Policy, want bool) func(*appraisal) finding {
	return func(a *appraisal) finding {
		got := a.report.Policy&bit != 0
		n := bits.TrailingZeros64(uint64(bit))
		return finding{fmt.Sprintf("policy bit %d is %t", n, got), fmt.Sprintf("policy bit %d is %t", n, want), got == want}
	}
}

// guestChecks judge which guest it is, and whether the report answers this client.
var guestChecks = []check{
	{name: "measurement", waived: func(o *Options) bool { return o.AnyMeasurement && len(o.Measurements) == 0 }, judge: func(a *appraisal) finding {
		return listed(a.report.Measurement[:], slices.Contains(a.options.Measurements, a.report.Measurement), "a measurement that the options name")
	}},
	{name: "host-data", waived: func(o *Options) bool { return o.AnyHostData && o.HostData == [32]byte{} }, judge: func(a *appraisal) finding {
		return equal(a.report.HostData[:], a.options.HostData[:])
	}},
	{name: "report-data", waived: func(o *Options) bool { return o.AnyReportData && o.ReportData == [64]byte{} }, judge: func(a *appraisal) finding {
		return equal(a.report.ReportData[:], a.options.ReportData[:])
	}},
	{name: "author-key", judge: func(a *appraisal) finding {
		set := a.report.AuthorKeyDigest != [48]byte{}
		return finding{fmt.Sprintf("author key enabled: %t, digest set: %t", a.report.AuthorKeyEnabled, set), "both or neither", set == a.report.AuthorKeyEnabled}
	}},
	{name: "id-block", waived: func(o *Options) bool { return o.AnyIDBlock && o.IDBlock == IDBlock{} }, judge: func(a *appraisal) finding {
		got := IDBlock{a.report.FamilyID, a.report.ImageID, a.report.IDKeyDigest, a.report.AuthorKeyDigest}
		return finding{got.String(), a.options.IDBlock.String(), got == a.options.IDBlock}
	}},
	{name: "guest-svn", judge: func(a *appraisal) finding {
		return finding{fmt.Sprint(a.report.GuestSVN), fmt.Sprintf("at least %d", a.options.MinGuestSVN), a.report.GuestSVN >= a.options.MinGuestSVN}
	}},
}

func (b IDBlock) String() string {
	if b == (IDBlock{}) {
		return "no id block"
	}
	return fmt.Sprintf("family %x, image %x, id key %x, author key %x", b.FamilyID, b.ImageID, b.IDKeyDigest, b.AuthorKeyDigest)
}

func equal(got, want []byte) finding {
	return finding{hex.EncodeToString(got), hex.EncodeToString(want), bytes.Equal(got, want)}
}

func listed(got []byte, ok bool, want string) finding {
	return finding{hex.EncodeToString(got), want, ok}
}
