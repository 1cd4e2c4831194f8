// Package claim makes and judges the signed messages by which COCOON's contracts are paid, and reads and builds the cells of
// those contracts: their parameters, their data, and the addresses that follow from both.
//
// A message is built from a typed request and signed as a TON cell that this package makes itself; nothing here signs a
// hash that somebody else computed. The kinds that carry a token count share one layout, and the two that close a proxy share
// another, both specified in CLAIM.md beside this file. Each has a fixed size, so a message is written and read at fixed offsets
// and there is no cell parser.
//
// The common path: derive a key (runtime/secret), Sign a Message, and on the other side Verify its bytes against a Policy. Of a
// contract: ParseParams of the root's data, then Params.Client and its Address.
//
// What this package does not promise: that a count is true or rises, or that a message does what it says when it lands. Whoever
// signs keeps the ledger and knows the chain; a contract accepts a count only once.
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

// The operations of a proxy, which carry no count. The second pays all that the proxy has, clients' deposits included, to its owner.
const (
	ProxyClose         Op = 0x636a4391 // begins the proxy's delay
	ProxyCloseComplete Op = 0xe511abc7 // ends it
)

// MaxTokens bounds every count: at the highest price the contracts' arithmetic then stays far below what their cells hold, and a
// contract can't be made useless by a count near 2^64.
const MaxTokens = 1 << 62

var opNames = map[Op]string{
	WorkerPayout: "worker-payout", WorkerLastPayout: "worker-last-payout",
	ClientCharge: "client-charge", ClientRefund: "client-refund",
	ProxyClose: "proxy-close", ProxyCloseComplete: "proxy-close-complete",
}

func (o Op) String() string {
	if name, ok := opNames[o]; ok {
		return name
	}
	return fmt.Sprintf("op %08x", uint32(o))
}

// Closes reports whether the operation is one of a proxy's end, which carries no count.
func (o Op) Closes() bool { return o == ProxyClose || o == ProxyCloseComplete }

// Message is what a signed message says.
type Message struct {
	Op       Op
	QueryID  uint64      // random; no replay guard
	Tokens   uint64      // weighted tokens since the contract began, never of one answer alone; zero where Op closes
	Contract ton.Address // whom the message is for; it commits to code, parameters and parties
	// Excesses is where the carrier's change goes. The signature does not cover it: whoever carries the message may
	// write another, and hurts only himself.
	Excesses ton.Address
}

// Body is a signed message with a count as it travels: a bag of cells with check sum, always BodySize bytes.
type Body [BodySize]byte

// CloseBody is a signed message that closes, in the same way.
type CloseBody [CloseSize]byte

// Layout in bits (CLAIM.md).
const (
	opBits      = 32
	queryBits   = 64
	tokenBits   = 64
	addressBits = 2 + 1 + 8 + 256 // addr_std$10, no anycast, workchain, account
	countBits   = opBits + queryBits + tokenBits + addressBits
	closeBits   = opBits + queryBits + addressBits
	bodyBits    = opBits + queryBits + addressBits + 8*ed25519.SignatureSize
)

// Layout in bytes.
const (
	bodyBytes  = (bodyBits + 7) / 8
	countBytes = (countBits + 7) / 8
	closeBytes = (closeBits + 7) / 8

	headerBytes   = 11 // magic, flags, sizes, one root
	bodyCellAt    = headerBytes
	payloadCellAt = bodyCellAt + 2 + bodyBytes + 1
	crcBytes      = 4

	flagsAt      = 4    // in the header
	flagCheckSum = 0x40 // a check sum ends the bag

	// BodySize is the length of every Body.
	BodySize = payloadCellAt + 2 + countBytes + crcBytes
	// CloseSize is the length of every CloseBody.
	CloseSize = payloadCellAt + 2 + closeBytes + crcBytes
)

// form is what differs between the two layouts.
type form struct {
	size    int  // bytes with check sum
	counts  bool // the payload has a count
	payload [2]byte
}

// The second descriptor of a cell is twice its whole bytes plus one for a part of a byte; the first is the count of references.
var (
	countForm      = form{BodySize, true, [2]byte{0, countBits/8*2 + 1}}
	closeForm      = form{CloseSize, false, [2]byte{0, closeBits/8*2 + 1}}
	bodyDescriptor = [2]byte{1, bodyBits/8*2 + 1}
)

func formOf(o Op) form {
	if o.Closes() {
		return closeForm
	}
	return countForm
}

func (f form) crcAt() int { return f.size - crcBytes }

// header begins a bag: magic; flags "has CRC" with one byte for an index; one byte for an offset; two cells; one root; none absent; the
// cells' bytes; the root's index.
func (f form) header() [headerBytes]byte {
	return [headerBytes]byte{0xb5, 0xee, 0x9c, 0x72, 0x41, 1, 2, 1, 0, byte(f.crcAt() - headerBytes), 0}
}

// payloadIndex is the reference of the body's cell: the second cell of the bag.
const payloadIndex = 1

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Sign signs a message that carries a count, with an Ed25519 key. The signer gets the hash of the payload's cell, as the contracts
// want it; that hash is computed here from the fields of m and from nothing else.
func Sign(signer crypto.Signer, m Message) (*Body, error) {
	if m.Op.Closes() {
		return nil, fmt.Errorf("signing %s: it carries no count, want SignClose", m.Op)
	}
	b := new(Body)
	if err := sign(signer, m, b[:]); err != nil {
		return nil, err
	}
	return b, nil
}

// SignClose signs a message that closes a proxy. A complete close hands the deposits of all clients to the proxy's owner: the caller must
// have seen them settled.
func SignClose(signer crypto.Signer, m Message) (*CloseBody, error) {
	if !m.Op.Closes() {
		return nil, fmt.Errorf("signing %s: it closes no proxy, want Sign", m.Op)
	}
	b := new(CloseBody)
	if err := sign(signer, m, b[:]); err != nil {
		return nil, err
	}
	return b, nil
}

func sign(signer crypto.Signer, m Message, b []byte) error {
	if err := m.validate(); err != nil {
		return fmt.Errorf("signing %s: %v", m.Op, err)
	}
	if _, ok := signer.Public().(ed25519.PublicKey); !ok {
		return fmt.Errorf("signing %s: key is a %T, want Ed25519", m.Op, signer.Public())
	}
	writePayload(b, m)
	digest := payloadHash(b)
	signature, err := signer.Sign(rand.Reader, digest[:], crypto.Hash(0))
	if err != nil {
		return fmt.Errorf("signing %s: %v", m.Op, err)
	}
	writeBody(b, m, [ed25519.SignatureSize]byte(signature))
	return nil
}

func (m Message) validate() error {
	if _, ok := opNames[m.Op]; !ok {
		return fmt.Errorf("operation is %08x, want one of a payment or a close", uint32(m.Op))
	}
	if m.Tokens > MaxTokens {
		return fmt.Errorf("count is %d, want at most %d", m.Tokens, uint64(MaxTokens))
	}
	if m.Op.Closes() && m.Tokens != 0 {
		return fmt.Errorf("count is %d, and a close carries none", m.Tokens)
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

// payload returns the payload's data in a bag.
func payload(b []byte) []byte { return b[payloadCellAt+2 : len(b)-crcBytes] }

func writePayload(b []byte, m Message) {
	f := formOf(m.Op)
	copy(b[payloadCellAt:], f.payload[:])
	p := payload(b)
	binary.BigEndian.PutUint32(p, uint32(m.Op))
	binary.BigEndian.PutUint64(p[4:], m.QueryID)
	at := opBits + queryBits
	if f.counts {
		binary.BigEndian.PutUint64(p[12:], m.Tokens)
		at += tokenBits
	}
	end := putAddress(p, at, m.Contract)
	p[end/8] |= 0x80 >> (end % 8) // completion tag of a cell that ends inside a byte
}

func writeBody(b []byte, m Message, signature [ed25519.SignatureSize]byte) {
	f := formOf(m.Op)
	header := f.header()
	copy(b, header[:])
	copy(b[bodyCellAt:], bodyDescriptor[:])
	d := b[bodyCellAt+2 : payloadCellAt-1]
	binary.BigEndian.PutUint32(d, uint32(m.Op))
	binary.BigEndian.PutUint64(d[4:], m.QueryID)
	at := putAddress(d, opBits+queryBits, m.Excesses)
	end := putBytes(d, at, signature[:])
	d[end/8] |= 0x80 >> (end % 8)
	b[payloadCellAt-1] = payloadIndex
	binary.LittleEndian.PutUint32(b[f.crcAt():], crc32.Checksum(b[:f.crcAt()], castagnoli))
}

// payloadHash is the representation hash of the payload's cell. It has no references, so its representation is what
// stands in the bag: descriptors and data.
func payloadHash(b []byte) [32]byte { return sha256.Sum256(b[payloadCellAt : len(b)-crcBytes]) }

// Hash returns the representation hash of the whole body's cell, the name that explorers show.
func (b *Body) Hash() [32]byte { return bodyHash(b[:]) }

// Hash returns the representation hash of the whole body's cell.
func (b *CloseBody) Hash() [32]byte { return bodyHash(b[:]) }

func bodyHash(b []byte) [32]byte {
	representation := make([]byte, 0, 2+bodyBytes+2+32)
	representation = append(representation, b[bodyCellAt:payloadCellAt-1]...)
	representation = append(representation, 0, 0) // depth of the payload's cell
	payload := payloadHash(b)
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
