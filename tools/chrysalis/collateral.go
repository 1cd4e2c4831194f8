package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"chrysalis/attest/collateral"
	"chrysalis/attest/dialect"
	"chrysalis/attest/nvidia"
	"chrysalis/attest/pki"
	"chrysalis/attest/sevsnp"
	"chrysalis/attest/tdx"
)

func newCollateral() *cobra.Command {
	cmd := &cobra.Command{Use: "collateral", Short: "Fetch and show what a verifier needs beside a quote or a report"}
	cmd.AddCommand(newCollateralFetch(), newCollateralShow())
	return cmd
}

func newCollateralFetch() *cobra.Command {
	var quoteFile, reportFile, product, out, root, pckChain string
	var gpuReports, gpuChains []string
	var limit time.Duration
	var asJSON bool
	var sources sourceFlags
	cmd := &cobra.Command{
		Use:   "fetch --quote FILE -o FILE | --report FILE -o DIR | --gpu-report FILE --gpu-chain PEM -o DIR",
		Short: "Fetch collateral from Intel's, AMD's or NVIDIA's services",
		Long: "For a TDX quote writes one JSON file, as appraise tdx takes it: TCB info, QE identity, revocation lists and their chains. For an\n" +
			"SEV-SNP report writes cert.der, chain.pem and crl.der into a folder, as appraise sev-snp takes them. For reports of NVIDIA's\n" +
			"devices, as appraise nvidia takes them, writes reference values and answers of responders into a folder. What came is kept in a\n" +
			"cache while it holds, and only what was signed under the vendor's root is taken. AMD's service allows about one request in ten\n" +
			"seconds. --pccs asks a caching service of the data centre, --collateral-dir reads files, --tcb-update early asks for the TCB info\n" +
			"of a recovery from the day on which it is disclosed.",
		Example: "  chrysalis collateral fetch --quote quote.bin -o collateral.json\n" +
			"  chrysalis collateral fetch --report report.bin --product Milan -o amd/",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			fetcher, err := sources.fetcher()
			if err != nil {
				return err
			}
			if root != "" {
				text, err := readInput(root)
				if err != nil {
					return unavailable(err)
				}
				chain, err := pki.ParsePEM(text, 16<<10, 1)
				if err != nil {
					return exitError{exitUsage, fmt.Errorf("reading %s: %w", root, err)}
				}
				fetcher.IntelRoot, fetcher.AMDRoots, fetcher.NVIDIARoots.RIM = chain[0], chain, []nvidia.Root{nvidia.RootOf(chain[0])}
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), limit)
			defer cancel()
			fetch := func() (any, error) { return fetchTDX(ctx, fetcher, quoteFile, pckChain, out) }
			if reportFile != "" {
				fetch = func() (any, error) { return fetchSNP(ctx, fetcher, reportFile, sevsnp.Product(product), out) }
			}
			if gpuReports != nil {
				fetch = func() (any, error) { return fetchNVIDIA(ctx, fetcher, gpuReports, gpuChains, out) }
			}
			got, err := fetch()
			if err != nil {
				return unavailable(err)
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), got)
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "chrysalis: written to %s\n", out)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&quoteFile, "quote", "", "TDX quote: bytes, hexadecimal or base64")
	f.StringVar(&pckChain, "pck-chain", "", "PEM of the PCK, its CA and the root, for a quote that carries none")
	f.StringVar(&reportFile, "report", "", "SEV-SNP report: bytes, hexadecimal or base64")
	f.StringVar(&product, "product", "", "Milan, Genoa or Turin, for reports before version 3, which do not say it")
	f.StringArrayVar(&gpuReports, "gpu-report", nil, "report of an NVIDIA device: bytes, hexadecimal or base64, or JSON of NVIDIA's tools")
	f.StringArrayVar(&gpuChains, "gpu-chain", nil, "PEM of the device's certificates, one for each report that is not JSON")
	f.StringVarP(&out, "output", "o", "", "file (TDX) or folder (SEV-SNP, NVIDIA) to write")
	f.StringVar(&root, "root", "",
		"PEM of the root under which what comes back must be signed, of NVIDIA's that of reference values (default: the vendors' own)")
	f.DurationVar(&limit, "wait", 2*time.Minute, "how long all of it may take")
	sources.add(cmd)
	f.BoolVar(&asJSON, "json", false, "print JSON")
	_ = cmd.MarkFlagRequired("output")
	cmd.MarkFlagsOneRequired("quote", "report", "gpu-report")
	cmd.MarkFlagsMutuallyExclusive("quote", "report", "gpu-report")
	return cmd
}

func fetchTDX(ctx context.Context, f *collateral.Fetcher, file, pckChain, out string) (any, error) {
	raw, err := readEvidence("quote", file, []byte{4, 0, 2, 0}, []byte{5, 0, 2, 0})
	if err != nil {
		return nil, err
	}
	quote, err := tdx.Parse(raw)
	if err != nil {
		return nil, err
	}
	chain := quote.PCKChain
	fetch := func() (*tdx.Collateral, error) { return f.TDX(ctx, quote) }
	if pckChain != "" {
		if chain, err = readInput(pckChain); err != nil {
			return nil, err
		}
		fetch = func() (*tdx.Collateral, error) { return f.TDXBeside(ctx, chain) }
	}
	c, err := fetch()
	if err != nil {
		return nil, err
	}
	encoded, err := c.Encode()
	if err != nil {
		return nil, err
	}
	fmspc, ca, err := tdx.NeedsOf(chain)
	if err != nil {
		return nil, err
	}
	return map[string]string{"fmspc": hex.EncodeToString(fmspc[:]), "ca": ca, "file": out}, os.WriteFile(out, encoded, 0o644)
}

func fetchSNP(ctx context.Context, f *collateral.Fetcher, file string, product sevsnp.Product, out string) (any, error) {
	raw, err := readInput(file)
	if err != nil {
		return nil, err
	}
	report, err := sevsnp.Parse(raw)
	if err != nil {
		return nil, err
	}
	if product == "" {
		if product, err = report.Product(); err != nil {
			return nil, fmt.Errorf("%w (give --product)", err)
		}
	}
	got, err := f.SNP(ctx, report, product)
	if err != nil {
		return nil, err
	}
	var chain []byte
	for _, der := range got.Chain {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	err = os.MkdirAll(out, 0o755)
	for name, data := range map[string][]byte{"cert.der": got.Certificate, "chain.pem": chain, "crl.der": got.CRL} {
		err = errors.Join(err, os.WriteFile(filepath.Join(out, name), data, 0o644))
	}
	return map[string]string{"product": string(product), "chip_id": hex.EncodeToString(report.ChipID[:]), "folder": out}, err
}

// fetchNVIDIA writes reference values under their names, and answers by their numbers.
func fetchNVIDIA(ctx context.Context, f *collateral.Fetcher, reports, chains []string, out string) (any, error) {
	devices, err := readDevices(reports, chains)
	if err != nil {
		return nil, err
	}
	got, err := f.NVIDIA(ctx, devices)
	if err != nil {
		return nil, err
	}
	err = os.MkdirAll(out, 0o755)
	var files []string
	write := func(name string, data []byte) {
		files = append(files, name)
		err = errors.Join(err, os.WriteFile(filepath.Join(out, name), data, 0o644))
	}
	for i, document := range got.RIMs {
		suffix := ".cbor"
		if bytes.HasPrefix(document, []byte("<")) {
			suffix = ".xml"
		}
		name := got.Names[i] + suffix
		if name != filepath.Base(name) || strings.ContainsAny(name, " \\") { // a folder's documents have names of their own
			name = fmt.Sprintf("rim-%d%s", i, suffix)
		}
		write(name, document)
	}
	for i, answer := range got.OCSP {
		write(fmt.Sprintf("ocsp-%d.der", i), answer)
	}
	return map[string]any{"folder": out, "files": files}, err
}

func newCollateralShow() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "show FILE…", Short: "Show what is in TDX collateral, and until when it holds", Args: cobra.MinimumNArgs(1),
		Long: "Shows the dates and numbers that the documents state, of collateral in any form that appraise tdx takes. Nothing is verified:\n" +
			"appraise tdx does that.",
		Example: "  chrysalis collateral show collateral.json",
		RunE: func(cmd *cobra.Command, args []string) error {
			var files [][]byte
			for _, name := range args {
				data, err := readInput(name)
				if err != nil {
					return unavailable(err)
				}
				files = append(files, data)
			}
			sets, err := dialect.Collateral(files...)
			if err != nil {
				return rejected(err)
			}
			var lines []tdx.Described
			for _, c := range sets {
				described, err := c.Describe()
				if err != nil {
					return rejected(err)
				}
				for _, line := range described { // sets out of one file share some
					if !slices.Contains(lines, line) {
						lines = append(lines, line)
					}
				}
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), lines)
			}
			for _, l := range lines {
				fmt.Fprintf(cmd.OutOrStdout(), "%-12s %s to %s  %s\n", l.Document, l.From.UTC().Format(time.RFC3339),
					l.Until.UTC().Format(time.RFC3339), l.What)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
