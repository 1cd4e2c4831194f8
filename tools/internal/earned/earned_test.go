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
		line(t, says{contract: 3, instance: 1, sequence: 2, tokens: 9, charged: 10}),                                                            // more than the receipt
		line(t, says{contract: 3, instance: 1, sequence: 2, tokens: 9, op: claim.WorkerPayout}),                                                 // another message
		line(t, says{contract: 3, instance: 1, sequence: 2, tokens: 1 << 40, price: 1 << 40}),                                                   // beyond 64 bits
		line(t, says{contract: 4, instance: 1, sequence: 8, tokens: 6})[:300] + line(t, says{contract: 4, instance: 1, sequence: 9, tokens: 7}), // a power cut between
		line(t, says{contract: 5, instance: 1, sequence: 2, tokens: 9})[:200],                                                                   // and one at the end
	}, "\n")
	log, err := Read(strings.NewReader(file))
	if err != nil || log.Damaged != 6 {
		t.Errorf("got %d damaged lines and error %v, want 6", log.Damaged, err)
	}
	entries := log.Entries
	var got []uint64
	for i := range entries {
		got = append(got, entries[i].Tokens)
		if err := entries[i].Prove([]Signers{{}, us}); err != nil || !entries[i].Proved {
			t.Errorf("entry %d: %v", i, err)
		}
	}
	if len(got) != 4 || got[0] != 300 || got[1] != 4 || got[2] != 5 || got[3] != 7 {
		t.Errorf("got counts %v, want 300, 4, 5 and 7", got)
	}
	if sum, err := Sum(entries); err != nil || sum != 20*316 {
		t.Errorf("got a sum of %d and error %v, want %d", sum, err, 20*316)
	}
	// What is written is read again, and is smaller.
	var b bytes.Buffer
	if err := Write(&b, log); err != nil {
		t.Fatal(err)
	}
	again, err := Read(&b)
	if err != nil || again.Damaged != 0 || len(again.Entries) != len(entries) || again.Entries[0].Tokens != 300 {
		t.Errorf("read again: got %d entries, %d damaged and error %v", len(again.Entries), again.Damaged, err)
	}
}

// claimLine is a message that goes with no receipt.
func claimLine(t testing.TB, op claim.Op, contract byte, tokens uint64) string {
	t.Helper()
	m := claim.Message{Op: op, Tokens: tokens, Contract: ton.Address{Account: [32]byte{9, contract}}, Excesses: ton.Address{Account: [32]byte{8}}}
	if op.Closes() {
		b, err := claim.SignClose(claimKey, m)
		if err != nil {
			t.Fatal(err)
		}
		return claim.Line(b[:])
	}
	b, err := claim.Sign(claimKey, m)
	if err != nil {
		t.Fatal(err)
	}
	return claim.Line(b[:])
}

// TestClaims: of each kind and contract the newest message is kept, beside the entries, and is proved by its signer alone.
func TestClaims(t *testing.T) {
	file := strings.Join([]string{
		claimLine(t, claim.WorkerPayout, 1, 10),
		claimLine(t, claim.WorkerPayout, 1, 30),
		claimLine(t, claim.WorkerPayout, 1, 20), // once more after a boot
		claimLine(t, claim.ClientRefund, 2, 5),
		claimLine(t, claim.ClientCharge, 2, 4),
		line(t, says{contract: 2, instance: 1, sequence: 2, tokens: 9, charged: 3}), // the contract had no more
		"claim cut by a p" + claimLine(t, claim.ProxyClose, 3, 0),
		claimLine(t, claim.ProxyCloseComplete, 3, 0)[:200],
		"claim AAAA",
	}, "\n") + "\n"
	log, err := Read(strings.NewReader(file))
	if err != nil || log.Damaged != 2 || len(log.Entries) != 1 || log.Entries[0].Tokens != 3 || log.Entries[0].Nanoton != 60 {
		t.Fatalf("got %d damaged lines, entries %+v and error %v, want 2 and one of 3 tokens", log.Damaged, log.Entries, err)
	}
	want := []claim.Message{{Op: claim.WorkerPayout, Tokens: 30}, {Op: claim.ClientCharge, Tokens: 4}, {Op: claim.ClientRefund, Tokens: 5}, {Op: claim.ProxyClose}}
	for i := range log.Claims {
		c := &log.Claims[i]
		if i >= len(want) || c.Message.Op != want[i].Op || c.Message.Tokens != want[i].Tokens {
			t.Fatalf("claim %d is %+v, want %+v", i, c.Message, want)
		}
		if err := c.Prove([]Signers{{Claim: us.Receipt}}); !errors.Is(err, check.ErrRejected) || c.Proved {
			t.Errorf("%s by somebody else: got %v", c.Message.Op, err)
		}
		if err := c.Prove([]Signers{{}, us}); err != nil || !c.Proved || c.Key != us.Claim {
			t.Errorf("%s: %v", c.Message.Op, err)
		}
	}
	var b bytes.Buffer
	if err := Write(&b, log); err != nil {
		t.Fatal(err)
	}
	if again, err := Read(&b); err != nil || again.Damaged != 0 || len(again.Claims) != len(want) || len(again.Entries) != 1 {
		t.Errorf("read again: %+v (%v)", again, err)
	}
}

func TestProveRefuses(t *testing.T) {
	log, err := Read(strings.NewReader(line(t, says{contract: 1, instance: 1, tokens: 10}) + "\n"))
	entries := log.Entries
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
	f.Add([]byte(claimLine(f, claim.ClientRefund, 1, 7) + "\n" + claimLine(f, claim.ProxyClose, 1, 0) + "\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		log, err := Read(bytes.NewReader(b))
		for _, c := range log.Claims {
			if line := claim.Line(c.Body); err != nil || c.Proved || !bytes.Contains(b, []byte(line)) {
				t.Errorf("got %+v and error %v", c, err)
			}
		}
		for _, e := range log.Entries {
			if err != nil || e.Proof.Charge == nil || e.Proved {
				t.Errorf("got %+v and error %v", e, err)
			}
		}
	})
}
