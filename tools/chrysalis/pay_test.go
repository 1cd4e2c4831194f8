package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/crypto/sha3"

	"chrysalis/measure/config"
	"chrysalis/measure/pubkey"
	"chrysalis/measure/ton"
	"chrysalis/runtime/api"
	"chrysalis/runtime/chain/chaintest"
	"chrysalis/runtime/claim"
	"chrysalis/runtime/receipt"
	"chrysalis/runtime/settle"
	"chrysalis/tools/internal/earned"
	"chrysalis/tools/internal/guest"
	"chrysalis/tools/internal/localchain"
	"chrysalis/tools/internal/onchain"
)

// payWorld is a local chain with two wallets and a guest that charges under a root of the provider's own.
type payWorld struct {
	world   *localchain.World
	guest   softwareGuest
	spec    guest.Spec
	params  claim.Params
	wallets map[string]*localchain.Wallet
	options onchain.Options
}

// payDelay is how long contracts of these tests take to close: less than what a block may be ahead of the clock.
const payDelay = 20

func newPayWorld(t *testing.T) *payWorld {
	t.Helper()
	p := &payWorld{wallets: map[string]*localchain.Wallet{}}
	names := []string{"provider", "payout", "client", "stranger"}
	var err error
	p.world, err = localchain.New(localchain.Options{Delay: payDelay, Wallets: names, Funds: 100 * ton.Coin, Time: uint32(time.Now().Unix()) - 60})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.world.Close() })
	for _, name := range names {
		if p.wallets[name], err = localchain.NewWallet(name); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := p.world.Config()
	if err != nil {
		t.Fatal(err)
	}
	p.options = onchain.Options{Wait: 10 * time.Second, MaxAge: 10 * time.Minute}
	if p.options.Network, p.options.Servers, err = onchain.ReadConfig(raw, true, localchain.GlobalID); err != nil {
		t.Fatal(err)
	}
	document, err := os.ReadFile("../../measure/config/testdata/vectors/measured.bin")
	if err != nil {
		t.Fatal(err)
	}
	m, err := config.Decode(document)
	if err != nil {
		t.Fatal(err)
	}
	m.Identity.Network, m.Identity.PayoutOwner, m.Service.Price.NanotonPerToken = config.Local, p.wallets["payout"].Address, ton.Coin/20
	params := localchain.TemplateParams(payDelay)
	params.Price, params.WorkerFee = m.Service.Price.Price, m.Service.Price.NanotonPerToken*9/10
	terms, err := params.Cell()
	if err != nil {
		t.Fatal(err)
	}
	first := p.options.Network.Anchor.Key
	m.Service.Chain = config.Chain{Params: terms.Hash(), MaxAgeSeconds: 120, Anchor: config.Anchor{GlobalID: localchain.GlobalID, Seqno: first.Seqno,
		RootHash: first.RootHash, FileHash: first.FileHash}}
	root, err := claim.NewRoot(p.wallets["provider"].Address, params)
	if err != nil {
		t.Fatal(err)
	}
	if m.Identity.RootContract, err = claim.Address(chaintest.Code("root"), root); err != nil {
		t.Fatal(err)
	}
	measured, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	p.guest, p.spec, p.params = newSoftwareGuest(t, measured), guest.Spec{Config: m}, params
	p.guest.Keys = takesKeys()
	return p
}

// takesKeys answers about keys as a guest does, for whoever shows a contract's own: a key of the name "other" it takes for another one's, and of the name
// "full" it takes none.
func takesKeys() func(shown string, body []byte) (int, string) {
	return func(shown string, body []byte) (int, string) {
		own, err := api.ParseKey(strings.TrimPrefix(shown, "Bearer "))
		var asked struct {
			Name string
			Cap  uint64
		}
		if err != nil || json.Unmarshal(body, &asked) != nil {
			return http.StatusUnauthorized, `{"error":{"message":"there is no such contract\u001b[31m"}}`
		}
		key := own.Derive(asked.Name)
		switch asked.Name {
		case "other":
			key.Secret[0]++
		case "full":
			return http.StatusConflict, "sixteen keys"
		}
		return http.StatusOK, fmt.Sprintf(`{"name":%q,"key":%q,"cap":%d,"used":7}`, asked.Name, key, asked.Cap)
	}
}

// files writes the chain's configuration file, the guest's config, its folder on its host, and what its clients have.
func (p *payWorld) files(dir string) error {
	chainFile, err := p.world.Config()
	if err != nil {
		return err
	}
	document, err := guest.WriteConfig(p.spec.Config)
	if err != nil {
		return err
	}
	spec, err := json.Marshal(p.spec)
	if err != nil {
		return err
	}
	signers := earned.Signers{Receipt: pubkey.Of(p.guest.ReceiptKey), Claim: pubkey.Of(p.guest.ClaimKey)}
	stranger := earned.Signers{Receipt: pubkey.Of(p.guest.ClaimKey), Claim: pubkey.Of(p.guest.ReceiptKey)}
	errs := []error{p.guest.files(dir), os.WriteFile(filepath.Join(dir, "prices.txt"), prices(), 0o644)}
	for name, content := range map[string]string{"chain.json": string(chainFile), "config.json": document, "box/guest.json": string(spec),
		"box/" + guest.ProofsFile: "", "box/" + guest.SignersFile: signers.String() + "\n", "other/guest.json": string(spec),
		"other/" + guest.ProofsFile: "", "other/" + guest.SignersFile: stranger.String() + "\n"} {
		file := filepath.Join(dir, name)
		errs = append(errs, os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(content), 0o644))
	}
	return errors.Join(errs...)
}

// prices are what two signers say of the coin now: 3 and 3.2 dollars.
func prices() (text []byte) {
	for n, price := range map[byte]uint64{1: 3_00000000, 2: 3_20000000} {
		ms := uint64(time.Now().UnixMilli())
		b := append([]byte("TON"), make([]byte, 29+24)...)
		b = binary.BigEndian.AppendUint64(b, price)
		b = append(b, byte(ms>>40), byte(ms>>32), byte(ms>>24), byte(ms>>16), byte(ms>>8), byte(ms), 0, 0, 0, 32, 0, 0, 1)
		h := sha3.NewLegacyKeccak256()
		h.Write(b)
		signature := ecdsa.SignCompact(secp256k1.PrivKeyFromBytes(bytes.Repeat([]byte{0x11 * n}, 32)), h.Sum(nil), false)
		text = fmt.Appendf(text, "%x%x%x\n", b, signature[1:], signature[:1])
	}
	return text
}

// TestPayments runs each script in a world of its own: the command line as provider and client have it, wallets that send what it hands them,
// and the guest's part by the rules of runtime/settle and its claim key.
func TestPayments(t *testing.T) {
	const dir = "testdata/pay"
	if scripts, err := filepath.Glob(dir + "/*.txtar"); err != nil || len(scripts) == 0 {
		t.Fatalf("no scripts in %s: %v", dir, err)
	}
	testscript.Run(t, testscript.Params{
		Dir: dir,
		Setup: func(e *testscript.Env) error {
			p := newPayWorld(t)
			e.Setenv("GUEST", p.guest.URL)
			e.Setenv("TEMPLATE", p.world.Template.String())
			e.Setenv("ROOT", p.spec.Config.Identity.RootContract.String())
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("CHAIN", "--ton-config=chain.json")
			e.Setenv("TRUST", "--insecure-trust-init-block")
			e.Setenv("GLOBAL", "--global-id="+strconv.Itoa(localchain.GlobalID))
			for name, w := range p.wallets {
				e.Setenv(name, w.Address.Friendly(false))
			}
			e.Values["world"] = p
			return p.files(e.WorkDir)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "wallet": payWallet, "later": payLater, "balance": payBalance,
			"collect": payCollect, "keeper": payKeeper, "contract": payContract, "want": payWant},
	})
}

func worldOf(ts *testscript.TestScript) *payWorld { return ts.Value("world").(*payWorld) }

// payWallet has a wallet send what a request asks for: wallet NAME FILE. With ! it must be refused.
func payWallet(ts *testscript.TestScript, neg bool, args []string) {
	p := worldOf(ts)
	request, err := os.ReadFile(ts.MkAbs(args[1]))
	ts.Check(err)
	_, err = p.wallets[args[0]].Send(context.Background(), p.options, request)
	if neg != (err != nil) {
		ts.Fatalf("wallet %s: got error %v, want one: %t", args[0], err, neg)
	}
}

// payLater lets time pass, and a block be made: later SECONDS.
func payLater(ts *testscript.TestScript, _ bool, args []string) {
	seconds, err := strconv.ParseUint(args[0], 10, 32)
	ts.Check(err)
	p := worldOf(ts)
	p.world.Chain.Advance(uint32(seconds))
	_, err = p.world.Chain.Step()
	ts.Check(err)
}

// payBalance puts what an account has, read by proof, into a variable, or how much that is more than another: balance NAME VARIABLE [LESS].
func payBalance(ts *testscript.TestScript, _ bool, args []string) {
	p := worldOf(ts)
	at, err := ton.Parse(args[0])
	if w := p.wallets[args[0]]; w != nil {
		at, err = w.Address, nil
	}
	ts.Check(err)
	coins, err := localchain.Balance(context.Background(), p.options, at)
	ts.Check(err)
	if len(args) > 2 {
		less, err := strconv.ParseUint(ts.Getenv(args[2]), 10, 64)
		ts.Check(err)
		coins -= ton.Coins(less)
	}
	ts.Setenv(args[1], strconv.FormatUint(uint64(coins), 10))
	ts.Logf("%s has %s", args[0], coins)
}

// payCollect adds the proof of an answer that chat saved to what the guest has handed to its host: collect ANSWER FOLDER.
func payCollect(ts *testscript.TestScript, _ bool, args []string) {
	var p receipt.Proof
	signed, err := os.ReadFile(ts.MkAbs(args[0] + "/receipt.bin"))
	ts.Check(err)
	charge, err := os.ReadFile(ts.MkAbs(args[0] + "/charge.boc"))
	ts.Check(err)
	p.Receipt = (*receipt.Signed)(signed)
	p.Charge = (*claim.Body)(charge)
	line, err := p.Line()
	ts.Check(err)
	f, err := os.OpenFile(ts.MkAbs(args[1]+"/"+guest.ProofsFile), os.O_APPEND|os.O_WRONLY, 0o644)
	ts.Check(err)
	_, err = fmt.Fprintln(f, line)
	ts.Check(errors.Join(err, f.Close()))
}

// payKeeper is the guest's part of a settlement: it reads the chain by proofs, and signs what the rules allow, or with ! nothing: keeper KIND
// FILE [CLIENT COUNTED]. KIND is payout, less, grant, close, last or complete.
func payKeeper(ts *testscript.TestScript, neg bool, args []string) {
	ctx, p := context.Background(), worldOf(ts)
	r, err := onchain.Open(ctx, p.options)
	ts.Check(err)
	id := p.spec.Config.Identity
	c, err := r.Contracts(ctx, id.RootContract, pubkey.Of(p.guest.ClaimKey), id.PayoutOwner)
	ts.Check(err)
	book, err := r.Book(ctx, c)
	ts.Check(err)
	m, ok := claim.Message{QueryID: 9, Contract: c.Worker.Address, Excesses: id.PayoutOwner}, false
	switch args[0] {
	case "payout":
		m.Op = claim.WorkerPayout
		m.Tokens, ok = settle.Payout(*c.View, book)
	case "less": // as an older settlement left it
		m.Op = claim.WorkerPayout
		m.Tokens, ok = settle.Payout(*c.View, book)
		m.Tokens--
	case "last":
		m.Op = claim.WorkerLastPayout
		m.Tokens, ok = settle.LastPayout(*c.View, book)
	case "close":
		m.Op, m.Contract = claim.ProxyClose, c.Proxy.Address
		ok = settle.Close(*c.View, 0)
	case "complete":
		m.Op, m.Contract = claim.ProxyCloseComplete, c.Proxy.Address
		ok = settle.CloseComplete(*c.View, book)
	case "grant":
		m.Op = claim.ClientRefund
		m.Contract, err = ton.Parse(args[2])
		ts.Check(err)
		counted, err := strconv.ParseUint(args[3], 10, 64)
		ts.Check(err)
		account, err := r.Account(ctx, m.Contract)
		ts.Check(err)
		client, err := settle.Client(c.Terms, account)
		ts.Check(err)
		m.Tokens, ok = settle.Grant(*c.View, book, m.Contract, client, counted)
	default:
		ts.Fatalf("keeper %q", args)
	}
	if neg == ok {
		ts.Fatalf("keeper %s: signed %t, want %t", args[0], ok, !neg)
	}
	if !ok {
		return
	}
	var signed []byte
	if m.Op.Closes() {
		b, err := claim.SignClose(p.guest.ClaimKey, m)
		ts.Check(err)
		signed = b[:]
	} else {
		b, err := claim.Sign(p.guest.ClaimKey, m)
		ts.Check(err)
		signed = b[:]
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), bytes.Clone(signed), 0o644))
}

// payContract puts the address of an account's contract into a variable: contract FILE VARIABLE.
func payContract(ts *testscript.TestScript, _ bool, args []string) {
	a, err := readAccount(ts.MkAbs(args[0]))
	ts.Check(err)
	ts.Setenv(args[1], a.Contract.String())
}

// payWant compares a variable with a value: want VARIABLE VALUE.
func payWant(ts *testscript.TestScript, neg bool, args []string) {
	if got := ts.Getenv(args[0]); (got == args[1]) == neg {
		ts.Fatalf("%s is %s, want %s: %t", args[0], got, args[1], !neg)
	}
}
