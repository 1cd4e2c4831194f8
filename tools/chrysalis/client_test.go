package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"chrysalis/attest/check"
	"chrysalis/measure/config"
	"chrysalis/measure/pubkey"
	"chrysalis/measure/ton"
	"chrysalis/runtime/chain/chaintest"
	"chrysalis/runtime/claim"
	"chrysalis/runtime/settle"
	"chrysalis/tools/internal/carry"
	"chrysalis/tools/internal/onchain"
)

// send has the world's contracts get a message.
func (p *payWorld) send(t *testing.T, from ton.Address, m carry.Message, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.world.Chain.Step(chaintest.Message{From: from, To: m.To, Value: uint64(m.Value), Bounce: true, Init: m.Init, Body: m.Body}); err != nil {
		t.Fatal(err)
	}
}

// terms are those of the world's guest.
func (p *payWorld) terms() settle.Terms {
	id := p.spec.Config.Identity
	params := p.params
	return settle.Terms{Root: id.RootContract, Key: pubkey.Of(p.guest.ClaimKey), Owner: id.PayoutOwner, Params: params}
}

// deploy puts root, guard and proxy on the chain.
func (p *payWorld) deploy(t *testing.T, stake ton.Coins) {
	t.Helper()
	provider := p.wallets["provider"].Address
	root, err := claim.NewRoot(provider, p.params)
	if err != nil {
		t.Fatal(err)
	}
	m, err := carry.Deploy("root", chaintest.Code("root"), root)
	p.send(t, provider, m, err)
	terms := p.terms()
	guard, err := terms.Guard()
	if err != nil {
		t.Fatal(err)
	}
	m, err = carry.DeployProxy(p.params.ProxyCode, p.params.NewProxy(guard, terms.Key, terms.Root), stake, provider)
	p.send(t, provider, m, err)
	p.send(t, provider, carry.ForFees(m.To), nil)
}

// TestJudge: what a client refuses of a guest's contracts, each alone.
func TestJudge(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		stake      ton.Coins
		change     func(*testing.T, *payWorld, *config.Measured, *pubkey.Ed25519, *guestRules)
	}{
		{"a good guest", "", 10 * ton.Coin, nil},
		{"a chain that is not the guest's", "paid on mainnet, and the chain that is read is network -217", 10 * ton.Coin,
			func(_ *testing.T, _ *payWorld, m *config.Measured, _ *pubkey.Ed25519, _ *guestRules) {
				m.Identity.Network = config.Mainnet
			}},
		{"a guest that charges nothing", "its payment is none", 10 * ton.Coin,
			func(_ *testing.T, _ *payWorld, m *config.Measured, _ *pubkey.Ed25519, _ *guestRules) {
				m.Service.Price.Payment = config.PayNothing
			}},
		{"a guest that settles nothing", "coins would be lost", 10 * ton.Coin,
			func(_ *testing.T, _ *payWorld, m *config.Measured, _ *pubkey.Ed25519, _ *guestRules) {
				m.Service.Chain = config.Chain{}
			}},
		{"a guest that settles by other params", "and the root has", 10 * ton.Coin,
			func(_ *testing.T, _ *payWorld, m *config.Measured, _ *pubkey.Ed25519, _ *guestRules) {
				m.Service.Chain.Params[0]++
			}},
		{"another root", "want active", 10 * ton.Coin,
			func(_ *testing.T, _ *payWorld, m *config.Measured, _ *pubkey.Ed25519, _ *guestRules) {
				m.Identity.RootContract.Account[0]++
			}},
		{"another key", "no proxy contract", 10 * ton.Coin,
			func(_ *testing.T, _ *payWorld, _ *config.Measured, key *pubkey.Ed25519, _ *guestRules) { key[0]++ }},
		{"another payout owner", "no proxy contract", 10 * ton.Coin,
			func(_ *testing.T, _ *payWorld, m *config.Measured, _ *pubkey.Ed25519, _ *guestRules) {
				m.Identity.PayoutOwner.Account[0]++
			}},
		{"another price", "the guest's config has {NanotonPerToken:50000001", 10 * ton.Coin,
			func(_ *testing.T, _ *payWorld, m *config.Measured, _ *pubkey.Ed25519, _ *guestRules) {
				m.Service.Price.NanotonPerToken++
			}},
		{"another weight", "price of the contracts", 10 * ton.Coin,
			func(_ *testing.T, _ *payWorld, m *config.Measured, _ *pubkey.Ed25519, _ *guestRules) {
				m.Service.Price.CachedWeight++
			}},
		{"a long delay", "a close takes 20s, want at most 19s", 10 * ton.Coin,
			func(_ *testing.T, _ *payWorld, _ *config.Measured, _ *pubkey.Ed25519, g *guestRules) {
				g.maxDelay = (payDelay - 1) * time.Second
			}},
		{"no stake for one", "want 1 GRAM at least", ton.Coin / 2, nil},
		{"a stake for one client, and one is there", "does not stand for 2 clients", ton.Coin + ton.Coin/2,
			func(t *testing.T, p *payWorld, _ *config.Measured, _ *pubkey.Ed25519, _ *guestRules) {
				p.pay(t, "stranger", 3*ton.Coin)
			}},
		{"a proxy that closes", "proxy is closing", 10 * ton.Coin, func(t *testing.T, p *payWorld, _ *config.Measured, _ *pubkey.Ed25519, _ *guestRules) {
			proxy, err := p.terms().Proxy()
			if err != nil {
				t.Fatal(err)
			}
			b, err := claim.SignClose(p.guest.ClaimKey, claim.Message{Op: claim.ProxyClose, Contract: proxy, Excesses: proxy})
			if err != nil {
				t.Fatal(err)
			}
			m, err := carry.Signed(b[:], proxy)
			p.send(t, proxy, m, err)
		}},
		{"a pool that was paid out", "and owes its clients", 10 * ton.Coin,
			func(t *testing.T, p *payWorld, _ *config.Measured, _ *pubkey.Ed25519, _ *guestRules) { p.robbed(t) }},
		{"the same, unread", "", 10 * ton.Coin, func(t *testing.T, p *payWorld, _ *config.Measured, _ *pubkey.Ed25519, g *guestRules) {
			p.robbed(t)
			g.blind = true
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPayWorld(t)
			p.deploy(t, tt.stake)
			m, key, rules := p.spec.Config, pubkey.Of(p.guest.ClaimKey), guestRules{maxDelay: time.Minute}
			if tt.change != nil {
				tt.change(t, p, &m, &key, &rules)
			}
			r, err := onchain.Open(t.Context(), p.options)
			if err != nil {
				t.Fatal(err)
			}
			_, err = rules.judge(t.Context(), r, m, key)
			if (err == nil) != (tt.want == "") || err != nil && (!strings.Contains(err.Error(), tt.want) || !errors.Is(err, check.ErrRejected)) {
				t.Errorf("got %v, want a rejection with %q", err, tt.want)
			}
		})
	}
}

// pay opens a client's contract and pays in.
func (p *payWorld) pay(t *testing.T, wallet string, coins ton.Coins) {
	t.Helper()
	terms := p.terms()
	proxy, err := terms.Proxy()
	if err != nil {
		t.Fatal(err)
	}
	of := p.wallets[wallet].Address
	m, err := carry.OpenClient(p.params.ClientCode, p.params.NewClient(of, proxy, terms.Key), coins, [32]byte{1})
	p.send(t, of, m, err)
}

// robbed has a guest whose signer is broken pay itself out of a client's deposit.
func (p *payWorld) robbed(t *testing.T) {
	t.Helper()
	p.pay(t, "stranger", 5*ton.Coin)
	terms := p.terms()
	worker, err := terms.Worker()
	if err != nil {
		t.Fatal(err)
	}
	proxy, err := terms.Proxy()
	if err != nil {
		t.Fatal(err)
	}
	b, err := claim.Sign(p.guest.ClaimKey, claim.Message{Op: claim.WorkerPayout, Tokens: 20, Contract: worker, Excesses: worker})
	if err != nil {
		t.Fatal(err)
	}
	m, err := carry.Signed(b[:], proxy)
	if err == nil {
		m, err = m.DeploysWorker(p.params.WorkerCode, p.params.NewWorker(terms.Owner, proxy, terms.Key))
	}
	p.send(t, p.wallets["provider"].Address, m, err)
}

// TestPlanRefuses: what a contract would refuse is handed to nobody.
func TestPlanRefuses(t *testing.T) {
	p := newPayWorld(t)
	p.deploy(t, 10*ton.Coin)
	p.pay(t, "client", 5*ton.Coin)
	r, err := onchain.Open(t.Context(), p.options)
	if err != nil {
		t.Fatal(err)
	}
	at, err := p.terms().Client(p.wallets["client"].Address)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"client": "", "stranger": "the contract refuses the message with exit code 1008"} {
		from := p.wallets[name].Address
		m, err := carry.Withdraw(at, from)
		plan := plan{from: from, messages: []carry.Message{m}, names: map[ton.Address]string{}, at: r.Head()}
		if err := errors.Join(err, plan.look(t.Context(), r, "the contract", at)); err != nil {
			t.Fatal(err)
		}
		_, err = plan.tried(time.Minute)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", name, err, want)
		}
	}
}

func TestSayPrice(t *testing.T) {
	for want, band := range map[string]config.Band{
		"chrysalis: a weighted token costs 0.05 GRAM\n":                         {},
		"chrysalis: a weighted token costs 0.05 GRAM, times 0.5 to 2.25 as the": {Min: 5000, Max: 22500},
	} {
		var b strings.Builder
		s := config.Service{Price: config.Terms{Price: ton.Price{NanotonPerToken: 50_000_000}}, Chain: config.Chain{Coefficient: band}}
		if sayPrice(&b, s); !strings.HasPrefix(b.String(), want) {
			t.Errorf("%+v: got %q, want %q", band, b.String(), want)
		}
	}
}

// TestAccountFile: a client's file is its own, is not replaced, and is read as it was written or not at all.
func TestAccountFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "account.json")
	a := payAccount{Contract: ton.Address{Account: [32]byte{1}}, Wallet: ton.Address{Account: [32]byte{2}}, Root: ton.Address{Account: [32]byte{3}},
		PayoutOwner: ton.Address{Account: [32]byte{4}}, ClaimKey: pubkey.Ed25519{5}, Key: newKey(ton.Address{Account: [32]byte{1}}).String()}
	if err := writeAccount(file, a); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("written as %v (%v), want for its owner alone", info.Mode(), err)
	}
	if got, err := readAccount(file); err != nil || got != a {
		t.Errorf("read as %+v (%v), want %+v", got, err, a)
	}
	if err := writeAccount(file, a); !errors.Is(err, os.ErrExist) {
		t.Errorf("written again: got %v, want that it is there", err)
	}
	if k, err := a.key(); err != nil || k == newKey(a.Contract) || k.Secret == ([32]byte{}) {
		t.Errorf("key %v (%v), want another each time", k.Contract, err)
	}
	other := a
	other.Contract.Account[0]++
	if _, err := other.key(); err == nil || !strings.Contains(err.Error(), "names another contract") || strings.Contains(err.Error(), a.Key) {
		t.Errorf("the key of another contract: got %v", err)
	}
	for name, text := range map[string]string{"nothing": "", "another member": `{"key":1}`, "too much": strings.Repeat(" ", maxAccountBytes+1)} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readAccount(file); err == nil || !strings.Contains(err.Error(), "--account") {
			t.Errorf("%s: got %v, want an error", name, err)
		}
	}
}
