package keeper

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
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
		Service: [32]byte{4}, Model: [32]byte{5}, Engine: [32]byte{6}, Instance: [16]byte{7},
		Excesses: ton.Address{Account: [32]byte{8}}, MaxPrompt: 512, MaxAnswer: 256,
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
	return NewClient(path), stop
}

func record(t testing.TB, c *Client, r receipt.Answer) receipt.Proof {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	place, err := c.Reserve(ctx)
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

// audit reads the whole journal again: it must hold the records, each once, and add up.
func audit(t testing.TB, dev journal.Device, boots uint64, want map[receipt.AnswerID]receipt.Answer) {
	t.Helper()
	seen := map[receipt.AnswerID]bool{}
	sums := map[ton.Address]uint64{}
	var last *receipt.Signed
	_, err := journal.Open(dev, journalKey, boots, func(e []byte) error {
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
	})
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

// TestCount: the keeper says how full its journal is, also when it is full, and makes nothing of being asked.
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
	if empty.Bytes != size || empty.Left == 0 || empty.Left >= size || empty.Receipts != 0 || empty.Contracts != 0 {
		t.Errorf("an empty journal: got %+v", empty)
	}
	record(t, client, testRecord(1))
	record(t, client, testRecord(2))
	full := count()
	if each := uint64(journal.Cost(journal.EntryPayload(paidEntry))); full.Receipts != 2 || full.Contracts == 0 || full.Left != empty.Left-2*each {
		t.Errorf("after two records: got %+v, want 2 receipts and %d bytes less than %d", full, 2*each, empty.Left)
	}
	if again := count(); again != full {
		t.Errorf("asked again: got %+v, want %+v", again, full)
	}
	stop()
	client, _ = start(t, journal.Disk{File: disk}, 1, testTerms())
	if later := count(); later.Receipts != 2 || later.Contracts != full.Contracts {
		t.Errorf("after a restart: got %+v, want 2 receipts", later)
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
		"no outcome":                    func(r *receipt.Answer) { r.Outcome = 0 },
		"id of another record":          func(r *receipt.Answer) { r.ID = used.ID },
		"id of the record, other usage": func(r *receipt.Answer) { *r = used; r.Usage.Prompt++ },
	} {
		r := testRecord(2)
		change(&r)
		place, err := client.Reserve(t.Context())
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
	l.counts[r.Client] = claim.MaxTokens - weightOf(r) + 1
	if _, err := l.sign(r); !errors.Is(err, errRefused) || l.next != 0 || l.counts[r.Client] != claim.MaxTokens-weightOf(r)+1 {
		t.Errorf("one above the bound: got %v, %d receipts and count %d, want a refusal and nothing changed", err, l.next, l.counts[r.Client])
	}
	l.counts[r.Client]--
	if p, err := l.sign(r); err != nil || l.counts[r.Client] != claim.MaxTokens {
		t.Errorf("up to the bound: got %v and %v, want a charge of %d", p, err, uint64(claim.MaxTokens))
	}
}

// TestFull: places are counted before anything is promised, and who has one can always record.
func TestFull(t *testing.T) {
	f := diskFile(t, 12*4096) // header, boot, and ten answers
	client, stop := start(t, journal.Disk{File: f}, 0, testTerms())
	var places []*Place
	for range 10 {
		p, err := client.Reserve(t.Context())
		if err != nil {
			t.Fatalf("place %d: %v", len(places), err)
		}
		places = append(places, p)
	}
	if _, err := client.Reserve(t.Context()); !errors.Is(err, ErrFull) {
		t.Fatalf("eleventh place: got error %v, want %v", err, ErrFull)
	}
	places[9].Release()
	last, err := client.Reserve(t.Context())
	if err != nil {
		t.Fatalf("place that was given back: %v", err)
	}
	places[9] = last
	places[8].conn.Close() // a gateway that dies gives its place back, too
	var again *Place
	for deadline := time.Now().Add(5 * time.Second); again == nil && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		again, _ = client.Reserve(t.Context())
	}
	if again == nil {
		t.Fatal("the place of a closed connection was not given back")
	}
	places[8] = again
	want := map[receipt.AnswerID]receipt.Answer{}
	for n, p := range places {
		r := testRecord(n + 1)
		if _, err := p.Record(t.Context(), r); err != nil {
			t.Fatalf("record %d: %v", n, err)
		}
		want[r.ID] = r
	}
	if _, err := client.Reserve(t.Context()); !errors.Is(err, ErrFull) {
		t.Errorf("full journal: got error %v, want %v", err, ErrFull)
	}
	stop()
	if err := f.Truncate(16 * 4096); err != nil { // the next boot needs room: the owner gives a larger disk
		t.Fatal(err)
	}
	audit(t, journal.Disk{File: f}, 1, want)
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
	for step := 1; step <= 4*(2+records); step++ {
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
		client := NewClient(filepath.Join(dir, "s"))
		want := map[receipt.AnswerID]receipt.Answer{}
		for n := 1; n <= records; n++ {
			r := testRecord(n)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			var place *Place
			for err = errors.New("none"); err != nil && ctx.Err() == nil; time.Sleep(2 * time.Millisecond) {
				place, err = client.Reserve(ctx)
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
	for _, seed := range [][requestSize]byte{encodeRequest(opReserve, receipt.Answer{}), encodeRequest(opRecord, testRecord(5)), {}} {
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
	p, err := l.sign(testRecord(1))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(entryOf(testRecord(1).ID, p))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		l := newLedger(testTerms())
		if _, _, err := l.replay(data); err == nil && l.next != 1 {
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
