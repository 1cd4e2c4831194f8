// Package secret is the one secret of a guest, and the keys that follow from it. SECRET.md beside this file specifies the
// derivation, which init, keeper and later releases must agree on for as long as guests live.
//
//	scope, err := secret.ScopeOf(identity, s.Instance())
//	key := secret.DeriveSigner(s, secret.RoleClaim, scope)
//
// init takes the secret from the platform that sealed it and hands it to the keeper; what a statement says of it are its
// digest and public keys. What this package does not promise: that memory which held a secret was never copied by the Go
// runtime or by a device's driver.
package secret

import (
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// Size is the length of a Secret in bytes.
const Size = 32

// ErrSealed says that a platform holds the secret and keeps it: another image or identity is running than those that it was
// sealed for, or it has been taken out in this boot already.
var ErrSealed = errors.New("the secret stays sealed: another image or identity, or keys already released")

// errRedacted answers every attempt to encode a secret.
var errRedacted = errors.New("a secret has no encoding")

// Secret is the sealed secret of a guest, from which every lasting key comes. It prints as "[secret]" under every verb,
// has no encoding, and can't be compared with ==. It is handed around by pointer, so that Wipe leaves no copy behind.
type Secret struct {
	_ [0]func() // makes == a compile error
	b [Size]byte
}

// New copies a secret out of raw, which the caller should clear afterwards. An all-zero secret is refused: it is
// what a failed read leaves.
func New(raw []byte) (*Secret, error) {
	if len(raw) != Size {
		return nil, fmt.Errorf("taking secret: %d bytes, want %d", len(raw), Size)
	}
	if subtle.ConstantTimeCompare(raw, make([]byte, Size)) == 1 {
		return nil, errors.New("taking secret: every byte is zero")
	}
	s := new(Secret)
	copy(s.b[:], raw)
	return s, nil
}

// Random makes a new secret.
func Random() (*Secret, error) {
	var raw [Size]byte
	defer clear(raw[:])
	if _, err := rand.Read(raw[:]); err != nil {
		return nil, fmt.Errorf("making secret: %v", err)
	}
	return New(raw[:])
}

// Expose calls use with the secret's own bytes. They must not be kept past the call.
func (s *Secret) Expose(use func(raw []byte)) { use(s.b[:]) }

// Equal reports whether two secrets are the same, in a time that does not depend on them.
func (s *Secret) Equal(t *Secret) bool { return subtle.ConstantTimeCompare(s.b[:], t.b[:]) == 1 }

// Wipe overwrites the secret with zeros.
func (s *Secret) Wipe() { clear(s.b[:]) }

// Format writes "[secret]" whatever the verb.
func (s Secret) Format(f fmt.State, _ rune) { io.WriteString(f, "[secret]") }

// LogValue gives loggers the same word.
func (s Secret) LogValue() slog.Value { return slog.StringValue("[secret]") }

// MarshalText always fails: no encoder may write a secret.
func (s Secret) MarshalText() ([]byte, error) { return nil, errRedacted }

// MarshalBinary always fails: no encoder may write a secret.
func (s Secret) MarshalBinary() ([]byte, error) { return nil, errRedacted }
