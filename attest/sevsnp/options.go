package sevsnp

import (
	"time"

	"chrysalis/attest/check"
)

// Options is what a client accepts. The zero value accepts nothing: no chip is named, no patch level is given. A field that
// is absent is the strictest; whatever makes an appraisal accept more has a name that says so. An Any… or InsecureSkip… field
// counts only where the field that it stands in for is not set.
type Options struct {
	// Facts remembers signatures of certificates and revocation lists between calls; nil remembers nothing. What it remembers
	// never changes a verdict.
	Facts *check.Facts

	// Chips are the CHIP_IDs that are accepted. AnyChip accepts every chip that a root vouches for. Danger: the keys of one
	// chip that its owner has broken forge evidence for all.
	Chips   [][64]byte
	AnyChip bool
	// AllowMaskedChip accepts a report whose CHIP_ID the host has masked. Danger: where a VLEK signs, nothing names the machine;
	// a VCEK's certificate names it all the same, and Chips are held against that.
	AllowMaskedChip bool

	// MinTCB is compared, part by part, with the reported, committed, current and launch patch levels; a line of processors
	// without an entry is refused. InsecureSkipTCB accepts every level that the signing key was derived for. Danger: also
	// those with published weaknesses.
	MinTCB          map[Product]TCB
	InsecureSkipTCB bool
	// AllowProvisionalFirmware accepts firmware that is newer than what the host has committed to. Danger: the host can go
	// back to the committed one while the guest runs.
	AllowProvisionalFirmware bool
	// MinFirmware and MinABI refuse older firmware, and guests that would run on an older interface. Zero: any that MinTCB accepts.
	MinFirmware        Firmware
	MinABIMajor        uint8
	MinABIMinor        uint8
	LaunchMitigations  uint64 // bits that must be set in the vector; a report before version 5 has none
	CurrentMitigations uint64
	// InsecureSkipCRL does without a revocation list; one that is given is judged all the same.
	InsecureSkipCRL bool

	// MaxCRLAge is how long after its issue a revocation list is believed; default as long as it says itself. AMD issues one a year.
	MaxCRLAge time.Duration

	// MaxVMPL is the lowest privilege level that is accepted: 0 alone by default, 3 at most.
	MaxVMPL uint32
	// AllowMigrationAgent accepts a guest whose migration agent can move it. Danger: the agent holds the guest's keys.
	AllowMigrationAgent bool
	// AllowSMT accepts sibling threads of the host's choice. Nearly every host has them.
	AllowSMT bool
	// AllowManySockets accepts memory traffic between sockets.
	AllowManySockets bool
	// AllowCXL accepts memory on CXL devices.
	AllowCXL bool
	// AllowAES128 accepts memory encryption by AES-128-XEX.
	AllowAES128 bool
	// AllowRAPL accepts energy counters, which tell of what is computed.
	AllowRAPL bool
	// AllowVisibleCiphertext accepts a host that can watch ciphertext change. Milan and most Genoa hosts can't hide it.
	AllowVisibleCiphertext bool
	// AllowPageSwap accepts a host that moves and swaps the guest's pages.
	AllowPageSwap bool
	// AllowUnknownPlatformInfo accepts a machine whose firmware tells of its set-up in bits that the specification reserves, as
	// Turin's does. Danger: what they say is not known.
	AllowUnknownPlatformInfo bool
	// AllowUncheckedAliases accepts a machine whose firmware does not say that it looked for aliased memory (BadRAM).
	AllowUncheckedAliases bool

	// Measurements are the launch digests that are accepted; AnyMeasurement accepts every guest.
	Measurements   [][48]byte
	AnyMeasurement bool
	// HostData must be equal, zeros when it is not set; AnyHostData accepts every value.
	HostData    [32]byte
	AnyHostData bool
	// ReportData must be equal, zeros when it is not set; AnyReportData accepts every value. Danger: the report may then be
	// another's, or of another time.
	ReportData    [64]byte
	AnyReportData bool
	// IDBlock must be equal, without an id block when it is not set; AnyIDBlock accepts every one.
	IDBlock    IDBlock
	AnyIDBlock bool
	// IDKeys accepts every id block that one of these keys has signed, beside IDBlock. Danger: whoever has such a key says which
	// family and image a guest is, and of which version; the measurement is judged all the same.
	IDKeys []IDKeys
	// MinGuestSVN refuses guests whose id block gives them a lower security version.
	MinGuestSVN uint32
}

// IDBlock is who a guest's owner says the guest is, as the firmware has verified it at launch. Without an id block all of
// it is zeros.
type IDBlock struct {
	FamilyID, ImageID            [16]byte
	IDKeyDigest, AuthorKeyDigest [48]byte // SHA-384; the author's is zeros when no author key signed the id key
}

// IDKeys are the keys behind an id block, by their SHA-384. The author's is zeros for an id key that no author key signed.
type IDKeys struct{ IDKeyDigest, AuthorKeyDigest [48]byte }
