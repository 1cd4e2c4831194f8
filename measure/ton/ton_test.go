package ton

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/xssnick/tonutils-go/address"
)

func TestParse(t *testing.T) {
	raw := "0:a72edb85294a01228bd5c169b9c2cb19a3322095d5df4c0f040c95c8e132c9d4"
	for _, tt := range []struct{ text, want string }{
		{raw, raw},
		{"-1:" + raw[2:], "-1:" + raw[2:]},
		{address.MustParseRawAddr(raw).String(), raw},
		{address.MustParseRawAddr(raw).Bounce(false).String(), raw},
		{address.MustParseRawAddr(raw).Testnet(true).String(), raw},
		{address.MustParseRawAddr("-1:" + raw[2:]).String(), "-1:" + raw[2:]},
	} {
		got, err := Parse(tt.text)
		if err != nil {
			t.Errorf("%s: %v", tt.text, err)
		} else if got.String() != tt.want {
			t.Errorf("%s: got %s, want %s", tt.text, got, tt.want)
		}
	}
	friendly := address.MustParseRawAddr(raw).String()
	for _, text := range []string{"", "0:", "1:" + raw[2:], "00:" + raw[2:], strings.ToUpper(raw), raw + "0", friendly[:47], friendly + "A",
		friendly[:20] + "A" + friendly[21:], address.MustParseRawAddr("5:" + raw[2:]).String()} {
		if got, err := Parse(text); err == nil {
			t.Errorf("%q: got %s, want an error", text, got)
		}
	}
}

// TestTextIsRaw: a document has one text for each account, so the user-friendly form is none.
func TestTextIsRaw(t *testing.T) {
	raw := "-1:a72edb85294a01228bd5c169b9c2cb19a3322095d5df4c0f040c95c8e132c9d4"
	var a Address
	if err := json.Unmarshal([]byte(`"`+raw+`"`), &a); err != nil || a.Workchain != -1 || a.Account[0] != 0xa7 {
		t.Errorf("got %v (%v), want %s", a, err, raw)
	}
	if got, err := json.Marshal(a); err != nil || string(got) != `"`+raw+`"` {
		t.Errorf("got %s (%v), want %s", got, err, raw)
	}
	for _, text := range []string{"", address.MustParseRawAddr(raw).String(), "a7" + raw[5:], "-01" + raw[2:], "1" + raw[2:], raw + "00",
		raw[:len(raw)-1], "-1:A7" + raw[5:], "-1::" + raw[3:]} {
		b := a
		if err := b.UnmarshalText([]byte(text)); err == nil || b != a {
			t.Errorf("%q: got %v (%v), want an error and nothing changed", text, b, err)
		}
	}
}

// TestFriendly: what wallets are given is what others make of the account.
func TestFriendly(t *testing.T) {
	for _, raw := range []string{"0:a72edb85294a01228bd5c169b9c2cb19a3322095d5df4c0f040c95c8e132c9d4",
		"-1:a72edb85294a01228bd5c169b9c2cb19a3322095d5df4c0f040c95c8e132c9d4"} {
		a, err := Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		for _, bounceable := range []bool{true, false} {
			if got, want := a.Friendly(bounceable), address.MustParseRawAddr(raw).Bounce(bounceable).String(); got != want {
				t.Errorf("%s: got %s, want %s", raw, got, want)
			}
			if back, err := Parse(a.Friendly(bounceable)); err != nil || back != a {
				t.Errorf("%s: read back as %s (%v)", raw, back, err)
			}
		}
	}
}

func TestCheck(t *testing.T) {
	for _, tt := range []struct {
		address Address
		want    string
	}{
		{Address{Account: [32]byte{1}}, ""},
		{Address{Workchain: -1}, ""},
		{Address{}, "is zero"},
		{Address{Workchain: 1, Account: [32]byte{1}}, "workchain is 1"},
	} {
		if err := tt.address.Check(); (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.address, err, tt.want)
		}
	}
}

// FuzzParse parses any text: what is accepted is one account, whose raw form means the same.
func FuzzParse(f *testing.F) {
	raw := "0:a72edb85294a01228bd5c169b9c2cb19a3322095d5df4c0f040c95c8e132c9d4"
	f.Add(raw)
	f.Add("-1:" + raw[2:])
	f.Add(address.MustParseRawAddr(raw).String())
	f.Add("0:" + strings.ToUpper(raw[2:]))
	f.Fuzz(func(t *testing.T, text string) {
		a, err := Parse(text)
		if err != nil {
			return
		}
		if again, err := Parse(a.String()); err != nil || again != a {
			t.Fatalf("%s parsed again: got %v (%v)", a, again, err)
		}
		var document Address
		if err := document.UnmarshalText([]byte(text)); err == nil && document.String() != text {
			t.Fatalf("%q is a second text of %s", text, document)
		}
	})
}
