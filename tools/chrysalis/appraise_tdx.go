package main

import (
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"chrysalis/attest"
	"chrysalis/attest/check"
	"chrysalis/attest/tdx"
)

// tdxFlags are appraise tdx's.
type tdxFlags struct {
	quote, collateral, at, root string
	acceptStatus                []string
	minEvaluation               uint32
	skipTCB, septVE, asJSON     bool
	modules, serviceTDs         []string
	maxAge                      time.Duration
	minDate                     string
}

func newAppraiseTDX() *cobra.Command {
	var flags tdxFlags
	cmd := &cobra.Command{
		Use:   "tdx --quote FILE --collateral FILE.json --at TIME",
		Short: "Judge an Intel TDX quote and its collateral",
		Long: "Judges a TDX quote (version 4 or 5; bytes, hexadecimal or base64) with its collateral at a time, offline, and prints the\n" +
			"measurements in it. The collateral is JSON with pck_crl, root_ca_crl (hexadecimal DER), pck_crl_issuer_chain,\n" +
			"tcb_info_issuer_chain, qe_identity_issuer_chain (PEM), tcb_info, qe_identity (the exact strings that are signed),\n" +
			"tcb_info_signature and qe_identity_signature (hexadecimal). The status converges over platform, TDX module and quoting\n" +
			"enclave; UpToDate alone is accepted unless --accept-status says otherwise. A TD under debug is always rejected.\n" +
			"Exit code 0: accepted, 1: rejected, 2: usage, 3: could not check.",
		Example: "  chrysalis appraise tdx --quote quote.bin --collateral collateral.json --at 2026-11-20T12:00:00Z\n" +
			"  chrysalis appraise tdx --quote quote.bin --collateral collateral.json --at 2026-11-20T12:00:00Z --accept-status UpToDate,SWHardeningNeeded --json\n" +
			"  chrysalis appraise tdx --quote quote.bin --at 2026-11-20T12:00:00Z --insecure-skip-tcb",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return flags.appraise(cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.StringVar(&flags.quote, "quote", "", "quote: bytes, hexadecimal or base64")
	f.StringVar(&flags.collateral, "collateral", "", "collateral in JSON")
	f.StringVar(&flags.at, "at", "", "time of the appraisal, RFC 3339")
	f.StringVar(&flags.root, "root", "", "PEM file of the root to trust (default: Intel SGX Root CA)")
	f.StringSliceVar(&flags.acceptStatus, "accept-status", nil,
		"TCB statuses to accept (default UpToDate): "+strings.Join(statusNames(), ", "))
	f.Uint32Var(&flags.minEvaluation, "min-tcb-evaluation", 0, "lowest tcbEvaluationDataNumber to accept")
	f.DurationVar(&flags.maxAge, "max-collateral-age", 0,
		"how long after their issue TCB info, QE identity and the PCK's revocation list are believed (default: as long as they hold)")
	f.StringVar(&flags.minDate, "min-tcb-date", "",
		"earliest tcbDate of the levels of platform, TDX module and quoting enclave, such as 2025-05-14 (default: any)")
	f.BoolVar(&flags.skipTCB, "insecure-skip-tcb", false,
		"accept any TCB status; without --collateral judge no revocation and no quoting enclave either")
	f.BoolVar(&flags.septVE, "insecure-allow-sept-ve", false,
		"accept a TD with SEPT_VE_DISABLE off, as Azure's are: the host can make its accesses to memory fault into its handlers")
	f.StringSliceVar(&flags.modules, "mr-seam", nil, "MRSEAM of a TDX module to accept, in hexadecimal (default: any that Intel signed)")
	f.StringSliceVar(&flags.serviceTDs, "service-td", nil, "MRSERVICETD to accept beside none, in hexadecimal")
	f.BoolVar(&flags.asJSON, "json", false, "print JSON")
	for _, name := range []string{"quote", "at"} {
		_ = cmd.MarkFlagRequired(name)
	}
	return cmd
}

func statusNames() (names []string) {
	for _, s := range tdx.Acceptable() {
		names = append(names, string(s))
	}
	return names
}

func (f *tdxFlags) appraise(out, notes io.Writer) error {
	options, at, root, err := f.parse()
	if err != nil {
		return err
	}
	var report *tdx.Result
	quote, err := readEvidence("quote", f.quote, []byte{4, 0, 2, 0}, []byte{5, 0, 2, 0})
	if err == nil {
		report, err = f.verify(quote, options, at, root)
	}
	v := tdxReport(quote, report, err)
	if f.asJSON {
		if printed := printJSON(out, v); printed != nil {
			return unavailable(printed)
		}
	} else {
		printTDX(out, notes, v)
	}
	return exitOf(err)
}

// parse reads the flags that are no evidence.
func (f *tdxFlags) parse() (options tdx.Options, at time.Time, root *x509.Certificate, err error) {
	options = tdx.Options{MinTCBEvaluation: f.minEvaluation, InsecureSkipTCB: f.skipTCB, InsecureAllowSEPTVE: f.septVE,
		MaxCollateralAge: f.maxAge}
	if f.maxAge < 0 {
		return options, at, nil, exitError{exitUsage, fmt.Errorf("--max-collateral-age %s: want a duration above zero", f.maxAge)}
	}
	if options.MinTCBDate, err = parseDate("min-tcb-date", f.minDate); err != nil {
		return options, at, nil, err
	}
	for _, list := range []struct {
		flag  string
		texts []string
		into  *[][48]byte
	}{{"mr-seam", f.modules, &options.MRSEAM}, {"service-td", f.serviceTDs, &options.ServiceTDs}} {
		digests, err := parseDigests(list.flag, list.texts)
		if err != nil {
			return options, at, nil, err
		}
		for _, d := range digests {
			*list.into = append(*list.into, d)
		}
	}
	for _, name := range f.acceptStatus {
		name = strings.TrimSpace(name)
		if !slices.Contains(tdx.Acceptable(), tdx.Status(name)) {
			return options, at, nil, exitError{exitUsage, fmt.Errorf("--accept-status %q: want some of %s", name, strings.Join(statusNames(), ", "))}
		}
		options.AcceptStatus = append(options.AcceptStatus, tdx.Status(name))
	}
	if f.collateral == "" && !f.skipTCB {
		return options, at, nil, exitError{exitUsage,
			errors.New("no --collateral: without it revocation and TCB can't be judged (--insecure-skip-tcb does without)")}
	}
	if at, err = parseAt(f.at); err != nil {
		return options, at, nil, err
	}
	if f.root == "" {
		return options, at, tdx.IntelRoot(), nil
	}
	pem, err := readInput(f.root)
	if err != nil {
		return options, at, nil, unavailable(err)
	}
	if root, err = tdx.ParseRoot(pem); err != nil {
		return options, at, nil, exitError{exitUsage, fmt.Errorf("reading %s: %w", f.root, err)}
	}
	return options, at, root, nil
}

// verify judges the quote with the collateral, where there is some.
func (f *tdxFlags) verify(quote []byte, options tdx.Options, at time.Time, root *x509.Certificate) (*tdx.Result, error) {
	var collateral *tdx.Collateral
	if f.collateral != "" {
		document, err := readInput(f.collateral)
		if err != nil {
			return nil, unreadable{checkCollateral, err}
		}
		if collateral, err = tdx.ParseCollateral(document); err != nil {
			return nil, err
		}
	}
	return tdx.Verify(quote, collateral, options, at, root)
}

// checkCollateral is the check that fails when there is no collateral to judge by.
const checkCollateral = "collateral"

func tdxReport(quote []byte, report *tdx.Result, err error) appraisalReport {
	v := appraisalReport{TEE: "tdx", Measurements: map[string]string{}}
	var refused *tdx.Refused
	var unread unreadable
	if q, err := tdx.Parse(quote); err == nil {
		debug := q.Body.Debug()
		v.Debug = &debug
	}
	if err != nil {
		v.Report = check.Refuse(err)
	}
	switch {
	case errors.As(err, &refused):
		if body, signed := refused.Body(); signed {
			v.addBody(body)
		}
		v.addTCB(refused.TCB())
		return v
	case errors.As(err, &unread):
		v.Check = unread.what
		return v
	case errors.Is(err, attest.ErrUnavailable):
		v.Check = checkCollateral
		return v
	case err != nil:
		v.Check = "collateral-format"
		return v
	}
	body, platform := report.Body(), report.Platform()
	v.addBody(&body)
	v.addTCB(report.TCB())
	v.Platform = map[string]string{
		"ppid": hex.EncodeToString(platform.PPID[:]), "fmspc": hex.EncodeToString(platform.FMSPC[:]),
		"pce_id": hex.EncodeToString(platform.PCEID[:]),
	}
	v.Report = check.Accept(report.Checks(), append(report.Weaknesses(), noMeasurementPolicy))
	return v
}

func (v *appraisalReport) addTCB(tcb tdx.TCB) {
	v.TCB = appraisedTCB{string(tcb.Status), string(tcb.Platform), string(tcb.Module), string(tcb.QE)}
}

func (v *appraisalReport) addBody(b *tdx.Body) {
	text := func(value []byte) string { return hex.EncodeToString(value) }
	v.Measurements = map[string]string{
		"mrtd": text(b.MRTD[:]), "rtmr0": text(b.RTMR[0][:]), "rtmr1": text(b.RTMR[1][:]), "rtmr2": text(b.RTMR[2][:]),
		"rtmr3":      text(b.RTMR[3][:]),
		"mrconfigid": text(b.MRCONFIGID[:]), "mrowner": text(b.MROWNER[:]), "mrownerconfig": text(b.MROWNERCONFIG[:]),
		"mrseam": text(b.MRSEAM[:]), "mrsignerseam": text(b.MRSIGNERSEAM[:]), "seam_attributes": text(b.SEAMAttributes[:]),
		"td_attributes": text(b.TDAttributes[:]), "xfam": text(b.XFAM[:]), "tee_tcb_svn": text(b.TEETCBSVN[:]),
	}
	if b.TDX15 {
		v.Measurements["tee_tcb_svn_2"], v.Measurements["mrservicetd"] = text(b.TEETCBSVN2[:]), text(b.MRSERVICETD[:])
	}
	v.ReportData = text(b.ReportData[:])
}

// printTDX writes table, measurements and verdict to out, and what an acceptance does not cover to notes.
func printTDX(out, notes io.Writer, v appraisalReport) {
	printChecks(out, v.Checks)
	if v.Verdict != check.WordAccepted {
		fmt.Fprintln(out, v.Verdict)
		if v.Debug != nil && *v.Debug {
			fmt.Fprintln(notes, "chrysalis: note: this TD is under debug: its host reads and writes its memory")
		}
		return
	}
	for _, name := range []string{"mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3", "mrconfigid", "mrowner", "mrownerconfig", "mrservicetd",
		"td_attributes"} {
		if value, ok := v.Measurements[name]; ok {
			fmt.Fprintf(out, "%-14s %s\n", name, value)
		}
	}
	fmt.Fprintf(out, "%-14s %s\n", "report_data", v.ReportData)
	fmt.Fprintf(out, "accepted: TDX, machine %s, TCB %s\n", v.Platform["ppid"], v.TCB.Status)
	for _, weakness := range v.Weaknesses {
		fmt.Fprintf(notes, "chrysalis: note: %s\n", weakness)
	}
}
