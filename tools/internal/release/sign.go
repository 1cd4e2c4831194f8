package release

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha512"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	"github.com/sigstore/sigstore-go/pkg/sign"
	"google.golang.org/protobuf/encoding/protojson"

	"chrysalis/measure/pubkey"
)

const (
	payloadInToto = "application/vnd.in-toto+json"
	maxKeyBytes   = 4 << 10
)

// NewKey makes an Ed25519 key and writes it to path (PKCS #8 in PEM, for its owner alone) and its public half to path.pub. It
// overwrites nothing.
func NewKey(path string) (key pubkey.Ed25519, err error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return key, fmt.Errorf("making key: %w", err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return key, fmt.Errorf("making key: %w", err)
	}
	shown, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return key, fmt.Errorf("making key: %w", err)
	}
	if err := writeNew(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600); err != nil {
		return key, fmt.Errorf("making key: %w", err)
	}
	if err := writeNew(path+".pub", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: shown}), 0o644); err != nil {
		return key, fmt.Errorf("making key: %w", errors.Join(err, os.Remove(path)))
	}
	return pubkey.Ed25519(public), nil
}

func writeNew(path string, data []byte, mode os.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

// ParseKey reads a private key as NewKey writes it.
func ParseKey(data []byte) (ed25519.PrivateKey, error) {
	der, err := onePEM(data, "PRIVATE KEY")
	if err != nil {
		return nil, fmt.Errorf("reading private key: %w", err)
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("reading private key: %w", err)
	}
	private, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("reading private key: it is a %T, want Ed25519", key)
	}
	return private, nil
}

// ParsePublicKey reads a public key: PEM as NewKey writes it, or 64 hexadecimal digits.
func ParsePublicKey(data []byte) (key pubkey.Ed25519, err error) {
	if key, err = pubkey.Parse(strings.ToLower(string(data))); err == nil {
		return key, nil
	}
	der, err := onePEM(data, "PUBLIC KEY")
	if err != nil {
		return key, fmt.Errorf("reading public key: %w", err)
	}
	parsed, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return key, fmt.Errorf("reading public key: %w", err)
	}
	public, ok := parsed.(ed25519.PublicKey)
	if !ok {
		return key, fmt.Errorf("reading public key: it is a %T, want Ed25519", parsed)
	}
	return pubkey.Ed25519(public), nil
}

func onePEM(data []byte, want string) ([]byte, error) {
	if len(data) > maxKeyBytes {
		return nil, fmt.Errorf("%d bytes, want at most %d", len(data), maxKeyBytes)
	}
	block, rest := pem.Decode(data)
	if block == nil || block.Type != want || len(rest) > 0 {
		return nil, fmt.Errorf("want one PEM block %q and nothing else", want)
	}
	return block.Bytes, nil
}

// Sign checks that a release folder is what its provenance says, and signs the provenance with a key: a sigstore bundle without
// certificate, log entry or time, the same bytes each time.
func Sign(ctx context.Context, dir string, key ed25519.PrivateKey) ([]byte, error) {
	statement, err := os.ReadFile(filepath.Join(dir, ProvenanceName))
	if err != nil {
		return nil, fmt.Errorf("signing release: %w", err)
	}
	if err := CheckProvenance(dir, statement); err != nil {
		return nil, fmt.Errorf("signing release: %w", err)
	}
	b, err := sign.Bundle(&sign.DSSEData{Data: statement, PayloadType: payloadInToto}, keypair{key}, sign.BundleOptions{Context: ctx})
	if err != nil {
		return nil, fmt.Errorf("signing release: %w", err)
	}
	text, err := protojson.Marshal(b)
	if err != nil {
		return nil, fmt.Errorf("signing release: %w", err)
	}
	value := jsontext.Value(text)
	if err := value.Canonicalize(); err != nil {
		return nil, fmt.Errorf("signing release: %w", err)
	}
	return append(value, '\n'), nil
}

// keypair is an Ed25519 key as sigstore-go wants it. Its hint, by which a verifier finds the key, is the public key itself.
type keypair struct{ key ed25519.PrivateKey }

func (k keypair) public() ed25519.PublicKey { return k.key.Public().(ed25519.PublicKey) }

func (keypair) GetHashAlgorithm() v1.HashAlgorithm       { return v1.HashAlgorithm_SHA2_512 }
func (keypair) GetSigningAlgorithm() v1.PublicKeyDetails { return v1.PublicKeyDetails_PKIX_ED25519 }
func (keypair) GetKeyAlgorithm() string                  { return "ED25519" }
func (k keypair) GetHint() []byte                        { return []byte(pubkey.Of(k.key).String()) }
func (k keypair) GetPublicKey() crypto.PublicKey         { return k.public() }

func (k keypair) GetPublicKeyPem() (string, error) {
	der, err := x509.MarshalPKIXPublicKey(k.public())
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), err
}

func (k keypair) SignData(_ context.Context, data []byte) (signature, digest []byte, err error) {
	sum := sha512.Sum512(data)
	return ed25519.Sign(k.key, data), sum[:], nil
}
