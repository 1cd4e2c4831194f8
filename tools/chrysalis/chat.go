package main

import (
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"chrysalis/attest"
	"chrysalis/attest/check"
	"chrysalis/measure/config"
	"chrysalis/measure/ton"
	"chrysalis/runtime/client"
)

// demoPayer is the payment contract of whoever names none on a local chain, where nothing has a value.
var demoPayer = ton.Address{Account: [32]byte{0xc1, 0x1e, 0x47}}

// chatFlags are chat's own.
type chatFlags struct {
	remote             remoteFlags
	payer, model, save string
	maxTokens          uint32
	memory             string
	asJSON             bool
}

func newChat() *cobra.Command {
	var f chatFlags
	cmd := &cobra.Command{
		Use:   "chat URL --policy FILE PROMPT",
		Short: "Verify a guest, send it a prompt, check receipt and charge",
		Long: "Sends the prompt only after the guest has been verified over the same connection. The answer streams to standard output;\n" +
			"then its receipt and its charge are checked with the attested keys, against what was sent and what came back. The number of the\n" +
			"receipt must come after those that this user got of the guest before: its journal may have been put back.",
		Example: "  chrysalis chat https://127.0.0.1:8443 --policy policy.json --roots build/guest/tpm-maker.pem \"What is the capital of Norway?\"",
		Args:    cobra.ExactArgs(2),
		RunE:    func(cmd *cobra.Command, args []string) error { return chat(cmd, f, args[0], args[1]) },
	}
	f.remote.add(cmd)
	cmd.Flags().StringVar(&f.payer, "client", "", "TON address of the payment contract that is charged (default on a local chain: the demonstration's)")
	cmd.Flags().StringVar(&f.model, "model", "", "model to ask (default: the one that the guest's config names)")
	cmd.Flags().Uint32Var(&f.maxTokens, "max-tokens", 0, "most tokens of the answer (default: the guest's limit)")
	cmd.Flags().StringVar(&f.save, "save", "", "folder to write answer.txt, request.json, receipt.bin, charge.boc, contract.txt and the keys to")
	cmd.Flags().StringVar(&f.memory, "memory", "", "file that keeps the number of each guest's newest receipt, so that one whose count goes back is found out; none: keep nothing (default: chrysalis/receipts.json in the user's state folder)")
	cmd.Flags().BoolVar(&f.asJSON, "json", false, "print JSON at the end instead of the text as it comes")
	return cmd
}

func chat(cmd *cobra.Command, f chatFlags, url, prompt string) error {
	base, _, err := guestAddress(url)
	if err != nil {
		return err
	}
	remote, err := f.remote.open()
	if err != nil {
		return err
	}
	guest, err := client.Dial(cmd.Context(), base, remote)
	if err != nil {
		return refusalOf(spoken(err), f.remote.trusted())
	}
	defer guest.Close()
	if (f.remote.tdxRoot != "" || f.remote.snpRoot != "") && !f.asJSON {
		fmt.Fprintln(cmd.ErrOrStderr(), software)
	}
	m := guest.Result().Config()
	payer, err := payerOf(f.payer, m)
	if err != nil {
		return exitError{exitUsage, err}
	}
	kept := memory{cmp.Or(f.memory, memoryFile())}
	if kept.file == "none" {
		kept.file = ""
	}
	var known map[string]remembered
	var forgotten error // why nothing is known
	if kept.file != "" {
		known, forgotten = kept.read()
	}
	request := client.Request{Model: f.model, Messages: []client.Message{{Role: "user", Content: prompt}}, MaxTokens: f.maxTokens, Payer: payer}
	shown := false
	answer, err := guest.Ask(cmd.Context(), request, func(p client.Piece) error {
		if f.asJSON {
			return nil
		}
		shown = shown || p.Content != ""
		_, err := io.WriteString(cmd.OutOrStdout(), printable(p.Content))
		return err
	})
	if !f.asJSON && (err == nil || shown) {
		fmt.Fprintln(cmd.OutOrStdout())
	}
	if refused := (*attest.Refused)(nil); errors.Is(err, attest.ErrRejected) && !errors.As(err, &refused) {
		return rejected(err) // of the answer: the guest itself was accepted
	}
	if err != nil {
		return refusalOf(spoken(err), f.remote.trusted())
	}
	if f.save != "" {
		if err := saveAnswer(f.save, answer, payer); err != nil {
			return unavailable(err)
		}
	}
	if f.asJSON {
		err = printJSON(cmd.OutOrStdout(), chatReport(answer))
	} else {
		printProof(cmd.ErrOrStderr(), answer)
	}
	if err != nil || kept.file == "" {
		return err
	}
	if err = forgotten; err == nil {
		err = kept.judge(known, answer.Guest.ReceiptKey(), *answer.Receipt, answer.Signed.Receipt.Hash(), time.Now())
	}
	if back := (wentBack{}); errors.As(err, &back) {
		return rejected(err)
	}
	if err != nil { // the answer is proven, and was shown
		fmt.Fprintf(cmd.ErrOrStderr(), "chrysalis: note: %v\n", err)
	}
	return nil
}

// spoken puts what a guest has said of itself in the words of the command line.
func spoken(err error) error {
	if declined := (*client.Declined)(nil); errors.As(err, &declined) && declined.Message != "" {
		return fmt.Errorf("the guest says: %s (%d %s)", printable(declined.Message), declined.Status, http.StatusText(declined.Status))
	}
	if cut := (*client.Cut)(nil); errors.As(err, &cut) && cut.Answer != nil {
		r := cut.Answer.Receipt
		return fmt.Errorf("%w\nchrysalis: note: the guest has signed a receipt for what came, %d completion tokens, and charged %d tokens", err, r.Usage.Completion, r.Weighted)
	}
	return err
}

// payerOf decides who is charged.
func payerOf(named string, m config.Measured) (ton.Address, error) {
	switch {
	case m.Service.Price.Payment != config.PayCharge && named != "":
		return ton.Address{}, errors.New("--client: this guest charges nothing")
	case m.Service.Price.Payment != config.PayCharge:
		return ton.Address{}, nil
	case named != "":
		address, err := ton.Parse(named)
		if err != nil {
			return ton.Address{}, fmt.Errorf("--client: %w", err)
		}
		return address, nil
	case m.Identity.Network == config.Local:
		return demoPayer, nil
	}
	return ton.Address{}, fmt.Errorf("--client: this guest charges on %s: name the payment contract", m.Identity.Network)
}

func printProof(w io.Writer, a *client.Answer) {
	name, r := a.Signed.Receipt.Hash(), a.Receipt
	fmt.Fprintf(w, "receipt  %x…  number %d, %d prompt + %d completion tokens, %s: signed by the attested key, over this request and this answer\n",
		name[:8], r.Sequence, r.Usage.Prompt, r.Usage.Completion, r.Outcome)
	if a.Charge == nil {
		fmt.Fprintln(w, "charge   none: this guest charges nothing")
		return
	}
	fmt.Fprintf(w, "charge   %s of %d tokens in all to %s, %d nanoton each: signed by the attested key\n         %x\n",
		a.Charge.Op, a.Charge.Tokens, a.Charge.Contract, r.Price.NanotonPerToken, a.Signed.Charge[:])
}

// answerReport is chat's JSON.
type answerReport struct {
	check.Report
	Answer  string            `json:"answer"`
	Outcome string            `json:"outcome"`
	Usage   map[string]uint32 `json:"usage"`
	Receipt struct {
		Body       string `json:"body"`
		Sequence   uint64 `json:"sequence"`
		Cumulative uint64 `json:"cumulative"`
	} `json:"receipt"`
	Charge *chargeReport `json:"charge,omitempty"`
}

type chargeReport struct {
	Body     string `json:"body"`
	Op       string `json:"op"`
	Tokens   uint64 `json:"tokens"`
	Contract string `json:"contract"`
}

func chatReport(a *client.Answer) answerReport {
	r := a.Receipt
	report := answerReport{
		Report: check.Accept(nil, nil), Answer: a.Content, Outcome: r.Outcome.String(),
		Usage: map[string]uint32{"prompt_tokens": r.Usage.Prompt, "completion_tokens": r.Usage.Completion},
	}
	report.Receipt.Body, report.Receipt.Sequence, report.Receipt.Cumulative = hex.EncodeToString(a.Signed.Receipt[:]), r.Sequence, r.Cumulative
	if c := a.Charge; c != nil {
		report.Charge = &chargeReport{hex.EncodeToString(a.Signed.Charge[:]), c.Op.String(), c.Tokens, c.Contract.String()}
	}
	return report
}

// saveAnswer writes what an auditor needs.
func saveAnswer(dir string, a *client.Answer, payer ton.Address) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var charge []byte
	if a.Signed.Charge != nil {
		charge = a.Signed.Charge[:]
	}
	var errs []error
	for name, content := range map[string][]byte{
		"answer.txt": []byte(a.Content), "request.json": a.Request, "receipt.bin": a.Signed.Receipt[:], "charge.boc": charge,
		"receipt-key.hex": []byte(a.Guest.ReceiptKey().String()), "claim-key.hex": []byte(a.Guest.ClaimKey().String()),
		"contract.txt": []byte(payer.String()),
	} {
		errs = append(errs, os.WriteFile(filepath.Join(dir, name), content, 0o644))
	}
	return errors.Join(errs...)
}
