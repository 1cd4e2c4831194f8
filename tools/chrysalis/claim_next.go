package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"chrysalis/attest/check"
	"chrysalis/measure/pubkey"
	"chrysalis/measure/ton"
	"chrysalis/runtime/chain"
	"chrysalis/runtime/claim"
	"chrysalis/tools/internal/carry"
	"chrysalis/tools/internal/earned"
	"chrysalis/tools/internal/guest"
	"chrysalis/tools/internal/onchain"
)

// carryFlags are what claim next and claim submit take.
type carryFlags struct {
	dir, root, owner string
	bodies           []string
	source           chainFlags
	hand             handFlags
}

func (f *carryFlags) add(cmd *cobra.Command) {
	f.addSource(cmd)
	f.hand.add(cmd)
}

// addSource is for a verb that hands over nothing.
func (f *carryFlags) addSource(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.dir, "dir", "build/guest", "folder of the guest")
	flags.StringVar(&f.root, "root", "", "address of the root contract (default: that of the guest's config)")
	flags.StringVar(&f.owner, "owner", "", "address that is paid (default: that of the guest's config)")
	flags.StringSliceVar(&f.bodies, "body", nil, "further signed messages: files, or hexadecimal or base64 text")
	f.source.add(cmd, "ton-config")
}

const nextLong = "Holds every signed message that guests of the folder have handed out, and those that --body gives, against the chain, which is read\n" +
	"by proofs through the file's liteservers: what the chain has already, what a contract would refuse and what would be lost is left out. What\n" +
	"remains is in the order in which to carry it: charges, which move no coin and make room for payouts; refunds; payouts; and the payment of what\n" +
	"the proxy has owed its owner since the last payout. "

func newClaimNext() *cobra.Command {
	var f carryFlags
	cmd := &cobra.Command{
		Use:   "next --ton-config FILE --wallet ADDR [--dir DIR]",
		Short: "Say which signed messages to carry now, what each costs and what it moves",
		Long: nextLong + "Nothing is sent: claim submit hands the same messages to a wallet.\n" +
			"Exit code 0: there is something to carry, or nothing is left to be. 1: a message is no guest's of the folder, or the newest block is old.",
		Example: "  chrysalis claim next --ton-config global.config.json --wallet UQDBewVWobi3VbNBLioJUPIK2WzGWJar8H1buf_fO411eSrS",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return f.run(cmd, false) },
	}
	f.addSource(cmd)
	f.hand.addWallet(cmd)
	return cmd
}

func newClaimSubmit() *cobra.Command {
	var f carryFlags
	cmd := &cobra.Command{
		Use:   "submit --ton-config FILE --wallet ADDR [--qr | --ton-connect] [--dir DIR]",
		Short: "Hand the messages of claim next to a wallet, as links, QR codes or TON Connect's request",
		Long: nextLong + "Each is run over the proven accounts first, and handed over as a ton:// link, with --qr as a code for a phone, with\n" +
			"--ton-connect as one request for all. Any wallet may carry them: no key of a guest's or of a wallet's is asked for.\n" +
			"Exit code 1: a message is no guest's of the folder, the newest block is old, or there is nothing to carry.",
		Example: "  chrysalis claim submit --ton-config global.config.json --wallet UQDBewVWobi3VbNBLioJUPIK2WzGWJar8H1buf_fO411eSrS --qr\n" +
			"  chrysalis claim submit --ton-config global.config.json --wallet UQDBewVWobi3VbNBLioJUPIK2WzGWJar8H1buf_fO411eSrS --ton-connect > request.json",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd, true) },
	}
	f.add(cmd)
	return cmd
}

func (f *carryFlags) run(cmd *cobra.Command, submit bool) error {
	from, err := f.hand.from()
	if err != nil {
		return err
	}
	bodies, refused, err := f.signed()
	if err != nil {
		return unavailable(err)
	}
	root, owner, err := f.identity()
	if err != nil {
		return err
	}
	r, err := f.source.open(cmd, keptChain)
	if err != nil {
		return err
	}
	p := &plan{from: from, names: map[ton.Address]string{owner: "the payout owner"}, at: r.Head(), global: r.Network().GlobalID}
	for _, key := range keysOf(bodies) {
		if err := p.next(cmd.Context(), r, root, owner, key, bodies); err != nil {
			return chainError(err)
		}
	}
	for _, left := range p.left {
		say(cmd.ErrOrStderr(), "chrysalis: hint: %s\n", left)
	}
	if len(p.messages) == 0 {
		say(cmd.ErrOrStderr(), "chrysalis: nothing is left to be carried at block %d\n", r.Head().Last.Seqno)
		if submit && refused == nil {
			refused = errors.New("there is nothing to carry")
		}
		if f.hand.asJSON {
			if err := printJSON(cmd.OutOrStdout(), handed{Block: r.Head().Last.Seqno, Messages: []handedMessage{}, Effects: []handedEffect{}}); err != nil {
				return unavailable(err)
			}
		}
	} else if submit || f.hand.asJSON {
		if p.messages = p.messages[:min(len(p.messages), carry.MaxConnect)]; true {
			err = f.hand.hand(cmd, p)
		}
	} else {
		err = p.show(cmd)
	}
	if err == nil && refused != nil {
		return rejected(refused)
	}
	return err
}

// show writes a plan without links.
func (p *plan) show(cmd *cobra.Command) error {
	h, err := p.tried(0)
	if err != nil {
		return err
	}
	printPlan(cmd.OutOrStdout(), h, false)
	return nil
}

// body is a signed message whose signer is known.
type body struct {
	key     pubkey.Ed25519
	message claim.Message
	raw     []byte
}

// signed returns the messages that there are, each proved; refused says which are not to be.
func (f *carryFlags) signed() (list []body, refused, err error) {
	log, refused, err := claimsOf(f.dir)
	if err != nil && (len(f.bodies) == 0 || !errors.Is(err, fs.ErrNotExist)) {
		return nil, nil, err
	}
	for _, e := range log.Entries {
		if e.Proved {
			list = append(list, body{e.Signers.Claim, claim.Message{Op: claim.ClientCharge, Tokens: e.Tokens, Contract: e.Contract}, e.Proof.Charge[:]})
		}
	}
	for _, c := range log.Claims {
		if c.Proved {
			list = append(list, body{c.Key, c.Message, c.Body})
		}
	}
	known, err := signersOf(f.dir)
	if err != nil {
		return nil, nil, err
	}
	for _, name := range f.bodies {
		raw, err := readBody(name)
		if err != nil {
			return nil, nil, err
		}
		var found *body
		for _, s := range known {
			if m, err := claim.Verify(raw, claim.Policy{Key: s.Claim, AnyContract: true}); err == nil {
				found = &body{s.Claim, *m, raw}
			}
		}
		if found == nil {
			refused = errors.Join(refused, fmt.Errorf("%w: --body %.40s: signed by none of the %d guests that are known here", check.ErrRejected, name, len(known)))
			continue
		}
		list = append(list, *found)
	}
	return list, refused, nil
}

// signersOf returns the keys of the guests that were booted from a folder.
func signersOf(dir string) ([]earned.Signers, error) {
	f, err := os.Open(filepath.Join(dir, guest.SignersFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return earned.ParseSigners(f)
}

// identity returns the root contract and whom it is about, from flags or from the guest's config.
func (f *carryFlags) identity() (root, owner ton.Address, err error) {
	if f.root == "" || f.owner == "" {
		spec, err := guest.Guest{Dir: f.dir}.Spec()
		if err != nil {
			return root, owner, unavailable(fmt.Errorf("%w (or give --root and --owner)", err))
		}
		root, owner = spec.Config.Identity.RootContract, spec.Config.Identity.PayoutOwner
	}
	if f.root != "" {
		if root, err = addressFlag("root", f.root); err != nil {
			return root, owner, err
		}
	}
	if f.owner != "" {
		owner, err = addressFlag("owner", f.owner)
	}
	return root, owner, err
}

// keysOf returns the claim keys of messages, each once.
func keysOf(list []body) (keys []pubkey.Ed25519) {
	for _, b := range list {
		if !slices.Contains(keys, b.key) {
			keys = append(keys, b.key)
		}
	}
	return keys
}

// order is in which order kinds of messages are carried.
var order = []claim.Op{claim.ClientCharge, claim.ClientRefund, claim.WorkerPayout, claim.ProxyClose, claim.WorkerLastPayout, claim.ProxyCloseComplete}

// Exit codes of a contract that has taken as high a count before, or is closed.
const (
	exitOld    = 1000
	exitClosed = 1006
)

// leastDue is what a proxy must owe its owner before it is told to pay: less than that is not worth its fees.
const leastDue = ton.Coin / 10

// next adds the messages of one guest that would land now and do something.
func (p *plan) next(ctx context.Context, r *onchain.Reader, root, owner ton.Address, key pubkey.Ed25519, bodies []body) error {
	c, err := r.Contracts(ctx, root, key, owner)
	if err != nil {
		return err
	}
	if c.View == nil {
		return fmt.Errorf("%w: proxy %s of the guest's claim key is not deployed (chrysalis earn init says how)", check.ErrRejected, c.Proxy.Address)
	}
	p.names[c.Proxy.Address], p.names[c.Worker.Address], p.names[c.Guard] = "the proxy", "the worker", "the guard"
	p.accounts = append(p.accounts, c.Proxy, c.Worker)
	if err := p.look(ctx, r, "the guard", c.Guard); err != nil {
		return err
	}
	newest := map[[2]any]body{}
	for _, b := range bodies {
		at := [2]any{b.message.Op, b.message.Contract}
		if old, there := newest[at]; b.key == key && (!there || old.message.Tokens < b.message.Tokens) {
			newest[at] = b
		}
	}
	for _, op := range order {
		var list []body
		for at, b := range newest {
			if at[0] == op {
				list = append(list, b)
			}
		}
		slices.SortFunc(list, func(a, b body) int {
			return slices.Compare(a.message.Contract.Account[:], b.message.Contract.Account[:])
		})
		for _, b := range list {
			if err := p.consider(ctx, r, c, b); err != nil {
				return err
			}
		}
	}
	return p.payOwner(c)
}

// consider adds a message if it would land and change something.
func (p *plan) consider(ctx context.Context, r *onchain.Reader, c *onchain.Contracts, b body) error {
	m, err := carry.Signed(b.raw, p.from)
	if err != nil {
		return err
	}
	switch b.message.Op {
	case claim.ClientCharge, claim.ClientRefund:
		if err := p.look(ctx, r, "client "+short(b.message.Contract), b.message.Contract); err != nil {
			return err
		}
		if a := p.account(b.message.Contract); a.Data != nil {
			if d, err := claim.ParseClient(a.Data); err == nil && p.names[d.Owner] == "" {
				p.names[d.Owner] = "the owner of client " + short(b.message.Contract)
			}
		}
	case claim.WorkerPayout, claim.WorkerLastPayout:
		if b.message.Contract == c.Worker.Address && c.Worker.Status != chain.Active {
			t := c.Terms
			if m, err = m.DeploysWorker(t.Params.WorkerCode, t.Params.NewWorker(t.Owner, c.Proxy.Address, t.Key)); err != nil {
				return err
			}
		}
	}
	if !slices.ContainsFunc(p.accounts, func(a chain.Account) bool { return a.Address == m.To }) {
		return nil // of another proxy of the same key
	}
	effect, err := carry.Try(p.from, append(slices.Clone(p.messages), m), p.accounts, p.at.Time)
	if err != nil {
		return err
	}
	if failed := effect.Failed(p.name); failed != nil {
		if e := effect.Exit(); e != exitOld && e != exitClosed {
			p.left = append(p.left, fmt.Sprintf("%s is left out: %v", m.Name, failed))
		}
		return nil
	}
	p.messages = append(p.messages, m)
	return nil
}

// payOwner adds the payment of what the proxy owes its owner now: what a payout adds comes after it.
func (p *plan) payOwner(c *onchain.Contracts) error {
	if c.View.Proxy.State == claim.Closed || c.View.Proxy.Balance < leastDue {
		return nil
	}
	m, err := carry.PayOwner(c.Proxy.Address, p.from)
	p.messages = append(p.messages, m)
	return err
}
