package measure

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"

	"github.com/ulikunitz/xz/lzma"

	"chrysalis/measure/register"
)

// FirmwareBuild says what a firmware build does to itself before it measures itself. It can't be read off the file: a boot log of it
// shows it, and LearnFirmware finds it in one.
type FirmwareBuild struct {
	Name    string          `json:"name"`
	SHA256  register.Digest `json:"sha256"`   // of the code file
	Version string          `json:"version"`  // what it measures as EV_S_CRTM_VERSION
	PEISize int             `json:"pei_size"` // bytes of the PEI volume
	DXESize int             `json:"dxe_size"` // bytes of the DXE volume
	Patches []FirmwarePatch `json:"patches"`  // written into the PEI volume before it is measured
	// SecureBoot says that the build knows the variable SecureBoot, which is off over an empty variable store.
	SecureBoot bool `json:"secure_boot"`
}

// FirmwarePatch is a word that the firmware writes into its own volume.
type FirmwarePatch struct {
	Offset int    `json:"offset"`
	Value  uint32 `json:"value"`
}

// acpiTimer is what OVMF on q35 writes into its PEI volume, which SEC runs in place: the I/O port of the ACPI timer (PcdAcpiTimer,
// 0x600 + 8).
const acpiTimer = 0x608

// firmwareBuilds are the known builds. Each was learned from a boot of it by chrysalis measure firmware.
var firmwareBuilds = []FirmwareBuild{
	{"Debian ovmf 2025.02-8+deb13u1, OVMF_CODE_4M.fd", hexDigest("624e06de18b4fa535e90db7160d00d3d07d206422b89999bf1e27d920264e4e0"),
		"2025.02-8+deb13u1", 0xe0000, 0xe80000, []FirmwarePatch{{0x6e50, acpiTimer}}, false},
}

// machineBuilds are builds of which two machines, with other memory and processors, gave two digests of the PEI volume: they note there
// what they find before they measure it.
var machineBuilds = map[string]string{
	"1a46295574430cfb7f825ee3e4dc64b052acbef08e310377ed7c64cb757a9dc1": "Debian ovmf 2025.02-8+deb13u1, OVMF_CODE_4M.secboot.fd",
	"9ee9f2382e0c6aa95c87fed4131f9c1080a084d8ef7bff3d8b89147bf2a34b1b": "Debian ovmf 2025.02-8+deb13u1, OVMF_CODE_4M.secboot.strictnx.fd",
	"b157d97b1f69729514feb7f201d2cbe4957f23ab77920e361fe9f822ba49ca4c": "Debian ovmf 2022.11-6+deb12u2, OVMF_CODE_4M.fd",
}

func hexDigest(text string) (d register.Digest) {
	if n, err := hex.Decode(d[:], []byte(text)); err != nil || n != len(d) {
		panic("measure: malformed digest " + text)
	}
	return d
}

// lzmaSection is the GUID of a firmware section compressed with LZMA: EE4E5898-3914-4259-9D6E-DC7BD79403CF.
var lzmaSection = []byte{0x98, 0x58, 0x4e, 0xee, 0x14, 0x39, 0x59, 0x42, 0x9d, 0x6e, 0xdc, 0x7b, 0xd7, 0x94, 0x03, 0xcf}

const (
	maxFirmwareBytes = 64 << 20

	sectionFirmwareVolume = 0x17 // EFI_SECTION_FIRMWARE_VOLUME_IMAGE, PI 1.8 volume 3, section 3.2.5
)

// KnownFirmware returns the build of a code file, of those known or, with learned, that one.
func KnownFirmware(code []byte, learned *FirmwareBuild) (FirmwareBuild, error) {
	sum := register.Digest(sha256.Sum256(code))
	builds := firmwareBuilds
	if learned != nil {
		builds = []FirmwareBuild{*learned}
	}
	for _, b := range builds {
		if b.SHA256 == sum {
			return b, nil
		}
	}
	if learned != nil {
		return FirmwareBuild{}, fmt.Errorf("SHA-256 is %s, want that of the given build, %s", sum, learned.SHA256)
	}
	if name, there := machineBuilds[sum.String()]; there {
		return FirmwareBuild{}, fmt.Errorf("%s: before it measures itself it notes in its PEI volume what memory and processors it finds, so PCR 0 "+
			"follows from the machine and can't be computed", name)
	}
	return FirmwareBuild{}, fmt.Errorf("SHA-256 %s is no known build: PCR 0 depends on what a build does before it measures itself, so it can't be "+
		"computed from the file alone (chrysalis measure firmware learns it from a boot log)", sum)
}

// firmwareEvents returns what the firmware extends into PCR 0 before its separator: its version, the PEI volume and the DXE
// volume.
func firmwareEvents(code []byte, learned *FirmwareBuild) ([]PCREvent, FirmwareBuild, error) {
	build, err := KnownFirmware(code, learned)
	if err != nil {
		return nil, build, err
	}
	volumes, err := firmwareVolumes(code)
	if err != nil {
		return nil, build, fmt.Errorf("%s: %v", build.Name, err)
	}
	if len(volumes) != 2 || len(volumes[0]) != build.PEISize || len(volumes[1]) != build.DXESize {
		return nil, build, fmt.Errorf("%s: %d firmware volumes, want 2 of %#x and %#x bytes", build.Name, len(volumes), build.PEISize, build.DXESize)
	}
	for _, p := range build.Patches {
		if p.Offset < 0 || p.Offset+4 > len(volumes[0]) {
			return nil, build, fmt.Errorf("%s: patch at %#x, want it in the PEI volume of %#x bytes", build.Name, p.Offset, len(volumes[0]))
		}
		binary.LittleEndian.PutUint32(volumes[0][p.Offset:], p.Value)
	}
	return events256(0, part{InputFirmware, "version", utf16z(build.Version)}, part{InputFirmware, "PEI volume", volumes[0]},
		part{InputFirmware, "DXE volume", volumes[1]}), build, nil
}

// firmwareVolumes unpacks the first LZMA section of a code file and returns the firmware volumes in it.
func firmwareVolumes(code []byte) ([][]byte, error) {
	// EFI_GUID_DEFINED_SECTION: size u24, type u8, GUID, data offset u16, attributes u16.
	at := bytes.Index(code, lzmaSection)
	if at < 4 || len(code)-at < 20 {
		return nil, fmt.Errorf("no LZMA section in %d bytes", len(code))
	}
	section := code[at-4:]
	size, data := uint24(section), int(binary.LittleEndian.Uint16(section[20:]))
	if size > len(section) || data < 24 || data > size {
		return nil, fmt.Errorf("LZMA section of %d bytes with data at %d, want it in the %d left", size, data, len(section))
	}
	r, err := lzma.NewReader(bytes.NewReader(section[data:size]))
	if err != nil {
		return nil, fmt.Errorf("opening LZMA section: %v", err)
	}
	plain, err := io.ReadAll(io.LimitReader(r, maxFirmwareBytes+1))
	if err != nil {
		return nil, fmt.Errorf("unpacking LZMA section: %v", err)
	}
	if len(plain) > maxFirmwareBytes {
		return nil, fmt.Errorf("LZMA section unpacks to more than %d bytes", maxFirmwareBytes)
	}
	var volumes [][]byte
	for at := 0; at < len(plain); {
		rest := plain[at:]
		if len(rest) < 4 {
			return nil, fmt.Errorf("%d bytes after the last section, want none", len(rest))
		}
		size, header := uint24(rest), 4
		if size == 0xffffff && len(rest) >= 8 {
			size, header = int(binary.LittleEndian.Uint32(rest[4:])), 8
		}
		if size < header || size > len(rest) {
			return nil, fmt.Errorf("section at %#x has %d bytes, want %d to %d", at, size, header, len(rest))
		}
		if rest[3] == sectionFirmwareVolume {
			volumes = append(volumes, rest[header:size])
		}
		at = min(at+(size+3)&^3, len(plain))
	}
	return volumes, nil
}

func uint24(b []byte) int { return int(b[0]) | int(b[1])<<8 | int(b[2])<<16 }
