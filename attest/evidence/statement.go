package evidence

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"fmt"

	"chrysalis/measure/pubkey"
)

// Statement is what a guest says about itself: the hardware signs its hash as report data, and nothing in it is true
// before Verify has accepted the evidence around it. EVIDENCE.md fixes the layout.
type Statement struct {
	NonceRoot  [32]byte       // root of the tree of challenges that this quote answers; zeros in epoch evidence
	TLSKey     [32]byte       // SHA-256 of the SubjectPublicKeyInfo that the guest's TLS certificate carries
	HPKEKey    [32]byte       // SHA-256 of the HPKE public key, zeros without one
	ReceiptKey pubkey.Ed25519 // signs receipts
	ClaimKey   pubkey.Ed25519 // signs claims
	Epoch      uint64         // number of the key set, counted from the guest's start
	NotAfter   uint64         // Unix seconds until which TLS and HPKE key are used
	SecretHash [32]byte       // SHA-256 of the sealed secret's public commitment
	ConfigHash [32]byte       // SHA-256 of the measured config
	LogHead    [32]byte       // head of the runtime log
	GPUDigest  [32]byte       // SHA-256 of the GPU evidence, zeros without a GPU
}

// Request is what the one who speaks TLS brings to a statement. The owner of the device adds the rest from its own state, so
// that nobody can have a key, config or log attested that is not the guest's.
type Request struct {
	NonceRoot [32]byte // root of the tree of challenges; zeros for epoch evidence
	TLSKey    [32]byte // SHA-256 of the SubjectPublicKeyInfo
	HPKEKey   [32]byte // SHA-256 of the HPKE public key, zeros without one
	Epoch     uint64
	NotAfter  uint64 // Unix seconds
}

// StatementSize is the length of an encoded statement.
const StatementSize = 9*32 + 2*8

// Encode returns the one encoding of the statement.
func (s Statement) Encode() []byte {
	b := make([]byte, 0, StatementSize)
	for _, field := range [][32]byte{s.NonceRoot, s.TLSKey, s.HPKEKey, s.ReceiptKey, s.ClaimKey} {
		b = append(b, field[:]...)
	}
	b = binary.LittleEndian.AppendUint64(b, s.Epoch)
	b = binary.LittleEndian.AppendUint64(b, s.NotAfter)
	for _, field := range [][32]byte{s.SecretHash, s.ConfigHash, s.LogHead, s.GPUDigest} {
		b = append(b, field[:]...)
	}
	return b
}

// DecodeStatement parses exactly StatementSize bytes.
func DecodeStatement(b []byte) (s Statement, err error) {
	if len(b) != StatementSize {
		return s, fmt.Errorf("decoding statement: %d bytes, want %d", len(b), StatementSize)
	}
	for _, field := range []*[32]byte{&s.NonceRoot, &s.TLSKey, &s.HPKEKey, (*[32]byte)(&s.ReceiptKey), (*[32]byte)(&s.ClaimKey)} {
		b = b[copy(field[:], b):]
	}
	s.Epoch, s.NotAfter, b = binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:]), b[16:]
	for _, field := range []*[32]byte{&s.SecretHash, &s.ConfigHash, &s.LogHead, &s.GPUDigest} {
		b = b[copy(field[:], b):]
	}
	return s, nil
}

// Modes of report data: what the statement's nonce root stands for.
const (
	modeEpoch      = 0 // nothing was asked: freshness is NotAfter
	modeChallenged = 1 // the root of a tree of challenges
)

// KeyID is how an HPKE key is named where it is used: the first bytes of its SHA-256, as the statement has it.
type KeyID [8]byte

// HPKEKeyID names the key of that SHA-256.
func HPKEKeyID(hash [32]byte) KeyID { return KeyID(hash[:8]) }

const reportDataLabel = "chrysalis report data v1\x00"

// ReportData is what the hardware signs for a statement: guest and client compute it with this function.
// SHA-512(label, mode, SHA-256(statement)).
func ReportData(s Statement) [64]byte {
	mode := byte(modeChallenged)
	if s.NonceRoot == ([32]byte{}) {
		mode = modeEpoch
	}
	sum := sha256.Sum256(s.Encode())
	return sha512.Sum512(append(append([]byte(reportDataLabel), mode), sum[:]...))
}
