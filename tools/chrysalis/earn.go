package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"chrysalis/attest/check"
	"chrysalis/measure/config"
	"chrysalis/measure/pubkey"
	"chrysalis/measure/ton"
	"chrysalis/runtime/cell"
	"chrysalis/runtime/chain"
	"chrysalis/runtime/claim"
	"chrysalis/runtime/settle"
	"chrysalis/tools/internal/carry"
	"chrysalis/tools/internal/guest"
	"chrysalis/tools/internal/onchain"
)

func newEarn() *cobra.Command {
	cmd := &cobra.Command{Use: "earn", Short: "Set up the contracts by which a guest is paid, and see what it earns"}
	cmd.AddCommand(newEarnInit(), newEarnStatus())
	return cmd
}

// earnFlags are earn init's own.
type earnFlags struct {
	config, dir, key, like string
	output, owner          string
	volumes                volumeFlags
	stake, fee             ton.Coins
	uniqueID               uint32
	source                 chainFlags
	hand                   handFlags
}

func newEarnInit() *cobra.Command {
	f := earnFlags{stake: 10 * ton.Coin}
	cmd := &cobra.Command{
		Use:   "init --like ROOT --ton-config FILE --wallet ADDR [--config FILE | --dir DIR]",
		Short: "Plan the contracts of a guest: root, guard, proxy, stake",
		Long: "Plans the messages that set up what a guest is paid by, and hands them to a wallet as claim submit does, with what they cost. What the\n" +
			"chain has already is left out, so that it can be run again: before the first boot for the root contract, which --output writes into the\n" +
			"config with the hash of its params, and for the guard of the payout owner; after it, with --dir, for the proxy contract of the guest's claim key and its stake.\n\n" +
			"The root takes its code, the codes of the other contracts, delays and least stakes from a root that is on the chain, which --like names, and its\n" +
			"price from the config. The wallet owns it. The guard owns the proxy and passes on what reaches it, so that nobody but the guest begins\n" +
			"the proxy's end; the stake stands for what clients can't take out by themselves.\n" +
			"Exit code 0: planned, or all is there. 1: the newest block is old, or a message would fail.",
		Example: "  chrysalis earn init --like EQCns7bYSp0igFvS1wpb5wsZjCKCV19MD5AVzI4EyxsnU73k --ton-config global.config.json --wallet UQDBewVWobi3VbNBLioJUPIK2WzGWJar8H1buf_fO411eSrS --config box.json --output box-paid.json --qr\n" +
			"  chrysalis earn init --like EQCns7bYSp0igFvS1wpb5wsZjCKCV19MD5AVzI4EyxsnU73k --ton-config global.config.json --wallet UQDBewVWobi3VbNBLioJUPIK2WzGWJar8H1buf_fO411eSrS --dir build/guest --stake 25",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.config, "config", "", "the config of a guest that has not been booted, as up takes it")
	f.volumes.add(cmd, "with --config: ", ", where the config does not name it")
	flags.StringVar(&f.owner, "owner", "", "with --config: address that is paid (default: the config's payout_owner)")
	flags.StringVarP(&f.output, "output", "o", "", "with --config: file to write the config to, with root contract and terms of payment")
	flags.StringVar(&f.dir, "dir", "", "folder of a guest that has been booted: its config, and its claim key")
	flags.StringVar(&f.key, "pubkey", "", "claim key, 64 hexadecimal digits (default: that of the guest that was booted last from --dir)")
	flags.StringVar(&f.like, "like", "", "root contract whose codes, delays and least stakes the new one takes")
	flags.Var(&f.stake, "stake", "the proxy's stake, in coins")
	flags.Var(&f.fee, "worker-fee", "of the price of a token, what reaches the payout owner at once, in coins (default: all of it)")
	flags.Uint32Var(&f.uniqueID, "unique-id", 0, "number that tells roots of one owner and one price apart (default: that of --like)")
	f.source.add(cmd, "ton-config")
	f.hand.add(cmd)
	if err := cmd.MarkFlagRequired("like"); err != nil {
		panic(err)
	}
	return cmd
}

// measured returns the guest's config and, where it has been booted, its claim key.
func (f *earnFlags) measured() (m config.Measured, key pubkey.Ed25519, err error) {
	if (f.config == "") == (f.dir == "") {
		return m, key, exitError{exitUsage, errors.New("give --config, of a guest that has not been booted, or --dir")}
	}
	if f.key != "" {
		if key, err = pubkey.Parse(f.key); err != nil {
			return m, key, exitError{exitUsage, fmt.Errorf("--pubkey: %v", err)}
		}
	}
	if f.config != "" {
		files, err := f.volumes.pairs()
		if err != nil {
			return m, key, exitError{exitUsage, err}
		}
		if m, err = guest.ReadConfigOf("", f.config, files); err != nil {
			return m, key, exitError{exitUsage, err}
		}
		if f.owner != "" {
			m.Identity.PayoutOwner, err = addressFlag("owner", f.owner)
		}
		return m, key, err
	}
	if f.owner != "" {
		return m, key, exitError{exitUsage, errors.New("--owner is for --config: whom a guest pays is in its own")}
	}
	spec, err := guest.Guest{Dir: f.dir}.Spec()
	if err != nil {
		return m, key, unavailable(err)
	}
	if key.IsZero() {
		known, err := signersOf(f.dir)
		if err != nil {
			return m, key, unavailable(err)
		}
		if len(known) == 0 {
			return m, key, unavailable(fmt.Errorf("no guest of %s has said its keys yet (start one with: chrysalis up)", f.dir))
		}
		key = known[len(known)-1].Claim
	}
	return spec.Config, key, nil
}

func (f *earnFlags) run(cmd *cobra.Command) error {
	from, err := f.hand.from()
	if err != nil {
		return err
	}
	like, err := addressFlag("like", f.like)
	if err != nil {
		return err
	}
	m, key, err := f.measured()
	if err != nil {
		return err
	}
	r, err := f.source.open(cmd, keptChain)
	if err != nil {
		return err
	}
	p := &plan{from: from, names: map[ton.Address]string{from: "the wallet"}, at: r.Head(), global: r.Network().GlobalID}
	root, terms, err := f.root(cmd.Context(), r, p, like, m)
	if err != nil {
		return chainError(err)
	}
	say(cmd.ErrOrStderr(), "chrysalis: root contract %s\n", root)
	if err := f.write(cmd, m, root, terms.Params, r.Network()); err != nil {
		return err
	}
	if err := f.contracts(cmd.Context(), r, p, terms, key, m); err != nil {
		return chainError(err)
	}
	if len(p.messages) == 0 {
		say(cmd.ErrOrStderr(), "chrysalis: all that there is to set up is there\n")
		if f.hand.asJSON {
			return printJSON(cmd.OutOrStdout(), handed{Block: p.at.Last.Seqno, Messages: []handedMessage{}, Effects: []handedEffect{}})
		}
		return nil
	}
	return f.hand.hand(cmd, p)
}

// maxBlockAge is how old a guest's newest proven block may be, where earn init writes its config: TON's come every few seconds.
const maxBlockAge = 120

// write writes the config with what the plan makes of it, where --output asks for it, or says that it is another.
func (f *earnFlags) write(cmd *cobra.Command, m config.Measured, root ton.Address, p claim.Params, n chain.Network) error {
	params, err := p.Cell()
	if err != nil {
		return unavailable(err)
	}
	before := m
	m.Identity.RootContract = root
	m.Service.Chain.Params = params.Hash()
	if m.Service.Chain.MaxAgeSeconds == 0 {
		m.Service.Chain.MaxAgeSeconds = maxBlockAge
	}
	if m.Identity.Network != config.Mainnet {
		k := n.Anchor.Key
		m.Service.Chain.Anchor = config.Anchor{GlobalID: n.GlobalID, Seqno: k.Seqno, RootHash: k.RootHash, FileHash: k.FileHash}
	}
	if f.output == "" {
		if before.Identity.RootContract != root || before.Service.Chain.Params != m.Service.Chain.Params {
			say(cmd.ErrOrStderr(), "chrysalis: hint: the config names another root contract or other params: --config FILE --output FILE writes one with these, to boot the guest with\n")
		}
		return nil
	}
	if f.config == "" {
		return exitError{exitUsage, errors.New("--output writes a config: give the one that it is made of as --config")}
	}
	text, err := guest.WriteConfig(m)
	if err != nil {
		return unavailable(err)
	}
	if err := os.WriteFile(f.output, []byte(text), 0o644); err != nil {
		return unavailable(err)
	}
	return nil
}

// root adds the root contract, unless it is there, and returns its address and the terms that it sets.
func (f *earnFlags) root(ctx context.Context, r *onchain.Reader, p *plan, like ton.Address, m config.Measured) (ton.Address, settle.Terms, error) {
	var t settle.Terms
	template, err := r.Account(ctx, like)
	if err != nil {
		return like, t, err
	}
	if template.Status != chain.Active || template.Code == nil || template.Data == nil {
		return like, t, fmt.Errorf("%w: --like %s is %s, want a root contract", check.ErrRejected, like, template.Status)
	}
	of, err := claim.ParseRoot(template.Data)
	if err != nil {
		return like, t, fmt.Errorf("%w: --like %s: %w", check.ErrRejected, like, err)
	}
	params := of.Params
	params.Version, params.Price, params.WorkerFee = 1, m.Service.Price.Price, m.Service.Price.NanotonPerToken
	if f.fee != 0 {
		params.WorkerFee = uint64(f.fee)
	}
	if f.uniqueID != 0 {
		params.UniqueID = f.uniqueID
	}
	if params.WorkerFee > params.Price.NanotonPerToken {
		return like, t, exitError{exitUsage, fmt.Errorf("--worker-fee is %s of a price of %s", ton.Coins(params.WorkerFee), ton.Coins(params.Price.NanotonPerToken))}
	}
	if params.Price.NanotonPerToken == 0 {
		return like, t, exitError{exitUsage, errors.New("the config's price is zero: its guest earns nothing")}
	}
	data, err := claim.NewRoot(p.from, params)
	if err == nil && of.Keys != nil {
		// No key manager: an empty list of keys, two zero hashes, and an empty address.
		data.Keys, err = new(cell.Builder).Uint(0, 1).Bytes(make([]byte, 64)).Uint(0, 1+7).Cell()
	}
	if err != nil {
		return like, t, err
	}
	deploy, err := carry.Deploy("deploy the root contract", template.Code, data)
	if err != nil {
		return like, t, err
	}
	// The params go to the other contracts as the chain has them.
	t = settle.Terms{Root: deploy.To, Owner: m.Identity.PayoutOwner, Params: params}
	return deploy.To, t, p.deploy(ctx, r, "the root", deploy)
}

// deploy adds a message that deploys, unless the contract is there.
func (p *plan) deploy(ctx context.Context, r *onchain.Reader, name string, m carry.Message) error {
	if err := p.look(ctx, r, name, m.To); err != nil {
		return err
	}
	if p.account(m.To).Status != chain.Active {
		p.messages = append(p.messages, m)
	}
	return nil
}

func (p *plan) account(at ton.Address) chain.Account {
	for _, a := range p.accounts {
		if a.Address == at {
			return a
		}
	}
	return chain.Account{}
}

// contracts adds the guard and, where the claim key is known, the proxy and its stake.
func (f *earnFlags) contracts(ctx context.Context, r *onchain.Reader, p *plan, t settle.Terms, key pubkey.Ed25519, m config.Measured) error {
	p.names[t.Owner] = "the payout owner"
	guard := claim.Guard{Owner: t.Owner}
	deploy, err := carry.Deploy("deploy the guard of the payout owner", claim.GuardCode(), guard)
	if err != nil {
		return err
	}
	if err := p.deploy(ctx, r, "the guard", deploy); err != nil {
		return err
	}
	if key.IsZero() {
		return nil
	}
	if err := settles(m, t.Params); err != nil {
		return fmt.Errorf("%w (earn init --config FILE --output FILE writes a config that does)", err)
	}
	if least := ton.Coins(max(t.Params.MinProxyStake, t.Params.MinClientStake)); f.stake < least {
		return exitError{exitUsage, fmt.Errorf("--stake is %s, and the root wants %s at least", f.stake, least)}
	}
	t.Key = key
	at, err := t.Proxy()
	if err != nil {
		return err
	}
	if err := p.look(ctx, r, "the proxy", at); err != nil {
		return err
	}
	account := p.account(at)
	if account.Status != chain.Active {
		proxy, err := carry.DeployProxy(t.Params.ProxyCode, t.Params.NewProxy(deploy.To, key, t.Root), f.stake, p.from)
		p.messages = append(p.messages, proxy, carry.ForFees(at))
		return err
	}
	worker, err := t.Worker()
	if err == nil {
		err = p.look(ctx, r, "the worker", worker)
	}
	if err != nil {
		return err
	}
	v, err := settle.Look(t, p.at.Time, account, p.account(worker))
	if err != nil {
		return fmt.Errorf("%w: %w", check.ErrRejected, err)
	}
	if v.Proxy.Stake >= uint64(f.stake) || v.Proxy.State != claim.Normal {
		return nil
	}
	more, err := carry.Stake(at, f.stake-ton.Coins(v.Proxy.Stake), p.from)
	p.messages = append(p.messages, more)
	return err
}
