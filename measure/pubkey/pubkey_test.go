package pubkey

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"strings"
	"testing"
)

func private() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32)) }

const text = "ea4a6c63e29c520abef5507b132ec5f9954776aebebe7b92421eea691446d22c"

func TestText(t *testing.T) {
	k := Of(private())
	if got, err := json.Marshal(k); err != nil || string(got) != `"`+text+`"` {
		t.Errorf("got %s (%v), want %q", got, err, text)
	}
	if again, err := Parse(text); err != nil || again != k {
		t.Errorf("parsed: got %s (%v), want %s", again, err, k)
	}
	for _, tt := range []struct{ name, text, want string }{
		{"empty", "", "0 characters, want 64"},
		{"short", text[:62], "62 characters, want 64"},
		{"long", text + "00", "66 characters, want 64"},
		{"upper case", strings.ToUpper(text), "not in lower case"},
		{"no digit", "x" + text[1:], "invalid byte"},
		{"zeros", strings.Repeat("0", 64), "key is zero"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			again := k
			if err := again.UnmarshalText([]byte(tt.text)); err == nil || !strings.Contains(err.Error(), tt.want) || again != k {
				t.Errorf("got %s (%v), want the error %q and nothing changed", again, err, tt.want)
			}
		})
	}
}

// TestZeroVerifiesNothing has a signature that every message has under the key of zeros: its point is of order 4, so that
// with R the same kind of point and S zero the equation holds for one challenge in four.
func TestZeroVerifiesNothing(t *testing.T) {
	forged := make([]byte, ed25519.SignatureSize)
	forged[0] = 1 // R is the neutral point, S is zero
	holds := 0
	for i := range byte(64) {
		message := []byte{i}
		if ed25519.Verify(make([]byte, 32), message, forged) {
			holds++
		}
		if (Ed25519{}).Verify(message, forged) {
			t.Errorf("message %d: the zero key verifies a forged signature", i)
		}
	}
	if holds == 0 {
		t.Error("no forged signature holds under zeros: the test shows nothing")
	}
}

func TestVerify(t *testing.T) {
	k, message := Of(private()), []byte("message")
	signature := ed25519.Sign(private(), message)
	if !k.Verify(message, signature) {
		t.Error("got a good signature refused")
	}
	for name, s := range map[string][]byte{"none": nil, "short": signature[:63], "other": append([]byte{signature[0] ^ 1}, signature[1:]...)} {
		if k.Verify(message, s) {
			t.Errorf("%s: got it accepted, want it refused", name)
		}
	}
	if k.Verify([]byte("Message"), signature) {
		t.Error("another message: got it accepted, want it refused")
	}
}

func FuzzUnmarshalText(f *testing.F) {
	f.Add(text)
	f.Add(strings.ToUpper(text))
	f.Add(strings.Repeat("0", 64))
	f.Fuzz(func(t *testing.T, text string) {
		if k, err := Parse(text); err == nil && k.String() != text {
			t.Errorf("%q and %q are one key", text, k)
		}
	})
}
