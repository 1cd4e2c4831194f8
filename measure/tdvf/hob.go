package tdvf

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
)

// Range is a range of guest memory.
type Range struct{ Start, Length uint64 }

// Types of a section whose memory the hypervisor adds before the guest starts: TDX Virtual Firmware Design Guide, table 11-2.
const sectionTempMem = 3

// SectionVariables is the type of the section with the variable store, SectionHOB that of the memory in which the firmware looks
// for the list of memory.
const (
	SectionVariables = 1
	SectionHOB       = 2
)

// Kinds of hand-off blocks and of memory in them: UEFI PI 1.8, volume 3, sections 4.5 and 5.5. Unaccepted memory is of the TDX
// Virtual Firmware Design Guide, section 7.
const (
	hobHandoff, hobHandoffBytes   = 1, 56
	hobResource, hobResourceBytes = 3, 48
	hobEndBytes                   = 8
	hobVersion                    = 9

	memoryAdded      = 0
	memoryUnaccepted = 7
	// Present, initialised, tested: QEMU says so of both kinds.
	memoryAttributes = 7
)

const maxRanges = 128

// HOB returns the list of memory that QEMU hands a TDX guest's firmware, without the block that ends it, as the firmware
// measures it. ram is the machine's memory as QEMU's memory map has it. Source: QEMU, hw/i386/tdvf-hob.c and
// target/i386/kvm/tdx.c (tdx_accept_ram_range).
func HOB(sections []Section, ram []Range) ([]byte, error) {
	type entry struct {
		Range
		kind uint32
	}
	if len(ram) == 0 || len(ram) > maxRanges {
		return nil, fmt.Errorf("computing TD-HOB: %d ranges of memory, want 1 to %d", len(ram), maxRanges)
	}
	var entries []entry
	for _, r := range ram {
		if r.Length == 0 || r.Start+r.Length < r.Start {
			return nil, fmt.Errorf("computing TD-HOB: %#x bytes of memory at %#x", r.Length, r.Start)
		}
		entries = append(entries, entry{r, memoryUnaccepted})
	}
	var base uint64
	found := false
	for _, s := range sections {
		if s.Type != SectionHOB && s.Type != sectionTempMem {
			continue
		}
		if s.Type == SectionHOB {
			if found {
				return nil, fmt.Errorf("computing TD-HOB: firmware has a second place for it at %#x, want one", s.Address)
			}
			base, found = s.Address, true
		}
		i := slices.IndexFunc(entries, func(e entry) bool {
			return e.kind == memoryUnaccepted && e.Start <= s.Address && s.Memory <= e.Length && s.Address-e.Start <= e.Length-s.Memory
		})
		if i < 0 {
			return nil, fmt.Errorf("computing TD-HOB: section of %#x bytes at %#x lies in no free memory", s.Memory, s.Address)
		}
		e := entries[i]
		end := s.Address + s.Memory
		entries[i] = entry{Range{s.Address, s.Memory}, memoryAdded}
		if head := s.Address - e.Start; head > 0 {
			entries = append(entries, entry{Range{e.Start, head}, memoryUnaccepted})
		}
		if tail := e.Start + e.Length - end; tail > 0 {
			entries = append(entries, entry{Range{end, tail}, memoryUnaccepted})
		}
	}
	if !found {
		return nil, fmt.Errorf("computing TD-HOB: firmware has no place for it among %d sections", len(sections))
	}
	slices.SortFunc(entries, func(a, b entry) int { return cmp.Compare(a.Start, b.Start) })
	length := hobHandoffBytes + len(entries)*hobResourceBytes
	le := binary.LittleEndian
	hob := func(b []byte, kind, size uint16) []byte {
		return le.AppendUint32(le.AppendUint16(le.AppendUint16(b, kind), size), 0)
	}
	b := hob(nil, hobHandoff, hobHandoffBytes)
	b = le.AppendUint32(b, hobVersion)
	b = append(b, make([]byte, 4+4*8)...) // boot mode, and four bounds of memory that nobody has set
	b = le.AppendUint64(b, base+uint64(length)+hobEndBytes)
	for _, e := range entries {
		b = hob(b, hobResource, hobResourceBytes)
		b = append(b, make([]byte, 16)...) // nobody owns it
		b = le.AppendUint32(le.AppendUint32(b, e.kind), memoryAttributes)
		b = le.AppendUint64(le.AppendUint64(b, e.Start), e.Length)
	}
	return b, nil
}
