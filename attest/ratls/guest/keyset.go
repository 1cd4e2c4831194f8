package guest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"time"

	"chrysalis/attest/evidence"
)

// keyLife is how long a TLS key is given to new connections, keyOverlap how long evidence still names it after that.
const (
	keyLife    = time.Hour
	keyOverlap = 2 * time.Minute
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
