package measure

import (
	"bytes"
	"testing"

	"chrysalis/measure/pe/petest"
	"chrysalis/measure/register"
	"chrysalis/measure/uki"
)

// TestDiskBootAgainstDirectBoot: what a disk changes and what it leaves as it is.
func TestDiskBootAgainstDirectBoot(t *testing.T) {
	code := release(t, "tools-tree", "usr", "share", "OVMF", "OVMF_CODE_4M.fd")
	image := petest.Image(".osrel", ".cmdline", ".initrd", ".linux")
	at := bytes.Index(image, []byte(".cmdline ."))
	line := append([]byte("quiet"), bytes.Repeat([]byte("x"), 0x180-5)...)
	copy(image[at:], line)
	direct, err := DirectBoot{Firmware: code, Kernel: petest.Headers(), Initrd: bytes.NewReader([]byte("i")), Cmdline: "quiet"}.PCRs()
	if err != nil {
		t.Fatal(err)
	}
	alone, err := DiskBoot{Firmware: code, UKI: image}.PCRs()
	if err != nil {
		t.Fatal(err)
	}
	disk, err := DiskBoot{Firmware: code, UKI: image, Partitions: []byte("table")}.PCRs()
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
		bad := bytes.Clone(image)
		read, err := uki.Read(bad, 0)
		if err != nil {
			t.Fatal(err)
		}
		read.Section(name)[0x80] ^= 1 // of bad itself
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
