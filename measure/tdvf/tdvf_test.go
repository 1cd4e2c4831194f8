package tdvf

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"strings"
	"testing"

	gce "github.com/google/gce-tcb-verifier/tdx"
)

// image builds a firmware image of the given size with the sections in its metadata and random contents.
func image(size int, sections []Section) []byte {
	b := make([]byte, size)
	random := rand.NewChaCha8([32]byte{1})
	random.Read(b[:size/2])
	le := binary.LittleEndian
	meta := append([]byte(metadataMagic), make([]byte, 12)...)
	le.PutUint32(meta[4:], uint32(metadataHead+len(sections)*sectionBytes))
	le.PutUint32(meta[8:], 1)
	le.PutUint32(meta[12:], uint32(len(sections)))
	for _, s := range sections {
		meta = le.AppendUint32(le.AppendUint32(meta, s.Offset), s.Size)
		meta = le.AppendUint64(le.AppendUint64(meta, s.Address), s.Memory)
		meta = le.AppendUint32(le.AppendUint32(meta, s.Type), s.Flags)
	}
	at := size - 4096
	head := ParseGUID("e9eaf9f3-168e-44d5-a8eb-7f4d8738f6ae") // stands before the metadata; the address goes past it
	copy(b[at-len(head):], head[:])
	copy(b[at:], meta)
	entry := func(data []byte, guid string) []byte {
		id := ParseGUID(guid)
		return append(le.AppendUint16(bytes.Clone(data), uint16(len(data)+entryHead)), id[:]...)
	}
	other := entry([]byte{1, 2, 3}, "00f771de-1a7e-4fcb-890e-68c77e2fb44e")
	table := append(entry(le.AppendUint32(nil, uint32(size-at)), metadataGUID), other...)
	footer := ParseGUID(footerGUID)
	table = append(le.AppendUint16(table, uint16(len(table)+entryHead)), footer[:]...)
	copy(b[size-tableEnd-len(table):], table)
	return b
}

// sections are those of OVMF in kind: two volumes that are measured, and memory that is only added.
func sections(size int) []Section {
	return []Section{
		{Offset: 0x4000, Size: uint32(size - 0x4000), Address: 0xffc84000, Memory: uint64(size - 0x4000), Type: 0, Flags: attributeExtend},
		{Offset: 0, Size: 0x4000, Address: 0xffc00000, Memory: 0x4000, Type: 1},
		{Address: 0x810000, Memory: 0x10000, Type: 3},
		{Address: 0x80b000, Memory: 0x2000, Type: 3},
		{Address: 0x809000, Memory: 0x2000, Type: 2},
	}
}

// TestMRTDAgainstGCE compares with an implementation of another author.
func TestMRTDAgainstGCE(t *testing.T) {
	const size = 1 << 18
	firmware := image(size, sections(size))
	got, err := MRTD(firmware, SinglePass)
	if err != nil {
		t.Fatal(err)
	}
	want, err := gce.MRTD(gce.LaunchOptionsDefault(""), firmware)
	if err != nil {
		t.Fatal(err)
	}
	if got != want {
		t.Errorf("MRTD: got %x, want %x", got, want)
	}
	two, err := MRTD(firmware, TwoPass)
	if err != nil {
		t.Fatal(err)
	}
	if two == got {
		t.Error("both page orders give one MRTD")
	}
}

func TestEveryMeasuredByteCounts(t *testing.T) {
	const size = 1 << 16
	firmware := image(size, sections(size))
	want, err := MRTD(firmware, SinglePass)
	if err != nil {
		t.Fatal(err)
	}
	for at := 0; at < size; at += 97 {
		bad := bytes.Clone(firmware)
		bad[at] ^= 1
		got, err := MRTD(bad, SinglePass)
		if measured := at >= 0x4000; err == nil && (got != want) != measured {
			t.Fatalf("byte %#x: MRTD changed is %v, want %v", at, got != want, measured)
		}
	}
}

func TestRefuses(t *testing.T) {
	const size = 1 << 16
	one := func(change func(*Section)) []byte {
		all := sections(size)
		change(&all[0])
		return image(size, all)
	}
	for _, tt := range []struct {
		name     string
		firmware []byte
		want     string
	}{
		{"empty", nil, "firmware has 0 bytes"},
		{"no table", make([]byte, size), "entry has 0 bytes"},
		{"no section", image(size, nil), "0 sections"},
		{"section past the image", one(func(s *Section) { s.Offset = 0x4001 }), "in an image of"},
		{"section that is no whole page", one(func(s *Section) { s.Memory++ }), "want whole pages"},
		{"section of more bytes than memory", one(func(s *Section) { s.Memory = 4096 }), "want whole pages"},
		{"section of a terabyte", one(func(s *Section) { s.Memory = 1 << 40 }), "at most"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := MRTD(tt.firmware, SinglePass); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want one that says %q", err, tt.want)
			}
		})
	}
	if _, err := MRTD(image(size, sections(size)), ""); err == nil {
		t.Error("no page order: got no error, want a refusal")
	}
}

func TestGUID(t *testing.T) {
	id := ParseGUID(metadataGUID)
	if got := formatGUID(id[:]); got != metadataGUID {
		t.Errorf("got %s, want %s", got, metadataGUID)
	}
}

func FuzzMRTD(f *testing.F) {
	f.Add(image(1<<14, []Section{{Offset: 0, Size: 4096, Address: 0xfffff000, Memory: 4096, Flags: attributeExtend}}))
	f.Fuzz(func(t *testing.T, firmware []byte) {
		s, err := Sections(firmware)
		var memory uint64
		for _, x := range s {
			memory += x.Memory
		}
		if err != nil || memory > 1<<20 {
			return
		}
		if _, err := MRTD(firmware, TwoPass); err != nil {
			t.Errorf("sections are read, but MRTD says %v", err)
		}
	})
}

// shim is an image of td-shim's own form: no table of entries, but a word at the end, and a section that is loaded nowhere.
func shim() []byte {
	const size = 1 << 16
	b := make([]byte, size)
	random := rand.NewChaCha8([32]byte{3})
	random.Read(b[:size-0x2000])
	le := binary.LittleEndian
	sections := []Section{
		{Offset: 0x8000, Size: 0x6000, Address: 0xffff8000, Memory: 0x6000, Type: 0, Flags: attributeExtend},
		{Address: 0x20000, Memory: 0x2000, Type: 2},
		{Address: 0x10000, Memory: 0x3000, Type: 3},
		{Offset: 0, Size: 0x4000, Address: 0xff000000, Memory: 0x4000, Type: 5, Flags: attributeExtend},
		{Address: 0x40000, Memory: 0x4000, Type: 6, Flags: attributePageAug},
		{Offset: 0x100, Size: 0x40, Type: sectionTDInfo},
	}
	meta := append([]byte(metadataMagic), make([]byte, 12)...)
	le.PutUint32(meta[4:], uint32(metadataHead+len(sections)*sectionBytes))
	le.PutUint32(meta[8:], 1)
	le.PutUint32(meta[12:], uint32(len(sections)))
	for _, s := range sections {
		meta = le.AppendUint32(le.AppendUint32(meta, s.Offset), s.Size)
		meta = le.AppendUint64(le.AppendUint64(meta, s.Address), s.Memory)
		meta = le.AppendUint32(le.AppendUint32(meta, s.Type), s.Flags)
	}
	const at = size - 0x1000
	head := ParseGUID(shimGUID)
	copy(b[at-len(head):], head[:])
	copy(b[at:], meta)
	le.PutUint32(b[size-tableEnd:], at)
	return b
}

// TestMRTDOfShim has the value that td-shim's own td_shim_tee_info_hash.py (confidential-containers/td-shim at
// 125eeab58f69b891175c8803b4a824bfed7389c1) gives for the image: python3 td_shim_tee_info_hash.py -i IMAGE.
func TestMRTDOfShim(t *testing.T) {
	image := shim()
	got, err := MRTD(image, SinglePass)
	if err != nil {
		t.Fatal(err)
	}
	if want := "cc478fc14432998ba71349c7af95aea3b79c5285fe55ccdf3c9f4dac42e1bcfaf5d7045df5d61aa64a3e61805b0f69f1"; hex.EncodeToString(got[:]) != want {
		t.Errorf("got %x, want %s", got, want)
	}
	for _, tt := range []struct {
		name string
		edit func([]byte)
	}{
		{"no metadata at the end's word", func(b []byte) { b[len(b)-tableEnd] ^= 0x10 }},
		{"another GUID", func(b []byte) { b[len(b)-0x1001] ^= 1 }},
		{"past the end", func(b []byte) { copy(b[len(b)-tableEnd:], []byte{0xff, 0xff, 0xff, 0xff}) }},
	} {
		bad := shim()
		tt.edit(bad)
		if _, err := MRTD(bad, SinglePass); err == nil || !strings.Contains(err.Error(), "there is none, so this firmware starts no TD") {
			t.Errorf("%s: got %v, want a refusal", tt.name, err)
		}
	}
}
