package keeper

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"

	"chrysalis/measure/ton"
	"chrysalis/runtime/claim"
	"chrysalis/runtime/internal/journal"
	"chrysalis/runtime/receipt"
	"chrysalis/runtime/settle"
)

// Terms are the parts of the measured config that receipts state and that bound what the gateway may record.
type Terms struct {
	Charges       bool // each answer is charged; each record must name a client then, and none otherwise
	Price         ton.Price
	Service       [32]byte
	Model, Engine [32]byte
	Instance      [16]byte
	Excesses      ton.Address   // where the change of whoever carries a charge goes
	MaxPrompt     uint32        // tokens
	MaxAnswer     uint32        // tokens
	Settle        *settle.Terms // the contracts by which answers are paid on chain; nil where they are not
	ReceiptKey    ed25519.PrivateKey
	ClaimKey      ed25519.PrivateKey
}

// rememberedProofs is how many of the latest answers can be asked for again.
const rememberedProofs = 4096

// errRefused answers a request that the ledger can't accept. Nothing was changed.
var errRefused = errors.New("refused")

// ledger is the state that the journal's entries add up to. It is the journal's owner: checkpoint.go has how it goes into checkpoints.
type ledger struct {
	terms     Terms
	contracts []contract // in the order in which they came
	index     map[ton.Address]int
	next      uint64
	prev      [32]byte
	// proofs of the latest records by id, so that a repeated request gets what it got before.
	proofs map[receipt.AnswerID]recorded
	order  []receipt.AnswerID

	exports exports
	settled settled
	checkpoint
}

// contract is what is kept of each payment contract, however many answers it paid.
type contract struct {
	address ton.Address
	count   uint64
	newest  journal.Place // of its newest proof, until the host has that; 0 then
	round   uint32        // the last checkpoint that had it
	waits   bool          // in the row of those whose proof the host gets next
}

type recorded struct {
	record receipt.Answer
	proof  receipt.Proof
}

func newLedger(t Terms) *ledger {
	return &ledger{terms: t, index: map[ton.Address]int{}, proofs: map[receipt.AnswerID]recorded{}, exports: newExports(),
		checkpoint: checkpoint{whole: true}}
}

// count returns what a contract has been charged.
func (l *ledger) count(client ton.Address) uint64 {
	if i, ok := l.index[client]; ok {
		return l.contracts[i].count
	}
	return 0
}

// at returns the contract's place in the row, and takes it in if it is new.
func (l *ledger) at(client ton.Address) int {
	i, ok := l.index[client]
	if !ok {
		i = len(l.contracts)
		l.contracts, l.index[client] = append(l.contracts, contract{address: client}), i
	}
	return i
}

// Entry sizes of the journal: id, receipt, and a charge or nothing.
const (
	freeEntry = len(receipt.AnswerID{}) + receipt.Size
	paidEntry = freeEntry + claim.BodySize
)

func entryOf(id receipt.AnswerID, p receipt.Proof) []byte {
	e := append(append(make([]byte, 0, paidEntry), id[:]...), p.Receipt[:]...)
	if p.Charge != nil {
		e = append(e, p.Charge[:]...)
	}
	return e
}

// parseEntry takes an entry of the journal apart, which the journal's key vouches for.
func parseEntry(entry []byte) (id receipt.AnswerID, r *receipt.Receipt, proof receipt.Proof, err error) {
	if len(entry) != freeEntry && len(entry) != paidEntry {
		return id, nil, proof, fmt.Errorf("entry has %d bytes, want %d or %d", len(entry), freeEntry, paidEntry)
	}
	id = receipt.AnswerID(entry)
	signed := receipt.Signed(entry[len(id):])
	if r, err = receipt.Parse(signed[:]); err != nil {
		return id, nil, proof, err
	}
	proof = receipt.Proof{Receipt: &signed}
	if len(entry) == paidEntry {
		body := claim.Body(entry[freeEntry:])
		proof.Charge = &body
	}
	return id, r, proof, nil
}

// Entry applies an entry that the journal has. Before the first checkpoint that is read is whole, what a contract had before may not be known.
func (l *ledger) Entry(entry []byte, at journal.Place) error {
	if len(entry) > notAnAnswer && [notAnAnswer]byte(entry) == ([notAnAnswer]byte{}) {
		return l.settled.readEntry(entry)
	}
	id, r, proof, err := parseEntry(entry)
	if err != nil {
		return err
	}
	if r.Sequence != l.next || r.Previous != l.prev {
		return fmt.Errorf("receipt %d does not follow receipt %d", r.Sequence, l.next)
	}
	if _, known := l.index[r.Client]; (known || l.whole) && r.Cumulative != l.count(r.Client)+r.Weighted {
		return fmt.Errorf("receipt %d counts to %d, want %d", r.Sequence, r.Cumulative, l.count(r.Client)+r.Weighted)
	}
	record := receipt.Answer{ID: id, Client: r.Client, Request: r.Request, Response: r.Response, Usage: r.Usage, Outcome: r.Outcome}
	l.apply(record, r.Cumulative, proof)
	l.durable(r.Client, proof, at)
	return nil
}

// apply makes a signed record part of the state.
func (l *ledger) apply(record receipt.Answer, count uint64, proof receipt.Proof) {
	l.contracts[l.at(record.Client)].count = count
	l.next++
	l.prev = proof.Receipt.Hash()
	l.proofs[record.ID] = recorded{record, proof}
	l.order = append(l.order, record.ID)
	if len(l.order) > rememberedProofs {
		delete(l.proofs, l.order[0])
		l.order = l.order[1:]
	}
}

// known returns the proof of a record that was made before. The same id for another record is refused.
func (l *ledger) known(record receipt.Answer) (receipt.Proof, bool, error) {
	old, ok := l.proofs[record.ID]
	if !ok {
		return receipt.Proof{}, false, nil
	}
	if old.record != record {
		return receipt.Proof{}, false, fmt.Errorf("%w: id %x was used for another record", errRefused, record.ID)
	}
	return old.proof, true, nil
}

// vouch signs the body's hash of a whole answer that was recorded.
func (l *ledger) vouch(id receipt.AnswerID, body [32]byte) (receipt.TextSignature, error) {
	of, ok := l.proofs[id]
	if !ok || of.record.Outcome != receipt.Complete {
		return receipt.TextSignature{}, fmt.Errorf("%w: no whole answer of the latest %d has id %x", errRefused, rememberedProofs, id)
	}
	return receipt.SignText(l.terms.ReceiptKey, of.record.Request, body)
}

// check reports whether a record is one that the measured config allows.
func (l *ledger) check(record receipt.Answer) error {
	t := &l.terms
	switch u := record.Usage; {
	case (record.Client != ton.Address{}) != t.Charges:
		return fmt.Errorf("%w: client is %x, and charging is %t", errRefused, record.Client.Account, t.Charges)
	case u.Prompt > t.MaxPrompt || u.Completion > t.MaxAnswer:
		return fmt.Errorf("%w: %d prompt and %d completion tokens, want at most %d and %d", errRefused,
			u.Prompt, u.Completion, t.MaxPrompt, t.MaxAnswer)
	case record.ID == receipt.AnswerID{}:
		return fmt.Errorf("%w: id is zero", errRefused)
	}
	return nil
}

// sign makes the next receipt, and the charge where there is one, and makes them part of the state. The caller must
// journal the entry before anyone sees the proof, and must not go on if that fails.
func (l *ledger) sign(record receipt.Answer) (receipt.Proof, error) {
	if err := l.check(record); err != nil {
		return receipt.Proof{}, err
	}
	t := &l.terms
	weighted, err := record.Usage.Weighted(t.Price)
	if err != nil {
		return receipt.Proof{}, fmt.Errorf("%w: %v", errRefused, err)
	}
	count := l.count(record.Client) + weighted
	if count < weighted || count > claim.MaxTokens {
		return receipt.Proof{}, fmt.Errorf("%w: the client's count would pass %d", errRefused, uint64(claim.MaxTokens))
	}
	signed, err := receipt.Sign(t.ReceiptKey, receipt.Receipt{
		Sequence: l.next, Previous: l.prev, Instance: t.Instance,
		Request: record.Request, Response: record.Response, Service: t.Service, Model: t.Model, Engine: t.Engine,
		Client: record.Client, Usage: record.Usage, Price: t.Price, Weighted: weighted, Cumulative: count, Outcome: record.Outcome,
	})
	if err != nil {
		return receipt.Proof{}, fmt.Errorf("%w: %v", errRefused, err)
	}
	proof := receipt.Proof{Receipt: signed}
	if t.Charges {
		var query [8]byte
		rand.Read(query[:])
		proof.Charge, err = claim.Sign(t.ClaimKey, claim.Message{
			Op: claim.ClientCharge, QueryID: binary.LittleEndian.Uint64(query[:]), Tokens: count,
			Contract: record.Client, Excesses: t.Excesses,
		})
		if err != nil {
			return receipt.Proof{}, fmt.Errorf("%w: %v", errRefused, err)
		}
	}
	l.apply(record, count, proof)
	return proof, nil
}
