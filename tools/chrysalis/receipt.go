package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"chrysalis/attest"
	"chrysalis/attest/check"
	"chrysalis/attest/evidence"
	"chrysalis/measure/pubkey"
	"chrysalis/tools/internal/receipts"
)

func newReceipt() *cobra.Command {
	cmd := &cobra.Command{Use: "receipt", Short: "Look at receipts that were kept: check, list, hand on"}
	cmd.AddCommand(newReceiptVerify(), newReceiptList(), newReceiptExport())
	return cmd
}

// receiptRow is a receipt as receipt verify and list print it.
type receiptRow struct {
	File       string `json:"file"`
	Time       string `json:"time,omitempty"` // when it was kept, by the keeper's own clock
	Guest      string `json:"guest,omitempty"`
	Release    string `json:"release,omitempty"`
	Instance   string `json:"instance"`
	Sequence   uint64 `json:"sequence"`
	Prompt     uint32 `json:"prompt_tokens"`
	Completion uint32 `json:"completion_tokens"`
	Outcome    string `json:"outcome"`
	Request    string `json:"request_sha256"`
	Response   string `json:"response_hash"`
	Contract   string `json:"contract,omitempty"`
	Verdict    string `json:"verdict,omitempty"` // accepted, rejected, unavailable; none in a list
	Problem    string `json:"problem,omitempty"`
}

func rowOf(e receipts.Entry) receiptRow {
	r := e.Receipt
	row := receiptRow{File: e.File, Guest: e.Guest, Release: e.Release, Instance: fmt.Sprintf("%x", r.Instance), Sequence: r.Sequence,
		Prompt: r.Usage.Prompt, Completion: r.Usage.Completion, Outcome: r.Outcome.String(),
		Request: fmt.Sprintf("%x", r.Request), Response: fmt.Sprintf("%x", r.Response), Contract: e.Contract}
	if !e.Time.IsZero() {
		row.Time = e.Time.UTC().Format(time.RFC3339)
	}
	return row
}

// chainRow is what the receipts of an instance make together.
type chainRow struct {
	Instance string `json:"instance"`
	Receipts int    `json:"receipts"`
	First    uint64 `json:"first"`
	Last     uint64 `json:"last"`
	Missing  uint64 `json:"missing"`
}

// readReceipts reads what a user names. What can't be read is no rejection, and what is there and is none is one.
func readReceipts(path string) (*receipts.Archive, error) {
	archive, err := receipts.Read(path)
	switch {
	case errors.Is(err, check.ErrRejected):
		return nil, rejected(err)
	case err != nil:
		return nil, unavailable(err)
	case len(archive.Entries) == 0:
		return nil, unavailable(fmt.Errorf("%s holds no receipts: chrysalis proxy --receipts keeps them", path))
	}
	return archive, nil
}

func newReceiptVerify() *cobra.Command {
	var f remoteFlags
	var key string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "verify FOLDER|FILE --policy FILE|--pubkey HEX",
		Short: "Check kept receipts: signatures, the evidence they rest on, and that none was made twice",
		Long: "Takes the folder of chrysalis proxy --receipts, one file of it, what receipt export has written, what a guest answers at\n" +
			"/v1/receipts/ID, or a receipt's 440 bytes. With a policy, the evidence that was kept is judged as of the time at which the\n" +
			"receipt was, and receipt and charge by its keys, its config and its price. With a key alone nothing is known of whose it is.\n" +
			"The receipts of an instance are laid one behind the other: two in one place, a wrong link and a count that falls are rejected,\n" +
			"and those that are not here are counted. The time is the keeper's own word. Exit code 0: all are accepted, 1: one is rejected,\n" +
			"3: one could not be checked.",
		Example: "  chrysalis receipt verify receipts --policy policy.json --roots build/guest/tpm-maker.pem\n" +
			"  chrysalis receipt verify receipt.bin --pubkey 9d4c…f1 --json",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if (f.policy == "") == (key == "") {
				return errors.New("want one of --policy and --pubkey")
			}
			archive, err := readReceipts(args[0])
			if err != nil {
				return err
			}
			verdicts, err := judgeReceipts(cmd, archive, f, key)
			if err != nil {
				return err
			}
			rows, good, worst := verdictRows(archive, verdicts)
			chains, err := receipts.Chains(good)
			if err != nil {
				worst = rejected(err)
			}
			if err := printReceipts(cmd.OutOrStdout(), rows, chains, asJSON); err != nil {
				return unavailable(err)
			}
			return worst
		},
	}
	f.addTrust(cmd)
	cmd.Flags().StringVar(&key, "pubkey", "", "in place of a policy: the receipt key, 64 hexadecimal digits, that you know to be the guest's")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// verdictRows returns the rows, those receipts that are accepted, and the worst that became of one.
func verdictRows(archive *receipts.Archive, verdicts []error) (rows []receiptRow, good []receipts.Entry, worst error) {
	wasRejected := false
	for i, e := range archive.Entries {
		row := rowOf(e)
		switch err := verdicts[i]; {
		case err == nil:
			row.Verdict, good = check.WordAccepted, append(good, e)
		case errors.Is(err, check.ErrRejected):
			row.Verdict, row.Problem = check.WordRejected, printable(err.Error())
			if !wasRejected {
				wasRejected, worst = true, rejected(fmt.Errorf("%s: %w", e.File, err))
			}
		default:
			row.Verdict, row.Problem = check.WordUnavailable, printable(err.Error())
			if worst == nil {
				worst = unavailable(fmt.Errorf("%s: %w", e.File, err))
			}
		}
		rows = append(rows, row)
	}
	return rows, good, worst
}

// judgeReceipts judges by evidence and policy, or by a key.
func judgeReceipts(cmd *cobra.Command, archive *receipts.Archive, f remoteFlags, key string) ([]error, error) {
	if key != "" {
		public, err := pubkey.Parse(strings.ToLower(key))
		if err != nil {
			return nil, fmt.Errorf("--pubkey: %v", err)
		}
		fmt.Fprintln(cmd.ErrOrStderr(), "chrysalis: hint: signatures alone are checked: that the key is a guest's is your own word")
		return archive.Signed(public), nil
	}
	trusted, err := f.open() // what was good then is in the evidence, or is not to be had any more
	if err != nil {
		return nil, err
	}
	trusted.Roots.Facts = new(attest.Facts)
	return archive.Judge(func(e *evidence.Evidence, nonce [32]byte, at time.Time) (*attest.Result, error) {
		return attest.VerifyDetached(e, nonce, trusted.Policy, at, trusted.Roots)
	}), nil
}

func newReceiptList() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "list FOLDER|FILE",
		Short:   "List kept receipts, as they say they are",
		Long:    "Prints what receipts say, unchecked: chrysalis receipt verify checks them.",
		Example: "  chrysalis receipt list receipts\n  chrysalis receipt list receipts --json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			archive, err := readReceipts(args[0])
			if err != nil {
				return err
			}
			rows := []receiptRow{}
			for _, e := range archive.Entries {
				rows = append(rows, rowOf(e))
			}
			if err := printReceipts(cmd.OutOrStdout(), rows, nil, asJSON); err != nil {
				return unavailable(err)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func newReceiptExport() *cobra.Command {
	var output string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "export FOLDER|FILE --output FILE",
		Short: "Write receipts and the evidence they rest on to one file, for somebody else",
		Long: "Writes one JSON file that chrysalis receipt verify takes wherever it is: the proofs as they were kept, and the evidence of the\n" +
			"guests that signed them. No word of what was said is in it; hashes of requests and answers are, and the payment contract.",
		Example: "  chrysalis receipt export receipts --output receipts.json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			archive, err := readReceipts(args[0])
			if err != nil {
				return err
			}
			bundle, err := archive.Bundle()
			if errors.Is(err, check.ErrRejected) {
				return rejected(err)
			} else if err != nil {
				return unavailable(err)
			}
			if err := os.WriteFile(output, bundle, 0o600); err != nil {
				return unavailable(err)
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), map[string]any{"file": output, "receipts": len(archive.Entries)})
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d receipts in %s\n", len(archive.Entries), output)
			return err
		},
	}
	cmd.Flags().StringVar(&output, "output", "", "file to write")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	_ = cmd.MarkFlagRequired("output")
	return cmd
}

func printReceipts(w io.Writer, rows []receiptRow, chains []receipts.Chain, asJSON bool) error {
	laid := []chainRow{}
	for _, c := range chains {
		laid = append(laid, chainRow{fmt.Sprintf("%x", c.Instance), c.Count, c.First, c.Last, c.Missing})
	}
	if asJSON {
		document := map[string]any{"receipts": rows}
		if chains != nil {
			document["chains"] = laid
		}
		return printJSON(w, document)
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if n := columns(w); n > 0 && n < wide { // as much as fits
		fmt.Fprintln(table, "kept\tinstance\tnumber\ttokens\toutcome\tverdict")
		for _, r := range rows {
			fmt.Fprintf(table, "%s\t%.8s\t%d\t%d+%d\t%s\t%s\n", r.Time, r.Instance, r.Sequence, r.Prompt, r.Completion, r.Outcome, r.Verdict)
		}
	} else {
		fmt.Fprintln(table, "kept\trelease\tinstance\tnumber\tprompt\tcompletion\toutcome\tverdict")
		for _, r := range rows {
			fmt.Fprintf(table, "%s\t%s\t%.8s\t%d\t%d\t%d\t%s\t%s\n",
				r.Time, printable(r.Release), r.Instance, r.Sequence, r.Prompt, r.Completion, r.Outcome, r.Verdict)
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, c := range laid {
		if _, err := fmt.Fprintf(w, "instance %.8s: %d receipts, numbers %d to %d, %d between them are not here\n",
			c.Instance, c.Receipts, c.First, c.Last, c.Missing); err != nil {
			return err
		}
	}
	return nil
}
