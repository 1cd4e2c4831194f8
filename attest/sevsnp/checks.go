package sevsnp

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha512"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"math/big"
	"math/bits"
	"slices"
	"strings"

	"chrysalis/attest/check"
	"chrysalis/attest/pki"
)

// chainChecks prove that a root vouches for the key that must have signed.
var chainChecks = []check.Step[*appraisal]{
	{Name: "report-format", Proof: true, Judge: func(a *appraisal) check.Finding {
		r, err := Parse(a.evidence.Report)
		a.report = r
		return check.Holds(err, "an attestation report of version 2 to 5")
	}},
	{Name: "certificate-format", Proof: true, Judge: func(a *appraisal) check.Finding {
		c, err := check.Prove(a.options.Facts, "sev-snp chain", func() (*chain, error) {
			// What is remembered keeps bytes of its own.
			return parseChain(bytes.Clone(a.evidence.Certificate), cloned(a.evidence.Chain))
		}, append([][]byte{a.evidence.Certificate}, a.evidence.Chain...)...)
		if err == nil {
			a.chain, a.product = c, c.product()
		}
		return check.Holds(err, "endorsement key, ASK and ARK")
	}},
	{Name: "root", Proof: true, Judge: func(a *appraisal) check.Finding {
		const want = "one of the roots that are trusted"
		got := a.chain.ark.Subject.CommonName
		if name, ark := strings.CutPrefix(got, "ARK-"); ark && a.product == "" {
			got = fmt.Sprintf("%s, of %q, %s", got, name, newest)
		}
		return check.Found(got, want, slices.ContainsFunc(a.roots, a.chain.ark.Equal))
	}},
	{Name: "ark", Proof: true, Judge: func(a *appraisal) check.Finding {
		if a.product == "" {
			return check.Found(a.chain.ark.Subject.CommonName, "ARK of Milan, Genoa or Turin", false)
		}
		err := a.authority(a.chain.ark, a.chain.ark, "ARK-"+string(a.product), -1)
		return check.Holds(err, "ARK-"+string(a.product)+", signed by itself")
	}},
	{Name: "ask", Proof: true, Judge: func(a *appraisal) check.Finding {
		name := askName(a.product, a.chain.endorsement.signer())
		return check.Holds(a.authority(a.chain.ask, a.chain.ark, name, 0), name+", signed by the ARK")
	}},
	{Name: "certificate", Proof: true, Judge: func(a *appraisal) check.Finding {
		want := "SEV-" + a.chain.endorsement.signer().String() + ", signed by " + a.chain.ask.Subject.CommonName
		return check.Holds(a.proven("endorsed", a.chain.checkEndorsed, a.chain.leaf.Raw, a.chain.ask.Raw), want)
	}},
	{Name: "ark-validity", Judge: func(a *appraisal) check.Finding { return pki.Dates(a.at, a.chain.ark) }},
	{Name: "ask-validity", Judge: func(a *appraisal) check.Finding { return pki.Dates(a.at, a.chain.ask) }},
	{Name: "certificate-validity", Judge: func(a *appraisal) check.Finding { return pki.Dates(a.at, a.chain.leaf) }},
	{Name: "crl", Unavailable: true, Waived: func(a *appraisal) bool { return a.options.InsecureSkipCRL },
		Judge: func(a *appraisal) check.Finding {
			const want = "a revocation list"
			if a.evidence.CRL == nil {
				return check.Found("none", want, false)
			}
			return check.Found(want, want, true)
		}},
	{Name: "crl-format", Proof: true, Judge: withCRL(func(a *appraisal) check.Finding {
		var err error
		a.crl, err = check.Prove(a.options.Facts, "sev-snp crl", func() (*x509.RevocationList, error) {
			return pki.ParseCRL(bytes.Clone(a.evidence.CRL), maxCRLBytes)
		}, a.evidence.CRL)
		return check.Holds(err, "a revocation list")
	})},
	{Name: "crl-signature", Proof: true, Judge: withCRL(func(a *appraisal) check.Finding {
		return check.Holds(a.proven("crl signed", func() error { return pki.CRLIssuedBy(a.crl, a.chain.ark, x509.SHA384WithRSAPSS) },
			a.crl.Raw, a.chain.ark.Raw), "a revocation list signed by the ARK")
	})},
	{Name: "crl-validity", Judge: withCRL(func(a *appraisal) check.Finding { return pki.Between(a.at, a.crl.ThisUpdate, a.crl.NextUpdate) })},
	{Name: "crl-age", Judge: withCRL(func(a *appraisal) check.Finding { return pki.Age(a.at, a.crl.ThisUpdate, a.options.MaxCRLAge) })},
	{Name: "revocation", Judge: withCRL(func(a *appraisal) check.Finding {
		const want = "no certificate of the chain revoked"
		if cert, _ := pki.Revoked(a.crl, a.chain.ark, a.chain.ask, a.chain.leaf); cert != nil {
			return check.Found(cert.Subject.CommonName+" revoked", want, false)
		}
		return check.Found(want, want, true)
	})},
}

// authority proves that issuer signed an authority of that name.
func (a *appraisal) authority(cert, issuer *x509.Certificate, name string, pathLen int) error {
	return a.proven("authority", func() error { return checkAuthority(cert, issuer, name, pathLen) }, cert.Raw, issuer.Raw, []byte(name))
}

// proven is a rule that holds for ever of the bytes that it is a rule of.
func (a *appraisal) proven(kind string, rule func() error, of ...[]byte) error {
	_, err := check.Prove(a.options.Facts, "sev-snp "+kind, func() (struct{}, error) { return struct{}{}, rule() }, of...)
	return err
}

func cloned(all [][]byte) (copies [][]byte) {
	for _, b := range all {
		copies = append(copies, bytes.Clone(b))
	}
	return copies
}

// withCRL judges only where a revocation list was given. Whether one must be is the check crl.
func withCRL(judge func(*appraisal) check.Finding) func(*appraisal) check.Finding {
	return func(a *appraisal) check.Finding {
		if a.evidence.CRL == nil {
			return check.Found("no list given", "no list given", true)
		}
		return judge(a)
	}
}

// reportChecks prove that this key signed the report, and that key and report speak of one chip.
var reportChecks = []check.Step[*appraisal]{
	{Name: "signing-key", Proof: true, Judge: func(a *appraisal) check.Finding {
		got, want := a.report.Signer, a.chain.endorsement.signer()
		return check.Found(got.String(), want.String()+", as the certificate", got == want)
	}},
	{Name: "signature", Proof: true, Judge: func(a *appraisal) check.Finding {
		const want = "a signature by the endorsement key"
		r := a.report
		digest := sha512.Sum384(a.evidence.Report[:signatureOffset])
		key := a.chain.leaf.PublicKey.(*ecdsa.PublicKey)
		a.signed = ecdsa.Verify(key, digest[:], new(big.Int).SetBytes(r.R[:]), new(big.Int).SetBytes(r.S[:]))
		if !a.signed {
			return check.Found("a signature that does not verify", want, false)
		}
		return check.Found(want, want, true)
	}},
	{Name: "mask-chip-key", Judge: func(a *appraisal) check.Finding {
		// With the chip's key masked the firmware can only sign by a VLEK.
		got := a.report.MaskChipKey && a.report.Signer == SignerVCEK
		return check.Found(fmt.Sprintf("masked: %t", got), "not masked, where a VCEK signs", !got)
	}},
	{Name: "product-line", Judge: func(a *appraisal) check.Finding {
		const want = "a line of processors that this build knows"
		if id := a.report.CPUID; a.report.Version >= cpuidVersion && productOf(id) == "" {
			return check.Found(fmt.Sprintf("family %#x, model %#x, %s", id.Family, id.Model, newest), want, false)
		}
		return check.Found(want, want, true)
	}},
	{Name: "product", Judge: func(a *appraisal) check.Finding {
		want := string(a.product) + ", as the ARK"
		if named := a.chain.endorsement.product; named != a.product {
			return check.Found(string(named)+" in the certificate", want, false)
		}
		if p := productOf(a.report.CPUID); a.report.Version >= cpuidVersion && p != "" && p != a.product {
			return check.Found(fmt.Sprintf("a processor of %s, family %#x, model %#x", p, a.report.CPUID.Family, a.report.CPUID.Model), want, false)
		}
		return check.Found(string(a.product), want, true)
	}},
	{Name: "chip-masked", Waived: func(a *appraisal) bool { return a.options.AllowMaskedChip }, Judge: func(a *appraisal) check.Finding {
		masked := a.report.ChipID == [64]byte{}
		return check.Found(fmt.Sprintf("masked: %t", masked), "a report that names its chip", !masked)
	}},
	{Name: "chip", Judge: func(a *appraisal) check.Finding {
		e := a.chain.endorsement
		if e.signer() == SignerVLEK {
			return check.Found("a VLEK of "+e.csp, "the chip of a VCEK, or any for a VLEK", true)
		}
		want := e.chipID()
		if a.report.ChipID == [64]byte{} {
			return check.Found("masked, and a certificate of "+hex.EncodeToString(want[:]), "the chip of the VCEK, where one is named", true)
		}
		return check.Same(a.report.ChipID[:], want[:])
	}},
	{Name: "chip-list", Waived: func(a *appraisal) bool { return a.options.AnyChip && len(a.options.Chips) == 0 },
		Judge: func(a *appraisal) check.Finding {
			id := a.chipID()
			return listed(id[:], slices.Contains(a.options.Chips, id) && id != [64]byte{}, "a chip that the options name")
		}},
}

// chipID returns the chip that the report names, or its certificate where it is masked: zeros where a VLEK signs it then.
func (a *appraisal) chipID() [64]byte {
	if a.report.ChipID == [64]byte{} {
		return a.chain.endorsement.chipID()
	}
	return a.report.ChipID
}

// tcbChecks judge patch levels. The reported one is believed because the key was derived for it; the others because the
// report is signed.
var tcbChecks = []check.Step[*appraisal]{
	{Name: "tcb-format", Proof: true, Judge: func(a *appraisal) check.Finding {
		var err error
		a.tcb, err = TCBsOf(a.report, a.product)
		return check.Holds(err, "patch levels of "+string(a.product))
	}},
	{Name: "tcb-certificate", Judge: func(a *appraisal) check.Finding {
		want := a.chain.endorsement.tcb
		got := a.tcb.Reported
		return check.Saying(got == want, func() (string, string) { return got.String(), want.String() + ", as the certificate" })
	}},
	{Name: "tcb-reported", Judge: func(a *appraisal) check.Finding {
		// AMD's order is reported, committed, current; the last two are compared below.
		got, want := a.tcb.Reported, a.tcb.Committed
		return check.Saying(a.tcb.Reported.AtMost(a.tcb.Committed), func() (string, string) { return got.String(), "at most the committed " + want.String() })
	}},
	{Name: "tcb-launch", Judge: func(a *appraisal) check.Finding {
		got, want := a.tcb.Launch, a.tcb.Current
		return check.Saying(a.tcb.Launch.AtMost(a.tcb.Current), func() (string, string) { return got.String(), "at most the current " + want.String() })
	}},
	{Name: "tcb-committed", Judge: func(a *appraisal) check.Finding {
		got, want := a.tcb.Committed, a.tcb.Current
		return check.Saying(a.tcb.Committed.AtMost(a.tcb.Current), func() (string, string) { return got.String(), "at most the current " + want.String() })
	}},
	{Name: "firmware-committed", Judge: func(a *appraisal) check.Finding {
		r := a.report
		got, want := r.Committed, r.Current
		return check.Saying(!r.Current.less(r.Committed), func() (string, string) { return got.String(), "at most the current " + want.String() })
	}},
	{Name: "provisional-tcb", Waived: func(a *appraisal) bool { return a.options.AllowProvisionalFirmware },
		Judge: func(a *appraisal) check.Finding {
			got, want := a.tcb.Committed, a.tcb.Current
			return check.Saying(a.tcb.Committed == a.tcb.Current, func() (string, string) { return got.String(), "the current " + want.String() })
		}},
	{Name: "provisional-firmware", Waived: func(a *appraisal) bool { return a.options.AllowProvisionalFirmware },
		Judge: func(a *appraisal) check.Finding {
			got, want := a.report.Committed, a.report.Current
			return check.Saying(a.report.Committed == a.report.Current, func() (string, string) { return got.String(), "the current " + want.String() })
		}},
	{Name: "tcb-minimum", Waived: func(a *appraisal) bool { return a.options.InsecureSkipTCB && len(a.options.MinTCB) == 0 },
		Judge: func(a *appraisal) check.Finding {
			got, want := a.tcb.lowest(), a.options.MinTCB[a.product]
			if want == (TCB{}) {
				return check.Found(got.String(), "a minimum for "+string(a.product)+", which the options do not give", false)
			}
			f := check.Saying(want.AtMost(got), func() (string, string) { return got.String(), "at least " + want.String() })
			if !f.OK {
				f.Shortfalls = a.tcb.shortfalls(want)
			}
			return f
		}},
	{Name: "firmware-minimum", Judge: func(a *appraisal) check.Finding {
		got := a.report.Committed
		if a.report.Current.less(got) {
			got = a.report.Current
		}
		least := a.options.MinFirmware
		return check.Saying(!got.less(least), func() (string, string) { return got.String(), "at least " + least.String() })
	}},
	{Name: "launch-mitigations", Judge: func(a *appraisal) check.Finding {
		return vector(a.report.LaunchMitigations, a.options.LaunchMitigations)
	}},
	{Name: "current-mitigations", Judge: func(a *appraisal) check.Finding {
		return vector(a.report.CurrentMitigations, a.options.CurrentMitigations)
	}},
}

func vector(got, want uint64) check.Finding {
	return check.Saying(got&want == want, func() (string, string) { return fmt.Sprintf("%#x", got), fmt.Sprintf("the bits %#x", want) })
}

// policyChecks judge what the guest's owner allowed the host, and how the machine was set up.
var policyChecks = []check.Step[*appraisal]{
	{Name: "debug", Judge: policy(PolicyDebug, false)}, // no option: the host reads such a guest's memory
	{Name: "migration", Waived: func(a *appraisal) bool { return a.options.AllowMigrationAgent }, Judge: policy(PolicyMigrationAgent, false)},
	{Name: "migration-agent", Waived: func(a *appraisal) bool { return a.options.AllowMigrationAgent },
		Judge: func(a *appraisal) check.Finding {
			return check.Same(a.report.ReportIDMA[:], noAgent[:])
		}},
	{Name: "smt", Waived: func(a *appraisal) bool { return a.options.AllowSMT }, Judge: policy(PolicySMT, false)},
	{Name: "single-socket", Waived: func(a *appraisal) bool { return a.options.AllowManySockets }, Judge: policy(PolicySingleSocket, true)},
	{Name: "cxl", Waived: func(a *appraisal) bool { return a.options.AllowCXL }, Judge: policy(PolicyCXL, false)},
	{Name: "aes-256", Waived: func(a *appraisal) bool { return a.options.AllowAES128 }, Judge: policy(PolicyAES256, true)},
	{Name: "rapl", Waived: func(a *appraisal) bool { return a.options.AllowRAPL }, Judge: policy(PolicyNoRAPL, true)},
	{Name: "ciphertext-hiding", Waived: func(a *appraisal) bool { return a.options.AllowVisibleCiphertext },
		Judge: policy(PolicyCiphertextHidden, true)},
	{Name: "page-swap", Waived: func(a *appraisal) bool { return a.options.AllowPageSwap }, Judge: policy(PolicyNoPageSwap, true)},
	{Name: "abi", Judge: func(a *appraisal) check.Finding {
		major, minor := a.report.Policy.ABI()
		want := [2]uint8{a.options.MinABIMajor, a.options.MinABIMinor}
		got := [2]uint8{major, minor}
		return check.Saying(bytes.Compare(got[:], want[:]) >= 0, func() (string, string) {
			return fmt.Sprintf("%d.%d", major, minor), fmt.Sprintf("at least %d.%d", want[0], want[1])
		})
	}},
	{Name: "platform-info", Waived: func(a *appraisal) bool { return a.options.AllowUnknownPlatformInfo },
		Judge: func(a *appraisal) check.Finding {
			unknown := a.report.Platform &^ platformKnown
			return check.Saying(unknown == 0, func() (string, string) { return fmt.Sprintf("unknown bits %#x", uint64(unknown)), "unknown bits 0x0" })
		}},
	{Name: "aliases", Waived: func(a *appraisal) bool { return a.options.AllowUncheckedAliases }, Judge: func(a *appraisal) check.Finding {
		ok := a.report.Platform&PlatformAliasesChecked != 0
		return check.Found(fmt.Sprintf("checked: %t", ok), "memory checked for aliases", ok)
	}},
	{Name: "vmpl", Judge: func(a *appraisal) check.Finding {
		most := min(a.options.MaxVMPL, maxVMPL)
		return check.Found(fmt.Sprint(a.report.VMPL), fmt.Sprintf("at most %d", most), a.report.VMPL <= most)
	}},
}

// noAgent is the id of a migration agent that is not there.
var noAgent = [32]byte(bytes.Repeat([]byte{0xff}, 32))

const maxVMPL = 3 // the lowest privilege level that a guest has

func policy(bit Policy, want bool) func(*appraisal) check.Finding {
	return func(a *appraisal) check.Finding {
		got := a.report.Policy&bit != 0
		return check.Saying(got == want, func() (string, string) {
			n := bits.TrailingZeros64(uint64(bit))
			return fmt.Sprintf("policy bit %d is %t", n, got), fmt.Sprintf("policy bit %d is %t", n, want)
		})
	}
}

// guestChecks judge which guest it is, and whether the report answers this client.
var guestChecks = []check.Step[*appraisal]{
	{Name: "measurement", Waived: func(a *appraisal) bool { return a.options.AnyMeasurement && len(a.options.Measurements) == 0 },
		Judge: func(a *appraisal) check.Finding {
			return listed(a.report.Measurement[:], slices.Contains(a.options.Measurements, a.report.Measurement),
				"a measurement that the options name")
		}},
	{Name: "host-data", Waived: func(a *appraisal) bool { return a.options.AnyHostData && a.options.HostData == [32]byte{} },
		Judge: func(a *appraisal) check.Finding {
			return check.Same(a.report.HostData[:], a.options.HostData[:])
		}},
	{Name: "report-data", Waived: func(a *appraisal) bool { return a.options.AnyReportData && a.options.ReportData == [64]byte{} },
		Judge: func(a *appraisal) check.Finding {
			return check.Same(a.report.ReportData[:], a.options.ReportData[:])
		}},
	{Name: "author-key", Judge: func(a *appraisal) check.Finding {
		set := a.report.AuthorKeyDigest != [48]byte{}
		return check.Found(fmt.Sprintf("author key enabled: %t, digest set: %t", a.report.AuthorKeyEnabled, set), "both or neither",
			set == a.report.AuthorKeyEnabled)
	}},
	{Name: "id-block", Waived: func(a *appraisal) bool {
		return a.options.AnyIDBlock && a.options.IDBlock == IDBlock{} && len(a.options.IDKeys) == 0
	},
		Judge: func(a *appraisal) check.Finding {
			got := IDBlock{a.report.FamilyID, a.report.ImageID, a.report.IDKeyDigest, a.report.AuthorKeyDigest}
			// No key has a digest of zeros: without an id block there are none to list.
			listed := got.IDKeyDigest != [48]byte{} && slices.Contains(a.options.IDKeys, IDKeys{got.IDKeyDigest, got.AuthorKeyDigest})
			return check.Saying(got == a.options.IDBlock || listed, func() (string, string) {
				want := a.options.IDBlock.String()
				for _, keys := range a.options.IDKeys {
					want += fmt.Sprintf(", or one of the id key %x and the author key %x", keys.IDKeyDigest, keys.AuthorKeyDigest)
				}
				return got.String(), want
			})
		}},
	{Name: "guest-svn", Judge: func(a *appraisal) check.Finding {
		got, least := a.report.GuestSVN, a.options.MinGuestSVN
		return check.Saying(got >= least, func() (string, string) { return fmt.Sprint(got), fmt.Sprintf("at least %d", least) })
	}},
}

func (b IDBlock) String() string {
	if b == (IDBlock{}) {
		return "no id block"
	}
	return fmt.Sprintf("family %x, image %x, id key %x, author key %x", b.FamilyID, b.ImageID, b.IDKeyDigest, b.AuthorKeyDigest)
}

func listed(got []byte, ok bool, want string) check.Finding {
	return check.Saying(ok, func() (string, string) { return hex.EncodeToString(got), want })
}
