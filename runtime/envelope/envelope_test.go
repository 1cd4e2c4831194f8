package envelope_test

import (
	"bytes"
	"crypto/hpke"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"chrysalis/attest"
	"chrysalis/attest/attesttest"
	"chrysalis/attest/evidence"
	"chrysalis/runtime/envelope"
	"chrysalis/runtime/envelope/guest"
)

// verified returns a software guest's HPKE key, and the Result that a client has of it.
func verified(t testing.TB, withKey bool) (hpke.PrivateKey, *attest.Result) {
	t.Helper()
	measured, err := os.ReadFile(filepath.Join("..", "..", "measure", "config", "testdata", "vectors", "measured.bin"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := hpke.MLKEM768X25519().GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	g := attesttest.New(measured, time.Now())
	g.Statement.HPKEKey = sha256.Sum256(key.PublicKey().Bytes())
	challenge := attest.Challenge{Nonce: [32]byte{1}, Exporter: [32]byte{2}, TLSKey: [32]byte{3}}
	e := g.Evidence(challenge)
	if withKey {
		e.HPKE = key.PublicKey().Bytes()
	}
	result, err := attest.Verify(e, challenge, g.Policy(), time.Now(), g.Roots())
	if err != nil {
		t.Fatal(err)
	}
	return key, result
}

// TestSealAndOpen goes from a Result to a request that the guest alone opens, and back.
func TestSealAndOpen(t *testing.T) {
	private, result := verified(t, true)
	key, err := envelope.KeyOf(result)
	if err != nil {
		t.Fatal(err)
	}
	request := envelope.Request{Method: "POST", Path: "/v1/chat/completions", Header: []envelope.Field{{Name: "authorization", Value: "Bearer x"}},
		Body: []byte("canary")}
	sealed, answer, err := key.Seal(request, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(sealed, request.Body) || bytes.Contains(sealed, []byte("Bearer")) {
		t.Error("what is sealed can be read")
	}
	opener := guest.NewOpener(func(id evidence.KeyID) (guest.Key, bool) {
		return guest.Key{PrivateKey: private, Epoch: result.Epoch(), Instance: result.SecretHash()}, fmt.Sprintf("%x", id) == key.ID()
	}, nil)
	got, secret, err := opener.Open(sealed, evidence.HPKEKeyID(sha256.Sum256(result.HPKEKey())), envelope.Method, request.Path)
	if err != nil || string(got.Body) != "canary" || got.Header[0] != request.Header[0] {
		t.Fatalf("opened: got %+v, %v", got, err)
	}
	var out bytes.Buffer
	w, err := secret.Seal(&out)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Begin(201, []envelope.Field{{Name: "content-type", Value: "text/plain"}}); err != nil {
		t.Fatal(err)
	}
	io.WriteString(w, "yellow")
	w.Close()
	response, err := answer.Open(&out)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(response); err != nil || string(text) != "yellow" || response.Status != 201 || response.Header[0].Value != "text/plain" {
		t.Errorf("answer: got %d, %q (%v)", response.Status, text, err)
	}
}

func TestSealRefuses(t *testing.T) {
	_, bare := verified(t, false)
	if _, err := envelope.KeyOf(bare); err == nil {
		t.Error("a guest that has shown no key: got one")
	}
	_, result := verified(t, true)
	key, err := envelope.KeyOf(result)
	if err != nil {
		t.Fatal(err)
	}
	request := envelope.Request{Method: "GET", Path: "/v1/models"}
	if _, _, err := key.Seal(request, key.NotAfter()); err != nil {
		t.Errorf("in the key's last second: got %v", err)
	}
	if _, _, err := key.Seal(request, key.NotAfter().Add(time.Nanosecond)); err == nil {
		t.Error("after the key's time: it seals")
	}
	if _, _, err := key.Seal(envelope.Request{Method: "GET", Path: "models"}, time.Now()); err == nil {
		t.Error("a path that is none: it seals")
	}
}

// TestSpecification pins what ENVELOPE.md states.
func TestSpecification(t *testing.T) {
	text, err := os.ReadFile("ENVELOPE.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		envelope.RequestType, envelope.ResponseType, envelope.KeyHeader, fmt.Sprintf("%#04x", hpke.MLKEM768X25519().ID()),
		fmt.Sprintf("%#04x", hpke.HKDFSHA256().ID()), fmt.Sprintf("%#04x", hpke.AES256GCM().ID()),
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("ENVELOPE.md does not say %q", want)
		}
	}
}
