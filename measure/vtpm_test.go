package measure

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"chrysalis/measure/eventlog"
	"chrysalis/measure/register"
)

// The boot recorded in eventlog/testdata/boots: its command line, and the SHA-256 of the kernel it booted.
const (
	recordedBoot    = "eventlog/testdata/boots/qemu10-ovmf2025.02.tcg2"
	recordedCmdline = "console=ttyS0 lockdown=confidentiality panic=-1"
	recordedKernel  = "4823b07f21f64c616c78f26634434d4ddf0a9b6bc5db119e149ff35c79718efd"
)

// recordedEvents returns the digests of the recorded boot for a register, in order.
func recordedEvents(t *testing.T, register uint8) (digests [][32]byte, pcr register.Digest) {
	t.Helper()
	log, err := os.ReadFile(recordedBoot)
	if err != nil {
		t.Fatal(err)
	}
	events, err := eventlog.ParseBoot(log)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		if e.Register == register && e.Type != 3 {
			digests = append(digests, e.Digest)
		}
	}
	return digests, eventlog.ReplayBoot(events)[register]
}

// release reads a file that a build of the image leaves behind.
func release(t *testing.T, name ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(append([]string{"..", "build"}, name...)...))
	if err != nil {
		t.Skipf("no build of the image here, so nothing to compare with the recorded boot: %v", err)
	}
	return b
}

func TestFirmwareAgainstRecordedBoot(t *testing.T) {
	code := release(t, "tools-tree", "usr", "share", "OVMF", "OVMF_CODE_4M.fd")
	got, err := firmwareEvents(code)
	if err != nil {
		t.Fatal(err)
	}
	want, _ := recordedEvents(t, 0)
	for i, e := range got {
		if e.Digest != want[i] {
			t.Errorf("digest %d of PCR 0: got %x, want %x", i, e.Digest, want[i])
		}
	}
	code[0]++
	if _, err := firmwareEvents(code); err == nil || !strings.Contains(err.Error(), "is no known build") {
		t.Errorf("an unknown firmware: got %v, want a refusal", err)
	}
}

func TestKernelAgainstRecordedBoot(t *testing.T) {
	kernel := release(t, "kernel", "vmlinuz")
	if sum := sha256.Sum256(kernel); hex.EncodeToString(sum[:]) != recordedKernel {
		t.Skipf("the build's kernel %x is another than the recorded boot's", sum)
	}
	got, err := imageHash(kernel)
	if err != nil {
		t.Fatal(err)
	}
	if want, _ := recordedEvents(t, 4); got != want[0] {
		t.Errorf("image hash: got %x, want %x", got, want[0])
	}
}

// TestDirectBootAgainstRecordedBoot computes every register but 1. Where the boot's files are not at hand, its logged
// digests of firmware, kernel and initrd stand in, so that order and everything else are still compared.
func TestDirectBootAgainstRecordedBoot(t *testing.T) {
	firmware, _ := recordedEvents(t, 0)
	kernel, _ := recordedEvents(t, 4)
	initrd, _ := recordedEvents(t, 9)
	options, err := LoadOptions(recordedCmdline)
	if err != nil {
		t.Fatal(err)
	}
	boot := func(cmdline [32]byte) register.PCRs {
		var volumes []PCREvent
		for _, d := range firmware[:3] {
			volumes = append(volumes, PCREvent{Digest: d})
		}
		return replay256(directBoot(volumes, kernel[0], cmdline, initrd[1]), fixedPCRs...)
	}
	for register, got := range boot(sha256.Sum256(options)) {
		if _, want := recordedEvents(t, register); got != want {
			t.Errorf("PCR %d: got %s, want %s", register, got, want)
		}
	}
	if _, other := recordedEvents(t, 9); boot([32]byte{})[9] == other {
		t.Error("PCR 9 is the same for another command line")
	}
}

func TestCmdlineRefuses(t *testing.T) {
	for _, cmdline := range []string{" a", "a ", "a\n", "a\x00b", "ä", strings.Repeat("a", maxCmdline+1)} {
		if _, err := LoadOptions(cmdline); err == nil {
			t.Errorf("%.20q: got no error, want a refusal", cmdline)
		}
	}
}

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

func TestAuthenticode(t *testing.T) {
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

func TestAuthenticodeRefuses(t *testing.T) {
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

func FuzzAuthenticode(f *testing.F) {
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

func TestConfigPCRs(t *testing.T) {
	measured, err := os.ReadFile(filepath.Join("config", "testdata", "vectors", "measured.bin"))
	if err != nil {
		t.Fatal(err)
	}
	sequence, err := eventlog.SequenceOf(measured)
	if err != nil {
		t.Fatal(err)
	}
	var log []byte
	for _, r := range sequence.Records(eventlog.InPCRs) {
		log = r.Append(log)
	}
	if parsed, err := eventlog.ParseRuntime(log); err != nil || len(parsed) != 9 {
		t.Errorf("the log of the records: %d records (%v), want 9", len(parsed), err)
	}
	pcrs, err := ConfigPCRs(measured)
	if err != nil {
		t.Fatal(err)
	}
	changed := bytes.Replace(measured, []byte(`"nanoton_per_token":20`), []byte(`"nanoton_per_token":21`), 1)
	other, err := ConfigPCRs(changed)
	if err != nil {
		t.Fatal(err)
	}
	if pcrs[13] == other[13] || pcrs[14] != other[14] {
		t.Errorf("another price: PCR 13 %s and %s, PCR 14 %s and %s: want 13 to differ and 14 to stay", pcrs[13], other[13], pcrs[14], other[14])
	}
	if _, err := ConfigPCRs(measured[1:]); err == nil {
		t.Error("no config: got no error, want a refusal")
	}
}

// imageHash is the SHA-256 image hash.
func imageHash(image []byte) ([32]byte, error) {
	sum := sha256.New()
	err := authenticode(image, sum)
	return [32]byte(sum.Sum(nil)), err
}
