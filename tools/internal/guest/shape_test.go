package guest

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"chrysalis/measure"
	"chrysalis/tools/internal/qemu"
)

// TestHasFirmware shows that a guest is not started as another machine than its shape says.
func TestHasFirmware(t *testing.T) {
	firmware := filepath.Join(t.TempDir(), "OVMF_CODE.fd")
	if err := os.WriteFile(firmware, []byte("firmware"), 0o644); err != nil {
		t.Fatal(err)
	}
	s, err := DefaultShape("10.0.13", nil, firmware)
	if err != nil {
		t.Fatal(err)
	}
	if s.Accelerator != measure.TCG || s.CPUVendor != emulated.Vendor {
		t.Errorf("got %s on %s, want emulation", s.Accelerator, s.CPUVendor)
	}
	fast, err := DefaultShape("10.0.13", &qemu.CPU{Vendor: measure.VendorIntel, PhysBits: 46}, firmware)
	if err != nil || fast.Accelerator != measure.KVM || fast.CPUVendor != measure.VendorIntel || fast.PhysBits != 46 {
		t.Errorf("got %+v, error %v, want an accelerated machine of 46 bits", fast, err)
	}
	if err := hasFirmware(s, firmware); err != nil {
		t.Errorf("the shape's own machine: got error %v", err)
	}
	if err := os.WriteFile(firmware, []byte("firmWare"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := hasFirmware(s, firmware); err == nil || !strings.Contains(err.Error(), "want the shape's") {
		t.Errorf("another firmware: got error %v, want one that names both", err)
	}
}

// TestWithModels: the disks of several models stand where one pair stood, in the config's order, on any platform, and each leads to its file.
func TestWithModels(t *testing.T) {
	for _, p := range []measure.Platform{"", measure.TDX, measure.SEVSNP} {
		firmware := filepath.Join(t.TempDir(), "OVMF_CODE.fd")
		if err := os.WriteFile(firmware, []byte("firmware"), 0o644); err != nil {
			t.Fatal(err)
		}
		s, err := DefaultShape("11.1.3", nil, firmware)
		if p == measure.TDX {
			s, err = SoftwareTDX("11.1.3", firmware)
		} else if p == measure.SEVSNP {
			s, err = SoftwareSNP("11.1.3", firmware)
		}
		if err != nil {
			t.Fatal(err)
		}
		two, err := WithModels(s, 2)
		if err != nil {
			t.Fatal(err)
		}
		var serials []string
		for _, d := range two.Devices {
			if _, serial, ok := strings.Cut(d, ",serial="); ok {
				serial, behind, _ := strings.Cut(serial, ",")
				serials = append(serials, serial)
				if p != "" && !strings.HasSuffix(behind, "disable-legacy=on,iommu_platform=on") {
					t.Errorf("%q: device %q does not leave private memory alone", p, d)
				}
			}
		}
		if want := []string{"chrysalis-root", "chrysalis-config", "chrysalis-journal", "chrysalis-engine-0", "chrysalis-model-0", "chrysalis-engine-1", "chrysalis-model-1"}; !slices.Equal(serials, want) {
			t.Errorf("%q: disks are %q, want %q", p, serials, want)
		}
		if len(two.Devices) != len(s.Devices)+2 || !slices.Equal(two.Devices[len(two.Devices)-5:], s.Devices[len(s.Devices)-5:]) {
			t.Errorf("%q: devices are %q, of %q", p, two.Devices, s.Devices)
		}
		if again, err := WithModels(two, 2); err != nil || !reflect.DeepEqual(again, two) {
			t.Errorf("%q: a machine that has them: got %+v (%v), want it as it is", p, again, err)
		}
		if one, err := WithModels(s, 1); err != nil || !reflect.DeepEqual(one, s) {
			t.Errorf("%q: one model: got %+v (%v), want it as it is", p, one, err)
		}
		for _, n := range []int{1, 3} {
			if got, err := WithModels(two, n); err == nil || !strings.Contains(err.Error(), "want those of") {
				t.Errorf("%q: %d models on a machine of two: got %+v (%v), want a refusal", p, n, got, err)
			}
		}
		args, err := arguments(two, files{volumes: []Volumes{{"/e.img", "/a.img"}, {"/e.img", "/b.img"}}})
		line := strings.Join(args, " ")
		if err != nil {
			t.Fatal(err)
		}
		for drive, file := range map[string]string{"engine-0": "/e.img", "model-0": "/a.img", "engine-1": "/e.img", "model-1": "/b.img"} {
			if !strings.Contains(line, "id="+drive+",") || !strings.Contains(line, file) {
				t.Errorf("%q: no drive %s of %s in %s", p, drive, file, line)
			}
		}
		if a, b := strings.Index(line, "/a.img"), strings.Index(line, "/b.img"); a > b {
			t.Errorf("%q: the models' disks are not in their order: %s", p, line)
		}
	}
}
