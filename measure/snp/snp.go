// Package snp computes the launch digest of an SEV-SNP guest that QEMU starts, or a cloud: a chain over the firmware's pages, the
// pages that its metadata asks for, the hashes of kernel, initrd and command line, and the first register state of each
// vCPU. Source: AMD SEV Secure Nested Paging Firmware ABI Specification 1.55, section 8.17.2 (PAGE_INFO), OVMF's SEV
// metadata, and QEMU's target/i386/sev.c for the hashes table and the reset state.
package snp

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"fmt"
	"slices"

	"chrysalis/measure/tdvf"
)

// Launch is what decides over the launch digest.
type Launch struct {
	Firmware      []byte
	VMM           VMM // who starts the guest; empty is QEMU
	VCPUs         int
	Signature     uint32 // CPUID signature of the vCPU type, EAX of leaf 1: QEMU's alone, others leave what they like
	GuestFeatures uint64 // SEV_FEATURES of each vCPU, such as 0x1 (SNP active)
	Kernel        *Kernel
}

// Kernel is what is started directly, with its hashes in a page of the firmware. Nil when the firmware boots from a disk.
type Kernel struct {
	Kernel, Initrd []byte
	Cmdline        string
}

// VMM is the virtual machine monitor that starts the guest.
type VMM string

// Those whose first register state and order of pages are known: QEMU, Amazon's EC2 and Google's Compute Engine. Source of the latter
// two: virtee/sev-snp-measure, sevsnpmeasure/vmsa.py and guest.py, and google/gce-tcb-verifier, sev/ld_from_ovmf.go.
const (
	QEMU VMM = "qemu"
	EC2  VMM = "ec2"
	GCE  VMM = "gce"
)

// VMMs are those known.
func VMMs() []VMM { return []VMM{QEMU, EC2, GCE} }

// Page is a type of page in PAGE_INFO.
type Page uint8

// The types.
const (
	PageNormal     Page = 1
	PageRegisters  Page = 2 // VMSA
	PageZero       Page = 3
	PageUnmeasured Page = 4
	PageSecrets    Page = 5
	PageCPUID      Page = 6
)

const (
	pageBytes = 4096
	fourGiB   = 1 << 32
	maxVCPUs  = 4096

	// vmsaAddress is where KVM says that a vCPU's register state lies: the last page of a 48-bit address space.
	vmsaAddress = 0xfffffffff000
)

// Digest returns the launch digest.
func Digest(l Launch) (digest [48]byte, err error) {
	if l.VCPUs < 1 || l.VCPUs > maxVCPUs {
		return digest, fmt.Errorf("computing launch digest: %d vCPUs, want 1 to %d", l.VCPUs, maxVCPUs)
	}
	if l.VMM == "" {
		l.VMM = QEMU
	}
	if !slices.Contains(VMMs(), l.VMM) {
		return digest, fmt.Errorf("computing launch digest: virtual machine monitor %.100q, want one of %q", l.VMM, VMMs())
	}
	if len(l.Firmware)%pageBytes != 0 {
		return digest, fmt.Errorf("computing launch digest: firmware has %d bytes, want whole pages", len(l.Firmware))
	}
	sections, err := Sections(l.Firmware)
	if err != nil {
		return digest, fmt.Errorf("computing launch digest: %w", err)
	}
	var c Chain
	base := uint64(fourGiB - len(l.Firmware))
	for at := 0; at < len(l.Firmware); at += pageBytes {
		c.Data(PageNormal, base+uint64(at), l.Firmware[at:at+pageBytes])
	}
	hashed := false
	for _, s := range sections {
		switch s.Kind {
		case KindMemory:
			if l.VMM == GCE {
				c.section(PageUnmeasured, s)
			} else {
				c.section(PageZero, s)
			}
		case KindCAA:
			c.section(PageZero, s)
		case KindSecrets:
			c.section(PageSecrets, s)
		case KindCPUID:
			if l.VMM != EC2 {
				c.section(PageCPUID, s)
			}
		case KindKernelHashes:
			if l.Kernel == nil {
				c.section(PageZero, s)
				continue
			}
			page, err := KernelHashes(l.Firmware, s, *l.Kernel)
			if err != nil {
				return digest, fmt.Errorf("computing launch digest: %w", err)
			}
			c.Data(PageNormal, uint64(s.Address), page)
			hashed = true
		}
	}
	if l.VMM == EC2 { // adds the page of CPUID after all others
		for _, s := range sections {
			if s.Kind == KindCPUID {
				c.section(PageCPUID, s)
			}
		}
	}
	if l.Kernel != nil && !hashed {
		return digest, fmt.Errorf("computing launch digest: the firmware has no page for kernel hashes, so it measures no kernel")
	}
	reset, err := apResetAddress(l.Firmware)
	if err != nil {
		return digest, fmt.Errorf("computing launch digest: %w", err)
	}
	for i := range l.VCPUs {
		eip := uint32(bspResetAddress)
		if i > 0 {
			eip = reset
		}
		c.Data(PageRegisters, vmsaAddress, Registers(l.VMM, eip, l.Signature, l.GuestFeatures))
	}
	return c.Digest(), nil
}

// Chain is the launch digest as it grows: SHA-384 over PAGE_INFO, which holds the digest before. The zero value is that of a guest
// without a page.
type Chain struct{ value [48]byte }

// Digest returns the digest so far.
func (c *Chain) Digest() [48]byte { return c.value }

// Data adds a page whose contents are measured.
func (c *Chain) Data(kind Page, address uint64, page []byte) {
	c.extend(kind, address, sha512.Sum384(page))
}

// Blank adds a page whose contents its maker can't know: they count as a digest of zeros.
func (c *Chain) Blank(kind Page, address uint64) { c.extend(kind, address, [48]byte{}) }

// section adds the pages of a section as Blank does.
func (c *Chain) section(kind Page, s Section) {
	for at := uint64(0); at < uint64(s.Size); at += pageBytes {
		c.Blank(kind, uint64(s.Address)+at)
	}
}

func (c *Chain) extend(kind Page, address uint64, contents [48]byte) {
	const infoBytes = 0x70
	info := make([]byte, infoBytes)
	copy(info, c.value[:])
	copy(info[48:], contents[:])
	binary.LittleEndian.PutUint16(info[96:], infoBytes)
	info[98] = byte(kind) // then: not an initial migration image, no permissions for VMPL 3 to 1, reserved
	binary.LittleEndian.PutUint64(info[104:], address)
	c.value = sha512.Sum384(info)
}

// GUIDs of QEMU's table of hashes, target/i386/sev.c.
const (
	hashTableGUID   = "9438d606-4f22-4cc9-b479-a793d411fd21"
	hashKernelGUID  = "4de79437-abd2-427f-b835-d5b172d2045b"
	hashInitrdGUID  = "44baf731-3a2f-4bd7-9af1-41e29169781d"
	hashCmdlineGUID = "97d02dd8-bd20-4c94-aa78-e7714d36ab2a"
)

// KernelHashes is the page with the table of hashes, at the place inside it that the firmware names.
func KernelHashes(firmware []byte, s Section, k Kernel) ([]byte, error) {
	address, size, err := hashTableArea(firmware)
	if err != nil {
		return nil, err
	}
	cmdline := sha256.Sum256(append([]byte(k.Cmdline), 0))
	initrd, kernel := sha256.Sum256(k.Initrd), sha256.Sum256(k.Kernel)
	var entries []byte
	for _, e := range []struct {
		guid string
		hash [32]byte
	}{{hashCmdlineGUID, cmdline}, {hashInitrdGUID, initrd}, {hashKernelGUID, kernel}} {
		entries = appendEntry(entries, e.guid, e.hash[:])
	}
	table := appendEntry(nil, hashTableGUID, entries)
	for len(table)%16 != 0 {
		table = append(table, 0)
	}
	offset := int64(address) - int64(s.Address)
	if s.Size != pageBytes || offset < 0 || offset+int64(len(table)) > pageBytes || len(table) > int(size) {
		return nil, fmt.Errorf("table of %d hash bytes at %#x (room for %d), want it inside the page at %#x", len(table), address,
			size, s.Address)
	}
	page := make([]byte, pageBytes)
	copy(page[offset:], table)
	return page, nil
}

// appendEntry adds GUID, length of the whole entry (u16), data.
func appendEntry(b []byte, guid string, data []byte) []byte {
	id := tdvf.ParseGUID(guid)
	b = append(b, id[:]...)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(id)+2+len(data)))
	return append(b, data...)
}
