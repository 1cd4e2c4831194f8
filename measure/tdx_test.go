package measure

import (
	"bytes"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"os"
	"slices"
	"strings"
	"testing"

	"chrysalis/measure/register"
	"chrysalis/measure/tdvf"
)

// capturedRTMR0 are the digests of RTMR0 in the log of a TDX guest of 8 GiB under QEMU, a direct boot over an empty variable
// store: google/go-eventlog, CCEL_unpadded.data.bin. Its ACPI tables are of a shape that nobody wrote down. Its firmware is
// older than those that measure settings.
var capturedRTMR0 = []string{
	"2e070cda358b5aa00f27cca25c47381bb564f4be3a84d059805a73cbbde764ed8341f7e09915b5e7b370f9c08a743fbd", // TD-HOB
	"344bc51c980ba621aaa00da3ed7436f7d6e549197dfe699515dfa2c6583d95e6412af21c097d473155875ffd561d6790", // variable store
	"cfa4e2c606f572627bf06d5669cc2ab1128358d27b45bc63ee9ea56ec109cfafb7194006f847a6a74b5eaed6b73332ec", // SecureBoot
	"6f2e3cbc14f9def86980f5f66fd85e99d63e69a73014ed8a5633ce56eca5b64b692108c56110e22acadcef58c3250f1b", // PK
	"d607c0efb41c0d757d69bca0615c3a9ac0b1db06c557d992e906c6b7dee40e0e031640c7bfd7bcd35844ef9edeadc6f9", // KEK
	"08a74f8963b337acb6c93682f934496373679dd26af1089cb4eaf0c30cf260a12e814856385ab8843e56a9acea19e127", // db
	"18cc6e01f0c6ea99aa23f8a280423e94ad81d96d0aeb5180504fc0f7a40cb3619dd39bd6a95ec1680a86ed6ab0f9828d", // dbx
	"394341b7182cd227c5c6b07ef8000cdfd86136c4292b8e576573ad7ed9ae41019f5818b4b971c9effc60e1ad9f1289f0", // separator
	"", "", "", // ACPI
	"1dd6f7b457ad880d840d41c961283bab688e94e4b59359ea45686581e90feccea3c624b1226113f824f315eb60ae0a7c", // BootOrder
	"23ada07f5261f12f34a0bd8e46760962d6b4d576a416f1fea1c64bc656b1d28eacf7047ae6e967c58fd2a98bfa74c298", // Boot0000
}

// TestRTMR0AgainstGuest compares each part that does not depend on the shape with that log; the TD-HOB is compared in tdvf.
func TestRTMR0AgainstGuest(t *testing.T) {
	if emptyVariables != capturedRTMR0[1] {
		t.Errorf("empty variable store: got %s, want %s", emptyVariables, capturedRTMR0[1])
	}
	parts := slices.Concat(make([]part, 2), secureBootVariables([]byte{0}), []part{separator}, make([]part, 3), bootVariables())
	if len(parts) != len(capturedRTMR0) {
		t.Fatalf("got %d parts, want %d", len(parts), len(capturedRTMR0))
	}
	for i, part := range parts {
		if got := sha512.Sum384(part.data); part.data != nil && hex.EncodeToString(got[:]) != capturedRTMR0[i] {
			t.Errorf("event %d: got %x, want %s", i, got, capturedRTMR0[i])
		}
	}
}

// TestAgainstFirmware compares what does not depend on the shape with what OVMF.inteltdx.fd of a release extended in an emulated TD: its
// log, events of RTMR0 from the separator on. make test boots one, and compares whole registers.
func TestAgainstFirmware(t *testing.T) {
	tables := Tables{Settings: map[string][]byte{}}
	var err error
	if tables.Settings[SMBIOSTables], err = os.ReadFile("testdata/smbios-tables.bin"); err != nil {
		t.Fatal(err)
	}
	build := tdxBuilds["c06fefe89e56dcce948f3c3a6756455ace2cfa7abb03fe5f641f1a616d9f49fb"]
	smbios, err := tables.smbios(*build.bios, testShape())
	if err != nil {
		t.Fatal(err)
	}
	for i, tt := range []struct {
		data []byte
		want string
	}{
		{smbios, "7a860d9fad613adfd845ca6f1568fd32ef280cdd768521249a08712ab434a1eda590acf4b15236b1c7dc476986a8d111"},
		{build.boot[0].data, "1dd6f7b457ad880d840d41c961283bab688e94e4b59359ea45686581e90feccea3c624b1226113f824f315eb60ae0a7c"},
		{build.boot[1].data, "5068e6a9ded2a1c3a8ebb5d26004410ea8670742d8f444c5c3d161b76c66fa23a7b1d2fb3f9840570b675384b5818f2d"},
	} {
		if got := sha512.Sum384(tt.data); hex.EncodeToString(got[:]) != tt.want {
			t.Errorf("event %d: got %x, want %s", i, got, tt.want)
		}
	}
}

// TestSMBIOSRefuses changes one thing of the machine's SMBIOS after the other.
func TestSMBIOSRefuses(t *testing.T) {
	good, err := os.ReadFile("testdata/smbios-tables.bin")
	if err != nil {
		t.Fatal(err)
	}
	at := func(kind byte) int { return bytes.Index(good, []byte{kind, map[byte]byte{3: 22, 4: 42, 32: 11}[kind]}) }
	accelerated := testShape()
	accelerated.Accelerator = KVM
	named := accelerated
	named.Processor = "f2060800ffffffff"
	own := *tdxBuilds["c06fefe89e56dcce948f3c3a6756455ace2cfa7abb03fe5f641f1a616d9f49fb"].bios
	for _, tt := range []struct {
		name   string
		shape  Shape
		change func([]byte) []byte
		want   string
	}{
		{"none", testShape(), func([]byte) []byte { return nil }, "tables of 0 bytes"},
		{"too many", testShape(), func(b []byte) []byte { return make([]byte, maxSMBIOSBytes+1) }, "tables of 65537 bytes"},
		{"no end", testShape(), func(b []byte) []byte { return b[:len(b)-6] }, "want a structure"},
		{"cut", testShape(), func(b []byte) []byte { return b[:len(b)-1] }, "has no end"},
		{"more after the end", testShape(), func(b []byte) []byte { return append(b, 0) }, "1 bytes after the last"},
		{"fields beyond the tables", testShape(), func(b []byte) []byte { b[1] = 0xff; return b[:40] }, "want a structure"},
		{"a length below the header", testShape(), func(b []byte) []byte { b[1] = 3; return b }, "want a structure"},
		{"a firmware of the host's", testShape(), func(b []byte) []byte { b[at(3)] = 0; return b }, "describes the firmware"},
		{"a type whose fields are unknown", testShape(), func(b []byte) []byte { b[at(32)] = 22; return b }, "structure of type 22"},
		{"a short processor", named, func(b []byte) []byte { b[at(4)+1] = 15; return b }, "a processor of 15 bytes"},
		{"accelerated, by a processor that nobody named", accelerated, func(b []byte) []byte { return b }, "the shape has no processor"},
	} {
		tables := Tables{Settings: map[string][]byte{SMBIOSTables: tt.change(bytes.Clone(good))}}
		if _, err := tables.smbios(own, tt.shape); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got error %v, want one that says %q", tt.name, err, tt.want)
		}
	}
	tables := Tables{Settings: map[string][]byte{SMBIOSTables: good}}
	other, err := tables.smbios(own, named)
	if err != nil || bytes.Index(other, []byte{0xf2, 6, 8, 0, 0xff, 0xff, 0xff, 0xff}) != at(4)+processorID {
		t.Errorf("the processor's own id: got %x, error %v, want it in the processor's structure", other, err)
	}
	// Serial numbers, what the machine is called by its owner, and counts and speeds of processors are not measured.
	changed := bytes.Clone(good)
	changed[at(4)+22], changed[at(4)+35] = 0x12, 64
	same, err := Tables{Settings: map[string][]byte{SMBIOSTables: changed}}.smbios(own, testShape())
	if want, _ := tables.smbios(own, testShape()); err != nil || !bytes.Equal(same, want) {
		t.Errorf("another speed and another count of cores move what is measured (error %v)", err)
	}
	// A string is blanked in its place: "QEMU" as the serial number of the processor.
	changed = bytes.Clone(good)
	changed[at(4)+32] = 2
	blanked, err := Tables{Settings: map[string][]byte{SMBIOSTables: changed}}.smbios(own, testShape())
	if err != nil || !bytes.Contains(blanked, []byte("CPU 0\x00    \x00pc-q35-11.1")) {
		t.Errorf("a serial number: got %q, error %v, want spaces", blanked, err)
	}
}

func tdxShape() Shape {
	s := testShape()
	s.QEMU, s.CPUVendor, s.PhysBits, s.Devices = "11.1.3", VendorIntel, 46, []string{"virtio-blk-pci,drive=root"}
	return s.TDX()
}

// testTables are tables of no machine, of the right form.
func testTables() Tables {
	memory := binary.LittleEndian.AppendUint64(make([]byte, 8), 1<<30)
	return Tables{
		Loader: testLoader("etc/acpi/rsdp", "etc/acpi/tables"),
		Files:  map[string][]byte{"etc/acpi/rsdp": []byte("RSD PTR "), "etc/acpi/tables": []byte("DSDT")},
		Settings: map[string][]byte{SMBIOSTables: {127, 4, 0, 127, 0, 0}, MemoryMap: binary.LittleEndian.AppendUint32(memory, e820Memory), BootMenu: {0, 0},
			"bootorder": []byte("/rom@genroms/linuxboot_dma.bin\x00")},
	}
}

// TestEachInputMovesItsRegister changes one thing after the other of a TDX guest.
func TestEachInputMovesItsRegister(t *testing.T) {
	if testing.Short() {
		t.Skip("hashes a kernel and a firmware a dozen times")
	}
	firmware := release(t, "release", "OVMF.inteltdx.fd")
	kernel := release(t, "release", "vmlinuz")
	boot := func(change func(*TDXBoot)) [4]register.Digest384 {
		t.Helper()
		s := tdxShape()
		b := TDXBoot{Firmware: firmware, Order: tdvf.SinglePass, Kernel: kernel, Initrd: strings.NewReader("initrd"), Cmdline: "quiet",
			Shape: &s, Tables: testTables()}
		change(&b)
		r, err := b.Registers()
		if err != nil {
			t.Fatal(err)
		}
		return [4]register.Digest384{r.MRTD, *r.RTMR0, *r.RTMR1, *r.RTMR2}
	}
	clean := boot(func(*TDXBoot) {})
	for _, tt := range []struct {
		name   string
		change func(*TDXBoot)
		moves  [4]bool
	}{
		{"nothing", func(*TDXBoot) {}, [4]bool{}},
		{"page order", func(b *TDXBoot) { b.Order = tdvf.TwoPass }, [4]bool{0: true}},
		{"command line", func(b *TDXBoot) { b.Cmdline = "quiet loud" }, [4]bool{3: true}},
		{"initrd", func(b *TDXBoot) { b.Initrd = strings.NewReader("another") }, [4]bool{3: true}},
		{"memory", func(b *TDXBoot) { b.Tables.Settings[MemoryMap][12]++ }, [4]bool{1: true}},
		{"SMBIOS", func(b *TDXBoot) {
			b.Tables.Settings[SMBIOSTables] = append([]byte{32, 5, 0, 0, 1, 0, 0}, 127, 4, 0, 127, 0, 0)
		},
			[4]bool{1: true}},
		{"boot menu", func(b *TDXBoot) { b.Tables.Settings[BootMenu][0] = 1 }, [4]bool{1: true}},
		{"boot order", func(b *TDXBoot) { b.Tables.Settings["bootorder"] = []byte("/x\x00") }, [4]bool{1: true}},
		{"ACPI script", func(b *TDXBoot) { b.Tables.Loader[120] = 1 }, [4]bool{1: true}},
		{"ACPI table", func(b *TDXBoot) { b.Tables.Files["etc/acpi/tables"][0]++ }, [4]bool{1: true}},
		{"setting of a size that the firmware does not take",
			func(b *TDXBoot) { b.Tables.Settings["etc/boot-menu-wait"] = []byte{1} }, [4]bool{}},
		{"QEMU below 10", func(b *TDXBoot) { b.Shape.QEMU = "9.2.0" }, [4]bool{2: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := boot(tt.change)
			for i, name := range []string{"mrtd", "rtmr0", "rtmr1", "rtmr2"} {
				if moved := got[i] != clean[i]; moved != tt.moves[i] {
					t.Errorf("%s moved is %v, want %v", name, moved, tt.moves[i])
				}
			}
		})
	}
	for _, tt := range []struct {
		name   string
		change func(*TDXBoot)
		want   string
	}{
		{"another build", func(b *TDXBoot) { b.Firmware = bytes.Clone(b.Firmware); b.Firmware[0x90000]++ }, "no known build"},
		{"keys in the variable store", func(b *TDXBoot) { b.Firmware = bytes.Clone(b.Firmware); b.Firmware[100]++ }, "want the empty one"},
		{"system management mode", func(b *TDXBoot) { b.Shape.Machine = "q35,smm=on,pic=off" }, "want smm=off"},
		{"no smm=off", func(b *TDXBoot) { b.Shape.Machine = "q35" }, "want smm=off"},
		{"AMD", func(b *TDXBoot) { b.Shape.CPUVendor = VendorAMD }, "cpu_vendor is"},
		{"TPM", func(b *TDXBoot) { b.Shape.Devices = []string{"tpm-crb,tpmdev=tpm0"} }, "is a TPM"},
		{"no memory map", func(b *TDXBoot) { delete(b.Tables.Settings, MemoryMap) }, "memory map: 0 bytes"},
		{"no SMBIOS", func(b *TDXBoot) { delete(b.Tables.Settings, SMBIOSTables) }, "SMBIOS: tables of 0 bytes"},
		{"no boot menu", func(b *TDXBoot) { delete(b.Tables.Settings, BootMenu) }, "BootMenu has 0 bytes"},
		{"ACPI file that nobody loads", func(b *TDXBoot) { b.Tables.Files["x"] = []byte("x") }, "3 files, want the 2"},
		{"ACPI file missing", func(b *TDXBoot) { delete(b.Tables.Files, "etc/acpi/rsdp") }, "has 0 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := tdxShape()
			b := TDXBoot{Firmware: firmware, Order: tdvf.SinglePass, Shape: &s, Tables: testTables()}
			tt.change(&b)
			if _, err := b.Registers(); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want one that says %q", err, tt.want)
			}
		})
	}
}

// TestPatchKernel compares with the fields of a header as QEMU 9 writes them, worked out by hand for 1 GiB.
func TestPatchKernel(t *testing.T) {
	kernel := make([]byte, 0x1000)
	copy(kernel[headerMagic:], "HdrS")
	binary.LittleEndian.PutUint16(kernel[headerVersion:], 0x20f)
	kernel[headerLoadFlags] = 1
	binary.LittleEndian.PutUint32(kernel[headerInitrdMax:], 0x7fffffff)
	kernel[headerXLoad] = 0x7f
	got, err := PatchKernel(kernel, 0x123456, testShape().MemoryMiB)
	if err != nil {
		t.Fatal(err)
	}
	want := bytes.Clone(kernel)
	copy(want[0x210:], []byte{0xb0, 0x81})
	copy(want[0x218:], []byte{0x00, 0x40, 0xeb, 0x3f, 0x56, 0x34, 0x12, 0x00}) // 1 GiB - 160 KiB - 1 - 0x123456, down to a page
	copy(want[0x224:], []byte{0x00, 0xfe})
	copy(want[0x228:], []byte{0x00, 0x00, 0x02, 0x00})
	if !bytes.Equal(got, want) {
		for i := range got {
			if got[i] != want[i] {
				t.Errorf("byte %#x: got %#x, want %#x", i, got[i], want[i])
			}
		}
	}
	for _, tt := range []struct {
		name   string
		change func([]byte)
		initrd int64
		want   string
	}{
		{"no header", func(k []byte) { k[headerMagic] = 0 }, 1, "without a setup header"},
		{"old", func(k []byte) { k[headerVersion] = 1 }, 1, "version 0x201"},
		{"loaded low", func(k []byte) { k[headerLoadFlags] = 0 }, 1, "load flags"},
		{"empty initrd", func([]byte) {}, 0, "initrd has 0 bytes"},
		{"initrd of all memory", func([]byte) {}, 1 << 30, "initrd has 1073741824 bytes"},
	} {
		k := bytes.Clone(kernel)
		tt.change(k)
		if _, err := PatchKernel(k, tt.initrd, testShape().MemoryMiB); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got error %v, want one that says %q", tt.name, err, tt.want)
		}
	}
	if _, err := PatchKernel(kernel[:100], 1, testShape().MemoryMiB); err == nil {
		t.Error("truncated kernel: got no error, want a refusal")
	}
}

func FuzzPatchKernel(f *testing.F) {
	kernel := make([]byte, headerEnd)
	copy(kernel[headerMagic:], "HdrS")
	binary.LittleEndian.PutUint16(kernel[headerVersion:], 0x20f)
	kernel[headerLoadFlags], kernel[headerXLoad] = 1, 2
	f.Add(kernel, int64(1<<20))
	f.Fuzz(func(t *testing.T, kernel []byte, initrd int64) {
		got, err := PatchKernel(kernel, initrd, testShape().MemoryMiB)
		if err != nil {
			return
		}
		if len(got) != len(kernel) {
			t.Errorf("got %d bytes, want %d", len(got), len(kernel))
		}
		at, size := binary.LittleEndian.Uint32(got[headerInitrd:]), binary.LittleEndian.Uint32(got[headerInitrd+4:])
		if int64(size) != initrd || uint64(at)+uint64(size) > 1<<30 {
			t.Errorf("initrd of %d bytes: got %d at %#x, want it in the machine's memory", initrd, size, at)
		}
	})
}
