package release

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/signature"

	"chrysalis/measure/pubkey"
)

const maxBundleBytes = 4 << 20

// Identity says whose certificate may sign. Exactly one of Subject and SubjectPattern is set.
type Identity struct {
	Issuer         string // URL of the OpenID issuer that vouched for the subject, such as that of a build service
	Subject        string // address or workflow in the certificate
	SubjectPattern string // regular expression over the whole subject
}

// Signer is who signed a release, as far as the bundle proves it.
type Signer struct {
	Key     string    `json:"key,omitempty"` // Ed25519 public key, in hexadecimal
	Issuer  string    `json:"issuer,omitempty"`
	Subject string    `json:"subject,omitempty"`
	Time    time.Time `json:"time,omitzero"` // by a log or a timestamp authority; a key's signature has none
}

// Verify checks offline that a certificate of the identity signed the provenance of a release folder, while it was valid, and
// that the folder is what the provenance says. trusted names the certificate authorities, logs and timestamp authorities; a
// log entry is required, and where trusted names certificate logs, so is their timestamp.
func Verify(dir string, bundleJSON []byte, trusted root.TrustedMaterial, id Identity) (Signer, error) {
	s, err := verifyIdentity(dir, bundleJSON, trusted, id)
	if err != nil {
		return Signer{}, fmt.Errorf("verifying release: %w", err)
	}
	return s, nil
}

func verifyIdentity(dir string, bundleJSON []byte, trusted root.TrustedMaterial, id Identity) (Signer, error) {
	if id.Issuer == "" || (id.Subject == "") == (id.SubjectPattern == "") {
		return Signer{}, errors.New("identity: want an issuer, and either a subject or a pattern")
	}
	pattern := ""
	if id.SubjectPattern != "" { // sigstore-go looks for the pattern anywhere in the subject
		pattern = "^(?:" + id.SubjectPattern + ")$"
	}
	identity, err := verify.NewShortCertificateIdentity(id.Issuer, "", id.Subject, pattern)
	if err != nil {
		return Signer{}, fmt.Errorf("identity: %w", err)
	}
	options := []verify.VerifierOption{verify.WithTransparencyLog(1), verify.WithObserverTimestamps(1)}
	if len(trusted.CTLogs()) > 0 {
		options = append(options, verify.WithSignedCertificateTimestamps(1))
	}
	result, err := verifyBundle(dir, bundleJSON, trusted, options, verify.WithCertificateIdentity(identity))
	if err != nil {
		return Signer{}, err
	}
	certificate := result.Signature.Certificate
	s := Signer{Issuer: certificate.Issuer, Subject: certificate.SubjectAlternativeName}
	if len(result.VerifiedTimestamps) > 0 {
		s.Time = result.VerifiedTimestamps[0].Timestamp.UTC()
	}
	return s, nil
}

// VerifyKey checks that the key signed the provenance of a release folder, and that the folder is what the provenance says.
func VerifyKey(dir string, bundleJSON []byte, key pubkey.Ed25519) (Signer, error) {
	verifier, err := signature.LoadED25519Verifier(key.Public())
	if err != nil {
		return Signer{}, fmt.Errorf("verifying release: %w", err)
	}
	trusted := root.NewTrustedPublicKeyMaterial(func(hint string) (root.TimeConstrainedVerifier, error) {
		if hint != key.String() {
			return nil, fmt.Errorf("signed by key %.80q, want %s", hint, key.String())
		}
		return root.NewExpiringKey(verifier, time.Time{}, time.Time{}), nil
	})
	if _, err := verifyBundle(dir, bundleJSON, trusted, []verify.VerifierOption{verify.WithNoObserverTimestamps()},
		verify.WithKey()); err != nil {
		return Signer{}, fmt.Errorf("verifying release: %w", err)
	}
	return Signer{Key: key.String()}, nil
}

func verifyBundle(dir string, bundleJSON []byte, trusted root.TrustedMaterial, options []verify.VerifierOption,
	who verify.PolicyOption) (*verify.VerificationResult, error) {
	if len(bundleJSON) > maxBundleBytes {
		return nil, fmt.Errorf("bundle is %d bytes, want at most %d", len(bundleJSON), maxBundleBytes)
	}
	b := &bundle.Bundle{}
	if err := b.UnmarshalJSON(bundleJSON); err != nil {
		return nil, fmt.Errorf("reading bundle: %w", err)
	}
	envelope := b.GetDsseEnvelope()
	if envelope == nil || envelope.PayloadType != payloadInToto {
		return nil, fmt.Errorf("bundle holds no %s envelope", payloadInToto)
	}
	manifest, _, err := HashFile(filepath.Join(dir, ManifestName))
	if err != nil {
		return nil, err
	}
	digest, err := hex.DecodeString(manifest.String())
	if err != nil {
		return nil, err
	}
	verifier, err := verify.NewVerifier(trusted, options...)
	if err != nil {
		return nil, err
	}
	result, err := verifier.Verify(b, verify.NewPolicy(verify.WithArtifactDigest("sha256", digest), who))
	if err != nil {
		return nil, err
	}
	// The signature is over one statement: it must be the folder's own, and every file must be in it.
	statement, err := os.ReadFile(filepath.Join(dir, ProvenanceName))
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(statement, envelope.Payload) {
		return nil, fmt.Errorf("the bundle signs another statement than the folder's %s", ProvenanceName)
	}
	return result, CheckProvenance(dir, statement)
}

// ReadTrustedRoot reads a sigstore trusted root file.
func ReadTrustedRoot(data []byte) (*root.TrustedRoot, error) {
	if len(data) > maxBundleBytes {
		return nil, fmt.Errorf("reading trusted root: %d bytes, want at most %d", len(data), maxBundleBytes)
	}
	r, err := root.NewTrustedRootFromJSON(data)
	if err != nil {
		return nil, fmt.Errorf("reading trusted root: %w", err)
	}
	return r, nil
}

// FetchTrustedRoot asks the public sigstore for its trusted root, by the update framework whose first key is in sigstore-go.
func FetchTrustedRoot() (*root.TrustedRoot, error) {
	r, err := root.FetchTrustedRoot()
	if err != nil {
		return nil, fmt.Errorf("fetching trusted root: %w", err)
	}
	return r, nil
}
