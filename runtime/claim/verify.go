package claim

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"chrysalis/attest/check"
	"chrysalis/measure/pubkey"
	"chrysalis/measure/ton"
)

// rejectf makes the errors by which Parse and Verify refuse bytes. Any other error is a mistake of the caller: a policy that
// is not filled in.
func rejectf(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{check.ErrRejected}, args...)...)
}

// Policy says whose messages are good. The zero Policy accepts nothing.
type Policy struct {
	Key      pubkey.Ed25519 // of the proxy, whose role an attested guest plays
	Contract ton.Address    // the one contract that the message must be for
	// AnyContract accepts a message for any contract. The message is then known to be signed, but not to be for the
	// contract that one has in mind.
	AnyContract bool
}

// Untrusted is a well-formed message with a signature that nobody has checked.
type Untrusted struct {
	Message   Message
	Signature [ed25519.SignatureSize]byte
	digest    [32]byte
}

// Parse reads a message without believing it. Each message has one encoding here, which ends in a check sum, and the same
// bytes without it, as TON's own libraries write them. Parse refuses every other bag of cells, among them one with an
// index, with more roots or cells, or with bytes behind it. The error wraps check.ErrRejected.
func Parse(untrusted []byte) (*Untrusted, error) {
	f, b, err := withCheckSum(untrusted)
	if err != nil {
		return nil, err
	}
	header := f.header()
	if !bytes.Equal(b[:4], header[:4]) {
		return nil, rejectf("body begins with %x, want the bag of cells' magic %x", b[:4], header[:4])
	}
	if got, want := binary.LittleEndian.Uint32(b[f.crcAt():]), crc32.Checksum(b[:f.crcAt()], castagnoli); got != want {
		return nil, rejectf("check sum is %08x, want %08x", got, want)
	}
	if !bytes.Equal(b[:headerBytes], header[:]) {
		return nil, rejectf("header of the bag of cells is %x, want %x", b[:headerBytes], header)
	}
	if got := [2]byte(b[bodyCellAt:]); got != bodyDescriptor {
		return nil, rejectf("body's cell has descriptors %x, want %x", got, bodyDescriptor)
	}
	if got := b[payloadCellAt-1]; got != payloadIndex {
		return nil, rejectf("body's reference is %d, want %d", got, payloadIndex)
	}
	if got := [2]byte(b[payloadCellAt:]); got != f.payload {
		return nil, rejectf("payload's cell has descriptors %x, want %x", got, f.payload)
	}
	outer, inner := b[bodyCellAt+2:], payload(b)
	u := &Untrusted{digest: payloadHash(b)}
	m := &u.Message
	m.Op = Op(binary.BigEndian.Uint32(inner))
	m.QueryID = binary.BigEndian.Uint64(inner[4:])
	at := opBits + queryBits
	if f.counts {
		m.Tokens = binary.BigEndian.Uint64(inner[12:])
		at += tokenBits
	}
	m.Contract = getAddress(inner, at)
	m.Excesses = getAddress(outer, opBits+queryBits)
	getBytes(u.Signature[:], outer, opBits+queryBits+addressBits)
	if got := Op(binary.BigEndian.Uint32(outer)); got != m.Op {
		return nil, rejectf("operation outside the signature is %08x, inside %08x", uint32(got), uint32(m.Op))
	}
	if got := binary.BigEndian.Uint64(outer[4:]); got != m.QueryID {
		return nil, rejectf("query id outside the signature is %d, inside %d", got, m.QueryID)
	}
	if err := m.validate(); err != nil {
		return nil, rejectf("%v", err)
	}
	if m.Op.Closes() == f.counts {
		return nil, rejectf("%s has %d bytes, want %d", m.Op, f.size, formOf(m.Op).size)
	}
	// What is left to differ are the bits that no field holds: address tags and completion tags.
	again := make([]byte, f.size)
	writePayload(again, *m)
	writeBody(again, *m, u.Signature)
	if !bytes.Equal(again, b) {
		return nil, rejectf("addresses or ends of cells are not as the layout has them")
	}
	return u, nil
}

// withCheckSum tells the layout by the length, and returns the body with a check sum, which it computes where the bytes have none.
func withCheckSum(untrusted []byte) (form, []byte, error) {
	for _, f := range []form{countForm, closeForm} {
		switch len(untrusted) {
		case f.size:
			return f, untrusted, nil
		case f.crcAt():
			header := f.header()
			if got, want := untrusted[flagsAt], header[flagsAt]&^flagCheckSum; got != want {
				return f, nil, rejectf("flags of %d bytes are %#02x, want %#02x, no check sum", f.crcAt(), got, want)
			}
			b := append(make([]byte, 0, f.size), untrusted...)
			b[flagsAt] |= flagCheckSum
			return f, binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli)), nil
		}
	}
	return form{}, nil, rejectf("body has %d bytes, want %d, or %d for a close, each 4 less without check sum", len(untrusted), BodySize,
		CloseSize)
}

// Verify parses a message and accepts it if the policy's key signed it for the policy's contract. The error wraps
// check.ErrRejected when the message is not one that the policy accepts.
func Verify(untrusted []byte, p Policy) (*Message, error) {
	if p.Key.IsZero() {
		return nil, errors.New("verifying message: the policy must name a key")
	}
	if p.Contract.IsZero() != p.AnyContract {
		return nil, errors.New("verifying message: the policy must name a contract or accept any, and not both")
	}
	u, err := Parse(untrusted)
	if err != nil {
		return nil, fmt.Errorf("verifying message: %w", err)
	}
	if !p.Key.Verify(u.digest[:], u.Signature[:]) {
		return nil, fmt.Errorf("verifying message: %w", rejectf("signature is not by key %s", p.Key))
	}
	if !p.AnyContract && u.Message.Contract != p.Contract {
		return nil, fmt.Errorf("verifying message: %w", rejectf("contract is %s, want %s", u.Message.Contract, p.Contract))
	}
	m := u.Message
	return &m, nil
}

func getAddress(src []byte, at int) ton.Address {
	var raw [33]byte
	getBytes(raw[:], src, at+3)
	return ton.Address{Workchain: int8(raw[0]), Account: [32]byte(raw[1:])}
}

// getBytes fills dst from bit position at of src.
func getBytes(dst, src []byte, at int) {
	i, shift := at/8, at%8
	for n := range dst {
		dst[n] = src[i] << shift
		i++
		if shift != 0 {
			dst[n] |= src[i] >> (8 - shift)
		}
	}
}
