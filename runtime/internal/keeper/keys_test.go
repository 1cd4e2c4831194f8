package keeper

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"math/rand/v2"
	"testing"

	"chrysalis/measure/ton"
	"chrysalis/runtime/cell"
	"chrysalis/runtime/chain"
)

// keyOf is the secret of an owner's key of a name.
func keyOf(owner ton.Address, name string) [32]byte {
	secret := secretOf(owner)
	return sha256.Sum256(append(secret[:], name...))
}

// keys has an owner make a key, and returns what was used of it.
func (w *world) keys(owner ton.Address, shown [32]byte, name string, most uint64) (uint64, error) {
	c := clientKey{named: named{contract: w.client(owner)}, hash: sha256.Sum256(func() []byte { k := keyOf(owner, name); return k[:] }()), cap: most}
	copy(c.name[:], name)
	return w.keeper.key(sha256.Sum256(shown[:]), c)
}

// byKey has an owner's key ask, and returns the error of its reservation or its record.
func (w *world) byKey(owner ton.Address, name string, tokens uint32) error {
	w.t.Helper()
	h, err := w.reserve(owner, keyOf(owner, name), tokens)
	if err != nil {
		return err
	}
	_, err = w.records(h, tokens)
	return err
}

// TestClientKeys: keys that were derived from a contract's own spend its deposit up to their caps, until they are revoked or the contract has another
// secret; what each has used outlives boots and powers cut.
func TestClientKeys(t *testing.T) {
	w := newWorld(t)
	w.opens(alice, 9*coin)
	w.opens(bob, 9*coin)
	w.boot()
	if _, err := w.keys(alice, secretOf(alice), "ci", 5); !errors.Is(err, ErrChain) {
		t.Errorf("before the chain is proven: got %v, want %v", err, ErrChain)
	}
	w.look()
	for name, try := range map[string]func() error{
		"never made":              func() error { return w.byKey(alice, "ci", 1) },
		"made by a stranger":      func() error { _, err := w.keys(alice, secretOf(bob), "ci", 5); return err },
		"made by no secret":       func() error { _, err := w.keys(alice, [32]byte{}, "ci", 5); return err },
		"made of no contract":     func() error { _, err := w.keys(carrier, secretOf(carrier), "ci", 5); return err },
		"that was never that one": func() error { return w.byKey(bob, "ci", 1) },
	} {
		if err := try(); !errors.Is(err, ErrKey) {
			t.Errorf("a key %s: got %v, want %v", name, err, ErrKey)
		}
	}
	must(w.keys(alice, secretOf(alice), "ci", 1_000_000))
	if _, err := w.keys(alice, keyOf(alice, "ci"), "x", 5); !errors.Is(err, ErrKey) {
		t.Errorf("a key that makes another: got %v, want %v", err, ErrKey)
	}
	if _, err := w.reserve(bob, keyOf(alice, "ci"), 1); !errors.Is(err, ErrKey) {
		t.Errorf("a key for another's contract: got %v, want %v", err, ErrKey)
	}
	for range 2 {
		if err := w.byKey(alice, "ci", 400_000); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.byKey(alice, "ci", 200_001); !errors.Is(err, ErrFunds) {
		t.Errorf("beyond the cap: got %v, want %v", err, ErrFunds)
	}
	h := must(w.reserve(alice, keyOf(alice, "ci"), 150_000))
	if err := w.byKey(alice, "ci", 100_000); !errors.Is(err, ErrFunds) {
		t.Errorf("beyond the cap with what is computed: got %v, want %v", err, ErrFunds)
	}
	w.keeper.ask(call{op: opRelease, held: h})
	if n := w.answer(alice, 1000); n != 801_000 {
		t.Errorf("the contract's own key is charged %d, want 801,000", n)
	}
	w.boot()
	w.look()
	if used, err := w.keys(alice, secretOf(alice), "ci", 900_000); err != nil || used != 800_000 {
		t.Errorf("after a boot %d were used (%v), want 800,000", used, err)
	}
	if err := w.byKey(alice, "ci", 100_001); !errors.Is(err, ErrFunds) {
		t.Errorf("beyond the lower cap: got %v, want %v", err, ErrFunds)
	}
	if err := w.byKey(alice, "ci", 50_000); err != nil {
		t.Error(err)
	}
	must(w.keys(alice, secretOf(alice), "ci", 0))
	for range 2 {
		if err := w.byKey(alice, "ci", 1); !errors.Is(err, ErrKey) {
			t.Errorf("revoked: got %v, want %v", err, ErrKey)
		}
		w.boot()
		w.look()
	}
	must(w.keys(alice, secretOf(alice), "ci", 1<<60))
	if err := w.byKey(alice, "ci", 1); err != nil {
		t.Error(err)
	}
	w.changesSecret(bob, secretOf(alice))
	w.look()
	if _, err := w.reserve(bob, keyOf(alice, "ci"), 1); !errors.Is(err, ErrKey) {
		t.Errorf("a key for a contract with the same secret: got %v, want %v", err, ErrKey)
	}
	w.changesSecret(bob, secretOf(bob))
	var other [32]byte
	w.changesSecret(alice, other)
	w.look()
	if err := w.byKey(alice, "ci", 1); !errors.Is(err, ErrKey) {
		t.Errorf("once the contract has another secret: got %v, want %v", err, ErrKey)
	}
	renewed := clientKey{named: named{w.client(alice), [16]byte{'c', 'i'}}, hash: [32]byte{9}, cap: 1 << 40}
	if used, err := w.keeper.key(sha256.Sum256(other[:]), renewed); err != nil || used != 0 {
		t.Errorf("made anew: %d used (%v), want none", used, err)
	}
	if err := w.byKey(alice, "ci", 1); !errors.Is(err, ErrKey) {
		t.Errorf("the key of that name from before: got %v, want %v", err, ErrKey)
	}
	for n := range maxKeys - 1 {
		must(w.keys(bob, secretOf(bob), string(rune('a'+n)), 5))
	}
	must(w.keys(bob, secretOf(bob), "last", 5))
	if _, err := w.keys(bob, secretOf(bob), "more", 5); !errors.Is(err, ErrFull) {
		t.Errorf("a key too many: got %v, want %v", err, ErrFull)
	}
	must(w.keys(bob, secretOf(bob), "last", 6))
	for name, c := range map[string]clientKey{
		"no name": {named: named{contract: w.client(bob)}, hash: [32]byte{1}}, "no secret": {named: named{w.client(bob), [16]byte{'a'}}},
		"the contract's own": {named: named{w.client(bob), [16]byte{'a'}}, hash: sha256.Sum256(func() []byte { s := secretOf(bob); return s[:] }())},
		"another name's":     {named: named{w.client(bob), [16]byte{'a'}}, hash: sha256.Sum256(func() []byte { s := keyOf(bob, "b"); return s[:] }())},
	} {
		secret := secretOf(bob)
		if _, err := w.keeper.key(sha256.Sum256(secret[:]), c); !errors.Is(err, ErrRefused) {
			t.Errorf("a key of %s: got %v, want %v", name, err, ErrRefused)
		}
	}
}

// changesSecret has an owner give its contract the hash of another secret.
func (w *world) changesSecret(of ton.Address, secret [32]byte) {
	hash := sha256.Sum256(secret[:])
	w.owner(of, 0x8473b408, coin, func(b *cell.Builder) { b.Coins(coin / 10).Bytes(hash[:]).Address(of) })
}

// TestKeysPowerCut cuts the power while keys are made, used and revoked, checkpoints are under way and the ring comes round: what a key has used and
// may use is what was told, or what was being written.
func TestKeysPowerCut(t *testing.T) {
	random := rand.New(rand.NewPCG(11, 12))
	d := lossyOf(256 << 10)
	c := newTeller(1)
	contracts := []ton.Address{must(c.terms.Client(c.owner(0))), must(c.terms.Client(c.owner(1)))}
	state := func(k *Keeper) (b []byte) {
		for _, contract := range contracts {
			for name := range byte(16) {
				if at, ok := k.ledger.keys.index[named{contract, [16]byte{'a' + name}}]; ok {
					b = k.ledger.keys.list[at].append(b)
				}
			}
		}
		return b
	}
	var durable, torn []byte
	cuts, rounds, n := 0, uint32(0), 0
	for boots := range uint64(60) {
		k, err := Open(d, journalKey, boots, chainTerms(1))
		if err != nil {
			t.Fatalf("boot %d: %v", boots, err)
		}
		if got := state(k); boots > 0 && !bytes.Equal(got, durable) && !bytes.Equal(got, torn) {
			t.Fatalf("boot %d has keys\n%x, want\n%x or\n%x", boots, got, durable, torn)
		}
		durable = state(k)
		l := k.ledger
		if boots == 0 {
			if refused, failed := direct(k, c.block(), []chain.Transaction{c.tell(0, 900, 0), c.tell(1, 900, 0)}); refused != nil || failed != nil {
				t.Fatal(refused, failed)
			}
		}
		l.settling.seen = true
		d.step, d.fail = 0, map[int]func(*lossy) error{}
		for s := 6 + random.IntN(160); s < 900; s++ {
			d.fail[s] = func(*lossy) error { return errDisk }
		}
		for err == nil {
			contract, name := contracts[random.IntN(2)], [16]byte{'a' + byte(random.IntN(16))}
			at, known := l.keys.index[named{contract, name}]
			if n++; known && random.IntN(4) > 0 {
				r := testRecord(n)
				r.Client = contract
				it := onChain(k, r)
				it.held.key = at + 1
				l.keys.held[at] += it.held.worst
				err = k.answer([]call{it})
			} else {
				key := clientKey{named: named{contract, name}, hash: sha256.Sum256(append(contract.Account[:], name[0])), cap: uint64(random.IntN(3)) << 40}
				w := keying{shown: secretHash, key: key, reply: make(chan keyed, 1)}
				if err = k.setKey(w); err == nil {
					if r := <-w.reply; r.err != nil {
						t.Fatal(r.err)
					}
				}
			}
			if torn = state(k); err == nil {
				durable = torn
			}
		}
		if l.keys.cursor < len(l.keys.list) {
			cuts++
		}
		rounds += l.round
		d.keep(func() bool { return random.IntN(3) > 0 })
		d.fail = nil
	}
	if rounds < 20 || n < 1000 {
		t.Errorf("%d checkpoints, %d steps: too few to test anything", rounds, n)
	}
}

// TestKeysRefused: an entry or a part about keys that does not follow from what was read before ends Open.
func TestKeysRefused(t *testing.T) {
	contract := ton.Address{Account: [32]byte{7}}
	made := func() (*ledger, []byte) {
		l := newLedger(testTerms())
		k := clientKey{named: named{contract, [16]byte{'c', 'i'}}, under: [32]byte{1}, hash: [32]byte{2}, cap: 100, used: 5}
		if err := l.Entry(k.append(append(make([]byte, notAnAnswer), entryKey)), 0); err != nil {
			t.Fatal(err)
		}
		return l, k.append([]byte{partKeys})
	}
	l, part := made()
	if head, parts := checkpointOf(l); len(parts) != 1 || !bytes.Equal(parts[0], part) || l.Begin(head) != nil || l.Part(part) != nil {
		t.Fatalf("the checkpoint is %x", parts)
	}
	for name, change := range map[string]func([]byte) []byte{
		"half a key":         func(p []byte) []byte { return p[:80] },
		"another cap":        func(p []byte) []byte { p[1+113]++; return p },
		"another use":        func(p []byte) []byte { p[1+121]++; return p },
		"another secret":     func(p []byte) []byte { p[1+81]++; return p },
		"a key of nobody":    func(p []byte) []byte { clear(p[1:34]); return p },
		"no name":            func(p []byte) []byte { clear(p[34:50]); return p },
		"never made":         func(p []byte) []byte { p[35]++; return p },
		"the contract's own": func(p []byte) []byte { copy(p[1+81:1+113], p[1+49:1+81]); return p },
	} {
		l, part := made()
		if err := l.Part(change(part)); err == nil {
			t.Errorf("a part with %s: got no error", name)
		}
	}
	l, part = made()
	for name, entry := range map[string][]byte{
		"half a key":         append(append(make([]byte, notAnAnswer), entryKey), part[1:60]...),
		"the contract's own": append(append(append(make([]byte, notAnAnswer), entryKey), part[1:82]...), append(append([]byte{}, part[50:82]...), part[114:]...)...),
		"no kind":            append(append(make([]byte, notAnAnswer), 9), part[1:]...),
	} {
		if err := l.Entry(entry, 0); err == nil {
			t.Errorf("an entry with %s: got no error", name)
		}
	}
	r := testRecord(1)
	r.Client = contract
	p := must(l.sign(r, 0))
	l, _ = made()
	if err := l.Entry(append(entryOf(r.ID, p), make([]byte, keyedEntryTail)...), 0); err == nil {
		t.Error("an answer to a key that was never made: got no error")
	}
	if err := l.Entry(append(entryOf(r.ID, p), 'c', 'i', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), 0); err != nil || l.keys.list[0].used != 5+weightOf(r) {
		t.Errorf("an answer to a key: %v, and %d used", err, l.keys.list[0].used)
	}
}

// FuzzKeys: what is read of an entry or a part is what would be written.
func FuzzKeys(f *testing.F) {
	k := clientKey{named: named{ton.Address{Account: [32]byte{7}}, [16]byte{'c'}}, under: [32]byte{1}, hash: [32]byte{2}, cap: 100}
	f.Add(k.append([]byte{partKeys}))
	f.Fuzz(func(t *testing.T, data []byte) {
		l := newLedger(testTerms())
		l.whole = false
		if len(data) == 0 || data[0] != partKeys || l.Part(data) != nil {
			return
		}
		l.round++
		if again := l.keys.next(len(data), l.round); len(again) == len(data) && !bytes.Equal(again, data) {
			t.Fatalf("read and written again: got %x, want %x", again, data)
		}
	})
}
