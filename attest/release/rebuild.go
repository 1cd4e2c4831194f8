package release

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"

	"chrysalis/attest/check"
	"chrysalis/measure/fault"
	"chrysalis/measure/pubkey"
	"chrysalis/measure/register"
)

const (
	rebuildFormat      = "chrysalis rebuild v1"
	rebuildPayloadType = "application/vnd.chrysalis.rebuild+json"
	verdictSame        = "same"

	maxRebuildBytes = 4 << 10
)

// Rebuild is the statement of somebody who rebuilt a release from its sources and got the same bytes. There is no
// statement of the contrary: who got other bytes publishes them.
type Rebuild struct {
	Format    string          `json:"format"`    // chrysalis rebuild v1
	Rebuilder string          `json:"rebuilder"` // who says so, for people; the key is what counts
	Manifest  register.Digest `json:"manifest"`  // SHA-256 of manifest.json, which names every file
	Verdict   string          `json:"verdict"`   // same
	Time      time.Time       `json:"time"`      // UTC, whole seconds
}

// SignRebuild signs the statement that the release with that manifest was rebuilt with the same bytes.
func SignRebuild(manifest register.Digest, rebuilder string, at time.Time, key ed25519.PrivateKey) ([]byte, error) {
	r := Rebuild{rebuildFormat, rebuilder, manifest, verdictSame, at.UTC().Truncate(time.Second)}
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("signing rebuild: %w", err)
	}
	payload, err := json.Marshal(r, json.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("signing rebuild: %w", err)
	}
	e := Envelope{PayloadType: rebuildPayloadType, Payload: payload}
	if err := e.sign(key); err != nil {
		return nil, fmt.Errorf("signing rebuild: %w", err)
	}
	return e.encode()
}

// VerifyRebuild reads a signed statement and checks that one of the rebuilders signed it; it returns that key. It does
// not judge how old the statement is: a rebuild stays true.
func VerifyRebuild(signed []byte, rebuilders []pubkey.Ed25519) (Rebuild, pubkey.Ed25519, error) {
	e, err := parseEnvelope(signed, rebuildPayloadType, maxRebuildBytes)
	if err != nil {
		return Rebuild{}, pubkey.Ed25519{}, fmt.Errorf("%w: reading rebuild: %v", check.ErrRejected, err)
	}
	r, key, err := e.rebuild(rebuilders)
	if err != nil {
		return Rebuild{}, key, fmt.Errorf("%w: reading rebuild: %v", check.ErrRejected, err)
	}
	if key.IsZero() {
		return Rebuild{}, key, fmt.Errorf("%w: reading rebuild: signed by key %s, which is none of the %d rebuilders",
			check.ErrRejected, e.Signatures[0].KeyID, len(rebuilders))
	}
	return r, key, nil
}

// rebuild reads the statement in an envelope with exactly one signature. The key is zero if it is none of the rebuilders'.
func (e Envelope) rebuild(rebuilders []pubkey.Ed25519) (r Rebuild, key pubkey.Ed25519, err error) {
	if err := e.check(rebuildPayloadType); err != nil {
		return r, key, err
	}
	if len(e.Signatures) != 1 {
		return r, key, fmt.Errorf("%d signatures, want 1", len(e.Signatures))
	}
	if len(e.Payload) > maxRebuildBytes {
		return r, key, fmt.Errorf("payload is %d bytes, want at most %d", len(e.Payload), maxRebuildBytes)
	}
	if err := json.Unmarshal(e.Payload, &r, json.RejectUnknownMembers(true)); err != nil {
		return r, key, fault.JSON(err)
	}
	if err := r.check(); err != nil {
		return r, key, err
	}
	again, err := json.Marshal(r, json.Deterministic(true))
	if err != nil {
		return r, key, err
	}
	if !bytes.Equal(again, e.Payload) {
		return r, key, errors.New("the payload is not the one encoding of its content")
	}
	found, err := e.signers(rebuilders)
	if err != nil || len(found) == 0 {
		return r, key, err
	}
	return r, found[0], nil
}

func (r Rebuild) check() error {
	switch {
	case r.Format != rebuildFormat:
		return fmt.Errorf("format is %.80q, want %q", r.Format, rebuildFormat)
	case r.Rebuilder == "" || len(r.Rebuilder) > maxReleaseName:
		return fmt.Errorf("rebuilder's name is %d bytes, want 1 to %d", len(r.Rebuilder), maxReleaseName)
	case r.Manifest == (register.Digest{}):
		return errors.New("manifest is not named")
	case r.Verdict != verdictSame:
		return fmt.Errorf("verdict is %.80q, want %q", r.Verdict, verdictSame)
	}
	return wholeSecond("time", r.Time)
}

// wholeSecond refuses a time with more than one encoding or of no date.
func wholeSecond(name string, t time.Time) error {
	if t.Unix() <= 0 || t.Nanosecond() != 0 || t.Location() != time.UTC || t.Year() > 9999 {
		return fmt.Errorf("%s is %v, want whole seconds of UTC after 1970", name, t)
	}
	return nil
}
