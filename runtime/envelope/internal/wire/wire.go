// Package wire is the layout of envelopes, for both ends: header and associated data, the message inside, padding, and the chunks of
// an answer. It holds no key for longer than a call and judges nobody. ENVELOPE.md in the folder above is the specification.
package wire

import (
	"crypto/hpke"
	"encoding/binary"
	"fmt"
	"math"

	"chrysalis/attest/evidence"
)

// What travels names itself so.
const (
	RequestType  = "application/vnd.chrysalis.sealed-request"
	ResponseType = "application/vnd.chrysalis.sealed-response"
	// KeyHeader carries the key's id in the clear, 16 lower-case hexadecimal digits, so that a balancer can route by it.
	KeyHeader = "Chrysalis-Key"
)

const (
	magic         = "CHRYENV1"
	requestLabel  = "chrysalis sealed request v1\x00"
	responseLabel = "chrysalis sealed response v1\x00"

	// HeaderBytes is the length of a header, encBytes of an encapsulated key (ML-KEM-768 ciphertext, X25519 key), tagBytes of AES-GCM's tag.
	HeaderBytes = len(magic) + 3*2 + 8 + 8 + 32 + 2*8 + 16
	encBytes    = 1120
	tagBytes    = 16

	// MaxWindow bounds how long an envelope may be good for, in seconds.
	MaxWindow = 300
)

// The one suite: key encapsulation, key derivation, encryption.
var (
	kem  = hpke.MLKEM768X25519()
	kdf  = hpke.HKDFSHA256()
	aead = hpke.AES256GCM()
)

// Header stands in the clear before a sealed request, and everything in it is authenticated.
type Header struct {
	Key                 evidence.KeyID
	Epoch               uint64
	Instance            [32]byte
	NotBefore, NotAfter uint64 // Unix seconds
	ID                  [16]byte
}

func (h Header) encode() []byte {
	b := append(make([]byte, 0, HeaderBytes), magic...)
	for _, id := range []uint16{kem.ID(), kdf.ID(), aead.ID()} {
		b = binary.BigEndian.AppendUint16(b, id)
	}
	b = binary.BigEndian.AppendUint64(append(b, h.Key[:]...), h.Epoch)
	b = append(b, h.Instance[:]...)
	b = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, h.NotBefore), h.NotAfter)
	return append(b, h.ID[:]...)
}

// ParseHeader reads the header of a sealed request. Nothing in it is authentic before Open.
func ParseHeader(sealed []byte) (h Header, err error) {
	if least := HeaderBytes + encBytes + minBucket + tagBytes; len(sealed) < least {
		return h, fmt.Errorf("a sealed request of %d bytes, want at least %d", len(sealed), least)
	}
	if string(sealed[:len(magic)]) != magic {
		return h, fmt.Errorf("it begins with %q, want %q", sealed[:len(magic)], magic)
	}
	b := sealed[len(magic):]
	for _, want := range []uint16{kem.ID(), kdf.ID(), aead.ID()} {
		if got := binary.BigEndian.Uint16(b); got != want {
			return h, fmt.Errorf("algorithm %#04x, want %#04x", got, want)
		}
		b = b[2:]
	}
	h.Key, h.Epoch, b = evidence.KeyID(b), binary.BigEndian.Uint64(b[8:]), b[16:]
	h.Instance, b = [32]byte(b), b[32:]
	h.NotBefore, h.NotAfter = binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])
	h.ID = [16]byte(b[16:])
	return h, nil
}

// associated is what is authenticated beside the message: the header as it stands, and what the request line around it says.
func associated(header []byte, method, path string) ([]byte, error) {
	b := append(make([]byte, 0, len(header)+4+len(method)+len(path)), header...)
	for _, s := range []string{method, path} {
		if len(s) == 0 || len(s) > math.MaxUint16 {
			return nil, fmt.Errorf("method or path of %d bytes, want 1 to %d", len(s), math.MaxUint16)
		}
		b = append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
	}
	return b, nil
}

// exporter is what both ends of a request can export a secret from.
type exporter interface {
	Export(context string, length int) ([]byte, error)
}

// Seal seals a request under a header for the guest that holds the key, to travel with this method and path. The secret is that of
// the answer's keys.
func Seal(public []byte, h Header, method, path string, r Request) (sealed []byte, secret Secret, err error) {
	key, err := kem.NewPublicKey(public)
	if err != nil {
		return nil, secret, err
	}
	header := h.encode()
	aad, err := associated(header, method, path)
	if err != nil {
		return nil, secret, err
	}
	plain, err := r.encode()
	defer clear(plain)
	if err != nil {
		return nil, secret, err
	}
	enc, sender, err := hpke.NewSender(key, kdf, aead, append([]byte(requestLabel), header...))
	if err != nil {
		return nil, secret, err
	}
	ciphertext, err := sender.Seal(aad, plain)
	if err != nil {
		return nil, secret, err
	}
	if secret, err = newSecret(sender, enc, aad); err != nil {
		return nil, secret, err
	}
	sealed = append(header, enc...)
	return append(sealed, ciphertext...), secret, nil
}

// Open opens a sealed request that came with this method and path. Its body shares memory with what Request.Wipe overwrites.
func Open(key hpke.PrivateKey, sealed []byte, method, path string) (r *Request, secret Secret, err error) {
	if _, err := ParseHeader(sealed); err != nil {
		return nil, secret, err
	}
	header, enc, ciphertext := sealed[:HeaderBytes], sealed[HeaderBytes:HeaderBytes+encBytes], sealed[HeaderBytes+encBytes:]
	aad, err := associated(header, method, path)
	if err != nil {
		return nil, secret, err
	}
	recipient, err := hpke.NewRecipient(enc, key, kdf, aead, append([]byte(requestLabel), header...))
	if err != nil {
		return nil, secret, fmt.Errorf("it does not open: %v", err)
	}
	plain, err := recipient.Open(aad, ciphertext)
	if err != nil {
		return nil, secret, fmt.Errorf("it does not open: %v", err)
	}
	if r, err = decodeRequest(plain); err != nil {
		clear(plain)
		return nil, secret, err
	}
	r.plain = plain
	secret, err = newSecret(recipient, enc, aad)
	return r, secret, err
}

// newSecret exports the answer's secret, which no other request and no other associated data has.
func newSecret(context exporter, enc, aad []byte) (s Secret, err error) {
	b, err := context.Export(responseLabel+string(aad), len(s.exported))
	if err != nil {
		return s, err
	}
	defer clear(b)
	copy(s.exported[:], b)
	copy(s.enc[:], enc)
	return s, nil
}
