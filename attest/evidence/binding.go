package evidence

import (
	"crypto/ed25519"
	"crypto/sha512"
	"fmt"

	"chrysalis/measure/pubkey"
)

// Binding stands between quote and statement in a TD with COCOON's public identity: report data is the hash of a key there, as the reference
// has it, and the key signs the statement. The zero Binding is none.
type Binding struct {
	// Key is of the program that makes statements. It was made in this boot, and no other process of the guest has it.
	Key       pubkey.Ed25519
	Signature [ed25519.SignatureSize]byte
}

// bindingBytes is the length of an encoded binding: key and signature.
const bindingBytes = ed25519.PublicKeySize + ed25519.SignatureSize

// bindingLabel opens what the key signs, so that it is nothing else that an Ed25519 key signs: a TLS handshake, a certificate, a receipt.
const bindingLabel = "chrysalis statement under a key v1\x00"

func bound(s Statement) []byte {
	data := ReportData(s)
	return append([]byte(bindingLabel), data[:]...)
}

// Bind has the key sign a statement.
func Bind(key ed25519.PrivateKey, s Statement) Binding {
	return Binding{Key: pubkey.Of(key), Signature: [ed25519.SignatureSize]byte(ed25519.Sign(key, bound(s)))}
}

// Binds reports whether the key signed the statement. It says nothing of the key: report data does.
func (b Binding) Binds(s Statement) bool { return b.Key.Verify(bound(s), b.Signature[:]) }

// ReportData is what the hardware signs for a key: SHA-512 of its 32 bytes.
func (b Binding) ReportData() [64]byte { return sha512.Sum512(b.Key[:]) }

// ReportData is what the hardware must have signed for the evidence: the hash of the key that signs the statement where one does, and else
// the statement's own.
func (e *Evidence) ReportData() [64]byte {
	if e.Binding != (Binding{}) {
		return e.Binding.ReportData()
	}
	return ReportData(e.Statement)
}

func (b Binding) encode() []byte {
	if b == (Binding{}) {
		return nil
	}
	return append(append([]byte{}, b.Key[:]...), b.Signature[:]...)
}

func decodeBinding(data []byte) (b Binding, err error) {
	if len(data) != bindingBytes {
		return b, fmt.Errorf("%d bytes, want %d", len(data), bindingBytes)
	}
	copy(b.Signature[:], data[copy(b.Key[:], data):])
	if b.Key.IsZero() {
		return Binding{}, fmt.Errorf("the key is zeros, want one")
	}
	return b, nil
}
