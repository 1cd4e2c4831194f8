package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"

	"github.com/go-json-experiment/json"
	"github.com/spf13/cobra"

	"chrysalis/attest"
	"chrysalis/attest/ratls"
	"chrysalis/measure/config"
	"chrysalis/measure/ton"
	"chrysalis/runtime/claim"
	"chrysalis/runtime/receipt"
)

// demoClient is the payment contract of whoever names none on a local chain, where nothing has a value.
var demoClient = ton.Address{Account: [32]byte{0xc1, 0x1e, 0x47}}

// chatFlags are chat's own.
type chatFlags struct {
	remote              remoteFlags
	client, model, save string
	maxTokens           uint32
	asJSON              bool
}

func newChat() *cobra.Command {
	var f chatFlags
	cmd := &cobra.Command{
		Use:   "chat URL --policy FILE PROMPT",
		Short: "Verify a guest, send it a prompt, check receipt and charge",
		Long: "Sends the prompt only after the guest has been verified over the same connection. The answer streams to standard output;\n" +
			"then its receipt and its charge are checked with the attested keys, against what was sent and what came back.",
		Example: "  chrysalis chat https://127.0.0.1:8443 --policy policy.json --roots build/guest/tpm-maker.pem \"What is the capital of Norway?\"",
		Args:    cobra.ExactArgs(2),
		RunE:    func(cmd *cobra.Command, args []string) error { return chat(cmd, f, args[0], args[1]) },
	}
	f.remote.add(cmd)
	cmd.Flags().StringVar(&f.client, "client", "", "TON address of the payment contract that is charged (default on a local chain: the demonstration's)")
	cmd.Flags().StringVar(&f.model, "model", "", "model to ask (default: the one that the guest's config names)")
	cmd.Flags().Uint32Var(&f.maxTokens, "max-tokens", 0, "most tokens of the answer (default: the guest's limit)")
	cmd.Flags().StringVar(&f.save, "save", "", "folder to write answer.txt, request.json, receipt.bin, charge.boc, contract.txt and the keys to")
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
	guest := &guestClient{base: base, transport: ratls.NewTransport(remote)}
	defer guest.transport.CloseIdleConnections()
	// The request depends on the config, so the guest is verified before it is built. The same connection carries it.
	first, err := guest.meet(cmd.Context())
	if err != nil {
		return refusalOf(err, f.remote.roots)
	}
	client, err := clientOf(f.client, first.Config())
	if err != nil {
		return exitError{exitUsage, err}
	}
	body, err := requestBody(f, first.Config(), prompt)
	if err != nil {
		return err
	}
	var text io.Writer = terminalText{cmd.OutOrStdout()}
	if f.asJSON {
		text = io.Discard
	}
	a, result, err := guest.ask(cmd.Context(), body, client, text)
	if err == nil && !bytes.Equal(result.ConfigBytes(), first.ConfigBytes()) {
		err = fmt.Errorf("the guest that answered has another config than the one asked: %w", attest.ErrRejected)
	}
	if err != nil {
		if a != nil && a.text.Len() > 0 && !f.asJSON {
			fmt.Fprintln(cmd.OutOrStdout())
		}
		return refusalOf(err, f.remote.roots)
	}
	if !f.asJSON {
		fmt.Fprintln(cmd.OutOrStdout())
	}
	r, charge, err := a.judge(result, body, client)
	if err != nil {
		return rejected(err)
	}
	if f.save != "" {
		if err := saveAnswer(f.save, a, body, client, result); err != nil {
			return unavailable(err)
		}
	}
	if f.asJSON {
		return printJSON(cmd.OutOrStdout(), chatReport(a, r, charge))
	}
	printProof(cmd.ErrOrStderr(), r, charge, a)
	return nil
}

// clientOf decides who is charged.
func clientOf(named string, m config.Measured) (ton.Address, error) {
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
		return demoClient, nil
	}
	return ton.Address{}, fmt.Errorf("--client: this guest charges on %s: name the payment contract", m.Identity.Network)
}

func requestBody(f chatFlags, m config.Measured, prompt string) ([]byte, error) {
	type message struct {
		Role    string `json:"role"`
		Content string `json:"content"`
	}
	request := struct {
		Model     string    `json:"model"`
		Messages  []message `json:"messages"`
		MaxTokens uint32    `json:"max_tokens,omitzero"`
		Stream    bool      `json:"stream"`
	}{f.model, []message{{"user", prompt}}, f.maxTokens, true}
	if request.Model == "" {
		request.Model = m.Service.Model.Name
	}
	return json.Marshal(request)
}

// guestClient sends requests to one guest.
type guestClient struct {
	base      string
	transport *ratls.Transport
}

// meet verifies the guest and returns what it is.
func (g *guestClient) meet(ctx context.Context) (*attest.Result, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, g.base+"/v1/models", nil)
	if err != nil {
		return nil, err
	}
	response, result, err := g.transport.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, refusal(response)
	}
	// Read to its end, so that the connection can carry the next request.
	_, err = io.Copy(io.Discard, io.LimitReader(response.Body, maxEventBytes))
	return result, err
}

// ask sends a chat request and writes the answer's text as it comes.
func (g *guestClient) ask(ctx context.Context, body []byte, client ton.Address, text io.Writer) (*answer, *attest.Result, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, g.base+"/v1/chat/completions", bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	if !client.IsZero() {
		request.Header.Set("Chrysalis-Client", client.String())
	}
	response, result, err := g.transport.Do(request)
	if err != nil {
		return nil, nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, nil, refusal(response)
	}
	a, err := readAnswer(response.Body, text)
	return a, result, err
}

// terminalText writes a model's text without what would control the terminal. Files and pipes get the same.
type terminalText struct{ w io.Writer }

func (t terminalText) Write(p []byte) (int, error) {
	_, err := io.WriteString(t.w, printable(string(p)))
	return len(p), err
}

func printProof(w io.Writer, r *receipt.Receipt, charge *claim.Message, a *answer) {
	name := sha256.Sum256(a.receipt)
	fmt.Fprintf(w, "receipt  %x…  number %d, %d prompt + %d completion tokens, %s: signed by the attested key, over this request and this answer\n",
		name[:8], r.Sequence, r.Usage.Prompt, r.Usage.Completion, r.Outcome)
	if charge == nil {
		fmt.Fprintln(w, "charge   none: this guest charges nothing")
		return
	}
	fmt.Fprintf(w, "charge   %s of %d tokens in all to %s, %d nanoton each: signed by the attested key\n         %x\n",
		charge.Op, charge.Tokens, charge.Contract, r.Price.NanotonPerToken, a.charge)
}

func chatReport(a *answer, r *receipt.Receipt, charge *claim.Message) any {
	report := map[string]any{
		"answer": a.text.String(), "verdict": "accepted", "outcome": r.Outcome.String(),
		"usage":   map[string]uint32{"prompt_tokens": r.Usage.Prompt, "completion_tokens": r.Usage.Completion},
		"receipt": map[string]any{"body": hex.EncodeToString(a.receipt), "sequence": r.Sequence, "cumulative": r.Cumulative},
	}
	if charge != nil {
		report["charge"] = map[string]any{"body": hex.EncodeToString(a.charge), "op": charge.Op.String(), "tokens": charge.Tokens, "contract": charge.Contract.String()}
	}
	return report
}

// saveAnswer writes what an auditor needs.
func saveAnswer(dir string, a *answer, request []byte, client ton.Address, result *attest.Result) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var errs []error
	for name, content := range map[string][]byte{
		"answer.txt": []byte(a.text.String()), "request.json": request, "receipt.bin": a.receipt, "charge.boc": a.charge,
		"receipt-key.hex": []byte(hex.EncodeToString(result.ReceiptKey())), "claim-key.hex": []byte(hex.EncodeToString(result.ClaimKey())),
		"contract.txt": []byte(client.String()),
	} {
		errs = append(errs, os.WriteFile(filepath.Join(dir, name), content, 0o644))
	}
	return errors.Join(errs...)
}
