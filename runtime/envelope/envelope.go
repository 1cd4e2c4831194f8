// Package envelope seals requests to a verified guest, and opens its answers. What is sealed goes through any network and any
// balancer that ends TLS: only the guest reads it, and only the guest can have answered.
//
//	key, err := envelope.KeyOf(result)                 // of attest.VerifyDetached, or of attest.Verify
//	sealed, answer, err := key.Seal(request, time.Now())
//	response, err := answer.Open(body)                 // of what came back
//
// The key comes out of a Result and from nowhere else. What a network between can still see is the path, the key's id, lengths in
// steps, and times. ENVELOPE.md beside this file is the specification; package guest below is the other end.
package envelope

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"time"

	"chrysalis/attest"
	"chrysalis/attest/evidence"
	"chrysalis/runtime/envelope/internal/wire"
)

// What both ends call things by. An envelope travels as a POST to the path that it means, whatever method it means.
const (
	Method       = "POST"
	RequestType  = wire.RequestType
	ResponseType = wire.ResponseType
	KeyHeader    = wire.KeyHeader
)

type (
	// Request is what a client asks for. Its header's names are lower case and in ascending order.
	Request = wire.Request
	// Field is one line of a header.
	Field = wire.Field
	// Response is an answer: its header, and by Read its content, which is whole when Read returns io.EOF.
	Response = wire.Opener
)

// How an answer ends that is not whole, or not the guest's.
var (
	ErrCut    = wire.ErrCut
	ErrForged = wire.ErrForged
)

// An envelope is good from a little before it is made, for clocks differ, to a little after.
const (
	early = 30 * time.Second
	late  = 60 * time.Second
)

// Key is what envelopes for one guest are sealed to.
type Key struct {
	guest  *attest.Result
	public []byte
	id     evidence.KeyID
}

// KeyOf returns the key of a verified guest.
func KeyOf(guest *attest.Result) (*Key, error) {
	public := guest.HPKEKey()
	if public == nil {
		return nil, errors.New("sealing: the guest has shown no HPKE key")
	}
	return &Key{guest, public, evidence.HPKEKeyID(sha256.Sum256(public))}, nil
}

// ID names the key, as KeyHeader does.
func (k *Key) ID() string { return fmt.Sprintf("%x", k.id) }

// NotAfter is when the guest stops holding the key.
func (k *Key) NotAfter() time.Time { return k.guest.NotAfter() }

// Answer opens the answer to one request.
type Answer struct{ secret wire.Secret }

// Seal seals a request at the time now. A sealed request is sent once.
func (k *Key) Seal(r Request, now time.Time) (sealed []byte, answer *Answer, err error) {
	if now.After(k.NotAfter()) {
		return nil, nil, fmt.Errorf("sealing: the guest's key is good until %s", k.NotAfter().UTC().Format(time.RFC3339))
	}
	h := wire.Header{
		Key: k.id, Epoch: k.guest.Epoch(), Instance: k.guest.SecretHash(),
		NotBefore: uint64(now.Add(-early).Unix()), NotAfter: uint64(now.Add(late).Unix()),
	}
	rand.Read(h.ID[:])
	sealed, secret, err := wire.Seal(k.public, h, Method, r.Path, r)
	if err != nil {
		return nil, nil, fmt.Errorf("sealing: %w", err)
	}
	return sealed, &Answer{secret}, nil
}

// Open reads an answer as far as its header.
func (a *Answer) Open(body io.Reader) (*Response, error) {
	defer a.secret.Wipe()
	response, err := wire.NewOpener(body, &a.secret)
	if err != nil {
		return nil, fmt.Errorf("opening answer: %w", err)
	}
	return response, nil
}
