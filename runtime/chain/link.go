package chain

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/bits"

	"chrysalis/runtime/cell"
)

// Bounds of a proof of newer blocks.
const (
	maxSteps      = 64   // of one answer
	maxSignatures = 1024 // of one block
	maxValidators = 1024
)

// Advance returns the head to which a liteserver's answer to getBlockProof (liteServer.partialBlockProof, boxed) leads from what is known.
// The answer has to begin at known.Key, which is what to ask for. A head below what is known, or another block in its place, is refused.
// complete says that the server knows no more.
func Advance(n Network, known Head, untrusted []byte) (h Head, complete bool, err error) {
	h, complete, err = advance(n, known, untrusted)
	if err != nil {
		return Head{}, false, fmt.Errorf("proving newer blocks: %w", err)
	}
	return h, complete, nil
}

func advance(n Network, known Head, untrusted []byte) (Head, bool, error) {
	if known.Key == (BlockID{}) || known.Last == (BlockID{}) {
		return Head{}, false, errors.New("no block is known to begin with")
	}
	if len(untrusted) > MaxAnswer {
		return Head{}, false, rejectf("answer has %d bytes, want at most %d", len(untrusted), MaxAnswer)
	}
	a := &answer{b: untrusted}
	a.tag(idPartialProof, "answer")
	complete := a.bool()
	from, to := a.block(), a.block()
	steps := a.count(4+4+2*80, maxSteps)
	if a.err == nil && from != known.Key {
		a.fail("proof begins at block %v, want %v", from, known.Key)
	}
	h := Head{Key: known.Key, Last: known.Key}
	for i := range steps {
		if a.err != nil {
			break
		}
		if h.Last != h.Key {
			a.fail("step %d comes after block %v, which is no key block", i, h.Last)
			break
		}
		next, err := a.step(n, h)
		if err != nil {
			a.fail("step %d: %v", i, err)
		}
		h = next
	}
	if err := a.end("answer"); err != nil {
		return Head{}, false, err
	}
	if h.Last != to {
		return Head{}, false, rejectf("proof ends at block %v, and says %v", h.Last, to)
	}
	if steps == 0 && known.Last == known.Key {
		h.Time = known.Time
	}
	switch {
	case h.Last.Seqno < known.Last.Seqno:
		return Head{}, false, rejectf("newest block is %d, and %d is known", h.Last.Seqno, known.Last.Seqno)
	case h.Last.Seqno == known.Last.Seqno && h.Last != known.Last:
		return Head{}, false, rejectf("block is %v, and %v is known with that number", h.Last, known.Last)
	case h.Time < known.Time:
		return Head{}, false, rejectf("newest block was made at %d, and one of %d is known", h.Time, known.Time)
	}
	return h, complete, nil
}

// step takes one link and returns the head after it.
func (a *answer) step(n Network, h Head) (Head, error) {
	a.tag(idForward, "link")
	toKey := a.bool()
	from, to := a.block(), a.block()
	destination, config := a.bytes(), a.bytes()
	set := a.signatures()
	switch {
	case a.err != nil:
		return h, a.err
	case from != h.Key:
		return h, fmt.Errorf("link is from block %v, want %v", from, h.Key)
	case to.Workchain != Masterchain || to.Shard != wholeShard:
		return h, fmt.Errorf("link is to %v, want the masterchain", to)
	case to.Seqno <= from.Seqno:
		return h, fmt.Errorf("link is from block %d to %d, want forward", from.Seqno, to.Seqno)
	}
	root, err := cell.ParseOne(destination)
	if err != nil {
		return h, err
	}
	head, err := openBlock(root, to.RootHash, n.GlobalID)
	if err == nil {
		err = head.is(to)
	}
	switch {
	case err != nil:
		return h, fmt.Errorf("block %d: %w", to.Seqno, err)
	case head.keyBlock != toKey:
		return h, fmt.Errorf("block %d is a key block: %t, and the link says %t", to.Seqno, head.keyBlock, toKey)
	case head.prevKey != from.Seqno:
		return h, fmt.Errorf("the key block before block %d is %d, want %d", to.Seqno, head.prevKey, from.Seqno)
	case head.time < h.Time:
		return h, fmt.Errorf("block %d was made at %d, before %d", to.Seqno, head.time, h.Time)
	case head.validators != set.hash || head.catchain != set.catchain:
		return h, fmt.Errorf("block %d is of validators %08x in round %d, and its signatures of %08x in %d", to.Seqno,
			head.validators, head.catchain, set.hash, set.catchain)
	}
	signers, err := validatorsOf(config, from, n.GlobalID, set.catchain)
	if err != nil {
		return h, fmt.Errorf("validators of key block %d: %w", from.Seqno, err)
	}
	if err := set.verify(to, signers); err != nil {
		return h, fmt.Errorf("signatures of block %d: %v", to.Seqno, err)
	}
	h.Last, h.Time = to, head.time
	if toKey {
		h.Key = to
	}
	return h, nil
}

// signatureSet is what validators say of a block: that it is final.
type signatureSet struct {
	hash, catchain uint32
	list           []signature
	simplex        bool // of the consensus after catchain, which signs a vote on a candidate
	session        [32]byte
	slot           uint32
	candidate      []byte
}

type signature struct {
	node  [32]byte
	bytes []byte
}

func (a *answer) signatures() (s signatureSet) {
	list := func() {
		for range a.count(32+4, maxSignatures) {
			s.list = append(s.list, signature{a.hash(), a.bytes()})
		}
	}
	switch got := a.uint32(); {
	case a.err != nil:
	case got == idSignatures, got == idOrdinary:
		s.hash, s.catchain = a.uint32(), a.uint32()
		list()
	case got == idSimplex:
		s.simplex = true
		s.catchain, s.hash = a.uint32(), a.uint32()
		list()
		s.session, s.slot, s.candidate = a.hash(), a.uint32(), a.bytes()
	default:
		a.fail("signatures begin with %08x, which is no set that is known", got)
	}
	return s
}

type validator struct {
	key    [32]byte
	weight uint64
	adnl   [32]byte
}

func (v validator) node() [32]byte {
	return sha256.Sum256(append(binary.LittleEndian.AppendUint32(nil, idPublicKey), v.key[:]...))
}

// verify accepts the signatures if they are by more than two thirds of the signers' weight, each of a signer and each once.
func (s signatureSet) verify(to BlockID, signers []validator) error {
	if got := setHash(s.catchain, signers); got != s.hash {
		return fmt.Errorf("validators have the short hash %08x, want %08x", got, s.hash)
	}
	text, err := s.text(to)
	if err != nil {
		return err
	}
	var total, signed uint64
	unused := make(map[[32]byte]validator, len(signers))
	for _, v := range signers {
		total += v.weight
		unused[v.node()] = v
	}
	for _, sig := range s.list {
		v, ok := unused[sig.node]
		if !ok {
			return fmt.Errorf("one is by %x, who is no validator or has signed already", sig.node[:8])
		}
		delete(unused, sig.node)
		if !ed25519.Verify(v.key[:], text, sig.bytes) {
			return fmt.Errorf("that of %x is wrong", sig.node[:8])
		}
		signed += v.weight
	}
	signedHi, signedLo := bits.Mul64(signed, 3)
	totalHi, totalLo := bits.Mul64(total, 2)
	if signedHi < totalHi || signedHi == totalHi && signedLo <= totalLo {
		return fmt.Errorf("they are of weight %d of %d, want more than two thirds", signed, total)
	}
	return nil
}

// text is what validators signed: the block's hashes, or under simplex a vote that finalizes the candidate of a slot.
func (s signatureSet) text(to BlockID) ([]byte, error) {
	le := binary.LittleEndian
	if !s.simplex {
		b := le.AppendUint32(nil, idBlockID)
		return append(append(b, to.RootHash[:]...), to.FileHash[:]...), nil
	}
	got, err := candidateBlock(s.candidate)
	if err != nil {
		return nil, fmt.Errorf("candidate: %v", err)
	}
	if got != to {
		return nil, fmt.Errorf("candidate is block %v, want %v", got, to)
	}
	hash := sha256.Sum256(s.candidate)
	vote := le.AppendUint32(nil, idFinalizeVote)
	vote = append(le.AppendUint32(le.AppendUint32(vote, idCandidateID), s.slot), hash[:]...)
	b := append(le.AppendUint32(nil, idDataToSign), s.session[:]...)
	return appendString(b, vote), nil
}

func candidateBlock(candidate []byte) (BlockID, error) {
	a := &answer{b: candidate}
	var b BlockID
	switch got := a.uint32(); {
	case a.err != nil:
	case got == idCandidate:
		b = a.block()
		a.hash() // of the collated file
		switch parent := a.uint32(); {
		case a.err != nil || parent == idNoParent:
		case parent == idParent:
			a.tag(idCandidateID, "parent")
			a.take(4 + 32)
		default:
			a.fail("parent begins with %08x", parent)
		}
	case got == idEmptyCandidate:
		b = a.block()
		a.take(4 + 32)
	default:
		a.fail("it begins with %08x", got)
	}
	if a.more() {
		a.fail("%d bytes follow", len(a.b))
	}
	return b, a.err
}

// setHash is the short hash of a set of validators in a round.
func setHash(catchain uint32, set []validator) uint32 {
	le := binary.LittleEndian
	b := le.AppendUint32(le.AppendUint32(le.AppendUint32(nil, idValidatorSet), catchain), uint32(len(set)))
	for _, v := range set {
		b = append(le.AppendUint64(append(b, v.key[:]...), v.weight), v.adnl[:]...)
	}
	return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))
}

// Config parameters.
const (
	paramCatchain   = 28
	paramValidators = 34
)

// validatorsOf returns who signs the masterchain in a round, in their order, by the config of a key block.
func validatorsOf(proof []byte, key BlockID, globalID int32, catchain uint32) ([]validator, error) {
	root, err := cell.ParseOne(proof)
	if err != nil {
		return nil, err
	}
	h, err := openBlock(root, key.RootHash, globalID)
	if err == nil {
		err = h.is(key)
	}
	if err != nil {
		return nil, err
	}
	if !h.keyBlock {
		return nil, errors.New("it is no key block")
	}
	r := h.extra.Read()
	r.Tag(32, 0x4a33f6fd, "block's extra")
	r.Ref() // messages in
	r.Ref() // messages out
	r.Ref() // accounts
	r.Skip(256 + 256)
	r.Tag(1, 1, "masterchain's extra")
	m := r.Open()
	if err := r.End(); err != nil {
		return nil, err
	}
	m.Tag(16, 0xcca5, "masterchain's extra")
	m.Tag(1, 1, "key block")
	m.MaybeRef() // shards
	m.MaybeRef() // their fees
	skipCurrencies(m)
	skipCurrencies(m)
	m.Ref() // signatures of the block before
	m.Skip(256)
	config := m.Ref()
	if err := m.End(); err != nil {
		return nil, err
	}
	shuffle, err := shuffles(config)
	if err != nil {
		return nil, fmt.Errorf("config parameter %d: %w", paramCatchain, err)
	}
	set, err := validatorSet(config)
	if err != nil {
		return nil, fmt.Errorf("config parameter %d: %w", paramValidators, err)
	}
	if shuffle {
		set = shuffled(set, catchain)
	}
	return set, nil
}

func param(config *cell.Cell, n uint32) *cell.Reader {
	r, err := cell.Lookup(config, binary.BigEndian.AppendUint32(nil, n), 32)
	if err != nil {
		bad := new(cell.Cell).Read()
		bad.Fail("%w", err)
		return bad
	}
	return r.Open()
}

// shuffles reads whether validators of the masterchain are shuffled in each round (CatchainConfig).
func shuffles(config *cell.Cell) (bool, error) {
	r := param(config, paramCatchain)
	switch tag := r.Uint(8); {
	case r.Err() != nil:
		return false, r.Err()
	case tag == 0xc1:
		return false, nil
	case tag == 0xc2:
		r.Skip(7)
		return r.Bool(), r.Err()
	default:
		return false, fmt.Errorf("it begins with %#02x, want 0xc1 or 0xc2", tag)
	}
}

// validatorSet reads the first validators of a set (validators_ext), as many as sign the masterchain.
func validatorSet(config *cell.Cell) ([]validator, error) {
	r := param(config, paramValidators)
	r.Tag(8, 0x12, "set")
	r.Skip(32 + 32) // since, until
	total, main, weight := int(r.Uint(16)), int(r.Uint(16)), r.Uint(64)
	list := r.MaybeRef()
	if err := r.End(); err != nil {
		return nil, err
	}
	if main < 1 || main > total || total > maxValidators {
		return nil, fmt.Errorf("%d of %d validators sign, want 1 or more of at most %d", main, total, maxValidators)
	}
	var set []validator
	var sum uint64
	err := cell.Each(list, 16, total, func(key [32]byte, v *cell.Reader) error {
		if got := int(binary.BigEndian.Uint16(key[:])); got != len(set) {
			return fmt.Errorf("validator %d stands at place %d", len(set), got)
		}
		tag := v.Uint(8)
		if v.Err() == nil && tag != 0x53 && tag != 0x73 {
			v.Fail("validator begins with %#02x, want 0x53 or 0x73", tag)
		}
		v.Tag(32, 0x8e81278a, "key")
		one := validator{key: v.Hash(), weight: v.Uint(64)}
		if tag == 0x73 {
			one.adnl = v.Hash()
		}
		carry := uint64(0)
		sum, carry = bits.Add64(sum, one.weight, 0)
		if carry != 0 {
			v.Fail("weights pass 64 bits")
		}
		set = append(set, one)
		return v.End()
	})
	switch {
	case err != nil:
		return nil, err
	case len(set) != total || sum != weight:
		return nil, fmt.Errorf("%d validators of weight %d, want %d of %d", len(set), sum, total, weight)
	}
	keys := make([][]byte, 0, main)
	for _, v := range set[:main] {
		keys = append(keys, v.key[:])
	}
	for i := range keys {
		for j := range i {
			if bytes.Equal(keys[i], keys[j]) {
				return nil, fmt.Errorf("validators %d and %d have one key", j, i)
			}
		}
	}
	return set[:main], nil
}

// shuffled returns a set in the order of a round of the masterchain: each takes a place among those before by a number out of SHA-512 of
// a counter, the shard and the round.
func shuffled(set []validator, catchain uint32) []validator {
	random := &shuffler{catchain: catchain}
	order := make([]int, len(set))
	for i := range order {
		j, _ := bits.Mul64(random.next(), uint64(i)+1)
		order[i] = order[j]
		order[j] = i
	}
	out := make([]validator, len(set))
	for i, from := range order {
		out[i] = set[from]
	}
	return out
}

type shuffler struct {
	counter  [32]byte // big endian
	catchain uint32
	hash     [64]byte
	used     int // numbers of hash
	begun    bool
}

func (s *shuffler) next() uint64 {
	if !s.begun || s.used == len(s.hash)/8 {
		b := binary.BigEndian.AppendUint64(append(make([]byte, 0, 48), s.counter[:]...), wholeShard)
		b = binary.BigEndian.AppendUint32(b, ^uint32(0)) // workchain -1
		s.hash = sha512.Sum512(binary.BigEndian.AppendUint32(b, s.catchain))
		s.begun, s.used = true, 0
		for i := len(s.counter) - 1; i >= 0; i-- {
			if s.counter[i]++; s.counter[i] != 0 {
				break
			}
		}
	}
	v := binary.BigEndian.Uint64(s.hash[8*s.used:])
	s.used++
	return v
}
