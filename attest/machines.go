package attest

import (
	"encoding/hex"
	"fmt"

	"chrysalis/attest/release"
	"chrysalis/measure/register"
)

// Platforms is the allow-list of machines. An owner of a machine who breaks its hardware can forge its evidence, so a
// client that names the machines it trusts is safer than one that trusts a maker.
type Platforms struct {
	// Any trusts every machine whose keys a root vouches for. Danger: the keys of one broken machine forge evidence for
	// all. Exclusive with the lists.
	Any bool `json:"any_platform"`
	// VTPM are SHA-256 digests of attestation keys (SubjectPublicKeyInfo).
	VTPM []register.Digest `json:"vtpm"`
	TDX  []PPID            `json:"tdx"`
	// SEVSNP are chips. A report that a cloud's VLEK signs can hide its chip, and is then on no list.
	SEVSNP []ChipID `json:"sev_snp"`
}

func (p Platforms) validate() error {
	if n := len(p.VTPM) + len(p.TDX) + len(p.SEVSNP); p.Any == (n > 0) || n > release.MaxListed {
		return fmt.Errorf("any_platform is %t beside %d named machines, want either any_platform or 1 to %d machines",
			p.Any, n, release.MaxListed)
	}
	return nil
}

// PPID names a TDX machine in its PCK certificate. In JSON 32 lower-case hexadecimal digits.
type PPID [16]byte

// MarshalText returns the digits.
func (id PPID) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, id[:]), nil }

// UnmarshalText accepts exactly the digits.
func (id *PPID) UnmarshalText(text []byte) error { return digits(id[:], text) }

// ChipID names a processor in an SEV-SNP report. In JSON 128 lower-case hexadecimal digits.
type ChipID [64]byte

// MarshalText returns the digits.
func (id ChipID) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, id[:]), nil }

// UnmarshalText accepts exactly the digits.
func (id *ChipID) UnmarshalText(text []byte) error { return digits(id[:], text) }

func digits(into, text []byte) error {
	b, err := hex.DecodeString(string(text))
	if err != nil || len(b) != len(into) || hex.EncodeToString(b) != string(text) {
		return fmt.Errorf("got %.140q, want %d lower-case hexadecimal digits", text, hex.EncodedLen(len(into)))
	}
	copy(into, b)
	return nil
}
