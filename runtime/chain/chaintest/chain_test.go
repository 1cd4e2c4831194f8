package chaintest_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	tonutils "github.com/xssnick/tonutils-go/tvm/cell"

	"chrysalis/measure/ton"
	"chrysalis/runtime/cell"
	. "chrysalis/runtime/chain"
	"chrysalis/runtime/chain/chaintest"
)

var update = flag.Bool("update", false, "write testdata/vectors anew")

func address(first byte) ton.Address { return ton.Address{Account: [32]byte{first, 7}} }

func newChain(t testing.TB, o chaintest.Options) *chaintest.Chain {
	t.Helper()
	c, err := chaintest.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func step(t testing.TB, c *chaintest.Chain, messages ...chaintest.Message) []chaintest.Outcome {
	t.Helper()
	o, err := c.Step(messages...)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// send gives an address coins out of nowhere.
func send(to ton.Address, value uint64) chaintest.Message {
	return chaintest.Message{From: address(0xff), To: to, Value: value}
}

// advance follows a chain to its newest block.
func advance(t testing.TB, c *chaintest.Chain, h Head) Head {
	t.Helper()
	for {
		proof, err := c.BlockProof(h.Key, BlockID{})
		if err != nil {
			t.Fatal(err)
		}
		next, complete, err := Advance(c.Network, h, proof)
		if err != nil {
			t.Fatal(err)
		}
		if h = next; complete {
			return h
		}
	}
}

func account(t testing.TB, c *chaintest.Chain, h Head, a ton.Address) Account {
	t.Helper()
	state, err := c.AccountState(h.Last, a)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Prove(c.Network, h, a, state)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// TestFollow walks chains of each shape from their anchor over many key blocks, and proves accounts that are there and accounts that are
// not.
func TestFollow(t *testing.T) {
	for name, o := range map[string]chaintest.Options{
		"plain":            {},
		"shuffled":         {Shuffle: true, Validators: 21, Main: 17},
		"simplex":          {Simplex: true},
		"simplex shuffled": {Simplex: true, Shuffle: true, Validators: 9, KeyEvery: 3},
		"four shards":      {Depth: 2},
		"eight shards":     {Depth: 3, KeyEvery: 1},
	} {
		t.Run(name, func(t *testing.T) {
			c := newChain(t, o)
			there := []ton.Address{address(1), address(0x41), address(0x81), address(0xc1), address(0xc2)}
			for i := range 40 {
				step(t, c, send(there[i%len(there)], 1_000_000_000))
			}
			h := advance(t, c, c.Network.Anchor)
			if h.Last != c.Last() || h.Time != c.Now() {
				t.Fatalf("head is %v of %d, want %v of %d", h.Last, h.Time, c.Last(), c.Now())
			}
			for _, a := range there {
				if got := account(t, c, h, a); got.Status != Uninit || got.Balance/1000 != 7_999_999 || got.Address != a ||
					got.Balance != c.Balance(a) {
					t.Errorf("account %s: got %+v, want 8 coins, but for a little storage", a, got)
				}
			}
			for _, a := range []ton.Address{address(2), address(0x42), address(0x7f), address(0xfe)} {
				if got := account(t, c, h, a); got.Status != Absent || got.Balance != 0 || got.Last != (Mark{}) {
					t.Errorf("account %s: got %+v, want proven absence", a, got)
				}
			}
			had := c.Balance(there[0])
			step(t, c, send(there[0], 5_000))
			later := advance(t, c, h)
			if got := account(t, c, later, there[0]); got.Balance != c.Balance(there[0]) || got.Balance <= had {
				t.Errorf("later: got %d, want %d", got.Balance, c.Balance(there[0]))
			}
			if got := account(t, c, h, there[0]); got.Balance != had {
				t.Errorf("the block before: got %d, want %d", got.Balance, had)
			}
		})
	}
}

func TestFresh(t *testing.T) {
	h := Head{Last: BlockID{Seqno: 5}, Time: 1_700_000_000}
	for _, tt := range []struct {
		after time.Duration
		want  string
	}{{0, ""}, {time.Minute, ""}, {61 * time.Second, "old, want at most"}, {-time.Minute, ""}, {-61 * time.Second, "after now"}} {
		err := h.Fresh(time.Unix(1_700_000_000, 0).Add(tt.after), time.Minute)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v later: got %v, want %q", tt.after, err, tt.want)
		}
	}
}

// history reads all of an account's transactions from base on.
func history(t testing.TB, c *chaintest.Chain, a Account, base Mark, count int) (list []Transaction) {
	t.Helper()
	trail, err := NewTrail(a, base)
	if err != nil {
		t.Fatal(err)
	}
	for {
		at, more := trail.Ask()
		if !more {
			return list
		}
		answer, err := c.Transactions(a.Address, at, count)
		if err != nil {
			t.Fatal(err)
		}
		if err := trail.Take(answer, func(tx Transaction) error { list = append(list, tx); return nil }); err != nil {
			t.Fatal(err)
		}
	}
}

func TestHistory(t *testing.T) {
	c := newChain(t, chaintest.Options{})
	a := address(1)
	for i := range 50 {
		step(t, c, chaintest.Message{From: address(byte(0x80 + i)), To: a, Value: uint64(1000 + i), Bounce: i%2 == 0, Body: text(t, uint64(i))})
	}
	h := advance(t, c, c.Network.Anchor)
	at := account(t, c, h, a)
	for _, count := range []int{1, 3, 16} {
		all := history(t, c, at, Mark{}, count)
		if len(all) != 50 || all[0].Previous != (Mark{}) || all[49].Mark != at.Last {
			t.Fatalf("%d transactions, want 50 from the first to the last", len(all))
		}
		for i, tx := range all {
			if i > 0 && tx.Previous != all[i-1].Mark {
				t.Errorf("transaction %d does not follow the one before", i)
			}
			// A message that may bounce finds no code here, so its transaction is aborted.
			if tx.In == nil || tx.In.From != address(byte(0x80+i)) || tx.In.Value != uint64(1000+i) || tx.In.Body.Uint(64) != uint64(i) ||
				tx.In.Body.End() != nil || !tx.Aborted || tx.Time == 0 {
				t.Errorf("transaction %d: got %+v and message %+v", i, tx, tx.In)
			}
		}
		some := history(t, c, at, all[20].Mark, count)
		if len(some) != 29 || some[0].Mark != all[21].Mark {
			t.Errorf("from the 21st on: %d transactions, want 29", len(some))
		}
		if none := history(t, c, at, at.Last, count); len(none) != 0 {
			t.Errorf("from the newest on: %d transactions, want none", len(none))
		}
	}
}

func text(t testing.TB, v uint64) *cell.Cell {
	t.Helper()
	c, err := new(cell.Builder).Uint(v, 64).Cell()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// lie is an answer, or what is known, with one thing wrong.
type lie struct {
	name, want string
	proof      func(t *testing.T) (Head, []byte)
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// TestAdvanceRefuses gives Advance one wrong thing after the other.
func TestAdvanceRefuses(t *testing.T) {
	c := newChain(t, chaintest.Options{Validators: 7})
	for range 10 {
		step(t, c)
	}
	anchor := c.Network.Anchor
	good := must(c.BlockProof(anchor.Key, BlockID{}))
	known := advance(t, c, anchor)
	fork := newChain(t, chaintest.Options{Validators: 7, Time: 1_700_000_001}) // the same validators on another chain
	for range 10 {
		step(t, fork)
	}
	// edit replaces bytes of a good answer, once.
	edit := func(old, by []byte) func(*testing.T) (Head, []byte) {
		return func(t *testing.T) (Head, []byte) {
			if bytes.Count(good, old) == 0 || bytes.Equal(old, by) {
				t.Fatal("there is nothing to replace")
			}
			return anchor, bytes.Replace(good, old, by, 1)
		}
	}
	last := c.Last()
	le := func(seqno uint32) []byte { return []byte{byte(seqno), byte(seqno >> 8), 0, 0} }
	id := func(seqno uint32, hash [32]byte) []byte { return append(le(seqno), hash[:]...) }
	for _, tt := range []lie{
		{"nothing", "0 bytes are left, want 4", func(t *testing.T) (Head, []byte) { return anchor, good[:0] }},
		{"cut", "bytes are left", func(t *testing.T) (Head, []byte) { return anchor, good[:len(good)-8] }},
		{"a byte more", "4 bytes follow", func(t *testing.T) (Head, []byte) { return anchor, append(slices.Clone(good), 0, 0, 0, 0) }},
		{"another answer", "answer begins with", func(t *testing.T) (Head, []byte) { return anchor, c.MasterchainInfo() }},
		{"nothing known", "no block is known", func(t *testing.T) (Head, []byte) { return Head{}, good }},
		{"a number raised", "proof ends at block", edit(id(last.Seqno, last.RootHash), id(last.Seqno+100, last.RootHash))},
		{"a number raised everywhere", "header is of block", func(t *testing.T) (Head, []byte) {
			return anchor, bytes.ReplaceAll(good, id(last.Seqno, last.RootHash), id(last.Seqno+100, last.RootHash))
		}},
		{"a key block that is said to be none", "is a key block: true, and the link says false", func(t *testing.T) (Head, []byte) {
			at := 4 + 4 + 2*80 + 4 + 4 // of the first link's word on that
			return anchor, append(append(slices.Clone(good[:at]), 0x37, 0x97, 0x79, 0xbc), good[at+4:]...)
		}},
		{"another file", "is wrong", func(t *testing.T) (Head, []byte) {
			return anchor, bytes.ReplaceAll(good, last.FileHash[:], bytes.Repeat([]byte{9}, 32))
		}},
		{"an older block", "newest block is 5, and 11 is known", func(t *testing.T) (Head, []byte) {
			// Both are reached from the same key block.
			older := newChain(t, chaintest.Options{Validators: 7})
			for range 4 {
				step(t, older)
			}
			return Head{Key: anchor.Key, Last: known.Last, Time: known.Time}, must(older.BlockProof(anchor.Key, BlockID{}))
		}},
		{"another block in the place of a known one", "is known with that number", func(t *testing.T) (Head, []byte) {
			h := Head{Key: anchor.Key, Last: known.Last, Time: known.Time}
			h.Last.RootHash[0] ^= 1
			return h, good
		}},
		{"time that goes back", "newest block was made at", func(t *testing.T) (Head, []byte) {
			h := known
			h.Time += 1000
			return h, must(c.BlockProof(known.Key, BlockID{}))
		}},
		{"another chain from our anchor", "proof begins at block", func(t *testing.T) (Head, []byte) {
			return anchor, must(fork.BlockProof(fork.Network.Anchor.Key, BlockID{}))
		}},
		{"another chain's blocks under our anchor's name", "the proof is of", func(t *testing.T) (Head, []byte) {
			forked := must(fork.BlockProof(fork.Network.Anchor.Key, BlockID{}))
			ours, theirs := anchor.Key, fork.Network.Anchor.Key
			forked = bytes.ReplaceAll(forked, id(1, theirs.RootHash), id(1, ours.RootHash))
			return anchor, bytes.ReplaceAll(forked, theirs.FileHash[:], ours.FileHash[:])
		}},
		{"another network", "block is of network -217", func(t *testing.T) (Head, []byte) { return anchor, good }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, proof := tt.proof(t)
			n := c.Network
			if tt.name == "another network" {
				n.GlobalID = -239
			}
			got, _, err := Advance(n, h, proof)
			if err == nil || !strings.Contains(err.Error(), tt.want) || got != (Head{}) {
				t.Errorf("got %v and error %v, want one that says %q", got, err, tt.want)
			}
			if h != (Head{}) && !errors.Is(err, ErrRejected) {
				t.Errorf("error %v is no rejection", err)
			}
		})
	}
}

// TestSignaturesRefused: a block that is signed by too few, by others, or for something else is no block.
func TestSignaturesRefused(t *testing.T) {
	for _, tt := range []struct {
		fault   chaintest.Fault
		simplex bool
		want    string
	}{
		{chaintest.TwoThirds, false, "want more than two thirds"}, {chaintest.TwoThirds, true, "want more than two thirds"},
		{chaintest.Twice, false, "or has signed already"}, {chaintest.Twice, true, "or has signed already"},
		{chaintest.Stranger, false, "who is no validator"}, {chaintest.Stranger, true, "who is no validator"},
		{chaintest.Broken, false, "is wrong"}, {chaintest.Broken, true, "is wrong"},
		{chaintest.OtherCandidate, true, "candidate is block"},
		{chaintest.OtherSet, false, "and its signatures of"},
		{chaintest.OtherRound, false, "and its signatures of"}, {chaintest.OtherRound, true, "and its signatures of"},
		{chaintest.OldKind, true, ""}, // both kinds are good for a block, whatever the network does now
		{chaintest.StaleSet, false, "validators have the short hash"},
		{chaintest.OtherKey, false, "the key block before block"}, {chaintest.OtherKey, true, "the key block before block"},
	} {
		c := newChain(t, chaintest.Options{Fault: tt.fault, Simplex: tt.simplex, Validators: 6})
		for range 6 {
			step(t, c)
		}
		proof := must(c.BlockProof(c.Network.Anchor.Key, BlockID{}))
		_, _, err := Advance(c.Network, c.Network.Anchor, proof)
		if (err == nil) != (tt.want == "") || err != nil && (!strings.Contains(err.Error(), tt.want) || !errors.Is(err, ErrRejected)) {
			t.Errorf("%s, simplex %t: got %v, want %q", tt.fault, tt.simplex, err, tt.want)
		}
	}
}

// TestProveRefuses gives Prove one wrong thing after the other.
func TestProveRefuses(t *testing.T) {
	c := newChain(t, chaintest.Options{Depth: 1})
	a, other, none := address(1), address(2), address(3)
	step(t, c, send(a, 1e9), send(other, 2e9), send(address(0x81), 1e9))
	before := advance(t, c, c.Network.Anchor)
	old := must(c.AccountState(before.Last, a))
	step(t, c, send(a, 1e9))
	h := advance(t, c, before)
	good := must(c.AccountState(h.Last, a))
	absent := must(c.AccountState(h.Last, none))
	lengths := func(b []byte) (parts [][]byte) { // the three strings of an answer
		b = b[4+2*80:]
		for range 3 {
			n, head := int(b[0]), 1
			if n == 254 {
				n, head = int(b[1])|int(b[2])<<8|int(b[3])<<16, 4
			}
			parts = append(parts, b[head:head+n])
			b = b[(head+n+3)/4*4:]
		}
		return parts
	}
	join := func(from []byte, parts ...[]byte) []byte {
		out := slices.Clone(from[:4+2*80])
		for _, p := range parts {
			out = chaintest.AppendString(out, p)
		}
		return out
	}
	g, o, n := lengths(good), lengths(old), lengths(absent)
	flip := func(b []byte, at int) []byte {
		b = slices.Clone(b)
		b[(at+len(b))%len(b)] ^= 1
		return b
	}
	for _, tt := range []struct {
		name, want string
		address    ton.Address
		answer     []byte
	}{
		{"cut", "bytes are left", a, good[:len(good)-4]},
		{"a byte more", "4 bytes follow", a, append(slices.Clone(good), 0, 0, 0, 0)},
		{"an older block's", "it is of block", a, old},
		{"an older block's under the name of the newest", "the proof is of", a, join(good, o...)},
		{"another shard's", "the cell is pruned", a, must(c.AccountState(h.Last, address(0x81)))},
		{"under the name of another block of the shard", "answer is of the shard's block", a, flip(good, 4+80+4+8)},
		{"a pruned path as absence", "the cell is pruned", a, join(good, g[0], n[1], nil)},
		{"absence, and an account all the same", "the account is proven absent, and the answer has one", none, join(absent, n[0], n[1], g[2])},
		{"another account's state", "account is", a, join(good, g[0], g[1], lengths(must(c.AccountState(h.Last, other)))[2])},
		{"no state", "ends 4 bytes short", a, join(good, g[0], g[1], nil)},
		{"an older state", "account is", a, join(good, g[0], g[1], o[2])},
		{"a bit of the state", "account is", a, join(good, g[0], g[1], flip(g[2], -20))},
		{"a bit of the proof", "rejected", a, join(good, g[0], flip(g[1], -20), g[2])},
		{"no masterchain", "ends 4 bytes short", a, join(good, nil, g[1], g[2])},
		{"an older masterchain", "the proof is of", a, join(good, o[0], g[1], g[2])},
		{"the masterchain's own proof as the shard's", "the proof is of", a, join(good, g[0], g[0], g[2])},
	} {
		got, err := Prove(c.Network, h, tt.address, tt.answer)
		if err == nil || !strings.Contains(err.Error(), tt.want) || !errors.Is(err, ErrRejected) || got.Code != nil || got.Balance != 0 {
			t.Errorf("%s: got %+v and error %v, want a rejection that says %q", tt.name, got, err, tt.want)
		}
	}
	for name, at := range map[string]ton.Address{"the masterchain's": {Workchain: -1, Account: [32]byte{1}}, "none": {}} {
		if _, err := Prove(c.Network, h, at, good); err == nil {
			t.Errorf("address %s: got no error", name)
		}
	}
	if _, err := Prove(c.Network, Head{}, a, good); err == nil {
		t.Error("nothing known: got no error")
	}
	wrong := c.Network
	wrong.GlobalID = -239
	if _, err := Prove(wrong, h, a, good); err == nil || !strings.Contains(err.Error(), "is of network") {
		t.Errorf("another network: got %v", err)
	}
	// Every bit of a good answer: what is still accepted says the same.
	want := must(Prove(c.Network, h, a, good))
	for at := range len(good) {
		got, err := Prove(c.Network, h, a, flip(good, at))
		if err == nil && (got.Balance != want.Balance || got.Last != want.Last || got.Status != want.Status) {
			t.Fatalf("byte %d: accepted as %+v", at, got)
		}
	}
}

// TestHistoryRefuses: a history is whole or it is none.
func TestHistoryRefuses(t *testing.T) {
	c := newChain(t, chaintest.Options{})
	a, other := address(1), address(2)
	for range 12 {
		step(t, c, send(a, 1e6), send(other, 1e6))
	}
	h := advance(t, c, c.Network.Anchor)
	at, others := account(t, c, h, a), account(t, c, h, other)
	all := history(t, c, at, Mark{}, 16)
	take := func(base Mark, answers ...[]byte) error {
		trail, err := NewTrail(at, base)
		for _, answer := range answers {
			if err == nil {
				err = trail.Take(answer, func(Transaction) error { return nil })
			}
		}
		return err
	}
	good := must(c.Transactions(a, at.Last, 4))
	for _, tt := range []struct {
		name, want string
		err        error
	}{
		{"another account's", "transaction is", take(Mark{}, must(c.Transactions(other, others.Last, 4)))},
		{"from the middle", "transaction is", take(Mark{}, must(c.Transactions(a, all[5].Mark, 4)))},
		{"the same again", "transaction is", take(Mark{}, good, good)},
		{"reordered", "transaction is", take(Mark{}, chaintest.Reorder(good))},
		{"cut, and taken for the end", "want", take(all[1].Mark, good, must(c.Transactions(a, all[7].Mark, 4)), must(c.Transactions(a,
			all[3].Mark, 4)),
			must(c.Transactions(a, all[3].Mark, 1)))},
		{"a known one of another history", "and 1 was known", take(Mark{LT: all[2].LT, Hash: [32]byte{1}}, must(c.Transactions(a, at.Last, 16)))},
		{"known beyond the newest", "was known", take(Mark{LT: at.Last.LT + 1, Hash: [32]byte{1}})},
		{"known in the newest one's place", "was known", take(Mark{LT: at.Last.LT, Hash: [32]byte{1}})},
		{"nothing", "bytes are left", take(Mark{}, nil)},
		{"no transaction", "transaction is", take(Mark{}, chaintest.Cut(good))},
	} {
		want := strings.Replace(tt.want, "1 was known", "was known", 1)
		if tt.err == nil || !errors.Is(tt.err, ErrRejected) || !strings.Contains(tt.err.Error(), strings.TrimPrefix(want, "and ")) {
			t.Errorf("%s: got %v, want a rejection that says %q", tt.name, tt.err, want)
		}
	}
	for i := range len(good) {
		bad := slices.Clone(good)
		bad[i] ^= 1
		trail := must(NewTrail(at, all[7].Mark))
		var got []Transaction
		keep := func(tx Transaction) error { got = append(got, tx); return nil }
		back := trail.Take(bad, keep)
		if forward := trail.Take(bad, keep); back != nil || forward != nil {
			continue
		}
		if len(got) != 4 || got[3].Mark != at.Last || got[0].Mark != all[8].Mark {
			t.Fatalf("byte %d changed: accepted as %d transactions", i, len(got))
		}
	}
}

// vector is one chain's answers with what they prove.
type vector struct {
	Name    string      `json:"name"`
	Network Network     `json:"network"`
	Head    Head        `json:"head"`
	Account ton.Address `json:"account"`
	Balance uint64      `json:"balance"`
	Last    Mark        `json:"last"`
	// Answers, in hexadecimal: getBlockProof from the anchor, getAccountState of Account and of Absent, getTransactions from Last on.
	Proof        string      `json:"block_proof"`
	State        string      `json:"account_state"`
	Absent       ton.Address `json:"absent"`
	Absence      string      `json:"absence"`
	Transactions string      `json:"transactions"`
}

const vectorFile = "../testdata/vectors/answers.json"

func vectors(t testing.TB) (list []vector) {
	for _, o := range []struct {
		name string
		chaintest.Options
	}{{"catchain", chaintest.Options{}}, {"simplex, shuffled, two shards", chaintest.Options{Simplex: true, Shuffle: true, Depth: 1}}} {
		c := newChain(t, o.Options)
		for range 5 {
			step(t, c, send(address(1), 1e9))
		}
		v := vector{Name: o.name, Network: c.Network, Head: advance(t, c, c.Network.Anchor), Account: address(1), Absent: address(9)}
		a := account(t, c, v.Head, v.Account)
		v.Balance, v.Last = a.Balance, a.Last
		v.Proof = hex.EncodeToString(must(c.BlockProof(c.Network.Anchor.Key, BlockID{})))
		v.State = hex.EncodeToString(must(c.AccountState(v.Head.Last, v.Account)))
		v.Absence = hex.EncodeToString(must(c.AccountState(v.Head.Last, v.Absent)))
		v.Transactions = hex.EncodeToString(must(c.Transactions(v.Account, a.Last, 16)))
		list = append(list, v)
	}
	return list
}

// TestVectors holds the file of answers that others can check an implementation with to what the chain gives.
func TestVectors(t *testing.T) {
	want := vectors(t)
	if *update {
		raw := append(must(json.MarshalIndent(want, "", "\t")), '\n')
		if err := os.WriteFile(vectorFile, raw, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var got []vector
	if err := json.Unmarshal(must(os.ReadFile(vectorFile)), &got); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, want) {
		t.Fatal("the file has other answers than the chain gives; -update writes it anew")
	}
}

// BenchmarkAccount proves an account beside the bare parsing of the same bags of cells.
func BenchmarkAccount(b *testing.B) {
	c := newChain(b, chaintest.Options{})
	var many []chaintest.Message
	for i := range 200 {
		many = append(many, send(ton.Address{Account: [32]byte{byte(i), byte(i * 7), 1}}, 1e9))
	}
	step(b, c, many...)
	step(b, c, send(address(1), 1e9))
	h := advance(b, c, c.Network.Anchor)
	answer := must(c.AccountState(h.Last, address(1)))
	var bags [][]byte
	for rest := answer[4+2*80:]; len(rest) > 0; {
		n, head := int(rest[0]), 1
		if n == 254 {
			n, head = int(rest[1])|int(rest[2])<<8|int(rest[3])<<16, 4
		}
		bags = append(bags, rest[head:head+n])
		rest = rest[(head+n+3)/4*4:]
	}
	b.Run("tonutils-parse", func(b *testing.B) {
		for b.Loop() {
			for _, bag := range bags {
				if _, err := tonutils.FromBOCMultiRoot(bag); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
	b.Run("parse", func(b *testing.B) {
		for b.Loop() {
			for _, bag := range bags {
				if _, err := cell.Parse(bag); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
	b.Run("prove", func(b *testing.B) {
		for b.Loop() {
			if _, err := Prove(c.Network, h, address(1), answer); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkHistory judges transactions, sixteen an answer.
func BenchmarkHistory(b *testing.B) {
	c := newChain(b, chaintest.Options{})
	for range 16 {
		step(b, c, chaintest.Message{From: address(2), To: address(1), Value: 1e9, Body: text(b, 5)})
	}
	at := account(b, c, advance(b, c, c.Network.Anchor), address(1))
	answer := must(c.Transactions(address(1), at.Last, 16))
	for b.Loop() {
		trail := must(NewTrail(at, Mark{}))
		for range 2 { // back and forward
			if err := trail.Take(answer, func(Transaction) error { return nil }); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(16*b.N)/b.Elapsed().Seconds(), "transactions/s")
}
