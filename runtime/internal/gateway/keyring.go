package gateway

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"sync"
	"time"
)

// How long a TLS key serves, and how much longer its connections may still ask for evidence.
const (
	keyLife    = time.Hour
	keyOverlap = 2 * time.Minute
)

// keySet is one TLS key. It is made in this process and never leaves it.
type keySet struct {
	certificate tls.Certificate
	spki        [32]byte // SHA-256 of the SubjectPublicKeyInfo
	epoch       uint64
	from        time.Time
	notAfter    time.Time
}

// keyring makes a new key when the last one has served its time, and knows which key each connection was opened with.
type keyring struct {
	now     func() time.Time
	mu      sync.Mutex
	current *keySet
	byConn  map[net.Conn]*keySet
}

func newKeyring(now func() time.Time) (*keyring, error) {
	first, err := newKeySet(now(), 1)
	if err != nil {
		return nil, err
	}
	return &keyring{now: now, current: first, byConn: map[net.Conn]*keySet{}}, nil
}

func newKeySet(now time.Time, epoch uint64) (*keySet, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making TLS key: %v", err)
	}
	notAfter := now.Add(keyLife + keyOverlap).Truncate(time.Second)
	template := &x509.Certificate{
		SerialNumber: new(big.Int).SetUint64(epoch),
		Subject:      pkix.Name{CommonName: "chrysalis"},
		// The guest's clock is the host's: the certificate's dates promise nothing, evidence does.
		NotBefore: now.Add(-24 * time.Hour), NotAfter: notAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames: []string{"chrysalis.internal"},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("making TLS certificate: %v", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("making TLS certificate: %v", err)
	}
	return &keySet{
		certificate: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf},
		spki:        sha256.Sum256(leaf.RawSubjectPublicKeyInfo), epoch: epoch, from: now, notAfter: notAfter,
	}, nil
}

// take returns the key for a new connection and remembers it.
func (k *keyring) take(conn net.Conn) (*keySet, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if now := k.now(); now.Sub(k.current.from) >= keyLife || now.Before(k.current.from) {
		next, err := newKeySet(now, k.current.epoch+1)
		if err != nil {
			return nil, err
		}
		k.current = next
	}
	k.byConn[conn] = k.current
	return k.current, nil
}

// tlsConfig speaks TLS 1.3 alone. Sessions are not resumed: each connection proves the key and has its own exporter.
func (k *keyring) tlsConfig() *tls.Config {
	base := &tls.Config{
		MinVersion:             tls.VersionTLS13,
		CurvePreferences:       []tls.CurveID{tls.X25519MLKEM768, tls.X25519},
		SessionTicketsDisabled: true,
		NextProtos:             []string{"http/1.1"},
	}
	config := base.Clone()
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		keys, err := k.take(hello.Conn)
		if err != nil {
			return nil, err
		}
		c := base.Clone()
		c.Certificates = []tls.Certificate{keys.certificate}
		return c, nil
	}
	// net/http wants to see a certificate before it listens.
	config.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		return nil, fmt.Errorf("no certificate outside GetConfigForClient")
	}
	return config
}

type connKey struct{}

// connContext lets a request find its connection.
func (k *keyring) connContext(ctx context.Context, c net.Conn) context.Context {
	if t, ok := c.(*tls.Conn); ok {
		return context.WithValue(ctx, connKey{}, t.NetConn())
	}
	return ctx
}

// connState forgets connections that are gone.
func (k *keyring) connState(c net.Conn, state http.ConnState) {
	if state != http.StateClosed && state != http.StateHijacked {
		return
	}
	if t, ok := c.(*tls.Conn); ok {
		k.mu.Lock()
		defer k.mu.Unlock()
		delete(k.byConn, t.NetConn())
	}
}

// of returns the key that a request's connection was opened with, or nil.
func (k *keyring) of(ctx context.Context) *keySet {
	conn, _ := ctx.Value(connKey{}).(net.Conn)
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.byConn[conn]
}
