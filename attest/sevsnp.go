package attest

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"chrysalis/attest/check"
	"chrysalis/attest/evidence"
	"chrysalis/attest/sevsnp"
	"chrysalis/measure/config"
	"chrysalis/measure/register"
)

const (
	// waiverACPI does without the ACPI tables: nothing on SEV-SNP measures them, and the host's bytecode in them runs before
	// the guest's own programs do.
	waiverACPI = "acpi"
	// waiverHostData does without the config's hash in the report's own field. It covers a field of zeros alone.
	waiverHostData = "host-data"
)

// sevsnpWaivers are the hardenings of package sevsnp that a policy can do without, each under the name of its check.
var sevsnpWaivers = map[string]func(*sevsnp.Options){
	"smt":                  func(o *sevsnp.Options) { o.AllowSMT = true },
	"single-socket":        func(o *sevsnp.Options) { o.AllowManySockets = true },
	"cxl":                  func(o *sevsnp.Options) { o.AllowCXL = true },
	"aes-256":              func(o *sevsnp.Options) { o.AllowAES128 = true },
	"rapl":                 func(o *sevsnp.Options) { o.AllowRAPL = true },
	"ciphertext-hiding":    func(o *sevsnp.Options) { o.AllowVisibleCiphertext = true },
	"page-swap":            func(o *sevsnp.Options) { o.AllowPageSwap = true },
	"platform-info":        func(o *sevsnp.Options) { o.AllowUnknownPlatformInfo = true },
	"aliases":              func(o *sevsnp.Options) { o.AllowUncheckedAliases = true },
	"chip-masked":          func(o *sevsnp.Options) { o.AllowMaskedChip = true },
	"provisional-firmware": func(o *sevsnp.Options) { o.AllowProvisionalFirmware = true },
}

// sevsnpChecks prove that the firmware of a processor which a root certifies signed this statement and this launch.
var sevsnpChecks = []step{
	runtimeLogFormat, configFormat, noBindingCheck,
	{Name: "signature-absent", Judge: func(a *appraisal) check.Finding { return absent(a.evidence.Signature, "signature") }},
	{Name: "boot-log-absent", Judge: func(a *appraisal) check.Finding { return absent(a.evidence.BootLog, "boot log") }},
	{Name: "sev-snp", Proof: true, Judge: func(a *appraisal) check.Finding {
		e := sevsnp.Evidence{Report: a.evidence.Quote, CRL: a.evidence.Collateral}
		if len(a.evidence.Certificates) > 0 {
			e.Certificate, e.Chain = a.evidence.Certificates[0], a.evidence.Certificates[1:]
		}
		result, err := sevsnp.Verify(e, a.sevsnpOptions(), a.now, a.roots.SEVSNP)
		if err != nil {
			return refused(err)
		}
		a.guest = result
		report, chip := result.Report(), result.ChipID()
		a.machine = chip[:]
		a.registers = map[string][]byte{register.Launch: report.Measurement[:]}
		a.reference = a.policy.nearest(evidence.SEVSNP, a.registers)
		return check.Finding{OK: true, Lines: result.Lines()}
	}},
	{Name: waiverHostData, Waived: func(a *appraisal) bool {
		return a.guest.Report().HostData == [32]byte{} && a.policy.waives(waiverHostData)
	}, Judge: func(a *appraisal) check.Finding {
		got, want := a.guest.Report().HostData, config.SHA256(a.evidence.Config)
		return check.Same(got[:], want[:])
	}},
	{Name: waiverACPI, Waived: waives(waiverACPI), Judge: func(*appraisal) check.Finding {
		return check.Found("not measured", "ACPI tables that are measured", false)
	}},
	securityVersion, rebuiltCheck,
}

// sevsnpOptions says what the policy accepts of a report.
func (a *appraisal) sevsnpOptions() sevsnp.Options {
	rules := a.rules.SEVSNP
	o := sevsnp.Options{
		Facts:   a.roots.Facts,
		AnyChip: a.rules.Platforms.Any, MinTCB: rules.MinTCB, MinFirmware: rules.MinFirmware, LaunchMitigations: rules.LaunchMitigations,
		CurrentMitigations: rules.CurrentMitigations, ReportData: evidence.ReportData(a.evidence.Statement),
		HostData: config.SHA256(a.evidence.Config), MinGuestSVN: rules.MinGuestSVN,
	}
	o.MaxCRLAge, _ = time.ParseDuration(rules.MaxCRLAge) // validate has parsed it
	for _, block := range rules.IDBlocks {
		o.IDKeys = append(o.IDKeys, sevsnp.IDKeys{IDKeyDigest: block.IDKeyDigest, AuthorKeyDigest: block.AuthorKeyDigest})
	}
	for _, id := range a.rules.Platforms.SEVSNP {
		o.Chips = append(o.Chips, id)
	}
	for _, r := range a.policy.entries[evidence.SEVSNP] {
		o.Measurements = append(o.Measurements, [48]byte(r.Values[register.Launch]))
	}
	// A field of zeros is judged by host-data, which a policy can waive.
	if report, err := sevsnp.Parse(a.evidence.Quote); err == nil && report.HostData == ([32]byte{}) {
		o.HostData = [32]byte{}
	}
	for name, allow := range sevsnpWaivers {
		if a.policy.waives(name) {
			allow(&o)
		}
	}
	return o
}

// SEVSNPRules judges the machine under an SEV-SNP guest.
type SEVSNPRules struct {
	// MinTCB gives the lowest patch levels for each line of processors; a line without any is refused.
	MinTCB map[sevsnp.Product]sevsnp.TCB `json:"min_tcb"`
	// MinFirmware refuses older firmware, committed or current. Zeros: any that MinTCB accepts.
	MinFirmware sevsnp.Firmware `json:"min_firmware"`
	// LaunchMitigations and CurrentMitigations are bits that must be set in the vectors of a report of version 5.
	LaunchMitigations  uint64 `json:"launch_mitigations"`
	CurrentMitigations uint64 `json:"current_mitigations"`
	// MaxCRLAge is how long after its issue a revocation list is believed, such as "9000h": AMD issues one a year.
	MaxCRLAge string `json:"max_crl_age,omitzero"`
	// IDBlocks lists the keys whose id blocks are accepted; absent: a guest has none.
	IDBlocks []IDBlockRule `json:"id_blocks,omitzero"`
	// MinGuestSVN refuses guests whose id block gives them a lower security version.
	MinGuestSVN uint32 `json:"min_guest_svn,omitzero"`
}

// IDBlockRule accepts the id blocks of one key, by the SHA-384 of it and of the author key that signed it, zeros where none did.
type IDBlockRule struct {
	IDKeyDigest     register.Digest384 `json:"id_key_digest"`
	AuthorKeyDigest register.Digest384 `json:"author_key_digest"`
}

func (r SEVSNPRules) validate() error {
	if len(r.MinTCB) == 0 {
		return errors.New("min_tcb is empty, want the lowest patch levels of each line of processors")
	}
	for product, tcb := range r.MinTCB {
		if !slices.Contains(sevsnp.Products(), product) || tcb == (sevsnp.TCB{}) {
			return fmt.Errorf("min_tcb gives %q %s, want levels of %s", product, tcb, either(names(sevsnp.Products())))
		}
	}
	for _, block := range r.IDBlocks {
		if block.IDKeyDigest == (register.Digest384{}) {
			return errors.New("id_blocks has an id_key_digest of zeros, which is no key's")
		}
	}
	return validAge("max_crl_age", r.MaxCRLAge)
}
