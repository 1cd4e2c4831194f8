package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"chrysalis/measure/ton"
	"chrysalis/tools/internal/earned"
	"chrysalis/tools/internal/guest"
)

// claimRow is a claim as claim list prints it.
type claimRow struct {
	Contract string `json:"contract"`
	Instance string `json:"instance"`
	Tokens   uint64 `json:"tokens"`
	Nanoton  uint64 `json:"nanoton"`
	Receipt  uint64 `json:"receipt"` // sequence number
	Proved   bool   `json:"proved"`
	Problem  string `json:"problem,omitempty"`
}

func newClaimList() *cobra.Command {
	var dir string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list [--dir DIR]",
		Short: "List what guests of a folder have earned",
		Long: "Reads the proofs that guests of this folder have handed to their host: the newest receipt and charge of each contract. They\n" +
			"outlive the guest and its key. A charge counts all that its contract was ever charged for, so the newest stands for all\n" +
			"before it; what of it was carried on chain already says claim next. Each is verified with the keys of the guests that\n" +
			"were booted from this folder. Exit code 0: all are proved, 1: one is not.",
		Example: "  chrysalis claim list\n  chrysalis claim list --dir build/guest-box --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			entries, refused, damaged, err := claimsOf(dir)
			if err != nil {
				return unavailable(err)
			}
			return printClaims(cmd, entries, refused, damaged, asJSON)
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "build/guest", "folder of the guest")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func newClaimExport() *cobra.Command {
	var dir, out string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "export -o FOLDER [--dir DIR]",
		Short: "Write what guests have earned as files, to be kept or carried",
		Long: "Writes the charge and the receipt of each claim of claim list into a folder, as CONTRACT-INSTANCE.boc and .receipt, and prints the\n" +
			"same table. A charge is the message that anyone's wallet may carry to the client's contract. Exit code 0: all are proved, 1: one is not.",
		Example: "  chrysalis claim export -o claims\n  chrysalis claim export --dir build/guest-box -o /var/backups/claims",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			entries, refused, damaged, err := claimsOf(dir)
			if err == nil {
				err = exportClaims(out, entries)
			}
			if err != nil {
				return unavailable(err)
			}
			return printClaims(cmd, entries, refused, damaged, asJSON)
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "build/guest", "folder of the guest")
	cmd.Flags().StringVarP(&out, "output", "o", "", "folder to write to")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	if err := cmd.MarkFlagRequired("output"); err != nil {
		panic(err)
	}
	return cmd
}

// printClaims writes the claims, their sum, and what became of their proof.
func printClaims(cmd *cobra.Command, entries []earned.Entry, refused error, damaged int, asJSON bool) error {
	rows := []claimRow{}
	for _, e := range entries {
		row := claimRow{Contract: e.Contract.String(), Instance: fmt.Sprintf("%x", e.Instance), Tokens: e.Tokens, Nanoton: e.Nanoton,
			Receipt: e.Sequence, Proved: e.Proved}
		if !e.Proved {
			row.Problem = "signed by no guest that this folder knows"
		}
		rows = append(rows, row)
	}
	sum, err := earned.Sum(entries)
	if err != nil {
		return unavailable(err)
	}
	if damaged > 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "chrysalis: hint: passed over %d lines that are no proofs: a power cut leaves one\n", damaged)
	}
	if asJSON {
		err = printJSON(cmd.OutOrStdout(), map[string]any{"claims": rows, "nanoton": sum, "damaged": damaged})
	} else {
		err = claimTable(cmd.OutOrStdout(), rows, sum)
	}
	if err != nil {
		return unavailable(err)
	}
	if refused != nil {
		return rejected(refused)
	}
	return nil
}

// silent is in an error's chain without a word of its own.
type silent struct{ error }

func (silent) Error() string   { return "" }
func (s silent) Unwrap() error { return s.error }

// claimsOf reads the claims of a guest's folder and proves them; refused says which are not to be proved.
func claimsOf(dir string) (entries []earned.Entry, refused error, damaged int, err error) {
	proofs, err := os.Open(filepath.Join(dir, guest.ProofsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, 0, fmt.Errorf("no guest in %s has handed anything out: there is no %s (start one with: chrysalis up)%w", dir, guest.ProofsFile, silent{err})
	}
	if err != nil {
		return nil, nil, 0, err
	}
	defer proofs.Close()
	if entries, damaged, err = earned.Read(proofs); err != nil {
		return nil, nil, 0, fmt.Errorf("%s: %w", proofs.Name(), err)
	}
	known, err := signersOf(dir)
	if err != nil {
		return nil, nil, 0, err
	}
	for i := range entries {
		refused = errors.Join(refused, entries[i].Prove(known))
	}
	return entries, refused, damaged, nil
}

func exportClaims(dir string, entries []earned.Entry) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, e := range entries {
		name := filepath.Join(dir, strings.ReplaceAll(fmt.Sprintf("%s-%x", e.Contract, e.Instance[:4]), ":", "_"))
		err := errors.Join(os.WriteFile(name+".boc", e.Proof.Charge[:], 0o644), os.WriteFile(name+".receipt", e.Proof.Receipt[:], 0o644))
		if err != nil {
			return fmt.Errorf("exporting claims: %w", err)
		}
	}
	return nil
}

func claimTable(w io.Writer, rows []claimRow, sum uint64) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "contract\tguest\ttokens\tcoins\treceipt\tsignatures")
	for _, r := range rows {
		word := "verified"
		if !r.Proved {
			word = r.Problem
		}
		contract := r.Contract
		if n := columns(w); n > 0 && n < wide && len(contract) > 20 {
			contract = contract[:10] + "…" + contract[len(contract)-8:]
		}
		fmt.Fprintf(table, "%s\t%.8s\t%d\t%s\t%d\t%s\n", contract, r.Instance, r.Tokens, ton.Coins(r.Nanoton), r.Receipt, word)
	}
	fmt.Fprintf(table, "sum\t\t\t%s\t\t\n", ton.Coins(sum))
	return table.Flush()
}
