package claim

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"chrysalis/attest/check"
	"chrysalis/measure/ton"
)

// TestLine: a message as a line has one form.
func TestLine(t *testing.T) {
	key := ed25519.NewKeyFromSeed(make([]byte, 32))
	m := Message{Op: ClientCharge, Tokens: 5, Contract: ton.Address{Account: [32]byte{1}}, Excesses: ton.Address{Account: [32]byte{2}}}
	charge, err := Sign(key, m)
	if err != nil {
		t.Fatal(err)
	}
	closing, err := SignClose(key, Message{Op: ProxyClose, Contract: m.Contract, Excesses: m.Excesses})
	if err != nil {
		t.Fatal(err)
	}
	for _, body := range [][]byte{charge[:], closing[:]} {
		if got, err := ParseLine(Line(body)); err != nil || string(got) != string(body) {
			t.Errorf("got %x (%v), want %x", got, err, body)
		}
	}
	line := Line(charge[:])
	for name, bad := range map[string]string{
		"nothing": "", "another word": "proof" + line[5:], "an end": line + "\n", "a space more": "claim  " + line[6:],
		"more": line + "AAAA", "without check sum": "claim " + base64.StdEncoding.EncodeToString(charge[:BodySize-4]),
		"another alphabet": strings.ReplaceAll(line, "+", "-"), "a changed byte": strings.Replace(line, "tQIB", "tQIC", 1) + "",
		"no message": "claim " + base64.StdEncoding.EncodeToString(make([]byte, BodySize)),
	} {
		if bad == line {
			bad += "=" // the alphabet or the bytes did not differ
		}
		if got, err := ParseLine(bad); !errors.Is(err, check.ErrRejected) {
			t.Errorf("%s: got %x (%v), want it rejected", name, got, err)
		}
	}
}
