// Package pe reads PE32+ images, the form of EFI programs: a kernel with its EFI stub, and a unified kernel image. Microsoft PE
// Format.
//
//	image, err := pe.Parse(file)
//	err = image.Hash(sum)
//
// Parse bounds all that the others read. Nothing of an image is run, and its signatures are not judged: what firmware
// measures of it is its hash, whoever signed it.
package pe

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"slices"
)

// Image is an image that Parse has read. It keeps the file's bytes.
type Image struct {
	// Sections are those of the section table, in its order.
	Sections []Section
	// Start is where the PE signature lies in the file, and with it the headers: COFF header, optional header, section table.
	Start int

	file                       []byte
	checksum, certificateEntry uint64 // offsets in the file
	headersSize                uint64
	certificateSize            uint64
}

// Section is a section of an image.
type Section struct {
	Name string
	Data []byte // as it lies in the file, without what rounds it up; nil if nothing of it does
	Size uint64 // in memory, where zeros follow the data if it is larger

	start, end uint64 // in the file
}

// Parse reads the headers of an image.
func Parse(image []byte) (Image, error) {
	l := Image{file: image}
	size, le := uint64(len(image)), binary.LittleEndian
	if size < 0x40 || string(image[:2]) != "MZ" {
		return Image{}, fmt.Errorf("%d bytes without an MZ header", size)
	}
	coff := uint64(le.Uint32(image[0x3c:]))
	const coffSize = 4 + 20
	// The part of a PE32+ optional header up to and with the certificate table's directory entry.
	const optionalSize = 112 + 5*8
	if coff > size || size-coff < coffSize+optionalSize || string(image[coff:coff+4]) != "PE\x00\x00" {
		return Image{}, fmt.Errorf("no PE header at %#x of %#x bytes", coff, size)
	}
	l.Start = int(coff)
	optional := coff + coffSize
	if magic := le.Uint16(image[optional:]); magic != 0x20b {
		return Image{}, fmt.Errorf("optional header is of kind %#x, want PE32+ (0x20b)", magic)
	}
	if n := le.Uint32(image[optional+108:]); n < 5 {
		return Image{}, fmt.Errorf("%d data directories, want at least 5", n)
	}
	l.checksum, l.certificateEntry = optional+64, optional+112+4*8
	l.headersSize = uint64(le.Uint32(image[optional+60:]))
	certificateAt := uint64(le.Uint32(image[l.certificateEntry:]))
	l.certificateSize = uint64(le.Uint32(image[l.certificateEntry+4:]))
	if l.certificateSize != 0 && certificateAt+l.certificateSize != size {
		return Image{}, fmt.Errorf("certificates end at %#x, want the end of the file, %#x", certificateAt+l.certificateSize, size)
	}
	count := uint64(le.Uint16(image[coff+6:]))
	table := optional + uint64(le.Uint16(image[coff+20:]))
	const sectionSize = 40
	if l.headersSize > size || l.certificateEntry+8 > l.headersSize || table+count*sectionSize > l.headersSize {
		return Image{}, fmt.Errorf("headers are %#x bytes of %#x, too few for %d sections at %#x", l.headersSize, size, count, table)
	}
	for i := range count {
		h := image[table+i*sectionSize:]
		s := Section{Name: string(bytes.TrimRight(h[:8], "\x00"))}
		used, raw, at := uint64(le.Uint32(h[8:])), uint64(le.Uint32(h[16:])), uint64(le.Uint32(h[20:]))
		s.Size = used
		if raw == 0 {
			l.Sections = append(l.Sections, s)
			continue
		}
		if at+raw > size {
			return Image{}, fmt.Errorf("section %d ends at %#x, past the file's %#x", i, at+raw, size)
		}
		s.start, s.end, s.Data = at, at+raw, image[at:at+min(used, raw)]
		l.Sections = append(l.Sections, s)
	}
	return l, nil
}

// maxZeros bounds how much larger a section may be in memory than in the file.
const maxZeros = 64 << 20

// Memory returns the section as a loader lays it into memory: as many bytes as it has there, with zeros where the file ends.
func (s Section) Memory() ([]byte, error) {
	zeros := s.Size - uint64(len(s.Data))
	if zeros == 0 {
		return s.Data, nil
	}
	if zeros > maxZeros {
		return nil, fmt.Errorf("section %q has %d bytes in memory and %d in the file, want at most %d more", s.Name, s.Size, len(s.Data), maxZeros)
	}
	return append(slices.Clone(s.Data), make([]byte, zeros)...), nil
}

// Hash writes into sum what the image hash covers that firmware extends before it starts an image: everything but the
// checksum, the certificate table's directory entry and the certificates. Windows Authenticode Portable Executable Signature
// Format, "Calculating the PE Image Hash".
func (i Image) Hash(sum hash.Hash) error {
	sections := slices.Clone(i.Sections)
	slices.SortStableFunc(sections, func(a, b Section) int { return cmp.Compare(a.start, b.start) }) // by their place in the file
	hashed := i.headersSize
	for _, s := range sections {
		hashed += s.end - s.start
	}
	end := uint64(len(i.file)) - i.certificateSize
	if hashed > end {
		return fmt.Errorf("headers and sections have %d bytes, want at most the %d before the certificates", hashed, end)
	}
	sum.Write(i.file[:i.checksum])
	sum.Write(i.file[i.checksum+4 : i.certificateEntry])
	sum.Write(i.file[i.certificateEntry+8 : i.headersSize])
	for _, s := range sections {
		sum.Write(i.file[s.start:s.end])
	}
	sum.Write(i.file[hashed:end])
	return nil
}

// WriteHash is Parse and Hash.
func WriteHash(sum hash.Hash, image []byte) error {
	i, err := Parse(image)
	if err != nil {
		return err
	}
	return i.Hash(sum)
}

// Hashes returns the image hash as a TPM and as an RTMR take it.
func Hashes(image []byte) (pcr [32]byte, rtmr [48]byte, err error) {
	sum256, sum384 := sha256.New(), sha512.New384()
	if err := errors.Join(WriteHash(sum256, image), WriteHash(sum384, image)); err != nil {
		return pcr, rtmr, err
	}
	return [32]byte(sum256.Sum(nil)), [48]byte(sum384.Sum(nil)), nil
}
