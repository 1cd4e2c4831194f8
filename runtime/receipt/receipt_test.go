package receipt

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"chrysalis/attest/check"
	"chrysalis/measure/pubkey"
	"chrysalis/measure/ton"
)

var update = flag.Bool("update", false, "write testdata/vectors anew")

func testKey() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32)) }

func publicKey() pubkey.Ed25519 { return pubkey.Of(testKey()) }

// example returns a receipt of which each field has its own value.
func example() Receipt {
	r := Receipt{
		Sequence: 3, Previous: sha256.Sum256([]byte("previous")), Instance: [16]byte{1, 2, 3},
		Request: sha256.Sum256([]byte("request")), Response: sha256.Sum256([]byte("response")), Service: sha256.Sum256([]byte("service")),
		Model: sha256.Sum256([]byte("model")), Engine: sha256.Sum256([]byte("engine")),
		Client:     ton.Address{Workchain: -1, Account: sha256.Sum256([]byte("client"))},
		Usage:      Usage{Prompt: 100, Cached: 30, Completion: 50, Reasoning: 20},
		Price:      ton.Price{NanotonPerToken: 20, PromptWeight: 10_000, CachedWeight: 1_000, CompletionWeight: 20_000, ReasoningWeight: 15_000},
		Cumulative: 1_000_163, Outcome: Complete,
		Block: Block{Seqno: 9, RootHash: sha256.Sum256([]byte("block")), Time: 1_700_000_000}, Coefficient: 12_500,
	}
	r.Weighted = (70 + 3 + 60 + 30) * 5 / 4
	return r
}

func mustSign(t testing.TB, r Receipt) *Signed {
	t.Helper()
	s, err := Sign(testKey(), r)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// fields are a receipt as the vector file writes it: in numbers, whatever text the types have of their own.
type fields struct {
	Sequence                                  uint64
	Previous                                  [32]byte
	Instance                                  [16]byte
	Request, Response, Service, Model, Engine [32]byte
	Client                                    struct {
		Workchain int8
		Account   [32]byte
	}
	Usage Usage
	Price struct {
		NanotonPerToken                       uint64
		Prompt, Cached, Completion, Reasoning uint32
	}
	Coefficient          uint32
	Weighted, Cumulative uint64
	Outcome              Outcome
	Block                Block
}

func fieldsOf(r Receipt) (f fields) {
	f.Sequence, f.Previous, f.Instance = r.Sequence, r.Previous, r.Instance
	f.Request, f.Response, f.Service, f.Model, f.Engine = r.Request, r.Response, r.Service, r.Model, r.Engine
	f.Client, f.Usage = r.Client, r.Usage
	f.Price.NanotonPerToken, f.Price.Prompt, f.Price.Cached = r.Price.NanotonPerToken, r.Price.PromptWeight, r.Price.CachedWeight
	f.Price.Completion, f.Price.Reasoning = r.Price.CompletionWeight, r.Price.ReasoningWeight
	f.Coefficient = r.Coefficient
	f.Weighted, f.Cumulative, f.Outcome, f.Block = r.Weighted, r.Cumulative, r.Outcome, r.Block
	return f
}

func TestVectors(t *testing.T) {
	want := mustSign(t, example())
	file := filepath.Join("testdata", "vectors", "receipt.json")
	type vector struct {
		Key, Receipt string
		Fields       fields
	}
	if *update {
		text, err := json.MarshalIndent(vector{publicKey().String(), hex.EncodeToString(want[:]), fieldsOf(example())}, "", "\t")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, append(text, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var v vector
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	raw, err := hex.DecodeString(v.Receipt)
	if err != nil {
		t.Fatal(err)
	}
	key, err := pubkey.Parse(v.Key)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(raw, want[:]) {
		t.Errorf("signed example: got %x, want %x", want[:], raw)
	}
	got, err := Verify(raw, key)
	if err != nil {
		t.Fatal(err)
	}
	if *got != example() || fieldsOf(*got) != v.Fields {
		t.Errorf("verified: got %+v, want %+v", *got, example())
	}
	if price, err := got.Nanoton(); err != nil || price != 203*20 {
		t.Errorf("price is %d, %v; want %d", price, err, 203*20)
	}
}

func TestEveryBit(t *testing.T) {
	good := mustSign(t, example())
	for bit := range 8 * Size {
		bad := *good
		bad[bit/8] ^= 1 << (bit % 8)
		if _, err := Verify(bad[:], publicKey()); !errors.Is(err, check.ErrRejected) {
			t.Fatalf("bit %d flipped: got error %v, want a rejection", bit, err)
		}
		if bad.Hash() == good.Hash() {
			t.Fatalf("bit %d flipped: hash is the same", bit)
		}
	}
}

func TestVerifyRefuses(t *testing.T) {
	good := mustSign(t, example())
	for _, tt := range []struct {
		name, want string
		data       []byte
	}{
		{"empty", "0 bytes", nil},
		{"cut short", "439 bytes", good[:Size-1]},
		{"trailing byte", "441 bytes", append(bytes.Clone(good[:]), 0)},
	} {
		if _, err := Verify(tt.data, publicKey()); !errors.Is(err, check.ErrRejected) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got error %v, want a rejection that says %q", tt.name, err, tt.want)
		}
	}
	other := pubkey.Of(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{8}, 32)))
	if _, err := Verify(good[:], other); !errors.Is(err, check.ErrRejected) {
		t.Errorf("another key: got error %v, want a rejection", err)
	}
	if _, err := Verify(good[:], pubkey.Ed25519{}); err == nil || errors.Is(err, check.ErrRejected) {
		t.Errorf("no key: got error %v, want one about the key", err)
	}
	reserved := *good
	reserved[len(label)+8+32+16+5*32+2] = 1
	copy(reserved[bodySize:], ed25519.Sign(testKey(), reserved[:bodySize]))
	if _, err := Verify(reserved[:], publicKey()); !errors.Is(err, check.ErrRejected) || !strings.Contains(err.Error(), "reserved bytes") {
		t.Errorf("signed reserved byte: got error %v, want a rejection", err)
	}
}

func TestSignRefuses(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		change     func(*Receipt)
	}{
		{"first with a previous one", "sequence is 0", func(r *Receipt) { r.Sequence = 0 }},
		{"later without a previous one", "sequence is 3", func(r *Receipt) { r.Previous = [32]byte{} }},
		{"workchain", "workchain is 4", func(r *Receipt) { r.Client.Workchain = 4 }},
		{"no outcome", "outcome 0", func(r *Receipt) { r.Outcome = 0 }},
		{"weighted", "want 203", func(r *Receipt) { r.Weighted++ }},
		{"another coefficient", "want 204", func(r *Receipt) { r.Coefficient = 12_520 }},
		{"no coefficient", "want 163", func(r *Receipt) { r.Coefficient = 0 }},
		{"a time without a block", "was made at", func(r *Receipt) { r.Block = Block{Time: 5} }},
		{"a block without a time", "was made at 0", func(r *Receipt) { r.Block.Time = 0 }},
		{"cached above prompt", "101 cached of 100", func(r *Receipt) { r.Usage.Cached = 101 }},
		{"reasoning above completion", "51 reasoning of 50", func(r *Receipt) { r.Usage.Reasoning = 51 }},
		{"cumulative below weighted", "cumulative count is 202", func(r *Receipt) { r.Cumulative = 202 }},
		{"block without hash", "block 9", func(r *Receipt) { r.Block.RootHash = [32]byte{} }},
	} {
		r := example()
		tt.change(&r)
		if _, err := Sign(testKey(), r); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got error %v, want it to say %q", tt.name, err, tt.want)
		}
	}
}

// TestCharged: a coefficient multiplies what is weighted, rounds down, and does not pass 64 bits.
func TestCharged(t *testing.T) {
	p := ton.Price{PromptWeight: ton.WeightOne, CompletionWeight: 1<<32 - 1}
	for _, tt := range []struct {
		tokens, coefficient uint32
		want                uint64
	}{{7, 0, 7}, {7, 10_000, 7}, {7, 9_999, 6}, {7, 15_000, 10}, {7, 1, 0}, {1<<32 - 1, 1 << 31, (1<<32 - 1) * (1 << 31) / 10_000}} {
		if got, err := (Usage{Prompt: tt.tokens}).Charged(p, tt.coefficient); err != nil || got != tt.want {
			t.Errorf("%d tokens by %d: got %d (%v), want %d", tt.tokens, tt.coefficient, got, err, tt.want)
		}
	}
	if got, err := (Usage{Completion: 1<<32 - 1}).Charged(p, 1<<32-1); err == nil {
		t.Errorf("beyond 64 bits: got %d, want an error", got)
	}
}

func TestWeighted(t *testing.T) {
	p := ton.Price{PromptWeight: 3_333, CachedWeight: 10_000, CompletionWeight: 1<<32 - 1, ReasoningWeight: 1<<32 - 1}
	for _, tt := range []struct {
		usage Usage
		want  uint64
	}{
		{Usage{}, 0},
		{Usage{Prompt: 3}, 0}, // 0.9999 rounds down
		{Usage{Prompt: 4}, 1},
		{Usage{Prompt: 4, Cached: 4}, 4},
		{Usage{Completion: 1<<32 - 1}, (1<<32 - 1) * (1<<32 - 1) / ton.WeightOne},
	} {
		if got, err := tt.usage.Weighted(p); err != nil || got != tt.want {
			t.Errorf("%+v: got %d, %v; want %d", tt.usage, got, err, tt.want)
		}
	}
}

func TestFollows(t *testing.T) {
	first := example()
	first.Sequence, first.Previous = 0, [32]byte{}
	before := mustSign(t, first)
	next := example()
	next.Sequence, next.Previous = 1, before.Hash()
	if err := next.Follows(before); err != nil {
		t.Errorf("neighbours: %v", err)
	}
	for name, change := range map[string]func(*Receipt){
		"gap":            func(r *Receipt) { r.Sequence = 2 },
		"other previous": func(r *Receipt) { r.Previous[0]++ },
		"other instance": func(r *Receipt) { r.Instance[0]++ },
	} {
		bad := next
		change(&bad)
		if err := bad.Follows(before); !errors.Is(err, check.ErrRejected) {
			t.Errorf("%s: got error %v, want a rejection", name, err)
		}
	}
}

func TestResponseHash(t *testing.T) {
	whole, pieces, moved := NewResponseHash(), NewResponseHash(), NewResponseHash()
	whole.Reasoning([]byte("think"))
	whole.Content([]byte("The answer"))
	for _, piece := range []string{"The", " ", "answer"} {
		pieces.Content([]byte(piece))
	}
	pieces.Reasoning([]byte("think"))
	if whole.Sum() != pieces.Sum() {
		t.Error("the same text in pieces has another hash")
	}
	moved.Reasoning([]byte("thinkThe "))
	moved.Content([]byte("answer"))
	if whole.Sum() == moved.Sum() {
		t.Error("text moved from content to reasoning keeps its hash")
	}
}

// TestResponseHashOfCalls moves text between the parts of calls: each has another hash, and how it was cut does not matter.
func TestResponseHashOfCalls(t *testing.T) {
	type call struct{ id, name, arguments string }
	of := func(content string, calls ...call) [32]byte {
		h := NewResponseHash()
		h.Content([]byte(content))
		for i, c := range calls {
			if !h.Call(i, []byte(c.id), []byte(c.name), []byte(c.arguments)) {
				t.Fatalf("call %d is not taken", i)
			}
		}
		return h.Sum()
	}
	seen := map[[32]byte]string{}
	for name, sum := range map[string][32]byte{
		"none":                     of("ab"),
		"one":                      of("ab", call{"1", "f", "{}"}),
		"without content":          of("", call{"1", "f", "{}"}),
		"empty":                    of("ab", call{}),
		"name moved to id":         of("ab", call{"1f", "", "{}"}),
		"arguments moved to name":  of("ab", call{"1", "f{}", ""}),
		"two":                      of("ab", call{"1", "f", "{}"}, call{"2", "f", "{}"}),
		"two the other way around": of("ab", call{"2", "f", "{}"}, call{"1", "f", "{}"}),
		"in one":                   of("ab", call{"12", "ff", "{}{}"}),
	} {
		if other, ok := seen[sum]; ok {
			t.Errorf("%s and %s have one hash", name, other)
		}
		seen[sum] = name
	}
	pieces := NewResponseHash()
	pieces.Content([]byte("a"))
	pieces.Call(0, []byte("1"), []byte("f"), nil)
	pieces.Call(0, nil, nil, []byte("{"))
	pieces.Content([]byte("b"))
	pieces.Call(0, nil, nil, []byte("}"))
	if seen[pieces.Sum()] != "one" {
		t.Errorf("the same call in pieces has another hash, that of %q", seen[pieces.Sum()])
	}
	if pieces.Call(2, nil, nil, nil) || pieces.Call(-1, nil, nil, nil) {
		t.Error("a call that skips one is taken")
	}
	for i := 1; i < MaxCalls; i++ {
		pieces.Call(i, nil, nil, nil)
	}
	if pieces.Call(MaxCalls, nil, nil, nil) {
		t.Errorf("call %d is taken, want at most %d", MaxCalls, MaxCalls)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(mustSign(f, example())[:])
	zero := Receipt{Outcome: Cut}
	f.Add(mustSign(f, zero)[:])
	f.Add([]byte(label))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := Parse(data)
		if err != nil {
			return
		}
		var again Signed
		r.encode(&again)
		copy(again[bodySize:], data[bodySize:])
		if !bytes.Equal(again[:], data) {
			t.Fatalf("encoded again: got %x, want %x", again, data)
		}
	})
}

func BenchmarkSign(b *testing.B) {
	key, r := testKey(), example()
	for b.Loop() {
		if _, err := Sign(key, r); err != nil {
			b.Fatal(err)
		}
	}
}
