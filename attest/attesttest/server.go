package attesttest

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"chrysalis/attest"
)

const (
	keyLife    = time.Hour
	keyOverlap = 2 * time.Minute
)

// Server answers challenges for a Guest over TLS, as a gateway does: it makes a new TLS key after an hour, and keeps each
// connection's evidence on the key that its handshake used.
type Server struct {
	Guest *Guest
	// Now is the server's clock.
	Now func() time.Time
	// Quotes counts the quotes made, under the lock.
	Quotes int

	mu    sync.Mutex
	epoch uint64
	key   tls.Certificate
	made  time.Time
}

type connectionKey struct{}

// connection is what a handshake leaves for the requests of its connection.
type connection struct {
	epoch uint64
	key   [32]byte
	until time.Time
}

// Certificate returns the certificate for new connections, private key included: a test may leak it.
func (s *Server) Certificate() tls.Certificate {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := s.Now(); s.epoch == 0 || now.Sub(s.made) > keyLife {
		s.epoch, s.made = s.epoch+1, now
		key := newKey()
		template := &x509.Certificate{SerialNumber: new(big.Int).SetUint64(s.epoch), Subject: pkix.Name{CommonName: "software guest"},
			NotBefore: now.Add(-time.Hour), NotAfter: now.Add(2 * keyLife)}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		check(err)
		leaf, err := x509.ParseCertificate(der)
		check(err)
		s.key = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
	}
	return s.key
}

// TLSConfig is the configuration of the server's listener.
func (s *Server) TLSConfig() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"}, SessionTicketsDisabled: true,
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			cert := s.Certificate()
			// http.Server hands the connection's context to the handshake.
			if c, ok := hello.Context().Value(connectionKey{}).(*connection); ok {
				s.mu.Lock()
				defer s.mu.Unlock()
				*c = connection{s.epoch, sha256.Sum256(cert.Leaf.RawSubjectPublicKeyInfo), s.made.Add(keyLife + keyOverlap)}
			}
			return &cert, nil
		},
	}
}

// ConnContext is for http.Server.ConnContext.
func (s *Server) ConnContext(ctx context.Context, _ net.Conn) context.Context {
	return context.WithValue(ctx, connectionKey{}, new(connection))
}

// ServeHTTP answers a challenge, in a quote of its own.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	nonce, err := hex.DecodeString(strings.TrimPrefix(r.URL.RawQuery, "nonce="))
	c, ok := r.Context().Value(connectionKey{}).(*connection)
	if err != nil || len(nonce) != 32 || !ok || r.TLS == nil {
		http.Error(w, "want a nonce over TLS", http.StatusBadRequest)
		return
	}
	exporter, err := r.TLS.ExportKeyingMaterial(attest.ExporterLabel, nil, 32)
	check(err)
	s.mu.Lock()
	s.Quotes++
	s.Guest.Statement.Epoch, s.Guest.Statement.NotAfter = c.epoch, uint64(c.until.Unix())
	evidence := s.Guest.Evidence(attest.Challenge{Nonce: [32]byte(nonce), Exporter: [32]byte(exporter), TLSKey: c.key})
	s.mu.Unlock()
	body, err := evidence.Encode()
	check(err)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body)
}

// Count returns Quotes.
func (s *Server) Count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Quotes
}

// Listen serves h on the loopback interface with a TLS configuration until the test ends, and returns the address.
func Listen(t testing.TB, h http.Handler, config *tls.Config, connContext func(context.Context, net.Conn) context.Context) string {
	t.Helper()
	// httptest's server would put a certificate of its own beside GetCertificate.
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: h, ConnContext: connContext, ErrorLog: log.New(io.Discard, "", 0)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(tls.NewListener(listener, config)) // it ends when the test does
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	return listener.Addr().String()
}
