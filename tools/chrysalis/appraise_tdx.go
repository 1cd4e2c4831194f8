package main

import (
	"context"
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
	"chrysalis/attest/collateral"
	"chrysalis/attest/dialect"
	"chrysalis/attest/evidence"
	"chrysalis/attest/tdx"
)

// tdxFlags are appraise tdx's.
type tdxFlags struct {
	quote, at, root             string
	collateral                  []string
	pckChain, hcl               string
	fetch                       bool
	sources                     sourceFlags
	acceptStatus                []string
	minEvaluation               uint32
	skipTCB, septVE, asJSON     bool
	unknownXFAM, unknownEntries bool
	modules, serviceTDs         []string
	maxAge                      time.Duration
	minDate                     string
}

func newAppraiseTDX() *cobra.Command {
	var flags tdxFlags
	cmd := &cobra.Command{
		Use:   "tdx --quote FILE --collateral FILE --at TIME",
		Short: "Judge an Intel TDX quote and its collateral",
		Long: "Judges a TDX quote (version 4 or 5; bytes, hexadecimal or base64) with its collateral at a time, offline, and prints the\n" +
			"measurements in it. The collateral is JSON with pck_crl, root_ca_crl (hexadecimal DER), pck_crl_issuer_chain,\n" +
			"tcb_info_issuer_chain, qe_identity_issuer_chain (PEM), tcb_info, qe_identity (the exact strings that are signed),\n" +
			"tcb_info_signature and qe_identity_signature (hexadecimal), as dcap-qvl writes it; or Intel's platform_collaterals; or several\n" +
			"files that together are answers of Intel's service with their headers, as curl -i writes them. Without --collateral, --fetch,\n" +
			"--pccs or --collateral-dir say where it comes from. On Azure --hcl judges that the quote binds the runtime data. The status\n" +
			"converges over platform, TDX module and quoting enclave; UpToDate alone is accepted unless --accept-status says otherwise. A TD\n" +
			"under debug is always rejected.\n" +
			"Exit code 0: accepted, 1: rejected, 2: usage, 3: could not check.",
		Example: "  chrysalis appraise tdx --quote quote.bin --collateral collateral.json --at 2026-11-20T12:00:00Z\n" +
			"  chrysalis appraise tdx --quote quote.bin --collateral collateral.json --at 2026-11-20T12:00:00Z --accept-status UpToDate,SWHardeningNeeded --json\n" +
			"  chrysalis appraise tdx --quote quote.bin --at 2026-11-20T12:00:00Z --insecure-skip-tcb",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return flags.appraise(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.StringVar(&flags.quote, "quote", "", "quote: bytes, hexadecimal or base64")
	f.StringArrayVar(&flags.collateral, "collateral", nil, "file of collateral; may stand several times")
	f.BoolVar(&flags.fetch, "fetch", false, "fetch the collateral from Intel's service")
	f.StringVar(&flags.pckChain, "pck-chain", "", "PEM of the PCK, its CA and the root, for a quote that carries none")
	f.StringVar(&flags.hcl, "hcl", "", "report of Azure's host compatibility layer, whose runtime data the quote must bind")
	f.StringVar(&flags.at, "at", "", "time of the appraisal, RFC 3339 (default where collateral is fetched: now)")
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
	f.BoolVar(&flags.unknownXFAM, "allow-unknown-xfam", false, "accept extended state of the processor that this build does not know")
	f.BoolVar(&flags.unknownEntries, "allow-unknown-extension", false, "accept a PCK with entries in its SGX extension that this build does not know")
	f.StringSliceVar(&flags.modules, "mr-seam", nil, "MRSEAM of a TDX module to accept, in hexadecimal (default: any that Intel signed)")
	f.StringSliceVar(&flags.serviceTDs, "service-td", nil, "MRSERVICETD to accept beside none, in hexadecimal")
	f.BoolVar(&flags.asJSON, "json", false, "print JSON")
	flags.sources.add(cmd)
	_ = cmd.MarkFlagRequired("quote")
	return cmd
}

func statusNames() (names []string) {
	for _, s := range tdx.Acceptable() {
		names = append(names, string(s))
	}
	return names
}

func (f *tdxFlags) appraise(ctx context.Context, out, notes io.Writer) error {
	options, at, root, err := f.parse()
	if err != nil {
		return err
	}
	fetcher, err := f.sources.fetcher()
	if err != nil {
		return err
	}
	fetcher.IntelRoot = root
	var report *tdx.Result
	var azure *dialect.HCL
	quote, err := readEvidence("quote", f.quote, []byte{4, 0, 2, 0}, []byte{5, 0, 2, 0}, []byte("HCLA"))
	if err == nil && dialect.IsHCL(quote) {
		err = exitError{exitUsage, errors.New("--quote is a report of Azure's host compatibility layer: give it as --hcl, and the quote as --quote; " +
			"of SEV-SNP appraise sev-snp takes it as --report")}
		return err
	}
	if err == nil && f.hcl != "" {
		if azure, err = readHCL(f.hcl); err == nil && azure.TD == nil {
			return exitError{exitUsage, errors.New("--hcl is a report of SEV-SNP, which appraise sev-snp takes as --report")}
		}
	}
	if err == nil {
		report, err = f.verify(ctx, fetcher, quote, options, at, root)
	}
	var bound []check.Line
	if err == nil && azure != nil {
		bound, err = bindsRuntime(report.Body().ReportData, azure)
	}
	v := tdxReport(quote, report, err)
	if azure != nil && err == nil {
		v.Checks, v.Runtime = append(v.Checks, bound...), runtimeOf(azure)
	}
	if f.asJSON {
		if printed := printJSON(out, v); printed != nil {
			return unavailable(printed)
		}
	} else {
		printTDX(out, notes, v)
	}
	if err != nil {
		saySlip(notes, "--quote", quote, kindTDX)
	}
	return exitOf(err)
}

// parse reads the flags that are no evidence.
func (f *tdxFlags) parse() (options tdx.Options, at time.Time, root *x509.Certificate, err error) {
	options = tdx.Options{MinTCBEvaluation: f.minEvaluation, InsecureSkipTCB: f.skipTCB, InsecureAllowSEPTVE: f.septVE,
		MaxCollateralAge: f.maxAge, AllowUnknownXFAM: f.unknownXFAM, AllowUnknownExtension: f.unknownEntries}
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
	if len(f.collateral) == 0 && !f.fetches() && !f.skipTCB {
		return options, at, nil, exitError{exitUsage,
			errors.New("no --collateral: without it revocation and TCB can't be judged (--fetch, --pccs and --collateral-dir bring it, --insecure-skip-tcb does without)")}
	}
	if len(f.collateral) > 0 && f.fetches() {
		return options, at, nil, exitError{exitUsage, errors.New("--collateral beside --fetch, --pccs or --collateral-dir: want one of them")}
	}
	if at = time.Now(); f.at != "" || !f.fetches() {
		if at, err = parseAt(f.at); err != nil {
			return options, at, nil, err
		}
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

// fetches reports whether collateral comes from a service or a folder.
func (f *tdxFlags) fetches() bool {
	return f.fetch || f.sources.sources.PCCS != "" || f.sources.folder != ""
}

// verify judges the quote with the collateral, where there is some.
func (f *tdxFlags) verify(ctx context.Context, fetcher *collateral.Fetcher, quote []byte, options tdx.Options, at time.Time,
	root *x509.Certificate) (*tdx.Result, error) {
	parsed, err := tdx.Parse(quote)
	if err != nil {
		return tdx.Verify(quote, nil, options, at, root) // which says so
	}
	var chain []byte
	if f.pckChain != "" {
		if chain, err = readInput(f.pckChain); err != nil {
			return nil, unreadable{"pck-chain", err}
		}
	}
	switch {
	case f.fetches() && chain != nil:
		c, err := fetcher.TDXBeside(ctx, chain)
		if err != nil {
			return nil, err
		}
		return tdx.Verify(quote, c, options, at, root)
	case f.fetches():
		return f.verifyFetched(ctx, fetcher, quote, options, at, root)
	case len(f.collateral) > 0:
		c, err := f.readCollateral(parsed, chain, root)
		if err != nil {
			return nil, err
		}
		return tdx.Verify(quote, c, options, at, root)
	}
	return tdx.Verify(quote, nil, options, at, root)
}

// verifyFetched judges by what the sources have, and once more where a copy that was kept refuses.
func (f *tdxFlags) verifyFetched(ctx context.Context, fetcher *collateral.Fetcher, quote []byte, options tdx.Options, at time.Time,
	root *x509.Certificate) (*tdx.Result, error) {
	e := &evidence.Evidence{Platform: evidence.TDX, Quote: quote}
	if err := fetcher.Complete(ctx, e); err != nil {
		return nil, err
	}
	judge := func() (*tdx.Result, error) {
		c, err := tdx.ParseCollateral(e.Collateral)
		if err != nil {
			return nil, err
		}
		return tdx.Verify(quote, c, options, at, root)
	}
	result, err := judge()
	var refused *tdx.Refused
	if errors.As(err, &refused) && tdx.RestsOnCollateral(refused.Failed.Name) {
		if newer, fetched := fetcher.Again(ctx, e); newer && fetched == nil {
			return judge()
		}
	}
	return result, err
}

// readCollateral reads the files that --collateral names.
func (f *tdxFlags) readCollateral(quote *tdx.Quote, chain []byte, root *x509.Certificate) (*tdx.Collateral, error) {
	var files [][]byte
	for _, name := range f.collateral {
		file, err := readInput(name)
		if err != nil {
			return nil, unreadable{checkCollateral, err}
		}
		files = append(files, file)
	}
	sets, err := dialect.Collateral(files...)
	if err != nil {
		return nil, err
	}
	if chain != nil {
		for i := range sets {
			set := *sets[i]
			set.PCKChain, sets[i] = chain, &set
		}
	}
	return dialect.Pick(sets, quote, root)
}

// checkCollateral is the check that fails when there is no collateral to judge by.
const checkCollateral = "collateral"

func tdxReport(quote []byte, report *tdx.Result, err error) appraisalReport {
	v := appraisalReport{TEE: "tdx", Measurements: map[string]string{}}
	var refused *tdx.Refused
	var unread unreadable
	var wrong malformed
	var bound *check.Refusal
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
	case errors.As(err, &wrong):
		v.Check = wrong.check
		return v
	case errors.As(err, &bound):
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
	printRuntime(out, v.Runtime)
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
