package settle_test

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"strings"
	"testing"

	"chrysalis/measure/ton"
	"chrysalis/runtime/cell"
	"chrysalis/runtime/chain"
	"chrysalis/runtime/chain/chaintest"
	"chrysalis/runtime/claim"
	. "chrysalis/runtime/settle"
)

const coin = 1_000_000_000

var (
	key        = ed25519.NewKeyFromSeed(make([]byte, 32))
	owner      = ton.Address{Account: [32]byte{0xee}}
	rootAt     = ton.Address{Account: [32]byte{0x10}}
	carrier    = ton.Address{Account: [32]byte{0xca}}
	alice, bob = ton.Address{Account: [32]byte{0xa1}}, ton.Address{Account: [32]byte{0xb0}}
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// world is a guest's contracts on a chain of these tests.
type world struct {
	t     *testing.T
	chain *chaintest.Chain
	terms Terms
	proxy ton.Address
	book  *Book
	head  chain.Head
}

func newWorld(t *testing.T) *world {
	p := claim.Params{StructVersion: 3, Version: 1, UniqueID: 17, Price: ton.Price{NanotonPerToken: 1000, PromptWeight: ton.WeightOne},
		WorkerFee: 700, ProxyDelay: 200, ClientDelay: 100, MinProxyStake: coin, MinClientStake: coin,
		ProxyCode: chaintest.Code("proxy"), WorkerCode: chaintest.Code("worker"), ClientCode: chaintest.Code("client")}
	w := &world{t: t, chain: must(chaintest.New(chaintest.Options{})),
		terms: Terms{Root: rootAt, Key: [32]byte(key.Public().(ed25519.PublicKey)), Owner: owner, Params: p}}
	w.proxy = must(w.terms.Proxy())
	w.book = must(NewBook(w.terms))
	w.head = w.chain.Network.Anchor
	guard := must(w.terms.Guard())
	w.send(chaintest.Message{From: carrier, To: guard, Value: coin / 10, Init: must(claim.StateInit(claim.GuardCode(),
		claim.Guard{Owner: owner}))})
	w.send(chaintest.Message{From: carrier, To: w.proxy, Value: coin / 2,
		Init: must(claim.StateInit(p.ProxyCode, p.NewProxy(guard, w.terms.Key, rootAt)))})
	w.send(chaintest.Message{From: carrier, To: w.proxy, Value: 10*coin + coin/2,
		Body: must(new(cell.Builder).Uint(0x9713f187, 32).Uint(1, 64).Coins(10 * coin).Address(carrier).Cell())})
	return w
}

func (w *world) send(m chaintest.Message) []chaintest.Outcome {
	w.t.Helper()
	o, err := w.chain.Step(m)
	if err != nil {
		w.t.Fatal(err)
	}
	return o
}

// ask sends a message of a client's owner to his contract.
func (w *world) ask(of ton.Address, op uint64, value uint64, fields func(*cell.Builder)) []chaintest.Outcome {
	w.t.Helper()
	b := new(cell.Builder).Uint(op, 32).Uint(7, 64)
	fields(b)
	m := chaintest.Message{From: of, To: must(w.terms.Client(of)), Value: value, Bounce: true, Body: must(b.Cell())}
	m.Init = must(claim.StateInit(w.terms.Params.ClientCode, w.terms.Params.NewClient(of, w.proxy, w.terms.Key)))
	return w.send(m)
}

func (w *world) topUp(of ton.Address, coins uint64) []chaintest.Outcome {
	w.t.Helper()
	return w.ask(of, 0xf172e6c2, coins+coin/2, func(b *cell.Builder) { b.Coins(coins).Address(of) })
}

func (w *world) withdraw(of ton.Address) {
	w.ask(of, 0xda068e78, coin/2, func(b *cell.Builder) { b.Address(of) })
}
func (w *world) leave(of ton.Address) {
	w.ask(of, 0xfafa6cc1, coin/2, func(b *cell.Builder) { b.Address(of) })
}

// carry signs a message and carries it.
func (w *world) carry(op claim.Op, to ton.Address, tokens uint64) []chaintest.Outcome {
	w.t.Helper()
	m := claim.Message{Op: op, QueryID: tokens + 5, Tokens: tokens, Contract: to, Excesses: carrier}
	var body []byte
	if op.Closes() {
		body = must(claim.SignClose(key, m))[:]
	} else {
		body = must(claim.Sign(key, m))[:]
	}
	message := chaintest.Message{From: carrier, To: to, Value: coin / 2, Bounce: true, Body: must(cell.ParseOne(body))}
	if op == claim.WorkerPayout {
		message.Init = must(claim.StateInit(w.terms.Params.WorkerCode, w.terms.Params.NewWorker(owner, w.proxy, w.terms.Key)))
	}
	return w.send(message)
}

func (w *world) account(a ton.Address) chain.Account {
	w.t.Helper()
	return must(chain.Prove(w.chain.Network, w.head, a, must(w.chain.AccountState(w.head.Last, a))))
}

// look follows the chain to its newest block and folds what happened into the book.
func (w *world) look() View {
	w.t.Helper()
	for complete := false; !complete; {
		proof := must(w.chain.BlockProof(w.head.Key, chain.BlockID{}))
		h, c, err := chain.Advance(w.chain.Network, w.head, proof)
		if err != nil {
			w.t.Fatal(err)
		}
		w.head, complete = h, c
	}
	proxy := w.account(w.proxy)
	trail := must(chain.NewTrail(proxy, w.book.Mark))
	for {
		at, more := trail.Ask()
		if !more {
			break
		}
		if err := trail.Take(must(w.chain.Transactions(w.proxy, at, 16)), w.book.Apply); err != nil {
			w.t.Fatal(err)
		}
	}
	return must(Look(w.terms, w.head.Time, proxy, w.account(must(w.terms.Worker()))))
}

func (w *world) client(of ton.Address) claim.Client {
	w.t.Helper()
	return must(Client(w.terms, w.account(must(w.terms.Client(of)))))
}

// TestWholeLoop is the life of a proxy: two clients pay in and are charged, the worker and the owner are paid what charges took and not a
// nanoton more, the clients get the rest back, and the end leaves nobody's coins behind.
func TestWholeLoop(t *testing.T) {
	w := newWorld(t)
	w.topUp(alice, 5*coin)
	w.topUp(bob, 3*coin)
	v := w.look()
	if w.book.Deposits != 8*coin || w.book.Open != 2 || w.book.Took() != 0 || v.Proxy.Stake != 10*coin {
		t.Fatalf("after the deposits: %d nanotons of %d clients, %d taken, stake %d", w.book.Deposits, w.book.Open, w.book.Took(), v.Proxy.Stake)
	}
	if n, ok := Payout(v, w.book); ok {
		t.Errorf("before any charge a payout of %d is signed", n)
	}
	a, b := must(w.terms.Client(alice)), must(w.terms.Client(bob))
	if err := Serve(v, 1000, w.client(alice), 0, 5_000_000); err != nil {
		t.Errorf("a request for all that Alice has: %v", err)
	}
	count, ok := Charge(1000, w.client(alice), 1_000_000)
	if !ok || count != 1_000_000 {
		t.Fatalf("charge is %d, %t, want 1,000,000", count, ok)
	}
	before := w.chain.Balance(owner) // what the guard's own deployment left
	w.carry(claim.ClientCharge, a, count)
	if got := w.chain.Balance(owner); got != before {
		t.Errorf("a charge paid the owner %d nanotons", got-before)
	}
	v = w.look()
	if w.book.Took() != coin || w.client(alice).Balance != 4*coin {
		t.Errorf("the charge took %d and left %d, want one coin and four", w.book.Took(), w.client(alice).Balance)
	}
	// A charge beyond what is there takes less than it says; the rules sign none, but the contracts allow it.
	if n, _ := Charge(1000, w.client(bob), 9_000_000); n != 2_999_999 {
		t.Errorf("charge of more than Bob has is %d, want 2,999,999", n)
	}
	w.carry(claim.ClientCharge, b, 9_000_000)
	v = w.look()
	if w.book.Took() != 4*coin || w.client(bob).Balance != 0 {
		t.Errorf("both charges took %d, want four coins: what Bob had, not what was asked", w.book.Took())
	}
	pay, ok := Payout(v, w.book)
	if !ok || pay != 4_000_000 {
		t.Fatalf("payout is %d, %t, want 4,000,000", pay, ok)
	}
	worker := must(w.terms.Worker())
	for _, o := range w.carry(claim.WorkerPayout, worker, pay) {
		if o.Aborted && o.At != owner && o.At != carrier {
			t.Errorf("payout: %+v", o)
		}
	}
	if got := w.chain.Balance(owner) - before; got > 2_800_000_000 || got < 2_799_999_990 {
		t.Errorf("the worker's part is %d nanotons, want 2.8 coins but for what the owner's own storage costs", got)
	}
	v = w.look()
	if n, ok := Payout(v, w.book); ok {
		t.Errorf("what was paid is paid again: %d", n)
	}
	if v.Proxy.Balance != 1_200_000_000 {
		t.Errorf("the owner's part is %d, want 1.2 coins", v.Proxy.Balance)
	}
	w.send(chaintest.Message{From: carrier, To: w.proxy, Value: coin / 2,
		Body: must(new(cell.Builder).Uint(0x7610e6eb, 32).Uint(1, 64).Address(carrier).Cell())})
	if got := w.chain.Balance(owner) - before; got < 3_990_000_000 || got > 4_000_000_000 {
		t.Errorf("through the guard the owner has %d, want four coins but for fees", got)
	}
	// Bob asks to leave, and Alice is granted the rest because the proxy closes.
	if _, ok := Grant(v, w.book, a, w.client(alice), 1_000_000); ok {
		t.Error("a refund is granted while nobody closes")
	}
	if Close(v, 1) || !Close(v, 0) {
		t.Error("the end may begin exactly when nobody is unsettled")
	}
	w.carry(claim.ProxyClose, w.proxy, 0)
	v = w.look()
	if CloseComplete(v, w.book) {
		t.Error("the proxy is emptied at once")
	}
	had := w.chain.Balance(alice)
	n, ok := Grant(v, w.book, a, w.client(alice), 1_500_000)
	if !ok || n != 1_500_000 {
		t.Fatalf("grant is %d, %t, want what the journal counts", n, ok)
	}
	w.carry(claim.ClientRefund, a, n)
	if got := w.chain.Balance(alice) - had; got > 3_500_000_000 || got < 3_499_999_990 {
		t.Errorf("Alice gets %d back, want 3.5 coins but for what her own storage costs", got)
	}
	v = w.look()
	w.chain.Advance(300)
	v = w.look()
	if w.book.Open != 1 || CloseComplete(v, w.book) {
		t.Errorf("%d clients are open, and the proxy is emptied: %t; want Bob's, and no", w.book.Open, CloseComplete(v, w.book))
	}
	if _, ok := LastPayout(v, w.book); ok {
		t.Error("the worker is ended before all clients are")
	}
	n, ok = Grant(v, w.book, b, w.client(bob), 0)
	if !ok || n != 9_000_000 {
		t.Errorf("Bob's grant is %d, %t, want what the chain counts", n, ok)
	}
	w.carry(claim.ClientRefund, b, n)
	v = w.look()
	if last, ok := LastPayout(v, w.book); !ok || last != 4_500_000 {
		t.Errorf("last payout is %d, %t, want 4,500,000", last, ok)
	}
	if CloseComplete(v, w.book) {
		t.Error("the proxy is emptied before the worker is paid")
	}
	w.carry(claim.WorkerLastPayout, worker, 4_500_000)
	v = w.look()
	w.chain.Advance(300)
	w.send(chaintest.Message{From: carrier, To: owner, Value: 1})
	v = w.look()
	if !CloseComplete(v, w.book) {
		t.Fatalf("everybody is settled, and the proxy is not emptied: %+v, book %+v", v, w.book)
	}
	w.carry(claim.ProxyCloseComplete, w.proxy, 0)
	if got := w.chain.Balance(owner) - before; got < 4_500_000_000+10*coin-coin/5 {
		t.Errorf("the owner has %d at the end, want what was earned and the stake, but for fees", got)
	}
}

// TestStrangers: whatever a stranger sends to the proxy changes nothing in its book.
func TestStrangers(t *testing.T) {
	w := newWorld(t)
	w.topUp(alice, 5*coin)
	w.look()
	told := func(balance, tokens uint64) *cell.Cell {
		return must(new(cell.Builder).Uint(0, 2).Coins(balance).Coins(coin).Uint(tokens, 64).Uint(0, 64*3).Uint(0, 64).Cell())
	}
	for name, m := range map[string]chaintest.Message{
		"in Alice's name": {From: bob, Body: must(new(cell.Builder).Uint(0x65448ff4, 32).Uint(1, 64).Address(alice).Ref(told(0,
			9)).Bool(false).Cell())},
		"in his own": {From: bob, Body: must(new(cell.Builder).Uint(0x65448ff4, 32).Uint(1, 64).Address(bob).Ref(told(0,
			9)).Bool(false).Cell())},
		"no owner":   {From: bob, Body: must(new(cell.Builder).Uint(0x65448ff4, 32).Uint(1, 64).Cell())},
		"a close":    {From: bob, Body: must(new(cell.Builder).Uint(0xb51d5a01, 32).Uint(1, 64).Address(bob).Cell())},
		"the text c": {From: bob, Body: must(new(cell.Builder).Uint(0, 32).Uint('c', 8).Cell())},
		"nothing":    {From: bob},
	} {
		m.To, m.Value = w.proxy, 1
		if name == "a close" {
			m.Value = coin
		}
		w.send(m)
		v := w.look()
		if w.book.Took() != 0 || w.book.Deposits != 5*coin || w.book.Open != 1 || v.Proxy.State != claim.Normal {
			t.Errorf("%s: book has %d taken, %d nanotons, %d clients", name, w.book.Took(), w.book.Deposits, w.book.Open)
		}
		if n, ok := Payout(v, w.book); ok {
			t.Errorf("%s: a payout of %d is signed", name, n)
		}
	}
}

// TestLeaving: a client who closes is granted the rest at once; one to whom nobody grants it takes it out of the stake a delay later.
func TestLeaving(t *testing.T) {
	w := newWorld(t)
	w.topUp(alice, 5*coin)
	w.topUp(bob, 3*coin)
	w.leave(alice)
	w.leave(bob)
	v := w.look()
	if err := Serve(v, 1000, w.client(alice), 0, 1); err == nil {
		t.Error("a client who closes is served")
	}
	if w.client(alice).Balance != coin || w.book.Deposits != 2*coin {
		t.Errorf("%d are left of Alice's, %d of all, want the stakes", w.client(alice).Balance, w.book.Deposits)
	}
	a := must(w.terms.Client(alice))
	n, ok := Grant(v, w.book, a, w.client(alice), 300_000)
	if !ok || n != 300_000 {
		t.Fatalf("grant is %d, %t, want 300,000", n, ok)
	}
	w.carry(claim.ClientRefund, a, n)
	w.chain.Advance(200)
	had := w.chain.Balance(bob)
	w.leave(bob)
	v = w.look()
	if got := w.chain.Balance(bob) - had; got < coin*9/10 {
		t.Errorf("Bob took %d out of the stake, want his last coin but for fees", got)
	}
	if v.Proxy.Stake != 9*coin || w.book.Open != 0 || w.book.Deposits != 0 || w.book.Took() != 300_000_000 {
		t.Errorf("stake %d, %d open, %d deposits, %d taken; want 9 coins, none, none, 0.3", v.Proxy.Stake, w.book.Open, w.book.Deposits,
			w.book.Took())
	}
	if pay, _ := Payout(v, w.book); pay != 300_000 {
		t.Errorf("payout is %d, want 300,000", pay)
	}
}

// FuzzStranger: no message of a stranger's stops a book or changes it.
func FuzzStranger(f *testing.F) {
	p := claim.Params{StructVersion: 3, Price: ton.Price{NanotonPerToken: 1000}, WorkerFee: 700, MinClientStake: coin,
		ProxyCode: chaintest.Code("proxy"), WorkerCode: chaintest.Code("worker"), ClientCode: chaintest.Code("client")}
	terms := Terms{Root: rootAt, Owner: owner, Params: p}
	told := must(new(cell.Builder).Uint(0, 2).Coins(1).Coins(coin).Uint(5, 64).Uint(0, 64).Uint(0, 64*3).Cell())
	for _, b := range []*cell.Builder{
		new(cell.Builder).Uint(0x65448ff4, 32).Uint(1, 64).Address(alice).Ref(told).Bool(false),
		new(cell.Builder).Uint(0x65448ff4, 32).Uint(1, 64).Address(alice).Ref(told).MaybeRef(told),
		new(cell.Builder).Uint(0x4d725d2c, 32).Uint(1, 64).Address(alice).Uint(0, 2+64).MaybeRef(told),
		new(cell.Builder).Uint(0, 32).Uint('c', 8),
	} {
		f.Add(must(cell.Encode(must(b.Cell()))))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		body, err := cell.ParseOne(data)
		if err != nil {
			return
		}
		book := must(NewBook(terms))
		tx := chain.Transaction{Mark: chain.Mark{LT: 1}, Aborted: true, In: &chain.Message{From: bob, Value: 1, Body: body.Read()}}
		if err := book.Apply(tx); err != nil || book.Took() != 0 || book.Deposits != 0 || book.Open != 0 {
			t.Fatalf("got error %v, %d taken, %d deposits, %d clients", err, book.Took(), book.Deposits, book.Open)
		}
	})
}

// TestDepositsWhileClosing: a top-up that a closing proxy sends back still counts in the client's contract. It is neither paid out nor
// refunded.
func TestDepositsWhileClosing(t *testing.T) {
	w := newWorld(t)
	w.topUp(bob, 3*coin)
	w.carry(claim.ProxyClose, w.proxy, 0)
	w.topUp(alice, 5*coin)
	a := must(w.terms.Client(alice))
	v := w.look()
	if got := w.client(alice).Balance; got != 5*coin {
		t.Fatalf("Alice's contract counts %d, want what was sent back", got)
	}
	if _, ok := Grant(v, w.book, a, w.client(alice), 0); ok {
		t.Error("a refund is granted out of Bob's deposit")
	}
	w.carry(claim.ClientCharge, a, 1_000_000)
	v = w.look()
	if n, ok := Payout(v, w.book); ok || w.book.Took() != 0 {
		t.Errorf("a charge of coins that are not there pays %d", n)
	}
}

// TestWithdrawalBeforeCharge: a charge that lands after a withdrawal takes what is left, and that much is paid.
func TestWithdrawalBeforeCharge(t *testing.T) {
	w := newWorld(t)
	w.topUp(alice, 5*coin)
	w.look()
	count, _ := Charge(1000, w.client(alice), 4_000_000)
	w.withdraw(alice) // down to the stake of one coin
	w.carry(claim.ClientCharge, must(w.terms.Client(alice)), count)
	v := w.look()
	if pay, _ := Payout(v, w.book); pay != 1_000_000 {
		t.Errorf("payout is %d, want 1,000,000: what the charge found", pay)
	}
}

func TestServe(t *testing.T) {
	normal := View{Proxy: claim.Proxy{Stake: 10 * coin}}
	client := claim.Client{Balance: 5 * coin, Tokens: 100}
	for _, tt := range []struct {
		name, want     string
		change         func(*View, *claim.Client)
		counted, worst uint64
	}{
		{"all that there is", "", nil, 100, 5_000_000},
		{"one token more", "cost more than the 5000000000", nil, 100, 5_000_001},
		{"unsettled ones count", "cost more", nil, 1_000_100, 4_000_001},
		{"unsettled ones and the rest", "", nil, 1_000_100, 4_000_000},
		{"a journal behind the chain", "", nil, 0, 5_000_000},
		{"the stake bounds", "cost more than the 1000000000", func(v *View, _ *claim.Client) { v.Proxy.Stake = coin }, 100, 1_000_001},
		{"a proxy that closes", "proxy is closing", func(v *View, _ *claim.Client) { v.Proxy.State = claim.Closing }, 100, 1},
		{"a worker that is closed", "worker is closed", func(v *View, _ *claim.Client) { v.Worker.State = claim.Closed }, 100, 1},
		{"a client that closes", "client is closing", func(_ *View, c *claim.Client) { c.State = claim.Closing }, 100, 1},
		{"2^63 counted", "tokens are unsettled", nil, 1 << 63, 1},
		{"2^64-1 worst", "tokens are unsettled", nil, 100, 1<<64 - 1},
		{"2^62 worst", "cost more", nil, 100, 1 << 62},
	} {
		v, c := normal, client
		if tt.change != nil {
			tt.change(&v, &c)
		}
		err := Serve(v, 1000, c, tt.counted, tt.worst)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
}

func TestCharge(t *testing.T) {
	for _, tt := range []struct {
		name    string
		client  claim.Client
		counted uint64
		want    uint64 // 0: none
	}{
		{"the journal's count", claim.Client{Balance: 5 * coin, Tokens: 10}, 500, 500},
		{"nothing new", claim.Client{Balance: 5 * coin, Tokens: 500}, 500, 0},
		{"a journal behind the chain", claim.Client{Balance: 5 * coin, Tokens: 500}, 400, 0},
		{"as much as there is", claim.Client{Balance: 1_000_000, Tokens: 10}, 1010, 1009},
		{"strictly less than there is", claim.Client{Balance: 1_000_000, Tokens: 10}, 1009, 1009},
		{"less than a token", claim.Client{Balance: 1000, Tokens: 10}, 20, 0},
		{"nothing there", claim.Client{Tokens: 10}, 20, 0},
		{"closing", claim.Client{State: claim.Closing, Balance: coin}, 20, 20},
		{"closed", claim.Client{State: claim.Closed, Balance: coin}, 20, 0},
		{"2^64-1 on the chain", claim.Client{Balance: coin, Tokens: 1<<64 - 1}, 20, 0},
		{"2^64-1 in the journal", claim.Client{Balance: 1<<63 - 1, Tokens: claim.MaxTokens - 1}, 1<<64 - 1, claim.MaxTokens},
	} {
		got, ok := Charge(1000, tt.client, tt.counted)
		if ok != (tt.want != 0) || ok && got != tt.want {
			t.Errorf("%s: got %d, %t, want %d", tt.name, got, ok, tt.want)
		}
	}
}

// TestStaleViews: every rule that asks the book refuses one that tells less than the view, or more.
func TestStaleViews(t *testing.T) {
	w := newWorld(t)
	w.topUp(alice, 5*coin)
	w.carry(claim.ClientCharge, must(w.terms.Client(alice)), 1_000_000)
	old := w.look()
	w.carry(claim.ProxyClose, w.proxy, 0)
	now := w.look()
	for name, v := range map[string]View{"an older view": old} {
		if n, ok := Payout(v, w.book); ok {
			t.Errorf("%s: payout of %d", name, n)
		}
	}
	if _, ok := Payout(now, w.book); !ok {
		t.Error("what is due now is not paid")
	}
	forged := now
	forged.Time, forged.Last = now.Time+10_000, chain.Mark{LT: now.Last.LT + 1}
	if CloseComplete(forged, w.book) {
		t.Error("emptied by a view that the book does not know")
	}
	poor := now
	poor.Native = now.Proxy.Stake + w.book.Deposits + 50_000_000
	if n, ok := Payout(poor, w.book); ok {
		t.Errorf("a payout of %d out of stake and deposits", n)
	}
	poor.Native--
	if n, ok := Payout(poor, w.book); ok {
		t.Errorf("a payout of %d where stake and deposits are not even there", n)
	}
	poor.Native += 10_001
	if n, ok := Payout(poor, w.book); !ok || n != 10 {
		t.Errorf("payout is %d, %t, want the ten tokens that the pool covers", n, ok)
	}
}

// TestOtherContracts: price, code, key, owner, root or delays other than the terms' make another contract, and it is refused.
func TestOtherContracts(t *testing.T) {
	w := newWorld(t)
	w.topUp(alice, 5*coin)
	w.look()
	proxy, worker, client := w.account(w.proxy), w.account(must(w.terms.Worker())), w.account(must(w.terms.Client(alice)))
	for name, change := range map[string]func(*Terms){
		"price":  func(t *Terms) { t.Params.Price.NanotonPerToken++ },
		"weight": func(t *Terms) { t.Params.Price.PromptWeight++ },
		"fee":    func(t *Terms) { t.Params.WorkerFee-- },
		"delay":  func(t *Terms) { t.Params.ClientDelay++ },
		"key":    func(t *Terms) { t.Key[0] ^= 1 },
		"owner":  func(t *Terms) { t.Owner.Account[1] ^= 1 },
		"root":   func(t *Terms) { t.Root.Account[1] ^= 1 },
		"code":   func(t *Terms) { t.Params.ProxyCode = t.Params.WorkerCode },
	} {
		terms := w.terms
		change(&terms)
		if _, err := Look(terms, 1, proxy, worker); err == nil || !strings.Contains(err.Error(), "contract differs") {
			t.Errorf("proxy of another %s: got %v", name, err)
		}
		if _, err := Client(terms, client); err == nil || !strings.Contains(err.Error(), "contract differs") {
			t.Errorf("client of another %s: got %v", name, err)
		}
	}
	lying := proxy
	lying.Code = chaintest.Code("client")
	if _, err := Look(w.terms, 1, lying, worker); err == nil || !strings.Contains(err.Error(), "code is") {
		t.Errorf("another code at the address: got %v", err)
	}
	absent := client
	absent.Data, absent.Status = nil, chain.Absent
	if _, err := Client(w.terms, absent); err == nil {
		t.Error("a client that is not there: got no error")
	}
}

// TestCloseComplete: what empties a proxy wants everything at once.
func TestCloseComplete(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*View, *Book)
		want   bool
	}{
		{"all settled, and the delay over", func(*View, *Book) {}, true},
		{"a second before", func(v *View, _ *Book) { v.Time-- }, false},
		{"one client open", func(_ *View, b *Book) { b.Open = 1 }, false},
		{"a nanoton of a client's", func(_ *View, b *Book) { b.Deposits = 1 }, false},
		{"a book that ends before the view", func(_ *View, b *Book) { b.Mark.LT-- }, false},
		{"a proxy that is not closing", func(v *View, _ *Book) { v.Proxy.State = claim.Normal }, false},
		{"a proxy that is closed", func(v *View, _ *Book) { v.Proxy.State = claim.Closed }, false},
	} {
		b := &Book{Mark: chain.Mark{LT: 9}}
		v := View{Time: 100, Last: chain.Mark{LT: 9}, Proxy: claim.Proxy{State: claim.Closing, Unlock: 100}}
		tt.change(&v, b)
		if got := CloseComplete(v, b); got != tt.want {
			t.Errorf("%s: got %t, want %t", tt.name, got, tt.want)
		}
	}
}

// TestOrder: a book takes every transaction once, in order.
func TestOrder(t *testing.T) {
	w := newWorld(t)
	w.look()
	if err := w.book.Apply(chain.Transaction{Mark: chain.Mark{LT: 1 << 40}}); err == nil || !strings.Contains(err.Error(), "want") {
		t.Errorf("a transaction out of order: got %v", err)
	}
}

// TestBookAsBytes: a book that is written and read is the same, and goes on; one that does not add up or is another's is refused.
func TestBookAsBytes(t *testing.T) {
	w := newWorld(t)
	w.topUp(alice, 5*coin)
	w.topUp(bob, 3*coin)
	w.carry(claim.ClientCharge, must(w.terms.Client(alice)), 1_000_000)
	w.look()
	if got := w.book.Changed(); len(got) != 2 || len(w.book.Changed()) != 0 {
		t.Errorf("changed are %v, want both clients, once", got)
	}
	again := must(ReadBook(w.book.AppendHead(nil)))
	if err := again.Whole(); err == nil {
		t.Error("a book without its clients adds up")
	}
	for i := range w.book.Clients() {
		item := w.book.AppendItem(nil, i)
		if at, err := again.Set(item); at != i || err != nil {
			t.Fatalf("client %d: at %d (%v)", i, at, err)
		}
		if at, ok := again.Find(item); at != i || !ok {
			t.Errorf("client %d is found at %d, %t", i, at, ok)
		}
	}
	other := w.terms
	other.Params.WorkerFee--
	if err := again.Under(other); !errors.Is(err, ErrOther) {
		t.Errorf("another proxy's terms: got %v, want %v", err, ErrOther)
	}
	if err := errors.Join(again.Whole(), again.Under(w.terms)); err != nil {
		t.Fatal(err)
	}
	w.book = again
	w.carry(claim.ClientCharge, must(w.terms.Client(bob)), 500_000)
	if v := w.look(); again.Took() != 1_500_000_000 || again.Whole() != nil || again.Open != 2 || again.Deposits != 6_500_000_000 {
		t.Errorf("read and gone on: %d taken, %d nanotons of %d open, %+v", again.Took(), again.Deposits, again.Open, v)
	}
	for _, n := range []int{0, HeadBytes - 1, HeadBytes + 1} {
		if _, err := ReadBook(make([]byte, n)); err == nil {
			t.Errorf("a head of %d bytes: got no error", n)
		}
	}
}

// TestOwnersWords: what an owner may say counts when the owner says it. The guard does not; a stranger whom the contract passes over changes
// nothing.
func TestOwnersWords(t *testing.T) {
	w := newWorld(t)
	guard := must(w.terms.Guard())
	for _, tt := range []struct {
		name   string
		from   ton.Address
		body   *cell.Builder
		closes byte
	}{
		{"a stranger's text", bob, new(cell.Builder).Uint(0, 32).Uint('c', 8), 0},
		{"a stranger's close", bob, new(cell.Builder).Uint(0xb51d5a01, 32), 0},
		{"the guard's other text", guard, new(cell.Builder).Uint(0, 32).Uint('d', 8), 0},
		{"the guard's text", guard, new(cell.Builder).Uint(0, 32).Uint('c', 8), 1},
		{"the guard's close", guard, new(cell.Builder).Uint(0xb51d5a01, 32), 1},
	} {
		book := must(NewBook(w.terms))
		err := book.Apply(chain.Transaction{Mark: chain.Mark{LT: 1}, In: &chain.Message{From: tt.from, Body: must(tt.body.Cell()).Read()}})
		if head := book.AppendHead(nil); err != nil || head[HeadBytes-1] != tt.closes {
			t.Errorf("%s: state is %d (%v), want %d", tt.name, head[HeadBytes-1], err, tt.closes)
		}
	}
}

// TestRefusedChangesNothing: a transaction that a book does not take leaves it as it was.
func TestRefusedChangesNothing(t *testing.T) {
	w := newWorld(t)
	w.topUp(alice, 5*coin)
	w.look()
	before := w.book.AppendItem(w.book.AppendHead(nil), 0)
	told := must(new(cell.Builder).Uint(0, 2).Coins(1).Coins(coin).Uint(0, 64).Uint(0, 64*4).Cell())
	what := must(new(cell.Builder).Uint(0x0badf00d, 32).Coins(9).Address(alice).Cell())
	for name, b := range map[string]*cell.Builder{
		"of an unknown kind": new(cell.Builder).Uint(0x65448ff4, 32).Uint(1, 64).Address(alice).Ref(told).MaybeRef(what),
		"of another owner":   new(cell.Builder).Uint(0x65448ff4, 32).Uint(1, 64).Address(bob).Ref(told).MaybeRef(nil),
	} {
		err := w.book.Apply(chain.Transaction{Previous: w.book.Mark, Mark: chain.Mark{LT: 1 << 50},
			In: &chain.Message{From: must(w.terms.Client(alice)), Body: must(b.Cell()).Read()}})
		if after := w.book.AppendItem(w.book.AppendHead(nil), 0); err == nil || !bytes.Equal(after, before) || w.book.Clients() != 1 {
			t.Errorf("%s: got %v and %x, want an error and %x", name, err, after, before)
		}
	}
}
