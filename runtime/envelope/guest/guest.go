// Package guest is the guest's end of envelopes: it opens sealed requests, each once, and seals their answers.
//
//	opener := guest.NewOpener(keys, nil)
//	request, answer, err := opener.Open(sealed, method, path)
//	err = answer.To(w) …
//
// What a request says is its client's word. No verifier is reached from here. ENVELOPE.md in the folder above is the specification.
package guest

import (
	"crypto/hpke"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"chrysalis/attest/evidence"
	"chrysalis/runtime/envelope/internal/wire"
)

// What both ends call things by.
const (
	RequestType  = wire.RequestType
	ResponseType = wire.ResponseType
	KeyHeader    = wire.KeyHeader
)

type (
	// Request is an opened request.
	Request = wire.Request
	// Field is one line of a header.
	Field = wire.Field
	// Answer writes the sealed answer to a request.
	Answer = wire.Sealer
)

// SealedBytes returns the most bytes that a sealed request with a body of n bytes has.
func SealedBytes(n int) int { return wire.SealedBytes(n) }

// Key is a key that the guest holds, with what an envelope for it must name.
type Key struct {
	hpke.PrivateKey
	Epoch    uint64
	Instance [32]byte
}

// Why a request was not opened. Every other error says that it is no envelope, or not one for this guest.
var (
	ErrKey      = errors.New("the guest does not hold the key")
	ErrWindow   = errors.New("the envelope is not good now")
	ErrReplayed = errors.New("the envelope was opened before")
	ErrFull     = errors.New("too many envelopes are remembered")
)

// maxSeen bounds the envelopes that are remembered for one key: twice this many ids of 16 bytes lie in memory at most.
const maxSeen = 1 << 17

// Opener opens envelopes, each once.
type Opener struct {
	held func(evidence.KeyID) (Key, bool)
	now  func() time.Time
	most int

	mu     sync.Mutex // guards the fields below
	latest int64      // the latest time that the clock has shown: it belongs to the host, who must not turn it back
	seen   map[evidence.KeyID]*memory
}

// NewOpener returns an opener for the keys that held finds. now is the clock, nil for time.Now.
func NewOpener(held func(evidence.KeyID) (Key, bool), now func() time.Time) *Opener {
	if now == nil {
		now = time.Now
	}
	return &Opener{held: held, now: now, most: maxSeen, seen: map[evidence.KeyID]*memory{}}
}

// Open opens a sealed request that came for the key of that id, with this method and path; a query is inside alone. The caller wipes the request, and the secret
// by sealing the answer.
func (o *Opener) Open(sealed []byte, id evidence.KeyID, method, path string) (*Request, *Secret, error) {
	h, err := wire.ParseHeader(sealed)
	if err != nil {
		return nil, nil, fmt.Errorf("opening envelope: %w", err)
	}
	if h.Key != id {
		return nil, nil, fmt.Errorf("opening envelope: it is for key %x, and came for %x", h.Key, id)
	}
	key, ok := o.held(h.Key)
	if !ok {
		o.forget(h.Key)
		return nil, nil, fmt.Errorf("opening envelope: key %x: %w", h.Key, ErrKey)
	}
	if h.Epoch != key.Epoch || h.Instance != key.Instance {
		return nil, nil, fmt.Errorf("opening envelope: it is for epoch %d of instance %.8x, want %d of %.8x", h.Epoch, h.Instance, key.Epoch, key.Instance)
	}
	if err := o.admit(h, false); err != nil {
		return nil, nil, fmt.Errorf("opening envelope: %w", err)
	}
	r, secret, err := wire.Open(key, sealed, method, path)
	if err != nil {
		return nil, nil, fmt.Errorf("opening envelope: %w", err)
	}
	if r.Path != path {
		err = fmt.Errorf("opening envelope: it means a path of %d bytes, and came to one of %d", len(r.Path), len(path))
	} else if err = o.admit(h, true); err != nil { // only what is authentic takes a place
		err = fmt.Errorf("opening envelope: %w", err)
	}
	if err != nil {
		r.Wipe()
		secret.Wipe()
		return nil, nil, err
	}
	return r, &Secret{secret}, nil
}

// Secret is what the answer to one request is sealed with.
type Secret struct{ secret wire.Secret }

// Seal returns what writes the answer to out, once.
func (s *Secret) Seal(out io.Writer) (*Answer, error) {
	defer s.secret.Wipe()
	return wire.NewSealer(out, &s.secret)
}

// admit judges an envelope's window and whether it was opened before; remember says that it is opened now.
func (o *Opener) admit(h wire.Header, remember bool) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.latest = max(o.latest, o.now().Unix())
	now := uint64(o.latest)
	if h.NotBefore > now || h.NotAfter < now || h.NotAfter-h.NotBefore > wire.MaxWindow {
		return fmt.Errorf("its window is %d to %d, want %d in it and at most %d seconds: %w", h.NotBefore, h.NotAfter, now, wire.MaxWindow, ErrWindow)
	}
	m := o.seen[h.Key]
	if m == nil {
		m = &memory{}
	}
	m.forget(now)
	switch {
	case m.has(h):
		return ErrReplayed
	case m.count >= o.most:
		return ErrFull
	case remember:
		o.seen[h.Key] = m
		m.add(h)
	}
	return nil
}

// forget drops the memory of a key that the guest does not hold any more: nothing that was sealed to it opens.
func (o *Opener) forget(id evidence.KeyID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.seen, id)
}

// memory is the ids of envelopes whose window is not over, by the minute in which it ends.
type memory struct {
	minutes map[uint64]map[[16]byte]struct{}
	count   int
}

func (m *memory) has(h wire.Header) bool {
	_, seen := m.minutes[h.NotAfter/60][h.ID]
	return seen
}

func (m *memory) add(h wire.Header) {
	if m.minutes == nil {
		m.minutes = map[uint64]map[[16]byte]struct{}{}
	}
	minute := m.minutes[h.NotAfter/60]
	if minute == nil {
		minute = map[[16]byte]struct{}{}
		m.minutes[h.NotAfter/60] = minute
	}
	minute[h.ID] = struct{}{}
	m.count++
}

// forget drops the minutes that are over.
func (m *memory) forget(now uint64) {
	for minute, ids := range m.minutes {
		if minute < now/60 {
			m.count -= len(ids)
			delete(m.minutes, minute)
		}
	}
}
