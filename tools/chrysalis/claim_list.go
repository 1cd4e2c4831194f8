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

// messageRow is a message that goes with no receipt.
type messageRow struct {
	Op       string  `json:"op"`
	Contract string  `json:"contract"`
	Tokens   *uint64 `json:"tokens,omitempty"`
	Proved   bool    `json:"proved"`
}

func newClaimList() *cobra.Command {
	var dir string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list [--dir DIR]",
		Short: "List what guests of a folder have earned",
		Long: "Reads the proofs that guests of this folder have handed to their host: the newest receipt and charge of each contract, and\n" +
			"messages that go with no receipt, such as payouts and refunds. They outlive the guest and its key. A charge counts all that its contract was ever charged for, so the newest stands for all\n" +
			"before it; what of it was carried on chain already says claim next. Each is verified with the keys of the guests that\n" +
			"were booted from this folder. Exit code 0: all are proved, 1: one is not.",
		Example: "  chrysalis claim list\n  chrysalis claim list --dir build/guest-box --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, refused, err := claimsOf(dir)
			if err != nil {
				return unavailable(err)
			}
			return printClaims(cmd, log, refused, asJSON)
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
		Long: "Writes the charge and the receipt of each claim of claim list into a folder, as CONTRACT-INSTANCE.boc and .receipt, the other messages as\n" +
			"CONTRACT-MESSAGE.boc, and prints the same table. A charge is the message that anyone's wallet may carry to the client's contract. Exit code 0: all are proved, 1: one is not.",
		Example: "  chrysalis claim export -o claims\n  chrysalis claim export --dir build/guest-box -o /var/backups/claims",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, refused, err := claimsOf(dir)
			if err == nil {
				err = exportClaims(out, log)
			}
			if err != nil {
				return unavailable(err)
			}
			return printClaims(cmd, log, refused, asJSON)
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
func printClaims(cmd *cobra.Command, log earned.Log, refused error, asJSON bool) error {
	rows, messages := []claimRow{}, []messageRow{}
	for _, c := range log.Claims {
		row := messageRow{Op: c.Message.Op.String(), Contract: c.Message.Contract.String(), Proved: c.Proved}
		if !c.Message.Op.Closes() {
			row.Tokens = &c.Message.Tokens
		}
		messages = append(messages, row)
	}
	for _, e := range log.Entries {
		row := claimRow{Contract: e.Contract.String(), Instance: fmt.Sprintf("%x", e.Instance), Tokens: e.Tokens, Nanoton: e.Nanoton,
			Receipt: e.Sequence, Proved: e.Proved}
		if !e.Proved {
			row.Problem = "signed by no guest that this folder knows"
		}
		rows = append(rows, row)
	}
	sum, err := earned.Sum(log.Entries)
	if err != nil {
		return unavailable(err)
	}
	if log.Damaged > 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "chrysalis: hint: passed over %d lines that are no proofs: a power cut leaves one\n", log.Damaged)
	}
	if asJSON {
		err = printJSON(cmd.OutOrStdout(), map[string]any{"claims": rows, "messages": messages, "nanoton": sum, "damaged": log.Damaged})
	} else if err = claimTable(cmd.OutOrStdout(), rows, sum); err == nil {
		err = messageTable(cmd.OutOrStdout(), messages)
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
func claimsOf(dir string) (log earned.Log, refused, err error) {
	proofs, err := os.Open(filepath.Join(dir, guest.ProofsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return log, nil, fmt.Errorf("no guest in %s has handed anything out: there is no %s (start one with: chrysalis up)%w", dir, guest.ProofsFile, silent{err})
	}
	if err != nil {
		return log, nil, err
	}
	defer proofs.Close()
	if log, err = earned.Read(proofs); err != nil {
		return log, nil, fmt.Errorf("%s: %w", proofs.Name(), err)
	}
	known, err := signersOf(dir)
	if err != nil {
		return log, nil, err
	}
	for i := range log.Entries {
		refused = errors.Join(refused, log.Entries[i].Prove(known))
	}
	for i := range log.Claims {
		refused = errors.Join(refused, log.Claims[i].Prove(known))
	}
	return log, refused, nil
}

func exportClaims(dir string, log earned.Log) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	write := func(name string, raw []byte) error {
		return os.WriteFile(filepath.Join(dir, strings.ReplaceAll(name, ":", "_")), raw, 0o644)
	}
	var errs []error
	for _, e := range log.Entries {
		name := fmt.Sprintf("%s-%x", e.Contract, e.Instance[:4])
		errs = append(errs, write(name+".boc", e.Proof.Charge[:]), write(name+".receipt", e.Proof.Receipt[:]))
	}
	for _, c := range log.Claims {
		errs = append(errs, write(fmt.Sprintf("%s-%s.boc", c.Message.Contract, c.Message.Op), c.Body))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("exporting claims: %w", err)
	}
	return nil
}

// fittingAddress shortens an address where the line must fit.
func fittingAddress(w io.Writer, contract string) string {
	if n := columns(w); n > 0 && n < wide && len(contract) > 20 {
		return contract[:10] + "…" + contract[len(contract)-8:]
	}
	return contract
}

func messageTable(w io.Writer, rows []messageRow) error {
	if len(rows) == 0 {
		return nil
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "\nmessage\tcontract\ttokens\tsignature")
	for _, r := range rows {
		word, tokens := "verified", ""
		if !r.Proved {
			word = "by no guest that this folder knows"
		}
		if r.Tokens != nil {
			tokens = fmt.Sprint(*r.Tokens)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", r.Op, fittingAddress(w, r.Contract), tokens, word)
	}
	return table.Flush()
}

func claimTable(w io.Writer, rows []claimRow, sum uint64) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "contract\tguest\ttokens\tcoins\treceipt\tsignatures")
	for _, r := range rows {
		word := "verified"
		if !r.Proved {
			word = r.Problem
		}
		fmt.Fprintf(table, "%s\t%.8s\t%d\t%s\t%d\t%s\n", fittingAddress(w, r.Contract), r.Instance, r.Tokens, ton.Coins(r.Nanoton), r.Receipt, word)
	}
	fmt.Fprintf(table, "sum\t\t\t%s\t\t\n", ton.Coins(sum))
	return table.Flush()
}
