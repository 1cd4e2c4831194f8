// Package bootdisk reads a disk that boots a guest from a unified kernel image: a GPT, an ESP that holds the image as
// EFI/BOOT/BOOTX64.EFI and nothing else, and the root's partition. UEFI 2.10, chapter 5; Microsoft FAT specification.
//
// It is for whoever computes what such a disk makes the firmware measure. A guest never runs it: there the partition table is
// an address and no more, and the root hash decides. A disk whose ESP holds anything else is refused, because systemd's stub
// takes add-ons, credentials and extensions from beside the image.
package bootdisk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
)

// Disk is what a boot disk says.
type Disk struct {
	UKI []byte // the unified kernel image
	// Partitions is what the firmware measures of the partition table: UEFI_GPT_DATA, TCG PC Client Platform Firmware
	// Profile 1.06, section 10.2.6.
	Partitions []byte
}

// MaxUKIBytes bounds a unified kernel image.
const MaxUKIBytes = 256 << 20

const (
	sectorBytes = 512
	headerBytes = 92  // EFI_PARTITION_TABLE_HEADER, UEFI 2.10, section 5.3.2
	entryBytes  = 128 // EFI_PARTITION_ENTRY, UEFI 2.10, section 5.3.3
	entries     = 128
)

// espType is c12a7328-f81f-11d2-ba4b-00a0c93ec93b as it lies on a disk.
var espType = []byte{0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b}

// RootPartition returns the UUID of the partition that holds the root volume: the first half of its root hash, as the
// Discoverable Partitions Specification has it. It says where to look, and nothing about what is there.
func RootPartition(root [32]byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", root[0:4], root[4:6], root[6:8], root[8:10], root[10:16])
}

// Read reads a raw disk of size bytes.
func Read(r io.ReaderAt, size int64) (Disk, error) {
	partitions, esp, err := readTable(r, size)
	if err != nil {
		return Disk{}, fmt.Errorf("reading partition table: %w", err)
	}
	uki, err := readESP(esp)
	if err != nil {
		return Disk{}, fmt.Errorf("reading ESP: %w", err)
	}
	return Disk{uki, partitions}, nil
}

// readTable returns UEFI_GPT_DATA and the ESP.
func readTable(r io.ReaderAt, size int64) (data []byte, esp *io.SectionReader, err error) {
	const before = 2*sectorBytes + entries*entryBytes
	if size < 2*before {
		return nil, nil, fmt.Errorf("%d bytes, want at least %d", size, 2*before)
	}
	b := make([]byte, before)
	if _, err := r.ReadAt(b, 0); err != nil {
		return nil, nil, err
	}
	if string(b[:4]) == "QFI\xfb" {
		return nil, nil, errors.New("this is a qcow2 file, want a raw disk: qemu-img convert -O raw makes one of it")
	}
	h, table := b[sectorBytes:sectorBytes+headerBytes], b[2*sectorBytes:]
	le := binary.LittleEndian
	if string(h[:8]) != "EFI PART" || le.Uint32(h[8:]) != 0x10000 || le.Uint32(h[12:]) != headerBytes {
		return nil, nil, fmt.Errorf("header starts with %q, want that of a GPT of revision 1.0 with %d bytes", h[:16], headerBytes)
	}
	whole := bytes.Clone(h)
	clear(whole[16:20])
	if got, want := crc32.ChecksumIEEE(whole), le.Uint32(h[16:]); got != want {
		return nil, nil, fmt.Errorf("header has CRC %#x, want %#x", got, want)
	}
	if le.Uint64(h[24:]) != 1 || le.Uint64(h[72:]) != 2 || le.Uint32(h[80:]) != entries || le.Uint32(h[84:]) != entryBytes {
		return nil, nil, fmt.Errorf("header at sector %d with %d entries of %d bytes at sector %d, want 1, %d, %d and 2",
			le.Uint64(h[24:]), le.Uint32(h[80:]), le.Uint32(h[84:]), le.Uint64(h[72:]), entries, entryBytes)
	}
	if got, want := crc32.ChecksumIEEE(table), le.Uint32(h[88:]); got != want {
		return nil, nil, fmt.Errorf("entries have CRC %#x, want %#x", got, want)
	}
	data = append(bytes.Clone(h), make([]byte, 8)...)
	used := uint64(0)
	for e := range slices.Chunk(table, entryBytes) {
		if bytes.Equal(e[:16], make([]byte, 16)) {
			continue
		}
		data = append(data, e...)
		used++
		if !bytes.Equal(e[:16], espType) {
			continue
		}
		first, last := le.Uint64(e[32:]), le.Uint64(e[40:])
		if esp != nil || first > last || last >= uint64(size)/sectorBytes {
			return nil, nil, fmt.Errorf("ESP from sector %d to %d of %d, want one, inside the disk", first, last, size/sectorBytes)
		}
		esp = io.NewSectionReader(r, int64(first)*sectorBytes, int64(last-first+1)*sectorBytes)
	}
	if esp == nil {
		return nil, nil, fmt.Errorf("none of %d partitions is an ESP", used)
	}
	le.PutUint64(data[headerBytes:], used)
	return data, esp, nil
}
