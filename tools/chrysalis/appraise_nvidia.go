package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"chrysalis/attest/check"
	"chrysalis/attest/dialect"
	"chrysalis/attest/nvidia"
)

// gpuFlags are what appraise nvidia takes.
type gpuFlags struct {
	reports, chains, rims, answers []string
	root, rimRoot, nonce, at       string
	gpus, switches                 int
	minDriver                      string
	minVBIOS, modes, architectures []string
	fetch                          bool
	sources                        sourceFlags
	skipRIM, skipRevocation        bool
	allowHold, allowMissingFWID    bool
	maxAge                         time.Duration
}

func newAppraiseNVIDIA() *cobra.Command {
	var flags gpuFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "nvidia --report FILE --chain PEM [--report FILE --chain PEM …] --nonce HEX --at RFC3339",
		Short: "Judge the attestation reports of NVIDIA GPUs and NVSwitches",
		Long: "Judges reports offline, at the time given: certificates up to NVIDIA's root, the signature over the nonce, the firmware that\n" +
			"holds the key, reference values of driver and VBIOS as SWID or CoRIM, measurement by measurement, answers of OCSP responders,\n" +
			"the mode, and how the devices of a board are linked. Each --report has its --chain, in this order; a report is bytes or their\n" +
			"hexadecimal or base64 text. A --report that is JSON is evidence as NVIDIA's tools write it, as a collection of CMW or as an\n" +
			"array, and has its chains in it. Any device, architecture, mode and version is accepted and named as waived where no flag says\n" +
			"which. Reference values and answers are needed unless --insecure-skip-rim and --insecure-skip-revocation do without; --fetch\n" +
			"and --collateral-dir bring them.\n" +
			"Exit code 0: accepted, 1: rejected, 3: could not check.",
		Example: "  chrysalis appraise nvidia --report report.bin --chain chain.pem --rim driver.xml --rim vbios.xml --ocsp device.der \\\n" +
			"    --ocsp signer.der --nonce 931d8dd0add203ac3d8b4fbde75e115278eefcdceac5b87671a748f32364dfcb --at 2026-11-20T12:00:00Z\n" +
			"  chrysalis appraise nvidia --report evidence.json --nonce any --fetch --gpus 8 --switches 4 --mode ppcie --min-driver 570.124.06",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			at, err := time.Now(), error(nil)
			if flags.at != "" || !flags.fetches() {
				if at, err = parseAt(flags.at); err != nil {
					return err
				}
			}
			roots, authorities, err := flags.roots()
			if err != nil {
				return err
			}
			var result *nvidia.Result
			evidence, err := flags.evidence(cmd.Context(), roots, authorities)
			var usage exitError
			if errors.As(err, &usage) {
				return err
			}
			if err == nil {
				options, wrong := flags.options(evidence)
				if wrong != nil {
					return wrong
				}
				result, err = nvidia.Verify(evidence, options, at, roots)
			}
			v := gpuReport(result, err)
			if asJSON {
				if printed := printJSON(cmd.OutOrStdout(), v); printed != nil {
					return unavailable(printed)
				}
			} else {
				printGPU(cmd.OutOrStdout(), cmd.ErrOrStderr(), v)
			}
			return exitOf(err)
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&flags.reports, "report", nil, "SPDM report of a device: bytes, hexadecimal or base64 text; or JSON of NVIDIA's tools")
	f.StringArrayVar(&flags.chains, "chain", nil, "PEM of the device's certificates, its firmware's first and NVIDIA's root last")
	f.StringArrayVar(&flags.rims, "rim", nil, "reference values: SWID in XML, CoRIM in CBOR, or the answer of NVIDIA's service")
	f.StringArrayVar(&flags.answers, "ocsp", nil, "answer of an OCSP responder, DER")
	f.StringVar(&flags.nonce, "nonce", "", "what the devices must have signed, 32 bytes in hexadecimal, or any")
	f.StringVar(&flags.at, "at", "", "time of the appraisal, RFC 3339 (default with --fetch and --collateral-dir: now)")
	f.StringVar(&flags.root, "root", "", "PEM of the root of devices that is trusted (default: NVIDIA's)")
	f.StringVar(&flags.rimRoot, "rim-root", "", "PEM of the root of reference values that is trusted (default: NVIDIA's)")
	f.IntVar(&flags.gpus, "gpus", 0, "how many GPUs there must be (default: those that are there, named as not judged)")
	f.IntVar(&flags.switches, "switches", 0, "how many NVSwitches there must be, with --gpus")
	f.StringVar(&flags.minDriver, "min-driver", "", "lowest driver version, such as 570.124.06")
	f.StringArrayVar(&flags.minVBIOS, "min-vbios", nil,
		"lowest VBIOS of a chip, or BIOS of a switch, as GH100=96.00.9F.00.01 or LS_10=96.10.6D.00.01")
	f.StringArrayVar(&flags.modes, "mode", nil, "confidential mode that is accepted: spt, mpt or ppcie")
	f.StringArrayVar(&flags.architectures, "architecture", nil, "architecture that is accepted: hopper or blackwell")
	f.BoolVar(&flags.fetch, "fetch", false, "fetch reference values and answers from NVIDIA's services")
	f.BoolVar(&flags.skipRIM, "insecure-skip-rim", false, "do without reference values: nothing then says which firmware and driver run")
	f.BoolVar(&flags.skipRevocation, "insecure-skip-revocation", false,
		"do without answers of responders: a key may be one that NVIDIA has revoked")
	f.BoolVar(&flags.allowHold, "allow-hold", false, "accept a certificate that is on hold")
	f.BoolVar(&flags.allowMissingFWID, "allow-missing-fwid", false,
		"accept a GPU's report without the firmware that holds its key, as drivers before 550 make them")
	f.DurationVar(&flags.maxAge, "max-ocsp-age", 0, "how long after its making an answer is believed (default: as long as it holds)")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	flags.sources.add(cmd)
	_ = cmd.MarkFlagRequired("report")
	_ = cmd.MarkFlagRequired("nonce")
	return cmd
}

func (f *gpuFlags) fetches() bool { return f.fetch || f.sources.folder != "" }

// roots are who is trusted. Certificates that are passed in may also be missing from a document's chain.
func (f *gpuFlags) roots() (roots nvidia.Roots, authorities [][]byte, err error) {
	roots = nvidia.NVIDIARoots()
	for _, of := range []struct {
		name string
		to   *[]nvidia.Root
	}{{f.root, &roots.Device}, {f.rimRoot, &roots.RIM}} {
		if of.name == "" {
			continue
		}
		ders, err := readCertificates("root", of.name, "CERTIFICATE")
		if err != nil {
			return roots, nil, unavailable(err)
		}
		*of.to = nil
		for _, der := range ders {
			root, err := x509.ParseCertificate(der)
			if err != nil {
				return roots, nil, exitError{exitUsage, fmt.Errorf("reading %s: %w", of.name, err)}
			}
			*of.to, authorities = append(*of.to, nvidia.RootOf(root)), append(authorities, der)
		}
		if len(*of.to) == 0 {
			return roots, nil, exitError{exitUsage, fmt.Errorf("reading %s: no certificate in it", of.name)}
		}
	}
	return roots, authorities, nil
}

// evidence reads the files. What they hold is for Verify to refuse.
func (f *gpuFlags) evidence(ctx context.Context, roots nvidia.Roots, authorities [][]byte) (e nvidia.Evidence, err error) {
	e.Authorities = authorities
	devices, err := readDevices(f.reports, f.chains)
	if err != nil {
		return e, err
	}
	e.GPUs, e.Switches = nvidia.Sort(devices)
	for _, name := range f.rims {
		document, err := readInput(name)
		if err != nil {
			return e, unreadable{"rim", err}
		}
		if inner, ok := dialect.RIM(document); ok {
			document = inner
		}
		e.RIMs = append(e.RIMs, document)
	}
	for _, name := range f.answers {
		answer, err := readInput(name)
		if err != nil {
			return e, unreadable{"ocsp", err}
		}
		e.OCSP = append(e.OCSP, answer)
	}
	if !f.fetches() {
		return e, nil
	}
	fetcher, err := f.sources.fetcher()
	if err != nil {
		return e, err
	}
	fetcher.NVIDIARoots = roots
	got, err := fetcher.NVIDIA(ctx, devices)
	if err != nil {
		return e, err
	}
	e.RIMs, e.OCSP = append(e.RIMs, got.RIMs...), append(e.OCSP, got.OCSP...)
	return e, nil
}

// readDevices reads reports and their chains, in pairs, and JSON that has both.
func readDevices(reports, chains []string) (devices []nvidia.Device, err error) {
	rest := chains
	for _, name := range reports {
		raw, err := readEvidence("report", name, []byte{0x11, 0xe0}, []byte("{"), []byte("["))
		if err != nil {
			return nil, err
		}
		if dialect.IsNVIDIA(raw) {
			all, _, err := dialect.NVIDIA(raw)
			if err != nil {
				return nil, malformed{"evidence-format", err}
			}
			devices = append(devices, all...)
			continue
		}
		if len(rest) == 0 {
			return nil, exitError{exitUsage, fmt.Errorf("%d --report and %d --chain: want a chain for each report that is not JSON",
				len(reports), len(chains))}
		}
		chain, err := readInput(rest[0])
		if err != nil {
			return nil, unreadable{"chain", err}
		}
		devices, rest = append(devices, nvidia.Device{Report: raw, Chain: cleanPEM(chain)}), rest[1:]
	}
	if len(rest) > 0 {
		return nil, exitError{exitUsage, fmt.Errorf("%d --chain more than --report", len(rest))}
	}
	return devices, nil
}

// cleanPEM leaves out what stands around certificates, such as the names that openssl writes. What has none is returned as it is.
func cleanPEM(text []byte) []byte {
	var clean bytes.Buffer
	for rest := text; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if err := pem.Encode(&clean, &pem.Block{Type: block.Type, Bytes: block.Bytes}); err != nil {
			return text
		}
	}
	if clean.Len() == 0 {
		return text
	}
	return clean.Bytes()
}

// options judge the devices: what no flag says is waived.
func (f *gpuFlags) options(e nvidia.Evidence) (nvidia.Options, error) {
	o := nvidia.Options{
		GPUs: f.gpus, Switches: f.switches, AnyDevice: true, AnyArchitecture: true, AnyMode: true, InsecureSkipMinimum: true, AnyRIM: true,
		InsecureSkipRIM: f.skipRIM, InsecureSkipRevocation: f.skipRevocation, AllowHold: f.allowHold, AllowMissingFWID: f.allowMissingFWID,
		MinDriver: f.minDriver, MaxOCSPAge: f.maxAge,
	}
	if f.gpus < 0 || f.switches < 0 || f.switches > 0 && f.gpus == 0 || f.maxAge < 0 {
		return o, exitError{exitUsage,
			fmt.Errorf("--gpus %d, --switches %d, --max-ocsp-age %s: want none below zero, and --gpus with --switches", f.gpus, f.switches,
				f.maxAge)}
	}
	if f.gpus == 0 {
		o.GPUs, o.Switches = max(1, len(e.GPUs)), len(e.Switches)
	}
	if f.nonce == "any" {
		o.AnyNonce = true
	} else if b, err := hex.DecodeString(f.nonce); err != nil || len(b) != len(o.Nonce) || bytes.Equal(b, o.Nonce[:]) {
		return o, exitError{exitUsage, fmt.Errorf("--nonce %q: want 32 bytes in hexadecimal, not all zero, or any", f.nonce)}
	} else {
		o.Nonce = [32]byte(b)
	}
	for _, text := range f.minVBIOS {
		chip, version, ok := strings.Cut(text, "=")
		if !ok || chip == "" || version == "" {
			return o, exitError{exitUsage, fmt.Errorf("--min-vbios %q: want one like GH100=96.00.9F.00.01", text)}
		}
		if o.MinVBIOS == nil {
			o.MinVBIOS = map[string]string{}
		}
		o.MinVBIOS[chip] = version
	}
	for _, text := range f.modes {
		mode := nvidia.Mode(text)
		if !slices.Contains([]nvidia.Mode{nvidia.ModeSPT, nvidia.ModeMPT, nvidia.ModePPCIe}, mode) {
			return o, exitError{exitUsage, fmt.Errorf("--mode %q: want spt, mpt or ppcie", text)}
		}
		o.Modes = append(o.Modes, mode)
	}
	for _, text := range f.architectures {
		architecture := nvidia.Architecture(text)
		if architecture != nvidia.Hopper && architecture != nvidia.Blackwell {
			return o, exitError{exitUsage, fmt.Errorf("--architecture %q: want hopper or blackwell", text)}
		}
		o.Architectures = append(o.Architectures, architecture)
	}
	return o, nil
}

// gpuAppraisal is appraise nvidia's JSON. What refused devices say is not proven; those that did not sign are not in it.
type gpuAppraisal struct {
	check.Report
	Outcome    nvidia.Outcome `json:"outcome"` // none found, verified, or "" for any other refusal
	Devices    []gpuDevice    `json:"devices"`
	Mismatches []gpuMismatch  `json:"mismatches"`
}

type gpuDevice struct {
	Kind         nvidia.Kind         `json:"kind"`
	Chip         string              `json:"chip"`
	Serial       string              `json:"serial"`
	Architecture nvidia.Architecture `json:"architecture,omitempty"`
	Mode         nvidia.Mode         `json:"mode,omitempty"`
	Driver       string              `json:"driver,omitempty"`
	VBIOS        string              `json:"vbios"`
	RIMs         []string            `json:"rims"`
	Compared     int                 `json:"compared"`
}

type gpuMismatch struct {
	Device string   `json:"device"`
	Index  uint8    `json:"index"`
	Got    string   `json:"got"` // "" where the report has none
	Want   []string `json:"want"`
	RIM    string   `json:"rim"`
}

func gpuReport(result *nvidia.Result, err error) *gpuAppraisal {
	v := &gpuAppraisal{Devices: []gpuDevice{}, Mismatches: []gpuMismatch{}}
	add := func(devices []nvidia.Appraised) {
		for _, d := range devices {
			out := gpuDevice{Kind: d.Kind, Chip: d.ID.Chip, Serial: d.ID.Serial, Architecture: d.Architecture, Mode: d.Claims.Mode,
				Driver: d.Claims.Driver,
				VBIOS:  d.Claims.VBIOS, RIMs: []string{}, Compared: d.Compared}
			for _, rim := range d.RIMs {
				out.RIMs = append(out.RIMs, rim.Name)
			}
			v.Devices = append(v.Devices, out)
		}
	}
	if err == nil {
		v.Outcome = result.Outcome()
		v.Report = check.Accept(result.Checks(), []string{"not judged: " + strings.Join(result.Waived(), ", "), noGuestPolicy})
		add(result.Devices())
		return v
	}
	v.Report = check.Refuse(err)
	var unread unreadable
	var wrong malformed
	var refused *nvidia.Refused
	switch {
	case errors.As(err, &unread):
		v.Check = unread.what
	case errors.As(err, &wrong):
		v.Check = wrong.check
	case errors.As(err, &refused):
		v.Outcome = refused.Outcome()
		add(refused.Devices())
		for _, m := range refused.Mismatches() {
			out := gpuMismatch{Device: m.Device, Index: m.Index, Got: hex.EncodeToString(m.Got), RIM: m.RIM}
			for _, want := range m.Want {
				out.Want = append(out.Want, hex.EncodeToString(want))
			}
			v.Mismatches = append(v.Mismatches, out)
		}
	}
	return v
}

// noGuestPolicy is said with every acceptance.
const noGuestPolicy = "the devices are judged, not the guest that they are attached to"

// printGPU writes table, devices and verdict to out, and what an acceptance does not cover to notes.
func printGPU(out, notes io.Writer, v *gpuAppraisal) {
	printChecks(out, v.Checks)
	for _, m := range v.Mismatches {
		fmt.Fprintf(out, "differs: %s, measurement %d of %s\n  got  %s\n  want %s\n", m.Device, m.Index, m.RIM, m.Got,
			strings.Join(m.Want, "\n    or "))
	}
	if v.Verdict != check.WordAccepted {
		fmt.Fprintln(out, v.Verdict)
		return
	}
	for _, d := range v.Devices {
		fmt.Fprintf(out, "%-7s %s %s, VBIOS %s", d.Kind, d.Chip, d.Serial, d.VBIOS)
		if d.Driver != "" {
			fmt.Fprintf(out, ", driver %s, mode %s", d.Driver, d.Mode)
		}
		fmt.Fprintf(out, ", %d measurements compared\n", d.Compared)
	}
	fmt.Fprintf(out, "accepted: NVIDIA, %d devices\n", len(v.Devices))
	for _, weakness := range v.Weaknesses {
		fmt.Fprintf(notes, "chrysalis: note: %s\n", weakness)
	}
}
