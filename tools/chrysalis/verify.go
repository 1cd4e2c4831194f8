package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"time"

	"charm.land/lipgloss/v2"
	"charm.land/lipgloss/v2/table"
	"github.com/spf13/cobra"

	"chrysalis/attest"
	"chrysalis/attest/evidence"
	"chrysalis/attest/nvidia"
	"chrysalis/attest/ratls"
)

func newVerify() *cobra.Command {
	var flags remoteFlags
	var saved string
	var card cardQuestion
	var asJSON, all bool
	cmd := &cobra.Command{
		Use:   "verify URL --policy FILE [--model-card FILE --card-signer KEY]",
		Short: "Learn what a guest is, and whether a policy accepts it",
		Long: "Connects to a guest, asks it for evidence that is bound to this very connection, and judges it against a policy.\n" +
			"Prints what was refused or waived, and how many checks of session, hardware, GPU, image, config and price were made; with --all each\n" +
			"check: what was expected, what was found, and the verdict. No prompt is sent.\n\n" +
			"With --model-card the model is called by its name: the file, a card or a catalogue of them (volume card), must have a card of the volume that\n" +
			"the guest runs, signed by those whom --card-signer names. A model without such a card is a refusal.",
		Example: "  chrysalis verify https://127.0.0.1:8443 --policy policy.json --roots build/guest/tpm-maker.pem\n" +
			"  chrysalis verify https://127.0.0.1:8443 --policy policy.json --roots build/guest/tpm-maker.pem --all\n" +
			"  chrysalis verify https://127.0.0.1:8443 --policy policy.json --roots build/guest/tpm-maker.pem --model-card catalogue.jsonl --card-signer a.pub",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, address, err := guestAddress(args[0])
			if err != nil {
				return err
			}
			config, err := flags.open()
			if err != nil {
				return err
			}
			cards, err := card.named()
			if err != nil {
				return err
			}
			var seen *evidence.Evidence
			config.Seen = func(e *evidence.Evidence) { seen = e }
			conn, err := ratls.Dial(cmd.Context(), "tcp", address, config)
			if saved != "" && seen != nil {
				if err := saveEvidence(saved, seen); err != nil {
					return unavailable(err)
				}
			}
			var result *attest.Result
			if err == nil {
				result = conn.Result()
				defer conn.Close()
				served := result.Config().Service.Served()
				for _, m := range served {
					if cards == nil || cards[m.Model.Volume] != nil {
						continue
					}
					which := "model"
					if len(served) > 1 {
						which += " " + printable(m.Model.Name)
					}
					return rejected(fmt.Errorf("the guest's %s is volume %s, and %s has no card of it that the signers stand for", which, m.Model.Volume, card.file))
				}
			}
			if asJSON {
				if printed := printJSON(cmd.OutOrStdout(), cards.report(result, err)); printed != nil {
					return printed
				}
			} else {
				printVerification(cmd.OutOrStdout(), cmd.ErrOrStderr(), result, err, all, cards)
			}
			if err != nil {
				return refusalOf(explainable(err, saved), flags.trusted())
			}
			return nil
		},
	}
	flags.add(cmd)
	card.add(cmd.Flags())
	cmd.Flags().StringVar(&saved, "save-evidence", "",
		"file for the last evidence that the guest showed, accepted or not (for: chrysalis explain)")
	cmd.Flags().BoolVar(&all, "all", false, "print every check")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// explainable adds a hint to the refusal of a register: what differs can be named.
func explainable(err error, saved string) error {
	var refused *attest.Refused
	if !errors.As(err, &refused) || !registerCheck.MatchString(refused.Failed.Name) {
		return err
	}
	file := saved
	if saved == "" {
		file = "FILE"
	}
	hint := "chrysalis explain --evidence " + file + " --manifest FILE --shape FILE says what differs"
	if saved == "" {
		hint = "verify with --save-evidence FILE, then " + hint
	}
	return fmt.Errorf("%w\nchrysalis: hint: %s", err, hint)
}

// registerCheck matches the checks that compare a register with what a release, a shape and a config make of it.
var registerCheck = regexp.MustCompile(`^(pcr-[0-9]+|mrtd|rtmr-[0-3]|mr-config-id|event-.*|config\..*|runtime-log-end)$`)

func saveEvidence(file string, seen *evidence.Evidence) error {
	encoded, err := seen.Encode()
	if err != nil {
		return fmt.Errorf("saving evidence: %w", err)
	}
	return os.WriteFile(file, encoded, 0o644)
}

// printVerification writes the checks and the verdict to out, and what an acceptance does not cover to notes.
func printVerification(out, notes io.Writer, result *attest.Result, err error, all bool, cards modelCards) {
	var checks []attest.Check
	var refused *attest.Refused
	if result != nil {
		checks = result.Checks()
	} else if errors.As(err, &refused) {
		checks = refused.Checks()
	}
	checks = cards.name(checks)
	if all {
		printChecks(out, checks)
	} else {
		printGroups(out, checks)
	}
	if result == nil {
		return
	}
	machine := result.Machine()
	say(out, "accepted: %s on %s, machine %x, until %s\n", result.Release(), result.Platform(), machine[:8],
		result.NotAfter().UTC().Format(time.RFC3339))
	if hash, ok := result.ImageHash(); ok {
		say(out, "image: %s, as COCOON's root contract lists images\n", hash)
	}
	served := result.Config().Service.Served()
	for _, m := range served {
		if c := cards[m.Model.Volume]; c != nil {
			say(out, "model: %s, %s, %s\n", printable(c.ID()), printable(c.Quantisation), printable(c.Licence))
		} else if len(served) > 1 {
			say(out, "model: %s, volume %s, on engine %s\n", printable(m.Model.Name), m.Model.Volume, m.Engine.Volume)
		}
	}
	if loan := result.Loan(); loan.Number > 0 {
		say(out, "secret: loan %d, lent by the custodian on machine %s\n", loan.Number, loan.Lender)
	}
	for _, g := range result.GPUs() {
		say(out, "%s\n", gpuLine(g))
	}
	for _, weakness := range result.Weaknesses() {
		say(notes, "chrysalis: note: %s\n", weakness)
	}
}

// gpuLine says what a verified device is.
func gpuLine(g attest.GPU) string {
	line := fmt.Sprintf("%s: %s", g.Kind, g.ID)
	if g.Kind == nvidia.GPU {
		line += fmt.Sprintf(", %s in the mode %s, driver %s, VBIOS %s", g.Architecture, g.Mode, g.Driver, g.VBIOS)
	} else {
		line += ", BIOS " + g.VBIOS
	}
	return line + fmt.Sprintf(", %d measurements as %s have them", g.Measurements, strings.Join(g.RIMs, " and "))
}

// groups are what checks are about, by how their names begin; the longest that fits counts. What fits none is about the hardware.
var groups = []struct {
	name     string
	prefixes []string
}{
	{"session", []string{"policy", "exporter", "challenge", "hpke-key", "epoch", "nonce", "tls-key", "not-after", "statement-", "report-data", "sev-snp.report-data",
		"tdx.report-data"}},
	{"hardware", nil},
	{"gpu", []string{"nvidia"}},
	{"image", []string{"pcr-", "mrtd", "rtmr-", "sev-snp.measurement", "release-", "security-version", "boot-log", "acpi", "software"}},
	{"config", []string{"config.", "event-", "runtime-log-", "mr-config-id", "host-data", "sev-snp.host-data"}},
	{"price", []string{"config.service.price."}},
}

// groupOf returns the group of the check with the longest beginning that fits.
func groupOf(check string) string {
	group, longest := "hardware", 0
	for _, g := range groups {
		for _, prefix := range g.prefixes {
			if strings.HasPrefix(check, prefix) && len(prefix) > longest {
				group, longest = g.name, len(prefix)
			}
		}
	}
	return group
}

// printGroups writes what was refused, then what was waived, whole, and a line for each group.
func printGroups(out io.Writer, checks []attest.Check) {
	var marked []attest.Check
	count := map[string]map[attest.Verdict]int{}
	for _, g := range groups {
		count[g.name] = map[attest.Verdict]int{}
	}
	for _, c := range checks {
		count[groupOf(c.Name)][c.Verdict]++
	}
	others := []attest.Verdict{attest.Denied, attest.Waived}
	for _, verdict := range others {
		for _, c := range checks {
			if c.Verdict == verdict {
				marked = append(marked, c)
			}
		}
	}
	printChecks(out, marked)
	for _, g := range groups {
		var counts []string
		for _, verdict := range append(others, attest.Accepted) {
			if n := count[g.name][verdict]; n > 0 {
				counts = append(counts, fmt.Sprintf("%d %s", n, verdict))
			}
		}
		if len(counts) > 0 {
			fmt.Fprintf(out, "%-10s%s\n", g.name, strings.Join(counts, ", "))
		}
	}
}

// verdictColors are ANSI's green, yellow and red: a terminal's own theme decides how they look.
var verdictColors = map[attest.Verdict]string{attest.Accepted: "2", attest.Waived: "3", attest.Denied: "1"}

func checkTable(checks []attest.Check, columns int) *table.Table {
	t := table.New().Headers("check", "expected", "got", "verdict").
		Border(lipgloss.NormalBorder()).BorderTop(false).BorderBottom(false).BorderLeft(false).BorderRight(false).BorderColumn(false).
		StyleFunc(func(row, column int) lipgloss.Style {
			style := lipgloss.NewStyle().PaddingRight(2)
			switch {
			case row == table.HeaderRow:
				return style.Bold(true)
			case column == 3:
				return style.PaddingRight(0).Foreground(lipgloss.Color(verdictColors[checks[row].Verdict]))
			}
			return style
		})
	for _, c := range checks {
		t.Row(c.Name, shorten(c.Want), shorten(c.Got), string(c.Verdict))
	}
	if columns > 0 && lipgloss.Width(t.String()) > columns {
		t.Width(columns)
	}
	return t
}

var longHex = regexp.MustCompile(`[0-9a-f]{32,}`)

// shorten makes a value fit a column: digests by their ends, the rest by its beginning. Control characters, which come
// from the evidence, do not reach the terminal.
func shorten(s string) string {
	const most = 40
	s = longHex.ReplaceAllStringFunc(s, func(digest string) string { return digest[:8] + "…" + digest[len(digest)-8:] })
	runes := []rune(printable(s))
	if len(runes) > most {
		runes = append(runes[:most-1], '…')
	}
	return string(runes)
}
