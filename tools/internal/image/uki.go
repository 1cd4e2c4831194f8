package image

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"chrysalis/measure/pe"
)

// ukiSection is a section that a unified kernel image has beyond systemd's stub. UAPI.5 Unified Kernel Image.
type ukiSection struct {
	name string
	data []byte
}

// Offsets in the headers of a PE32+ image. Microsoft PE Format, "COFF File Header", "Optional Header" and "Section Table".
const (
	coffSections       = 6  // from the PE signature
	coffOptionalSize   = 20 // from the PE signature
	coffEnd            = 24 // from the PE signature: where the optional header starts
	peInitializedData  = 8
	peSectionAlignment = 32
	peFileAlignment    = 36
	peImageSize        = 56
	peHeadersSize      = 60
	peChecksum         = 64
	peCharacteristics  = 70
	peSectionBytes     = 40

	peNXCompatible = 0x0100

	sectionCode        = 0x00000020
	sectionInitialized = 0x00000040
	sectionReadable    = 0x40000000
)

// maxUKIBytes bounds a unified kernel image: it has to fit the ESP.
const maxUKIBytes = 60 << 20

// appendSections returns the stub with the sections after its own, as ukify lays them out: in memory and in the file each
// follows the last, and nothing of the stub moves.
func appendSections(stub []byte, sections []ukiSection) ([]byte, error) {
	le := binary.LittleEndian
	image, err := pe.Parse(stub)
	if err != nil {
		return nil, fmt.Errorf("stub: %w", err)
	}
	start := int64(image.Start)
	out := bytes.Clone(stub)
	optional := out[start+coffEnd:]
	count := int64(le.Uint16(out[start+coffSections:]))
	table := start + coffEnd + int64(le.Uint16(out[start+coffOptionalSize:]))
	sectionAlignment, fileAlignment := int64(le.Uint32(optional[peSectionAlignment:])), int64(le.Uint32(optional[peFileAlignment:]))
	if count == 0 || sectionAlignment == 0 || fileAlignment == 0 || sectionAlignment > 1<<20 || fileAlignment > 1<<20 {
		return nil, fmt.Errorf("stub: %d sections aligned to %d in memory and %d in the file", count, sectionAlignment, fileAlignment)
	}
	headers := roundUp(int64(le.Uint32(optional[peHeadersSize:])), fileAlignment)
	if end := table + (count+int64(len(sections)))*peSectionBytes; end > headers || headers > int64(len(stub)) {
		return nil, fmt.Errorf("stub: %d more sections end at %#x, past its headers' %#x", len(sections), end, headers)
	}
	le.PutUint32(optional[peHeadersSize:], uint32(headers))
	last := out[table+(count-1)*peSectionBytes:]
	address := int64(le.Uint32(last[12:])) + int64(le.Uint32(last[8:]))
	initialized := int64(le.Uint32(optional[peInitializedData:]))
	for _, s := range sections {
		if len(s.name) > 8 || len(s.data) == 0 {
			return nil, fmt.Errorf("section %q: %d bytes, want some, under a name of at most 8 bytes", s.name, len(s.data))
		}
		address = roundUp(address, sectionAlignment)
		at := roundUp(int64(len(out)), fileAlignment)
		size := roundUp(int64(len(s.data)), fileAlignment)
		if at+size > maxUKIBytes {
			return nil, fmt.Errorf("section %s ends at %d, want at most %d", s.name, at+size, maxUKIBytes)
		}
		kind := uint32(sectionReadable | sectionInitialized)
		if s.name == ".linux" {
			kind = sectionReadable | sectionCode
		} else {
			initialized += size
		}
		header := make([]byte, peSectionBytes)
		copy(header, s.name)
		for i, v := range []int64{int64(len(s.data)), address, size, at} {
			le.PutUint32(header[8+4*i:], uint32(v))
		}
		le.PutUint32(header[36:], kind)
		copy(out[table+count*peSectionBytes:], header)
		out = append(out, make([]byte, at+size-int64(len(out)))...)
		copy(out[at:], s.data)
		address += int64(len(s.data))
		count++
	}
	optional = out[start+coffEnd:] // out may have moved
	le.PutUint16(out[start+coffSections:], uint16(count))
	le.PutUint32(optional[peInitializedData:], uint32(initialized))
	le.PutUint32(optional[peImageSize:], uint32(roundUp(address, sectionAlignment)))
	le.PutUint32(optional[peChecksum:], 0)
	return out, nil
}

// dropNX clears the stub's promise to run under strict memory protection where the kernel makes none: firmware that
// enforces it wants both or neither.
func dropNX(uki, kernel []byte) error {
	characteristics := func(file []byte) ([]byte, error) {
		image, err := pe.Parse(file)
		if err != nil {
			return nil, err
		}
		return file[image.Start+coffEnd+peCharacteristics:], nil
	}
	of, err := characteristics(kernel)
	if err != nil {
		return fmt.Errorf("kernel: %w", err)
	}
	to, err := characteristics(uki)
	if err != nil {
		return fmt.Errorf("stub: %w", err)
	}
	if binary.LittleEndian.Uint16(of)&peNXCompatible == 0 {
		binary.LittleEndian.PutUint16(to, binary.LittleEndian.Uint16(to)&^peNXCompatible)
	}
	return nil
}

func roundUp(n, to int64) int64 { return (n + to - 1) / to * to }
