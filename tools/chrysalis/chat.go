package main

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"chrysalis/attest"
	"chrysalis/attest/check"
	"chrysalis/attest/ratls"
	"chrysalis/measure/ton"
	"chrysalis/runtime/api"
	"chrysalis/runtime/client"
)

// chatFlags are chat's own.
type chatFlags struct {
	remote      remoteFlags
	payer       payerFlags
	model, save string
	maxTokens   uint32
	memory      string
	asJSON      bool
}

func newChat() *cobra.Command {
	var f chatFlags
	cmd := &cobra.Command{
		Use:   "chat URL --policy FILE [PROMPT]",
		Short: "Verify a guest, send it a prompt, check receipt and charge",
		Long: "Sends the prompt only after the guest has been verified over the same connection. The answer streams to standard output;\n" +
			"then its receipt and its charge are checked with the attested keys, against what was sent and what came back. The number of the\n" +
			"receipt must come after those that this user got of the guest before: its journal may have been put back.\n\n" +
			"Without a prompt it is a conversation: each line is one, and what was said before goes with it. /help says what else there is.",
		Example: "  chrysalis chat https://127.0.0.1:8443 --policy policy.json --roots build/guest/tpm-maker.pem \"What is the capital of Norway?\"\n" +
			"  chrysalis chat https://127.0.0.1:8443 --policy policy.json --roots build/guest/tpm-maker.pem   # a conversation",
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 && f.asJSON {
				return exitError{exitUsage, errors.New("--json wants a PROMPT: a conversation is for people")}
			}
			t := talk{cmd: cmd, f: f}
			if err := t.open(args[0]); err != nil {
				return err
			}
			defer func() { t.guest.Close() }()
			if len(args) == 1 {
				return t.converse()
			}
			return t.once(args[1])
		},
	}
	f.remote.add(cmd)
	f.payer.add(cmd)
	cmd.Flags().StringVar(&f.model, "model", "", "model to ask (default: the one that the guest's config names; of several one must be named)")
	cmd.Flags().Uint32Var(&f.maxTokens, "max-tokens", 0, "most tokens of the answer (default: the guest's limit)")
	cmd.Flags().StringVar(&f.save, "save", "", "folder to write answer.txt, request.json, receipt.bin, charge.boc, contract.txt and the keys to")
	cmd.Flags().StringVar(&f.memory, "memory", "", "file that keeps the number of each guest's newest receipt, so that one whose count goes back is found out; none: keep nothing (default: chrysalis/receipts.json in the user's state folder)")
	cmd.Flags().BoolVar(&f.asJSON, "json", false, "print JSON at the end instead of the text as it comes")
	return cmd
}

// talk is chat with one guest.
type talk struct {
	cmd    *cobra.Command
	f      chatFlags
	base   string
	remote ratls.Config
	guest  *client.Guest
	payer  ton.Address
	key    api.Key
	most   uint32 // that tokens may be multiplied by, in parts of 10000; 0: what the config allows
	kept   memory // of receipts; without a file nothing is kept
}

// open verifies the guest and decides who is charged.
func (t *talk) open(url string) (err error) {
	if t.base, _, err = guestAddress(url); err != nil {
		return err
	}
	if t.remote, err = t.f.remote.open(); err != nil {
		return err
	}
	if t.guest, err = t.dial(); err != nil {
		return err
	}
	if (t.f.remote.tdxRoot != "" || t.f.remote.snpRoot != "") && !t.f.asJSON {
		fmt.Fprintln(t.cmd.ErrOrStderr(), software)
	}
	if t.most, err = t.f.payer.coefficient(); err != nil {
		t.guest.Close()
		return err
	}
	if t.payer, t.key, err = t.f.payer.of(t.guest.Result().Config()); err != nil {
		t.guest.Close()
		return usageError(err)
	}
	if names := t.guest.Result().Config().Service.Names(); t.f.model == "" && len(names) > 1 {
		t.guest.Close()
		return exitError{exitUsage, fmt.Errorf("the guest has the models %s: want --model with one of them", printable(strings.Join(names, ", ")))}
	}
	if t.kept.file = cmp.Or(t.f.memory, memoryFile()); t.kept.file == "none" {
		t.kept.file = ""
	}
	return nil
}

func (t *talk) dial() (*client.Guest, error) {
	guest, err := client.Dial(t.cmd.Context(), t.base, t.remote)
	if err != nil {
		return nil, refusalOf(spoken(err), t.f.remote.trusted())
	}
	return guest, nil
}

// once asks one question, and shows the answer with its proof.
func (t *talk) once(prompt string) error {
	known, forgotten := t.known()
	answer, err := t.ask(t.cmd.Context(), []client.Message{{Role: "user", Content: prompt}})
	if err != nil {
		return t.failed(err)
	}
	if t.f.save != "" {
		if err := saveAnswer(t.f.save, answer, t.payer); err != nil {
			return unavailable(err)
		}
	}
	if t.f.asJSON {
		if err := printJSON(t.cmd.OutOrStdout(), chatReport(answer)); err != nil {
			return err
		}
	} else {
		printProof(t.cmd.ErrOrStderr(), answer)
	}
	return t.remember(known, forgotten, answer)
}

// ask sends a conversation and shows the answer as it comes.
func (t *talk) ask(ctx context.Context, messages []client.Message) (*client.Answer, error) {
	request := client.Request{Model: t.f.model, Messages: messages, MaxTokens: t.f.maxTokens, Payer: t.payer, Key: t.key, MaxCoefficient: t.most}
	shown := false
	answer, err := t.guest.Ask(ctx, request, func(p client.Piece) error {
		if t.f.asJSON {
			return nil
		}
		shown = shown || p.Content != ""
		_, err := io.WriteString(t.cmd.OutOrStdout(), printable(p.Content))
		return err
	})
	if !t.f.asJSON && (err == nil || shown) {
		fmt.Fprintln(t.cmd.OutOrStdout())
	}
	return answer, err
}

// failed is what the command line says of an answer that did not come, or is not proven.
func (t *talk) failed(err error) error {
	if refused := (*attest.Refused)(nil); errors.Is(err, attest.ErrRejected) && !errors.As(err, &refused) {
		return rejected(err) // of the answer: the guest itself was accepted
	}
	return refusalOf(spoken(err), t.f.remote.trusted())
}

// known is what guests said last, and why it can't be told.
func (t *talk) known() (map[string]remembered, error) {
	if t.kept.file == "" {
		return nil, nil
	}
	return t.kept.read()
}

// remember judges the receipt's number by what was known before its answer was asked for, and keeps it.
func (t *talk) remember(known map[string]remembered, err error, a *client.Answer) error {
	if t.kept.file == "" {
		return nil
	}
	if err == nil {
		err = t.kept.judge(known, a.Guest.ReceiptKey(), *a.Receipt, a.Signed.Receipt.Hash(), time.Now())
	}
	if back := (wentBack{}); errors.As(err, &back) {
		return rejected(err)
	}
	if err != nil { // the answer is proven, and was shown
		fmt.Fprintf(t.cmd.ErrOrStderr(), "chrysalis: note: %v\n", err)
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

func printProof(w io.Writer, a *client.Answer) {
	name, r := a.Signed.Receipt.Hash(), a.Receipt
	fmt.Fprintf(w, "receipt  %x…  number %d, %d prompt + %d completion tokens, %s: signed by the attested key, over this request and this answer\n",
		name[:8], r.Sequence, r.Usage.Prompt, r.Usage.Completion, r.Outcome)
	if c := r.Coefficient; a.Guest.Config().Service.Settles() && c != ton.WeightOne {
		fmt.Fprintf(w, "price    %d.%04d times the contract's, by the guest's queue\n", c/ton.WeightOne, c%ton.WeightOne)
	}
	if a.Charge == nil && a.Guest.Config().Service.Settles() {
		fmt.Fprintln(w, "charge   none: the contract has nothing that could be charged now, and a later charge stands for this answer too")
		return
	}
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
