package measure

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"

	"github.com/ulikunitz/xz/lzma"
)

// firmwareBuild says what a firmware build does to itself before it measures itself. It can't be read off the file, so
// each build is entered here after a boot of it has shown the registers.
type firmwareBuild struct {
	name    string
	version string  // what it measures as EV_S_CRTM_VERSION
	peiSize int     // bytes of the PEI volume
	dxeSize int     // bytes of the DXE volume
	patches []patch // written into the PEI volume before it is measured
}

type patch struct {
	offset int
	value  uint32
}

// firmwareBuilds are the known builds by SHA-256 of their code file.
var firmwareBuilds = map[string]firmwareBuild{
	"624e06de18b4fa535e90db7160d00d3d07d206422b89999bf1e27d920264e4e0": {
		name:    "Debian ovmf 2025.02-8+deb13u1, OVMF_CODE_4M.fd",
		version: "2025.02-8+deb13u1",
		peiSize: 0xe0000,
		dxeSize: 0xe80000,
		// PcdAcpiTimer: SEC runs PEI in place and sets the I/O port of q35's ACPI timer (0x600 + 8).
		patches: []patch{{0x6e50, 0x608}},
	},
}

// lzmaSection is the GUID of a firmware section compressed with LZMA: EE4E5898-3914-4259-9D6E-DC7BD79403CF.
var lzmaSection = []byte{0x98, 0x58, 0x4e, 0xee, 0x14, 0x39, 0x59, 0x42, 0x9d, 0x6e, 0xdc, 0x7b, 0xd7, 0x94, 0x03, 0xcf}

const (
	maxFirmwareBytes = 64 << 20

	sectionFirmwareVolume = 0x17 // EFI_SECTION_FIRMWARE_VOLUME_IMAGE, PI 1.8 volume 3, section 3.2.5
)

// firmwareEvents returns what the firmware extends into PCR 0 before its separator: its version, the PEI volume and the DXE
// volume.
func firmwareEvents(code []byte) ([]PCREvent, error) {
	sum := sha256.Sum256(code)
	build, ok := firmwareBuilds[hex.EncodeToString(sum[:])]
	if !ok {
		return nil, fmt.Errorf("SHA-256 %x is no known build: PCR 0 depends on what a build does before it measures itself, so it can't be "+
			"computed for others", sum)
	}
	volumes, err := firmwareVolumes(code)
	if err != nil {
		return nil, fmt.Errorf("%s: %v", build.name, err)
	}
	if len(volumes) != 2 || len(volumes[0]) != build.peiSize || len(volumes[1]) != build.dxeSize {
		return nil, fmt.Errorf("%s: %d firmware volumes, want 2 of %#x and %#x bytes", build.name, len(volumes), build.peiSize, build.dxeSize)
	}
	for _, p := range build.patches {
		binary.LittleEndian.PutUint32(volumes[0][p.offset:], p.value)
	}
	return events256(0, part{InputFirmware, "version", utf16z(build.version)}, part{InputFirmware, "PEI volume", volumes[0]},
		part{InputFirmware, "DXE volume", volumes[1]}), nil
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
