// Package pubkey has the one form in which a public key stands in policies, statements, lists and messages.
//
// The common path: UnmarshalText or Of, then Verify.
//
// What this package does not promise: that a key is anybody's. Who holds it is said by whoever names it.
package pubkey

import (
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
)

// Ed25519 is an Ed25519 public key. Its text form is 64 lower-case hexadecimal digits and nothing else. The zero Ed25519 is
// the absence of a key: nothing verifies under it.
type Ed25519 [ed25519.PublicKeySize]byte

// Of returns the public half of a key.
func Of(private ed25519.PrivateKey) Ed25519 {
	return Ed25519(private.Public().(ed25519.PublicKey))
}

// Parse reads the text form.
func Parse(text string) (Ed25519, error) {
	var k Ed25519
	err := k.UnmarshalText([]byte(text))
	return k, err
}

// IsZero reports whether there is no key.
func (k Ed25519) IsZero() bool { return k == Ed25519{} }

// Public returns the key as Go's library has it.
func (k Ed25519) Public() ed25519.PublicKey { return ed25519.PublicKey(k[:]) }

// Verify reports whether the key signed message. Zeros are the encoding of a point of small order, under which signatures
// can be made without any secret, so they are refused before the arithmetic.
func (k Ed25519) Verify(message, signature []byte) bool {
	return !k.IsZero() && ed25519.Verify(k[:], message, signature)
}

func (k Ed25519) String() string { return hex.EncodeToString(k[:]) }

// MarshalText returns the 64 hexadecimal digits.
func (k Ed25519) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText accepts exactly 64 lower-case hexadecimal digits, not all of them zeros.
func (k *Ed25519) UnmarshalText(text []byte) error {
	if len(text) != hex.EncodedLen(len(k)) {
		return fmt.Errorf("key has %d characters, want %d", len(text), hex.EncodedLen(len(k)))
	}
	var got Ed25519
	if _, err := hex.Decode(got[:], text); err != nil {
		return fmt.Errorf("key: %v", err)
	}
	if got.String() != string(text) {
		return fmt.Errorf("key %q is not in lower case", text)
	}
	if got.IsZero() {
		return errors.New("key is zero, want an Ed25519 public key")
	}
	*k = got
	return nil
}
