package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"

	"chrysalis/attest"
	"chrysalis/attest/release"
	"chrysalis/measure"
	"chrysalis/measure/config"
	"chrysalis/measure/fault"
	"chrysalis/measure/register"
	"chrysalis/tools/internal/guest"
)

func newPolicy() *cobra.Command {
	var manifest, configFile, engine, model, out, pcrs, tree string
	var shapes []string
	var values valueFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Make a policy from a release manifest and a config",
		Long: "Writes the strictest policy that accepts one release with one config: every register that the manifest knows is pinned,\n" +
			"every field of the config must be as it is, except who is paid. What a policy does without, it names; on a vtpm that is\n" +
			"confidentiality, and PCR 1 unless --shape says on which machine. A shape with the release's firmware for TDX allows that\n" +
			"machine as a TDX guest, up to date; --tdx and --sev-snp add what the release shows there from files. With --signer a signed\n" +
			"list says which releases may run, and verify takes it with --release-list. Where a release runs on TDX, today's evaluation number\n" +
			"of Intel's collateral is the floor: it is fetched, or read out of --collateral; without either, --min-tcb-evaluation gives it.\n" +
			"Edit the result to accept more.",
		Example: "  chrysalis policy --manifest build/release/manifest.json --shape build/guest/shape.json -o policy.json\n" +
			"  chrysalis policy --manifest build/release/manifest.json --config my-config.json -o policy.json\n" +
			"  chrysalis policy --manifest build/release/manifest.json --pcrs registers.json -o policy.json   # of measure vtpm --disk\n" +
			"  chrysalis policy --tdx tdx.json --sev-snp snp.json --waive acpi --min-tcb Genoa=bootloader:10,tee:0,snp:24,microcode:85 -o policy.json\n" +
			"  chrysalis policy --signer a.pub --signer b.pub --threshold 2 --rebuilder r.pub -o policy.json",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			data, err := os.ReadFile(manifest)
			if err != nil {
				return unavailable(err)
			}
			release, err := measure.DecodeManifest(data)
			if err != nil {
				return rejected(fmt.Errorf("reading %s: %w", manifest, err))
			}
			platform, err := platformOf(shapes, configFile)
			if err != nil {
				return err
			}
			measured, err := guest.ReadConfig(platform, configFile, engine, model)
			if err != nil {
				return exitError{exitUsage, err}
			}
			if pcrs != "" {
				if release.PCRs, err = readPCRs(pcrs); err != nil {
					return exitError{exitUsage, fmt.Errorf("--pcrs: %w", err)}
				}
			}
			rules := strictRules(release, measured)
			if _, computed := release.PCRs[1]; computed {
				rules.Waive = []string{"confidentiality"}
			}
			if len(shapes) > 0 {
				rules.Waive, rules.Releases[0].VTPM = []string{}, []register.PCRs{}
			}
			for _, file := range shapes {
				if err := pinShape(cmd.Context(), &rules, release, filepath.Dir(manifest), shapeFlags{file, tree}); err != nil {
					return err
				}
			}
			if err := values.apply(cmd.Context(), &rules); err != nil {
				if exit := (exitError{}); errors.As(err, &exit) {
					return err
				}
				return exitError{exitUsage, err}
			}
			if _, err := rules.Policy(); err != nil {
				return rejected(err)
			}
			document, err := json.Marshal(rules, json.Deterministic(true), jsontext.WithIndent("  "))
			if err != nil {
				return err
			}
			document = append(document, '\n')
			if out == "" || asJSON {
				_, err = cmd.OutOrStdout().Write(document)
				return err
			}
			return os.WriteFile(out, document, 0o644)
		},
	}
	cmd.Flags().StringVar(&manifest, "manifest", "build/release/manifest.json", "manifest of the release that may run")
	cmd.Flags().StringVar(&configFile, "config", "", "config as for up (default: the demo's)")
	cmd.Flags().StringVar(&engine, "engine", "build/volumes/engine.img", "engine volume, when the config does not name one")
	cmd.Flags().StringVar(&model, "model", "build/volumes/model.img", "model volume, when the config does not name one")
	cmd.Flags().StringArrayVar(&shapes, "shape", nil,
		"shape.json of a machine on which it may run; may stand several times (default: any vtpm, PCR 1 waived by name)")
	cmd.Flags().StringVar(&tree, "tools-tree", "build/tools-tree", "tools tree with QEMU, for --shape")
	cmd.Flags().StringVar(&pcrs, "pcrs", "", "registers as measure vtpm --json prints them, in the place of the manifest's: those of a boot disk")
	cmd.MarkFlagsMutuallyExclusive("shape", "pcrs")
	values.add(cmd)
	cmd.Flags().StringVarP(&out, "output", "o", "", "file to write (default: standard output)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the policy, which is JSON")
	return cmd
}

// platformOf returns the platform of the shapes, whose demo stands in for a config. Demos differ, so one has to be named for several
// platforms.
func platformOf(shapes []string, configFile string) (platform measure.Platform, err error) {
	for i, file := range shapes {
		s, err := guest.ReadShape(file)
		if err != nil {
			return "", unavailable(err)
		}
		if i > 0 && s.Platform != platform && configFile == "" {
			return "", exitError{exitUsage, errors.New("shapes of several platforms have no demo in common, want --config")}
		}
		platform = s.Platform
	}
	return platform, nil
}

// readPCRs reads what measure vtpm --json prints.
func readPCRs(file string) (register.PCRs, error) {
	data, err := readInput(file)
	if err != nil {
		return nil, err
	}
	var named map[string]register.Digest // repeated names are refused by the decoder
	if err := json.Unmarshal(data, &named); err != nil {
		return nil, fmt.Errorf("reading %s: %w", file, fault.JSON(err))
	}
	pcrs := register.PCRs{}
	for name, value := range named {
		register, err := strconv.ParseUint(strings.TrimPrefix(name, "pcr"), 10, 8)
		if err != nil || name != fmt.Sprintf("pcr%d", register) {
			return nil, fmt.Errorf("reading %s: register %q, want pcr0, pcr1 and so on", file, name)
		}
		pcrs[uint8(register)] = value
	}
	return pcrs, nil
}

// strictRules accepts the release with exactly the config, whoever is paid, on any machine whose TPM a root vouches for.
func strictRules(manifest measure.Manifest, m config.Measured) attest.Rules {
	accepted := attest.ExactConfig(m)
	accepted.PayoutOwner = attest.AnyPayoutOwner
	for _, price := range []*attest.Range{&accepted.Price.NanotonPerToken, &accepted.Price.PromptWeight, &accepted.Price.CachedWeight,
		&accepted.Price.CompletionWeight, &accepted.Price.ReasoningWeight} {
		price.Min = 0 // cheaper is welcome
	}
	return attest.Rules{
		Version: 1,
		Releases: []release.Release{{
			Name: manifest.Profile + " " + manifest.Root.Root.String()[:16], SecurityVersion: manifest.SecurityVersion,
			VTPM: []register.PCRs{manifest.PCRs},
		}},
		MinSecurityVersion: manifest.SecurityVersion,
		Waive:              []string{"confidentiality", "pcr-1"},
		Platforms:          attest.Platforms{Any: true},
		Config:             accepted,
	}
}
