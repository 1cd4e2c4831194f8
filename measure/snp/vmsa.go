package snp

import (
	"encoding/binary"
	"fmt"
	"sort"
	"strings"
)

// bspResetAddress is the x86 reset vector, where the first vCPU starts.
const bspResetAddress = 0xfffffff0

// reset is what virtual machine monitors differ in of a reset processor.
type reset struct {
	cs, ss, tr uint16 // attributes of segments
	pat        uint64
	rdx        uint64 // what a reset leaves of CPUID
	mxcsr      uint32
	fcw        uint16
}

// resetOf returns the state of a vCPU that starts at eip.
func resetOf(vmm VMM, eip, signature uint32) reset {
	const pat = 0x7040600070406 // AMD64 Architecture Programmer's Manual volume 2, section A.3
	switch vmm {
	case EC2:
		r := reset{0x9b, 0x92, 0x83, pat, 0x600, 0, 0}
		if eip == bspResetAddress {
			r.cs = 0x9a
		}
		return r
	case GCE:
		return reset{0x9b, 0x93, 0x8b, 0x70106, 0x600, 0, 0}
	}
	return reset{0x9b, 0x93, 0x8b, pat, uint64(signature), 0x1f80, 0x37f}
}

// Registers is a vCPU's register state (VMSA, a page) as the virtual machine monitor and KVM make it: that of a reset processor. Offsets are those of the
// VMCB state save area, AMD64 Architecture Programmer's Manual volume 2, table B-4.
func Registers(vmm VMM, eip, signature uint32, features uint64) []byte {
	b := make([]byte, pageBytes)
	le := binary.LittleEndian
	segment := func(at int, selector, attributes uint16, limit uint32, base uint64) {
		le.PutUint16(b[at:], selector)
		le.PutUint16(b[at+2:], attributes)
		le.PutUint32(b[at+4:], limit)
		le.PutUint64(b[at+8:], base)
	}
	of := resetOf(vmm, eip, signature)
	for _, at := range []int{0x00, 0x30, 0x40, 0x50} { // ES, DS, FS, GS
		segment(at, 0, 0x93, 0xffff, 0)
	}
	segment(0x20, 0, of.ss, 0xffff, 0)
	segment(0x10, 0xf000, of.cs, 0xffff, uint64(eip&0xffff0000))
	segment(0x60, 0, 0, 0xffff, 0)    // GDTR
	segment(0x70, 0, 0x82, 0xffff, 0) // LDTR
	segment(0x80, 0, 0, 0xffff, 0)    // IDTR
	segment(0x90, 0, of.tr, 0xffff, 0)
	for _, r := range []struct {
		at    int
		value uint64
	}{
		{0xd0, 0x1000},                // EFER: SVME
		{0x148, 0x40},                 // CR4: MCE
		{0x158, 0x10},                 // CR0: ET
		{0x160, 0x400},                // DR7
		{0x168, 0xffff0ff0},           // DR6
		{0x170, 0x2},                  // RFLAGS
		{0x178, uint64(eip & 0xffff)}, // RIP
		{0x268, of.pat},               // G_PAT
		{0x310, of.rdx},               // RDX
		{0x3b0, features},             // SEV_FEATURES
		{0x3e8, 0x1},                  // XCR0
	} {
		le.PutUint64(b[r.at:], r.value)
	}
	le.PutUint32(b[0x408:], of.mxcsr)
	le.PutUint16(b[0x410:], of.fcw)
	return b
}

// cpuTypes gives family, model and stepping of QEMU's vCPU types (target/i386/cpu.c): those of AMD's server processors and of their
// Chinese sibling, with every version that QEMU 11.1 lists. A test holds the list against QEMU's own.
var cpuTypes = map[string][3]uint32{
	"EPYC": {23, 1, 2}, "EPYC-v1": {23, 1, 2}, "EPYC-v2": {23, 1, 2}, "EPYC-IBPB": {23, 1, 2}, "EPYC-v3": {23, 1, 2}, "EPYC-v4": {23, 1, 2},
	"EPYC-v5":   {23, 1, 2},
	"EPYC-Rome": {23, 49, 0}, "EPYC-Rome-v1": {23, 49, 0}, "EPYC-Rome-v2": {23, 49, 0}, "EPYC-Rome-v3": {23, 49, 0},
	"EPYC-Rome-v4": {23, 49, 0}, "EPYC-Rome-v5": {23, 49, 0},
	"EPYC-Milan": {25, 1, 1}, "EPYC-Milan-v1": {25, 1, 1}, "EPYC-Milan-v2": {25, 1, 1}, "EPYC-Milan-v3": {25, 1, 1}, "EPYC-Milan-v4": {25, 1, 1},
	"EPYC-Genoa": {25, 17, 0}, "EPYC-Genoa-v1": {25, 17, 0}, "EPYC-Genoa-v2": {25, 17, 0}, "EPYC-Genoa-v3": {25, 17, 0},
	"EPYC-Turin": {26, 0, 0}, "EPYC-Turin-v1": {26, 0, 0}, "EPYC-Turin-v2": {26, 0, 0},
	"Dhyana": {24, 0, 1}, "Dhyana-v1": {24, 0, 1}, "Dhyana-v2": {24, 0, 1},
}

// CPUSignature returns the CPUID signature of one of QEMU's vCPU types.
func CPUSignature(cpuType string) (uint32, error) {
	id, ok := cpuTypes[cpuType]
	if !ok {
		return 0, fmt.Errorf("vCPU type %q is unknown, want one of %s, or give the signature itself", cpuType, strings.Join(CPUTypes(), ", "))
	}
	family, model, stepping := id[0], id[1], id[2]
	low, extended := family, uint32(0)
	if family > 0xf {
		low, extended = 0xf, family-0xf
	}
	return extended<<20 | model>>4<<16 | low<<8 | model&0xf<<4 | stepping, nil
}

// CPUTypes returns the known vCPU types, sorted.
func CPUTypes() []string {
	names := make([]string, 0, len(cpuTypes))
	for name := range cpuTypes {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}
