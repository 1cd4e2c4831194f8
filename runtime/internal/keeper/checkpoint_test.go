package keeper

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"chrysalis/measure/ton"
	"chrysalis/runtime/receipt"
)

// TestCutInCheckpoints cuts the power again and again while a checkpoint of many contracts is under way and the ring comes round: no count
// that was given out is lost, and none is made twice.
func TestCutInCheckpoints(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	d := lossyOf(256 << 10)
	const contracts = 350
	given := map[ton.Address]uint64{}
	n, open := 0, 0
	for boots := range uint64(60) {
		d.step, d.fail = 0, map[int]func(*lossy) error{}
		cut := func(from int) {
			for s := from; s < 400; s++ {
				d.fail[s] = func(*lossy) error { return errDisk }
			}
		}
		cut(8 + random.IntN(200))
		k, err := Open(d, journalKey, boots, testTerms())
		if err != nil {
			t.Fatalf("boot %d: %v", boots, err)
		}
		for client, count := range given {
			if got := k.ledger.count(client); got != count {
				t.Fatalf("boot %d: contract %x has %d, want %d", boots, client.Account[:3], got, count)
			}
		}
		var last receipt.Answer
		for err == nil {
			if k.ledger.cursor > 0 && k.ledger.cursor < len(k.ledger.contracts) && random.IntN(2) == 0 {
				cut(d.step + 1 + random.IntN(2))
			}
			n++
			last = testRecord(n)
			last.Client = ton.Address{Account: [32]byte{0xdd, byte(n % contracts), byte(n % contracts >> 8)}}
			replies := make(chan reply, 1)
			if err = k.answer([]call{{op: opRecord, record: last, reply: replies}}); err == nil {
				given[last.Client] = verify(t, (<-replies).proof, last).Cumulative
			}
		}
		if k.ledger.cursor > 0 && k.ledger.cursor < len(k.ledger.contracts) {
			open++
		}
		d.keep(func() bool { return random.IntN(3) > 0 })
		// The one that was not given out may be there or not: whoever asks again has it counted once.
		d.fail = nil
		if k, err = Open(d, journalKey, boots, testTerms()); err != nil {
			t.Fatalf("boot %d: %v", boots, err)
		}
		replies := make(chan reply, 1)
		if err := k.answer([]call{{op: opRecord, record: last, reply: replies}}); err != nil {
			t.Fatal(err)
		}
		if got := verify(t, (<-replies).proof, last).Cumulative; got != given[last.Client]+weightOf(last) {
			t.Fatalf("boot %d: the answer that was cut counts to %d, want %d", boots, got, given[last.Client]+weightOf(last))
		}
		given[last.Client] += weightOf(last)
	}
	if open < 10 || n < 600 {
		t.Errorf("%d answers, %d boots cut in a checkpoint: too few to test anything", n, open)
	}
}

// checkpointOf returns a ledger's head and parts, of few bytes each.
func checkpointOf(l *ledger) (head []byte, parts [][]byte) {
	head = l.Head()
	for part := l.Next(512); len(part) > 0; part = l.Next(512) {
		parts = append(parts, part)
	}
	return head, parts
}

func TestCheckpoint(t *testing.T) {
	l := newLedger(testTerms())
	for n := 1; n <= 40; n++ {
		r := testRecord(n)
		r.Client = testAddress(n % 30)
		if _, err := l.sign(r, 0); err != nil {
			t.Fatal(err)
		}
	}
	l.contracts[3].newest = 5555
	head, parts := checkpointOf(l)
	if len(parts) != 3 {
		t.Fatalf("30 contracts in %d parts of 512 bytes, want 3", len(parts))
	}
	read := func(head []byte, parts ...[]byte) (*ledger, error) {
		again := newLedger(testTerms())
		if err := again.Begin(head); err != nil {
			return nil, err
		}
		for _, p := range parts {
			if err := again.Part(p); err != nil {
				return nil, err
			}
		}
		return again, again.End()
	}
	again, err := read(head, parts...)
	if err != nil {
		t.Fatal(err)
	}
	if again.next != l.next || again.prev != l.prev || len(again.contracts) != 30 || again.contracts[3].newest != 5555 {
		t.Fatalf("got %d receipts of %d contracts, want 40 of 30", again.next, len(again.contracts))
	}
	for _, c := range l.contracts {
		if got := again.count(c.address); got != c.count {
			t.Errorf("contract %x: got %d, want %d", c.address.Account[:3], got, c.count)
		}
	}
	second, same := checkpointOf(again)
	if !bytes.Equal(second, head) || !slices.EqualFunc(same, parts, bytes.Equal) {
		t.Error("the checkpoint of what was read is another")
	}
	if err := again.Begin(head); err != nil {
		t.Errorf("the same once more: %v", err)
	}
	if err := again.Part(parts[0]); err != nil {
		t.Errorf("the same once more: %v", err)
	}
	other := bytes.Clone(parts[0])
	binary.LittleEndian.PutUint64(other[1+33:], 1<<40)
	stranger := bytes.Clone(parts[0])
	stranger[5] ^= 1
	for name, try := range map[string]func() error{
		"a short head":                func() error { return again.Begin(head[1:]) },
		"another number of receipts":  func() error { return again.Begin(append([]byte{9}, head[1:]...)) },
		"another last receipt":        func() error { return again.Begin(append(bytes.Clone(head[:39]), head[39]^1)) },
		"another kind of part":        func() error { return again.Part(append([]byte{2}, parts[0][1:]...)) },
		"half an item":                func() error { return again.Part(parts[0][:100]) },
		"an empty part":               func() error { return again.Part(nil) },
		"another count":               func() error { return again.Part(other) },
		"a contract without receipts": func() error { return again.Part(stranger) },
	} {
		if err := try(); err == nil {
			t.Errorf("%s: got no error, want one", name)
		}
	}
	// Before a first checkpoint is whole, an entry of a contract that was not read yet is believed, and the part that comes has to agree.
	r := testRecord(41)
	r.Client = testAddress(7)
	p, err := l.sign(r, 0)
	if err != nil {
		t.Fatal(err)
	}
	entry := entryOf(r.ID, p)
	early, err := read(head)
	if err != nil {
		t.Fatal(err)
	}
	early.whole = false
	if err := early.Entry(entry, 7777); err != nil {
		t.Fatalf("an entry before its contract's part: %v", err)
	}
	older := 0
	for _, p := range parts {
		if early.Part(p) != nil {
			older++
		}
	}
	if older != 1 {
		t.Errorf("%d parts that are older than the entry were refused, want the one with its contract", older)
	}
	if late, err := read(head); err != nil || late.Entry(entry, 7777) == nil {
		t.Errorf("an entry of a contract that no whole checkpoint has, at once %d: got no error, want one", l.count(r.Client))
	}
}

// FuzzPart: what is read of a part is what a checkpoint writes.
func FuzzPart(f *testing.F) {
	l := newLedger(testTerms())
	for n := 1; n <= 4; n++ {
		if _, err := l.sign(testRecord(n), 0); err != nil {
			f.Fatal(err)
		}
	}
	_, parts := checkpointOf(l)
	f.Add(parts[0])
	f.Add([]byte{partContracts})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		l := newLedger(testTerms())
		if err := l.Begin(append([]byte{5}, make([]byte, headBytes-1)...)); err != nil {
			t.Fatal(err)
		}
		if err := l.Part(data); err != nil {
			return
		}
		l.Head()
		if again := l.Next(len(data)); len(l.contracts)*itemBytes+1 == len(data) && !bytes.Equal(again, data) && len(data) > 1 {
			t.Fatalf("read and written again: got %x, want %x", again, data)
		}
	})
}
