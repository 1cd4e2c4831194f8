package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/spf13/cobra"

	"chrysalis/attest"
	"chrysalis/attest/collateral"
	"chrysalis/attest/dialect"
	"chrysalis/attest/evidence"
	"chrysalis/attest/handover"
	"chrysalis/attest/release"
	"chrysalis/attest/sevsnp"
	"chrysalis/attest/tdx"
	"chrysalis/measure"
	"chrysalis/measure/config"
	"chrysalis/measure/fault"
	"chrysalis/measure/register"
)

// valueFlags add to a policy what no manifest knows: reference values of confidential platforms, the rules that go with
// them, waivers, and who signs the list of releases.
type valueFlags struct {
	tdx, snp, minTCB, waive, modules, serviceTDs, idBlocks []string
	maxCollateralAge, maxCRLAge, minTCBDate                string
	minGuestSVN                                            uint32
	minEvaluation, root                                    string
	collateral, heldBy                                     []string
	sources                                                sourceFlags

	minDriver, maxOCSPAge         string
	minVBIOS, gpuRIMs, gpuDevices []string

	signers, rebuilders         []string
	threshold, rebuildThreshold int
	maxListAge                  string
}

func (f *valueFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringArrayVar(&f.tdx, "tdx", nil, "registers as measure tdx --json prints them; once for each shape of machine")
	flags.StringArrayVar(&f.snp, "sev-snp", nil, "launch digest as measure sev-snp --json prints it; once for each shape of machine")
	flags.StringArrayVar(&f.minTCB, "min-tcb", nil,
		"lowest patch levels of a line of SEV-SNP processors, such as Genoa=bootloader:10,tee:0,snp:24,microcode:85")
	flags.StringArrayVar(&f.waive, "waive", nil, "name of a check that the client does without, such as rtmr-0 or smt")
	flags.StringArrayVar(&f.heldBy, "held-by", nil, "manifest of an earlier release that may have held a guest's secret, or a measurement of one in hexadecimal, beside the releases of the policy")
	flags.StringArrayVar(&f.modules, "mr-seam", nil, "MRSEAM of a TDX module to accept, in hexadecimal (default: any that Intel signed, by its security version)")
	flags.StringArrayVar(&f.serviceTDs, "service-td", nil, "MRSERVICETD to accept beside none, in hexadecimal")
	flags.StringVar(&f.maxCollateralAge, "max-collateral-age", "168h", "how long after its issue Intel's collateral is believed, where a release runs on TDX")
	flags.StringVar(&f.minEvaluation, "min-tcb-evaluation", "", "lowest tcbEvaluationDataNumber of collateral, where a release runs on TDX; 0: none (default: today's, out of --collateral or fetched)")
	flags.StringArrayVar(&f.collateral, "collateral", nil, "file of TDX collateral, as appraise tdx takes it, that has today's tcbEvaluationDataNumber; may stand several times")
	flags.StringVar(&f.root, "root", "", "PEM of the root under which that collateral must be signed (default: Intel's own)")
	f.sources.add(cmd)
	flags.StringVar(&f.minTCBDate, "min-tcb-date", "", "earliest tcbDate of the levels of platform, TDX module and quoting enclave, such as 2025-05-14")
	flags.StringVar(&f.maxCRLAge, "max-crl-age", "9000h", "how long after its issue AMD's revocation list, one a year, is believed, where a release runs on SEV-SNP")
	flags.StringArrayVar(&f.idBlocks, "id-block", nil, "SHA-384 of an id key whose id blocks are accepted, as IDKEY or IDKEY:AUTHORKEY in hexadecimal")
	flags.Uint32Var(&f.minGuestSVN, "min-guest-svn", 0, "lowest security version in an id block")
	flags.StringVar(&f.minDriver, "min-driver", "", "lowest version of the GPUs' driver, such as 570.124.06, where the config asks for GPUs")
	flags.StringArrayVar(&f.minVBIOS, "min-vbios", nil, "lowest firmware of a chip, such as GH100=96.00.9F.00.01; once for each chip, LS_10 being the switch")
	flags.StringArrayVar(&f.gpuDevices, "gpu", nil, "GPU or switch to accept, as verify prints it (default: any that NVIDIA vouches for)")
	flags.StringArrayVar(&f.gpuRIMs, "gpu-rim", nil, "name or tag of reference values of GPUs to accept (default: any that NVIDIA has signed)")
	flags.StringVar(&f.maxOCSPAge, "max-ocsp-age", "168h", "how long after its making an answer of NVIDIA's responder is believed, where the config asks for GPUs")
	flags.StringArrayVar(&f.signers, "signer", nil,
		"public key (file, or 64 hexadecimal digits) whose signed list says which releases may run, in place of --manifest's")
	flags.IntVar(&f.threshold, "threshold", 1, "how many signers must have signed the list, with --signer")
	flags.StringVar(&f.maxListAge, "max-list-age", "168h", "how old the list may be, with --signer")
	flags.StringArrayVar(&f.rebuilders, "rebuilder", nil, "public key whose word counts that a release was rebuilt bit for bit, with --signer")
	flags.IntVar(&f.rebuildThreshold, "rebuild-threshold", 1, "how many rebuilders must say so, with --rebuilder")
}

// apply changes the rules, which accept one release.
func (f *valueFlags) apply(ctx context.Context, rules *attest.Rules) error {
	release := &rules.Releases[0]
	for _, file := range f.tdx {
		values, err := readTDXValues(file)
		if err != nil {
			return fmt.Errorf("--tdx: %w", err)
		}
		release.TDX = append(release.TDX, values)
	}
	for _, file := range f.snp {
		var digest struct {
			LaunchDigest register.Digest384 `json:"launch_digest"`
		}
		if err := readStrict(file, &digest); err != nil {
			return fmt.Errorf("--sev-snp: %w", err)
		}
		release.SEVSNP = append(release.SEVSNP, digest.LaunchDigest)
	}
	var err error
	if rules.SEVSNP.MinTCB, err = parseTCBs(f.minTCB, rules.SEVSNP.MinTCB); err != nil {
		return err
	}
	if err := f.choose(ctx, rules); err != nil {
		return err
	}
	if err := f.gpus(rules); err != nil {
		return err
	}
	rules.Waive = append(rules.Waive, f.waive...)
	for _, text := range f.heldBy {
		measurement, err := heldBy(text)
		if err != nil {
			return fmt.Errorf("--held-by: %w", err)
		}
		rules.HeldBy = append(rules.HeldBy, measurement)
	}
	return f.list(rules)
}

// heldBy takes 64 hexadecimal digits, or the file of a manifest.
func heldBy(text string) (m register.Digest, err error) {
	if m.UnmarshalText([]byte(text)) == nil {
		return m, nil
	}
	data, err := readInput(text)
	if err != nil {
		return m, err
	}
	manifest, err := measure.DecodeManifest(data)
	if err != nil {
		return m, fmt.Errorf("%s: %w", text, err)
	}
	registers := map[string][]byte{}
	for index, value := range manifest.PCRs {
		registers[register.PCR(index)] = value[:]
	}
	return handover.Measurement(evidence.VTPM, registers)
}

// choose adds what an operator accepts by name, to the rules of the platforms that the release runs on or a list may name.
func (f *valueFlags) choose(ctx context.Context, rules *attest.Rules) (err error) {
	release := &rules.Releases[0]
	if len(release.TDX) > 0 {
		t := &rules.TDX
		t.AcceptStatus, t.MaxCollateralAge = []tdx.Status{tdx.UpToDate}, f.maxCollateralAge
		if t.MRSEAM, err = parseDigests("mr-seam", f.modules); err != nil {
			return err
		}
		if t.ServiceTDs, err = parseDigests("service-td", f.serviceTDs); err != nil {
			return err
		}
		if t.MinTCBDate, err = parseDate("min-tcb-date", f.minTCBDate); err != nil {
			return err
		}
		if t.MinTCBEvaluation, err = f.evaluation(ctx); err != nil {
			return err
		}
	}
	if len(release.SEVSNP) > 0 {
		s := &rules.SEVSNP
		s.MaxCRLAge, s.MinGuestSVN = f.maxCRLAge, f.minGuestSVN
		if s.IDBlocks, err = parseIDBlocks(f.idBlocks); err != nil {
			return err
		}
	}
	return nil
}

// gpus adds rules for GPUs where the config asks for some.
func (f *valueFlags) gpus(rules *attest.Rules) error {
	asked := slices.ContainsFunc(rules.Config.GPU, func(r config.GPURule) bool {
		gpus, err := r.GPUs() // what is no rule, the policy refuses
		return err == nil && gpus.Count > 0
	})
	given := f.minDriver != "" || len(f.minVBIOS)+len(f.gpuDevices)+len(f.gpuRIMs) > 0
	switch {
	case !asked && !given:
		return nil
	case !asked:
		return errors.New("--min-driver, --min-vbios, --gpu, --gpu-rim: the config asks for no GPUs")
	case f.minDriver == "" || len(f.minVBIOS) == 0:
		return fmt.Errorf("the config asks for %s: want --min-driver and --min-vbios, the lowest versions that are accepted", rules.Config.GPU[0])
	}
	rules.GPU = attest.GPURules{MinDriver: f.minDriver, MinVBIOS: map[string]string{}, RIMs: f.gpuRIMs, AnyRIM: len(f.gpuRIMs) == 0, Devices: f.gpuDevices,
		AnyDevice: len(f.gpuDevices) == 0, MaxOCSPAge: f.maxOCSPAge}
	for _, text := range f.minVBIOS {
		chip, version, ok := strings.Cut(text, "=")
		if !ok || chip == "" || version == "" || rules.GPU.MinVBIOS[chip] != "" {
			return fmt.Errorf("--min-vbios %q: want CHIP=VERSION, each chip once, such as GH100=96.00.9F.00.01", text)
		}
		rules.GPU.MinVBIOS[chip] = version
	}
	return nil
}

// evaluationWait is how long today's number may take to be had.
const evaluationWait = 30 * time.Second

// evaluation returns the floor for tcbEvaluationDataNumber: what was given, or today's. Without a network there must be one of the
// first two: a policy without a floor takes collateral from before a recovery for as long as it holds.
func (f *valueFlags) evaluation(ctx context.Context) (uint32, error) {
	if f.minEvaluation != "" {
		n, err := strconv.ParseUint(f.minEvaluation, 10, 32)
		if err != nil {
			return 0, fmt.Errorf("--min-tcb-evaluation %q: want a number, such as 18", f.minEvaluation)
		}
		return uint32(n), nil
	}
	fetcher, err := f.sources.fetcher()
	if err != nil {
		return 0, err
	}
	root := tdx.IntelRoot()
	if f.root != "" {
		text, err := readInput(f.root)
		if err != nil {
			return 0, err
		}
		if root, err = tdx.ParseRoot(text); err != nil {
			return 0, fmt.Errorf("reading %s: %w", f.root, err)
		}
	}
	if len(f.collateral) == 0 {
		ctx, cancel := context.WithTimeout(ctx, evaluationWait)
		defer cancel()
		fetcher.IntelRoot = root
		n, err := fetcher.TDXEvaluation(ctx)
		if err != nil {
			return 0, unavailable(fmt.Errorf("today's TDX evaluation number: %w\nchrysalis: hint: --collateral gives a file that has it, "+
				"--min-tcb-evaluation the number itself (0: no floor)", err))
		}
		return n, nil
	}
	var files [][]byte
	for _, name := range f.collateral {
		file, err := readInput(name)
		if err != nil {
			return 0, err
		}
		files = append(files, file)
	}
	sets, err := dialect.Collateral(files...)
	if err != nil {
		return 0, fmt.Errorf("--collateral: %w", err)
	}
	n, err := collateral.Evaluation(sets, root)
	if err != nil {
		return 0, fmt.Errorf("--collateral: %w", err)
	}
	return n, nil
}

// list puts signers in the place of the release.
func (f *valueFlags) list(rules *attest.Rules) (err error) {
	if len(f.signers) == 0 {
		if len(f.rebuilders) > 0 {
			return errors.New("--rebuilder without --signer: rebuilds are told by a signed list")
		}
		return nil
	}
	rules.Releases = nil
	rules.ReleaseList = attest.ListRules{Threshold: f.threshold, MaxAge: f.maxListAge}
	if rules.ReleaseList.Signers, err = readPublicKeys(f.signers); err != nil {
		return fmt.Errorf("--signer: %w", err)
	}
	if len(f.rebuilders) > 0 {
		rules.ReleaseList.RebuildThreshold = f.rebuildThreshold
		if rules.ReleaseList.Rebuilders, err = readPublicKeys(f.rebuilders); err != nil {
			return fmt.Errorf("--rebuilder: %w", err)
		}
	}
	return nil
}

// readTDXValues reads what measure tdx --json prints. A register that it does not hold is zeros: it must be waived.
func readTDXValues(file string) (release.TDXValues, error) {
	var r measure.TDXRegisters
	if err := readStrict(file, &r); err != nil {
		return release.TDXValues{}, err
	}
	values := release.TDXValues{MRTD: r.MRTD}
	for _, register := range []struct {
		from *register.Digest384
		to   *register.Digest384
	}{{r.RTMR0, &values.RTMR0}, {r.RTMR1, &values.RTMR1}, {r.RTMR2, &values.RTMR2}} {
		if register.from != nil {
			*register.to = *register.from
		}
	}
	return values, nil
}

func readStrict(file string, into any) error {
	data, err := readInput(file)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, into, json.RejectUnknownMembers(true)); err != nil {
		return fmt.Errorf("reading %s: %w", file, fault.JSON(err))
	}
	return nil
}

// parseTCBs adds what --min-tcb gives, once for each line of processors, to the levels that are there.
func parseTCBs(texts []string, levels map[sevsnp.Product]sevsnp.TCB) (map[sevsnp.Product]sevsnp.TCB, error) {
	for _, text := range texts {
		product, tcb, err := parseTCB(text)
		if err != nil {
			return nil, fmt.Errorf("--min-tcb: %w", err)
		}
		if levels == nil {
			levels = map[sevsnp.Product]sevsnp.TCB{}
		}
		if _, twice := levels[product]; twice {
			return nil, fmt.Errorf("--min-tcb: %s is given twice", product)
		}
		levels[product] = tcb
	}
	return levels, nil
}

// parseTCB reads PRODUCT=part:level,…. Every part that the product has must be named: one that is left out would be judged
// by nothing, without a word.
func parseTCB(text string) (sevsnp.Product, sevsnp.TCB, error) {
	product, levels, _ := strings.Cut(text, "=")
	var tcb sevsnp.TCB
	parts := map[string]*uint8{"fmc": &tcb.FMC, "bootloader": &tcb.Bootloader, "tee": &tcb.TEE, "snp": &tcb.SNP, "microcode": &tcb.Microcode}
	for _, level := range strings.Split(levels, ",") {
		name, number, _ := strings.Cut(level, ":")
		n, err := strconv.ParseUint(number, 10, 8)
		if parts[name] == nil || err != nil {
			return "", tcb, fmt.Errorf("%q: want PRODUCT=PART:LEVEL,… with each of the parts fmc (Turin's alone), bootloader, tee, snp, "+
				"microcode once, and levels of at most 255", text)
		}
		*parts[name] = uint8(n)
		delete(parts, name)
	}
	if sevsnp.Product(product) != sevsnp.Turin {
		if parts["fmc"] == nil {
			return "", tcb, fmt.Errorf("%q: %s has no fmc", text, product)
		}
		delete(parts, "fmc")
	}
	if len(parts) != 0 {
		return "", tcb, fmt.Errorf("%q: no level for %s", text, strings.Join(slices.Sorted(maps.Keys(parts)), ", "))
	}
	return sevsnp.Product(product), tcb, nil
}
