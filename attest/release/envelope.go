package release

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"

	"chrysalis/measure/fault"
	"chrysalis/measure/pubkey"
)

const maxEnvelopeSignatures = 64

// Envelope is a DSSE envelope (secure-systems-lab/dsse v1.0.2): bytes, what they are, and Ed25519 signatures over both. It is
// untrusted; open says who signed it.
type Envelope struct {
	PayloadType string      `json:"payloadType"`
	Payload     []byte      `json:"payload"`
	Signatures  []Signature `json:"signatures"` // sorted by key, each once
}

// Signature is one signature. KeyID is the public key itself in hexadecimal.
type Signature struct {
	KeyID string `json:"keyid"`
	Sig   []byte `json:"sig"`
}

// parseEnvelope reads an envelope of that type in its one encoding.
func parseEnvelope(data []byte, payloadType string, limit int) (Envelope, error) {
	if len(data) > limit {
		return Envelope{}, fmt.Errorf("%d bytes, want at most %d", len(data), limit)
	}
	var e Envelope
	if err := json.Unmarshal(data, &e, json.RejectUnknownMembers(true)); err != nil {
		return Envelope{}, fault.JSON(err)
	}
	if err := e.check(payloadType); err != nil {
		return Envelope{}, err
	}
	again, err := e.encode()
	if err != nil {
		return Envelope{}, err
	}
	if !bytes.Equal(again, data) {
		return Envelope{}, errors.New("the bytes are not the one encoding of their content")
	}
	return e, nil
}

func (e Envelope) check(payloadType string) error {
	if e.PayloadType != payloadType {
		return fmt.Errorf("payload type is %.80q, want %q", e.PayloadType, payloadType)
	}
	if n := len(e.Signatures); n > maxEnvelopeSignatures {
		return fmt.Errorf("%d signatures, want at most %d", n, maxEnvelopeSignatures)
	}
	for i, s := range e.Signatures {
		if _, err := pubkey.Parse(s.KeyID); err != nil {
			return fmt.Errorf("signature %d: key id %.80q, want 64 hexadecimal digits in lower case", i, s.KeyID)
		}
		if len(s.Sig) != ed25519.SignatureSize {
			return fmt.Errorf("signature %d: %d bytes, want %d", i, len(s.Sig), ed25519.SignatureSize)
		}
		if i > 0 && e.Signatures[i-1].KeyID >= s.KeyID {
			return fmt.Errorf("signature %d: key %s stands after %s, want each once and sorted", i, s.KeyID, e.Signatures[i-1].KeyID)
		}
	}
	return nil
}

func (e Envelope) encode() ([]byte, error) {
	if e.Signatures == nil {
		e.Signatures = []Signature{}
	}
	data, err := json.Marshal(e, json.Deterministic(true))
	return append(data, '\n'), err
}

// signedBytes is the pre-authentication encoding, section "Signature Definition" of the protocol.
func (e Envelope) signedBytes() []byte {
	return fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(e.PayloadType), e.PayloadType, len(e.Payload), e.Payload)
}

// signers returns those of the keys that signed the envelope, each once however often it is given. A signature by one of
// them that does not hold is an error, and signatures by others do not count.
func (e Envelope) signers(keys []pubkey.Ed25519) ([]pubkey.Ed25519, error) {
	message := e.signedBytes()
	var found []pubkey.Ed25519
	for _, s := range e.Signatures {
		i := slices.IndexFunc(keys, func(key pubkey.Ed25519) bool { return key.String() == s.KeyID })
		if i < 0 {
			continue
		}
		if !keys[i].Verify(message, s.Sig) {
			return nil, fmt.Errorf("the signature of key %s does not hold", s.KeyID)
		}
		found = append(found, keys[i])
	}
	return found, nil
}

// checkThreshold refuses a question that accepts anybody, or nobody.
func checkThreshold(signers []pubkey.Ed25519, threshold int) error {
	if threshold < 1 || threshold > len(signers) {
		return fmt.Errorf("threshold is %d of %d signers, want 1 to all of them", threshold, len(signers))
	}
	for _, key := range signers {
		if key.IsZero() {
			return errors.New("a signer's key is zero")
		}
	}
	return nil
}

// enough returns those of the keys that signed the envelope, if they are as many as threshold.
func (e Envelope) enough(signers []pubkey.Ed25519, threshold int) ([]pubkey.Ed25519, error) {
	found, err := e.signers(signers)
	if err == nil && len(found) < threshold {
		return nil, fmt.Errorf("%d of its %d signatures are by the %d signers, want at least %d", len(found), len(e.Signatures), len(signers),
			threshold)
	}
	return found, err
}

// sign adds a signature.
func (e *Envelope) sign(key ed25519.PrivateKey) error {
	if len(key) != ed25519.PrivateKeySize {
		return fmt.Errorf("key has %d bytes, want %d", len(key), ed25519.PrivateKeySize)
	}
	s := Signature{pubkey.Of(key).String(), ed25519.Sign(key, e.signedBytes())}
	at, twice := slices.BinarySearchFunc(e.Signatures, s.KeyID, func(s Signature, id string) int { return strings.Compare(s.KeyID, id) })
	if twice {
		return fmt.Errorf("key %s has signed already", s.KeyID)
	}
	if len(e.Signatures) == maxEnvelopeSignatures {
		return fmt.Errorf("%d signatures are there already, want at most that", maxEnvelopeSignatures)
	}
	e.Signatures = slices.Insert(e.Signatures, at, s)
	return nil
}
