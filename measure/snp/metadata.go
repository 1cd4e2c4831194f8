package snp

import (
	"encoding/binary"
	"fmt"

	"chrysalis/measure/tdvf"
)

// GUIDs of entries in the firmware's table, OVMF's ResetVector/Ia16/ResetVectorVtf0.asm.
const (
	metadataGUID  = "dc886566-984a-4798-a75e-5585a7bf67cc"
	hashAreaGUID  = "7255371f-3a3b-4b04-927b-1da6efa8d454"
	resetAreaGUID = "00f771de-1a7e-4fcb-890e-68c77e2fb44e"

	metadataMagic = "ASEV"
	metadataHead  = 16
	sectionBytes  = 12
	maxSections   = 64
	// maxSectionBytes bounds one section; OVMF's largest is below 1 MiB.
	maxSectionBytes = 64 << 20
)

// Kind says what a section of the metadata holds.
type Kind uint32

// The kinds, OVMF's OvmfSevMetadata.asm.
const (
	KindMemory       Kind = 1 // validated before the firmware runs
	KindSecrets      Kind = 2
	KindCPUID        Kind = 3
	KindCAA          Kind = 4 // SVSM calling area
	KindKernelHashes Kind = 0x10
)

// Section is one entry of the metadata.
type Section struct {
	Address, Size uint32
	Kind          Kind
}

// Sections returns the SEV metadata of a firmware image.
func Sections(firmware []byte) ([]Section, error) {
	entry, err := tdvf.Entry(firmware, metadataGUID)
	if err != nil {
		return nil, fmt.Errorf("reading SEV metadata: there is none, so this firmware starts no SEV-SNP guest (Debian's that does is OVMF.amdsev.fd): %w", err)
	}
	if len(entry) != 4 {
		return nil, fmt.Errorf("reading SEV metadata: entry has %d bytes, want 4", len(entry))
	}
	fromEnd := binary.LittleEndian.Uint32(entry)
	if fromEnd < metadataHead || uint64(fromEnd) > uint64(len(firmware)) {
		return nil, fmt.Errorf("reading SEV metadata: it stands %d bytes before the end of %d", fromEnd, len(firmware))
	}
	b := firmware[len(firmware)-int(fromEnd):]
	le := binary.LittleEndian
	if string(b[:4]) != metadataMagic {
		return nil, fmt.Errorf("reading SEV metadata: magic is %q, want %q", b[:4], metadataMagic)
	}
	version, count := le.Uint32(b[8:]), le.Uint32(b[12:])
	if version != 1 || count == 0 || count > maxSections || uint64(len(b)) < metadataHead+uint64(count)*sectionBytes {
		return nil, fmt.Errorf("reading SEV metadata: version %d with %d sections in %d bytes, want version 1 and 1 to %d", version, count,
			len(b), maxSections)
	}
	sections := make([]Section, count)
	for i := range sections {
		s := b[metadataHead+i*sectionBytes:]
		sections[i] = Section{le.Uint32(s), le.Uint32(s[4:]), Kind(le.Uint32(s[8:]))}
		if err := sections[i].validate(); err != nil {
			return nil, fmt.Errorf("reading SEV metadata: section %d: %w", i, err)
		}
	}
	return sections, nil
}

func (s Section) validate() error {
	switch s.Kind {
	case KindMemory, KindCAA, KindKernelHashes:
	case KindSecrets, KindCPUID:
		if s.Size != pageBytes {
			return fmt.Errorf("kind %d has %d bytes, want one page", s.Kind, s.Size)
		}
	default:
		return fmt.Errorf("kind %d is unknown", s.Kind)
	}
	if s.Address%pageBytes != 0 || s.Size%pageBytes != 0 || s.Size == 0 || s.Size > maxSectionBytes {
		return fmt.Errorf("%d bytes at %#x, want whole pages, at most %d bytes", s.Size, s.Address, maxSectionBytes)
	}
	return nil
}

// hashTableArea is where the firmware wants the table of kernel hashes, and the room that it leaves.
func hashTableArea(firmware []byte) (address, size uint32, err error) {
	entry, err := tdvf.Entry(firmware, hashAreaGUID)
	if err != nil {
		return 0, 0, fmt.Errorf("looking for the kernel hashes: %w", err)
	}
	if len(entry) != 8 {
		return 0, 0, fmt.Errorf("looking for the kernel hashes: entry has %d bytes, want 8", len(entry))
	}
	return binary.LittleEndian.Uint32(entry), binary.LittleEndian.Uint32(entry[4:]), nil
}

// apResetAddress is where every vCPU but the first starts.
func apResetAddress(firmware []byte) (uint32, error) {
	entry, err := tdvf.Entry(firmware, resetAreaGUID)
	if err != nil {
		return 0, fmt.Errorf("looking for the reset address: %w", err)
	}
	if len(entry) != 4 {
		return 0, fmt.Errorf("looking for the reset address: entry has %d bytes, want 4", len(entry))
	}
	return binary.LittleEndian.Uint32(entry), nil
}
