package api

import (
	"crypto/sha256"
	"strings"
	"testing"
)

// TestKey: a key has one text.
func TestKey(t *testing.T) {
	k := Key{Contract: [32]byte{1, 0xfb}, Secret: [32]byte{2, 0xff}}
	text := k.String()
	if got, err := ParseKey(text); err != nil || got != k {
		t.Errorf("%s: got %x (%v), want %x", text, got, err, k)
	}
	if got, want := k.SecretHash(), sha256.Sum256([]byte(text[46:])); got != want {
		t.Errorf("hash is %x, want %x", got, want)
	}
	for name, bad := range map[string]string{
		"nothing": "", "no prefix": text[3:], "another prefix": "sk-" + text[3:], "short": text[:len(text)-1], "long": text + "A",
		"padded": text + "=", "another alphabet": strings.NewReplacer("-", "+", "_", "/").Replace(text), "a line": text[:40] + "\n" + text[41:],
		"bits behind the end": text[:len(text)-1] + "B", "bits behind the middle": text[:45] + "B" + text[46:],
	} {
		if got, err := ParseKey(bad); err == nil || strings.Contains(err.Error(), text[10:20]) {
			t.Errorf("%s: got %x (%v), want an error that says nothing of it", name, got, err)
		}
	}
}

// FuzzKey: what is accepted is the text of a key.
func FuzzKey(f *testing.F) {
	f.Add(Key{Secret: [32]byte{1}}.String())
	f.Add("ck-")
	f.Fuzz(func(t *testing.T, text string) {
		if k, err := ParseKey(text); err == nil && k.String() != text {
			t.Fatalf("%q is a second text of a key", text)
		}
	})
}

// TestDerive: a key of a name follows from a contract's own, and from no other.
func TestDerive(t *testing.T) {
	own := Key{Contract: [32]byte{1}, Secret: [32]byte{2}}
	ci := own.Derive("ci")
	if got := own.Derive("ci"); got != ci || ci.Contract != own.Contract || ci.Secret == own.Secret {
		t.Errorf("got %x and %x", got, ci)
	}
	other := own
	other.Secret[0]++
	twin := own
	twin.Contract[0]++
	for name, k := range map[string]Key{"another name": own.Derive("cd"), "another secret": other.Derive("ci"), "another contract": twin.Derive("ci"), "itself": own, "one of its": ci.Derive("ci")} {
		if k.Secret == ci.Secret {
			t.Errorf("%s has the secret of ci", name)
		}
	}
	if want := "ck-AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"; !strings.HasPrefix(ci.String(), want) {
		t.Errorf("got %s, want %s…", ci, want)
	}
	for name, ok := range map[string]bool{"ci": true, "a-b-0": true, "abcdefghijklmnop": true, "": false, "abcdefghijklmnopq": false, "A": false, "a b": false, "ä": false, "a\x00": false} {
		if err := CheckKeyName(name); (err == nil) != ok {
			t.Errorf("name %q: got %v, want it good: %t", name, err, ok)
		}
	}
}
