// Package tdvf computes MRTD, the measurement of a TDX guest's initial memory, from its firmware image.
//
// The image says by its metadata which parts are loaded where; the TDX module hashes each page's address as it is added and,
// where the section asks for it, its contents. Source: Intel TDX Virtual Firmware Design Guide, section 11 (metadata), and
// Intel TDX Module Base Specification, TDH.MEM.PAGE.ADD and TDH.MR.EXTEND.
package tdvf

import (
	"crypto/sha512"
	"encoding/binary"
	"fmt"
	"hash"
)

// Order is the order in which a hypervisor adds and measures the pages of a section; it decides over MRTD.
type Order string

// The orders.
const (
	SinglePass Order = "single-pass" // each page is added, then measured: upstream KVM and QEMU
	TwoPass    Order = "two-pass"    // all pages of a section are added, then measured: QEMU 8.2 of Ubuntu 24.04
)

const (
	metadataGUID  = "e47a6535-984a-4798-865e-4685a7bf8ec2"
	metadataMagic = "TDVF"
	metadataHead  = 16
	sectionBytes  = 32
	maxSections   = 64

	pageBytes  = 4096
	chunkBytes = 256 // what one TDH.MR.EXTEND measures

	attributeExtend  = 1 << 0 // contents are measured
	attributePageAug = 1 << 1 // added at run time, not before

	// maxSectionBytes bounds one section: the largest in use is the firmware itself.
	maxSectionBytes = 256 << 20
)

// Section is one entry of the metadata.
type Section struct {
	Offset, Size    uint32 // in the image
	Address, Memory uint64 // where it is loaded, and how many bytes it takes there
	Type, Flags     uint32
}

// Sections returns the metadata of a firmware image: one with OVMF's table of entries, or an older td-shim, which says by a word at
// its end where they lie (td-shim's specification, "TD-Shim Metadata Location"). One without is not built for TDX.
func Sections(firmware []byte) ([]Section, error) {
	var fromEnd uint32
	entry, err := Entry(firmware, metadataGUID)
	switch {
	case err == nil && len(entry) < 4:
		return nil, fmt.Errorf("reading TDVF metadata: entry has %d bytes, want 4", len(entry))
	case err == nil:
		fromEnd = binary.LittleEndian.Uint32(entry[len(entry)-4:])
	default:
		at, there := shimMetadata(firmware)
		if !there {
			return nil, fmt.Errorf("reading TDVF metadata: there is none, so this firmware starts no TD (Debian's that does is OVMF.inteltdx.fd): %w", err)
		}
		fromEnd = uint32(len(firmware)) - at
	}
	if fromEnd < metadataHead || uint64(fromEnd) > uint64(len(firmware)) {
		return nil, fmt.Errorf("reading TDVF metadata: it stands %d bytes before the end of %d", fromEnd, len(firmware))
	}
	b := firmware[len(firmware)-int(fromEnd):]
	if string(b[:4]) != metadataMagic {
		return nil, fmt.Errorf("reading TDVF metadata: magic is %q, want %q", b[:4], metadataMagic)
	}
	version, count := binary.LittleEndian.Uint32(b[8:]), binary.LittleEndian.Uint32(b[12:])
	if version != 1 || count == 0 || count > maxSections || uint64(len(b)) < metadataHead+uint64(count)*sectionBytes {
		return nil, fmt.Errorf("reading TDVF metadata: version %d with %d sections in %d bytes, want version 1 and 1 to %d", version, count,
			len(b), maxSections)
	}
	sections := make([]Section, count)
	for i := range sections {
		s := b[metadataHead+i*sectionBytes:]
		le := binary.LittleEndian
		sections[i] = Section{le.Uint32(s), le.Uint32(s[4:]), le.Uint64(s[8:]), le.Uint64(s[16:]), le.Uint32(s[24:]), le.Uint32(s[28:])}
		if err := sections[i].validate(len(firmware)); err != nil {
			return nil, fmt.Errorf("reading TDVF metadata: section %d: %w", i, err)
		}
	}
	return sections, nil
}

// shimGUID stands before the metadata.
const shimGUID = "e9eaf9f3-168e-44d5-a8eb-7f4d8738f6ae"

// shimMetadata returns where in an image without a table the metadata lies.
func shimMetadata(firmware []byte) (at uint32, there bool) {
	if len(firmware) < tableEnd || len(firmware) > maxFirmwareBytes {
		return 0, false
	}
	at = binary.LittleEndian.Uint32(firmware[len(firmware)-tableEnd:])
	guid := ParseGUID(shimGUID)
	if at < uint32(len(guid)) || uint64(at)+metadataHead > uint64(len(firmware)) {
		return 0, false
	}
	return at, [16]byte(firmware[at-uint32(len(guid)):]) == guid
}

// sectionTDInfo is td-shim's own word about itself, which is loaded nowhere.
const sectionTDInfo = 7

func (s Section) validate(firmwareBytes int) error {
	if s.Type == sectionTDInfo && s.Address == 0 && s.Memory == 0 && uint64(s.Offset)+uint64(s.Size) <= uint64(firmwareBytes) {
		return nil
	}
	if uint64(s.Offset)+uint64(s.Size) > uint64(firmwareBytes) {
		return fmt.Errorf("%d bytes from %d in an image of %d", s.Size, s.Offset, firmwareBytes)
	}
	if s.Address%pageBytes != 0 || s.Memory%pageBytes != 0 || s.Memory > maxSectionBytes || uint64(s.Size) > s.Memory {
		return fmt.Errorf("%d bytes loaded into %d at %#x, want whole pages, at most %d", s.Size, s.Memory, s.Address, maxSectionBytes)
	}
	return nil
}

// MRTD returns the measurement of the firmware's initial memory.
func MRTD(firmware []byte, order Order) (mrtd [48]byte, err error) {
	if order != SinglePass && order != TwoPass {
		return mrtd, fmt.Errorf("computing MRTD: page order %q, want %q or %q", order, SinglePass, TwoPass)
	}
	sections, err := Sections(firmware)
	if err != nil {
		return mrtd, fmt.Errorf("computing MRTD: %w", err)
	}
	m := NewMeasurement()
	extend := func(s Section, offset uint64) {
		var page [pageBytes]byte
		if offset < uint64(s.Size) {
			copy(page[:], firmware[s.Offset:][offset:s.Size])
		}
		m.Extend(s.Address+offset, page)
	}
	for _, s := range sections {
		if s.Flags&attributePageAug != 0 {
			continue
		}
		measured := s.Flags&attributeExtend != 0
		for offset := uint64(0); offset < s.Memory; offset += pageBytes {
			m.Add(s.Address + offset)
			if measured && order == SinglePass {
				extend(s, offset)
			}
		}
		if measured && order == TwoPass {
			for offset := uint64(0); offset < s.Memory; offset += pageBytes {
				extend(s, offset)
			}
		}
	}
	return m.MRTD(), nil
}

// Measurement is MRTD as it grows: what the TDX module hashes for each page that is added and each whose contents are measured.
type Measurement struct{ sum hash.Hash }

// NewMeasurement returns that of a guest without a page.
func NewMeasurement() Measurement { return Measurement{sha512.New384()} }

// Add adds a page.
func (m Measurement) Add(address uint64) { m.sum.Write(record("MEM.PAGE.ADD", address)) }

// Extend measures a page's contents.
func (m Measurement) Extend(address uint64, page [pageBytes]byte) {
	for at := 0; at < pageBytes; at += chunkBytes {
		m.sum.Write(record("MR.EXTEND", address+uint64(at)))
		m.sum.Write(page[at : at+chunkBytes])
	}
}

// MRTD returns the measurement so far.
func (m Measurement) MRTD() (mrtd [48]byte) {
	m.sum.Sum(mrtd[:0])
	return mrtd
}

// record is the 128-byte block that the TDX module hashes for an operation on an address.
func record(operation string, address uint64) []byte {
	var b [128]byte
	copy(b[:], operation)
	binary.LittleEndian.PutUint64(b[16:], address)
	return b[:]
}
