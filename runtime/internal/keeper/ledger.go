package keeper

import (
	"crypto/ed25519"
	"errors"
	"fmt"

	"chrysalis/measure/ton"
	"chrysalis/runtime/claim"
	"chrysalis/runtime/internal/journal"
	"chrysalis/runtime/receipt"
)

// Terms are the parts of the measured config that receipts state and that bound what the gateway may record.
type Terms struct {
	Charges    bool // each answer is charged; each record must name a client then, and none otherwise
	Price      ton.Price
	Service    [32]byte
	Served     []Served // in the config's order, by which a record says what answered
	Instance   [16]byte
	Excesses   ton.Address // where the change of whoever carries a charge goes
	Settling   *Settling   // on chain; nil where charges are not settled there
	ReceiptKey ed25519.PrivateKey
	ClaimKey   ed25519.PrivateKey
}

// Served is a model that is served: what receipts state of it, and what one answer of its may have at most.
type Served struct {
	Model, Engine [32]byte
	MaxPrompt     uint32 // tokens
	MaxAnswer     uint32 // tokens
}

// notServed is the model of an answer that none of the config's models has given: an earlier config's has.
const notServed = 0xff

// placeOf returns which of the models a receipt is of.
func (t *Terms) placeOf(r *receipt.Receipt) uint8 {
	for at, s := range t.Served {
		if s.Model == r.Model && s.Engine == r.Engine {
			return uint8(at)
		}
	}
	return notServed
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

	exports  exports
	settled  settled
	keys     keys
	settling settling
	checkpoint
}

// contract is what is kept of each payment contract, however many answers it paid.
type contract struct {
	address ton.Address
	count   uint64
	signed  uint64        // the count of the newest charge of this boot, where charges are settled on chain
	newest  journal.Place // of its newest proof, until the host has that; 0 then
	round   uint32        // the last checkpoint that had it
	waits   bool          // in the row of those whose proof the host gets next
}

type recorded struct {
	record receipt.Answer
	proof  receipt.Proof
}

func newLedger(t Terms) *ledger {
	return &ledger{terms: t, index: map[ton.Address]int{}, proofs: map[receipt.AnswerID]recorded{}, exports: newExports(), keys: newKeys(),
		checkpoint: checkpoint{whole: true}, settling: settling{held: map[ton.Address]uint64{}, claims: claims{signed: map[claimOf]uint64{}, waiting: map[claimOf][]byte{}}}}
}

// count returns what a contract has been charged: what the journal counts, or the chain if that has more.
func (l *ledger) count(client ton.Address) (n uint64) {
	if i, ok := l.index[client]; ok {
		n = l.contracts[i].count
	}
	if l.settled.book != nil {
		n = max(n, l.settled.book.Tokens(client))
	}
	return n
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

// cutTail cuts the name of the key that asked off an entry, where there is one.
func cutTail(entry []byte) (answer, key []byte) {
	if n := len(entry) - keyedEntryTail; n == freeEntry || n == paidEntry {
		return entry[:n], entry[n:]
	}
	return entry, nil
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
		if entry[notAnAnswer] == entryKey {
			return l.keys.readEntry(entry)
		}
		return l.settled.readEntry(entry)
	}
	entry, key := cutTail(entry)
	id, r, proof, err := parseEntry(entry)
	if err != nil {
		return err
	}
	if r.Sequence != l.next || r.Previous != l.prev {
		return fmt.Errorf("receipt %d does not follow receipt %d", r.Sequence, l.next)
	}
	// What the chain has charged may be in a part that comes later.
	_, known := l.index[r.Client]
	want := l.count(r.Client) + r.Weighted
	if l.whole && r.Cumulative != want || known && (r.Cumulative < want || l.settled.book == nil && r.Cumulative != want) {
		return fmt.Errorf("receipt %d counts to %d, want %d", r.Sequence, r.Cumulative, l.count(r.Client)+r.Weighted)
	}
	if key != nil {
		if err := l.keys.use(named{r.Client, [16]byte(key)}, r.Weighted, l.whole); err != nil {
			return err
		}
	}
	record := receipt.Answer{ID: id, Model: l.terms.placeOf(r), Client: r.Client, Request: r.Request, Response: r.Response, Usage: r.Usage, Outcome: r.Outcome, Coefficient: r.Coefficient}
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
	if int(record.Model) >= len(t.Served) {
		return fmt.Errorf("%w: model is number %d, want one of %d", errRefused, record.Model, len(t.Served))
	}
	served := t.Served[record.Model]
	switch u := record.Usage; {
	case (record.Client != ton.Address{}) != t.Charges:
		return fmt.Errorf("%w: client is %x, and charging is %t", errRefused, record.Client.Account, t.Charges)
	case u.Prompt > served.MaxPrompt || u.Completion > served.MaxAnswer:
		return fmt.Errorf("%w: %d prompt and %d completion tokens, want at most %d and %d", errRefused,
			u.Prompt, u.Completion, served.MaxPrompt, served.MaxAnswer)
	case t.Settling == nil && record.Coefficient != 0:
		return fmt.Errorf("%w: coefficient is %d, want none", errRefused, record.Coefficient)
	case record.ID == receipt.AnswerID{}:
		return fmt.Errorf("%w: id is zero", errRefused)
	}
	return nil
}

// block names the newest block that was proven, where charges are settled on chain.
func (l *ledger) block() receipt.Block {
	if !l.settling.seen {
		return receipt.Block{}
	}
	at := l.settling.head.Last
	return receipt.Block{Seqno: at.Seqno, RootHash: at.RootHash, Time: l.settling.head.Time}
}

// sign makes the next receipt, and the charge where there is one, and makes them part of the state. The caller must
// journal the entry before anyone sees the proof, and must not go on if that fails.
func (l *ledger) sign(record receipt.Answer, key int) (receipt.Proof, error) {
	if err := l.check(record); err != nil {
		return receipt.Proof{}, err
	}
	t := &l.terms
	weighted, err := record.Usage.Charged(t.Price, record.Coefficient)
	if err != nil {
		return receipt.Proof{}, fmt.Errorf("%w: %v", errRefused, err)
	}
	count := l.count(record.Client) + weighted
	if count < weighted || count > claim.MaxTokens {
		return receipt.Proof{}, fmt.Errorf("%w: the client's count would pass %d", errRefused, uint64(claim.MaxTokens))
	}
	signed, err := receipt.Sign(t.ReceiptKey, receipt.Receipt{
		Sequence: l.next, Previous: l.prev, Instance: t.Instance,
		Request: record.Request, Response: record.Response, Service: t.Service,
		Model: t.Served[record.Model].Model, Engine: t.Served[record.Model].Engine,
		Client: record.Client, Usage: record.Usage, Price: t.Price, Coefficient: record.Coefficient, Weighted: weighted, Cumulative: count, Outcome: record.Outcome,
		Block: l.block(),
	})
	if err != nil {
		return receipt.Proof{}, fmt.Errorf("%w: %v", errRefused, err)
	}
	proof := receipt.Proof{Receipt: signed}
	var charged uint64
	if t.Charges {
		if proof.Charge, charged, err = l.charge(record.Client, count); err != nil {
			return receipt.Proof{}, fmt.Errorf("%w: %v", errRefused, err)
		}
	}
	l.apply(record, count, proof)
	if key > 0 {
		l.keys.list[key-1].used += weighted
	}
	l.contracts[l.index[record.Client]].signed = charged
	return proof, nil
}
