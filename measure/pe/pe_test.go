package pe

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"strings"
	"testing"
)

// smallPE returns a PE32+ image with two sections that stand in the file in the other order, and room for certificates.
func smallPE(certificates int) []byte {
	b := make([]byte, 0x200+0x100+0x100+8+certificates)
	for i := range b {
		b[i] = byte(i * 7)
	}
	clear(b[:0x200])
	copy(b, "MZ")
	binary.LittleEndian.PutUint32(b[0x3c:], 0x40)
	copy(b[0x40:], "PE\x00\x00")
	binary.LittleEndian.PutUint16(b[0x46:], 2)      // sections
	binary.LittleEndian.PutUint16(b[0x54:], 0xa0)   // size of the optional header
	binary.LittleEndian.PutUint16(b[0x58:], 0x20b)  // PE32+
	binary.LittleEndian.PutUint32(b[0x94:], 0x200)  // size of headers
	binary.LittleEndian.PutUint32(b[0x98:], 0xabcd) // checksum
	binary.LittleEndian.PutUint32(b[0xc4:], 6)      // data directories
	if certificates > 0 {
		binary.LittleEndian.PutUint32(b[0xe8:], uint32(len(b)-certificates))
		binary.LittleEndian.PutUint32(b[0xec:], uint32(certificates))
	}
	for i, at := range []uint32{0x300, 0x200} {
		binary.LittleEndian.PutUint32(b[0xf8+40*i+16:], 0x100)
		binary.LittleEndian.PutUint32(b[0xf8+40*i+20:], at)
	}
	return b
}

func TestHash(t *testing.T) {
	plain := smallPE(0)
	got, err := imageHash(plain)
	if err != nil {
		t.Fatal(err)
	}
	// By hand: the sections lie one behind the other, so the hash is the file without checksum and directory entry.
	want := sha256.Sum256(slices.Concat(plain[:0x98], plain[0x9c:0xe8], plain[0xf0:]))
	if got != want {
		t.Errorf("got %x, want %x", got, want)
	}
	signed := smallPE(64)
	// A signature and the checksum that it changes do not count.
	other := bytes.Clone(signed)
	other[0x98] ^= 1
	other[len(other)-1] ^= 1
	a, errA := imageHash(signed)
	b, errB := imageHash(other)
	if errA != nil || errB != nil || a != b {
		t.Errorf("another signature: got %x (%v), want %x (%v)", b, errB, a, errA)
	}
	for _, at := range []int{0x10, 0x94 + 0x20, 0x250, 0x3ff, 0x407} {
		bad := bytes.Clone(plain)
		bad[at] ^= 1
		if got, err := imageHash(bad); err == nil && got == want {
			t.Errorf("byte %#x does not count", at)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	edit := func(at int, value uint32) []byte {
		b := smallPE(64)
		binary.LittleEndian.PutUint32(b[at:], value)
		return b
	}
	for _, tt := range []struct {
		name  string
		image []byte
		want  string
	}{
		{"empty", nil, "MZ header"},
		{"PE header past the end", edit(0x3c, 1<<30), "no PE header"},
		{"PE32", edit(0x58, 0x10b), "want PE32+"},
		{"few directories", edit(0xc4, 4), "want at least 5"},
		{"certificates inside", edit(0xe8, 0x300), "want the end of the file"},
		{"section past the end", edit(0xf8+16, 1<<20), "past the file's"},
		{"headers past the end", edit(0x94, 1<<20), "headers are"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := imageHash(tt.image)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}

func FuzzHash(f *testing.F) {
	f.Add(smallPE(0))
	f.Add(smallPE(64))
	f.Fuzz(func(t *testing.T, image []byte) {
		h, err := imageHash(image)
		if err != nil {
			return
		}
		if again, err := imageHash(image); err != nil || again != h {
			t.Errorf("hashed again: got %x (%v), want %x", again, err, h)
		}
	})
}

// imageHash is the SHA-256 image hash.
func imageHash(image []byte) ([32]byte, error) {
	sum := sha256.New()
	err := WriteHash(sum, image)
	return [32]byte(sum.Sum(nil)), err
}
