package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"chrysalis/attest/check"
	"chrysalis/measure/ton"
	"chrysalis/runtime/chain"
	"chrysalis/tools/internal/carry"
	"chrysalis/tools/internal/onchain"
)

// chainFlags say through whom TON's chain is read, and where its proof begins.
type chainFlags struct {
	flag, file   string
	maxAge, wait time.Duration
	trust        bool
	global       int32
}

// add takes the name of the flag with the configuration file: verbs that take a guest's config have another one.
func (f *chainFlags) add(cmd *cobra.Command, flag string) {
	f.addServers(cmd, flag)
	flags := cmd.Flags()
	flags.BoolVar(&f.trust, "insecure-trust-init-block", false,
		"begin at the file's init_block, for a chain of one's own: whoever wrote the file decides what is proven")
	flags.Int32Var(&f.global, "global-id", chain.Mainnet.GlobalID, "with --insecure-trust-init-block: the number that the chain's blocks have")
	if err := cmd.MarkFlagRequired(flag); err != nil {
		panic(err)
	}
}

// addServers is for a verb that may read the chain of a guest's config, which says where its proof begins.
func (f *chainFlags) addServers(cmd *cobra.Command, flag string) {
	f.flag = flag
	flags, prefix := cmd.Flags(), strings.TrimSuffix(flag, "config")
	flags.StringVar(&f.file, flag, "", "TON's global configuration file, for its liteservers")
	flags.DurationVar(&f.maxAge, prefix+"max-age", 10*time.Minute, "reject a newest block that is older")
	flags.DurationVar(&f.wait, prefix+"wait", 10*time.Second, "how long one liteserver may take for an answer")
}

// options reads the configuration file.
func (f *chainFlags) options(cmd *cobra.Command) (o onchain.Options, err error) {
	raw, err := readInput(f.file)
	if err != nil {
		return o, exitError{exitUsage, fmt.Errorf("--%s: %v", f.flag, err)}
	}
	o = onchain.Options{Wait: f.wait, MaxAge: f.maxAge, At: func(h chain.Head) {
		fmt.Fprintf(cmd.ErrOrStderr(), "chrysalis: hint: at key block %d, of %s\n", h.Key.Seqno, utc(h.Time).Format(time.DateOnly))
	}}
	if o.Network, o.Servers, err = onchain.ReadConfig(raw, f.trust, f.global); err != nil {
		return o, exitError{exitUsage, fmt.Errorf("--%s: %s: %v", f.flag, f.file, err)}
	}
	return o, nil
}

// open proves the newest block. kept names the file in the user's folder that keeps how far the chain was followed; "": none.
func (f *chainFlags) open(cmd *cobra.Command, kept string) (*onchain.Reader, error) {
	o, err := f.options(cmd)
	if err != nil {
		return nil, err
	}
	if home := memoryFile(); kept != "" && home != "" && !f.trust {
		o.Kept = filepath.Join(filepath.Dir(home), kept)
	}
	r, err := onchain.Open(cmd.Context(), o)
	return r, chainError(err)
}

// keptChain is the file that keeps how far the main network was followed.
const keptChain = "chain-mainnet.json"

// chainError gives an error of reading the chain its exit code: what is proven and wrong is a rejection, what could not be proven is not.
func chainError(err error) error {
	var exit exitError
	switch {
	case err == nil || errors.As(err, &exit):
		return err
	case errors.Is(err, onchain.ErrServers):
		return exitError{exitUsage, err}
	case errors.Is(err, check.ErrRejected):
		return rejected(err)
	}
	return unavailable(err)
}

// handFlags say in which form messages are handed to a wallet.
type handFlags struct {
	wallet              string
	qr, connect, asJSON bool
	valid               time.Duration
}

func (f *handFlags) add(cmd *cobra.Command) {
	f.addWallet(cmd)
	flags := cmd.Flags()
	flags.BoolVar(&f.qr, "qr", false, "show each link as a QR code too")
	flags.BoolVar(&f.connect, "ton-connect", false, "print nothing but TON Connect's request, for a wallet that speaks it")
	flags.DurationVar(&f.valid, "valid", 10*time.Minute, "with --ton-connect: for how long the wallet may send")
}

// addWallet is for a verb that hands over nothing.
func (f *handFlags) addWallet(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.wallet, "wallet", "", "address of the wallet that sends; what is left of a message comes back to it")
	flags.BoolVar(&f.asJSON, "json", false, "print JSON")
	if err := cmd.MarkFlagRequired("wallet"); err != nil {
		panic(err)
	}
}

func (f *handFlags) from() (ton.Address, error) { return addressFlag("wallet", f.wallet) }

// addressFlag reads the address that a flag gives.
func addressFlag(flag, text string) (ton.Address, error) {
	a, err := ton.Parse(text)
	if err == nil {
		err = a.Check()
	}
	if err != nil {
		return a, exitError{exitUsage, fmt.Errorf("--%s: %v", flag, err)}
	}
	return a, nil
}

// plan is what a wallet is asked to send, over the accounts that it is about.
type plan struct {
	from     ton.Address
	messages []carry.Message
	accounts []chain.Account
	names    map[ton.Address]string
	at       chain.Head
	global   int32
	left     []string // what is left out, and why
}

// name is what an account is in a plan.
func (p *plan) name(a ton.Address) string {
	if name := p.names[a]; name != "" {
		return name
	}
	return short(a)
}

// short is an address for people who have seen it before.
func short(a ton.Address) string {
	text := a.Friendly(true)
	return text[:6] + "…" + text[len(text)-6:]
}

// look adds accounts as the reader's head has them, once each.
func (p *plan) look(ctx context.Context, r *onchain.Reader, name string, at ton.Address) error {
	p.names[at] = name
	if slices.ContainsFunc(p.accounts, func(a chain.Account) bool { return a.Address == at }) {
		return nil
	}
	a, err := r.Account(ctx, at)
	if err != nil {
		return err
	}
	p.accounts = append(p.accounts, a)
	return nil
}

// handed is a plan for machines.
type handed struct {
	Block    uint32          `json:"block"`
	Messages []handedMessage `json:"messages"`
	Cost     int64           `json:"cost_nanoton"` // of the wallet, beside its own fee
	Effects  []handedEffect  `json:"effects"`
	Connect  json.RawMessage `json:"ton_connect,omitempty"`
}

type handedMessage struct {
	Name  string `json:"name"`
	To    string `json:"to"`
	Value uint64 `json:"nanoton"`
	Link  string `json:"link"`
}

type handedEffect struct {
	Account string `json:"account"`
	Name    string `json:"name"`
	Nanoton int64  `json:"nanoton"`
}

// tried runs a plan over its accounts: what it costs, what it does, and its messages in the forms of wallets.
func (p *plan) tried(valid time.Duration) (handed, error) {
	effect, err := carry.Try(p.from, p.messages, p.accounts, p.at.Time)
	if err != nil {
		return handed{}, unavailable(fmt.Errorf("trying the messages: %w", err))
	}
	if err := effect.Failed(p.name); err != nil {
		return handed{}, rejected(fmt.Errorf("trying the messages over block %d: %w", p.at.Last.Seqno, err))
	}
	h := handed{Block: p.at.Last.Seqno, Cost: -effect.Change[p.from], Effects: []handedEffect{}}
	for _, m := range p.messages {
		link, err := m.Link()
		if err != nil {
			return handed{}, unavailable(err)
		}
		h.Messages = append(h.Messages, handedMessage{m.Name, m.To.String(), uint64(m.Value), link})
	}
	for a, n := range effect.Change {
		if a != p.from && n != 0 {
			h.Effects = append(h.Effects, handedEffect{a.String(), p.name(a), n})
		}
	}
	slices.SortFunc(h.Effects, func(a, b handedEffect) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Account, b.Account))
	})
	if len(p.messages) <= carry.MaxConnect {
		if h.Connect, err = carry.Connect(p.messages, p.from, p.global, time.Now().Add(valid)); err != nil {
			return handed{}, unavailable(err)
		}
	}
	return h, nil
}

// hand tries a plan and hands it over. What would fail is handed to nobody.
func (f *handFlags) hand(cmd *cobra.Command, p *plan) error {
	h, err := p.tried(f.valid)
	if err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	switch {
	case f.connect && h.Connect == nil:
		return exitError{exitUsage, fmt.Errorf("%d messages, and TON Connect takes %d at once: send the links", len(p.messages), carry.MaxConnect)}
	case f.connect:
		printPlan(cmd.ErrOrStderr(), h, false)
		fmt.Fprintf(out, "%s\n", h.Connect)
	case f.asJSON:
		if err := printJSON(out, h); err != nil {
			return unavailable(err)
		}
	default:
		printPlan(out, h, true)
		if f.qr {
			return printCodes(out, cmd.ErrOrStderr(), h)
		}
	}
	return nil
}

// printPlan writes messages with what each brings, and what all of them do.
func printPlan(w io.Writer, h handed, links bool) {
	for i, m := range h.Messages {
		say(w, "%d. %s, with %s\n", i+1, m.Name, ton.Coins(m.Value))
		if links {
			fmt.Fprintf(w, "%s\n", m.Link)
		}
	}
	say(w, "%-9s %s, and the wallet's own fee\n", "costs", signed(h.Cost))
	for _, e := range h.Effects {
		say(w, "%-9s %s for %s\n", "moves", signed(e.Nanoton), e.Name)
	}
}

// signed is an amount that may be less than nothing.
func signed(n int64) string {
	if n < 0 {
		return "-" + ton.Coins(-n).String()
	}
	return ton.Coins(n).String()
}

// printCodes writes each link as a QR code, where it fits.
func printCodes(w, hints io.Writer, h handed) error {
	width := columns(w)
	if width == 0 {
		width = helpColumns
	}
	for i, m := range h.Messages {
		code, err := carry.QR(m.Link, width)
		if err != nil {
			say(hints, "chrysalis: hint: no code of message %d: %v; open the link, or take --ton-connect\n", i+1, err)
			continue
		}
		if len(h.Messages) > 1 {
			fmt.Fprintf(w, "%d.\n", i+1)
		}
		io.WriteString(w, strings.TrimRight(code, "\n")+"\n")
	}
	return nil
}
