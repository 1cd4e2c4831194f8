package earned

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"strings"
	"testing"

	"chrysalis/attest/check"
	"chrysalis/measure/pubkey"
	"chrysalis/measure/ton"
	"chrysalis/runtime/claim"
	"chrysalis/runtime/receipt"
)

var (
	receiptKey = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32))
	claimKey   = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{2}, 32))
	us         = Signers{Receipt: pubkey.Of(receiptKey), Claim: pubkey.Of(claimKey)}
)

// payout is a message that goes with no receipt, as a line.
func payout(t testing.TB) string {
	t.Helper()
	to := ton.Address{Account: [32]byte{1}}
	body, err := claim.Sign(claimKey, claim.Message{Op: claim.WorkerPayout, Tokens: 5, Contract: to, Excesses: to})
	if err != nil {
		t.Fatal(err)
	}
	return claim.Line(body[:])
}

// says is what a proof says.
type says struct {
	contract, instance byte
	sequence, tokens   uint64
	charged            uint64 // 0: tokens
	price              uint64 // 0: 20
	op                 claim.Op
}

func line(t testing.TB, s says) string {
	t.Helper()
	if s.charged == 0 {
		s.charged = s.tokens
	}
	if s.price == 0 {
		s.price = 20
	}
	if s.op == 0 {
		s.op = claim.ClientCharge
	}
	client := ton.Address{Account: [32]byte{9, s.contract}}
	r := receipt.Receipt{
		Sequence: s.sequence, Instance: [16]byte{s.instance}, Request: [32]byte{1}, Response: [32]byte{2}, Service: [32]byte{3}, Model: [32]byte{4},
		Engine: [32]byte{5}, Client: client, Usage: receipt.Usage{Completion: 1}, Weighted: 1, Cumulative: s.tokens,
		Price: ton.Price{NanotonPerToken: s.price, CompletionWeight: ton.WeightOne}, Outcome: receipt.Complete,
	}
	if s.sequence > 0 {
		r.Previous = [32]byte{6}
	}
	signed, err := receipt.Sign(receiptKey, r)
	if err != nil {
		t.Fatal(err)
	}
	charge, err := claim.Sign(claimKey, claim.Message{Op: s.op, Tokens: s.charged, Contract: client, Excesses: client})
	if err != nil {
		t.Fatal(err)
	}
	text, err := receipt.Proof{Receipt: signed, Charge: charge}.Line()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestRead(t *testing.T) {
	file := strings.Join([]string{
		line(t, says{contract: 1, instance: 1, sequence: 0, tokens: 10}),
		line(t, says{contract: 2, instance: 1, sequence: 1, tokens: 5}),
		line(t, says{contract: 1, instance: 1, sequence: 7, tokens: 300}),
		line(t, says{contract: 1, instance: 2, sequence: 0, tokens: 4}),   // a later guest, with a key of its own
		line(t, says{contract: 1, instance: 1, sequence: 3, tokens: 100}), // exported again after a boot
		"", "hello", strings.Repeat("x", 100_000),
		line(t, says{contract: 3, instance: 1, sequence: 2, tokens: 9, charged: 10}), // more than counted
		line(t, says{contract: 6, instance: 1, sequence: 2, tokens: 9, charged: 8}),  // what the client had
		payout(t),
		line(t, says{contract: 3, instance: 1, sequence: 2, tokens: 9, op: claim.WorkerPayout}),                                                 // another message
		line(t, says{contract: 3, instance: 1, sequence: 2, tokens: 1 << 40, price: 1 << 40}),                                                   // beyond 64 bits
		line(t, says{contract: 4, instance: 1, sequence: 8, tokens: 6})[:300] + line(t, says{contract: 4, instance: 1, sequence: 9, tokens: 7}), // a power cut between
		line(t, says{contract: 5, instance: 1, sequence: 2, tokens: 9})[:200],                                                                   // and one at the end
	}, "\n")
	entries, damaged, err := Read(strings.NewReader(file))
	if err != nil || damaged != 6 {
		t.Errorf("got %d damaged lines and error %v, want 6", damaged, err)
	}
	var got []uint64
	for i := range entries {
		got = append(got, entries[i].Tokens)
		if err := entries[i].Prove([]Signers{{}, us}); err != nil || !entries[i].Proved {
			t.Errorf("entry %d: %v", i, err)
		}
	}
	if len(got) != 5 || got[0] != 300 || got[1] != 4 || got[2] != 5 || got[3] != 7 || got[4] != 8 {
		t.Errorf("got counts %v, want 300, 4, 5, 7 and 8", got)
	}
	if sum, err := Sum(entries); err != nil || sum != 20*324 {
		t.Errorf("got a sum of %d and error %v, want %d", sum, err, 20*324)
	}
	// What is written is read again, and is smaller.
	var b bytes.Buffer
	if err := Write(&b, entries); err != nil {
		t.Fatal(err)
	}
	again, damaged, err := Read(&b)
	if err != nil || damaged != 0 || len(again) != len(entries) || again[0].Tokens != 300 {
		t.Errorf("read again: got %d entries, %d damaged and error %v", len(again), damaged, err)
	}
}

func TestProveRefuses(t *testing.T) {
	entries, _, err := Read(strings.NewReader(line(t, says{contract: 1, instance: 1, tokens: 10}) + "\n"))
	if err != nil || len(entries) != 1 {
		t.Fatal(len(entries), err)
	}
	for name, signers := range map[string][]Signers{
		"nobody": nil, "zeros": {{}}, "half": {{Receipt: us.Receipt}}, "the other half": {{Claim: us.Claim}},
		"the two changed": {{Receipt: us.Claim, Claim: us.Receipt}},
	} {
		if err := entries[0].Prove(signers); !errors.Is(err, check.ErrRejected) || entries[0].Proved {
			t.Errorf("%s: got %v, want a refusal", name, err)
		}
	}
}

func TestSigners(t *testing.T) {
	other := Signers{Receipt: us.Claim, Claim: us.Receipt}
	got, err := ParseSigners(strings.NewReader(us.String() + "\n" + other.String() + "\n"))
	if err != nil || len(got) != 2 || got[0] != us || got[1] != other {
		t.Errorf("got %v and error %v, want both", got, err)
	}
	for _, text := range []string{"hello\n", "signers \n", us.String() + " x\n", " " + us.String() + "\n", strings.ToUpper(us.String()) + "\n", us.String()[:100] + "\n"} {
		if got, err := ParseSigners(strings.NewReader(text)); err == nil {
			t.Errorf("%q: got %v, want a refusal", text, got)
		}
	}
}

func TestSumRefuses(t *testing.T) {
	if _, err := Sum([]Entry{{Nanoton: 1 << 63}, {Nanoton: 1 << 63}}); err == nil {
		t.Error("got no error, want one: 64 bits do not hold it")
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(line(f, says{contract: 1, instance: 1, tokens: 10}) + "\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		entries, _, err := Read(bytes.NewReader(b))
		for _, e := range entries {
			if err != nil || e.Proof.Charge == nil || e.Proved {
				t.Errorf("got %+v and error %v", e, err)
			}
		}
	})
}
