package image

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"chrysalis/measure"
)

// smallStub is a PE32+ image with one section and room for more headers.
func smallStub() []byte {
	b := make([]byte, 0x600)
	le := binary.LittleEndian
	copy(b, "MZ")
	le.PutUint32(b[0x3c:], 0x40)
	copy(b[0x40:], "PE\x00\x00")
	le.PutUint16(b[0x44:], 0x8664)
	le.PutUint16(b[0x46:], 1)    // sections
	le.PutUint16(b[0x54:], 0xf0) // size of the optional header
	o := b[0x58:]
	le.PutUint16(o, 0x20b)
	le.PutUint32(o[peSectionAlignment:], 0x1000)
	le.PutUint32(o[peFileAlignment:], 0x200)
	le.PutUint32(o[peHeadersSize:], 0x400)
	le.PutUint32(o[peChecksum:], 0xabcd)
	le.PutUint16(o[peCharacteristics:], peNXCompatible|0x40)
	le.PutUint32(o[108:], 16)
	h := b[0x58+0xf0:]
	copy(h, ".text")
	for i, v := range []uint32{0x123, 0x1000, 0x200, 0x400} {
		le.PutUint32(h[8+4*i:], v)
	}
	copy(b[0x400:], "code")
	return b
}

// TestAppendSections has Go's own reader look at the result.
func TestAppendSections(t *testing.T) {
	want := []ukiSection{{".osrel", []byte("ID=x\n")}, {".initrd", bytes.Repeat([]byte("i"), 0x1201)}, {".linux", []byte("kernel")}}
	uki, err := appendSections(smallStub(), want)
	if err != nil {
		t.Fatal(err)
	}
	f, err := pe.NewFile(bytes.NewReader(uki))
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Sections) != 4 {
		t.Fatalf("got %d sections, want 4", len(f.Sections))
	}
	end := uint32(0x1123)
	for i, s := range f.Sections[1:] {
		data, err := s.Data()
		if err != nil || s.Name != want[i].name || !bytes.Equal(data[:s.VirtualSize], want[i].data) {
			t.Errorf("section %d is %s with %d bytes (%v), want %s with %d", i, s.Name, s.VirtualSize, err, want[i].name, len(want[i].data))
		}
		if s.VirtualAddress < end || s.VirtualAddress%0x1000 != 0 || s.Offset%0x200 != 0 {
			t.Errorf("section %s lies at %#x and in the file at %#x, want both aligned and after %#x", s.Name, s.VirtualAddress, s.Offset, end)
		}
		end = s.VirtualAddress + s.VirtualSize
	}
	o := f.OptionalHeader.(*pe.OptionalHeader64)
	if o.SizeOfImage != 0x6000 || o.CheckSum != 0 {
		t.Errorf("image has %#x bytes in memory and checksum %#x, want 0x6000 and 0", o.SizeOfImage, o.CheckSum)
	}
	if !bytes.Equal(uki[0x400:0x600], smallStub()[0x400:]) {
		t.Error("the stub's own section has changed")
	}
	kernel := smallStub()
	if err := dropNX(uki, kernel); err != nil || uki[0x58+peCharacteristics+1]&1 == 0 {
		t.Errorf("kernel that promises NX: the image promises none (%v)", err)
	}
	kernel[0x58+peCharacteristics+1] = 0
	if err := dropNX(uki, kernel); err != nil || uki[0x58+peCharacteristics+1]&1 != 0 {
		t.Errorf("kernel that does not promise NX: the image does (%v)", err)
	}
}

func TestAppendSectionsRefuses(t *testing.T) {
	edit := func(at int, value byte) []byte {
		b := smallStub()
		b[at] = value
		return b
	}
	some := []ukiSection{{".linux", []byte("k")}}
	many := make([]ukiSection, 20)
	for i := range many {
		many[i] = some[0]
	}
	for _, tt := range []struct {
		name     string
		stub     []byte
		sections []ukiSection
		want     string
	}{
		{"empty", nil, some, "without an MZ header"},
		{"no PE header", edit(0x40, 'X'), some, "no PE header"},
		{"PE header past the end", edit(0x3d, 0xff), some, "no PE header"},
		{"no alignment", edit(0x58+peFileAlignment+1, 0), some, "aligned to 4096 in memory and 0"},
		{"headers past the end", edit(0x58+peHeadersSize+1, 0x80), some, "headers are 0x8000 bytes"},
		{"no room", smallStub(), many, "past its headers"},
		{"empty section", smallStub(), []ukiSection{{".initrd", nil}}, `section ".initrd": 0 bytes`},
		{"long name", smallStub(), []ukiSection{{".toolongname", []byte("x")}}, "at most 8"},
		{"too large", smallStub(), []ukiSection{{".initrd", make([]byte, maxUKIBytes)}}, "want at most"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := appendSections(tt.stub, tt.sections); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want one that says %q", err, tt.want)
			}
		})
	}
}

// TestDiskOfChangedRelease: a release folder that is not what its manifest says makes no disk.
func TestDiskOfChangedRelease(t *testing.T) {
	release := filepath.Join(sourceTree, "build/release")
	if _, err := ReleaseFiles(release); err != nil {
		t.Skipf("no build of this image here: %v", err)
	}
	dir := t.TempDir()
	for _, name := range append(measure.ReleaseFiles(), "manifest.json") {
		if name == "cmdline" {
			continue
		}
		abs, err := filepath.Abs(filepath.Join(release, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(abs, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "cmdline"), []byte("init=/bin/sh"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := checkedRelease(dir); err == nil || !strings.Contains(err.Error(), "cmdline has 12 bytes") {
		t.Errorf("got error %v, want one about cmdline", err)
	}
	if _, err := checkedRelease(release); err != nil {
		t.Errorf("the release itself: %v", err)
	}
}
