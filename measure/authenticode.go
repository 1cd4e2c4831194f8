package measure

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"slices"
)

// authenticode writes into sum what the image hash covers that firmware extends before it starts a PE image: everything but
// the checksum, the certificate table's directory entry and the certificates. Windows Authenticode Portable Executable
// Signature Format, "Calculating the PE Image Hash".
func authenticode(image []byte, sum hash.Hash) error {
	h, err := parsePE(image)
	if err != nil {
		return err
	}
	sum.Write(image[:h.checksum])
	sum.Write(image[h.checksum+4 : h.certificateEntry])
	sum.Write(image[h.certificateEntry+8 : h.headersSize])
	hashed := h.headersSize
	for _, s := range h.sections {
		sum.Write(image[s.start:s.end])
		hashed += s.end - s.start
	}
	end := uint64(len(image)) - h.certificateSize
	if hashed > end {
		return fmt.Errorf("headers and sections have %d bytes, want at most the %d before the certificates", hashed, end)
	}
	sum.Write(image[hashed:end])
	return nil
}

// ImageHashes returns the image hash of a PE image, as a TPM and as an RTMR take it.
func ImageHashes(image []byte) (pcr [32]byte, rtmr [48]byte, err error) {
	sum256, sum384 := sha256.New(), sha512.New384()
	if err := errors.Join(authenticode(image, sum256), authenticode(image, sum384)); err != nil {
		return pcr, rtmr, err
	}
	return [32]byte(sum256.Sum(nil)), [48]byte(sum384.Sum(nil)), nil
}

// peLayout holds the file offsets that the image hash is made of.
type peLayout struct {
	checksum, certificateEntry uint64
	headersSize                uint64
	certificateSize            uint64
	sections                   []struct{ start, end uint64 } // in the order of their place in the file
}

func parsePE(image []byte) (l peLayout, err error) {
	size := uint64(len(image))
	if size < 0x40 || string(image[:2]) != "MZ" {
		return l, fmt.Errorf("%d bytes without an MZ header", size)
	}
	coff := uint64(binary.LittleEndian.Uint32(image[0x3c:]))
	const coffSize = 4 + 20
	// The part of a PE32+ optional header up to and with the certificate table's directory entry.
	const optionalSize = 112 + 5*8
	if coff > size || size-coff < coffSize+optionalSize || string(image[coff:coff+4]) != "PE\x00\x00" {
		return l, fmt.Errorf("no PE header at %#x of %#x bytes", coff, size)
	}
	optional := coff + coffSize
	if magic := binary.LittleEndian.Uint16(image[optional:]); magic != 0x20b {
		return l, fmt.Errorf("optional header is of kind %#x, want PE32+ (0x20b)", magic)
	}
	if n := binary.LittleEndian.Uint32(image[optional+108:]); n < 5 {
		return l, fmt.Errorf("%d data directories, want at least 5", n)
	}
	l.checksum, l.certificateEntry = optional+64, optional+112+4*8
	l.headersSize = uint64(binary.LittleEndian.Uint32(image[optional+60:]))
	certificateAt := uint64(binary.LittleEndian.Uint32(image[l.certificateEntry:]))
	l.certificateSize = uint64(binary.LittleEndian.Uint32(image[l.certificateEntry+4:]))
	if l.certificateSize != 0 && certificateAt+l.certificateSize != size {
		return l, fmt.Errorf("certificates end at %#x, want the end of the file, %#x", certificateAt+l.certificateSize, size)
	}
	count := uint64(binary.LittleEndian.Uint16(image[coff+6:]))
	table := optional + uint64(binary.LittleEndian.Uint16(image[coff+20:]))
	const sectionSize = 40
	if l.headersSize > size || l.certificateEntry+8 > l.headersSize || table+count*sectionSize > l.headersSize {
		return l, fmt.Errorf("headers are %#x bytes of %#x, too few for %d sections at %#x", l.headersSize, size, count, table)
	}
	for i := range count {
		h := image[table+i*sectionSize:]
		raw, at := uint64(binary.LittleEndian.Uint32(h[16:])), uint64(binary.LittleEndian.Uint32(h[20:]))
		if raw == 0 {
			continue
		}
		if at+raw > size {
			return l, fmt.Errorf("section %d ends at %#x, past the file's %#x", i, at+raw, size)
		}
		l.sections = append(l.sections, struct{ start, end uint64 }{at, at + raw})
	}
	slices.SortFunc(l.sections, func(a, b struct{ start, end uint64 }) int { return int(int64(a.start) - int64(b.start)) })
	return l, nil
}
