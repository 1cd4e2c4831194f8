package carry

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"net/url"
	"strings"
	"testing"
	"time"

	"chrysalis/measure/ton"
	"chrysalis/runtime/cell"
	"chrysalis/runtime/chain"
	"chrysalis/runtime/chain/chaintest"
	"chrysalis/runtime/claim"
)

var (
	key        = ed25519.NewKeyFromSeed(make([]byte, 32))
	walletData = must(new(cell.Builder).Uint(0, 1+32+32+256+1).Cell())
	walletInit = must(new(cell.Builder).Uint(0b00110, 5).Ref(chaintest.Code("wallet")).Ref(walletData).Cell())
	// wallet is deployed where a chain is: change that is sent to nobody comes back.
	wallet = ton.Address{Account: walletInit.Hash()}
	payout = ton.Address{Account: [32]byte{0xee}}
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// TestForms: what a wallet reads out of a link and out of a request is the message.
func TestForms(t *testing.T) {
	m := must(OpenClient(chaintest.Code("client"), params().NewClient(wallet, payout, [32]byte{1}), 5*ton.Coin, [32]byte{7}))
	link := must(url.Parse(must(m.Link())))
	if link.Scheme != "ton" || link.Host != "transfer" || link.Path != "/"+m.To.Friendly(true) || link.Query().Get("amount") != "5300000000" {
		t.Errorf("link is %s", link)
	}
	for name, want := range map[string]*cell.Cell{"bin": m.Body, "init": m.Init} {
		got, err := cell.ParseOne(must(base64.RawURLEncoding.DecodeString(link.Query().Get(name))))
		if err != nil || got.Hash() != want.Hash() {
			t.Errorf("%s of the link: %v, want the message's", name, err)
		}
	}
	plain := must(Message{Name: "coins", To: payout, Value: 3}.Link())
	if want := "ton://transfer/" + payout.Friendly(true) + "?amount=3"; plain != want {
		t.Errorf("link is %s, want %s", plain, want)
	}
	until := time.Unix(1_800_000_000, 0)
	request := must(Connect([]Message{m, {To: payout, Value: 3}}, wallet, -239, until))
	messages, from, global, valid, err := ParseConnect(request)
	if err != nil || len(messages) != 2 || from != wallet || global != -239 || !valid.Equal(until) {
		t.Fatalf("request is read as %d messages of %s on %d until %s (%v)", len(messages), from, global, valid, err)
	}
	if got := messages[0]; got.To != m.To || got.Value != m.Value || got.Body.Hash() != m.Body.Hash() || got.Init.Hash() != m.Init.Hash() {
		t.Errorf("request has %+v, want %+v", got, m)
	}
	if messages[1].Body != nil || messages[1].Init != nil {
		t.Errorf("a message of coins alone has %+v", messages[1])
	}
	for _, n := range []int{0, MaxConnect + 1} {
		if _, err := Connect(make([]Message, n), wallet, -239, until); err == nil {
			t.Errorf("a request of %d messages is made", n)
		}
	}
	for name, change := range map[string]func(map[string]any){
		"network":  func(r map[string]any) { r["network"] = "main" },
		"from":     func(r map[string]any) { r["from"] = "nobody" },
		"messages": func(r map[string]any) { r["messages"] = []any{} },
		"address":  func(r map[string]any) { r["messages"].([]any)[0].(map[string]any)["address"] = "x" },
		"amount":   func(r map[string]any) { r["messages"].([]any)[0].(map[string]any)["amount"] = "-1" },
		"payload":  func(r map[string]any) { r["messages"].([]any)[0].(map[string]any)["payload"] = "AAAA" },
		"init":     func(r map[string]any) { r["messages"].([]any)[0].(map[string]any)["stateInit"] = "!" },
	} {
		var r map[string]any
		if err := json.Unmarshal(request, &r); err != nil {
			t.Fatal(err)
		}
		change(r)
		if _, _, _, _, err := ParseConnect(must(json.Marshal(r))); err == nil || !strings.Contains(err.Error(), "reading request") {
			t.Errorf("a request with another %s: got %v, want an error", name, err)
		}
	}
}

// FuzzParseConnect: a request that is read is written as it was meant.
func FuzzParseConnect(f *testing.F) {
	f.Add(must(Connect([]Message{must(PayOwner(payout, wallet))}, wallet, -239, time.Unix(9, 0))))
	f.Fuzz(func(t *testing.T, raw []byte) {
		messages, from, global, until, err := ParseConnect(raw)
		if err != nil {
			return
		}
		again, from2, global2, until2, err := ParseConnect(must(Connect(messages, from, global, until)))
		if err != nil || from2 != from || global2 != global || !until2.Equal(until) || len(again) != len(messages) {
			t.Fatalf("written again: %v", err)
		}
	})
}

func params() claim.Params {
	return claim.Params{StructVersion: 3, Version: 1, UniqueID: 17, Price: ton.Price{NanotonPerToken: 1000, PromptWeight: ton.WeightOne},
		WorkerFee: 700, ProxyDelay: 200, ClientDelay: 100, MinProxyStake: ton.Coin, MinClientStake: ton.Coin,
		ProxyCode: chaintest.Code("proxy"), WorkerCode: chaintest.Code("worker"), ClientCode: chaintest.Code("client")}
}

// accounts reads accounts as a chain has them.
func accounts(t *testing.T, c *chaintest.Chain, list ...ton.Address) (all []chain.Account) {
	t.Helper()
	head := c.Network.Anchor
	for complete := false; !complete; {
		h, done, err := chain.Advance(c.Network, head, must(c.BlockProof(head.Key, chain.BlockID{})))
		if err != nil {
			t.Fatal(err)
		}
		head, complete = h, done
	}
	for _, a := range list {
		all = append(all, must(chain.Prove(c.Network, head, a, must(c.AccountState(head.Last, a)))))
	}
	return all
}

// TestTryAgrees: what a dry run says of each message is what the chain does with it, but for what storage costs meanwhile.
func TestTryAgrees(t *testing.T) {
	c := must(chaintest.New(chaintest.Options{}))
	if _, err := c.Step(chaintest.Message{From: payout, To: wallet, Value: ton.Coin, Init: walletInit}); err != nil {
		t.Fatal(err)
	}
	p := params()
	guard := must(claim.Guard{Owner: payout}.Address())
	proxyData := p.NewProxy(guard, [32]byte(key.Public().(ed25519.PublicKey)), ton.Address{Account: [32]byte{1}})
	proxy := must(claim.Address(p.ProxyCode, proxyData))
	clientData := p.NewClient(wallet, proxy, proxyData.Key)
	client := must(claim.Address(p.ClientCode, clientData))
	workerData := p.NewWorker(payout, proxy, proxyData.Key)
	worker := must(claim.Address(p.WorkerCode, workerData))
	signed := func(op claim.Op, to ton.Address, tokens uint64) Message {
		b := must(claim.Sign(key, claim.Message{Op: op, QueryID: tokens, Tokens: tokens, Contract: to, Excesses: payout}))
		return must(Signed(b[:], wallet))
	}
	for _, tt := range []struct {
		m    Message
		fail int64
	}{
		{m: must(Deploy("guard", claim.GuardCode(), claim.Guard{Owner: payout}))},
		{m: must(DeployProxy(p.ProxyCode, proxyData, 10*ton.Coin, wallet))},
		{m: ForFees(proxy)},
		{m: must(Stake(proxy, ton.Coin, wallet))},
		{m: must(OpenClient(p.ClientCode, clientData, 5*ton.Coin, [32]byte{7}))},
		{m: must(TopUp(client, ton.Coin, wallet))},
		{m: must(ChangeSecret(client, [32]byte{8}, wallet))},
		{m: signed(claim.ClientCharge, client, 2_000_000)},
		{m: signed(claim.ClientCharge, client, 2_000_000), fail: 1000},
		{m: must(signed(claim.WorkerPayout, worker, 1_000_000).DeploysWorker(p.WorkerCode, workerData))},
		{m: signed(claim.WorkerPayout, worker, 900_000), fail: 1000},
		{m: must(PayOwner(proxy, wallet))},
		{m: must(Withdraw(client, wallet))},
		{m: must(Withdraw(client, wallet)), fail: 1010},
		{m: must(AskRefund(client, wallet))},
		{m: must(AskRefund(client, wallet)), fail: 1009},
		{m: signed(claim.ClientRefund, client, 2_000_000)},
	} {
		all := []ton.Address{guard, proxy, client, worker}
		before := accounts(t, c, all...)
		effect, err := Try(wallet, []Message{tt.m}, before, c.Now()+1)
		if err != nil {
			t.Fatalf("%s: %v", tt.m.Name, err)
		}
		outcomes, err := c.Step(chaintest.Message{From: wallet, To: tt.m.To, Value: uint64(tt.m.Value), Bounce: true, Init: tt.m.Init, Body: tt.m.Body})
		if err != nil {
			t.Fatalf("%s: %v", tt.m.Name, err)
		}
		for i, a := range accounts(t, c, all...) {
			got := effect.Change[a.Address]
			want := int64(a.Balance) - int64(before[i].Balance)
			if d := got - want; d < 0 || d > 20_000 {
				t.Errorf("%s: account %d changes by %d, and was said to by %d", tt.m.Name, i, want, got)
			}
		}
		if failed := effect.Failed(ton.Address.String); (failed != nil) != (tt.fail != 0) || effect.Exit() != tt.fail {
			t.Errorf("%s: fails with %d (%v), want %d; the chain: %+v", tt.m.Name, effect.Exit(), failed, tt.fail, outcomes)
		}
	}
}

// TestSigned: the change comes back to who carries a message, whatever its signer wrote there, and the signature holds.
func TestSigned(t *testing.T) {
	to := ton.Address{Account: [32]byte{9}}
	for _, op := range []claim.Op{claim.ClientCharge, claim.ProxyClose} {
		m := claim.Message{Op: op, QueryID: 3, Contract: to, Excesses: payout}
		var raw []byte
		if op.Closes() {
			raw = must(claim.SignClose(key, m))[:]
		} else {
			m.Tokens = 5
			raw = must(claim.Sign(key, m))[:]
		}
		carried := must(Signed(raw, wallet))
		u, err := claim.Parse(must(cell.Encode(carried.Body)))
		if err != nil || u.Message.Excesses != wallet || carried.To != to {
			t.Errorf("%s: carried as %+v (%v)", op, u, err)
		}
		if _, err := claim.Verify(must(cell.Encode(carried.Body)), claim.Policy{Key: [32]byte(key.Public().(ed25519.PublicKey)), Contract: to}); err != nil {
			t.Errorf("%s: %v", op, err)
		}
	}
	if _, err := Signed(bytes.Repeat([]byte{1}, claim.BodySize), wallet); err == nil {
		t.Error("bytes that are no message are carried")
	}
	m := must(Signed(must(claim.Sign(key, claim.Message{Op: claim.WorkerPayout, Tokens: 1, Contract: to, Excesses: payout}))[:], wallet))
	if _, err := m.DeploysWorker(chaintest.Code("worker"), params().NewWorker(payout, to, [32]byte{})); err == nil {
		t.Error("a payout deploys another worker than its own")
	}
}

func TestQR(t *testing.T) {
	link := "ton://transfer/" + payout.Friendly(true) + "?amount=1"
	code, err := QR(link, 80)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(code, "\n"), "\n")
	width := len([]rune(lines[0]))
	for i, line := range lines {
		if len([]rune(line)) != width || width > 80 {
			t.Errorf("line %d has %d columns, want %d", i, len([]rune(line)), width)
		}
	}
	if strings.Trim(lines[0], "█") != "" || width-2*quiet != 33 {
		t.Errorf("the margin is %q, and the code has %d modules, want 33 for %d bytes", lines[0], width-2*quiet, len(link))
	}
	if _, err := QR(link, 36); err == nil {
		t.Error("a code wider than the terminal is shown")
	}
	if _, err := QR(strings.Repeat("x", 3000), 0); err == nil {
		t.Error("a code of 3000 bytes is shown")
	}
}
