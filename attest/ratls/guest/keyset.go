package guest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hpke"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"time"

	"chrysalis/attest/evidence"
	"chrysalis/measure/pubkey"
)

// keyLife is how long a TLS key is given to new connections, keyOverlap how long evidence still names it after that.
const (
	keyLife    = time.Hour
	keyOverlap = 2 * time.Minute
)

// keySet is a TLS key made inside, the certificate around it, and the HPKE key that goes with it.
type keySet struct {
	certificate       tls.Certificate
	hash              [32]byte
	hpke              HPKEKey
	receipts          pubkey.Ed25519 // the key of receipts, as the statement names it
	epoch             uint64
	retired, notAfter time.Time
}

// HPKEKey is a key that opens envelopes, and what they have to name beside it.
type HPKEKey struct {
	hpke.PrivateKey
	Epoch    uint64    // of the key set
	Instance [32]byte  // the statement's digest of the sealed secret: it names the guest from boot to boot
	NotAfter time.Time // from then on the guest does not hold the key
}

// request is what the key set has attested under a nonce root.
func (k *keySet) request(nonceRoot [32]byte) evidence.Request {
	return evidence.Request{
		NonceRoot: nonceRoot, TLSKey: k.hash, HPKEKey: sha256.Sum256(k.hpke.PublicKey().Bytes()), Epoch: k.epoch, NotAfter: uint64(k.notAfter.Unix()),
	}
}

// id names the HPKE key.
func (k *keySet) id() evidence.KeyID {
	return evidence.HPKEKeyID(sha256.Sum256(k.hpke.PublicKey().Bytes()))
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
	k.hpke = HPKEKey{Epoch: epoch, NotAfter: k.notAfter}
	if k.hpke.PrivateKey, err = hpke.MLKEM768X25519().GenerateKey(); err != nil {
		return nil, fmt.Errorf("making HPKE key: %w", err)
	}
	e, err := ask(k.request([32]byte{}))
	if err != nil {
		return nil, fmt.Errorf("making epoch evidence: %w", err)
	}
	k.hpke.Instance, k.receipts = e.Statement.SecretHash, e.Statement.ReceiptKey
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
		s.old, s.keys = s.keys, keys
		s.ends.Store(keys.notAfter.Unix())
	}
	s.drop()
	return s.keys, nil
}

// drop lets go of the key set before the current one when its time is over. crypto/hpke has no way to overwrite a key: what is left
// of it lies in memory until the collector gives the place away. The caller holds mu.
func (s *Server) drop() {
	if s.old != nil && s.now().After(s.old.notAfter) {
		s.old = nil
	}
}

// ReceiptKey returns the key that signs receipts, as the newest statement names it.
func (s *Server) ReceiptKey() pubkey.Ed25519 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keys.receipts
}

// HPKE returns the HPKE key of that id, when the guest holds it now.
func (s *Server) HPKE(id evidence.KeyID) (HPKEKey, bool) {
	_, _ = s.current() // without a new key set the old one still has its time
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range []*keySet{s.keys, s.old} {
		if k != nil && k.id() == id && !s.now().After(k.notAfter) {
			return k.hpke, true
		}
	}
	return HPKEKey{}, false
}
