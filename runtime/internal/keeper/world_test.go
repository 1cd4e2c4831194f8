package keeper

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"sync"
	"testing"
	"time"

	"chrysalis/measure/pubkey"
	"chrysalis/measure/ton"
	"chrysalis/runtime/cell"
	"chrysalis/runtime/chain/chaintest"
	"chrysalis/runtime/chain/relay"
	"chrysalis/runtime/claim"
	"chrysalis/runtime/receipt"
	"chrysalis/runtime/settle"
)

const coin = 1_000_000_000

var (
	payoutOwner = ton.Address{Account: [32]byte{0xee}}
	carrier     = ton.Address{Account: [32]byte{0xca}}
	alice, bob  = ton.Address{Account: [32]byte{0xa1}}, ton.Address{Account: [32]byte{0xb0}}
)

// secretOf is what an owner of these tests has its client show.
func secretOf(owner ton.Address) [32]byte {
	return sha256.Sum256(append([]byte("hash of "), owner.Account[:]...))
}

// world is a chain of these tests, with the contracts of a guest whose keeper follows it.
type world struct {
	t       testing.TB
	chain   *chaintest.Chain
	terms   Terms
	proxy   ton.Address
	disk    *lossy
	boots   uint64
	servers []func(relay.Question) ([]byte, error) // liteservers
	ends    bool                                   // the host asks for the end
	price   uint32                                 // coefficient of requests

	keeper *Keeper
	f      *follower
	stop   func()
	lines  []string // that the host was handed in this boot
}

func newWorld(t testing.TB) *world { return newWorldOn(t, chaintest.Options{}) }

func newWorldOn(t testing.TB, o chaintest.Options) *world {
	price := ton.Price{NanotonPerToken: 1000, PromptWeight: ton.WeightOne, CompletionWeight: ton.WeightOne}
	p := claim.Params{StructVersion: 3, Version: 1, UniqueID: 17, Price: price, WorkerFee: 700, ProxyDelay: 200, ClientDelay: 100,
		MinProxyStake: coin, MinClientStake: coin,
		ProxyCode: chaintest.Code("proxy"), WorkerCode: chaintest.Code("worker"), ClientCode: chaintest.Code("client")}
	w := &world{t: t, chain: must(chaintest.New(o)), disk: newLossy()}
	w.terms = testTerms()
	w.terms.Price, w.terms.Served[0].MaxPrompt, w.terms.Served[0].MaxAnswer = price, 1<<24, 1<<24
	w.terms.Settling = &Settling{Network: w.chain.Network, MaxAge: time.Minute, Least: 10_000, Most: 20_000, Terms: settle.Terms{Root: ton.Address{Account: [32]byte{0x10}},
		Key: [32]byte(claimKey.Public().(ed25519.PublicKey)), Owner: payoutOwner, Params: p}}
	w.proxy = must(w.terms.Settling.Terms.Proxy())
	guard := must(w.terms.Settling.Terms.Guard())
	w.send(chaintest.Message{From: carrier, To: guard, Value: coin / 10, Init: must(claim.StateInit(claim.GuardCode(), claim.Guard{Owner: payoutOwner}))})
	w.send(chaintest.Message{From: carrier, To: w.proxy, Value: coin / 2,
		Init: must(claim.StateInit(p.ProxyCode, p.NewProxy(guard, w.terms.Settling.Terms.Key, w.terms.Settling.Terms.Root)))})
	w.send(chaintest.Message{From: carrier, To: w.proxy, Value: 10*coin + coin/2,
		Body: must(new(cell.Builder).Uint(0x9713f187, 32).Uint(1, 64).Coins(10 * coin).Address(carrier).Cell())})
	honest := func(q relay.Question) ([]byte, error) { return w.honest(q) }
	w.servers = []func(relay.Question) ([]byte, error){honest, honest}
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

// honest answers as the chain is.
func (w *world) honest(q relay.Question) ([]byte, error) {
	switch q.Kind {
	case relay.BlockProof:
		return w.chain.BlockProof(q.Block, w.chain.Last())
	case relay.AccountState:
		return w.chain.AccountState(q.Block, q.Account)
	case relay.Transactions:
		return w.chain.Transactions(q.Account, q.From, 16)
	}
	return nil, relay.ErrNone
}

// Ask makes the world an Asker.
func (w *world) Ask(_ context.Context, q relay.Question) ([]byte, error) {
	switch {
	case q.Kind == relay.Ending && w.ends:
		return []byte{1}, nil
	case q.Kind == relay.Ending:
		return nil, nil
	case int(q.Server) >= len(w.servers):
		return nil, relay.ErrNoServer
	}
	answer, err := w.servers[q.Server](q)
	if err != nil {
		return nil, relay.ErrNone
	}
	return answer, nil
}

// boot starts the guest's keeper on its disk.
func (w *world) boot() {
	w.t.Helper()
	if w.stop != nil {
		w.stop()
	}
	if err := w.open(); err != nil {
		w.t.Fatal(err)
	}
}

// open runs a keeper over the disk as it is.
func (w *world) open() error {
	k, err := Open(w.disk, journalKey, w.boots, w.terms)
	if err != nil {
		return err
	}
	k.now = w.now
	w.run(k)
	return nil
}

func (w *world) now() time.Time { return time.Unix(int64(w.chain.Now()), 0) }

// run runs a keeper that was opened.
func (w *world) run(k *Keeper) {
	w.t.Helper()
	w.boots++
	w.keeper, w.f = k, must(newFollower(k, w))
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { k.Run(ctx) })
	w.lines = nil
	w.stop = sync.OnceFunc(func() { cancel(); done.Wait() })
	w.t.Cleanup(w.stop)
}

// look has the keeper follow the chain once.
func (w *world) look() {
	w.t.Helper()
	if err := w.f.round(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

// handed has the host take what there is, and returns all that it was handed in this boot.
func (w *world) handed() []string {
	w.t.Helper()
	for {
		r := w.keeper.ask(call{op: opExport})
		if r.status != statusOK {
			w.t.Fatal(r.status.err())
		}
		if r.claim == nil && r.proof.Receipt == nil {
			break
		}
		line := claim.Line(r.claim)
		if r.claim == nil {
			line = must(r.proof.Line())
		}
		w.lines = append(w.lines, line)
	}
	return w.lines
}

// signed returns the newest count that the host was handed for a contract in this boot, and whether there was any: of a charge also by a receipt's.
func (w *world) signed(op claim.Op, contract ton.Address) (count uint64, ok bool) {
	w.t.Helper()
	for _, m := range w.told() {
		if m.Op == op && m.Contract == contract {
			count, ok = max(count, m.Tokens), true
		}
	}
	return count, ok
}

// carry carries a signed message, as anybody may.
func (w *world) carry(op claim.Op, to ton.Address, count uint64) []chaintest.Outcome {
	w.t.Helper()
	m := claim.Message{Op: op, QueryID: count + 5, Tokens: count, Contract: to, Excesses: carrier}
	var body []byte
	if op.Closes() {
		m.Tokens = 0
		body = must(claim.SignClose(claimKey, m))[:]
	} else {
		body = must(claim.Sign(claimKey, m))[:]
	}
	message := chaintest.Message{From: carrier, To: to, Value: coin / 2, Bounce: true, Body: must(cell.ParseOne(body))}
	if op == claim.WorkerPayout || op == claim.WorkerLastPayout {
		t := &w.terms.Settling.Terms
		message.Init = must(claim.StateInit(t.Params.WorkerCode, t.Params.NewWorker(payoutOwner, w.proxy, t.Key)))
	}
	return w.send(message)
}

// carrySigned carries the newest that the host was handed.
func (w *world) carrySigned(op claim.Op, to ton.Address) uint64 {
	w.t.Helper()
	count, ok := w.signed(op, to)
	if !ok {
		w.t.Fatalf("no %s of %s was signed", op, to)
	}
	w.carry(op, to, count)
	return count
}

// owner has a client's owner send its contract something.
func (w *world) owner(of ton.Address, op, value uint64, fields func(*cell.Builder)) {
	w.t.Helper()
	b := new(cell.Builder).Uint(op, 32).Uint(7, 64)
	fields(b)
	t := &w.terms.Settling.Terms
	w.send(chaintest.Message{From: of, To: w.client(of), Value: value, Bounce: true, Body: must(b.Cell()),
		Init: must(claim.StateInit(t.Params.ClientCode, t.Params.NewClient(of, w.proxy, t.Key)))})
}

func (w *world) client(of ton.Address) ton.Address { return must(w.terms.Settling.Terms.Client(of)) }

// opens has an owner open its contract, with a secret and so many nanotons.
func (w *world) opens(of ton.Address, coins uint64) {
	w.t.Helper()
	secret := secretOf(of)
	hash := sha256.Sum256(secret[:])
	w.owner(of, 0x8473b408, coins+coin/2, func(b *cell.Builder) { b.Coins(coins).Bytes(hash[:]).Address(of) })
}

func (w *world) topUp(of ton.Address, coins uint64) {
	w.owner(of, 0xf172e6c2, coins+coin/2, func(b *cell.Builder) { b.Coins(coins).Address(of) })
}
func (w *world) withdraws(of ton.Address) {
	w.owner(of, 0xda068e78, coin/2, func(b *cell.Builder) { b.Address(of) })
}
func (w *world) leaves(of ton.Address) {
	w.owner(of, 0xfafa6cc1, coin/2, func(b *cell.Builder) { b.Address(of) })
}

// coefficient is one, unless a test says otherwise.
func (w *world) coefficient() uint32 { return cmp.Or(w.price, ton.WeightOne) }

// reserve asks for a place for an answer of so many tokens at most.
func (w *world) reserve(of ton.Address, secret [32]byte, tokens uint32) (hold, error) {
	hash := sha256.Sum256(secret[:])
	r := w.keeper.ask(call{op: opReserve, record: receipt.Answer{Client: w.client(of), Request: hash, Usage: receipt.Usage{Completion: tokens}, Coefficient: w.coefficient()}})
	if r.status != statusOK {
		return hold{}, r.status.err()
	}
	return r.held, nil
}

var answers byte

// records records an answer in a place.
func (w *world) records(h hold, tokens uint32) (receipt.Proof, error) {
	answers++
	r := w.keeper.ask(call{op: opRecord, place: true, held: h, record: receipt.Answer{ID: receipt.AnswerID{1, answers, byte(w.boots)}, Client: h.client,
		Request: [32]byte{answers}, Usage: receipt.Usage{Completion: tokens}, Outcome: receipt.Complete, Coefficient: h.coefficient}})
	if r.status != statusOK {
		return receipt.Proof{}, r.status.err()
	}
	return r.proof, nil
}

// answer has a client answered, with so many tokens, and returns what was charged; 0 where nothing was.
func (w *world) answer(of ton.Address, tokens uint32) uint64 {
	w.t.Helper()
	h, err := w.reserve(of, secretOf(of), tokens)
	if err != nil {
		w.t.Fatal(err)
	}
	p, err := w.records(h, tokens)
	if err != nil {
		w.t.Fatal(err)
	}
	if p.Charge == nil {
		return 0
	}
	m, err := claim.Verify(p.Charge[:], claim.Policy{Key: pubkey.Of(claimKey), Contract: w.client(of)})
	if err != nil {
		w.t.Fatal(err)
	}
	return m.Tokens
}

func (w *world) refuses(why error, of ton.Address, secret [32]byte, tokens uint32) {
	w.t.Helper()
	if _, err := w.reserve(of, secret, tokens); !errors.Is(err, why) {
		w.t.Errorf("an answer of %d tokens: got %v, want %v", tokens, err, why)
	}
}

// TestWholeLoop goes from an opened contract to a closed proxy: what clients were charged is the owner's at the end, to the nanoton but for fees,
// and what they were not is theirs.
func TestWholeLoop(t *testing.T) {
	w := newWorld(t)
	w.boot()
	w.refuses(ErrChain, alice, secretOf(alice), 1)
	w.look()
	w.refuses(ErrKey, alice, secretOf(alice), 1)
	w.opens(alice, 5*coin)
	w.opens(bob, 9*coin)
	w.refuses(ErrKey, alice, secretOf(alice), 1)
	w.look()
	w.refuses(ErrKey, alice, secretOf(bob), 1)
	w.refuses(ErrFunds, alice, secretOf(alice), 5_000_000)
	if n := w.answer(alice, 1_000_000); n != 1_000_000 {
		t.Errorf("Alice is charged %d, want a million", n)
	}
	if n := w.answer(alice, 500_000); n != 1_500_000 {
		t.Errorf("Alice is charged %d in all, want a million and a half", n)
	}
	w.answer(bob, 3_000_000)
	before := w.chain.Balance(payoutOwner)
	worker := must(w.terms.Settling.Terms.Worker())
	w.look()
	if n, ok := w.signed(claim.WorkerPayout, worker); ok {
		t.Errorf("a payout of %d is signed before anybody was charged", n)
	}
	w.carrySigned(claim.ClientCharge, w.client(alice))
	w.carrySigned(claim.ClientCharge, w.client(bob))
	w.look()
	had := len(w.handed())
	w.look()
	if got := w.handed(); len(got) != had {
		t.Errorf("a payout that nobody has carried is signed again: %q", got[had:])
	}
	if n := w.carrySigned(claim.WorkerPayout, worker); n != 4_500_000 {
		t.Errorf("payout is %d, want the 4,500,000 that were charged", n)
	}
	if got := w.chain.Balance(payoutOwner) - before; got > 4_500_000*700 || got < 4_500_000*700-10 {
		t.Errorf("the worker's owner has %d, want %d but for what its storage costs", got, 4_500_000*700)
	}
	w.boot()
	w.refuses(ErrChain, bob, secretOf(bob), 1)
	w.look()
	w.answer(bob, 1_000_000)
	was := len(w.handed())
	w.look()
	if got := w.handed(); len(got) != was {
		t.Errorf("with nothing new the host is handed %q", got[was:])
	}
	w.ends = true
	w.look()
	w.refuses(ErrChain, bob, secretOf(bob), 1)
	if _, ok := w.signed(claim.ProxyClose, w.proxy); ok {
		t.Error("the end begins while Bob is unsettled")
	}
	w.carrySigned(claim.ClientCharge, w.client(bob))
	w.look()
	w.carrySigned(claim.ProxyClose, w.proxy)
	w.look()
	for _, of := range []ton.Address{alice, bob} {
		had, left := w.chain.Balance(of), map[ton.Address]uint64{alice: 3_500_000_000, bob: 5_000_000_000}[of]
		w.carrySigned(claim.ClientRefund, w.client(of))
		if got := w.chain.Balance(of) - had; got > left || got < left-10 {
			t.Errorf("%s gets %d back, want %d", of, got, left)
		}
	}
	if _, ok := w.signed(claim.ProxyCloseComplete, w.proxy); ok {
		t.Error("the proxy is emptied before its delay is over")
	}
	w.look()
	if n := w.carrySigned(claim.WorkerLastPayout, worker); n != 5_500_000 {
		t.Errorf("last payout is %d, want 5,500,000", n)
	}
	w.chain.Advance(300)
	w.send(chaintest.Message{From: carrier, To: payoutOwner, Value: 1})
	w.look()
	w.carrySigned(claim.ProxyCloseComplete, w.proxy)
	if got := w.chain.Balance(payoutOwner) - before; got < 5_500_000_000+10*coin-coin/5 {
		t.Errorf("the owner has %d at the end, want 5.5 coins and the stake, but for fees", got)
	}
	w.look()
	if !w.keeper.ledger.settled.book.Over() {
		t.Error("the book is not over")
	}
}
