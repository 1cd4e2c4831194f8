package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"charm.land/lipgloss/v2"
	"charm.land/lipgloss/v2/table"
	"github.com/go-json-experiment/json"
	"github.com/spf13/cobra"

	"chrysalis/attest"
	"chrysalis/attest/evidence"
	"chrysalis/attest/nvidia"
	"chrysalis/attest/sevsnp"
	"chrysalis/attest/tdx"
	"chrysalis/measure"
	"chrysalis/measure/bootdisk"
	"chrysalis/measure/fault"
	"chrysalis/tools/internal/acpi"
	"chrysalis/tools/internal/explain"
	"chrysalis/tools/internal/guest"
	"chrysalis/tools/internal/qemu"
	"chrysalis/tools/internal/toolstree"
)

// explainFlags are explain's.
type explainFlags struct {
	evidence, manifest, disk, config, policy string
	shape                                    shapeFlags
	asJSON                                   bool
}

func newExplain() *cobra.Command {
	var f explainFlags
	cmd := &cobra.Command{
		Use:   "explain --evidence FILE --manifest FILE [--shape FILE] [--config FILE] [--policy FILE]",
		Short: "Say which input makes a guest's measurements differ from the expected ones",
		Long: "Takes what verify --save-evidence has saved, and puts the events that the guest measured beside those that it should have,\n" +
			"which are computed from the release's files beside the manifest, the shape of its machine and its config. Says what the first\n" +
			"difference means, what is likely behind it and what to do. Where the machine's tables differ, QEMU is asked for those of\n" +
			"machines near the expected one.\n\n" +
			"The logs are believed as far as they replay to the quote. Nothing is judged but the machine's security versions, with --policy:\n" +
			"whose quote it is, chrysalis verify says. Of an SEV-SNP guest, which keeps no log, they are all that is said.\n" +
			"Exit code 0: all as expected, 1: something differs, 2: usage, 3: could not check.",
		Example: "  chrysalis explain --evidence evidence.bin --manifest build/release/manifest.json --shape build/guest/shape.json --policy policy.json\n" +
			"  chrysalis explain --evidence evidence.bin --manifest build/release/manifest.json --disk chrysalis.raw --json",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			in, err := f.open(cmd.Context())
			if err != nil {
				return err
			}
			report, err := f.explain(cmd.Context(), in, cmd.ErrOrStderr())
			if err != nil {
				return unavailable(err)
			}
			if f.asJSON {
				if err := printJSON(cmd.OutOrStdout(), report); err != nil {
					return unavailable(err)
				}
			} else {
				printExplanation(cmd.OutOrStdout(), cmd.ErrOrStderr(), report)
			}
			if len(report.Causes) > 0 {
				return rejected(errors.New(report.Causes[0].Says))
			}
			if len(report.Shortfalls) > 0 {
				return rejected(errors.New(report.Shortfalls[0].String()))
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.evidence, "evidence", "", "evidence of the guest (of verify --save-evidence)")
	flags.StringVar(&f.manifest, "manifest", "", "manifest of the release that was expected, with the release's files beside it")
	flags.StringVar(&f.disk, "disk", "", "raw disk that the guest was to boot from (default: none, a direct boot)")
	flags.StringVar(&f.config, "config", "", "config that was expected: as for up, a config disk, or measured bytes")
	flags.StringVar(&f.policy, "policy", "", "policy that was to accept the guest")
	f.shape.add(cmd, "shape.json of the machine that was expected (default: what follows from it is not compared)")
	flags.BoolVar(&f.asJSON, "json", false, "print JSON")
	_ = cmd.MarkFlagRequired("evidence")
	_ = cmd.MarkFlagRequired("manifest")
	return cmd
}

// open reads what the flags name.
func (f *explainFlags) open(ctx context.Context) (in explain.Inputs, err error) {
	encoded, err := readInput(f.evidence)
	if err != nil {
		return in, unavailable(err)
	}
	if in.Evidence, err = evidence.Decode(encoded); err != nil {
		return in, unavailable(fmt.Errorf("reading %s: %w", f.evidence, err))
	}
	if in.Release, err = explain.ReadRelease(f.manifest); err != nil {
		return in, unavailable(err)
	}
	if f.disk != "" {
		disk, err := readDisk(f.disk)
		if err != nil {
			return in, unavailable(fmt.Errorf("reading %s: %w", f.disk, err))
		}
		in.Disk = &disk
	}
	if f.config != "" {
		if in.Config, err = readExpectedConfig(f.config); err != nil {
			return in, unavailable(err)
		}
	}
	if f.policy != "" {
		document, err := readInput(f.policy)
		if err != nil {
			return in, unavailable(err)
		}
		if _, err := attest.ParsePolicy(document); err != nil {
			return in, unavailable(fmt.Errorf("reading %s: %w", f.policy, err))
		}
		in.Policy = new(attest.Rules)
		if err := json.Unmarshal(document, in.Policy); err != nil {
			return in, unavailable(fmt.Errorf("reading %s: %w", f.policy, fault.JSON(err)))
		}
	}
	if f.shape.file == "" {
		return in, nil
	}
	s, err := guest.ReadShape(f.shape.file)
	if err != nil {
		return in, unavailable(err)
	}
	in.Shape = &s
	in.Machines, err = newMachines(ctx, f.shape.tree)
	if err != nil {
		return in, unavailable(err)
	}
	return in, nil
}

func readDisk(file string) (bootdisk.Disk, error) {
	f, err := os.Open(file)
	if err != nil {
		return bootdisk.Disk{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return bootdisk.Disk{}, err
	}
	return bootdisk.Read(f, info.Size())
}

// readExpectedConfig returns the measured bytes of a config disk, of such bytes, or of a config as up takes it.
func readExpectedConfig(file string) ([]byte, error) {
	measured, err := readMeasured(file)
	if err == nil {
		return measured, nil
	}
	m, documentErr := guest.ReadConfig("", file, "", "")
	if documentErr != nil {
		return nil, errors.Join(err, documentErr)
	}
	return m.Encode()
}

// machines asks the QEMUs of a tools tree for tables.
type machines struct {
	tree     toolstree.Tree
	cache    string
	versions []string
}

func newMachines(ctx context.Context, dir string) (machines, error) {
	tree, err := toolstree.Open(dir)
	if err != nil {
		return machines{}, fmt.Errorf("%w (build it with: chrysalis image build)", err)
	}
	m := machines{tree: tree, cache: filepath.Join(filepath.Dir(tree.Path(".")), "cache", "acpi")}
	own, err := qemu.Version(ctx, tree)
	if err != nil {
		return m, err
	}
	m.versions = []string{own}
	if newer, err := tree.WithNewerQEMU(); err == nil {
		version, err := qemu.Version(ctx, newer)
		if err != nil {
			return m, err
		}
		m.versions = append(m.versions, version)
	}
	return m, nil
}

func (m machines) Tables(ctx context.Context, s measure.Shape) (measure.Tables, error) {
	return acpi.Cached(ctx, m.tree, s, m.cache)
}

func (m machines) Versions() []string { return m.versions }

// explain runs it, with a bar on a terminal while machines are tried.
func (f *explainFlags) explain(ctx context.Context, in explain.Inputs, notes io.Writer) (*explain.Report, error) {
	show, end := countProgress(notes)
	defer end()
	in.Roots, in.At = attest.Roots{TDX: tdx.IntelRoot(), SEVSNP: sevsnp.AMDRoots(), NVIDIA: nvidia.NVIDIARoots()}, time.Now()
	in.Progress = func(tried, most int) { show("trying machines", int64(tried), int64(most)) }
	return explain.Explain(ctx, in)
}

// printExplanation writes the events beside each other and the causes to out, and what was not compared to notes.
func printExplanation(out, notes io.Writer, r *explain.Report) {
	for line := range strings.Lines(eventTable(r.Registers).String()) {
		lipgloss.Fprintln(out, strings.TrimRight(line, " \n"))
	}
	for i, c := range r.Causes {
		if i == 0 {
			fmt.Fprintln(out)
		}
		fmt.Fprintf(out, "%d. %s\n", i+1, printable(c.Says))
		at := slices.DeleteFunc([]string{c.Register, c.Event, c.Meaning}, func(s string) bool { return s == "" })
		if len(at) > 0 {
			fmt.Fprintf(out, "   where: %s\n", printable(strings.Join(at, ", ")))
		}
		fmt.Fprintf(out, "   cause: %s\n   do:    %s\n", c.Kind, c.Do)
	}
	switch {
	case len(r.Causes) == 0:
		fmt.Fprintf(out, "%s\n", r.Verdict)
	default:
		fmt.Fprintf(out, "%s: %d in all\n", r.Verdict, len(r.Causes))
	}
	for _, short := range r.Shortfalls {
		fmt.Fprintf(out, "too low: %s\n", printable(short.String()))
	}
	for _, note := range r.Notes {
		fmt.Fprintf(notes, "chrysalis: note: %s\n", note)
	}
}

// stateColors are those of verdictColors.
var stateColors = map[explain.State]string{explain.Expected: "2", explain.NotCompared: "3", explain.Different: "1"}

// eventTable has a line for each register, and below it its events where the register differs.
func eventTable(registers []explain.Register) *table.Table {
	var states []explain.State
	t := table.New().Headers("register", "event", "meaning", "expected", "guest", "").
		Border(lipgloss.NormalBorder()).BorderTop(false).BorderBottom(false).BorderLeft(false).BorderRight(false).BorderColumn(false).
		StyleFunc(func(row, column int) lipgloss.Style {
			style := lipgloss.NewStyle().PaddingRight(2)
			switch {
			case row == table.HeaderRow:
				return style.Bold(true)
			case column == 5:
				return style.PaddingRight(0).Foreground(lipgloss.Color(stateColors[states[row]]))
			}
			return style
		})
	for _, r := range registers {
		t.Row(r.Name, "", eventCount(len(r.Rows)), shorten(r.Expected), shorten(r.Actual), string(r.State))
		states = append(states, r.State)
		if r.State == explain.Expected {
			continue
		}
		for _, e := range r.Rows {
			t.Row("", e.Event, shorten(e.Meaning), shorten(e.Expected), shorten(e.Actual), string(e.State))
			states = append(states, e.State)
		}
	}
	return t
}

func eventCount(n int) string {
	if n == 1 {
		return "1 event"
	}
	return fmt.Sprintf("%d events", n)
}
