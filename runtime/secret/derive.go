package secret

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"chrysalis/measure/config"
)

// Digest returns the value by which a statement names the secret: it says whether two guests hold the same one, and
// nothing else about it.
func (s *Secret) Digest() [32]byte { return s.expand(labelDigest) }

// Moved returns the proof that whoever shows it has the secret, which went from one custodian to another under that number.
func (s *Secret) Moved(number uint64) [32]byte {
	return s.expand(string(binary.LittleEndian.AppendUint64([]byte(labelMoved), number)))
}

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
	RoleLoans   Role = "loans"   // encrypts a custodian's journal
)

// Scope is the place in which a derived key counts. COCOON's claims bind neither network nor root contract, so one key
// must never serve two of them.
type Scope struct {
	Network   string // name as in the measured identity
	Zerostate [32]byte
	Root      string // root contract, raw form as in the measured identity
	Instance  [16]byte
}

// ScopeOf is the one way from a guest's identity and instance to the scope of its keys. init puts the public keys of this
// scope into every statement, and the keeper signs with it: two scopes would be a key that no statement names.
func ScopeOf(identity config.Identity, instance [16]byte) (Scope, error) {
	zerostate, ok := identity.Network.Zerostate()
	if !ok {
		return Scope{}, fmt.Errorf("scope of keys: network %.40q has no zerostate", identity.Network)
	}
	if identity.RootContract.IsZero() || instance == [16]byte{} {
		return Scope{}, errors.New("scope of keys: no root contract or no instance")
	}
	return Scope{Network: string(identity.Network), Zerostate: zerostate, Root: identity.RootContract.String(), Instance: instance}, nil
}

// HKDF labels. Each ends in a line of its own, so that none is the beginning of another with its data.
const (
	labelKey      = "chrysalis key v1\n"
	labelInstance = "chrysalis instance v1\n"
	labelDigest   = "chrysalis secret digest v1\n"
	labelMoved    = "chrysalis custody moved v1\n" // followed by the number
)

// Derive returns the 32-byte seed of one role in one scope: HKDF-SHA256 without salt over the secret, its info being
// the label, then role, network and root contract, each preceded by its length in one byte, zerostate and instance.
// It panics on a role or scope that isn't filled in: a key of an unfinished scope would serve every such scope.
func Derive(s *Secret, role Role, scope Scope) [32]byte {
	if role != RoleClaim && role != RoleReceipt && role != RoleJournal && role != RoleLoans {
		panic("secret: unknown role " + string(role))
	}
	if scope.Network == "" || scope.Root == "" || scope.Zerostate == [32]byte{} || scope.Instance == [16]byte{} {
		panic("secret: scope is not filled in")
	}
	info := []byte(labelKey)
	for _, part := range []string{string(role), scope.Network, scope.Root} {
		if len(part) > 255 {
			panic("secret: part of a scope is longer than 255 bytes")
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
