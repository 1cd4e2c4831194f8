package main

import (
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"chrysalis/attest"
	"chrysalis/attest/sevsnp"
)

// snpFlags are what appraise sev-snp takes.
type snpFlags struct {
	report, cert, chain, root, crl, at string
	provisional                        bool
	maxVMPL                            uint32
}

func newAppraiseSEVSNP() *cobra.Command {
	var flags snpFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "sev-snp --report FILE --cert FILE --chain FILE --at RFC3339",
		Short: "Judge an AMD SEV-SNP attestation report",
		Long: "Judges a report of version 2 to 5 offline, at the time given: certificates up to AMD's root for Milan, Genoa or Turin, patch\n" +
			"levels against the certificate's, DEBUG, migration, privilege level. It judges the platform alone and prints what was measured;\n" +
			"sibling threads, several sockets and hosts that can't hide ciphertext are accepted and named as waived. The report is bytes or\n" +
			"their hexadecimal or base64 text; certificates are PEM or DER. Exit code 0: accepted, 1: rejected, 3: could not check.",
		Example: "  chrysalis appraise sev-snp --report report.bin --cert vcek.der --chain cert_chain.pem --at 2026-11-20T12:00:00Z\n" +
			"  chrysalis appraise sev-snp --report report.hex --cert vlek.pem --chain cert_chain.pem --crl crl.der --at 2026-11-20T12:00:00Z --json",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			at, err := time.Parse(time.RFC3339, flags.at)
			if err != nil {
				return exitError{exitUsage, fmt.Errorf("--at %q: want a time such as 2026-11-20T12:00:00Z", flags.at)}
			}
			if flags.maxVMPL > 3 {
				return exitError{exitUsage, fmt.Errorf("--max-vmpl %d: want 0 to 3", flags.maxVMPL)}
			}
			result, err := flags.appraise(at)
			if printed := snpAppraisal(result, err, flags.crl != "").print(cmd.OutOrStdout(), cmd.ErrOrStderr(), asJSON); printed != nil {
				return unavailable(printed)
			}
			switch {
			case err == nil:
				return nil
			case errors.Is(err, sevsnp.ErrRejected):
				return rejected(err)
			}
			return unavailable(err)
		},
	}
	f := cmd.Flags()
	f.StringVar(&flags.report, "report", "", "attestation report: bytes, hexadecimal or base64 text")
	f.StringVar(&flags.cert, "cert", "", "VCEK or VLEK certificate, DER or PEM")
	f.StringVar(&flags.chain, "chain", "", "ASK (or ASVK) and ARK, PEM or DER, in any order")
	f.StringVar(&flags.at, "at", "", "time of the appraisal, RFC 3339")
	f.StringVar(&flags.root, "root", "", "PEM file of the ARKs that are trusted (default: AMD's for Milan, Genoa and Turin)")
	f.StringVar(&flags.crl, "crl", "", "revocation list of the ARK, DER or PEM (default: revocation is not judged)")
	f.BoolVar(&flags.provisional, "allow-provisional-firmware", false, "accept firmware that the host has not committed to and can take back")
	f.Uint32Var(&flags.maxVMPL, "max-vmpl", 0, "lowest privilege level that is accepted, 0 to 3")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	for _, name := range []string{"report", "cert", "chain", "at"} {
		if err := cmd.MarkFlagRequired(name); err != nil {
			panic(err)
		}
	}
	return cmd
}

// appraise reads the files and judges what is in them.
func (f *snpFlags) appraise(at time.Time) (*sevsnp.Result, error) {
	roots := sevsnp.AMDRoots()
	if f.root != "" {
		ders, err := certificatesInput(f.root, "CERTIFICATE")
		if err != nil {
			return nil, err
		}
		roots = nil
		for _, der := range ders {
			root, err := x509.ParseCertificate(der)
			if err != nil {
				return nil, fmt.Errorf("reading %s: %w", f.root, err)
			}
			roots = append(roots, root)
		}
	}
	var e sevsnp.Evidence
	var err error
	if e.Report, err = binaryInput(f.report); err != nil {
		return nil, err
	}
	leaf, err := certificatesInput(f.cert, "CERTIFICATE")
	if err != nil {
		return nil, err
	}
	if e.Chain, err = certificatesInput(f.chain, "CERTIFICATE"); err != nil {
		return nil, err
	}
	// More than one certificate beside the report is one too many in the chain.
	if len(leaf) > 0 {
		e.Certificate = leaf[0]
		e.Chain = append(e.Chain, leaf[1:]...)
	}
	if f.crl != "" {
		lists, err := certificatesInput(f.crl, "X509 CRL")
		if err != nil {
			return nil, err
		}
		e.CRL = []byte{}
		for _, list := range lists {
			e.CRL = append(e.CRL, list...)
		}
	}
	return sevsnp.Verify(e, f.options(), at, roots)
}

// options judge the platform: what depends on the guest or on the processor's generation is waived.
func (f *snpFlags) options() sevsnp.Options {
	return sevsnp.Options{
		AllowProvisionalFirmware: f.provisional, MaxVMPL: f.maxVMPL, InsecureSkipCRL: f.crl == "",
		AnyChip: true, InsecureSkipTCB: true, AnyMeasurement: true, AnyHostData: true, AnyReportData: true, AnyIDBlock: true,
		AllowSMT: true, AllowManySockets: true, AllowAES128: true, AllowRAPL: true, AllowVisibleCiphertext: true, AllowPageSwap: true,
		AllowUncheckedAliases: true,
	}
}

// snpTCB is the patch levels in an appraisal. Status says whether the host can go back to older firmware.
type snpTCB struct {
	Status string `json:"status"` // committed or provisional
	sevsnp.TCBs
}

// snpPlatform is what else a report says of the machine and of how the guest was launched.
type snpPlatform struct {
	Product           sevsnp.Product `json:"product"`
	SigningKey        string         `json:"signing_key"`
	CSP               string         `json:"csp,omitempty"`
	ChipID            string         `json:"chip_id"`
	VMPL              uint32         `json:"vmpl"`
	GuestPolicy       string         `json:"guest_policy"`
	PlatformInfo      string         `json:"platform_info"`
	Firmware          string         `json:"firmware"`
	CommittedFirmware string         `json:"committed_firmware"`
}

func snpAppraisal(result *sevsnp.Result, err error, crl bool) appraisal {
	a := appraisal{Verdict: "accepted", TEE: "sev-snp", Checks: []attest.Check{}}
	var refused *sevsnp.Refused
	var checks []sevsnp.Check
	var report *sevsnp.Report
	var tcb sevsnp.TCBs
	switch {
	case err == nil:
		r := result.Report()
		report, checks, tcb = &r, result.Checks(), result.TCBs()
		a.Platform = snpPlatform{
			Product: result.Product(), SigningKey: report.Signer.String(), CSP: result.CSP(), ChipID: hex.EncodeToString(report.ChipID[:]), VMPL: report.VMPL,
			GuestPolicy: fmt.Sprintf("%#x", uint64(report.Policy)), PlatformInfo: fmt.Sprintf("%#x", uint64(report.Platform)),
			Firmware: report.Current.String(), CommittedFirmware: report.Committed.String(),
		}
		a.Weaknesses = append(a.Weaknesses, noMeasurementPolicy, "any chip and every patch level is accepted that a signing key was derived for")
		if !crl {
			a.Weaknesses = append(a.Weaknesses, "no revocation list was given: revocation was not judged")
		}
	case errors.As(err, &refused):
		a.Verdict, a.Check, checks = "rejected", refused.Failed.Name, refused.Checks()
		report, tcb = refused.Signed(), refused.TCBs()
		if errors.Is(err, sevsnp.ErrUnavailable) {
			a.Verdict = "unavailable"
		}
	default:
		a.Verdict = "unavailable"
	}
	if err != nil {
		a.Reason = err.Error()
	}
	for _, c := range checks {
		a.Checks = append(a.Checks, attest.Check{Name: c.Name, Got: c.Got, Want: c.Want, Verdict: attest.Verdict(c.Verdict)})
	}
	if report == nil {
		return a
	}
	a.TCB = snpTCB{snpStatus(report), tcb}
	debug := report.Policy&sevsnp.PolicyDebug != 0
	a.Debug, a.ReportData = &debug, hex.EncodeToString(report.ReportData[:])
	a.Measurements = map[string]string{
		"measurement": hex.EncodeToString(report.Measurement[:]), "host_data": hex.EncodeToString(report.HostData[:]),
		"family_id": hex.EncodeToString(report.FamilyID[:]), "image_id": hex.EncodeToString(report.ImageID[:]),
		"id_key_digest": hex.EncodeToString(report.IDKeyDigest[:]), "author_key_digest": hex.EncodeToString(report.AuthorKeyDigest[:]),
	}
	return a
}

func snpStatus(r *sevsnp.Report) string {
	if r.CommittedTCB != r.CurrentTCB || r.Committed != r.Current {
		return "provisional"
	}
	return "committed"
}
