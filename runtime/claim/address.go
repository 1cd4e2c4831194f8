package claim

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
)

// Address is a TON account: workchain and account id. The zero Address is workchain 0 with an id of zeros, to which no
// contract is ever deployed; this package takes it for "absent".
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

// Flags of the user-friendly form (TEP-2).
const (
	tagBounceable = 0x11
	tagNonBounce  = 0x51
	tagTestOnly   = 0x80
)

// ParseAddress reads the raw form (0:… or -1:…, hexadecimal in lower case) or the user-friendly form of TEP-2 (48
// characters in either base64 alphabet). It refuses workchains other than 0 and -1. The bounceable and test-only flags
// of the user-friendly form do not belong to the account and are dropped.
func ParseAddress(text string) (Address, error) {
	if workchain, account, ok := strings.Cut(text, ":"); ok {
		return parseRaw(workchain, account)
	}
	if len(text) != 48 {
		return Address{}, fmt.Errorf("parsing address: %d characters, want 48 or WORKCHAIN:HEX", len(text))
	}
	alphabet := base64.RawURLEncoding
	if strings.ContainsAny(text, "+/") {
		alphabet = base64.RawStdEncoding
	}
	raw, err := alphabet.Strict().DecodeString(text)
	if err != nil {
		return Address{}, fmt.Errorf("parsing address: %v", err)
	}
	if got, want := crc16(raw[:34]), binary.BigEndian.Uint16(raw[34:]); got != want {
		return Address{}, fmt.Errorf("parsing address: check sum is %04x, want %04x", want, got)
	}
	if tag := raw[0] &^ tagTestOnly; tag != tagBounceable && tag != tagNonBounce {
		return Address{}, fmt.Errorf("parsing address: tag is %#02x, want %#02x or %#02x", tag, tagBounceable, tagNonBounce)
	}
	a := Address{Workchain: int8(raw[1]), Account: [32]byte(raw[2:34])}
	return a, a.validate()
}

func parseRaw(workchain, account string) (Address, error) {
	var a Address
	switch workchain {
	case "0":
	case "-1":
		a.Workchain = -1
	default:
		return Address{}, fmt.Errorf("parsing address: workchain is %.10q, want 0 or -1", workchain)
	}
	raw, err := hex.DecodeString(account)
	if err != nil || len(raw) != len(a.Account) || strings.ToLower(account) != account {
		return Address{}, fmt.Errorf("parsing address: account is %.80q, want 64 lower-case hexadecimal digits", account)
	}
	a.Account = [32]byte(raw)
	return a, nil
}

func (a Address) validate() error {
	if a.Workchain != 0 && a.Workchain != -1 {
		return fmt.Errorf("workchain is %d, want 0 or -1", a.Workchain)
	}
	return nil
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
