package api

import (
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
