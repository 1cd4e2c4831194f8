// Package igvm reads images of the Independent Guest Virtual Machine format and computes what hardware measures of the guest that one
// starts: the launch digest of SEV-SNP, and MRTD of TDX.
//
//	file, err := igvm.Parse(image)
//	digest, err := file.LaunchDigest()
//
// A file describes a guest for several platforms at once, each directive naming those that it is for. Source: microsoft/igvm,
// igvm_defs/src/lib.rs (format, versions 1 and 2) and igvm/src/measurement (what is measured, and in which order). QEMU keeps to the
// same, but measures the register states of SEV-SNP last and at an address of its own (backends/igvm.c, target/i386/sev.c), so that
// only a file that has them last and there measures alike everywhere; InOrder says which.
package igvm

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

const (
	pageBytes     = 4096
	maxFileBytes  = 256 << 20
	maxHeaders    = 1 << 18
	maxParameters = 16 << 20 // bytes of one parameter area

	magic          = "IGVM"
	fixedBytes     = 24
	fixedBytes2    = 32 // version 2 has the architecture and the size of a page behind
	architectureX  = 0
	optionalHeader = 1 << 31 // a header that a loader may pass over
)

// Platform is one for which a file describes a guest.
type Platform uint8

// The platforms that hardware measures.
const (
	SEVSNP Platform = 2
	TDX    Platform = 3
)

func (p Platform) String() string {
	switch p {
	case SEVSNP:
		return "SEV-SNP"
	case TDX:
		return "TDX"
	}
	return fmt.Sprintf("platform %d", uint8(p))
}

// Types of variable headers. igvm_defs, IgvmVariableHeaderType.
const (
	typePlatform        = 0x1
	typePolicy          = 0x101
	typeParameterArea   = 0x301
	typePageData        = 0x302
	typeParameterInsert = 0x303
	typeRegisters       = 0x304 // VP_CONTEXT
	typeRequiredMemory  = 0x305
	typeIDBlock         = 0x30b
	typeErrorRange      = 0x30d
)

// sizes are those of the structures behind the headers that decide over a measurement.
var sizes = map[uint32]int{
	typePlatform: 16, typePolicy: 16, typeParameterArea: 16, typePageData: 24, typeParameterInsert: 16, typeRegisters: 20,
	typeRequiredMemory: 24, typeIDBlock: 680,
}

// passive are types that put nothing into the guest of their own: where a loader writes what it knows into a parameter area that
// another header inserts, and what is for other platforms.
var passive = []uint32{0x102, 0x103, 0x104, 0x105, 0x106, 0x307, 0x308, 0x309, 0x30a, 0x30c, typeErrorRange, 0x30e, 0x30f, 0x310, 0x311, 0x312, 0x313}

// Flags of page data.
const (
	flagLarge      = 1 << 0 // 2 MiB
	flagUnmeasured = 1 << 1
	flagShared     = 1 << 2 // not the guest's alone, and not measured
)

// Types of page data.
const (
	dataNormal  = 0
	dataSecrets = 1
	dataCPUID   = 2
	dataCPUIDXF = 3
)

// File is an image that Parse has read.
type File struct {
	masks   map[Platform]uint32
	policy  map[uint32]uint64 // by mask
	steps   []step
	idBlock map[uint32][48]byte // launch digest of SEV-SNP that the file promises, by mask
}

// step is a directive that puts something into the guest.
type step struct {
	typ     uint32
	mask    uint32
	address uint64
	flags   uint32
	kind    uint16
	data    []byte // a page, or nil
	pages   uint64 // of a parameter area
}

// Parse parses a file of version 1 or 2 for x86, its checksum included.
func Parse(image []byte) (*File, error) {
	f := &File{masks: map[Platform]uint32{}, policy: map[uint32]uint64{}, idBlock: map[uint32][48]byte{}}
	if err := f.parse(image); err != nil {
		return nil, fmt.Errorf("parsing IGVM: %w", err)
	}
	return f, nil
}

func (f *File) parse(image []byte) error {
	headers, err := variableHeaders(image)
	if err != nil {
		return err
	}
	areas := map[uint32]uint64{}
	section, count := uint32(0), 0
	for len(headers) > 0 {
		if count++; count > maxHeaders {
			return fmt.Errorf("more than %d headers", maxHeaders)
		}
		if len(headers) < 8 {
			return fmt.Errorf("header %d: %d bytes left, want at least 8", count-1, len(headers))
		}
		typ, size := binary.LittleEndian.Uint32(headers), binary.LittleEndian.Uint32(headers[4:])
		padded := (uint64(size) + 7) &^ 7
		if uint64(len(headers)-8) < padded {
			return fmt.Errorf("header %d of type %#x: %d bytes, %d left", count-1, typ, size, len(headers)-8)
		}
		body := headers[8 : 8+size]
		headers = headers[8+padded:]
		// Platforms, then what is told before memory is, then directives: igvm_defs, "Variable headers".
		at := typ &^ optionalHeader >> 8
		if at < section {
			return fmt.Errorf("header %d of type %#x stands behind those of %#x", count-1, typ, section<<8)
		}
		section = at
		if err := f.add(image, typ, body, areas); err != nil {
			return fmt.Errorf("header %d of type %#x: %w", count-1, typ, err)
		}
	}
	if len(f.masks) == 0 {
		return fmt.Errorf("no platform")
	}
	return nil
}

// variableHeaders checks the fixed header and returns what follows it.
func variableHeaders(image []byte) ([]byte, error) {
	le := binary.LittleEndian
	if len(image) < fixedBytes || len(image) > maxFileBytes || string(image[:4]) != magic {
		return nil, fmt.Errorf("%d bytes, want %d to %d with %q in front", len(image), fixedBytes, maxFileBytes, magic)
	}
	version, fixed := le.Uint32(image[4:]), fixedBytes
	switch version {
	case 1:
	case 2:
		if fixed = fixedBytes2; len(image) < fixed {
			return nil, fmt.Errorf("%d bytes, want at least %d", len(image), fixed)
		}
		if architecture, page := le.Uint32(image[24:]), le.Uint32(image[28:]); architecture != architectureX || page != pageBytes {
			return nil, fmt.Errorf("architecture %d with pages of %d bytes, want x86 (%d) and %d", architecture, page, architectureX, pageBytes)
		}
	default:
		return nil, fmt.Errorf("version is %d, want 1 or 2", version)
	}
	start, size, total := uint64(le.Uint32(image[8:])), uint64(le.Uint32(image[12:])), uint64(le.Uint32(image[16:]))
	if total != uint64(len(image)) {
		return nil, fmt.Errorf("%d bytes, the file says %d", len(image), total)
	}
	if start != uint64(fixed) || start+size > total {
		return nil, fmt.Errorf("headers are %d bytes at %d, want them at %d in a file of %d", size, start, fixed, total)
	}
	sum := crc32.NewIEEE()
	sum.Write(image[:20])
	sum.Write(make([]byte, 4)) // the checksum itself
	sum.Write(image[24 : start+size])
	if want := le.Uint32(image[20:]); sum.Sum32() != want {
		return nil, fmt.Errorf("checksum of headers is %#x, the file says %#x", sum.Sum32(), want)
	}
	return image[start : start+size], nil
}

// add takes one header. areas are the parameter areas that are waiting to be inserted, by number.
func (f *File) add(image []byte, typ uint32, b []byte, areas map[uint32]uint64) error {
	le := binary.LittleEndian
	want, known := sizes[typ]
	if !known {
		for _, p := range passive {
			if typ&^optionalHeader == p {
				return nil
			}
		}
		if typ&optionalHeader != 0 {
			return nil
		}
		return fmt.Errorf("unknown")
	}
	if len(b) != want {
		return fmt.Errorf("%d bytes, want %d", len(b), want)
	}
	switch typ {
	case typePlatform:
		platform, mask := Platform(b[5]), le.Uint32(b)
		if _, twice := f.masks[platform]; twice || mask == 0 || mask&(mask-1) != 0 {
			return fmt.Errorf("%v with mask %#x, want each platform once, with one bit", platform, mask)
		}
		f.masks[platform] = mask
	case typePolicy:
		f.policy[le.Uint32(b[8:])] = le.Uint64(b)
	case typeIDBlock:
		f.idBlock[le.Uint32(b)] = [48]byte(b[8:])
	case typeParameterArea:
		size, number := le.Uint64(b), le.Uint32(b[8:])
		if _, twice := areas[number]; twice || size%pageBytes != 0 || size > maxParameters {
			return fmt.Errorf("area %d of %d bytes, want each number once and whole pages, at most %d", number, size, maxParameters)
		}
		areas[number] = size / pageBytes
	case typeParameterInsert:
		number := le.Uint32(b[12:])
		pages, there := areas[number]
		if !there {
			return fmt.Errorf("no area %d is waiting", number)
		}
		delete(areas, number)
		return f.step(step{typ: typ, address: le.Uint64(b), mask: le.Uint32(b[8:]), pages: pages})
	case typeRequiredMemory:
		return nil // the guest is promised memory, and nothing is put there
	case typeRegisters:
		data, err := page(image, le.Uint32(b[12:]))
		if err != nil || data == nil {
			return fmt.Errorf("register state: %w", orNothing(err))
		}
		return f.step(step{typ: typ, address: le.Uint64(b), mask: le.Uint32(b[8:]), data: data})
	case typePageData:
		data, err := page(image, le.Uint32(b[12:]))
		if err != nil {
			return err
		}
		s := step{typ: typ, address: le.Uint64(b), mask: le.Uint32(b[8:]), data: data, flags: le.Uint32(b[16:]), kind: le.Uint16(b[20:])}
		if s.flags&flagLarge != 0 || s.flags&^(flagUnmeasured|flagShared) != 0 || s.kind > dataCPUIDXF || le.Uint16(b[22:]) != 0 {
			return fmt.Errorf("page data with flags %#x and of kind %d: large pages and what comes after kind %d are not known", s.flags, s.kind, dataCPUIDXF)
		}
		return f.step(s)
	}
	return nil
}

func orNothing(err error) error {
	if err == nil {
		return fmt.Errorf("the file has none")
	}
	return err
}

func (f *File) step(s step) error {
	if s.address%pageBytes != 0 || s.address+s.pages*pageBytes < s.address {
		return fmt.Errorf("address is %#x, want that of a page", s.address)
	}
	f.steps = append(f.steps, s)
	return nil
}

// page returns the page at an offset in the file, or nil for none: then it is one of zeros.
func page(image []byte, offset uint32) ([]byte, error) {
	if offset == 0 {
		return nil, nil
	}
	if uint64(offset)+pageBytes > uint64(len(image)) {
		return nil, fmt.Errorf("page at %d of a file of %d bytes", offset, len(image))
	}
	return image[offset:][:pageBytes], nil
}
