package release

import (
	"bytes"
	"crypto/ed25519"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/testing/ca"

	"chrysalis/measure/pubkey"
	"chrysalis/tools/internal/release/releasetest"
)

func testKey(b byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{b}, ed25519.SeedSize))
}

func publicOf(key ed25519.PrivateKey) pubkey.Ed25519 { return pubkey.Of(key) }

func TestKeys(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key.pem")
	public, err := NewKey(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("private key: mode %v, error %v, want 0600", info.Mode(), err)
	}
	read := func(name string) []byte {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	key, err := ParseKey(read(path))
	if err != nil || publicOf(key) != public {
		t.Errorf("private key: error %v, or another key", err)
	}
	for _, text := range [][]byte{read(path + ".pub"), []byte(public.String())} {
		if got, err := ParsePublicKey(text); err != nil || got != public {
			t.Errorf("public key %q: got %s, error %v, want %s", text, got, err, public)
		}
	}
	if _, err := NewKey(path); err == nil {
		t.Error("a second key over the first: got no error")
	}
	for name, data := range map[string][]byte{"public as private": read(path + ".pub"), "trailing bytes": append(read(path), "x"...),
		"empty":    nil,
		"too long": make([]byte, maxKeyBytes+1), "no key inside": []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")} {
		if _, err := ParseKey(data); err == nil {
			t.Errorf("%s: got no error, want a refusal", name)
		}
	}
	for name, data := range map[string][]byte{"private as public": read(path), "short": []byte("00ff"), "empty": nil} {
		if _, err := ParsePublicKey(data); err == nil {
			t.Errorf("%s: got no error, want a refusal", name)
		}
	}
}

func TestSignWithKey(t *testing.T) {
	dir, _ := fullFolder(t)
	bundle, err := Sign(t.Context(), dir, testKey(1))
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Sign(t.Context(), dir, testKey(1)); err != nil || !bytes.Equal(again, bundle) {
		t.Errorf("signing again: error %v, or other bytes", err)
	}
	if s, err := VerifyKey(dir, bundle, publicOf(testKey(1))); err != nil || s.Key != publicOf(testKey(1)).String() {
		t.Errorf("got %+v, error %v, want the key", s, err)
	}
	if _, err := VerifyKey(dir, bundle, publicOf(testKey(2))); err == nil {
		t.Error("another key: got no error")
	}
	// The hint alone proves nothing.
	forged := bytes.ReplaceAll(bundle, []byte(publicOf(testKey(1)).String()), []byte(publicOf(testKey(2)).String()))
	if _, err := VerifyKey(dir, forged, publicOf(testKey(2))); err == nil {
		t.Error("another key's hint: got no error")
	}
	for _, name := range append(Subjects(), ProvenanceName) {
		dir, _ := fullFolder(t)
		if err := os.WriteFile(filepath.Join(dir, name), []byte("other content"), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := VerifyKey(dir, bundle, publicOf(testKey(1))); err == nil {
			t.Errorf("%s changed: got no error, want a refusal", name)
		}
		if _, err := Sign(t.Context(), dir, testKey(1)); err == nil {
			t.Errorf("%s changed: it was signed, want a refusal", name)
		}
	}
	for name, bad := range map[string][]byte{"empty": nil, "no JSON": []byte("x"), "no bundle": []byte("{}"),
		"too long": make([]byte, maxBundleBytes+1)} {
		if _, err := VerifyKey(dir, bad, publicOf(testKey(1))); err == nil {
			t.Errorf("%s: got no error, want a refusal", name)
		}
	}
}

const (
	issuer  = releasetest.Issuer
	subject = releasetest.Subject
)

// TestVerifyIdentity uses sigstore-go's own virtual certificate authority, log and timestamp authority.
func TestVerifyIdentity(t *testing.T) {
	sigstore, err := ca.NewVirtualSigstore()
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := ca.NewVirtualSigstore()
	if err != nil {
		t.Fatal(err)
	}
	dir, statement := fullFolder(t)
	good := releasetest.Bundle(t, sigstore, statement)
	trusted := releasetest.TrustedRoot(t, sigstore, false)
	other := bytes.Replace(statement, []byte(`"profile":"cpu"`), []byte(`"profile":"gpu"`), 1)
	if bytes.Equal(other, statement) {
		t.Fatal("the other statement is the same")
	}
	changed := func(name string) string {
		dir, _ := fullFolder(t)
		if err := os.WriteFile(filepath.Join(dir, name), []byte("other content"), 0o644); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	byKey, err := Sign(t.Context(), dir, testKey(1))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name    string
		dir     string
		bundle  []byte
		trusted root.TrustedMaterial
		id      Identity
		want    string // "" is accepted
	}{
		{"the signer", dir, good, trusted, Identity{Issuer: issuer, Subject: subject}, ""},
		{"by a pattern", dir, good, trusted, Identity{Issuer: issuer, SubjectPattern: `[a-z]+@example\.test`}, ""},
		{"another subject", dir, good, trusted, Identity{Issuer: issuer, Subject: "somebody@example.test"}, "certificate"},
		{"another issuer", dir, good, trusted, Identity{Issuer: "https://other.example.test", Subject: subject}, "certificate"},
		{"a pattern for a part of the subject", dir, good, trusted, Identity{Issuer: issuer, SubjectPattern: `example\.test`}, "certificate"},
		{"no issuer", dir, good, trusted, Identity{Subject: subject}, "want an issuer"},
		{"no subject", dir, good, trusted, Identity{Issuer: issuer}, "want an issuer"},
		{"subject and pattern", dir, good, trusted, Identity{issuer, subject, ".*"}, "want an issuer"},
		{"a bad pattern", dir, good, trusted, Identity{Issuer: issuer, SubjectPattern: "("}, "identity"},
		{"another sigstore's root", dir, good, releasetest.TrustedRoot(t, stranger, false), Identity{Issuer: issuer, Subject: subject}, ""},
		{"another sigstore's signature", dir, releasetest.Bundle(t, stranger, statement), trusted,
			Identity{Issuer: issuer, Subject: subject}, ""},
		{"no certificate timestamp where the root wants one", dir, good, releasetest.TrustedRoot(t, sigstore, true),
			Identity{Issuer: issuer, Subject: subject}, ""},
		{"another statement", dir, releasetest.Bundle(t, sigstore, other), trusted, Identity{Issuer: issuer, Subject: subject},
			"another statement"},
		{"signed by a key", dir, byKey, trusted, Identity{Issuer: issuer, Subject: subject}, ""},
		{"another manifest", changed(ManifestName), good, trusted, Identity{Issuer: issuer, Subject: subject}, ""},
		{"another root", changed("root.img"), good, trusted, Identity{Issuer: issuer, Subject: subject}, "root.img: sha256"},
		{"another provenance file", changed(ProvenanceName), good, trusted, Identity{Issuer: issuer, Subject: subject}, "another statement"},
		{"too long", dir, make([]byte, maxBundleBytes+1), trusted, Identity{Issuer: issuer, Subject: subject}, "want at most"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := Verify(tt.dir, tt.bundle, tt.trusted, tt.id)
			if accepted := tt.name == "the signer" || tt.name == "by a pattern"; accepted {
				if err != nil || s.Subject != subject || s.Issuer != issuer || s.Time.IsZero() {
					t.Errorf("got %+v, error %v, want the signer", s, err)
				}
				return
			}
			if err == nil || s != (Signer{}) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %+v, error %v, want one with %q", s, err, tt.want)
			}
		})
	}
	// A certificate's bundle is no key's.
	if _, err := VerifyKey(dir, good, publicOf(testKey(1))); err == nil {
		t.Error("a certificate where a key is asked for: got no error")
	}
	// Every part of the bundle counts.
	for _, part := range []string{`"inclusionProof":`, `"canonicalizedBody":`, `"rawBytes":`, `"sig":`} {
		at := bytes.Index(good, []byte(part))
		if at < 0 {
			t.Fatalf("the bundle has no %s", part)
		}
		bad := bytes.Clone(good)
		from := at + len(part) + 40
		for bad[from] == '"' || bad[from] == ':' || bad[from] == ',' {
			from++
		}
		if bad[from] == 'A' {
			bad[from] = 'B'
		} else {
			bad[from] = 'A'
		}
		if _, err := Verify(dir, bad, trusted, Identity{Issuer: issuer, Subject: subject}); err == nil {
			t.Errorf("%s changed: got no error, want a refusal", part)
		}
	}
}

// TestTrustedRootFile reads the root as a file and refuses what is none.
func TestTrustedRootFile(t *testing.T) {
	sigstore, err := ca.NewVirtualSigstore()
	if err != nil {
		t.Fatal(err)
	}
	text, err := releasetest.TrustedRoot(t, sigstore, false).MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	trusted, err := ReadTrustedRoot(text)
	if err != nil {
		t.Fatal(err)
	}
	dir, statement := fullFolder(t)
	if _, err := Verify(dir, releasetest.Bundle(t, sigstore, statement), trusted, Identity{Issuer: issuer, Subject: subject}); err != nil {
		t.Errorf("with the root out of a file: %v", err)
	}
	for name, data := range map[string][]byte{"empty": nil, "no JSON": []byte("x"), "unknown member": []byte(`{"extra":1}`),
		"too long": make([]byte, maxBundleBytes+1)} {
		if _, err := ReadTrustedRoot(data); err == nil {
			t.Errorf("%s: got no error, want a refusal", name)
		}
	}
}
