package guest

import (
	"os"
	"path/filepath"
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
