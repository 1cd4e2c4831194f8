// Package session has what both ends of an attested TLS connection agree on: where evidence is asked for, the one key exchange,
// the exporter that binds evidence to the connection, and the hash by which a statement names a certificate's key.
package session

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"

	"chrysalis/attest/evidence"
)

// Where evidence is asked for: package evidence says so, for those who have no TLS of their own.
const (
	EvidencePath  = evidence.ServedAt
	Nonce         = evidence.NonceParameter
	DetachedNonce = evidence.DetachedParameter
)

// KeyExchanges are the key exchanges of both sides: one alone, so that nobody in between can have them agree on another. What
// is recorded today shall stay closed to a quantum computer.
func KeyExchanges() []tls.CurveID { return []tls.CurveID{tls.X25519MLKEM768} }

// Exporter returns what binds evidence to the connection.
func Exporter(state *tls.ConnectionState) (exporter [32]byte, err error) {
	if state == nil || state.Version != tls.VersionTLS13 {
		return exporter, errors.New("exporting from TLS connection: it is not TLS 1.3")
	}
	b, err := state.ExportKeyingMaterial(evidence.ExporterLabel, nil, len(exporter))
	if err != nil {
		return exporter, fmt.Errorf("exporting from TLS connection: %w", err)
	}
	return [32]byte(b), nil
}

// KeyHash is the hash by which a statement names a certificate's key.
func KeyHash(certificate *x509.Certificate) [32]byte {
	return sha256.Sum256(certificate.RawSubjectPublicKeyInfo)
}
