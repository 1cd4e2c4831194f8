package keeper

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"chrysalis/measure/ton"
	"chrysalis/runtime/api"
	"chrysalis/runtime/cell"
	"chrysalis/runtime/chain"
	"chrysalis/runtime/chain/chaintest"
	"chrysalis/runtime/chain/relay"
	"chrysalis/runtime/claim"
	"chrysalis/runtime/internal/journal"
	"chrysalis/runtime/receipt"
	"chrysalis/runtime/settle"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// secretHash is of the secret of every client here.
var secretHash = sha256.Sum256([]byte("a secret of thirty-two characters"))

// code is a cell that stands for a contract's code.
func code(n uint64) *cell.Cell { return must(new(cell.Builder).Uint(n, 8).Cell()) }

// settleTerms are those of a proxy; version makes another one's.
func settleTerms(version uint32) *settle.Terms {
	return &settle.Terms{Root: ton.Address{Account: [32]byte{1}}, Key: [32]byte(claimKey.Public().(ed25519.PublicKey)),
		Owner: ton.Address{Account: [32]byte{2}}, Params: claim.Params{StructVersion: 3, Version: version, Price: testTerms().Price, MinClientStake: 5,
			ProxyCode: code(1), WorkerCode: code(2), ClientCode: code(3)}}
}

func chainTerms(version uint32) Terms {
	t := testTerms()
	t.Settling = &Settling{Terms: *settleTerms(version), Network: chain.Network{Name: "test"}, MaxAge: time.Minute}
	return t
}

// teller makes up what a proxy's account would tell.
type teller struct {
	terms  *settle.Terms
	head   chain.Head
	last   chain.Mark
	spent  map[int]uint64 // tokens of each owner's client
	random *rand.Rand
}

func newTeller(version uint32) *teller {
	id := chain.BlockID{Workchain: chain.Masterchain, Shard: 1 << 63, Seqno: 1, RootHash: [32]byte{1}}
	return &teller{terms: settleTerms(version), head: chain.Head{Key: id, Last: id, Time: 1}, spent: map[int]uint64{}, random: rand.New(rand.NewPCG(8, 9))}
}

// block makes the next block.
func (c *teller) block() chain.Head {
	c.head.Last.Seqno++
	c.head.Last.RootHash[0]++
	c.head.Time++
	return c.head
}

func (c *teller) owner(n int) ton.Address {
	return ton.Address{Account: [32]byte{0xee, byte(n), byte(n >> 8), byte(n >> 16)}}
}

// tell makes the proxy's next transaction: what the client of an owner says after it has 1000 nanotons more, of which tokens were charged.
func (c *teller) tell(n int, balance, tokens uint64) chain.Transaction {
	proxy := must(c.terms.Proxy())
	contract := must(c.terms.Client(c.owner(n)))
	told := must(new(cell.Builder).Uint(0, 2).Coins(balance).Coins(5).Uint(tokens, 64).Bytes(secretHash[:]).Cell())
	what := must(new(cell.Builder).Uint(0x5cfc6b87, 32).Coins(1000).Address(proxy).Cell())
	body := must(new(cell.Builder).Uint(0x65448ff4, 32).Uint(1, 64).Address(c.owner(n)).Ref(told).MaybeRef(what).Cell())
	tx := chain.Transaction{Previous: c.last, Mark: chain.Mark{LT: c.last.LT + 10, Hash: [32]byte{7, byte(c.last.LT)}},
		In: &chain.Message{From: contract, Value: 1000, Body: body.Read()}}
	c.last = tx.Mark
	return tx
}

// topUps makes some transactions of some clients of so many.
func (c *teller) topUps(count, of int) (txs []chain.Transaction) {
	for range count {
		n := c.random.IntN(of)
		c.spent[n]++
		txs = append(txs, c.tell(n, c.spent[n]*900, c.spent[n]))
	}
	return txs
}

// direct has a keeper that does not run take what was proven.
func direct(k *Keeper, head chain.Head, txs []chain.Transaction) (refused, failed error) {
	p := proven{head: head, txs: txs, reply: make(chan error, 1)}
	failed = k.follow(p)
	return <-p.reply, failed
}

// onChain is the call of an answer for which a place is held.
func onChain(k *Keeper, r receipt.Answer) call {
	h := hold{client: r.Client, worst: 1 << 30}
	k.ledger.settling.held[r.Client] += h.worst
	k.reserved++
	return call{op: opRecord, record: r, place: true, held: h, reply: make(chan reply, 1)}
}

// bookOf is all that a ledger has of the chain. The order of the clients is that in which they were read.
func bookOf(l *ledger) []byte {
	var items []string
	for i := range l.settled.book.Clients() {
		items = append(items, string(l.settled.book.AppendItem(nil, i)))
	}
	slices.Sort(items)
	return append(l.settled.appendHead(nil), strings.Join(items, "")...)
}

// TestSettledInJournal: what the chain proved is there after a boot, under any way of payment, and nothing older is believed.
func TestSettledInJournal(t *testing.T) {
	d := newLossy()
	k := must(Open(d, journalKey, 0, chainTerms(1)))
	c := newTeller(1)
	for range 5 {
		if refused, failed := direct(k, c.block(), c.topUps(16, 40)); refused != nil || failed != nil {
			t.Fatal(refused, failed)
		}
	}
	want, old := bookOf(k.ledger), c.head
	old.Last.Seqno--
	for boots, terms := range []Terms{chainTerms(1), testTerms(), chainTerms(1)} {
		k = must(Open(d, journalKey, uint64(boots)+1, terms))
		if got := bookOf(k.ledger); !bytes.Equal(got, want) {
			t.Fatalf("boot %d has\n%x, want\n%x", boots+1, got, want)
		}
	}
	if err := k.ledger.settled.book.Whole(); err != nil {
		t.Error(err)
	}
	if refused, _ := direct(k, old, nil); refused == nil || !strings.Contains(refused.Error(), "is known") {
		t.Errorf("an older block after a boot: got %v", refused)
	}
	if refused, _ := direct(k, c.block(), []chain.Transaction{c.tell(1, 1, 50), c.tell(1, 1, 49)}); refused == nil {
		t.Error("a client's count that falls: got no error")
	}
	other := c.head
	other.Last.RootHash[5] ^= 1
	if refused, _ := direct(k, other, nil); refused == nil || !strings.Contains(refused.Error(), "is known") {
		t.Errorf("another block with the newest number: got %v", refused)
	}
	if refused, _ := direct(k, c.block(), make([]chain.Transaction, maxHistory+1)); refused == nil || !strings.Contains(refused.Error(), "at a time") {
		t.Error("more transactions than an answer has: got no error")
	}
}

// TestOtherProxy: a guest whose config leads to other contracts does not start while those before have coins, and starts a book of its own
// once they have none.
func TestOtherProxy(t *testing.T) {
	d := newLossy()
	k := must(Open(d, journalKey, 0, chainTerms(1)))
	c := newTeller(1)
	if refused, failed := direct(k, c.block(), c.topUps(3, 2)); refused != nil || failed != nil {
		t.Fatal(refused, failed)
	}
	if _, err := Open(d, journalKey, 1, chainTerms(2)); !errors.Is(err, settle.ErrOther) {
		t.Fatalf("another proxy: got %v, want %v", err, settle.ErrOther)
	}
	k = must(Open(d, journalKey, 1, chainTerms(1)))
	over := chain.Transaction{Previous: c.last, Mark: chain.Mark{LT: c.last.LT + 1, Hash: [32]byte{1}}, In: &chain.Message{From: c.owner(1),
		Body: must(new(cell.Builder).Uint(uint64(claim.ProxyCloseComplete), 32).Cell()).Read()}}
	if refused, failed := direct(k, c.block(), []chain.Transaction{over}); refused != nil || failed != nil {
		t.Fatal(refused, failed)
	}
	next := newTeller(2)
	next.head = c.head
	for boots := uint64(2); boots < 5; boots++ {
		k = must(Open(d, journalKey, boots, chainTerms(2)))
		if boots == 2 {
			continue // a boot that proves nothing keeps the book that is over
		}
		if refused, failed := direct(k, next.block(), next.topUps(5, 9)); refused != nil || failed != nil {
			t.Fatal(refused, failed)
		}
		if got := k.ledger.settled.book; got.Proxy() != must(next.terms.Proxy()) || got.Whole() != nil {
			t.Fatalf("boot %d: book is of %s (%v)", boots, got.Proxy(), got.Whole())
		}
	}
}

// TestSettledPowerCut cuts the power at random while answers and what the chain proves are written, checkpoints are under way and the ring comes
// round: what was durable is there, whole, and nothing that was never told.
func TestSettledPowerCut(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	d := lossyOf(256 << 10)
	c := newTeller(1)
	var durable, torn []byte
	n, cuts, wraps := 0, 0, 0
	for boots := uint64(0); boots < 140 || cuts < 5 && boots < 1000; boots++ { // which write is cut is up to the machine too
		k, err := Open(d, journalKey, boots, chainTerms(1))
		if err != nil {
			t.Fatalf("boot %d: %v", boots, err)
		}
		if durable != nil {
			got := bookOf(k.ledger)
			if !bytes.Equal(got, durable) && (torn == nil || !bytes.Equal(got, torn)) {
				t.Fatalf("boot %d has %d bytes of book, want %d as before the cut or %d", boots, len(got), len(durable), len(torn))
			}
			if err := k.ledger.settled.book.Whole(); err != nil {
				t.Fatalf("boot %d: %v", boots, err)
			}
			// The teller goes on from where the book is.
			durable, torn = got, nil
			h := must(chain.ReadHead(got[:chain.HeadBytes]))
			c.head, c.last = h, k.ledger.settled.book.Mark
			clear(c.spent)
			for i := range k.ledger.settled.book.Clients() {
				item := k.ledger.settled.book.AppendItem(nil, i)
				owner := int(item[33+2]) | int(item[33+3])<<8
				c.spent[owner] = binary.LittleEndian.Uint64(item[33+33+8:])
			}
		}
		d.step, d.fail = 0, map[int]func(*lossy) error{}
		cut := func(from int) {
			for s := from; s < 600; s++ {
				d.fail[s] = func(*lossy) error { return errDisk }
			}
		}
		cut(4 + random.IntN(200))
		for err == nil {
			if s := &k.ledger.settled; s.cursor > 0 && s.cursor < len(s.rounds) && random.IntN(2) == 0 {
				cut(d.step + 1 + random.IntN(2))
			}
			if random.IntN(3) == 0 {
				n++
				r := testRecord(n)
				r.Client = testAddress(n % 195)
				err = k.answer([]call{onChain(k, r)})
				continue
			}
			txs := c.topUps(random.IntN(17), 69)
			var refused error
			if refused, err = direct(k, c.block(), txs); err == nil && refused != nil {
				t.Fatal(refused)
			}
			if torn = bookOf(k.ledger); err == nil {
				durable, torn = torn, nil
			}
		}
		if k.ledger.settled.cursor > 0 && k.ledger.settled.cursor < len(k.ledger.settled.rounds) {
			cuts++
		}
		wraps += int(k.ledger.round)
		d.keep(func() bool { return random.IntN(3) > 0 })
		d.fail = nil
	}
	if cuts < 5 || wraps < 30 {
		t.Errorf("%d cuts in the clients of a checkpoint, %d checkpoints: too few to test anything", cuts, wraps)
	}
}

// TestSettledRefuses: an entry or a part that does not follow from what was read before ends Open.
func TestSettledRefuses(t *testing.T) {
	made := func() *ledger {
		l := newLedger(chainTerms(1))
		if err := l.settled.under(*settleTerms(1)); err != nil {
			t.Fatal(err)
		}
		c := newTeller(1)
		must(l.settled.advance(c.block(), c.topUps(6, 3)))
		return l
	}
	l := made()
	// An entry that says the same once more.
	for i := range l.settled.book.Clients() {
		must(l.settled.book.Set(l.settled.book.AppendItem(nil, i)))
	}
	entry := append(l.settled.entry(), l.settled.book.AppendItem(nil, 1)...)
	if err := made().Entry(entry, 0); err != nil {
		t.Fatalf("an entry of the same: %v", err)
	}
	const headAt = notAnAnswer + 1
	const bookAt = headAt + chain.HeadBytes
	const itemAt = settledEntry
	for name, change := range map[string]func([]byte) []byte{
		"another kind":            func(e []byte) []byte { e[notAnAnswer]++; return e },
		"half an item":            func(e []byte) []byte { return e[:len(e)-1] },
		"half a head":             func(e []byte) []byte { return e[:settledEntry-1] },
		"an older block":          func(e []byte) []byte { e[headAt+80+12]--; return e },
		"another block":           func(e []byte) []byte { e[headAt+80+16] ^= 1; return e },
		"another key block":       func(e []byte) []byte { e[headAt+16] ^= 1; return e },
		"an older time":           func(e []byte) []byte { e[headAt+160]--; return e },
		"a block of a shard":      func(e []byte) []byte { e[headAt]++; return e },
		"another proxy":           func(e []byte) []byte { e[bookAt+1] ^= 1; return e },
		"an older transaction":    func(e []byte) []byte { e[bookAt+33]--; return e },
		"another transaction":     func(e []byte) []byte { e[bookAt+41] ^= 1; return e },
		"a state that there isnt": func(e []byte) []byte { e[bookAt+settle.HeadBytes-1] = 3; return e },
		"a client's lower count":  func(e []byte) []byte { e[itemAt+74]--; return e },
		"a client's other owner":  func(e []byte) []byte { e[itemAt+40] ^= 1; return e },
		"a client's flags":        func(e []byte) []byte { e[itemAt+114] = 8; return e },
	} {
		if err := made().Entry(change(bytes.Clone(entry)), 0); err == nil {
			t.Errorf("%s: got no error, want one", name)
		}
	}
	head, parts := checkpointOf(l)
	clients := parts[len(parts)-1]
	if clients[0] != partClients {
		t.Fatalf("the last part is of kind %d", clients[0])
	}
	if again := made(); again.Part(clients) != nil || again.Begin(head) != nil {
		t.Fatal("a checkpoint of the same: got an error")
	}
	resumed := newLedger(testTerms())
	if err := errors.Join(resumed.Begin(head), resumed.Part(clients)); err != nil || len(resumed.Next(4096)) != 0 {
		t.Errorf("a checkpoint that goes on writes what it has (%v)", err)
	}
	stranger := bytes.Clone(clients)
	stranger[1+5] ^= 1
	other := bytes.Clone(clients)
	other[1+66] ^= 1
	for name, try := range map[string]func(l *ledger) error{
		"another head": func(l *ledger) error {
			h := bytes.Clone(head)
			h[headBytes+100] ^= 1
			return errors.Join(l.Begin(head), l.Begin(h))
		},
		"a head without the chain":      func(l *ledger) error { return errors.Join(l.Begin(head), l.Begin(head[:headBytes])) },
		"a head of another length":      func(l *ledger) error { return l.Begin(head[:len(head)-1]) },
		"a client that was never there": func(l *ledger) error { return l.Part(stranger) },
		"a client's other balance":      func(l *ledger) error { return l.Part(other) },
		"half a client":                 func(l *ledger) error { return l.Part(clients[:50]) },
		"clients without a book":        func(*ledger) error { return newLedger(testTerms()).Part(clients) },
		"clients that do not add up": func(*ledger) error {
			l := newLedger(testTerms())
			return errors.Join(l.Begin(head), l.Part(clients[:1+settle.ItemBytes]), l.End())
		},
	} {
		if err := try(made()); err == nil {
			t.Errorf("%s: got no error, want one", name)
		}
	}
}

// TestProve: a follower's word goes through the one goroutine that owns the ledger, beside answers.
func TestProve(t *testing.T) {
	d := newLossy()
	k := must(Open(d, journalKey, 0, chainTerms(1)))
	_, stop := run(t, k)
	c := newTeller(1)
	for n := 1; n < 5; n++ {
		if err := k.prove(proven{head: c.block(), txs: c.topUps(3, 9)}); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	if err := k.prove(proven{head: c.block()}); !errors.Is(err, ErrUnknown) {
		t.Errorf("of a keeper that has ended: got %v, want %v", err, ErrUnknown)
	}
	again := must(Open(d, journalKey, 1, chainTerms(1)))
	if got, want := bookOf(again.ledger), bookOf(k.ledger); !bytes.Equal(got, want) || got == nil {
		t.Errorf("after a boot:\n%x, want\n%x", got, want)
	}
}

// TestBookHasRoom: a book has half of what a checkpoint has room for, whatever contracts there are, and no more.
func TestBookHasRoom(t *testing.T) {
	k := must(Open(lossyOf(256<<10), journalKey, 0, chainTerms(1)))
	answer := func(i int) {
		r := testRecord(1)
		r.ID, r.Client = receipt.AnswerID{9, byte(i), byte(i >> 8)}, ton.Address{Account: [32]byte{5, byte(i), byte(i >> 8)}}
		c := onChain(k, r)
		if err := k.answer([]call{c}); err != nil {
			t.Fatal(err)
		}
		want := statusOK
		if i >= 202 {
			want = statusFull
		}
		if got := (<-c.reply).status; got != want {
			t.Fatalf("contract %d: got status %d, want %d", i, got, want)
		}
	}
	for i := range 210 {
		answer(i)
	}
	c := newTeller(1)
	var refused error
	n := 0
	for ; refused == nil && n < 1000; n++ {
		var failed error
		if refused, failed = direct(k, c.block(), []chain.Transaction{c.tell(n, 1000, 0)}); failed != nil {
			t.Fatal(failed)
		}
	}
	if !errors.Is(refused, errBookFull) || n != 87 {
		t.Fatalf("after %d clients: got %v, want %v after 86", n, refused, errBookFull)
	}
	for range 600 { // the ring comes round with all of them
		if refused, failed := direct(k, c.block(), nil); !errors.Is(refused, errBookFull) && refused != nil || failed != nil {
			t.Fatal(refused, failed)
		}
	}
}

// TestSettledMemory: a proxy with 100,000 clients takes a bounded piece of memory, whatever they go on to do.
func TestSettledMemory(t *testing.T) {
	const clients = 100_000
	var before, after, later runtime.MemStats
	l := newLedger(chainTerms(1))
	item := make([]byte, settle.ItemBytes)
	c := newTeller(1)
	if err := l.settled.under(*c.terms); err != nil {
		t.Fatal(err)
	}
	must(l.settled.advance(c.block(), nil))
	runtime.GC()
	runtime.ReadMemStats(&before)
	for n := range clients {
		binary.LittleEndian.PutUint32(item[1:], uint32(n+1))
		must(l.settled.set(item))
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if each := (after.HeapAlloc - before.HeapAlloc) / clients; each > 400 {
		t.Errorf("each client takes %d bytes, want at most 400", each)
	}
	for round := range uint64(3) {
		for n := range clients {
			binary.LittleEndian.PutUint32(item[1:], uint32(n+1))
			binary.LittleEndian.PutUint64(item[66:], round) // balance
			must(l.settled.set(item))
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&later)
	if later.HeapAlloc > after.HeapAlloc+1<<20 {
		t.Errorf("after 300,000 messages of theirs %d bytes are taken, want the %d of before", later.HeapAlloc-before.HeapAlloc, after.HeapAlloc-before.HeapAlloc)
	}
	runtime.KeepAlive(l)
}

// FuzzSettled: an entry that is accepted is the entry of what it says.
func FuzzSettled(f *testing.F) {
	l := newLedger(chainTerms(1))
	if err := l.settled.under(*settleTerms(1)); err != nil {
		f.Fatal(err)
	}
	c := newTeller(1)
	f.Add(must(l.settled.advance(c.block(), c.topUps(1, 1))))
	f.Add(must(l.settled.advance(c.block(), nil)))
	f.Fuzz(func(t *testing.T, data []byte) {
		l := newLedger(testTerms())
		if len(data) <= notAnAnswer || [notAnAnswer]byte(data) != ([notAnAnswer]byte{}) || l.Entry(data, journal.Place(1)) != nil {
			return
		}
		again := append(append(make([]byte, notAnAnswer), entrySettled), l.settled.appendHead(nil)...)
		for i := range l.settled.book.Clients() {
			again = l.settled.book.AppendItem(again, i)
		}
		if !bytes.Equal(again[:settledEntry], data[:settledEntry]) || len(again) == len(data) && !bytes.Equal(again, data) {
			t.Fatalf("read and written again: got %x, want %x", again, data)
		}
	})
}

// BenchmarkWalk is the first round of a guest that knows a key block alone: 100 key blocks lie behind the newest, 100 validators of 400 sign each, and
// 40 clients have topped up nearly ten times each. How often it waits for an answer, how much a liteserver sends it, and how long all takes.
func BenchmarkWalk(b *testing.B) {
	const keyBlocks, clients = 100, 40
	w := newWorldOn(b, chaintest.Options{Validators: 400, Main: 100, Shuffle: true, KeyEvery: 4})
	for n := range clients {
		w.opens(ton.Address{Account: [32]byte{0xd0, byte(n)}}, coin)
	}
	for n := 0; w.chain.Last().Seqno < 4*keyBlocks; n++ {
		w.topUp(ton.Address{Account: [32]byte{0xd0, byte(n % clients)}}, coin)
	}
	var rounds, size int // of the first liteserver, which answers what the second is not asked
	honest := w.servers[0]
	w.servers = []func(relay.Question) ([]byte, error){func(q relay.Question) ([]byte, error) {
		answer, err := honest(q)
		rounds, size = rounds+1, size+len(answer)
		return answer, err
	}}
	for b.Loop() {
		b.StopTimer()
		rounds, size, w.disk, w.boots = 0, 0, newLossy(), 0
		w.boot()
		b.StartTimer()
		w.look()
		if got := len(w.keeper.ledger.settled.rounds); got != clients {
			b.Fatalf("%d clients after the walk, want %d", got, clients)
		}
	}
	b.ReportMetric(float64(rounds), "rounds")
	b.ReportMetric(float64(size), "bytes")
}

// BenchmarkPay is what stands between a request and its work where charges are settled on chain: the key that it shows is read, its contract found
// among 100,000, and what the answer may come to held and given back. derived is a key of a name.
func BenchmarkPay(b *testing.B) {
	const clients = 100_000
	l := newLedger(chainTerms(1))
	if err := l.settled.under(*settleTerms(1)); err != nil {
		b.Fatal(err)
	}
	l.terms.Settling.Least, l.terms.Settling.Most = ton.WeightOne, ton.WeightOne
	c := newTeller(1)
	must(l.settled.advance(c.block(), nil))
	own := api.Key{Contract: [32]byte{1, 2, 3}, Secret: [32]byte{4}}
	hash := own.SecretHash()
	item := make([]byte, settle.ItemBytes)
	for n := range clients {
		binary.LittleEndian.PutUint32(item[1:], uint32(n+1))
		if n == clients/2 {
			copy(item[1:], own.Contract[:])
		}
		binary.LittleEndian.PutUint64(item[66:], 1<<40) // balance
		copy(item[82:], hash[:])
		must(l.settled.set(item))
		clear(item[1:33])
	}
	l.settling.seen, l.settling.head = true, c.head
	l.settling.view.Proxy.Stake = 1 << 40
	derived := own.Derive("ci")
	l.keys.set(clientKey{named: named{ton.Address{Account: own.Contract}, [16]byte{'c', 'i'}}, under: hash, hash: derived.SecretHash(), cap: 1 << 40})
	now := time.Unix(int64(c.head.Time), 0)
	for name, key := range map[string]api.Key{"own": own, "derived": derived} {
		b.Run(name, func(b *testing.B) {
			text := key.String()
			for b.Loop() {
				k, err := api.ParseKey(text)
				if err != nil {
					b.Fatal(err)
				}
				h, err := l.serve(ton.Address{Account: k.Contract}, k.SecretHash(), receipt.Usage{Prompt: 500, Completion: 500}, ton.WeightOne, now)
				if err != nil {
					b.Fatal(err)
				}
				l.release(h)
			}
		})
	}
}
