package main

import (
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"chrysalis/measure"
	"chrysalis/measure/config"
	"chrysalis/runtime/role"
	"chrysalis/tools/internal/guest"
)

func newConfig() *cobra.Command {
	group := &cobra.Command{Use: "config", Short: "Write, check and show what a guest computes, for whom, and for how much"}
	group.AddCommand(newConfigInit(), newConfigCheck(), newConfigShow())
	return group
}

func newConfigInit() *cobra.Command {
	var platform, out string
	var e examples
	var asJSON bool
	cmd := &cobra.Command{
		Use: "init -o FILE", Short: "Write a config with comments, to be edited", Args: cobra.NoArgs,
		Long: "Writes a config that up takes and config check accepts, over the model's volume, with a comment at each value. The addresses are those\n" +
			"of the demonstration's local chain, and belong to nobody. Lines that begin with // are comments; a guest never sees them.",
		Example: "  chrysalis config init -o config.json\n  chrysalis config init --model model.img --model-name my-model --price 30 --slots 4 --context 4096 -o config.json\n" +
			"  chrysalis config init --model a.img --model b.img -o two.json   # a guest of two models",
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := platformOf(platform)
			if err != nil {
				return exitError{exitUsage, err}
			}
			if n := len(e.names); n > 0 && n != len(e.models) {
				return exitError{exitUsage, fmt.Errorf("--model-name is given %d times and --model %d times, want a name for each, or none", n, len(e.models))}
			}
			if err := e.look(); err != nil {
				return unavailable(err)
			}
			text, err := e.write(p)
			if err != nil {
				return exitError{exitUsage, err}
			}
			f, err := os.OpenFile(out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
			if err != nil {
				return unavailable(err)
			}
			_, err = io.WriteString(f, text)
			if err := errors.Join(err, f.Close()); err != nil {
				return unavailable(err)
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), map[string]any{"file": out})
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "chrysalis: written to %s\nchrysalis: hint: edit it, then: chrysalis config check %s\n", out, out)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&platform, "platform", platformVTPM, "platform of the guest: vtpm, tdx or sev-snp")
	f.StringArrayVar(&e.models, "model", []string{"build/volumes/model.img"}, "model volume: its first file of weights is named to the engine; of several models once for each")
	f.StringArrayVar(&e.names, "model-name", nil, "name that clients ask for, of several models once for each (default: the file's)")
	f.Uint64Var(&e.price, "price", 20, "nanoton a token; 0 charges nothing")
	f.Uint32Var(&e.slots, "slots", 2, "requests that are computed at a time")
	f.Uint32Var(&e.context, "context", 1024, "tokens of prompt and answer together")
	f.StringVarP(&out, "output", "o", "", "file to write, which must not be there")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	_ = cmd.MarkFlagRequired("output")
	cmd.RegisterFlagCompletionFunc("platform", cobra.FixedCompletions(allPlatforms, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// platformOf returns the platform of that name.
func platformOf(name string) (measure.Platform, error) {
	if !slices.Contains(allPlatforms, name) {
		return "", fmt.Errorf("--platform is %.40q, want %s", name, strings.Join(allPlatforms, ", "))
	}
	if name == platformVTPM {
		return "", nil
	}
	return measure.Platform(name), nil
}

// examples is what a config is written of.
type examples struct {
	models, names  []string
	price          uint64
	slots, context uint32 // of each model
	all            []example
}

// example is one model of it.
type example struct {
	model, name string
	file        string // of the weights, in the volume
	bytes       uint64 // of the volume
}

// look finds the weights of each model.
func (e *examples) look() error {
	e.all = nil
	for i, model := range e.models {
		one := example{model: model}
		if len(e.names) > 0 {
			one.name = e.names[i]
		}
		if err := one.look(); err != nil {
			return err
		}
		e.all = append(e.all, one)
	}
	return nil
}

// look finds the weights in the model's volume.
func (e *example) look() error {
	v, err := guest.VolumeRef(e.model)
	if err != nil {
		return fmt.Errorf("looking for the model: %w (--model names its volume)", err)
	}
	e.bytes = v.Blocks * 4096
	_, root, err := inVolume(e.model, ".")
	if err != nil {
		return err
	}
	for name := range strings.SplitSeq(root, ", ") {
		if strings.HasSuffix(name, ".gguf") {
			e.file = name
			e.name = cmp.Or(e.name, strings.TrimSuffix(name, ".gguf"))
			return nil
		}
	}
	return fmt.Errorf("%s has %s, want a file of weights that ends in .gguf", e.model, root)
}

// write returns the config as JSON with comments, for guests of a platform.
func (e *examples) write(p measure.Platform) (string, error) {
	if e.slots == 0 || e.context < 2 || uint64(e.slots)*uint64(e.context) > 1<<31 {
		return "", fmt.Errorf("%d slots of %d tokens, want one slot and two tokens at least, and 2^31 tokens together at most", e.slots, e.context)
	}
	m := guest.DemoConfigOn(p)
	m.Service.Limits.Concurrent, m.Service.Limits.ContextTokens, m.Service.Limits.AnswerTokens = e.slots, e.context, min(512, e.context/2)
	m.Service.Limits.RequestBytes = min(max(m.Service.Limits.RequestBytes, 16*e.context), 16<<20)
	m.Service.Price.NanotonPerToken = e.price
	if e.price == 0 {
		m.Service.Price.Payment, m.Identity.Stranding = config.PayNothing, ""
	}
	var served []config.Served
	for _, one := range e.all {
		s := config.Served{Engine: m.Service.Engine, Model: config.Model{Name: one.name}, Limits: m.Service.Limits}
		s.Engine.Argv = slices.Clone(s.Engine.Argv)
		s.Engine.MemoryBytes = max(s.Engine.MemoryBytes, one.bytes+256<<20)
		for i, word := range s.Engine.Argv {
			switch word {
			case "-m":
				s.Engine.Argv[i+1] = role.EngineModel + "/" + one.file
			case "-np":
				s.Engine.Argv[i+1] = fmt.Sprint(e.slots)
			case "-c":
				s.Engine.Argv[i+1] = fmt.Sprint(e.slots * e.context)
			}
		}
		served = append(served, s)
	}
	m.Service.Engine, m.Service.Model, m.Service.Limits = served[0].Engine, served[0].Model, served[0].Limits
	if len(served) > 1 {
		m.Service.Engine, m.Service.Model, m.Service.Limits, m.Service.Models = config.Engine{}, config.Model{}, config.Limits{}, served
	}
	text, err := guest.WriteConfig(m)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString("// What a guest computes, for whom, and for how much. It is measured: clients see each value, and their policy judges it.\n" +
		"// Lines like this one are comments. chrysalis config check says whether everything fits.\n")
	for line := range strings.Lines(text) {
		key, _, _ := strings.Cut(strings.TrimSpace(line), ":")
		if comment := comments[strings.Trim(key, `"`)]; comment != "" {
			b.WriteString(line[:len(line)-len(strings.TrimLeft(line, " "))] + "// " + comment + "\n")
		}
		b.WriteString(line)
	}
	return b.String(), nil
}

// comments are what is said before each member.
var comments = map[string]string{
	"identity":          "Whom the guest works for. Its secret is bound to this: another identity is another guest.",
	"network":           "Chain whose payments count: mainnet, testnet, or local, where nothing has a value.",
	"root_contract":     "COCOON root contract that fixes the code of payments.",
	"payout_owner":      "Account that is paid.",
	"sealing":           "What the secret is bound to: tpm-pcr on vtpm, snp-derived on sev-snp, ephemeral on tdx: then each boot is another guest; or lent by a custodian.",
	"stranding":         "With ephemeral sealing, claims that are not carried before the guest ends may be lost, and this says that its owner knows.",
	"instance":          "How the guest is told from others of its kind: by its sealed secret.",
	"service":           "What it computes. A change keeps the secret.",
	"models":            "What answers to each name: an engine, its model and its limits. The runtime log has them in this order.",
	"engine":            "The program that computes. Its volume is what --engine names; nothing else reaches its command line.",
	"argv":              "-np: slots, as limits.concurrent. -c: tokens of all slots, limits.context_tokens each. -t: threads.",
	"env":               "Its whole environment. This variable overwrites freed memory, which every wipe asks for.",
	"memory_bytes":      "Its memory limit. The model's pages count; each slot's context comes on top.",
	"model":             "The weights: --model names their volume. Clients ask for the name.",
	"gpu":               "GPUs that the machine must have: none, or such as 1 hopper spt, 8 blackwell mpt, 8 hopper ppcie 4 switches.",
	"limits":            "What one client can ask for.",
	"request_bytes":     "Largest request.",
	"answer_tokens":     "Most tokens of one answer.",
	"concurrent":        "Requests that are computed at a time; four times as many wait.",
	"context_tokens":    "Prompt and answer together.",
	"price":             "What an answer is paid with: charge, or none.",
	"nanoton_per_token": "1000000000 nanoton are one TON.",
	"prompt_weight":     "Weights are parts of 10000: what each kind of token counts.",
	"wipe":              "What becomes of prompts in the engine's memory: freed-memory; or idle 30s, per-client or per-request, which end the engine and keep a second one ready.",
}

func newConfigCheck() *cobra.Command {
	var t together
	var volumes volumeFlags
	var platform, shape string
	var asJSON bool
	cmd := &cobra.Command{
		Use: "check [FILE]", Short: "Say whether config, volumes and machine fit together, before a boot", Args: cobra.MaximumNArgs(1),
		Long: "Reads a config as up does (none is the demonstration's), and holds its engine's arguments against its limits, its volumes against the\n" +
			"files, and its memory and threads against the machine: a shape, or --memory and --cpus. up does the same before it boots.\n" +
			"Exit code 0: everything fits; notes do not count. 1: something is wrong.",
		Example: "  chrysalis config check config.json\n  chrysalis config check config.json --platform sev-snp --model model.img --memory 16384 --cpus 8\n" +
			"  chrysalis config check config.json --shape shape.json --json",
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := platformOf(platform)
			if err != nil {
				return exitError{exitUsage, err}
			}
			t.shape.Platform = p
			if shape != "" {
				if t.shape, err = guest.ReadShape(shape); err != nil {
					return unavailable(err)
				}
			}
			file := ""
			if len(args) == 1 {
				file = args[0]
			}
			if t.files, err = volumes.pairs(); err != nil {
				return exitError{exitUsage, err}
			}
			if t.config, err = guest.ReadConfigOf(t.shape.Platform, file, t.files); err != nil {
				return rejected(err)
			}
			if n := len(t.config.Service.Served()); n != 0 && n != len(t.files) {
				return exitError{exitUsage, fmt.Errorf("the config has %d models, and --model is given %d times: want it once for each, in the config's order", n, len(t.files))}
			}
			found := crossCheck(t)
			if asJSON {
				if err := printJSON(cmd.OutOrStdout(), found); err != nil {
					return err
				}
			} else {
				printFindings(cmd.OutOrStdout(), found)
			}
			return wrongOnes(found)
		},
	}
	f := cmd.Flags()
	f.StringVar(&platform, "platform", platformVTPM, "platform of the guest: vtpm, tdx or sev-snp")
	volumes.add(cmd, "", "")
	f.StringVar(&shape, "shape", "", "shape.json of the machine, in the place of --platform, --memory and --cpus")
	f.IntVar(&t.shape.MemoryMiB, "memory", 1024, "MiB of memory of the machine")
	f.IntVar(&t.shape.CPUs, "cpus", 2, "CPUs of the machine")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	cmd.RegisterFlagCompletionFunc("platform", cobra.FixedCompletions(allPlatforms, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// wrongOnes is the refusal of what is wrong.
func wrongOnes(found []finding) error {
	var names []string
	for _, f := range found {
		if f.State == wrong {
			names = append(names, f.Name)
		}
	}
	if len(names) > 0 {
		return rejected(fmt.Errorf("config, volumes and machine do not fit together: %s", strings.Join(names, ", ")))
	}
	return nil
}

// sayMisfits writes what does not fit, or perhaps not, and returns the refusal of what does not.
func sayMisfits(w io.Writer, found []finding) error {
	printFindings(w, slices.DeleteFunc(slices.Clone(found), func(f finding) bool { return f.State == fine }))
	err := wrongOnes(found)
	if err != nil {
		err = rejected(fmt.Errorf("%w\nchrysalis: hint: chrysalis config check says all of it; --no-check boots all the same", err))
	}
	return err
}

func newConfigShow() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "show GUEST", Short: "Show the config that a guest of this machine was started with", Args: cobra.ExactArgs(1),
		ValidArgsFunction: completeGuests,
		Long: "Prints the config of a guest, by its name or its folder, and the hashes by which evidence names it: SHA-256 in the runtime log and HOST_DATA,\n" +
			"SHA-384 in MRCONFIGID, unless identity.cocoon leaves that zeros. It is what this machine started the guest with; what a guest runs, verify shows.",
		Example: "  chrysalis config show box\n  chrysalis config show ./build/guest --json",
		RunE: func(cmd *cobra.Command, args []string) error {
			flags := guestFlags{name: args[0]}
			if strings.ContainsRune(args[0], filepath.Separator) {
				flags = guestFlags{dir: args[0]}
			}
			dir, err := flags.folder()
			if err != nil {
				return err
			}
			spec, err := guest.Guest{Dir: dir}.Spec()
			if errors.Is(err, os.ErrNotExist) {
				return unavailable(fmt.Errorf("no guest in %s (start one with: chrysalis up)", dir))
			}
			if err != nil {
				return unavailable(err)
			}
			measured, err := spec.Config.Encode()
			if err != nil {
				return unavailable(fmt.Errorf("%s: %w", dir, err))
			}
			sha256, sha384 := config.SHA256(measured), config.SHA384(measured)
			if asJSON {
				return printJSON(cmd.OutOrStdout(), map[string]any{"identity": spec.Config.Identity, "service": spec.Config.Service, "sha256": sha256.String(),
					"sha384": hex.EncodeToString(sha384[:])})
			}
			text, err := guest.WriteConfig(spec.Config)
			if err != nil {
				return unavailable(err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s// SHA-256 %s\n// SHA-384 %x\n", text, sha256, sha384)
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
