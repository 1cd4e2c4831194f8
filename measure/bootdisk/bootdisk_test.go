package bootdisk

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"hash/crc32"
	"io"
	"strings"
	"testing"
)

// The small disk: its ESP starts at sector 34 with the fewest clusters of a FAT32, of one sector each.
const (
	espFirst    = 34
	espSectors  = 1 + 512 + 65525
	fatAt       = (espFirst + 1) * sectorBytes
	dataAt      = (espFirst + 1 + 512) * sectorBytes
	diskBytes   = (espFirst + espSectors + 34) * sectorBytes
	prefixBytes = dataAt + 8*sectorBytes // behind it the small disk is zero
)

// sparse is a disk of diskBytes that is zero after its first bytes.
type sparse []byte

func (s sparse) ReadAt(p []byte, at int64) (int, error) {
	if at < 0 || at+int64(len(p)) > diskBytes {
		return 0, io.ErrUnexpectedEOF
	}
	clear(p)
	if at < int64(len(s)) {
		copy(p, s[at:])
	}
	return len(p), nil
}

var image = bytes.Repeat([]byte("image "), 200) // three clusters

// smallDisk makes the disk: folders in clusters 2 to 4, the image in 5 to 7.
func smallDisk() sparse {
	b := make(sparse, prefixBytes)
	le := binary.LittleEndian
	boot := b[espFirst*sectorBytes:]
	le.PutUint16(boot[11:], sectorBytes)
	boot[13], boot[16], boot[510], boot[511] = 1, 1, 0x55, 0xaa
	le.PutUint16(boot[14:], 1)
	le.PutUint32(boot[32:], espSectors)
	le.PutUint32(boot[36:], 512)
	le.PutUint32(boot[44:], 2)
	for cluster, next := range map[int]uint32{2: 0xffffffff, 3: endOfChain, 4: endOfChain, 5: 6, 6: 7, 7: endOfChain} {
		le.PutUint32(b[fatAt+4*cluster:], next)
	}
	entry := func(cluster, i int, name string, attr byte, at, size uint32) {
		e := b[dataAt+(cluster-2)*sectorBytes+i*fatEntryBytes:]
		copy(e, name)
		e[11] = attr
		le.PutUint16(e[26:], uint16(at))
		le.PutUint32(e[28:], size)
	}
	entry(2, 0, "LABEL      ", attrVolumeLabel, 0, 0)
	entry(2, 1, "EFI        ", attrDirectory, 3, 0)
	for i, cluster := range []int{3, 4} {
		entry(cluster, 0, ".          ", attrDirectory, uint32(cluster), 0)
		entry(cluster, 1, "..         ", attrDirectory, uint32(i), 0)
	}
	entry(3, 2, "BOOT       ", attrDirectory, 4, 0)
	entry(4, 2, "BOOTX64 EFI", 0x20, 5, uint32(len(image)))
	copy(b[dataAt+3*sectorBytes:], image)

	p := b[2*sectorBytes:]
	copy(p, espType)
	p[16] = 1
	le.PutUint64(p[32:], espFirst)
	le.PutUint64(p[40:], espFirst+espSectors-1)
	copy(p[entryBytes:], "another type....")
	return b.sealed()
}

// sealed writes the header over the partition entries.
func (s sparse) sealed() sparse {
	le := binary.LittleEndian
	h := s[sectorBytes : sectorBytes+headerBytes]
	copy(h, "EFI PART\x00\x00\x01\x00")
	for at, v := range map[int]uint32{12: headerBytes, 16: 0, 24: 1, 72: 2, 80: entries, 84: entryBytes} {
		le.PutUint32(h[at:], v)
	}
	le.PutUint32(h[88:], crc32.ChecksumIEEE(s[2*sectorBytes:2*sectorBytes+entries*entryBytes]))
	le.PutUint32(h[16:], crc32.ChecksumIEEE(h))
	return s
}

func TestRead(t *testing.T) {
	disk := smallDisk()
	got, err := Read(disk, diskBytes)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.UKI, image) {
		t.Errorf("image: got %d bytes %.20q, want %d", len(got.UKI), got.UKI, len(image))
	}
	// UEFI_GPT_DATA: the header, the number of partitions, the partitions.
	want := append(bytes.Clone(disk[sectorBytes:sectorBytes+headerBytes]), 2, 0, 0, 0, 0, 0, 0, 0)
	want = append(want, disk[2*sectorBytes:2*sectorBytes+2*entryBytes]...)
	if !bytes.Equal(got.Partitions, want) {
		t.Errorf("partitions: got %x, want %x", got.Partitions, want)
	}
}

func TestReadRefuses(t *testing.T) {
	const entry = dataAt + 2*sectorBytes + 2*fatEntryBytes // BOOTX64.EFI's
	put := func(at int, text string) func(sparse) { return func(s sparse) { copy(s[at:], text) } }
	for _, tt := range []struct {
		name   string
		change func(sparse)
		want   string
	}{
		{"no table", put(sectorBytes, "EFI FART"), "header starts with"},
		{"qcow2", put(0, "QFI\xfb"), "qcow2"},
		{"header", put(sectorBytes+40, "\x01"), "header has CRC"},
		{"entries", put(2*sectorBytes+17, "\x01"), "entries have CRC"},
		{"header elsewhere", func(s sparse) {
			h := s[sectorBytes : sectorBytes+headerBytes]
			h[24], h[16], h[17], h[18], h[19] = 2, 0, 0, 0, 0
			binary.LittleEndian.PutUint32(h[16:], crc32.ChecksumIEEE(h))
		}, "header at sector 2"},
		{"no ESP", func(s sparse) { copy(s[2*sectorBytes:], "another type...!"); s.sealed() }, "none of 2 partitions is an ESP"},
		{"two ESPs", func(s sparse) {
			copy(s[2*sectorBytes+entryBytes:], s[2*sectorBytes:2*sectorBytes+entryBytes])
			s.sealed()
		}, "want one, inside"},
		{"ESP past the end", func(s sparse) { s[2*sectorBytes+43] = 1; s.sealed() }, "want one, inside"},
		{"ESP that ends before it starts", func(s sparse) {
			s[2*sectorBytes+40], s[2*sectorBytes+41], s[2*sectorBytes+42] = 1, 0, 0
			s.sealed()
		}, "want one, inside"},
		{"no file system", put(espFirst*sectorBytes+510, "\x00"), "boot sector"},
		{"clusters of no sector", put(espFirst*sectorBytes+13, "\x00"), "a power of two"},
		{"clusters of three sectors", put(espFirst*sectorBytes+13, "\x03"), "a power of two"},
		{"FAT16", put(espFirst*sectorBytes+13, "\x02"), "as a FAT32 has"},
		{"more sectors than the partition", put(espFirst*sectorBytes+34, "\xff"), "data inside"},
		{"table too short", put(espFirst*sectorBytes+36, "\xff\x01"), "all in the table"},
		{"a file beside", put(entry+fatEntryBytes, "ADDON   EFI\x20"), `holds "BOOTX64.EFI", "ADDON.EFI", want BOOTX64.EFI alone`},
		{"a long name", put(entry+fatEntryBytes, "Aaddonaddon\x0f"), "long name"},
		{"another name", put(entry, "GRUBX64 EFI"), `holds "GRUBX64.EFI"`},
		{"a folder of that name", put(entry+11, "\x10"), "want BOOTX64.EFI alone"},
		{"a file beside the folder", put(dataAt+2*fatEntryBytes, "LOADER     \x10"), `folder / holds "EFI", "LOADER"`},
		{"nothing", put(dataAt+sectorBytes+2*fatEntryBytes, "\x00"), "folder /EFI holds nothing"},
		{"no bytes", put(entry+28, "\x00\x00\x00\x00"), "has 0 bytes"},
		{"too many bytes", put(entry+28, "\x00\x00\x00\xff"), "want 1 to"},
		{"chain too short", put(fatAt+4*6, "\xff\xff\xff\x0f"), "its chain has 1024 bytes, want 1200"},
		{"chain too long", put(fatAt+4*7, "\x08\x00\x00\x00"), "goes on after 1536"},
		{"chain in a circle", put(fatAt+4*2, "\x02\x00\x00\x00"), "goes on after"},
		{"chain out of the disk", put(fatAt+4*6, "\xff\xff\xff\x00"), "cluster 16777215"},
		{"chain to a free cluster", put(fatAt+4*6, "\x00\x00\x00\x00"), "cluster 0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			disk := smallDisk()
			tt.change(disk)
			if got, err := Read(disk, diskBytes); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %d bytes (%v), want an error that says %q", len(got.UKI), err, tt.want)
			}
		})
	}
	if _, err := Read(smallDisk(), 4096); err == nil || !strings.Contains(err.Error(), "4096 bytes, want at least") {
		t.Errorf("a disk that is too short: got error %v", err)
	}
}

func TestRootPartition(t *testing.T) {
	root, err := hex.DecodeString("4efcc7cdeb91f08d9cc8528eae1b7e3b3968227214e97744350e49d673e03685")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := RootPartition([32]byte(root)), "4efcc7cd-eb91-f08d-9cc8-528eae1b7e3b"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func FuzzRead(f *testing.F) {
	seeds := []sparse{smallDisk(), smallDisk()[:2*sectorBytes], nil}
	if _, err := Read(seeds[0], diskBytes); err != nil {
		f.Fatalf("the first seed is no disk: %v", err)
	}
	for _, seed := range seeds {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		disk := make(sparse, max(len(b), 2*sectorBytes+entries*entryBytes))
		copy(disk, b)
		got, err := Read(disk.sealed(), diskBytes)
		if err == nil && (len(got.UKI) == 0 || len(got.UKI) > diskBytes || len(got.Partitions) <= headerBytes+8) {
			t.Errorf("accepted an image of %d bytes and a table of %d", len(got.UKI), len(got.Partitions))
		}
	})
}
