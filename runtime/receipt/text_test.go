package receipt

import (
	"crypto/ed25519"
	"errors"
	"strings"
	"testing"

	"chrysalis/attest/check"
	"chrysalis/measure/pubkey"
)

// TestText: a signature is for one request, one answer and one key, and what is signed is no receipt.
func TestText(t *testing.T) {
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	request, answer := [32]byte{1}, [32]byte{0xab}
	if got, want := Text(request, answer), "01"+strings.Repeat("0", 62)+":ab"+strings.Repeat("0", 62); got != want {
		t.Errorf("text: got %s, want %s", got, want)
	}
	signed, err := SignText(key, request, answer)
	if err != nil {
		t.Fatal(err)
	}
	public := pubkey.Of(key)
	if err := VerifyText(request, answer, signed, public); err != nil {
		t.Errorf("got %v, want it accepted", err)
	}
	other := signed
	other[0]++
	for name, err := range map[string]error{
		"another request": VerifyText([32]byte{2}, answer, signed, public),
		"another answer":  VerifyText(request, [32]byte{2}, signed, public),
		"swapped":         VerifyText(answer, request, signed, public),
		"a signature":     VerifyText(request, answer, other, public),
		"another key":     VerifyText(request, answer, signed, pubkey.Of(ed25519.NewKeyFromSeed(append(make([]byte, 31), 1)))),
		"the zero key":    VerifyText(request, answer, signed, pubkey.Ed25519{}),
	} {
		if !errors.Is(err, check.ErrRejected) {
			t.Errorf("%s: got %v, want a rejection", name, err)
		}
	}
	if _, err := Parse([]byte(Text(request, answer) + strings.Repeat("0", Size))[:Size]); !errors.Is(err, check.ErrRejected) {
		t.Errorf("as a receipt: got %v, want a rejection", err)
	}
}
