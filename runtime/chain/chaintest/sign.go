package chaintest

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"hash/crc32"
	"math/big"

	"github.com/xssnick/tonutils-go/tvm/cell"

	"chrysalis/runtime/chain"
)

// signer is one validator in the order of a round.
type signer struct {
	key    ed25519.PrivateKey
	weight uint64
	adnl   []byte
}

func (s signer) node() [32]byte {
	return sha256.Sum256(append([]byte{0xc6, 0xb4, 0x13, 0x48}, s.key.Public().(ed25519.PublicKey)...))
}

// signersOf orders the validators that a config names for a round.
func signersOf(config *cell.Cell, keys []ed25519.PrivateKey, o Options, round uint32) ([]signer, error) {
	value, err := config.AsDict(32).LoadValueByIntKey(big.NewInt(34))
	if err != nil {
		return nil, err
	}
	s := value.MustLoadRef()
	s.MustLoadUInt(8 + 32)
	s.MustLoadUInt(32 + 16 + 16)
	s.MustLoadUInt(64)
	list := s.MustLoadDict(16)
	var set []signer
	for i := range o.Main {
		v, err := list.LoadValueByIntKey(big.NewInt(int64(i)))
		if err != nil {
			return nil, err
		}
		v.MustLoadUInt(8 + 32)
		v.MustLoadSlice(256)
		set = append(set, signer{keys[i], v.MustLoadUInt(64), v.MustLoadSlice(256)})
	}
	if !o.Shuffle {
		return set, nil
	}
	// The order of a round, as TON's nodes make it: written here a second time, with big numbers.
	order := make([]int, len(set))
	var hash []byte
	for i := range order {
		if i%8 == 0 {
			b := make([]byte, 48)
			binary.BigEndian.PutUint64(b[24:], uint64(i/8))
			binary.BigEndian.PutUint64(b[32:], 1<<63)
			binary.BigEndian.PutUint32(b[40:], 0xffffffff)
			binary.BigEndian.PutUint32(b[44:], round)
			sum := sha512.Sum512(b)
			hash = sum[:]
		}
		n := new(big.Int).SetBytes(hash[8*(i%8) : 8*(i%8)+8])
		j := n.Mul(n, big.NewInt(int64(i+1))).Rsh(n, 64).Int64()
		order[i] = order[j]
		order[j] = i
	}
	out := make([]signer, len(set))
	for i, from := range order {
		out[i] = set[from]
	}
	return out, nil
}

func shortHash(order []signer, round uint32) uint32 {
	b := []byte{0xed, 0x60, 0x16, 0x90}
	b = binary.LittleEndian.AppendUint32(b, round)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(order)))
	for _, s := range order {
		b = append(b, s.key.Public().(ed25519.PublicKey)...)
		b = append(binary.LittleEndian.AppendUint64(b, s.weight), s.adnl...)
	}
	return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))
}

// sign makes a set of signatures of a block.
func sign(id chain.BlockID, order []signer, o Options, round uint32) []byte {
	simplex := o.Simplex && o.Fault != OldKind
	var t tl
	text := tl{}
	session := sha256.Sum256([]byte("session"))
	var candidate tl
	if simplex {
		candidate.number(crc("consensus.candidateHashDataOrdinary block:tonNode.blockIdExt collated_file_hash:int256 " +
			"parent:consensus.CandidateParent = consensus.CandidateHashData"))
		voted := id
		if o.Fault == OtherCandidate {
			voted.Seqno++
		}
		candidate.block(voted)
		candidate.raw(make([]byte, 32))
		candidate.number(crc("consensus.candidateWithoutParents = consensus.CandidateParent"))
		hash := sha256.Sum256(candidate.b)
		var vote tl
		vote.number(crc("consensus.simplex.finalizeVote id:consensus.CandidateId = consensus.simplex.UnsignedVote"))
		vote.number(crc("consensus.candidateId slot:int hash:int256 = consensus.CandidateId"))
		vote.number(round)
		vote.raw(hash[:])
		text.number(crc("consensus.dataToSign session_id:int256 data:bytes = consensus.DataToSign"))
		text.raw(session[:])
		text.bytes(vote.b)
	} else {
		text.number(crc("ton.blockId root_cell_hash:int256 file_hash:int256 = ton.BlockId"))
		text.raw(id.RootHash[:])
		text.raw(id.FileHash[:])
	}
	hash := shortHash(order, round)
	signing := order
	switch o.Fault {
	case TwoThirds, Twice:
		signing = order[:len(order)*2/3]
		if o.Fault == Twice {
			signing = append(signing[:len(signing):len(signing)], signing...)
		}
	case Stranger:
		key := sha256.Sum256([]byte("stranger"))
		signing = append(order[:len(order):len(order)], signer{key: ed25519.NewKeyFromSeed(key[:])})
	case OtherRound:
		round++
	}
	if simplex {
		t.number(crc("liteServer.signatureSet.simplex cc_seqno:int validator_set_hash:int signatures:vector liteServer.signature " +
			"session_id:int256 slot:int candidate:bytes = liteServer.SignatureSet"))
		t.number(round)
		t.number(hash)
	} else {
		t.number(0xf644a6e6)
		t.number(hash)
		t.number(round)
	}
	t.number(uint32(len(signing)))
	for i, s := range signing {
		node := s.node()
		t.raw(node[:])
		signature := ed25519.Sign(s.key, text.b)
		if o.Fault == Broken && i == 1 {
			signature[7] ^= 1
		}
		t.bytes(signature)
	}
	if simplex {
		t.raw(session[:])
		t.number(round)
		t.bytes(candidate.b)
	}
	return t.b
}

// tl writes the liteserver's language.
type tl struct{ b []byte }

func crc(declaration string) uint32 { return crc32.ChecksumIEEE([]byte(declaration)) }

func (t *tl) raw(b []byte)    { t.b = append(t.b, b...) }
func (t *tl) number(n uint32) { t.b = binary.LittleEndian.AppendUint32(t.b, n) }
func (t *tl) long(n uint64)   { t.b = binary.LittleEndian.AppendUint64(t.b, n) }

func (t *tl) bool(v bool) {
	if v {
		t.number(0x997275b5)
	} else {
		t.number(0xbc799737)
	}
}

func (t *tl) bytes(s []byte) {
	if len(s) < 254 {
		t.b = append(t.b, byte(len(s)))
	} else {
		t.b = append(t.b, 254, byte(len(s)), byte(len(s)>>8), byte(len(s)>>16))
	}
	t.raw(s)
	for len(t.b)%4 != 0 {
		t.b = append(t.b, 0)
	}
}

func (t *tl) block(id chain.BlockID) {
	t.number(uint32(id.Workchain))
	t.long(id.Shard)
	t.number(id.Seqno)
	t.raw(id.RootHash[:])
	t.raw(id.FileHash[:])
}

// AppendString appends a string of TL, for answers that a test forges.
func AppendString(b, s []byte) []byte {
	t := tl{}
	t.bytes(s)
	return append(b, t.b...)
}
