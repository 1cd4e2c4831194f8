// Package claim makes and judges the signed messages by which COCOON's contracts are paid.
//
// A message is built from a typed request and signed as a TON cell that this package makes itself; nothing here signs a
// hash that somebody else computed. The four kinds that carry a token count share one layout, which CLAIM.md beside this
// file specifies. It has a fixed size, so a message is written and read at fixed offsets and there is no cell parser.
//
// The common path: derive a key (runtime/secret), Sign a Message, and on the other side Verify its bytes against a Policy.
//
// What this package does not promise: that a count is true or rises. Whoever signs keeps the ledger; a contract accepts
// a count only once.
package claim

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"chrysalis/measure/ton"
)

// Op is the operation of a message, as the contracts name it.
type Op uint32

// The operations that carry a cumulative count of weighted tokens.
const (
	WorkerPayout     Op = 0xa040ad28 // pays the worker; the contract wants stored < tokens
	WorkerLastPayout Op = 0xf5f26a36 // the same and closes; stored <= tokens
	ClientCharge     Op = 0xbb63ff93 // charges the client; stored < tokens
	ClientRefund     Op = 0xefd711e1 // grants the client the rest and closes; stored <= tokens
)

var opNames = map[Op]string{
	WorkerPayout: "worker-payout", WorkerLastPayout: "worker-last-payout",
	ClientCharge: "client-charge", ClientRefund: "client-refund",
}

func (o Op) String() string {
	if name, ok := opNames[o]; ok {
		return name
	}
	return fmt.Sprintf("op %08x", uint32(o))
}

// Message is what a signed message says.
type Message struct {
	Op       Op
	QueryID  uint64      // random; no replay guard
	Tokens   uint64      // weighted tokens since the contract began, never of one answer alone
	Contract ton.Address // whom the message is for; it commits to code, parameters and parties
	// Excesses is where the carrier's change goes. The signature does not cover it: whoever carries the message may
	// write another, and hurts only himself.
	Excesses ton.Address
}

// Body is a signed message as it travels: a bag of cells with check sum, always BodySize bytes.
type Body [BodySize]byte

// Layout in bits (CLAIM.md).
const (
	opBits      = 32
	queryBits   = 64
	tokenBits   = 64
	addressBits = 2 + 1 + 8 + 256 // addr_std$10, no anycast, workchain, account
	payloadBits = opBits + queryBits + tokenBits + addressBits
	bodyBits    = opBits + queryBits + addressBits + 8*ed25519.SignatureSize

	payloadBytes = (payloadBits + 7) / 8
	bodyBytes    = (bodyBits + 7) / 8
)

// Layout in bytes.
const (
	headerBytes   = 11 // magic, flags, sizes, one root
	cellsBytes    = 2 + bodyBytes + 1 + 2 + payloadBytes
	bodyCellAt    = headerBytes
	payloadCellAt = bodyCellAt + 2 + bodyBytes + 1
	crcAt         = headerBytes + cellsBytes

	flagsAt      = 4    // in the header
	flagCheckSum = 0x40 // a check sum ends the bag

	// BodySize is the length of every Body.
	BodySize = crcAt + 4
)

// header begins every Body: magic; flags "has CRC" with one byte for an index; one byte for an offset; two cells; one
// root; none absent; the cells' bytes; the root's index.
var header = [headerBytes]byte{0xb5, 0xee, 0x9c, 0x72, 0x41, 1, 2, 1, 0, cellsBytes, 0}

// Cell descriptors: count of references, then twice the whole bytes plus one for a part of a byte.
var (
	bodyDescriptor    = [2]byte{1, bodyBits/8*2 + 1}
	payloadDescriptor = [2]byte{0, payloadBits/8*2 + 1}
)

// payloadIndex is the reference of the body's cell: the second cell of the bag.
const payloadIndex = 1

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Sign signs a message with an Ed25519 key. The signer gets the hash of the payload's cell, as the contracts want it;
// that hash is computed here from the fields of m and from nothing else.
func Sign(signer crypto.Signer, m Message) (*Body, error) {
	if err := m.validate(); err != nil {
		return nil, fmt.Errorf("signing %s: %v", m.Op, err)
	}
	if _, ok := signer.Public().(ed25519.PublicKey); !ok {
		return nil, fmt.Errorf("signing %s: key is a %T, want Ed25519", m.Op, signer.Public())
	}
	var b Body
	b.writePayload(m)
	digest := b.payloadHash()
	signature, err := signer.Sign(rand.Reader, digest[:], crypto.Hash(0))
	if err != nil {
		return nil, fmt.Errorf("signing %s: %v", m.Op, err)
	}
	b.writeBody(m, [ed25519.SignatureSize]byte(signature))
	return &b, nil
}

func (m Message) validate() error {
	if _, ok := opNames[m.Op]; !ok {
		return fmt.Errorf("operation is %08x, want one that carries tokens", uint32(m.Op))
	}
	if m.Contract.IsZero() {
		return errors.New("contract is not given")
	}
	if err := m.Contract.Check(); err != nil {
		return fmt.Errorf("contract: %v", err)
	}
	if m.Excesses.IsZero() {
		return errors.New("address for excesses is not given")
	}
	if err := m.Excesses.Check(); err != nil {
		return fmt.Errorf("address for excesses: %v", err)
	}
	return nil
}

func (b *Body) payload() []byte { return b[payloadCellAt+2 : crcAt] }

func (b *Body) writePayload(m Message) {
	copy(b[payloadCellAt:], payloadDescriptor[:])
	p := b.payload()
	binary.BigEndian.PutUint32(p, uint32(m.Op))
	binary.BigEndian.PutUint64(p[4:], m.QueryID)
	binary.BigEndian.PutUint64(p[12:], m.Tokens)
	end := putAddress(p, opBits+queryBits+tokenBits, m.Contract)
	p[end/8] |= 0x80 >> (end % 8) // completion tag of a cell that ends inside a byte
}

func (b *Body) writeBody(m Message, signature [ed25519.SignatureSize]byte) {
	copy(b[:], header[:])
	copy(b[bodyCellAt:], bodyDescriptor[:])
	d := b[bodyCellAt+2 : payloadCellAt-1]
	binary.BigEndian.PutUint32(d, uint32(m.Op))
	binary.BigEndian.PutUint64(d[4:], m.QueryID)
	at := putAddress(d, opBits+queryBits, m.Excesses)
	end := putBytes(d, at, signature[:])
	d[end/8] |= 0x80 >> (end % 8)
	b[payloadCellAt-1] = payloadIndex
	binary.LittleEndian.PutUint32(b[crcAt:], crc32.Checksum(b[:crcAt], castagnoli))
}

// payloadHash is the representation hash of the payload's cell. It has no references, so its representation is what
// stands in the bag: descriptors and data.
func (b *Body) payloadHash() [32]byte { return sha256.Sum256(b[payloadCellAt:crcAt]) }

// Hash returns the representation hash of the whole body's cell, the name that explorers show.
func (b *Body) Hash() [32]byte {
	representation := make([]byte, 0, 2+bodyBytes+2+32)
	representation = append(representation, b[bodyCellAt:payloadCellAt-1]...)
	representation = append(representation, 0, 0) // depth of the payload's cell
	payload := b.payloadHash()
	return sha256.Sum256(append(representation, payload[:]...))
}

// putAddress writes an addr_std at bit position at of zeroed bytes and returns the position after it.
func putAddress(dst []byte, at int, a ton.Address) int {
	dst[at/8] |= 0x80 >> (at % 8) // addr_std$10, then the bit that says there is no anycast
	at = putBytes(dst, at+3, []byte{byte(a.Workchain)})
	return putBytes(dst, at, a.Account[:])
}

// putBytes writes src at bit position at of zeroed bytes and returns the position after it.
func putBytes(dst []byte, at int, src []byte) int {
	i, shift := at/8, at%8
	for _, v := range src {
		dst[i] |= v >> shift
		i++
		if shift != 0 {
			dst[i] |= v << (8 - shift)
		}
	}
	return at + 8*len(src)
}
