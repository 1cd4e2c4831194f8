package keeper

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"chrysalis/measure/pubkey"
	"chrysalis/measure/ton"
	"chrysalis/runtime/claim"
	"chrysalis/runtime/internal/journal"
	"chrysalis/runtime/receipt"
)

var (
	receiptKey = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32))
	claimKey   = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{2}, 32))
	journalKey = [32]byte{3}
)

func testTerms() Terms {
	return Terms{
		Charges: true, Price: ton.Price{NanotonPerToken: 20, PromptWeight: 10_000, CompletionWeight: 20_000},
		Service: [32]byte{4}, Served: []Served{{[32]byte{5}, [32]byte{6}, 512, 256}}, Instance: [16]byte{7},
		Excesses:   ton.Address{Account: [32]byte{8}},
		ReceiptKey: receiptKey, ClaimKey: claimKey,
	}
}

func testRecord(n int) receipt.Answer {
	return receipt.Answer{
		ID: receipt.AnswerID{1, byte(n), byte(n >> 8)}, Client: ton.Address{Account: [32]byte{9, byte(n % 3)}},
		Request: [32]byte{10, byte(n)}, Response: [32]byte{11, byte(n)},
		Usage: receipt.Usage{Prompt: uint32(n % 100), Completion: uint32(n % 50)}, Outcome: receipt.Complete,
	}
}

func weightOf(r receipt.Answer) uint64 { return uint64(r.Usage.Prompt) + 2*uint64(r.Usage.Completion) }

func diskFile(t testing.TB, bytes int64) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "journal"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(bytes); err != nil {
		t.Fatal(err)
	}
	return f
}

// start runs a keeper on dev behind a socket until the test's end or stop.
func start(t testing.TB, dev journal.Device, boots uint64, terms Terms) (client *Client, stop func()) {
	t.Helper()
	k, err := Open(dev, journalKey, boots, terms)
	if err != nil {
		t.Fatal(err)
	}
	return run(t, k)
}

// run serves a keeper that is open.
func run(t testing.TB, k *Keeper) (client *Client, stop func()) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { k.Run(ctx) })
	done.Go(func() { k.Serve(ctx, l) })
	stop = func() { cancel(); done.Wait() }
	t.Cleanup(stop)
	return NewClient(path, k.ledger.terms.Settling != nil), stop
}

func record(t testing.TB, c *Client, r receipt.Answer) receipt.Proof {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	place, err := c.Reserve(ctx, Payer{Contract: r.Client})
	if err != nil {
		t.Fatal(err)
	}
	defer place.Release()
	proof, err := place.Record(ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	return proof
}

func verify(t testing.TB, p receipt.Proof, want receipt.Answer) *receipt.Receipt {
	t.Helper()
	r, err := receipt.Verify(p.Receipt[:], pubkey.Of(receiptKey))
	if err != nil {
		t.Fatal(err)
	}
	if r.Request != want.Request || r.Client != want.Client || r.Usage != want.Usage || r.Weighted != weightOf(want) {
		t.Fatalf("receipt: got %+v, want it for %+v", r, want)
	}
	m, err := claim.Verify(p.Charge[:], claim.Policy{Key: pubkey.Of(claimKey), Contract: want.Client})
	if err != nil {
		t.Fatal(err)
	}
	if m.Op != claim.ClientCharge || m.Tokens != r.Cumulative {
		t.Fatalf("charge: got %s of %d, want a client-charge of %d", m.Op, m.Tokens, r.Cumulative)
	}
	return r
}

// auditor is a journal's owner that hears every entry, of a journal whose first checkpoint is still read.
type auditor struct {
	*ledger
	entry func(e []byte) error
}

func (a auditor) Entry(e []byte, at journal.Place) error {
	if err := a.ledger.Entry(e, at); err != nil {
		return err
	}
	return a.entry(e)
}

// audit reads the whole journal again: it must hold the records, each once, and add up.
func audit(t testing.TB, dev journal.Device, boots uint64, want map[receipt.AnswerID]receipt.Answer) {
	t.Helper()
	seen := map[receipt.AnswerID]bool{}
	sums := map[ton.Address]uint64{}
	var last *receipt.Signed
	_, err := journal.Open(dev, journalKey, boots, auditor{newLedger(testTerms()), func(e []byte) error {
		id, signed := receipt.AnswerID(e), receipt.Signed(e[16:])
		if seen[id] {
			return fmt.Errorf("record %x stands there twice", id)
		}
		seen[id] = true
		body := claim.Body(e[freeEntry:])
		r := verify(t, receipt.Proof{Receipt: &signed, Charge: &body}, want[id])
		if last != nil {
			if err := r.Follows(last); err != nil {
				return err
			}
		}
		last = &signed
		sums[r.Client] += weightOf(want[id])
		if r.Cumulative != sums[r.Client] {
			return fmt.Errorf("record %x counts to %d, want %d", id, r.Cumulative, sums[r.Client])
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	if len(seen) != len(want) {
		t.Fatalf("%d records, want %d", len(seen), len(want))
	}
}

func TestRecord(t *testing.T) {
	f := diskFile(t, 4<<20)
	want := map[receipt.AnswerID]receipt.Answer{}
	client, stop := start(t, journal.Disk{File: f}, 0, testTerms())
	var mu sync.Mutex
	var wait sync.WaitGroup
	for n := 1; n <= 40; n++ {
		wait.Go(func() {
			r := testRecord(n)
			first := record(t, client, r)
			verify(t, first, r)
			again := record(t, client, r)
			if *again.Receipt != *first.Receipt || *again.Charge != *first.Charge {
				t.Errorf("record %d asked for again: got another proof", n)
			}
			mu.Lock()
			defer mu.Unlock()
			want[r.ID] = r
		})
	}
	wait.Wait()
	stop()
	client, stop = start(t, journal.Disk{File: f}, 1, testTerms())
	for n := 30; n <= 50; n++ {
		r := testRecord(n)
		verify(t, record(t, client, r), r)
		want[r.ID] = r
	}
	stop()
	audit(t, journal.Disk{File: f}, 2, want)
}

// TestVouch: the keeper signs the body's hash of a whole answer that it has recorded, and of no other.
func TestVouch(t *testing.T) {
	disk := diskFile(t, 1<<20)
	client, stop := start(t, journal.Disk{File: disk}, 0, testTerms())
	whole, cut := testRecord(1), testRecord(2)
	cut.Outcome = receipt.Cut
	record(t, client, whole)
	record(t, client, cut)
	body := [32]byte{12}
	check := func(client *Client) {
		t.Helper()
		signed, err := client.Vouch(t.Context(), whole.ID, body)
		if err != nil {
			t.Fatal(err)
		}
		if err := receipt.VerifyText(whole.Request, body, signed, pubkey.Of(receiptKey)); err != nil {
			t.Error(err)
		}
		for name, id := range map[string]receipt.AnswerID{"a cut answer": cut.ID, "no answer": {99}, "zero": {}} {
			if _, err := client.Vouch(t.Context(), id, body); !errors.Is(err, ErrRefused) {
				t.Errorf("%s: got %v, want %v", name, err, ErrRefused)
			}
		}
	}
	check(client)
	if proof := record(t, client, testRecord(3)); verify(t, proof, testRecord(3)).Sequence != 2 {
		t.Error("vouching has made a receipt")
	}
	stop()
	again, _ := start(t, journal.Disk{File: disk}, 1, testTerms())
	check(again) // after the keeper's restart
	more := encodeRequest(opVouch, receipt.Answer{ID: whole.ID, Response: body, Request: [32]byte{1}})
	if _, _, err := decodeRequest(more); err == nil {
		t.Error("a request to vouch that brings a request's hash of its own: got no error")
	}
}

// TestCount: the keeper says how full its journal is, and makes nothing of being asked.
func TestCount(t *testing.T) {
	const size = 1 << 20
	disk := diskFile(t, size)
	client, stop := start(t, journal.Disk{File: disk}, 0, testTerms())
	count := func() Counts {
		t.Helper()
		c, err := client.Count(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	empty := count()
	if empty.Bytes != size || empty.Left < 1000 || empty.Receipts != 0 || empty.Contracts != 0 || empty.Waiting != 0 {
		t.Errorf("an empty journal: got %+v", empty)
	}
	record(t, client, testRecord(1))
	record(t, client, testRecord(2))
	record(t, client, testRecord(4)) // the first one's contract
	full := count()
	if full.Receipts != 3 || full.Contracts != 2 || full.Left != empty.Left-2 || full.Waiting != 2 {
		t.Errorf("after three records of two contracts: got %+v, want 2 contracts left less than %d", full, empty.Left)
	}
	if again := count(); again != full {
		t.Errorf("asked again: got %+v, want %+v", again, full)
	}
	stop()
	client, _ = start(t, journal.Disk{File: disk}, 1, testTerms())
	if later := count(); later != full {
		t.Errorf("after a restart: got %+v, want %+v", later, full)
	}
	for _, carries := range []receipt.Answer{{ID: receipt.AnswerID{1}}, {Request: [32]byte{1}}} {
		if _, _, err := decodeRequest(encodeRequest(opCount, carries)); err == nil {
			t.Errorf("a count that carries %+v: got no error", carries)
		}
	}
}

func TestWithoutCharges(t *testing.T) {
	terms := testTerms()
	terms.Charges = false
	client, _ := start(t, journal.Disk{File: diskFile(t, 1<<20)}, 0, terms)
	r := testRecord(1)
	r.Client = ton.Address{}
	if p := record(t, client, r); p.Charge != nil {
		t.Error("got a charge, want none")
	}
}

func TestRefuses(t *testing.T) {
	client, _ := start(t, journal.Disk{File: diskFile(t, 1<<20)}, 0, testTerms())
	used := testRecord(1)
	record(t, client, used)
	for name, change := range map[string]func(*receipt.Answer){
		"no client":                     func(r *receipt.Answer) { r.Client = ton.Address{} },
		"workchain":                     func(r *receipt.Answer) { r.Client.Workchain = 3 },
		"more prompt than the limit":    func(r *receipt.Answer) { r.Usage.Prompt = 513 },
		"more answer than the limit":    func(r *receipt.Answer) { r.Usage.Completion = 257 },
		"cached above prompt":           func(r *receipt.Answer) { r.Usage.Cached = 1000 },
		"no id":                         func(r *receipt.Answer) { r.ID = receipt.AnswerID{} },
		"a coefficient of no band":      func(r *receipt.Answer) { r.Coefficient = 10_000 },
		"no outcome":                    func(r *receipt.Answer) { r.Outcome = 0 },
		"id of another record":          func(r *receipt.Answer) { r.ID = used.ID },
		"id of the record, other usage": func(r *receipt.Answer) { *r = used; r.Usage.Prompt++ },
	} {
		r := testRecord(2)
		change(&r)
		place, err := client.Reserve(t.Context(), Payer{Contract: r.Client})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := place.Record(t.Context(), r); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: got error %v, want %v", name, err, ErrRefused)
		}
	}
	if r := verify(t, record(t, client, testRecord(4)), testRecord(4)); r.Sequence != 1 {
		t.Errorf("after the refusals the sequence is %d, want 1", r.Sequence)
	}
}

// TestCountIsBounded: no count passes what a contract can take, and a refusal changes nothing.
func TestCountIsBounded(t *testing.T) {
	r := testRecord(7)
	l := newLedger(testTerms())
	c := l.at(r.Client)
	l.contracts[c].count = claim.MaxTokens - weightOf(r) + 1
	if _, err := l.sign(r, 0); !errors.Is(err, errRefused) || l.next != 0 || l.count(r.Client) != claim.MaxTokens-weightOf(r)+1 {
		t.Errorf("one above the bound: got %v, %d receipts and count %d, want a refusal and nothing changed", err, l.next, l.count(r.Client))
	}
	l.contracts[c].count--
	if p, err := l.sign(r, 0); err != nil || l.count(r.Client) != claim.MaxTokens {
		t.Errorf("up to the bound: got %v and %v, want a charge of %d", p, err, uint64(claim.MaxTokens))
	}
}

// TestFull: a disk has room for so many contracts. Who has a place can always record, known contracts go on, and a new one is refused before
// anything is computed for it.
func TestFull(t *testing.T) {
	disk := lossyOf(256 << 10)
	k, err := Open(disk, journalKey, 0, testTerms())
	if err != nil {
		t.Fatal(err)
	}
	stranger := func(n int) receipt.Answer {
		r := testRecord(n)
		r.Client = ton.Address{Account: [32]byte{0xaa, byte(n), byte(n >> 8)}}
		return r
	}
	client, stop := run(t, k)
	for n := 1; n <= k.most()-10; n++ {
		record(t, client, stranger(n))
	}
	var places []*Place
	for n := range 10 {
		p, err := client.Reserve(t.Context(), Payer{Contract: stranger(10_000 + n).Client})
		if err != nil {
			t.Fatalf("place %d: %v", len(places), err)
		}
		places = append(places, p)
	}
	refused := func() error {
		_, err := client.Reserve(t.Context(), Payer{Contract: stranger(20_000).Client})
		return err
	}
	if err := refused(); !errors.Is(err, ErrFull) {
		t.Fatalf("one contract too many: got error %v, want %v", err, ErrFull)
	}
	verify(t, record(t, client, stranger(1)), stranger(1)) // asked for again, and then another
	more := stranger(1)
	more.ID[0] = 77
	verify(t, record(t, client, more), more)
	places[9].Release()
	last, err := client.Reserve(t.Context(), Payer{Contract: stranger(10_009).Client})
	if err != nil {
		t.Fatalf("place that was given back: %v", err)
	}
	places[9] = last
	places[8].conn.Close() // a gateway that dies gives its place back, too
	var again *Place
	for deadline := time.Now().Add(5 * time.Second); again == nil && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		again, _ = client.Reserve(t.Context(), Payer{Contract: stranger(10_008).Client})
	}
	if again == nil {
		t.Fatal("the place of a closed connection was not given back")
	}
	places[8] = again
	for n, p := range places {
		if _, err := p.Record(t.Context(), stranger(10_000+n)); err != nil {
			t.Fatalf("record %d: %v", n, err)
		}
	}
	if err := refused(); !errors.Is(err, ErrFull) {
		t.Errorf("full journal: got error %v, want %v", err, ErrFull)
	}
	known, err := client.Reserve(t.Context(), Payer{Contract: stranger(2).Client})
	if err != nil {
		t.Fatalf("a contract that is known: %v", err)
	}
	if _, err := known.Record(t.Context(), stranger(20_000)); !errors.Is(err, ErrFull) { // a gateway that says another's name
		t.Errorf("a new contract on a known one's place: got error %v, want %v", err, ErrFull)
	}
	if c, err := client.Count(t.Context()); err != nil || c.Contracts != uint64(k.most()) || c.Left != 0 {
		t.Errorf("counts: got %+v and error %v, want %d contracts and none left", c, err, k.most())
	}
	stop()
	client, _ = start(t, disk, 1, testTerms())
	if c, err := client.Count(t.Context()); err != nil || c.Contracts != uint64(k.most()) {
		t.Errorf("after a restart: got %+v and error %v, want %d contracts", c, err, k.most())
	}
	if err := refused(); !errors.Is(err, ErrFull) {
		t.Errorf("after a restart: got error %v, want %v", err, ErrFull)
	}
}

// TestNeverFills: answers go on while the ring comes round many times, across restarts, and every count stays.
func TestNeverFills(t *testing.T) {
	disk := lossyOf(256 << 10)
	const contracts = 70
	sums := map[ton.Address]uint64{}
	n := 0
	for boots := range uint64(5) {
		client, stop := start(t, disk, boots, testTerms())
		var r receipt.Answer
		for range 300 {
			n++
			r = testRecord(n)
			r.Client = ton.Address{Account: [32]byte{0xbb, byte(n * n % contracts)}}
			sums[r.Client] += weightOf(r)
			if got := verify(t, record(t, client, r), r); got.Cumulative != sums[r.Client] || got.Sequence != uint64(n-1) {
				t.Fatalf("answer %d: receipt %d counts to %d, want %d", n, got.Sequence, got.Cumulative, sums[r.Client])
			}
		}
		if again := verify(t, record(t, client, r), r); again.Sequence != uint64(n-1) {
			t.Errorf("the last answer asked for again: receipt %d, want %d", again.Sequence, n-1)
		}
		stop()
	}
	if written := int64(n) * 2 * 512; written < 5*(256<<10) {
		t.Errorf("%d bytes were written: the ring has not come round", written)
	}
}

// killer is a disk that ends its process at one step: each write and each flush has a step before and one after it.
type killer struct {
	journal.Disk
	step, at int
}

func (k *killer) tick() {
	k.step++
	if k.step == k.at {
		syscall.Kill(syscall.Getpid(), syscall.SIGKILL)
		select {}
	}
}

func (k *killer) WriteAt(p []byte, off int64) (int, error) {
	k.tick()
	defer k.tick()
	return k.Disk.WriteAt(p, off)
}

func (k *killer) Sync() error {
	k.tick()
	defer k.tick()
	return k.Disk.Sync()
}

// TestMain turns the test binary into a keeper when the environment says so.
func TestMain(m *testing.M) {
	dir := os.Getenv("CHRYSALIS_TEST_KEEPER")
	if dir == "" {
		os.Exit(m.Run())
	}
	at, _ := strconv.Atoi(os.Getenv("CHRYSALIS_TEST_KILL_AT"))
	f, err := os.OpenFile(filepath.Join(dir, "journal"), os.O_RDWR, 0)
	if err != nil {
		panic(err)
	}
	k, err := Open(&killer{Disk: journal.Disk{File: f}, at: at}, journalKey, 0, testTerms())
	if err != nil {
		panic(err)
	}
	os.Remove(filepath.Join(dir, "s"))
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		panic(err)
	}
	go k.Run(context.Background())
	k.Serve(context.Background(), l)
}

func spawn(t *testing.T, dir string, killAt int) *exec.Cmd {
	t.Helper()
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), "CHRYSALIS_TEST_KEEPER="+dir, "CHRYSALIS_TEST_KILL_AT="+strconv.Itoa(killAt))
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	return c
}

// TestKilledAtEveryStep kills the keeper's process before and after each write and flush, while answers are recorded,
// and starts it again: nothing acknowledged is lost, and nothing is charged twice.
func TestKilledAtEveryStep(t *testing.T) {
	const records = 3
	for step := 1; step <= 4*(3+records); step++ { // two anchors, boot, records
		dir := t.TempDir()
		f, err := os.Create(filepath.Join(dir, "journal"))
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Truncate(1 << 20); err != nil {
			t.Fatal(err)
		}
		first := spawn(t, dir, step)
		died := make(chan struct{})
		go func() {
			defer close(died)
			first.Wait()
		}()
		go func() {
			<-died
			spawn(t, dir, 0)
		}()
		client := NewClient(filepath.Join(dir, "s"), false)
		want := map[receipt.AnswerID]receipt.Answer{}
		for n := 1; n <= records; n++ {
			r := testRecord(n)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			var place *Place
			for err = errors.New("none"); err != nil && ctx.Err() == nil; time.Sleep(2 * time.Millisecond) {
				place, err = client.Reserve(ctx, Payer{Contract: r.Client})
			}
			if err != nil {
				t.Fatal(err)
			}
			proof, err := place.Record(ctx, r)
			cancel()
			if err != nil {
				t.Fatalf("killed at step %d, record %d: %v", step, n, err)
			}
			verify(t, proof, r)
			want[r.ID] = r
		}
		select {
		case <-died:
		case <-time.After(10 * time.Second):
			t.Fatalf("step %d was never reached", step)
		}
		audit(t, journal.Disk{File: f}, 0, want)
		f.Close()
	}
}

func FuzzDecodeRequest(f *testing.F) {
	for _, seed := range [][requestSize]byte{encodeRequest(opReserve, receipt.Answer{Client: testRecord(1).Client}), encodeRequest(opRecord, testRecord(5)), {}} {
		f.Add(seed[:])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) != requestSize {
			return
		}
		op, r, err := decodeRequest([requestSize]byte(data))
		if err != nil {
			return
		}
		if again := encodeRequest(op, r); !bytes.Equal(again[:], data) {
			t.Fatalf("encoded again: got %x, want %x", again, data)
		}
	})
}

func FuzzReplay(f *testing.F) {
	l := newLedger(testTerms())
	p, err := l.sign(testRecord(1), 0)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(entryOf(testRecord(1).ID, p))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		l := newLedger(testTerms())
		if err := l.Entry(data, 1); err == nil && l.next != 1 {
			t.Fatalf("one entry leaves sequence %d", l.next)
		}
	})
}

func BenchmarkRecord(b *testing.B) {
	client, _ := start(b, journal.Disk{File: diskFile(b, 1<<30)}, 0, testTerms())
	var mu sync.Mutex
	n := 0
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			mu.Lock()
			n++
			r := testRecord(n)
			r.ID = receipt.AnswerID{byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24), 1}
			mu.Unlock()
			record(b, client, r)
		}
	})
}

// unsigned signs with zeros: what a boot reads is not verified again, for only the journal's key can have written it.
type unsigned struct{}

func (unsigned) Public() crypto.PublicKey { return make(ed25519.PublicKey, ed25519.PublicKeySize) }
func (unsigned) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return make([]byte, ed25519.SignatureSize), nil
}

// unflushed is a disk that is built without a flush.
type unflushed struct{ journal.Disk }

func (unflushed) Sync() error { return nil }

// past writes answers of so many contracts into a new journal: records as the keeper's, of 64 answers each, with checkpoints, but no
// signatures and no flushes.
func past(b *testing.B, f *os.File, answers, contracts int) {
	b.Helper()
	k, err := Open(unflushed{journal.Disk{File: f}}, journalKey, 0, testTerms())
	if err != nil {
		b.Fatal(err)
	}
	l := k.ledger
	charge := new(claim.Body)
	for n := 0; n < answers; {
		var entries [][]byte
		var clients []ton.Address
		for range 64 {
			n++
			r := testRecord(n)
			r.ID = receipt.AnswerID{byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24), 1}
			r.Client = ton.Address{Account: [32]byte{1, byte(n % contracts), byte(n % contracts >> 8), byte(n % contracts >> 16)}}
			count := l.count(r.Client) + weightOf(r)
			signed, err := receipt.Sign(unsigned{}, receipt.Receipt{Sequence: l.next, Previous: l.prev, Client: r.Client, Usage: r.Usage,
				Price: l.terms.Price, Weighted: weightOf(r), Cumulative: count, Outcome: r.Outcome, Request: r.Request, Response: r.Response})
			if err != nil {
				b.Fatal(err)
			}
			p := receipt.Proof{Receipt: signed, Charge: charge}
			l.apply(r, count, p)
			entries, clients = append(entries, entryOf(r.ID, p)), append(clients, r.Client)
		}
		places, err := k.journal.Commit(entries...)
		if err != nil {
			b.Fatal(err)
		}
		for i, c := range clients {
			l.contracts[l.at(c)].newest = places[i] // the host takes nothing
		}
	}
	if err := f.Sync(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkOpen opens a keeper of 100,000 contracts after so many answers, on a disk of the usual size.
func BenchmarkOpen(b *testing.B) {
	const contracts = 100_000
	for _, answers := range []int{200_000, 10_000_000} {
		f := diskFile(b, 64<<20)
		past(b, f, answers, contracts)
		boots := uint64(1)
		b.Run(fmt.Sprintf("%d-answers", answers), func(b *testing.B) {
			var before, after runtime.MemStats
			var k *Keeper
			for b.Loop() {
				runtime.GC()
				runtime.ReadMemStats(&before)
				var err error
				if k, err = Open(journal.Disk{File: f}, journalKey, boots, testTerms()); err != nil {
					b.Fatal(err)
				}
				if boots++; len(k.ledger.contracts) != contracts || k.ledger.next < uint64(answers) {
					b.Fatalf("%d contracts and %d answers, want %d and %d", len(k.ledger.contracts), k.ledger.next, contracts, answers)
				}
			}
			runtime.GC()
			runtime.ReadMemStats(&after)
			b.ReportMetric(b.Elapsed().Seconds()/float64(b.N), "s")
			b.ReportMetric(float64(after.HeapAlloc-min(after.HeapAlloc, before.HeapAlloc))/1e6, "MB")
			runtime.KeepAlive(k)
		})
	}
}

// TestModels: of several models a receipt has the pair that the config has in the record's place, each is bounded by its own limits, and a place that
// the config has not is refused.
func TestModels(t *testing.T) {
	terms := testTerms()
	terms.Served = append(terms.Served, Served{[32]byte{15}, [32]byte{16}, 50, 20})
	dev := diskFile(t, 1<<20)
	client, stop := start(t, journal.Disk{File: dev}, 0, terms)
	record := func(n int, model uint8, u receipt.Usage) (receipt.Proof, error) {
		r := testRecord(n)
		r.Model, r.Usage = model, u
		place, err := client.Reserve(t.Context(), Payer{Contract: r.Client})
		if err != nil {
			t.Fatal(err)
		}
		defer place.Release()
		return place.Record(t.Context(), r)
	}
	for n, tt := range []struct {
		model   uint8
		usage   receipt.Usage
		refused bool
	}{
		{0, receipt.Usage{Prompt: 512, Completion: 256}, false},
		{1, receipt.Usage{Prompt: 50, Completion: 20}, false},
		{1, receipt.Usage{Prompt: 51, Completion: 20}, true},
		{1, receipt.Usage{Prompt: 50, Completion: 21}, true},
		{2, receipt.Usage{Prompt: 1}, true},
		{notServed, receipt.Usage{Prompt: 1}, true},
		{0, receipt.Usage{Prompt: 513}, true},
	} {
		proof, err := record(n, tt.model, tt.usage)
		if tt.refused {
			if !errors.Is(err, ErrRefused) {
				t.Errorf("%d: got %v, want a refusal", n, err)
			}
			continue
		}
		if err != nil {
			t.Fatalf("%d: %v", n, err)
		}
		r, err := receipt.Parse(proof.Receipt[:])
		if err != nil {
			t.Fatal(err)
		}
		if want := terms.Served[tt.model]; r.Model != want.Model || r.Engine != want.Engine {
			t.Errorf("%d: the receipt is of model %x and engine %x, want %x and %x", n, r.Model, r.Engine, want.Model, want.Engine)
		}
		// What was recorded is the same answer when it is asked for again, and not that of the other model.
		if again, err := record(n, tt.model, tt.usage); err != nil || *again.Receipt != *proof.Receipt {
			t.Errorf("%d: asked again: got %v, want the same receipt", n, err)
		}
		if _, err := record(n, 1-tt.model, tt.usage); !errors.Is(err, ErrRefused) {
			t.Errorf("%d: asked again for the other model: got %v, want a refusal", n, err)
		}
	}
	stop()
	// The journal is read under a config without the first model: what it answered stays counted, and is no answer of another's.
	terms.Served = terms.Served[1:]
	client, _ = start(t, journal.Disk{File: dev}, 0, terms)
	if _, err := record(0, 0, receipt.Usage{Prompt: 50, Completion: 20}); !errors.Is(err, ErrRefused) {
		t.Errorf("an answer of a model that is not served any more, as one of another's: got %v, want a refusal", err)
	}
	if proof, err := record(1, 0, receipt.Usage{Prompt: 50, Completion: 20}); err != nil {
		t.Errorf("an answer of the model that is served still: %v", err)
	} else if r, err := receipt.Parse(proof.Receipt[:]); err != nil || r.Sequence != 1 {
		t.Errorf("the receipt is %+v (%v), want number 1", r, err)
	}
}
