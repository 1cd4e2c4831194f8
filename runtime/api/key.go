package api

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"strings"
)

// Key is what a client shows where charges are settled on chain: which contract pays, of workchain 0, and the contract's secret. As a text it
// goes into the header that every SDK fills in from an API key: Authorization: Bearer, or X-Api-Key.
type Key struct {
	Contract [32]byte // account
	Secret   [32]byte
}

// keyPrefix opens the text of a key; contract and secret follow, each in base64 of the URL's alphabet without padding.
const keyPrefix = "ck-"

var (
	base64URL = base64.RawURLEncoding.Strict()
	partChars = base64URL.EncodedLen(32)
)

// String returns the text of a key, which is a secret.
func (k Key) String() string {
	return keyPrefix + base64URL.EncodeToString(k.Contract[:]) + base64URL.EncodeToString(k.Secret[:])
}

// SecretHash is what the contract has of the secret: SHA-256 of its text, which is the last 43 characters of the key's.
func (k Key) SecretHash() [32]byte {
	return sha256.Sum256([]byte(base64URL.EncodeToString(k.Secret[:])))
}

var errNoKey = errors.New("it is no key: want " + keyPrefix + " and 86 characters")

// ParseKey reads a key, of which there is one text each. The error says nothing of what was read.
func ParseKey(text string) (k Key, err error) {
	coded, ok := strings.CutPrefix(text, keyPrefix)
	if !ok || len(coded) != 2*partChars {
		return Key{}, errNoKey
	}
	for i, part := range []*[32]byte{&k.Contract, &k.Secret} {
		raw, err := base64URL.DecodeString(coded[i*partChars : (i+1)*partChars])
		if err != nil || len(raw) != len(part) {
			return Key{}, errNoKey
		}
		*part = [32]byte(raw)
	}
	return k, nil
}

// MaxKeyName bounds the name of a key that is derived from a contract's own.
const MaxKeyName = 16

// CheckKeyName refuses a name that is empty, longer than MaxKeyName, or of other characters than a to z, 0 to 9 and the hyphen.
func CheckKeyName(name string) error {
	if name == "" || len(name) > MaxKeyName || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return errors.New("a key's name has 1 to 16 characters of a to z, 0 to 9 and -")
	}
	return nil
}

// Derive returns the key of that name under a contract's own key: HMAC-SHA256 with the text of the contract's secret over a label, the contract and the name.
// Who has it can't find the contract's own. A guest takes it once it was told of it, with a cap.
func (k Key) Derive(name string) Key {
	mac := hmac.New(sha256.New, []byte(base64URL.EncodeToString(k.Secret[:])))
	mac.Write(append(append([]byte("chrysalis client key v1\n"), k.Contract[:]...), name...))
	return Key{Contract: k.Contract, Secret: [32]byte(mac.Sum(nil))}
}
