package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"

	"chrysalis/attest"
	"chrysalis/attest/check"
	"chrysalis/attest/ratls"
	"chrysalis/measure/config"
	"chrysalis/measure/pubkey"
	"chrysalis/measure/register"
	"chrysalis/measure/ton"
	"chrysalis/runtime/api"
	"chrysalis/runtime/chain"
	"chrysalis/runtime/claim"
	"chrysalis/runtime/settle"
	"chrysalis/tools/internal/carry"
	"chrysalis/tools/internal/onchain"
)

func newClient() *cobra.Command {
	cmd := &cobra.Command{Use: "client", Short: "Pay a guest: open a contract, top it up, take out what is left"}
	cmd.AddCommand(newClientOpen(), newClientTopup(), newClientKeys(), newClientStatus(), newClientWithdraw(), newClientClose())
	return cmd
}

// payAccount is what a client keeps of a contract of its own. Its key is a secret: who has it spends the deposit.
type payAccount struct {
	Contract    ton.Address    `json:"contract"`
	Wallet      ton.Address    `json:"wallet"` // the contract's owner
	Root        ton.Address    `json:"root_contract"`
	PayoutOwner ton.Address    `json:"payout_owner"`
	ClaimKey    pubkey.Ed25519 `json:"claim_key"`
	Key         string         `json:"key"` // that the guest is shown (runtime/api)
}

// key returns the account's key, which names its contract.
func (a payAccount) key() (api.Key, error) {
	k, err := api.ParseKey(a.Key)
	if err == nil && (ton.Address{Account: k.Contract}) != a.Contract {
		err = errors.New("it names another contract than the account")
	}
	if err != nil {
		return api.Key{}, exitError{exitUsage, fmt.Errorf("--account: key: %v", err)}
	}
	return k, nil
}

// newKey returns a key with a new secret.
func newKey(contract ton.Address) api.Key {
	k := api.Key{Contract: contract.Account}
	rand.Read(k.Secret[:])
	return k
}

const maxAccountBytes = 1 << 16

func readAccount(file string) (a payAccount, err error) {
	raw, err := readInput(file)
	if err != nil {
		return a, unavailable(err)
	}
	if len(raw) > maxAccountBytes {
		return a, exitError{exitUsage, fmt.Errorf("--account: %s has more than %d bytes", file, maxAccountBytes)}
	}
	if err := json.Unmarshal(raw, &a, json.RejectUnknownMembers(true)); err != nil {
		return a, exitError{exitUsage, fmt.Errorf("--account: %s: %v", file, err)}
	}
	return a, nil
}

// writeAccount writes a file that only its owner reads. It does not replace one: a key that is lost is a deposit that nobody spends.
func writeAccount(file string, a payAccount) error {
	raw, err := json.Marshal(a, jsontext.WithIndent("  "))
	if err != nil {
		return err
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(raw, '\n'))
	return errors.Join(err, f.Sync(), f.Close())
}

// usageError makes a usage error of one that has no exit code of its own.
func usageError(err error) error {
	var exit exitError
	if errors.As(err, &exit) {
		return err
	}
	return exitError{exitUsage, err}
}

// guestRules are what a client asks of a guest's contracts beyond its policy.
type guestRules struct {
	maxDelay time.Duration
	blind    bool
}

func (g *guestRules) add(cmd *cobra.Command) {
	cmd.Flags().DurationVar(&g.maxDelay, "max-delay", 7*24*time.Hour, "reject contracts that take longer to close")
	cmd.Flags().BoolVar(&g.blind, "insecure-skip-history", false,
		"do not read the proxy's whole history: what other clients have there, and whether it covers all, is not known then")
}

// verifyGuest verifies a guest over a connection of its own.
func verifyGuest(ctx context.Context, url string, f *remoteFlags) (*attest.Result, error) {
	_, address, err := guestAddress(url)
	if err != nil {
		return nil, err
	}
	remote, err := f.open()
	if err != nil {
		return nil, err
	}
	conn, err := ratls.Dial(ctx, "tcp", address, remote)
	if err != nil {
		return nil, refusalOf(err, f.trusted())
	}
	defer conn.Close()
	return conn.Result(), nil
}

// judge reads the contracts of a verified guest, and refuses those to which no coin should go.
func (g *guestRules) judge(ctx context.Context, r *onchain.Reader, m config.Measured, key pubkey.Ed25519) (*onchain.Contracts, error) {
	if got, want := r.Network().GlobalID, m.Identity.Network; (got == chain.Mainnet.GlobalID) != (want == config.Mainnet) {
		return nil, fmt.Errorf("%w: the guest is paid on %s, and the chain that is read is network %d", check.ErrRejected, want, got)
	}
	if m.Service.Price.Payment != config.PayCharge {
		return nil, fmt.Errorf("%w: the guest charges nothing: its payment is %s", check.ErrRejected, m.Service.Price.Payment)
	}
	c, err := r.Contracts(ctx, m.Identity.RootContract, key, m.Identity.PayoutOwner)
	if err != nil {
		return nil, err
	}
	if c.View == nil {
		return nil, fmt.Errorf("%w: no proxy contract %s of the attested key, under the guard of the payout owner", check.ErrRejected, c.Proxy.Address)
	}
	if err := settles(m, c.Terms.Params); err != nil {
		return nil, err
	}
	v, p := c.View, c.Terms.Params
	delay := time.Duration(max(p.ClientDelay, p.ProxyDelay)) * time.Second
	var refused []error
	refuse := func(format string, args ...any) { refused = append(refused, fmt.Errorf(format, args...)) }
	if p.Price != m.Service.Price.Price {
		refuse("price of the contracts is %+v, and the guest's config has %+v", p.Price, m.Service.Price.Price)
	}
	if v.Proxy.State != claim.Normal || v.Worker.State != claim.Normal {
		refuse("proxy is %s and worker is %s, want both normal", v.Proxy.State, v.Worker.State)
	}
	if delay > g.maxDelay {
		refuse("a close takes %s, want at most %s", delay, g.maxDelay)
	}
	if least := max(p.MinProxyStake, p.MinClientStake); v.Proxy.Stake < least {
		refuse("the proxy's stake is %s, want %s at least", ton.Coins(v.Proxy.Stake), ton.Coins(least))
	}
	if !g.blind {
		if err := g.history(ctx, r, c, refuse); err != nil {
			return nil, err
		}
	}
	if len(refused) > 0 {
		return nil, fmt.Errorf("%w: %w", check.ErrRejected, errors.Join(refused...))
	}
	return c, nil
}

// settles refuses a config under which no guest gives coins back: one that settles nothing on chain, or under other terms than the root's.
func settles(m config.Measured, p claim.Params) error {
	if !m.Service.Settles() {
		return fmt.Errorf("%w: the config settles nothing on chain: no payout, refund or close would ever be signed, and coins would be lost", check.ErrRejected)
	}
	params, err := p.Cell()
	if err != nil {
		return err
	}
	if got, want := m.Service.Chain.Params, register.Digest(params.Hash()); got != want {
		return fmt.Errorf("%w: the config settles by the params %s, and the root has %s", check.ErrRejected, got, want)
	}
	return nil
}

// history holds what the proxy has against what all its clients may take out: only a stake that stands for one more client's is one, and coins
// that are not there have been paid to somebody.
func (g *guestRules) history(ctx context.Context, r *onchain.Reader, c *onchain.Contracts, refuse func(string, ...any)) error {
	book, err := r.Book(ctx, c)
	if err != nil {
		return err
	}
	v := c.View
	if need := v.Proxy.Stake + book.Deposits + v.Proxy.Balance; v.Native < need {
		refuse("the proxy has %s, and owes its clients, its owner and its stake %s", ton.Coins(v.Native), ton.Coins(need))
	}
	if each := c.Terms.Params.MinClientStake; v.Proxy.Stake/max(each, 1) < uint64(book.Open)+1 {
		refuse("the proxy's stake of %s does not stand for %d clients with %s each, which is what they can't take out by themselves",
			ton.Coins(v.Proxy.Stake), book.Open+1, ton.Coins(each))
	}
	return nil
}

// payFlags are those of the verbs that pay in.
type payFlags struct {
	remote  remoteFlags
	source  chainFlags
	hand    handFlags
	rules   guestRules
	deposit ton.Coins
	account string
}

func (f *payFlags) add(cmd *cobra.Command) {
	f.remote.add(cmd)
	f.source.add(cmd, "ton-config")
	f.hand.add(cmd)
	f.rules.add(cmd)
	cmd.Flags().Var(&f.deposit, "deposit", "how much to pay in, in coins")
	accountFlag(cmd, &f.account)
	if err := cmd.MarkFlagRequired("deposit"); err != nil {
		panic(err)
	}
}

func accountFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVar(file, "account", "", "file with what this client keeps of its contract, its key among it")
	if err := cmd.MarkFlagRequired("account"); err != nil {
		panic(err)
	}
}

const judgedLong = "The guest is verified first, by its policy and over a connection of its own; then its contracts are read by proofs. No coin goes to a\n" +
	"proxy whose key is not the attested claim key, whose owner is not the guard of the attested payout owner, whose code, price or weights are other than\n" +
	"the root's and the config's say, which is closing, which takes too long to close, whose stake does not stand for its clients, or which has less\n" +
	"than it owes. "

func newClientOpen() *cobra.Command {
	var f payFlags
	cmd := &cobra.Command{
		Use:   "open URL --policy FILE --ton-config FILE --wallet ADDR --deposit COINS --account FILE",
		Short: "Open a contract with a guest and pay in, after the guest and its contracts are verified",
		Long: judgedLong + "The contract belongs to the wallet. Its key is made here and written into --account, which only its\n" +
			"owner can read; of its secret only a hash goes to the chain. Exit code 1: guest or contracts are refused, and nothing is handed over.",
		Example: "  chrysalis client open https://127.0.0.1:8443 --policy policy.json --ton-config global.config.json --wallet UQDBewVWobi3VbNBLioJUPIK2WzGWJar8H1buf_fO411eSrS \\\n" +
			"    --deposit 5 --account box.json --qr",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0], f.open) },
	}
	f.add(cmd)
	return cmd
}

func newClientTopup() *cobra.Command {
	var f payFlags
	cmd := &cobra.Command{
		Use:   "topup URL --policy FILE --ton-config FILE --wallet ADDR --deposit COINS --account FILE",
		Short: "Pay in more, after the guest and its contracts are verified anew",
		Long:  judgedLong + "Any wallet may pay in. Exit code 1: guest or contracts are refused, and nothing is handed over.",
		Example: "  chrysalis client topup https://127.0.0.1:8443 --policy policy.json --ton-config global.config.json --wallet UQDBewVWobi3VbNBLioJUPIK2WzGWJar8H1buf_fO411eSrS \\\n" +
			"    --deposit 2.5 --account box.json",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0], f.topup) },
	}
	f.add(cmd)
	return cmd
}

// run verifies guest and contracts, and has next add what is to be sent.
func (f *payFlags) run(cmd *cobra.Command, url string, next func(context.Context, *onchain.Reader, *onchain.Contracts, *plan) error) error {
	from, err := f.hand.from()
	if err != nil {
		return err
	}
	if f.deposit == 0 {
		return exitError{exitUsage, errors.New("--deposit is 0 GRAM, want more")}
	}
	result, err := verifyGuest(cmd.Context(), url, &f.remote)
	if err != nil {
		return err
	}
	r, err := f.source.open(cmd, keptChain)
	if err != nil {
		return err
	}
	c, err := f.rules.judge(cmd.Context(), r, result.Config(), result.ClaimKey())
	if err != nil {
		return chainError(err)
	}
	p := &plan{from: from, names: map[ton.Address]string{c.Proxy.Address: "the proxy"}, accounts: []chain.Account{c.Proxy}, at: r.Head(),
		global: r.Network().GlobalID}
	if err := next(cmd.Context(), r, c, p); err != nil {
		return chainError(err)
	}
	sayPrice(cmd.ErrOrStderr(), result.Config().Service)
	return f.hand.hand(cmd, p)
}

// sayPrice says what a token costs: the price is the contracts', and stands; what it is multiplied by is the guest's queue's, inside the band.
func sayPrice(w io.Writer, s config.Service) {
	band, word := s.Chain.Coefficients(), ""
	if band.Min != ton.WeightOne || band.Max != ton.WeightOne {
		parts := func(n uint32) string { return strconv.FormatFloat(float64(n)/ton.WeightOne, 'f', -1, 64) }
		word = fmt.Sprintf(", times %s to %s as the guest's queue grows, which its host can fill: chat --max-coefficient bounds it", parts(band.Min), parts(band.Max))
	}
	say(w, "chrysalis: a weighted token costs %s%s\n", ton.Coins(s.Price.NanotonPerToken), word)
}

func (f *payFlags) open(ctx context.Context, r *onchain.Reader, c *onchain.Contracts, p *plan) error {
	t := c.Terms
	if least := ton.Coins(t.Params.MinClientStake); f.deposit < least {
		return exitError{exitUsage, fmt.Errorf("--deposit is %s, and the contract keeps a stake of %s", f.deposit, least)}
	}
	at, err := t.Client(p.from)
	if err == nil {
		err = p.look(ctx, r, "the contract", at)
	}
	if err != nil {
		return err
	}
	if p.account(at).Status == chain.Active {
		return fmt.Errorf("%w: %s is open already: chrysalis client topup pays in more", check.ErrRejected, at)
	}
	key := newKey(at)
	a := payAccount{Contract: at, Wallet: p.from, Root: t.Root, PayoutOwner: t.Owner, ClaimKey: t.Key, Key: key.String()}
	m, err := carry.OpenClient(t.Params.ClientCode, t.Params.NewClient(p.from, c.Proxy.Address, t.Key), f.deposit, key.SecretHash())
	if err != nil {
		return err
	}
	p.messages = append(p.messages, m)
	if _, err := p.tried(f.hand.valid); err != nil {
		return err
	}
	if err := os.MkdirAll(cmp.Or(filepath.Dir(f.account), "."), 0o700); err != nil {
		return unavailable(err)
	}
	if err := writeAccount(f.account, a); err != nil {
		return exitError{exitUsage, fmt.Errorf("--account: %w (a file that is there is not replaced)", err)}
	}
	return nil
}

func (f *payFlags) topup(ctx context.Context, r *onchain.Reader, c *onchain.Contracts, p *plan) error {
	a, err := readAccount(f.account)
	if err != nil {
		return err
	}
	client, err := p.client(ctx, r, c, a)
	if err != nil {
		return err
	}
	if client.State != claim.Normal {
		return fmt.Errorf("%w: contract is %s, want normal", check.ErrRejected, client.State)
	}
	m, err := carry.TopUp(a.Contract, f.deposit, p.from)
	p.messages = append(p.messages, m)
	return err
}

// client reads an account's contract, and refuses one that is not the account's.
func (p *plan) client(ctx context.Context, r *onchain.Reader, c *onchain.Contracts, a payAccount) (claim.Client, error) {
	if _, err := a.key(); err != nil {
		return claim.Client{}, err
	}
	at, err := c.Terms.Client(a.Wallet)
	if err != nil {
		return claim.Client{}, err
	}
	if at != a.Contract {
		return claim.Client{}, fmt.Errorf("%w: the account's contract is %s, and its wallet, key and root lead to %s", check.ErrRejected, a.Contract, at)
	}
	if err := p.look(ctx, r, "the contract", at); err != nil {
		return claim.Client{}, err
	}
	account := p.account(at)
	if account.Status != chain.Active {
		return claim.Client{}, fmt.Errorf("%w: contract %s is %s: its wallet has not opened it yet", check.ErrRejected, at, account.Status)
	}
	d, err := settle.Client(c.Terms, account)
	if err != nil {
		return d, fmt.Errorf("%w: %w", check.ErrRejected, err)
	}
	return d, nil
}
