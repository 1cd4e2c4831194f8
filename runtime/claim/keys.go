package claim

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// SecretSize is the length of a Secret in bytes.
const SecretSize = 32

// errRedacted answers every attempt to encode a secret.
var errRedacted = errors.New("a secret has no encoding")

// Secret is the sealed secret of a guest, from which every lasting key comes. It prints as "[secret]" under every verb,
// has no encoding, and can't be compared with ==. It is handed around by pointer, so that Wipe leaves no copy behind.
type Secret struct {
	_ [0]func() // makes == a compile error
	b [SecretSize]byte
}

// NewSecret copies a secret out of raw, which the caller should clear afterwards. An all-zero secret is refused: it is
// what a failed read leaves.
func NewSecret(raw []byte) (*Secret, error) {
	if len(raw) != SecretSize {
		return nil, fmt.Errorf("taking secret: %d bytes, want %d", len(raw), SecretSize)
	}
	if subtle.ConstantTimeCompare(raw, make([]byte, SecretSize)) == 1 {
		return nil, errors.New("taking secret: every byte is zero")
	}
	s := new(Secret)
	copy(s.b[:], raw)
	return s, nil
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

// Digest returns the value by which a statement names the secret: it says whether two guests hold the same one, and
// nothing else about it.
func (s *Secret) Digest() [32]byte { return s.expand(labelDigest) }

// Instance returns the id of the guest's instance, which the secret fixes.
func (s *Secret) Instance() (id [16]byte) {
	seed := s.expand(labelInstance)
	copy(id[:], seed[:])
	return id
}

// Role says what a derived key is for. A key of one role never serves another.
type Role string

// The roles.
const (
	RoleClaim   Role = "claim"   // signs COCOON messages
	RoleReceipt Role = "receipt" // signs receipts
	RoleJournal Role = "journal" // encrypts the journal
)

// Scope is the place in which a derived key counts. COCOON's claims bind neither network nor root contract, so one key
// must never serve two of them.
type Scope struct {
	Network   string // name as in the measured identity
	Zerostate [32]byte
	Root      string // root contract, raw form as in the measured identity
	Instance  [16]byte
}

// HKDF labels. Each ends in a line of its own, so that none is the beginning of another with its data.
const (
	labelKey      = "chrysalis key v1\n"
	labelInstance = "chrysalis instance v1\n"
	labelDigest   = "chrysalis secret digest v1\n"
)

// Derive returns the 32-byte seed of one role in one scope: HKDF-SHA256 without salt over the secret, its info being
// the label, then role, network and root contract, each preceded by its length in one byte, zerostate and instance.
// It panics on a role or scope that isn't filled in: a key of an unfinished scope would serve every such scope.
func Derive(s *Secret, role Role, scope Scope) [32]byte {
	if role != RoleClaim && role != RoleReceipt && role != RoleJournal {
		panic("claim: unknown role " + string(role))
	}
	if scope.Network == "" || scope.Root == "" || scope.Zerostate == [32]byte{} || scope.Instance == [16]byte{} {
		panic("claim: scope is not filled in")
	}
	info := []byte(labelKey)
	for _, part := range []string{string(role), scope.Network, scope.Root} {
		if len(part) > 255 {
			panic("claim: part of a scope is longer than 255 bytes")
		}
		info = append(append(info, byte(len(part))), part...)
	}
	info = append(append(info, scope.Zerostate[:]...), scope.Instance[:]...)
	return s.expand(string(info))
}

// DeriveSigner is Derive for the roles that sign.
func DeriveSigner(s *Secret, role Role, scope Scope) ed25519.PrivateKey {
	seed := Derive(s, role, scope)
	defer clear(seed[:])
	return ed25519.NewKeyFromSeed(seed[:])
}

func (s *Secret) expand(info string) (out [32]byte) {
	key, err := hkdf.Key(sha256.New, s.b[:], nil, info, len(out))
	if err != nil {
		panic(err) // only an impossible length fails
	}
	copy(out[:], key)
	clear(key)
	return out
}
