// Package receipt is the signed record that goes with every answer: what was asked and answered by hash, what was used,
// what it costs, which model and engine under which config computed it, and where it stands in the guest's journal.
//
// RECEIPT.md beside this file specifies the layout. The common path: the guest fills in a Receipt and calls Sign; a
// client calls Verify with the receipt key out of an accepted attestation and compares the hashes with its own bytes;
// an auditor who holds several calls Follows on neighbours.
//
// What this package does not promise: that the guest is a good one. The key must come out of verified evidence.
package receipt

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"

	"chrysalis/attest/check"
	"chrysalis/measure/pubkey"
	"chrysalis/measure/ton"
)

// rejectf makes the errors by which Parse, Verify and Follows refuse a receipt.
func rejectf(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{check.ErrRejected}, args...)...)
}

// Usage counts the tokens of one answer as the engine reports them.
type Usage struct {
	Prompt     uint32 // Cached among them
	Cached     uint32
	Completion uint32 // Reasoning among them
	Reasoning  uint32
}

// Total returns the tokens of an answer and of what it answers.
func (u Usage) Total() uint64 { return uint64(u.Prompt) + uint64(u.Completion) }

// Weighted returns the weighted tokens of an answer: for each class tokens times weight over ton.WeightOne, rounded down,
// as COCOON counts them. Cached tokens are no prompt tokens then, and reasoning tokens no completion tokens.
func (u Usage) Weighted(p ton.Price) (uint64, error) {
	if u.Cached > u.Prompt || u.Reasoning > u.Completion {
		return 0, fmt.Errorf("usage has %d cached of %d prompt and %d reasoning of %d completion tokens",
			u.Cached, u.Prompt, u.Reasoning, u.Completion)
	}
	var sum uint64
	for _, class := range [][2]uint32{
		{u.Prompt - u.Cached, p.PromptWeight}, {u.Cached, p.CachedWeight},
		{u.Completion - u.Reasoning, p.CompletionWeight}, {u.Reasoning, p.ReasoningWeight},
	} {
		// Four products of 32-bit numbers over WeightOne stay far below 2^64.
		sum += uint64(class[0]) * uint64(class[1]) / ton.WeightOne
	}
	return sum, nil
}

// Charged returns the weighted tokens of an answer under a coefficient, in parts of ton.WeightOne, rounded down; without one, Weighted.
func (u Usage) Charged(p ton.Price, coefficient uint32) (uint64, error) {
	n, err := u.Weighted(p)
	if err != nil || coefficient == 0 {
		return n, err
	}
	high, low := bits.Mul64(n, uint64(coefficient))
	if high >= ton.WeightOne {
		return 0, fmt.Errorf("%d tokens by a coefficient of %d are more than 64 bits hold", n, coefficient)
	}
	n, _ = bits.Div64(high, low, ton.WeightOne)
	return n, nil
}

// Outcome says how an answer ended.
type Outcome uint8

// The outcomes.
const (
	Complete Outcome = 1 // the engine ended the answer
	Cut      Outcome = 2 // the engine died or the client left; usage is what had been computed for the client by then
)

func (o Outcome) String() string {
	switch o {
	case Complete:
		return "complete"
	case Cut:
		return "cut"
	}
	return fmt.Sprintf("outcome %d", uint8(o))
}

// Block names a masterchain block. The zero Block says that none is known.
type Block struct {
	Seqno    uint32
	RootHash [32]byte
	Time     uint32 // when it was made, Unix time
}

// Receipt is what a receipt says.
type Receipt struct {
	Sequence uint64   // 0 for the first receipt of an instance, then one more each
	Previous [32]byte // Hash of the receipt before it; zero for the first
	Instance [16]byte
	Request  [32]byte    // SHA-256 of the request's body, as the client sent it
	Response [32]byte    // SHA-256 of the answer's text, as RECEIPT.md defines it
	Service  [32]byte    // digest of the service part of the measured config
	Model    [32]byte    // root hash of the model's volume
	Engine   [32]byte    // root hash of the engine's volume
	Client   ton.Address // the client's payment contract; zero for an answer that nobody pays
	Usage    Usage
	Price    ton.Price
	// Coefficient multiplies the weighted tokens, in parts of ton.WeightOne; 0 where the config has no band of it, which counts as one.
	Coefficient uint32
	Weighted    uint64 // tokens of this answer under Price and Coefficient
	// Cumulative is the client's weighted tokens since its contract began, this answer among them: the number that a
	// charge carries.
	Cumulative uint64
	Outcome    Outcome
	Block      Block // the newest that the guest had proven when it recorded the answer
}

// label begins every receipt and keeps its signature apart from every other that the key could make.
const label = "chrysalis receipt v1\n\x00\x00\x00"

// Size is the length of every signed receipt.
const Size = bodySize + ed25519.SignatureSize

// bodySize counts what is signed: label, sequence, previous, instance, five hashes, client and outcome, eight counts,
// price and two totals, block.
const bodySize = len(label) + 8 + 32 + 16 + 5*32 + 8 + 32 + 8*4 + 3*8 + 8 + 32

// Signed is a signed receipt as it travels and is kept.
type Signed [Size]byte

// Hash names a signed receipt; the next one carries it as Previous.
func (s *Signed) Hash() [32]byte { return sha256.Sum256(s[:]) }

// Sign signs a receipt with an Ed25519 key. It refuses one that Parse would refuse.
func Sign(signer crypto.Signer, r Receipt) (*Signed, error) {
	if err := r.validate(); err != nil {
		return nil, fmt.Errorf("signing receipt: %v", err)
	}
	if _, ok := signer.Public().(ed25519.PublicKey); !ok {
		return nil, fmt.Errorf("signing receipt: key is a %T, want Ed25519", signer.Public())
	}
	var s Signed
	r.encode(&s)
	signature, err := signer.Sign(rand.Reader, s[:bodySize], crypto.Hash(0))
	if err != nil {
		return nil, fmt.Errorf("signing receipt: %v", err)
	}
	copy(s[bodySize:], signature)
	return &s, nil
}

// Parse reads a receipt without believing it: nobody has checked its signature. The error wraps check.ErrRejected.
func Parse(untrusted []byte) (*Receipt, error) {
	if len(untrusted) != Size {
		return nil, rejectf("receipt has %d bytes, want %d", len(untrusted), Size)
	}
	s := (*Signed)(untrusted)
	if string(s[:len(label)]) != label {
		return nil, rejectf("receipt begins with %q, want %q", s[:len(label)], label)
	}
	var r Receipt
	if err := r.decode(s); err != nil {
		return nil, rejectf("%v", err)
	}
	if err := r.validate(); err != nil {
		return nil, rejectf("%v", err)
	}
	return &r, nil
}

// Verify parses a receipt and accepts it if key signed it. The error wraps check.ErrRejected when it did not.
func Verify(untrusted []byte, key pubkey.Ed25519) (*Receipt, error) {
	if key.IsZero() {
		return nil, errors.New("verifying receipt: no key is given")
	}
	r, err := Parse(untrusted)
	if err != nil {
		return nil, fmt.Errorf("verifying receipt: %w", err)
	}
	if !key.Verify(untrusted[:bodySize], untrusted[bodySize:]) {
		return nil, fmt.Errorf("verifying receipt: %w", rejectf("signature is not by key %s", key))
	}
	return r, nil
}

// Follows checks that a verified receipt is the one right after another verified one of the same guest. The error wraps
// check.ErrRejected.
func (r *Receipt) Follows(previous *Signed) error {
	p, err := Parse(previous[:])
	if err != nil {
		return fmt.Errorf("previous receipt: %w", err)
	}
	switch {
	case r.Instance != p.Instance:
		return rejectf("receipt is of instance %x, the previous one of %x", r.Instance, p.Instance)
	case r.Sequence != p.Sequence+1:
		return rejectf("receipt has sequence %d after %d, want %d", r.Sequence, p.Sequence, p.Sequence+1)
	case r.Previous != previous.Hash():
		return rejectf("receipt %d names %x as the one before it, want %x", r.Sequence, r.Previous, previous.Hash())
	}
	return nil
}

func (r *Receipt) validate() error {
	if !r.Client.IsZero() {
		if err := r.Client.Check(); err != nil {
			return fmt.Errorf("client's %v", err)
		}
	}
	weighted, err := r.Usage.Charged(r.Price, r.Coefficient)
	if err != nil {
		return err
	}
	switch {
	case (r.Sequence == 0) != (r.Previous == [32]byte{}):
		return fmt.Errorf("sequence is %d, but the previous receipt is %x", r.Sequence, r.Previous)
	case r.Outcome != Complete && r.Outcome != Cut:
		return fmt.Errorf("%s, want %s or %s", r.Outcome, Complete, Cut)
	case r.Weighted != weighted:
		return fmt.Errorf("%d weighted tokens, want %d", r.Weighted, weighted)
	case r.Cumulative < r.Weighted:
		return fmt.Errorf("cumulative count is %d, want at least the answer's %d", r.Cumulative, r.Weighted)
	case (r.Block.Seqno == 0) != (r.Block.RootHash == [32]byte{}) || (r.Block.Seqno == 0) != (r.Block.Time == 0):
		return fmt.Errorf("block %d has root hash %x and was made at %d", r.Block.Seqno, r.Block.RootHash, r.Block.Time)
	}
	return nil
}

// Nanoton returns what the answer costs.
func (r *Receipt) Nanoton() (uint64, error) {
	high, low := bits.Mul64(r.Weighted, r.Price.NanotonPerToken)
	if high != 0 {
		return 0, fmt.Errorf("%d tokens at %d nanoton are more than 64 bits hold", r.Weighted, r.Price.NanotonPerToken)
	}
	return low, nil
}

// encode writes everything but the signature.
func (r *Receipt) encode(s *Signed) {
	b := append(s[:0], label...)
	b = binary.LittleEndian.AppendUint64(b, r.Sequence)
	b = append(b, r.Previous[:]...)
	b = append(b, r.Instance[:]...)
	for _, hash := range [][32]byte{r.Request, r.Response, r.Service, r.Model, r.Engine} {
		b = append(b, hash[:]...)
	}
	b = binary.LittleEndian.AppendUint32(append(b, byte(r.Client.Workchain), byte(r.Outcome), 0, 0), r.Block.Time)
	b = append(b, r.Client.Account[:]...)
	for _, n := range []uint32{
		r.Usage.Prompt, r.Usage.Cached, r.Usage.Completion, r.Usage.Reasoning,
		r.Price.PromptWeight, r.Price.CachedWeight, r.Price.CompletionWeight, r.Price.ReasoningWeight,
	} {
		b = binary.LittleEndian.AppendUint32(b, n)
	}
	b = binary.LittleEndian.AppendUint64(b, r.Price.NanotonPerToken)
	b = binary.LittleEndian.AppendUint64(b, r.Weighted)
	b = binary.LittleEndian.AppendUint64(b, r.Cumulative)
	b = binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(b, r.Block.Seqno), r.Coefficient)
	b = append(b, r.Block.RootHash[:]...)
	if len(b) != bodySize {
		panic(fmt.Sprintf("receipt: encoded %d bytes, want %d", len(b), bodySize))
	}
}

func (r *Receipt) decode(s *Signed) error {
	b := s[len(label):bodySize]
	take := func(n int) []byte { part := b[:n]; b = b[n:]; return part }
	u32 := func() uint32 { return binary.LittleEndian.Uint32(take(4)) }
	u64 := func() uint64 { return binary.LittleEndian.Uint64(take(8)) }
	r.Sequence = u64()
	copy(r.Previous[:], take(32))
	copy(r.Instance[:], take(16))
	for _, hash := range []*[32]byte{&r.Request, &r.Response, &r.Service, &r.Model, &r.Engine} {
		copy(hash[:], take(32))
	}
	r.Client.Workchain = int8(take(1)[0])
	r.Outcome = Outcome(take(1)[0])
	reserved := [2]byte(take(2))
	r.Block.Time = u32()
	copy(r.Client.Account[:], take(32))
	for _, n := range []*uint32{
		&r.Usage.Prompt, &r.Usage.Cached, &r.Usage.Completion, &r.Usage.Reasoning,
		&r.Price.PromptWeight, &r.Price.CachedWeight, &r.Price.CompletionWeight, &r.Price.ReasoningWeight,
	} {
		*n = u32()
	}
	r.Price.NanotonPerToken, r.Weighted, r.Cumulative = u64(), u64(), u64()
	r.Block.Seqno, r.Coefficient = u32(), u32()
	if reserved != [2]byte{} {
		return fmt.Errorf("reserved bytes are %x, want zeros", reserved)
	}
	copy(r.Block.RootHash[:], take(32))
	return nil
}
