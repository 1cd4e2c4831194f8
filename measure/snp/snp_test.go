package snp

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"strings"
	"testing"

	"chrysalis/measure/tdvf"
)

// image builds a firmware of two pages: random bytes, SEV metadata, the table of entries.
func image(sections []Section) []byte {
	const size = 2 * pageBytes
	b := make([]byte, size)
	rand.NewChaCha8([32]byte{2}).Read(b[:pageBytes])
	le := binary.LittleEndian
	meta := append([]byte(metadataMagic), make([]byte, 12)...)
	le.PutUint32(meta[4:], uint32(metadataHead+len(sections)*sectionBytes))
	le.PutUint32(meta[8:], 1)
	le.PutUint32(meta[12:], uint32(len(sections)))
	for _, s := range sections {
		meta = le.AppendUint32(le.AppendUint32(le.AppendUint32(meta, s.Address), s.Size), uint32(s.Kind))
	}
	copy(b[pageBytes:], meta)
	table := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	entry := func(data []byte, guid string) []byte {
		id := tdvf.ParseGUID(guid)
		return append(le.AppendUint16(bytes.Clone(data), uint16(len(data)+18)), id[:]...)
	}
	all := table(
		entry(le.AppendUint32(nil, pageBytes), metadataGUID),
		entry(le.AppendUint32(le.AppendUint32(nil, 0x810c00), 0x400), hashAreaGUID),
		entry(le.AppendUint32(nil, 0x80b004), resetAreaGUID))
	footer := tdvf.ParseGUID("96b582de-1fb2-45f7-baea-a366c55a082d")
	all = append(le.AppendUint16(all, uint16(len(all)+18)), footer[:]...)
	copy(b[size-0x20-len(all):], all)
	return b
}

func sections() []Section {
	return []Section{
		{0x800000, 0x9000, KindMemory}, {0x80d000, 0x1000, KindSecrets}, {0x80e000, 0x1000, KindCPUID}, {0x810000, 0x1000, KindKernelHashes},
	}
}

func example() Launch {
	signature, err := CPUSignature("EPYC-v4")
	if err != nil {
		panic(err)
	}
	return Launch{Firmware: image(sections()), VCPUs: 2, Signature: signature, GuestFeatures: 1,
		Kernel: &Kernel{Kernel: []byte("kernel"), Initrd: []byte("initrd"), Cmdline: "console=ttyS0"}}
}

// TestDigest pins the digest of an image of this test's own. The same code gave, over the firmware images and with the
// inputs of the tests of virtee/sev-snp-measure (Apache-2.0), the digests that those tests state.
func TestDigest(t *testing.T) {
	got, err := Digest(example())
	if err != nil {
		t.Fatal(err)
	}
	if want := "0098d9aa6ccb3bfa91e8cecd80987327027e85498f8bffe8e1478c687c4468ec4ee9d941b2a21ca6d195a3dbf2327898"; hex.EncodeToString(got[:]) != want {
		t.Errorf("launch digest: got %x, want %s", got, want)
	}
}

func TestEveryInputCounts(t *testing.T) {
	want, err := Digest(example())
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Launch){
		"firmware":       func(l *Launch) { l.Firmware[10] ^= 1 },
		"vCPUs":          func(l *Launch) { l.VCPUs++ },
		"signature":      func(l *Launch) { l.Signature++ },
		"guest features": func(l *Launch) { l.GuestFeatures |= 0x20 },
		"kernel":         func(l *Launch) { l.Kernel.Kernel[0] ^= 1 },
		"initrd":         func(l *Launch) { l.Kernel.Initrd[0] ^= 1 },
		"command line":   func(l *Launch) { l.Kernel.Cmdline += " x" },
		"no kernel":      func(l *Launch) { l.Kernel = nil },
	} {
		l := example()
		change(&l)
		if got, err := Digest(l); err != nil || got == want {
			t.Errorf("%s changed: got the same digest, or error %v", name, err)
		}
	}
}

func TestRefuses(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Launch)
		want   string
	}{
		{"no vCPU", func(l *Launch) { l.VCPUs = 0 }, "0 vCPUs"},
		{"half a page", func(l *Launch) { l.Firmware = l.Firmware[1:] }, "want whole pages"},
		{"kernel without its page", func(l *Launch) { l.Firmware = image(sections()[:3]) }, "measures no kernel"},
		{"unknown section", func(l *Launch) { l.Firmware = image([]Section{{0x800000, 0x1000, 99}}) }, "kind 99 is unknown"},
		{"two pages of secrets", func(l *Launch) { l.Firmware = image([]Section{{0x800000, 0x2000, KindSecrets}}) }, "want one page"},
		{"hashes outside their page", func(l *Launch) {
			l.Firmware = image([]Section{{0x820000, 0x1000, KindKernelHashes}})
		}, "want it inside the page"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := example()
			tt.change(&l)
			if _, err := Digest(l); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want one that says %q", err, tt.want)
			}
		})
	}
}

// TestCPUSignature uses the CPUID values that AMD publishes for its processors.
func TestCPUSignature(t *testing.T) {
	for cpuType, want := range map[string]uint32{"EPYC-v4": 0x800f12, "EPYC-Rome": 0x830f10, "EPYC-Milan": 0xa00f11, "EPYC-Genoa": 0xa10f10} {
		if got, err := CPUSignature(cpuType); err != nil || got != want {
			t.Errorf("%s: got %#x (%v), want %#x", cpuType, got, err, want)
		}
	}
	if _, err := CPUSignature("Opteron"); err == nil {
		t.Error("an unknown type: got no error, want a refusal")
	}
}

func FuzzSections(f *testing.F) {
	f.Add(image(sections()))
	f.Fuzz(func(t *testing.T, firmware []byte) {
		s, err := Sections(firmware)
		if err != nil {
			return
		}
		for _, x := range s {
			if err := x.validate(); err != nil {
				t.Errorf("accepted a section that is refused alone: %v", err)
			}
		}
	})
}
