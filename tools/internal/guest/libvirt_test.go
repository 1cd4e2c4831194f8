package guest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"chrysalis/measure"
)

// golden compares text with a file of testdata, which -update writes anew.
func golden(t *testing.T, file, got string) {
	t.Helper()
	file = filepath.Join("testdata", file)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil || got != string(want) {
		t.Errorf("got %q and error %v, want what is in %s", got, err, file)
	}
}

// testFiles stand for a guest's.
func testFiles(h Hardware) files {
	return files{
		firmware: "/release/OVMF.fd", variables: "/guest/variables.fd", kernel: "/release/vmlinuz", initrd: "/release/initrd", cmdline: "quiet x=<&>",
		root: "/release/root.img", config: "/guest/config.disk", journal: "/guest/journal.disk", volumes: []Volumes{{"/engine.img", "/model.img"}},
		tpm: "/guest/tpm", tpmSocket: "/guest/tpm.sock", status: "/guest/status.log", proofs: "/guest/proofs.log", numbers: "/guest/numbers.log", qmp: "/guest/qmp.sock",
		pid: "/guest/qemu.pid", listen: loopback, hostPort: 8443, guestPort: guestPort, hardware: h, measured: []byte("the config"),
	}
}

// vtpmShape is the demo's machine over a file that stands for its firmware.
func vtpmShape(t *testing.T) measure.Shape {
	t.Helper()
	firmware := filepath.Join(t.TempDir(), "OVMF.fd")
	if err := os.WriteFile(firmware, []byte("firmware"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := DefaultShape("11.1.3", nil, firmware)
	if err != nil {
		t.Fatal(err)
	}
	return StrictShape(s)
}

// TestLibvirt compares domains with those that libvirt was seen to take, and to turn into QEMU's line (tools/e2e, TestLibvirt).
func TestLibvirt(t *testing.T) {
	tdx := StrictShape(hardwareShape(t, measure.TDX))
	for name, tt := range map[string]struct {
		shape    measure.Shape
		hardware Hardware
	}{
		"vtpm":      {vtpmShape(t), Hardware{}},
		"tdx":       {tdx, Hardware{QuoteSocket: UnixQuoteSocket}},
		"tdx-vsock": {WithVsock(tdx, 7), Hardware{QuotingPort: 4050}},
		"sev-snp":   {StrictShape(hardwareShape(t, measure.SEVSNP)), Hardware{SNPPolicy: DefaultSNPPolicy}},
	} {
		domain, err := libvirt(tt.shape, testFiles(tt.hardware), "chrysalis", "/usr/bin/qemu-system-x86_64")
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		golden(t, name+".xml", string(domain))
	}
}

// TestLibvirtRefuses: what libvirt has no word for is refused, and never left out.
func TestLibvirtRefuses(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		change     func(*measure.Shape, *files)
	}{
		{"a boot that is not strict", "strict_boot", func(s *measure.Shape, _ *files) { s.StrictBoot = false }},
		{"a disk", "boots the disk", func(_ *measure.Shape, f *files) { f.disk = "x.raw" }},
		{"a GPU", "1 GPUs", func(s *measure.Shape, _ *files) { s.GPUs = []string{"vfio-pci,host=1"} }},
		{"software", "that a program plays", func(s *measure.Shape, _ *files) { s.Accelerator = measure.TCG }},
		{"a switch", "has sata=off", func(s *measure.Shape, _ *files) { s.Machine += ",sata=off" }},
		{"switches of the processor", "no switch but FEATURE=off", func(s *measure.Shape, _ *files) { s.CPU = "max,vendor=GenuineIntel" }},
		{"a device", "virtio-scsi-pci", func(s *measure.Shape, _ *files) { s.Devices = append(s.Devices, "virtio-scsi-pci") }},
		{"a property of a device", "nothing of its num-queues", func(s *measure.Shape, _ *files) {
			s.Devices[0] = strings.Replace(s.Devices[0], ",serial", ",num-queues=4,serial", 1)
		}},
		{"a disk of nobody's", "want a disk of a guest's", func(s *measure.Shape, _ *files) {
			s.Devices[0] = strings.Replace(s.Devices[0], "drive=root", "drive=rot", 1)
		}},
		{"a disk without a serial number", "serial number", func(s *measure.Shape, _ *files) {
			s.Devices[0] = strings.Replace(s.Devices[0], ",serial=", ",x=", 1)
		}},
		{"a port of nobody's", "port of status", func(s *measure.Shape, _ *files) { s.Devices = append(s.Devices, "virtserialport,chardev=x") }},
		{"a quoting service by vsock", "unix:/PATH alone", func(_ *measure.Shape, f *files) { f.hardware.QuoteSocket = DefaultQuoteSocket }},
	} {
		s, f := StrictShape(hardwareShape(t, measure.TDX)), testFiles(Hardware{QuoteSocket: UnixQuoteSocket})
		tt.change(&s, &f)
		if _, err := libvirt(s, f, "x", "/x"); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got error %v, want one with %q", tt.name, err, tt.want)
		}
	}
	vtpm := vtpmShape(t)
	vtpm.Machine += ",pic=off"
	if _, err := libvirt(vtpm, testFiles(Hardware{}), "x", "/x"); err == nil || !strings.Contains(err.Error(), "has pic=off") {
		t.Errorf("a vtpm without a PIC: got error %v, want one that says so", err)
	}
}
