package measure

import (
	"os"
	"slices"
	"strings"
	"testing"

	"chrysalis/measure/snp"
)

// TestForSNP makes the demo's machine one for an SEV-SNP guest, and nothing else of it.
func TestForSNP(t *testing.T) {
	s := testShape()
	s.Devices = append(s.Devices, "virtio-serial-pci", "pvpanic-pci")
	guest := s.ForSNP("EPYC-v4")
	if err := guest.Check(); err != nil {
		t.Fatal(err)
	}
	if guest.Platform != SEVSNP || guest.Machine != "q35,smm=off" || guest.CPUVendor != VendorAMD || guest.CPU != "EPYC-v4" ||
		slices.ContainsFunc(guest.Devices, isTPM) || !slices.Contains(guest.Devices, "virtio-serial-pci"+shared) {
		t.Errorf("got %+v", guest)
	}
	if again := guest.ForSNP("EPYC-v4"); !slices.Equal(again.Devices, guest.Devices) || again.Machine != guest.Machine {
		t.Errorf("again: got %+v, want the same", again)
	}
	b, err := EncodeShape(guest)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := DecodeShape(b); err != nil || got.Platform != SEVSNP {
		t.Errorf("decoded: got %+v and error %v", got, err)
	}
}

func TestSNPShapeRefuses(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		change     func(*Shape)
	}{
		{"a TPM", "is a TPM", func(s *Shape) { s.Devices = append(s.Devices, "tpm-crb,tpmdev=tpm0") }},
		{"a device of private memory", "iommu_platform=on", func(s *Shape) { s.Devices = append(s.Devices, "virtio-rng-pci") }},
		{"system management mode", "smm=off", func(s *Shape) { s.Machine = "q35" }},
		{"another vendor", "cpu_vendor is", func(s *Shape) { s.CPUVendor = VendorIntel }},
		{"the host's CPU", "signature is known", func(s *Shape) { s.CPU = "host" }},
	} {
		s := testShape().ForSNP("EPYC-v4")
		tt.change(&s)
		if err := s.Check(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got error %v, want one with %q", tt.name, err, tt.want)
		}
	}
}

// TestSNPLaunch: the digest of a shape is that of its CPUs, their type and the kernel.
func TestSNPLaunch(t *testing.T) {
	firmware, err := os.ReadFile("snp/testdata/ovmf_AmdSev_suffix.bin")
	if err != nil {
		t.Fatal(err)
	}
	kernel := &snp.Kernel{Kernel: []byte("kernel"), Initrd: []byte("initrd"), Cmdline: "quiet"}
	s := testShape().ForSNP("EPYC-v4")
	seen := map[[48]byte]string{}
	for name, change := range map[string]func(*Shape){
		"as it is": func(*Shape) {}, "more CPUs": func(s *Shape) { s.CPUs++ }, "other CPUs": func(s *Shape) { s.CPU = "EPYC-Milan-v2" },
	} {
		s := s
		change(&s)
		launch, err := s.SNPLaunch(firmware, kernel)
		if err != nil {
			t.Fatal(err)
		}
		digest, err := snp.Digest(launch)
		if err != nil {
			t.Fatal(err)
		}
		if other, same := seen[digest]; same {
			t.Errorf("%s has the digest of %s", name, other)
		}
		seen[digest] = name
	}
	s.MemoryMiB *= 2
	launch, err := s.SNPLaunch(firmware, kernel)
	if err != nil {
		t.Fatal(err)
	}
	if digest, err := snp.Digest(launch); err != nil || seen[digest] != "as it is" {
		t.Errorf("more memory: got the digest of %q and error %v, want that of the machine as it is", seen[digest], err)
	}
	if _, err := testShape().SNPLaunch(firmware, kernel); err == nil {
		t.Error("a vtpm's shape: got no error, want one")
	}
}
