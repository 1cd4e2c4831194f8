package chain

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// id is the number of a TL constructor: the check sum of its declaration.
func id(declaration string) uint32 { return crc32.ChecksumIEEE([]byte(declaration)) }

// The constructors of answers, from the liteserver's scheme.
var (
	idTrue         = id("boolTrue = Bool")
	idFalse        = id("boolFalse = Bool")
	idPartialProof = id("liteServer.partialBlockProof complete:Bool from:tonNode.blockIdExt to:tonNode.blockIdExt " +
		"steps:vector liteServer.BlockLink = liteServer.PartialBlockProof")
	idForward = id("liteServer.blockLinkForward to_key_block:Bool from:tonNode.blockIdExt to:tonNode.blockIdExt dest_proof:bytes " +
		"config_proof:bytes signatures:liteServer.SignatureSet = liteServer.BlockLink")
	idSignatures = id("liteServer.signatureSet validator_set_hash:int catchain_seqno:int " +
		"signatures:vector liteServer.signature = liteServer.SignatureSet")
	idOrdinary = uint32(0xf644a6e6) // liteServer.signatureSet.ordinary has its number written in the scheme
	idSimplex  = id("liteServer.signatureSet.simplex cc_seqno:int validator_set_hash:int signatures:vector liteServer.signature " +
		"session_id:int256 slot:int candidate:bytes = liteServer.SignatureSet")
	idAccountState = id("liteServer.accountState id:tonNode.blockIdExt shardblk:tonNode.blockIdExt shard_proof:bytes proof:bytes " +
		"state:bytes = liteServer.AccountState")
	idTransactions = id("liteServer.transactionList ids:vector tonNode.blockIdExt transactions:bytes = liteServer.TransactionList")
)

// The constructors of what validators sign.
var (
	idBlockID      = id("ton.blockId root_cell_hash:int256 file_hash:int256 = ton.BlockId")
	idValidatorSet = uint32(0x901660ed) // test0.validatorSet
	idPublicKey    = id("pub.ed25519 key:int256 = PublicKey")
	idDataToSign   = id("consensus.dataToSign session_id:int256 data:bytes = consensus.DataToSign")
	idCandidateID  = id("consensus.candidateId slot:int hash:int256 = consensus.CandidateId")
	idFinalizeVote = id("consensus.simplex.finalizeVote id:consensus.CandidateId = consensus.simplex.UnsignedVote")
	idParent       = id("consensus.candidateParent id:consensus.CandidateId = consensus.CandidateParent")
	idNoParent     = id("consensus.candidateWithoutParents = consensus.CandidateParent")
	idCandidate    = id("consensus.candidateHashDataOrdinary block:tonNode.blockIdExt collated_file_hash:int256 " +
		"parent:consensus.CandidateParent = consensus.CandidateHashData")
	idEmptyCandidate = id("consensus.candidateHashDataEmpty block:tonNode.blockIdExt parent:consensus.candidateId " +
		"= consensus.CandidateHashData")
)

// MaxAnswer bounds an answer of a liteserver.
const MaxAnswer = 16 << 20

// answer reads TL off its beginning. The first error stays.
type answer struct {
	b   []byte
	err error
}

func (a *answer) fail(format string, args ...any) {
	if a.err == nil {
		a.err = fmt.Errorf(format, args...)
	}
}

func (a *answer) take(n int) []byte {
	if a.err == nil && n > len(a.b) {
		a.fail("%d bytes are left, want %d", len(a.b), n)
	}
	if a.err != nil {
		return make([]byte, min(n, 64))
	}
	part := a.b[:n]
	a.b = a.b[n:]
	return part
}

func (a *answer) uint32() uint32    { return binary.LittleEndian.Uint32(a.take(4)) }
func (a *answer) hash() [32]byte    { return [32]byte(a.take(32)) }
func (a *answer) more() (left bool) { return a.err == nil && len(a.b) > 0 }

func (a *answer) tag(want uint32, name string) {
	if got := a.uint32(); a.err == nil && got != want {
		a.fail("%s begins with %08x, want %08x", name, got, want)
	}
}

func (a *answer) bool() bool {
	switch got := a.uint32(); got {
	case idTrue:
		return true
	case idFalse:
	default:
		a.fail("truth is %08x, want %08x or %08x", got, idTrue, idFalse)
	}
	return false
}

// bytes takes a string: its length in one byte or, after 254, in three, and zeros up to a multiple of four. A length is written as short
// as it can be.
func (a *answer) bytes() []byte {
	n, head := int(a.take(1)[0]), 1
	if n >= 254 {
		if n == 255 {
			a.fail("string has a length of seven bytes, want one or three")
			return nil
		}
		l := a.take(3)
		n, head = int(l[0])|int(l[1])<<8|int(l[2])<<16, 4
		if n < 254 && a.err == nil {
			a.fail("length %d is written with three bytes, want one", n)
		}
	}
	part := a.take(n)
	for _, pad := range a.take((4 - (head+n)%4) % 4) {
		if pad != 0 {
			a.fail("string is filled up with %#x, want zeros", pad)
		}
	}
	return part
}

// count takes the length of a vector whose elements have at least least bytes each.
func (a *answer) count(least, most int) int {
	n := a.uint32()
	if a.err == nil && (n > uint32(most) || int(n) > len(a.b)/least) {
		a.fail("vector has %d elements in %d bytes, want at most %d", n, len(a.b), most)
	}
	if a.err != nil {
		return 0
	}
	return int(n)
}

func (a *answer) block() (b BlockID) {
	b.Workchain = int32(a.uint32())
	b.Shard = binary.LittleEndian.Uint64(a.take(8))
	b.Seqno, b.RootHash, b.FileHash = a.uint32(), a.hash(), a.hash()
	return b
}

func (a *answer) end(name string) error {
	if a.more() {
		a.fail("%d bytes follow", len(a.b))
	}
	if a.err != nil {
		return rejectf("%s: %v", name, a.err)
	}
	return nil
}

func appendString(b, s []byte) []byte {
	head := 1
	if len(s) < 254 {
		b = append(b, byte(len(s)))
	} else {
		head = 4
		b = append(b, 254, byte(len(s)), byte(len(s)>>8), byte(len(s)>>16))
	}
	return append(append(b, s...), make([]byte, (4-(head+len(s))%4)%4)...)
}
