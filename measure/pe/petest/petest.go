// Package petest makes small PE32+ images for tests, out of headers and sections and no code.
package petest

import (
	"bytes"
	"encoding/binary"
)

// Sizes of what Image makes.
const (
	First = 0x600 // where the first section's data lies in the file
	Step  = 0x200 // from one to the next
	Size  = 0x180 // of each in memory
	table = 0xf8  // where the section table lies
)

// Headers returns those of an image without sections: 0x200 bytes.
func Headers() []byte {
	b := make([]byte, 0x200)
	copy(b, "MZ")
	binary.LittleEndian.PutUint32(b[0x3c:], 0x40)
	copy(b[0x40:], "PE\x00\x00")
	binary.LittleEndian.PutUint16(b[0x54:], 0xa0)  // size of the optional header
	binary.LittleEndian.PutUint16(b[0x58:], 0x20b) // PE32+
	binary.LittleEndian.PutUint32(b[0x94:], 0x200) // size of headers
	binary.LittleEndian.PutUint32(b[0xc4:], 6)     // data directories
	return b
}

// Image returns an image with the named sections, each of which says over and over what it is; .linux is an image itself.
func Image(names ...string) []byte {
	b := make([]byte, First+Step*len(names))
	copy(b, Headers()[:table])
	binary.LittleEndian.PutUint16(b[0x46:], uint16(len(names)))
	binary.LittleEndian.PutUint32(b[0x94:], First)
	for i, name := range names {
		at := First + Step*i
		h := Header(b, i)
		copy(h[:8], name)
		for j, v := range []uint32{Size, uint32(0x1000 * (i + 1)), Step, uint32(at)} {
			binary.LittleEndian.PutUint32(h[8+4*j:], v)
		}
		copy(b[at:at+Size], bytes.Repeat([]byte(name+" "), 0x80))
		if name == ".linux" {
			copy(b[at:], Headers()[:table])
			binary.LittleEndian.PutUint16(b[at+0x46:], 0)
			binary.LittleEndian.PutUint32(b[at+0x94:], 0x100)
		}
	}
	return b
}

// Header returns the header of a section in the table: name, size in memory (8), address (12), size (16) and place (20) in the file.
func Header(image []byte, i int) []byte { return image[table+40*i:] }

// Put writes what a section holds; it must fit Size, and is filled with zeros.
func Put(image []byte, i int, data []byte) {
	at := binary.LittleEndian.Uint32(Header(image, i)[20:])
	copy(image[at:at+Size], append(bytes.Clone(data), make([]byte, Size-len(data))...))
}
