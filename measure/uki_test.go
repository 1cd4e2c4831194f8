package measure

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/cavaliergopher/cpio"

	"chrysalis/measure/eventlog"
	"chrysalis/measure/register"
)

// smallPE returns the headers of a PE32+ image without sections: 0x200 bytes.
func smallPE() []byte {
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

// smallUKI is an image with the named sections, each of 0x100 bytes of which the first say what it is.
func smallUKI(names ...string) []byte {
	const first = 0x600
	b := make([]byte, first+0x200*len(names))
	copy(b, smallPE()[:0xf8])
	binary.LittleEndian.PutUint16(b[0x46:], uint16(len(names)))
	binary.LittleEndian.PutUint32(b[0x94:], first)
	for i, name := range names {
		at := first + 0x200*i
		h := b[0xf8+40*i:]
		copy(h[:8], name)
		for j, v := range []uint32{0x180, uint32(0x1000 * (i + 1)), 0x200, uint32(at)} {
			binary.LittleEndian.PutUint32(h[8+4*j:], v)
		}
		copy(b[at:at+0x180], bytes.Repeat([]byte(name+" "), 0x80))
		if name == ".linux" {
			copy(b[at:], smallPE()[:0xf8])
			binary.LittleEndian.PutUint16(b[at+0x46:], 0)
			binary.LittleEndian.PutUint32(b[at+0x94:], 0x100)
		}
	}
	return b
}

func TestUKISectionsRefuses(t *testing.T) {
	for _, tt := range []struct {
		name  string
		image []byte
		want  string
	}{
		{"no image", []byte("MZ"), "without an MZ header"},
		{"no kernel", smallUKI(".text", ".osrel", ".cmdline", ".initrd"), "no section .linux"},
		{"no command line", smallUKI(".text", ".osrel", ".initrd", ".linux"), "no section .cmdline"},
		{"a profile", smallUKI(".osrel", ".cmdline", ".initrd", ".profile", ".linux"), `section ".profile"`},
		{"a device tree", smallUKI(".osrel", ".cmdline", ".initrd", ".dtb", ".linux"), `section ".dtb"`},
		{"two kernels", smallUKI(".osrel", ".cmdline", ".initrd", ".linux", ".linux"), "twice"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := ukiSections(tt.image); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want one that says %q", err, tt.want)
			}
		})
	}
	sections, err := ukiSections(smallUKI(".text", ".osrel", ".cmdline", ".initrd", ".linux"))
	if err != nil || len(sections[".osrel"]) != 0x180 {
		t.Errorf("a whole image: got %d bytes of .osrel (%v), want %d", len(sections[".osrel"]), err, 0x180)
	}
}

// TestStubDigests: the order is the stub's, whatever the image's, and a section that is not there does not count.
func TestStubDigests(t *testing.T) {
	sections, err := ukiSections(smallUKI(".sbat", ".initrd", ".cmdline", ".osrel", ".linux"))
	if err != nil {
		t.Fatal(err)
	}
	var want register.Digest
	for _, name := range []string{".linux", ".osrel", ".cmdline", ".initrd", ".sbat"} {
		want = eventlog.Extend256(eventlog.Extend256(want, sha256.Sum256([]byte(name+"\x00"))), sha256.Sum256(sections[name]))
	}
	if got := replay256(events256(11, stubParts(sections)...), 11)[11]; got != want {
		t.Errorf("PCR 11: got %s, want %s", got, want)
	}
}

// TestSectionsInMemory: the stub measures a section as it lies in memory, and none that has no size there.
func TestSectionsInMemory(t *testing.T) {
	header := func(uki []byte, i int) []byte { return uki[0xf8+40*i:] }
	const inMemory, inFile, at = 8, 16, 20
	for _, tt := range []struct {
		name  string
		edit  func(uki []byte)
		sizes map[string]int // those that differ from 0x180; 0: not measured
	}{
		{"as they are", func([]byte) {}, nil},
		{"empty in both", func(uki []byte) {
			for _, field := range []int{inMemory, inFile, at} {
				binary.LittleEndian.PutUint32(header(uki, 4)[field:], 0)
			}
		}, map[string]int{".uname": 0}},
		{"empty in memory alone", func(uki []byte) { binary.LittleEndian.PutUint32(header(uki, 4)[inMemory:], 0) }, map[string]int{".uname": 0}},
		{"larger in memory", func(uki []byte) { binary.LittleEndian.PutUint32(header(uki, 0)[inMemory:], 0x300) }, map[string]int{".osrel": 0x300}},
		{"in memory alone", func(uki []byte) {
			binary.LittleEndian.PutUint32(header(uki, 4)[inFile:], 0)
			binary.LittleEndian.PutUint32(header(uki, 4)[inMemory:], 0x40)
		}, map[string]int{".uname": 0x40}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			uki := smallUKI(".osrel", ".cmdline", ".initrd", ".linux", ".uname")
			tt.edit(uki)
			sections, err := ukiSections(uki)
			if err != nil {
				t.Fatal(err)
			}
			var want register.Digest
			for _, name := range []string{".linux", ".osrel", ".cmdline", ".initrd", ".uname"} {
				size, told := tt.sizes[name]
				if !told {
					size = 0x180
				}
				if size == 0 {
					continue
				}
				memory := make([]byte, size)
				place := map[string]int{".osrel": 0, ".cmdline": 1, ".initrd": 2, ".linux": 3, ".uname": 4}[name]
				if from := 0x600 + 0x200*place; binary.LittleEndian.Uint32(header(uki, place)[inFile:]) > 0 {
					copy(memory, uki[from:from+min(size, 0x200)])
				}
				want = eventlog.Extend256(eventlog.Extend256(want, sha256.Sum256([]byte(name+"\x00"))), sha256.Sum256(memory))
			}
			if got := replay256(events256(11, stubParts(sections)...), 11)[11]; got != want {
				t.Errorf("PCR 11: got %s, want %s", got, want)
			}
		})
	}
	vast := smallUKI(".osrel", ".cmdline", ".initrd", ".linux")
	binary.LittleEndian.PutUint32(header(vast, 0)[inMemory:], 0xffffffff)
	if _, err := ukiSections(vast); err == nil || !strings.Contains(err.Error(), "bytes in memory") {
		t.Errorf("a section of 4 GiB of zeros: got %v, want a refusal", err)
	}
}

// TestStubInitrd has a reader of archives look at what follows the initrd.
func TestStubInitrd(t *testing.T) {
	out := stubInitrd([]byte("initrd"), []byte("ID=x\n"))
	if !bytes.HasPrefix(out, []byte("initrd\x00\x000707")) {
		t.Fatalf("starts with %q, want the initrd, padded, and an archive", out[:16])
	}
	r := cpio.NewReader(bytes.NewReader(out[8:]))
	var got []string
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, h.Name+" "+h.Mode.String()+" "+string(data))
	}
	if want := ".extra 040555 |.extra/os-release 0100444 ID=x\n"; strings.Join(got, "|") != want {
		t.Errorf("got %q, want %q", strings.Join(got, "|"), want)
	}
}

// TestDiskBootAgainstDirectBoot: what a disk changes and what it leaves as it is.
func TestDiskBootAgainstDirectBoot(t *testing.T) {
	code := release(t, "tools-tree", "usr", "share", "OVMF", "OVMF_CODE_4M.fd")
	uki := smallUKI(".osrel", ".cmdline", ".initrd", ".linux")
	at := bytes.Index(uki, []byte(".cmdline ."))
	line := append([]byte("quiet"), bytes.Repeat([]byte("x"), 0x180-5)...)
	copy(uki[at:], line)
	direct, err := DirectBoot{Firmware: code, Kernel: smallPE(), Initrd: bytes.NewReader([]byte("i")), Cmdline: "quiet"}.PCRs()
	if err != nil {
		t.Fatal(err)
	}
	alone, err := DiskBoot{Firmware: code, UKI: uki}.PCRs()
	if err != nil {
		t.Fatal(err)
	}
	disk, err := DiskBoot{Firmware: code, UKI: uki, Partitions: []byte("table")}.PCRs()
	if err != nil {
		t.Fatal(err)
	}
	if _, there := alone[5]; there || len(disk) != len(direct) || len(alone) != len(disk)-1 {
		t.Errorf("got %d registers of an image and %d of a disk, want %d and %d, the first without PCR 5", len(alone), len(disk), len(direct)-1,
			len(direct))
	}
	for register, value := range direct {
		changes := map[uint8]bool{4: true, 5: true, 9: true, 11: true}[register]
		if (disk[register] != value) != changes {
			t.Errorf("PCR %d: differs from a direct boot: %t, want %t", register, disk[register] != value, changes)
		}
	}
	// One byte anywhere in a section shows.
	for _, name := range []string{".osrel", ".cmdline", ".initrd"} {
		bad := bytes.Clone(uki)
		sections, err := ukiSections(bad)
		if err != nil {
			t.Fatal(err)
		}
		sections[name][0x80] ^= 1
		other, err := DiskBoot{Firmware: code, UKI: bad}.PCRs()
		if err != nil {
			t.Fatal(err)
		}
		for _, register := range []uint8{4, 9, 11} {
			if other[register] == alone[register] {
				t.Errorf("a byte of %s: PCR %d is the same", name, register)
			}
		}
	}
	if alone[11] == (register.Digest{}) {
		t.Error("PCR 11 is zero")
	}
}

func FuzzUKI(f *testing.F) {
	seeds := [][]byte{smallUKI(".text", ".osrel", ".cmdline", ".initrd", ".linux"), smallUKI(".sbat"), []byte("MZ")}
	for _, seed := range seeds {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, image []byte) {
		sections, err := ukiSections(image)
		if err != nil {
			return
		}
		total := 0
		for _, data := range sections {
			total += len(data)
		}
		if len(sections[".linux"]) == 0 || len(sections) > len(stubSections)+len(codeSections) {
			t.Errorf("accepted %d sections with %d bytes", len(sections), total)
		}
	})
}
