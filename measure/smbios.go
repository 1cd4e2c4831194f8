package measure

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
)

// SMBIOSTables is the setting with the tables that QEMU makes of the machine.
const SMBIOSTables = "etc/smbios/smbios-tables"

// biosInformation is what a firmware build says of itself in the table that QEMU leaves to it.
type biosInformation struct{ vendor, version, date string }

// A structure begins with type, length of its fields and handle; strings follow the fields, each with a NUL, and another NUL ends it.
// DMTF DSP0134 3.6, section 6.1.
const (
	smbiosHeader    = 4
	smbiosProcessor = 4
	smbiosEnd       = 127
	smbiosOEM       = 128

	processorID = 8 // in a processor's structure, eight bytes: EAX and EDX of CPUID leaf 1

	maxSMBIOSBytes = 64 << 10
)

// firmwareEnd is the firmware's own end of its tables.
var firmwareEnd = []byte{smbiosEnd, smbiosHeader, 0xff, 0xfe, 0, 0}

// unmeasured are the fields that the firmware blanks before it measures, by type of structure: numbers become zeros, a string spaces
// of the same length. Of a type without fields nothing but the header is measured. Source: EDK2,
// MdeModulePkg/Universal/SmbiosMeasurementDxe.
var unmeasured = map[byte][]struct {
	at, size int
	text     bool
}{
	1:  {{7, 1, true}, {8, 16, false}, {24, 1, false}},
	2:  {{7, 1, true}, {10, 1, true}},
	3:  {{7, 1, true}, {8, 1, true}},
	4:  {{32, 1, true}, {33, 1, true}, {34, 1, true}, {35, 1, false}, {36, 1, false}, {37, 1, false}, {42, 2, false}, {44, 2, false}, {46, 2, false}, {17, 1, false}, {22, 2, false}},
	11: {}, 15: {}, 18: {}, 31: {}, 33: {},
	17: {{24, 1, true}, {25, 1, true}, {26, 1, true}},
	23: {{5, 2, false}},
}

// smbios returns the machine's tables as the firmware measures them: QEMU's, the firmware's own after them, the end.
func (a Tables) smbios(own biosInformation, s Shape) ([]byte, error) {
	tables := a.Settings[SMBIOSTables]
	if len(tables) == 0 || len(tables) > maxSMBIOSBytes {
		return nil, fmt.Errorf("measuring SMBIOS: tables of %d bytes, want 1 to %d", len(tables), maxSMBIOSBytes)
	}
	processor, err := s.processor()
	if err != nil {
		return nil, fmt.Errorf("measuring SMBIOS: %w", err)
	}
	var measured []byte
	for {
		structure, rest, err := cutSMBIOS(tables)
		if err != nil {
			return nil, fmt.Errorf("measuring SMBIOS: %d bytes before the end: %w", len(tables), err)
		}
		tables = rest
		if structure[0] == smbiosEnd {
			if len(rest) > 0 {
				return nil, fmt.Errorf("measuring SMBIOS: %d bytes after the last structure, want none", len(rest))
			}
			return slices.Concat(measured, own.structure(), firmwareEnd), nil
		}
		if structure[0] == 0 {
			return nil, errors.New("measuring SMBIOS: QEMU describes the firmware, want that left to the firmware")
		}
		if structure[0] == smbiosProcessor && processor != nil {
			if structure[1] < processorID+8 {
				return nil, fmt.Errorf("measuring SMBIOS: a processor of %d bytes, want at least %d", structure[1], processorID+8)
			}
			copy(structure[processorID:], processor)
		}
		if err := blank(structure); err != nil {
			return nil, fmt.Errorf("measuring SMBIOS: %w", err)
		}
		measured = append(measured, structure...)
	}
}

// cutSMBIOS returns a copy of the first structure.
func cutSMBIOS(tables []byte) (structure, rest []byte, err error) {
	if len(tables) < smbiosHeader || int(tables[1]) < smbiosHeader || int(tables[1]) > len(tables) {
		return nil, nil, errors.New("want a structure")
	}
	end := bytes.Index(tables[tables[1]:], []byte{0, 0})
	if end < 0 {
		return nil, nil, fmt.Errorf("the structure of type %d has no end", tables[0])
	}
	n := int(tables[1]) + end + 2
	return bytes.Clone(tables[:n]), tables[n:], nil
}

// blank takes out of a structure what is not measured. A type whose fields nobody here has looked up is refused.
func blank(structure []byte) error {
	kind, length := structure[0], int(structure[1])
	fields, known := unmeasured[kind]
	if kind >= smbiosOEM || known && len(fields) == 0 {
		clear(structure[smbiosHeader:])
		return nil
	}
	if kind == 22 || kind == 27 || kind == 39 {
		return fmt.Errorf("a structure of type %d, want one that QEMU makes", kind)
	}
	for _, f := range fields {
		if f.at+f.size > length {
			continue
		}
		if number := int(structure[f.at]); f.text && number != 0 {
			at := length
			for ; number > 1 && at < len(structure); number-- {
				at += bytes.IndexByte(structure[at:], 0) + 1
			}
			for ; at < len(structure) && structure[at] != 0; at++ {
				structure[at] = ' '
			}
		}
		clear(structure[f.at : f.at+f.size])
	}
	return nil
}

// structure is OVMF's own, of type 0. Source: EDK2, OvmfPkg/SmbiosPlatformDxe.
func (b biosInformation) structure() []byte {
	s := []byte{0, 26, 0, 0, 1, 2}
	s = binary.LittleEndian.AppendUint16(s, 0xe800) // segment
	s = append(s, 3, 0)
	s = append(s, 8, 0, 0, 0, 0, 0, 0, 0) // characteristics are not told
	s = append(s, 0, 0x1c, 0, 0, 0xff, 0xff)
	// The structure has two bytes more than its fields, which the firmware leaves as zeros.
	s = append(s, 0, 0)
	for _, text := range []string{b.vendor, b.version, b.date} {
		s = append(append(s, text...), 0)
	}
	return append(s, 0)
}

// processor returns what the machine's SMBIOS says of its processor where that is not what QEMU's emulation has: nil there.
func (s Shape) processor() ([]byte, error) {
	if s.Accelerator == TCG {
		return nil, nil
	}
	if s.Processor == "" {
		return nil, errors.New("the shape has no processor, which the firmware of TDX guests measures: want EAX and EDX of CPUID leaf 1")
	}
	return hex.DecodeString(s.Processor)
}
