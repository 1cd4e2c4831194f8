package api

import (
	"encoding/base64"
	"errors"
	"strings"
)

// Key is what a client shows where charges are settled on chain: which contract pays, of workchain 0, and its secret, whose SHA-256 is in that
// contract. As a text it goes into the header that every SDK fills in from an API key: Authorization: Bearer, or X-Api-Key.
type Key struct {
	Contract [32]byte // account
	Secret   [32]byte
}

// keyPrefix opens the text of a key.
const keyPrefix = "ck-"

// String returns the text of a key, which is a secret.
func (k Key) String() string {
	return keyPrefix + base64.RawURLEncoding.EncodeToString(append(k.Contract[:], k.Secret[:]...))
}

var errNoKey = errors.New("it is no key: want " + keyPrefix + " and 86 characters")

// ParseKey reads a key, of which there is one text each. The error says nothing of what was read.
func ParseKey(text string) (k Key, err error) {
	coded, ok := strings.CutPrefix(text, keyPrefix)
	if !ok || len(coded) != base64.RawURLEncoding.EncodedLen(len(k.Contract)+len(k.Secret)) {
		return Key{}, errNoKey
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(coded)
	if err != nil || len(raw) != len(k.Contract)+len(k.Secret) {
		return Key{}, errNoKey
	}
	return Key{[32]byte(raw), [32]byte(raw[32:])}, nil
}
