// Package ton has the words of the chain on which answers are paid: accounts, amounts and prices. The measured config, receipts,
// charges and the gateway all mean these.
//
// The common path: UnmarshalText or Parse, and String.
//
// What this package does not promise: that an account exists. It knows no network.
package ton

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// Address is a TON account: workchain and account id. The zero Address is workchain 0 with an id of zeros, to which no
// contract is ever deployed; it stands for "absent".
type Address struct {
	Workchain int8
	Account   [32]byte
}

// String returns the raw form: workchain, colon, 64 lower-case hexadecimal digits.
func (a Address) String() string {
	return fmt.Sprintf("%d:%x", a.Workchain, a.Account)
}

// IsZero reports whether a is the zero Address.
func (a Address) IsZero() bool { return a == Address{} }

// Check refuses the zero Address and every workchain but 0 and -1.
func (a Address) Check() error {
	if a.IsZero() {
		return errors.New("address is zero, want an account's")
	}
	if a.Workchain != 0 && a.Workchain != -1 {
		return fmt.Errorf("workchain is %d, want 0 or -1", a.Workchain)
	}
	return nil
}

// MarshalText returns the raw form.
func (a Address) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText accepts the raw form and nothing else: a document has one text for each account.
func (a *Address) UnmarshalText(text []byte) error {
	got, err := parseRaw(string(text))
	if err != nil {
		return fmt.Errorf("parsing address: %v", err)
	}
	*a = got
	return nil
}

// Flags of the user-friendly form (TEP-2).
const (
	tagBounceable = 0x11
	tagNonBounce  = 0x51
	tagTestOnly   = 0x80
)

// Parse reads the raw form (0:… or -1:…, hexadecimal in lower case) or the user-friendly form of TEP-2 (48 characters in
// either base64 alphabet). It refuses workchains other than 0 and -1. The bounceable and test-only flags of the
// user-friendly form do not belong to the account and are dropped.
func Parse(text string) (Address, error) {
	parse := parseFriendly
	if strings.Contains(text, ":") {
		parse = parseRaw
	}
	a, err := parse(text)
	if err != nil {
		return Address{}, fmt.Errorf("parsing address: %v", err)
	}
	return a, nil
}

func parseRaw(text string) (Address, error) {
	workchain, account, _ := strings.Cut(text, ":")
	var a Address
	switch workchain {
	case "0":
	case "-1":
		a.Workchain = -1
	default:
		return Address{}, fmt.Errorf("workchain is %.10q, want 0: or -1: and 64 lower-case hexadecimal digits", workchain)
	}
	raw, err := hex.DecodeString(account)
	switch {
	case err != nil || len(raw) != len(a.Account):
		return Address{}, fmt.Errorf("account is %.80q, want 64 lower-case hexadecimal digits", account)
	case strings.ToLower(account) != account:
		return Address{}, fmt.Errorf("account %q is not in lower case", account)
	}
	a.Account = [32]byte(raw)
	return a, nil
}

func parseFriendly(text string) (Address, error) {
	if len(text) != 48 {
		return Address{}, fmt.Errorf("%d characters, want 48 or WORKCHAIN:HEX", len(text))
	}
	alphabet := base64.RawURLEncoding
	if strings.ContainsAny(text, "+/") {
		alphabet = base64.RawStdEncoding
	}
	raw, err := alphabet.Strict().DecodeString(text)
	if err != nil {
		return Address{}, err
	}
	if got, want := crc16(raw[:34]), binary.BigEndian.Uint16(raw[34:]); got != want {
		return Address{}, fmt.Errorf("check sum is %04x, want %04x", want, got)
	}
	if tag := raw[0] &^ tagTestOnly; tag != tagBounceable && tag != tagNonBounce {
		return Address{}, fmt.Errorf("tag is %#02x, want %#02x or %#02x", tag, tagBounceable, tagNonBounce)
	}
	a := Address{Workchain: int8(raw[1]), Account: [32]byte(raw[2:34])}
	if !a.IsZero() {
		err = a.Check()
	}
	return a, err
}

// Friendly returns the form that wallets take: 48 characters of the URL's base64. A message to a bounceable address comes back where no
// contract takes it.
func (a Address) Friendly(bounceable bool) string {
	raw := make([]byte, 2, 36)
	raw[0], raw[1] = tagBounceable, byte(a.Workchain)
	if !bounceable {
		raw[0] = tagNonBounce
	}
	raw = append(raw, a.Account[:]...)
	return base64.RawURLEncoding.EncodeToString(binary.BigEndian.AppendUint16(raw, crc16(raw)))
}

// crc16 is CRC-16/XMODEM: polynomial 0x1021, no reflection, initial value 0.
func crc16(data []byte) uint16 {
	var crc uint16
	for _, b := range data {
		crc ^= uint16(b) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
	}
	return crc
}
