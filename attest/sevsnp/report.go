package sevsnp

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// Sizes and offsets of an ATTESTATION_REPORT: SEV Secure Nested Paging Firmware ABI Specification (AMD 56860), revision
// 1.58, table 23.
const (
	ReportSize = 0x4a0

	minVersion, maxVersion = 2, 5
	cpuidVersion           = 3 // the first that names the processor
	mitigationVersion      = 5 // the first with mitigation vectors

	signatureOffset = 0x2a0 // what lies before it is signed
	scalarSize      = 72    // R and S, little-endian; of P-384 the upper 24 bytes are zero
	p384Size        = 48

	algorithmECDSAP384SHA384 = 1 // chapter 10, table 139
)

// Signer is the SIGNING_KEY of a report.
type Signer uint8

// The signers that the specification gives a number to.
const (
	SignerVCEK Signer = 0 // a key of this chip at this patch level
	SignerVLEK Signer = 1 // a key that AMD gave a cloud
	SignerNone Signer = 7 // the report is not signed
)

func (s Signer) String() string {
	switch s {
	case SignerVCEK:
		return "VCEK"
	case SignerVLEK:
		return "VLEK"
	case SignerNone:
		return "none"
	}
	return fmt.Sprintf("reserved key %d", uint8(s))
}

// Policy is POLICY, what the guest's owner allowed the host at launch: table 9.
type Policy uint64

// The bits of a Policy. Above them all are reserved and zero; bits 0 to 15 hold the ABI version.
const (
	PolicySMT              Policy = 1 << 16 // sibling threads may run the guest
	policyReservedOne      Policy = 1 << 17
	PolicyMigrationAgent   Policy = 1 << 18 // a migration agent may be bound to the guest
	PolicyDebug            Policy = 1 << 19 // the host may read and write the guest's memory
	PolicySingleSocket     Policy = 1 << 20 // only one socket may run the guest
	PolicyCXL              Policy = 1 << 21 // memory may lie on CXL devices
	PolicyAES256           Policy = 1 << 22 // memory is encrypted by AES-256-XTS
	PolicyNoRAPL           Policy = 1 << 23 // energy counters are off
	PolicyCiphertextHidden Policy = 1 << 24 // the host can't read ciphertext in DRAM
	PolicyNoPageSwap       Policy = 1 << 25 // the host can't move or swap pages

	policyKnown Policy = 1<<26 - 1
)

// ABI returns the lowest version of the firmware's interface that the guest accepts.
func (p Policy) ABI() (major, minor uint8) { return uint8(p >> 8), uint8(p) }

// Platform is PLATFORM_INFO, how the machine was set up: table 24.
type Platform uint64

// The bits of a Platform. Bit 6 and those above TIO are reserved; firmware of Turin sets bit 6 all the same, so they are read
// and judged by the check platform-info.
const (
	PlatformSMT              Platform = 1 << 0
	PlatformTSME             Platform = 1 << 1 // all memory is encrypted
	PlatformECC              Platform = 1 << 2
	PlatformNoRAPL           Platform = 1 << 3
	PlatformCiphertextHidden Platform = 1 << 4
	PlatformAliasesChecked   Platform = 1 << 5 // no two addresses reach one memory cell (BadRAM)
	PlatformTIO              Platform = 1 << 7 // devices can be trusted

	platformKnown = PlatformSMT | PlatformTSME | PlatformECC | PlatformNoRAPL | PlatformCiphertextHidden | PlatformAliasesChecked | PlatformTIO
)

// Firmware is the version of the firmware of the AMD Secure Processor.
type Firmware struct {
	Major uint8 `json:"major"`
	Minor uint8 `json:"minor"`
	Build uint8 `json:"build"`
}

func (f Firmware) String() string { return fmt.Sprintf("%d.%d build %d", f.Major, f.Minor, f.Build) }

func (f Firmware) less(g Firmware) bool {
	return bytes.Compare([]byte{f.Major, f.Minor, f.Build}, []byte{g.Major, g.Minor, g.Build}) < 0
}

// Report is an ATTESTATION_REPORT. Until Verify accepts it, it is what somebody claims.
type Report struct {
	Version           uint32
	GuestSVN          uint32
	Policy            Policy
	FamilyID, ImageID [16]byte
	VMPL              uint32 // privilege level that asked, 0 the highest; all ones when the host asked
	SignatureAlgo     uint32
	CurrentTCB        TCBVersion // what runs
	Platform          Platform
	AuthorKeyEnabled  bool
	MaskChipKey       bool
	Signer            Signer
	ReportData        [64]byte
	Measurement       [48]byte
	HostData          [32]byte
	IDKeyDigest       [48]byte
	AuthorKeyDigest   [48]byte
	ReportID          [32]byte
	ReportIDMA        [32]byte   // of the migration agent; all ones when there is none
	ReportedTCB       TCBVersion // what the signing key is derived from
	CPUID             CPUID      // from version 3 on
	ChipID            [64]byte
	CommittedTCB      TCBVersion // what the host can't go below any more
	Current           Firmware
	Committed         Firmware
	LaunchTCB         TCBVersion // what ran when the guest was launched
	// LaunchMitigations and CurrentMitigations are vectors of mitigations, from version 5 on.
	LaunchMitigations, CurrentMitigations uint64
	R, S                                  [p384Size]byte // signature, big-endian
}

// CPUID names a processor: the combined family and model, and the stepping.
type CPUID struct{ Family, Model, Stepping uint8 }

// Parse parses a report of version 2 to 5. Every reserved bit must be what the specification says, and nothing may follow.
func Parse(raw []byte) (*Report, error) {
	if len(raw) != ReportSize {
		return nil, fmt.Errorf("parsing report: %d bytes, want %d", len(raw), ReportSize)
	}
	r, err := parse(raw)
	if err != nil {
		return nil, fmt.Errorf("parsing report: %w", err)
	}
	return r, nil
}

func parse(raw []byte) (*Report, error) {
	le := binary.LittleEndian
	r := &Report{
		Version: le.Uint32(raw), GuestSVN: le.Uint32(raw[0x04:]), Policy: Policy(le.Uint64(raw[0x08:])),
		FamilyID: [16]byte(raw[0x10:]), ImageID: [16]byte(raw[0x20:]), VMPL: le.Uint32(raw[0x30:]), SignatureAlgo: le.Uint32(raw[0x34:]),
		CurrentTCB: TCBVersion(raw[0x38:]), Platform: Platform(le.Uint64(raw[0x40:])),
		ReportData: [64]byte(raw[0x50:]), Measurement: [48]byte(raw[0x90:]), HostData: [32]byte(raw[0xc0:]),
		IDKeyDigest: [48]byte(raw[0xe0:]), AuthorKeyDigest: [48]byte(raw[0x110:]), ReportID: [32]byte(raw[0x140:]),
		ReportIDMA: [32]byte(raw[0x160:]), ReportedTCB: TCBVersion(raw[0x180:]), CPUID: CPUID{raw[0x188], raw[0x189], raw[0x18a]},
		ChipID: [64]byte(raw[0x1a0:]), CommittedTCB: TCBVersion(raw[0x1e0:]),
		Current:   Firmware{Build: raw[0x1e8], Minor: raw[0x1e9], Major: raw[0x1ea]},
		Committed: Firmware{Build: raw[0x1ec], Minor: raw[0x1ed], Major: raw[0x1ee]}, LaunchTCB: TCBVersion(raw[0x1f0:]),
		LaunchMitigations: le.Uint64(raw[0x1f8:]), CurrentMitigations: le.Uint64(raw[0x200:]),
	}
	key := le.Uint32(raw[0x48:])
	r.AuthorKeyEnabled, r.MaskChipKey, r.Signer = key&1 != 0, key&2 != 0, Signer(key>>2&7)
	r.R, r.S = scalar(raw[signatureOffset:]), scalar(raw[signatureOffset+scalarSize:])
	return r, r.strict(raw)
}

// strict refuses what the specification leaves no room for.
func (r *Report) strict(raw []byte) error {
	if r.Version < minVersion || r.Version > maxVersion {
		newer := ""
		if r.Version > maxVersion {
			newer = ", which is newer than this build knows"
		}
		return fmt.Errorf("version is %d%s, want %d to %d", r.Version, newer, minVersion, maxVersion)
	}
	if r.SignatureAlgo != algorithmECDSAP384SHA384 {
		return fmt.Errorf("signature algorithm is %d, want %d, ECDSA P-384 with SHA-384", r.SignatureAlgo, algorithmECDSAP384SHA384)
	}
	if r.Policy&policyReservedOne == 0 || r.Policy&^policyKnown != 0 {
		return fmt.Errorf("guest policy is %#x, want bit 17 set and none above 25", uint64(r.Policy))
	}
	if r.Signer != SignerVCEK && r.Signer != SignerVLEK && r.Signer != SignerNone {
		return fmt.Errorf("signing key is %d, want %d, %d or %d", r.Signer, SignerVCEK, SignerVLEK, SignerNone)
	}
	// What is reserved in the version is exactly what the fields above leave out.
	if want := r.Marshal(); !bytes.Equal(raw, want) {
		at := 0
		for raw[at] == want[at] {
			at++
		}
		return fmt.Errorf("byte %#x is reserved in version %d: got %#x, want %#x", at, r.Version, raw[at], want[at])
	}
	return nil
}

// Marshal returns the report that Parse would parse into r. It writes nothing where r.Version has no field.
func (r *Report) Marshal() []byte {
	le := binary.LittleEndian
	b := make([]byte, ReportSize)
	le.PutUint32(b, r.Version)
	le.PutUint32(b[0x04:], r.GuestSVN)
	le.PutUint64(b[0x08:], uint64(r.Policy))
	copy(b[0x10:], r.FamilyID[:])
	copy(b[0x20:], r.ImageID[:])
	le.PutUint32(b[0x30:], r.VMPL)
	le.PutUint32(b[0x34:], r.SignatureAlgo)
	copy(b[0x38:], r.CurrentTCB[:])
	le.PutUint64(b[0x40:], uint64(r.Platform))
	key := uint32(r.Signer) << 2
	if r.AuthorKeyEnabled {
		key |= 1
	}
	if r.MaskChipKey {
		key |= 2
	}
	le.PutUint32(b[0x48:], key)
	copy(b[0x50:], r.ReportData[:])
	copy(b[0x90:], r.Measurement[:])
	copy(b[0xc0:], r.HostData[:])
	copy(b[0xe0:], r.IDKeyDigest[:])
	copy(b[0x110:], r.AuthorKeyDigest[:])
	copy(b[0x140:], r.ReportID[:])
	copy(b[0x160:], r.ReportIDMA[:])
	copy(b[0x180:], r.ReportedTCB[:])
	if r.Version >= cpuidVersion {
		copy(b[0x188:], []byte{r.CPUID.Family, r.CPUID.Model, r.CPUID.Stepping})
	}
	copy(b[0x1a0:], r.ChipID[:])
	copy(b[0x1e0:], r.CommittedTCB[:])
	copy(b[0x1e8:], []byte{r.Current.Build, r.Current.Minor, r.Current.Major})
	copy(b[0x1ec:], []byte{r.Committed.Build, r.Committed.Minor, r.Committed.Major})
	copy(b[0x1f0:], r.LaunchTCB[:])
	if r.Version >= mitigationVersion {
		le.PutUint64(b[0x1f8:], r.LaunchMitigations)
		le.PutUint64(b[0x200:], r.CurrentMitigations)
	}
	putScalar(b[signatureOffset:], r.R)
	putScalar(b[signatureOffset+scalarSize:], r.S)
	return b
}

// scalar reads a little-endian number of P-384. Marshal finds out whether its upper bytes are zero.
func scalar(b []byte) (big [p384Size]byte) {
	for i := range big {
		big[i] = b[p384Size-1-i]
	}
	return big
}

func putScalar(b []byte, big [p384Size]byte) {
	for i := range big {
		b[i] = big[p384Size-1-i]
	}
}
