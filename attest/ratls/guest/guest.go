// Package guest is the guest's end of an attested TLS connection: it owns the TLS keys, has evidence made for each, and answers
// challenges, many by one quote.
//
//	attested, err := guest.NewServer(ask, nil)
//	server := &http.Server{ConnContext: attested.ConnContext, …}
//	server.Serve(tls.NewListener(listener, attested.TLSConfig()))
//
// It judges nothing: no verifier is reached from here.
package guest

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"chrysalis/attest/evidence"
	"chrysalis/attest/ratls/session"
)

// Server owns a guest's TLS and HPKE keys and answers challenges. It is an http.Handler for session.EvidencePath; the http.Server that it
// serves under must take its TLSConfig and its ConnContext.
type Server struct {
	ask func(evidence.Request) (*evidence.Evidence, error)
	now func() time.Time

	mu      sync.Mutex // guards the fields below
	keys    *keySet
	old     *keySet // the one before, until its time is over
	batches map[*keySet]*batch
	next    time.Time // when the next quote may be asked for

	asking sync.Mutex // one request at a time on the stream to init

	ends, made atomic.Int64 // Unix seconds: of the newest key set's end, of the last evidence
}

// NewServer returns a server with a fresh key, for which it asks at once. ask gets the evidence for a request; it is called
// by one goroutine at a time. now is the clock, nil for time.Now.
func NewServer(ask func(evidence.Request) (*evidence.Evidence, error), now func() time.Time) (*Server, error) {
	if now == nil {
		now = time.Now
	}
	s := &Server{ask: ask, now: now, batches: map[*keySet]*batch{}}
	keys, err := newKeySet(1, now(), s.askAlone)
	if err != nil {
		return nil, err
	}
	s.keys = keys
	s.ends.Store(keys.notAfter.Unix())
	return s, nil
}

// connectionKey is the context key of a connection's key set.
type connectionKey struct{}

// connection remembers the key set that a handshake used: after a rotation connections of the old one go on.
type connection struct{ keys *keySet }

// ConnContext is for http.Server.ConnContext.
func (s *Server) ConnContext(ctx context.Context, _ net.Conn) context.Context {
	return context.WithValue(ctx, connectionKey{}, new(connection))
}

// TLSConfig returns the configuration of the guest's listener: TLS 1.3 alone, HTTP/1.1, no resumption.
func (s *Server) TLSConfig() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, CurvePreferences: session.KeyExchanges(), NextProtos: []string{"http/1.1"}, SessionTicketsDisabled: true,
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			keys, err := s.current()
			if err != nil {
				return nil, err
			}
			// http.Server hands its connection's context to the handshake.
			if ctx := hello.Context(); ctx != nil {
				if c, ok := ctx.Value(connectionKey{}).(*connection); ok {
					c.keys = keys
				}
			}
			return &keys.certificate, nil
		},
	}
}

// ServeHTTP answers a challenge with evidence that is bound to the connection it came over.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", http.MethodGet)
		http.Error(w, "want GET", http.StatusMethodNotAllowed)
		return
	}
	nonce, detached, err := parseNonce(r.URL.RawQuery)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	keys, leaf, err := s.bind(r, nonce, detached)
	if err != nil {
		http.Error(w, "evidence is bound to a TLS 1.3 connection to this guest", http.StatusBadRequest)
		return
	}
	a, err := s.answer(r.Context(), keys, leaf)
	if err != nil {
		http.Error(w, "no evidence now", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.Itoa(len(a.head)+len(a.rest)))
	w.Header().Set("Cache-Control", "no-store")
	for _, piece := range [][]byte{a.head, a.rest} {
		_, _ = w.Write(piece) // a client that has gone needs no answer
	}
}

// bind returns the key set that answers a challenge, and the challenge's leaf. A connection has the key set of its handshake; who asks
// over somebody else's connection gets the newest.
func (s *Server) bind(r *http.Request, nonce [32]byte, detached bool) (*keySet, [32]byte, error) {
	if detached {
		keys, err := s.current()
		return keys, evidence.DetachedLeaf(nonce), err
	}
	c, ok := r.Context().Value(connectionKey{}).(*connection)
	exporter, err := session.Exporter(r.TLS)
	if err == nil && (!ok || c.keys == nil) {
		err = errors.New("the connection has no key set")
	}
	if err != nil {
		return nil, [32]byte{}, err
	}
	return c.keys, evidence.Leaf(nonce, exporter), nil
}

// parseNonce takes one of the two parameters in its one form.
func parseNonce(query string) (nonce [32]byte, detached bool, err error) {
	name, digits, _ := strings.Cut(query, "=")
	if name != session.Nonce && name != session.DetachedNonce {
		return nonce, false, fmt.Errorf("want %s= or %s=, and 64 hexadecimal digits", session.Nonce, session.DetachedNonce)
	}
	if b, err := hex.DecodeString(digits); err != nil || copy(nonce[:], b) != len(nonce) || hex.EncodeToString(nonce[:]) != digits ||
		nonce == ([32]byte{}) {
		return nonce, false, fmt.Errorf("want %s= and 64 lower-case hexadecimal digits that are not all zero", name)
	}
	return nonce, name == session.DetachedNonce, nil
}
