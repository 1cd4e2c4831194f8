package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"chrysalis/attest/check"
	"chrysalis/attest/sevsnp"
)

// snpFlags are what appraise sev-snp takes.
type snpFlags struct {
	report, cert, chain, root, crl, at string
	product                            string
	fetch                              bool
	sources                            sourceFlags
	minTCB                             []string
	idBlocks                           []string
	provisional, skipRevocation        bool
	maskedChip                         bool
	maxCRLAge                          time.Duration
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
			"sibling threads, several sockets and hosts that can't hide ciphertext are accepted and named as waived; so are patch levels without\n" +
			"--min-tcb. A revocation list is needed unless --insecure-skip-revocation says that revocation is not judged. The report is bytes or\n" +
			"their hexadecimal or base64 text, alone, with its table of certificates as Google's and Amazon's clouds hand them out, or in Azure's\n" +
			"HCL report, whose runtime data must then be what the report binds; certificates are PEM, DER or the answer of Azure's service.\n" +
			"--fetch and --collateral-dir bring what is missing; a list of the cache that refuses is asked for again once. Exit code 0: accepted, 1: rejected, 3: could not check.",
		Example: "  chrysalis appraise sev-snp --report report.bin --cert vcek.der --chain cert_chain.pem --crl crl.der --at 2026-11-20T12:00:00Z\n" +
			"  chrysalis appraise sev-snp --report report.hex --cert vlek.pem --chain cert_chain.pem --crl crl.der --at 2026-11-20T12:00:00Z \\\n" +
			"    --min-tcb Genoa=bootloader:4,tee:1,snp:22,microcode:213 --json",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			at, err := time.Now(), error(nil)
			if flags.at != "" || !flags.fetches() {
				if at, err = parseAt(flags.at); err != nil {
					return err
				}
			}
			if flags.maxVMPL > 3 {
				return exitError{exitUsage, fmt.Errorf("--max-vmpl %d: want 0 to 3", flags.maxVMPL)}
			}
			if flags.crl == "" && !flags.fetches() && !flags.skipRevocation {
				return exitError{exitUsage,
					errors.New("no --crl: without it revocation can't be judged (--fetch and --collateral-dir bring it, --insecure-skip-revocation does without)")}
			}
			options, err := flags.options()
			if err != nil {
				return err
			}
			roots, err := flags.roots()
			if err != nil {
				return err
			}
			var result *sevsnp.Result
			evidence, azure, err := flags.evidence(cmd.Context(), roots)
			var usage exitError
			if errors.As(err, &usage) {
				return err
			}
			if azure != nil {
				options.ReportData, options.AnyReportData = azure.ReportData(), false
			}
			if err == nil {
				result, err = flags.verify(cmd.Context(), evidence, options, at, roots)
			}
			v := snpReport(result, err)
			if azure != nil && err == nil {
				v.Runtime = runtimeOf(azure)
			}
			if asJSON {
				if printed := printJSON(cmd.OutOrStdout(), v); printed != nil {
					return unavailable(printed)
				}
			} else {
				printSNP(cmd.OutOrStdout(), cmd.ErrOrStderr(), v)
			}
			if err != nil {
				if raw, readErr := readEvidence("report", flags.report); readErr == nil {
					saySlip(cmd.ErrOrStderr(), "--report", raw, kindSNP)
				}
			}
			return exitOf(err)
		},
	}
	f := cmd.Flags()
	f.StringVar(&flags.report, "report", "", "attestation report: bytes, hexadecimal or base64 text")
	f.StringVar(&flags.cert, "cert", "", "VCEK or VLEK certificate, DER or PEM")
	f.StringVar(&flags.chain, "chain", "", "ASK (or ASVK) and ARK, PEM or DER, in any order")
	f.StringVar(&flags.at, "at", "", "time of the appraisal, RFC 3339 (default where certificates are fetched: now)")
	f.BoolVar(&flags.fetch, "fetch", false, "fetch the certificate, its chain and the revocation list from AMD's service")
	f.StringVar(&flags.product, "product", "", "Milan, Genoa or Turin, to fetch for reports before version 3, which do not say it")
	f.StringVar(&flags.root, "root", "", "PEM file of the ARKs that are trusted (default: AMD's for Milan, Genoa and Turin)")
	f.StringVar(&flags.crl, "crl", "", "revocation list of the ARK, DER or PEM")
	f.BoolVar(&flags.skipRevocation, "insecure-skip-revocation", false, "do without a revocation list: the key may be one that AMD has revoked")
	f.StringArrayVar(&flags.minTCB, "min-tcb", nil, "lowest patch levels to accept of a line of processors, as policy takes them: Genoa=bootloader:4,tee:1,snp:22,microcode:213")
	f.BoolVar(&flags.provisional, "allow-provisional-firmware", false, "accept firmware that the host has not committed to and can take back")
	f.StringArrayVar(&flags.idBlocks, "id-block", nil,
		"SHA-384 of an id key whose id blocks are accepted, as IDKEY or IDKEY:AUTHORKEY in hexadecimal (default: any, named as not judged)")
	f.BoolVar(&flags.maskedChip, "allow-masked-chip", false, "accept a report in which the host has masked the chip's id")
	f.DurationVar(&flags.maxCRLAge, "max-crl-age", 0, "how long after its issue a revocation list is believed (default: as long as it holds)")
	f.Uint32Var(&flags.maxVMPL, "max-vmpl", 0, "lowest privilege level that is accepted, 0 to 3")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	flags.sources.add(cmd)
	_ = cmd.MarkFlagRequired("report")
	return cmd
}

// options judge the platform: what depends on the guest or on the processor's generation is waived.
func (f *snpFlags) options() (sevsnp.Options, error) {
	o := sevsnp.Options{
		AllowProvisionalFirmware: f.provisional, MaxVMPL: f.maxVMPL, InsecureSkipCRL: f.skipRevocation,
		AnyChip: true, InsecureSkipTCB: len(f.minTCB) == 0, AnyMeasurement: true, AnyHostData: true, AnyReportData: true, AnyIDBlock: true,
		AllowSMT: true, AllowManySockets: true, AllowAES128: true, AllowRAPL: true, AllowVisibleCiphertext: true, AllowPageSwap: true,
		AllowUnknownPlatformInfo: true, AllowUncheckedAliases: true, AllowMaskedChip: f.maskedChip, MaxCRLAge: f.maxCRLAge,
	}
	if f.maxCRLAge < 0 {
		return o, exitError{exitUsage, fmt.Errorf("--max-crl-age %s: want a duration above zero", f.maxCRLAge)}
	}
	blocks, err := parseIDBlocks(f.idBlocks)
	if err != nil {
		return o, err
	}
	for _, block := range blocks {
		o.IDKeys = append(o.IDKeys, sevsnp.IDKeys{IDKeyDigest: block.IDKeyDigest, AuthorKeyDigest: block.AuthorKeyDigest})
	}
	levels, err := parseTCBs(f.minTCB, nil)
	for product, tcb := range levels {
		if !slices.Contains(sevsnp.Products(), product) || tcb == (sevsnp.TCB{}) {
			err = errors.Join(err, fmt.Errorf("--min-tcb: got %s of %q, want levels of %v, not all zero", tcb, product, sevsnp.Products()))
		}
	}
	if err != nil {
		return o, exitError{exitUsage, err}
	}
	o.MinTCB = levels
	return o, nil
}

// snpAppraisal is appraise sev-snp's JSON. Its patch levels stand in the place of the statuses, which AMD does not publish.
type snpAppraisal struct {
	appraisalReport
	TCB snpTCB `json:"tcb"`
}

// snpTCB is the patch levels in an appraisal. Status says whether the host can go back to older firmware.
type snpTCB struct {
	Status string `json:"status"` // committed or provisional; "" when the report is not signed
	sevsnp.TCBs
}

func snpReport(result *sevsnp.Result, err error) *snpAppraisal {
	v := &snpAppraisal{appraisalReport: appraisalReport{TEE: "sev-snp", Measurements: map[string]string{}}}
	if err != nil {
		v.Report = check.Refuse(err)
	}
	var unread unreadable
	if errors.As(err, &unread) {
		v.Check = unread.what
		return v
	}
	var refused *sevsnp.Refused
	if errors.As(err, &refused) {
		if report, signed := refused.Report(); report != nil {
			v.addSNP(report, refused.TCBs(), signed)
		}
		return v
	}
	var wrong malformed
	if errors.As(err, &wrong) {
		v.Check = wrong.check
	}
	if err != nil {
		return v
	}
	report, chip := result.Report(), result.ChipID()
	v.addSNP(&report, result.TCBs(), true)
	text := func(value uint64) string { return fmt.Sprintf("%#x", value) }
	v.Platform = map[string]string{
		"product": string(result.Product()), "signing_key": report.Signer.String(), "csp": result.CSP(),
		"chip_id": hex.EncodeToString(chip[:]),
		"vmpl":    fmt.Sprint(report.VMPL), "guest_svn": fmt.Sprint(report.GuestSVN), "guest_policy": text(uint64(report.Policy)),
		"platform_info":    text(uint64(report.Platform)),
		"current_firmware": report.Current.String(), "committed_firmware": report.Committed.String(),
		"launch_mitigations": text(report.LaunchMitigations), "current_mitigations": text(report.CurrentMitigations),
	}
	notes := []string{"not judged: " + strings.Join(result.Waived(), ", "), noMeasurementPolicy}
	if report.IDKeyDigest != [48]byte{} && !slices.Contains(result.Waived(), "id-block") {
		notes = append(notes, fmt.Sprintf("an id block of the key %x was accepted, whose owner says what the guest is called", report.IDKeyDigest))
	}
	v.Report = check.Accept(result.Checks(), notes)
	return v
}

// addSNP repeats what a report says; when it is not signed, its debug bit alone.
func (v *snpAppraisal) addSNP(r *sevsnp.Report, tcb sevsnp.TCBs, signed bool) {
	debug := r.Policy&sevsnp.PolicyDebug != 0
	v.Debug = &debug
	if !signed {
		return
	}
	text := func(value []byte) string { return hex.EncodeToString(value) }
	v.TCB = snpTCB{snpStatus(r), tcb}
	v.Measurements = map[string]string{
		"measurement": text(r.Measurement[:]), "host_data": text(r.HostData[:]), "family_id": text(r.FamilyID[:]), "image_id": text(r.ImageID[:]),
		"id_key_digest": text(r.IDKeyDigest[:]), "author_key_digest": text(r.AuthorKeyDigest[:]), "report_id": text(r.ReportID[:]),
		"report_id_ma": text(r.ReportIDMA[:]),
	}
	v.ReportData = text(r.ReportData[:])
}

func snpStatus(r *sevsnp.Report) string {
	if r.CommittedTCB != r.CurrentTCB || r.Committed != r.Current {
		return "provisional"
	}
	return "committed"
}

// printSNP writes table, measurements and verdict to out, and what an acceptance does not cover to notes.
func printSNP(out, notes io.Writer, v *snpAppraisal) {
	printChecks(out, v.Checks)
	if v.Verdict != check.WordAccepted {
		fmt.Fprintln(out, v.Verdict)
		if v.Debug != nil && *v.Debug {
			fmt.Fprintln(notes, "chrysalis: note: this guest is under debug: its host reads and writes its memory")
		}
		return
	}
	printRuntime(out, v.Runtime)
	for _, name := range []string{"measurement", "host_data", "family_id", "image_id", "id_key_digest", "author_key_digest"} {
		fmt.Fprintf(out, "%-18s %s\n", name, v.Measurements[name])
	}
	fmt.Fprintf(out, "%-18s %s\n", "report_data", v.ReportData)
	fmt.Fprintf(out, "accepted: SEV-SNP, %s, chip %.16s…\n", v.Platform["product"], v.Platform["chip_id"])
	for _, weakness := range v.Weaknesses {
		fmt.Fprintf(notes, "chrysalis: note: %s\n", weakness)
	}
}
