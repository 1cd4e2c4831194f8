package register

import (
	"encoding/hex"
	"fmt"
)

// Digest is a SHA-256 value. Its text form is 64 lower-case hexadecimal digits and nothing else.
type Digest [32]byte

func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// MarshalText returns the 64 hexadecimal digits.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText accepts exactly 64 lower-case hexadecimal digits.
func (d *Digest) UnmarshalText(text []byte) error {
	if len(text) != hex.EncodedLen(len(d)) {
		return fmt.Errorf("digest has %d characters, want %d", len(text), hex.EncodedLen(len(d)))
	}
	var got Digest
	if _, err := hex.Decode(got[:], text); err != nil {
		return fmt.Errorf("digest: %v", err)
	}
	if got.String() != string(text) {
		return fmt.Errorf("digest %q is not in lower case", text)
	}
	*d = got
	return nil
}

// Digest384 is a SHA-384 value, as MRTD, the RTMRs and a launch digest are. Its text form is 96 lower-case hexadecimal digits.
type Digest384 [48]byte

func (d Digest384) String() string { return hex.EncodeToString(d[:]) }

// MarshalText returns the 96 hexadecimal digits.
func (d Digest384) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText accepts exactly 96 lower-case hexadecimal digits.
func (d *Digest384) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	if err != nil || len(b) != len(d) || hex.EncodeToString(b) != string(text) {
		return fmt.Errorf("register is %.100q, want %d lower-case hexadecimal digits", text, hex.EncodedLen(len(d)))
	}
	*d = Digest384(b)
	return nil
}
