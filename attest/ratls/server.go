package ratls

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"chrysalis/attest/evidence"
)

const (
	// keyLife is how long a TLS key is given to new connections, keyOverlap how long evidence still names it after that.
	keyLife    = time.Hour
	keyOverlap = 2 * time.Minute

	// quoteInterval is the least time between two quotes: a TPM takes its time, and every challenge that arrives meanwhile
	// is answered by the next one.
	quoteInterval = time.Second
	maxBatch      = 4096
)

// keySet is a TLS key made inside and the certificate around it.
type keySet struct {
	certificate       tls.Certificate
	hash              [32]byte
	epoch             uint64
	retired, notAfter time.Time
}

// newKeySet makes a key and has epoch evidence made for it, which the certificate carries.
func newKeySet(epoch uint64, now time.Time, ask func(evidence.Request) (*evidence.Evidence, error)) (*keySet, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making TLS key: %w", err)
	}
	k := &keySet{epoch: epoch, retired: now.Add(keyLife), notAfter: now.Add(keyLife + keyOverlap)}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, fmt.Errorf("making TLS key: %w", err)
	}
	k.hash = sha256.Sum256(public)
	e, err := ask(evidence.Request{TLSKey: k.hash, Epoch: epoch, NotAfter: uint64(k.notAfter.Unix())})
	if err != nil {
		return nil, fmt.Errorf("making epoch evidence: %w", err)
	}
	extension, err := evidence.EpochExtension(e)
	if err != nil {
		return nil, fmt.Errorf("making epoch evidence: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: new(big.Int).SetUint64(epoch), Subject: pkix.Name{CommonName: "chrysalis guest"},
		// Nobody judges the validity: a guest's clock is the host's.
		NotBefore: time.Unix(0, 0), NotAfter: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
		KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true, ExtraExtensions: []pkix.Extension{extension},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("making TLS certificate: %w", err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("making TLS certificate: %w", err)
	}
	k.certificate = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: parsed}
	return k, nil
}

// Server owns a guest's TLS keys and answers challenges. It is an http.Handler for EvidencePath; the http.Server that it
// serves under must take its TLSConfig and its ConnContext.
type Server struct {
	ask func(evidence.Request) (*evidence.Evidence, error)
	now func() time.Time

	mu      sync.Mutex // guards the fields below
	keys    *keySet
	batches map[*keySet]*batch
	next    time.Time // when the next quote may be asked for

	asking sync.Mutex // one request at a time on the stream to init
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
		MinVersion: tls.VersionTLS13, CurvePreferences: keyExchanges(), NextProtos: []string{"http/1.1"}, SessionTicketsDisabled: true,
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			keys, err := s.current()
			if err != nil {
				return nil, err
			}
			// http.Server hands its connection's context to the handshake.
			if c, ok := hello.Context().Value(connectionKey{}).(*connection); ok {
				c.keys = keys
			}
			return &keys.certificate, nil
		},
	}
}

// askAlone asks for one quote at a time.
func (s *Server) askAlone(r evidence.Request) (*evidence.Evidence, error) {
	s.asking.Lock()
	defer s.asking.Unlock()
	return s.ask(r)
}

// current returns the key set for new connections, a new one when the last has had its time. Everybody waits for a new one:
// the old has no evidence that still holds for long.
func (s *Server) current() (*keySet, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := s.now(); now.After(s.keys.retired) {
		keys, err := newKeySet(s.keys.epoch+1, now, s.askAlone)
		if err != nil {
			return nil, err
		}
		s.keys = keys
	}
	return s.keys, nil
}

var errBusy = errors.New("too many challenges wait")

// ServeHTTP answers a challenge with evidence that is bound to the connection it came over.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", http.MethodGet)
		http.Error(w, "want GET", http.StatusMethodNotAllowed)
		return
	}
	nonce, err := parseNonce(r.URL.RawQuery)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	c, ok := r.Context().Value(connectionKey{}).(*connection)
	exporter, err := Exporter(r.TLS)
	if err != nil || !ok || c.keys == nil {
		http.Error(w, "evidence is bound to a TLS 1.3 connection to this guest", http.StatusBadRequest)
		return
	}
	body, err := s.answer(r.Context(), c.keys, evidence.Leaf(nonce, exporter))
	if err != nil {
		http.Error(w, "no evidence now", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(body) // a client that has gone needs no answer
}

// parseNonce takes the one parameter in its one form.
func parseNonce(query string) (nonce [32]byte, err error) {
	const name = "nonce="
	if len(query) != len(name)+64 || query[:len(name)] != name {
		return nonce, errors.New("want nonce= and 64 hexadecimal digits")
	}
	if _, err := hex.Decode(nonce[:], []byte(query[len(name):])); err != nil || hex.EncodeToString(nonce[:]) != query[len(name):] || nonce == ([32]byte{}) {
		return nonce, errors.New("want nonce= and 64 lower-case hexadecimal digits that are not all zero")
	}
	return nonce, nil
}

// batch is the challenges that one quote will answer. The handler of the first asks; the others wait for it.
type batch struct {
	leaves   [][32]byte
	done     chan struct{} // closed when evidence, paths and err are set
	evidence *evidence.Evidence
	paths    []evidence.Path
	err      error
}

func (s *Server) answer(ctx context.Context, keys *keySet, leaf [32]byte) ([]byte, error) {
	s.mu.Lock()
	b := s.batches[keys]
	first := b == nil
	if first {
		b = &batch{done: make(chan struct{})}
		s.batches[keys] = b
	}
	if len(b.leaves) == maxBatch {
		s.mu.Unlock()
		return nil, errBusy
	}
	index := len(b.leaves)
	b.leaves = append(b.leaves, leaf)
	wait := time.Until(s.next)
	s.mu.Unlock()
	if first {
		// Not ctx: the others wait for this quote even when the first client has gone.
		time.Sleep(wait)
		s.fill(keys, b)
	}
	select {
	case <-b.done:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if b.err != nil {
		return nil, b.err
	}
	own := *b.evidence
	own.Path = b.paths[index]
	return own.Encode()
}

// fill closes the batch to newcomers and asks for its quote.
func (s *Server) fill(keys *keySet, b *batch) {
	s.mu.Lock()
	delete(s.batches, keys)
	s.next = time.Now().Add(quoteInterval)
	s.mu.Unlock()
	defer close(b.done)
	var root [32]byte
	if root, b.paths, b.err = evidence.Batch(b.leaves); b.err != nil {
		return
	}
	b.evidence, b.err = s.askAlone(evidence.Request{NonceRoot: root, TLSKey: keys.hash, Epoch: keys.epoch, NotAfter: uint64(keys.notAfter.Unix())})
}
