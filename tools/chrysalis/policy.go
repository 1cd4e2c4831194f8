package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
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
	var manifest, out, pcrs, tree, accelerator string
	var volumes volumeFlags
	var shapes, platforms, configs, processors []string
	var values valueFlags
	var card cardQuestion
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Make a policy from a release manifest and a config",
		Long: "Writes the strictest policy that accepts one release with one config: every register that the manifest knows is pinned,\n" +
			"every field of the config must be as it is, except who is paid. What a policy does without, it names; on a vtpm that is\n" +
			"confidentiality, and PCR 1 unless --shape says on which machine. A shape with the release's firmware for TDX allows that\n" +
			"machine as a TDX guest, up to date; --platform takes the machines that up starts here, all platforms in one go; --tdx and --sev-snp add what the release shows there from files. With --signer a signed\n" +
			"list says which releases may run, and verify takes it with --release-list. With --model-card a signed card says which volume the model is\n" +
			"(volume card), and nobody needs its file. Where a release runs on TDX, today's evaluation number\n" +
			"of Intel's collateral is the floor: it is fetched, or read out of --collateral; without either, --min-tcb-evaluation gives it.\n" +
			"Edit the result to accept more.",
		Example: "  chrysalis policy --manifest build/release/manifest.json --shape build/guest/shape.json -o policy.json\n" +
			"  chrysalis policy --platform all --waive acpi --min-tcb Genoa=bootloader:10,tee:0,snp:24,microcode:85 -o policy.json\n" +
			"  chrysalis policy --platform tdx --accelerator kvm --processor f8060800fffbebbf -o policy.json\n" +
			"  chrysalis policy --manifest build/release/manifest.json --config my-config.json -o policy.json\n" +
			"  chrysalis policy --manifest build/release/manifest.json --pcrs registers.json -o policy.json   # of measure vtpm --disk\n" +
			"  chrysalis policy --tdx tdx.json --sev-snp snp.json --waive acpi --min-tcb Genoa=bootloader:10,tee:0,snp:24,microcode:85 -o policy.json\n" +
			"  chrysalis policy --manifest manifest.json --config config.json --model-card catalogue.jsonl --model-id tiny@v1 --card-signer a.pub -o policy.json\n" +
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
			cardModel, err := card.model(&volumes.models[0], cmd.Flags().Changed("model"))
			if err != nil {
				return err
			}
			machines, err := policyMachines(cmd.Context(), shapes, platforms, accelerator, filepath.Dir(manifest), tree)
			if err != nil {
				return err
			}
			files, err := volumes.pairs()
			if err != nil {
				return exitError{exitUsage, err}
			}
			if machines, err = ofProcessors(machines, processors); err != nil {
				return exitError{exitUsage, err}
			}
			measured, err := policyConfigs(machines, configs, files)
			if err != nil {
				return exitError{exitUsage, err}
			}
			if n := len(measured[0].Service.Models); n > 0 {
				for i := range machines {
					if machines[i], err = guest.WithModels(machines[i], n); err != nil {
						return exitError{exitUsage, err}
					}
				}
			}
			if err := cardModel.fits(measured); err != nil {
				return err
			}
			if pcrs != "" {
				if release.PCRs, err = readPCRs(pcrs); err != nil {
					return exitError{exitUsage, fmt.Errorf("--pcrs: %w", err)}
				}
			}
			rules := strictRules(release, measured[0])
			if err := sameButSealing(&rules.Config, measured); err != nil {
				return exitError{exitUsage, err}
			}
			if _, computed := release.PCRs[1]; computed {
				rules.Waive = []string{"confidentiality"}
			}
			if len(machines) > 0 {
				rules.Waive, rules.Releases[0].VTPM = []string{}, []register.PCRs{}
			}
			for _, s := range machines {
				if err := pinShape(cmd.Context(), &rules, release, filepath.Dir(manifest), s, tree); err != nil {
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
	cmd.Flags().StringArrayVar(&configs, "config", nil, "config as for up; once for each platform whose guests seal in another way (default: the demo's)")
	volumes.add(cmd, "", ", when the config does not name one: its file, or ROOT/BLOCKS")
	cmd.Flags().StringArrayVar(&shapes, "shape", nil,
		"shape.json of a machine on which it may run; may stand several times (default: any vtpm, PCR 1 waived by name)")
	cmd.Flags().StringSliceVar(&platforms, "platform", nil, "platforms whose guests may run on the machine that up starts here, in the place of shapes: "+
		"vtpm, tdx, sev-snp, or all")
	cmd.Flags().StringVar(&accelerator, "accelerator", "", "with --platform: kvm or tcg, as for up")
	cmd.Flags().StringArrayVar(&processors, "processor", nil, "processor of a TDX machine under KVM whose shape does not state it: EAX and EDX of CPUID leaf 1 as its guests "+
		"see them, 16 hexadecimal digits in the order of their bytes in memory; may stand several times, for as many kinds of machines")
	cmd.RegisterFlagCompletionFunc("platform", cobra.FixedCompletions(append([]string{"all"}, allPlatforms...), cobra.ShellCompDirectiveNoFileComp))
	cmd.Flags().StringVar(&tree, "tools-tree", "build/tools-tree", "tools tree with QEMU, for --shape")
	cmd.Flags().StringVar(&pcrs, "pcrs", "", "registers as measure vtpm --json prints them, in the place of the manifest's: those of a boot disk")
	cmd.MarkFlagsMutuallyExclusive("shape", "platform", "pcrs")
	cmd.Flags().StringVar(&card.file, "model-card", "", "card, or catalogue of cards, that says what the model's volume is, in the place of --model's file")
	cmd.Flags().StringVar(&card.id, "model-id", "", "model whose card is meant, of several, as NAME@REVISION")
	cmd.Flags().StringArrayVar(&card.signers, "card-signer", nil, "public key (file, or 64 hexadecimal digits) whose word counts about a model")
	cmd.Flags().IntVar(&card.threshold, "card-threshold", 1, "how many of them must have signed the card")
	values.add(cmd)
	cmd.Flags().StringVarP(&out, "output", "o", "", "file to write (default: standard output)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the policy, which is JSON")
	return cmd
}

// allPlatforms are the platforms of a release.
var allPlatforms = []string{platformVTPM, string(measure.TDX), string(measure.SEVSNP)}

// policyMachines are the machines of the shapes in files, or those of up on each of the platforms.
func policyMachines(ctx context.Context, files, platforms []string, accelerator, releaseDir, tree string) (all []measure.Shape, err error) {
	for _, file := range files {
		s, err := guest.ReadShape(file)
		if err != nil {
			return nil, unavailable(err)
		}
		all = append(all, s)
	}
	if slices.Equal(platforms, []string{"all"}) {
		platforms = allPlatforms
	}
	for i, p := range platforms {
		switch {
		case !slices.Contains(allPlatforms, p):
			return nil, exitError{exitUsage, fmt.Errorf("--platform is %.40q, want %s, or all", p, strings.Join(allPlatforms, ", "))}
		case slices.Contains(platforms[:i], p):
			return nil, exitError{exitUsage, fmt.Errorf("--platform: %s is given twice", p)}
		}
	}
	for _, p := range platforms {
		flags := guestFlags{tree: tree}
		g, err := flags.open()
		if err != nil {
			return nil, err
		}
		s, err := (&machineFlags{platform: p, accelerator: accelerator}).shape(ctx, g, "", releaseDir)
		if err != nil {
			return nil, unavailable(err)
		}
		all = append(all, s)
	}
	return all, nil
}

// ofProcessors returns the machines, each TDX machine that does not state its processor once for each of the processors: it is part of RTMR0.
func ofProcessors(machines []measure.Shape, processors []string) (all []measure.Shape, err error) {
	used := false
	for _, s := range machines {
		if s.Platform != measure.TDX || s.Accelerator != measure.KVM || s.Processor != "" || len(processors) == 0 {
			all = append(all, s)
			continue
		}
		used = true
		for _, s.Processor = range processors {
			if err := s.Check(); err != nil {
				return nil, fmt.Errorf("--processor: %w", err)
			}
			all = append(all, s)
		}
	}
	if len(processors) > 0 && !used {
		return nil, fmt.Errorf("--processor: no machine needs it, want one of %s under %s whose shape does not state its processor", measure.TDX, measure.KVM)
	}
	return all, nil
}

// policyConfigs reads the configs, or takes the demo of each machine's platform.
func policyConfigs(machines []measure.Shape, files []string, volumes []guest.Volumes) (all []config.Measured, err error) {
	add := func(p measure.Platform, file string) error {
		m, err := guest.ReadConfigOf(p, file, volumes)
		all = append(all, m)
		return err
	}
	for _, file := range files {
		if err := add("", file); err != nil {
			return nil, err
		}
	}
	if len(files) > 0 {
		return all, nil
	}
	if len(machines) == 0 {
		machines = []measure.Shape{{}}
	}
	for i, s := range machines {
		if !slices.ContainsFunc(machines[:i], func(t measure.Shape) bool { return t.Platform == s.Platform }) {
			if err := add(s.Platform, ""); err != nil {
				return nil, err
			}
		}
	}
	return all, nil
}

// sameButSealing lets the rules, which are the first config's, accept how the others seal, and checks that they are the same otherwise:
// each platform has its own place for a secret.
func sameButSealing(rules *attest.ConfigRules, configs []config.Measured) error {
	for i, m := range configs[1:] {
		if !slices.Contains(rules.Sealing, m.Identity.Sealing) {
			rules.Sealing = append(rules.Sealing, m.Identity.Sealing)
		}
		if s := m.Identity.Stranding; s != "" && !slices.Contains(rules.Stranding, s) {
			rules.Stranding = append(rules.Stranding, s)
		}
		m.Identity.Sealing, m.Identity.Stranding = configs[0].Identity.Sealing, configs[0].Identity.Stranding
		if !reflect.DeepEqual(m, configs[0]) {
			return fmt.Errorf("config %d is not the first but for its sealing: want a policy for each", i+2)
		}
	}
	return nil
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
