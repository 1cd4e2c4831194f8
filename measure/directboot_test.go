package measure

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"chrysalis/measure/eventlog"
	"chrysalis/measure/pe"
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
	got, _, err := firmwareEvents(code, nil)
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
	if _, _, err := firmwareEvents(code, nil); err == nil || !strings.Contains(err.Error(), "is no known build") {
		t.Errorf("an unknown firmware: got %v, want a refusal", err)
	}
}

func TestKernelAgainstRecordedBoot(t *testing.T) {
	kernel := release(t, "kernel", "vmlinuz")
	if sum := sha256.Sum256(kernel); hex.EncodeToString(sum[:]) != recordedKernel {
		t.Skipf("the build's kernel %x is another than the recorded boot's", sum)
	}
	got, _, err := pe.Hashes(kernel)
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
		return replay256(directBoot(volumes, FirmwareBuild{}, kernel[0], cmdline, initrd[1]), fixedPCRs...)
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
