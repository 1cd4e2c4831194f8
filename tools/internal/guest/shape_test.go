package guest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"chrysalis/measure"
)

func TestHostCPU(t *testing.T) {
	text := "processor\t: 0\nvendor_id\t: GenuineIntel\naddress sizes\t: 46 bits physical, 48 bits virtual\n\nprocessor\t: 1\n"
	vendor, bits, err := hostCPU([]byte(text))
	if err != nil || vendor != measure.VendorIntel || bits != 46 {
		t.Errorf("got %s, %d, error %v, want %s and 46", vendor, bits, err, measure.VendorIntel)
	}
	if _, _, err := hostCPU([]byte("vendor_id\t: GenuineIntel\n")); err == nil {
		t.Error("no address sizes: got no error, want a refusal")
	}
}

// TestFits shows that a guest is not started as another machine than its shape says.
func TestFits(t *testing.T) {
	firmware := filepath.Join(t.TempDir(), "OVMF_CODE.fd")
	if err := os.WriteFile(firmware, []byte("firmware"), 0o644); err != nil {
		t.Fatal(err)
	}
	s, err := DefaultShape("10.0.13", false, firmware)
	if err != nil {
		t.Fatal(err)
	}
	if err := fits(s, "10.0.13", firmware); err != nil {
		t.Errorf("the shape's own machine: got error %v", err)
	}
	if err := fits(s, "11.1.3", firmware); err == nil || !strings.Contains(err.Error(), "QEMU is 11.1.3, want the shape's 10.0.13") {
		t.Errorf("another QEMU: got error %v, want one that names both", err)
	}
	if err := os.WriteFile(firmware, []byte("firmWare"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := fits(s, "10.0.13", firmware); err == nil {
		t.Error("another firmware: got no error, want a refusal")
	}
}
