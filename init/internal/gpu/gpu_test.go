package gpu

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestFind(t *testing.T) {
	sys := t.TempDir()
	for address, ids := range map[string][2]string{
		"0000:00:01.0": {"0x10de\n", "0x030200\n"}, // H200
		"0000:00:02.0": {"0x10de\n", "0x068000\n"}, // NVSwitch: no GPU
		"0000:00:03.0": {"0x1af4\n", "0x030000\n"}, // virtio-gpu
		"0000:00:04.0": {"0x10de\n", "0x030000\n"},
	} {
		dir := filepath.Join(sys, "bus/pci/devices", address)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for i, name := range []string{"vendor", "class"} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(ids[i]), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	got, err := Find(sys)
	if want := []string{"0000:00:01.0", "0000:00:04.0"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q (%v), want %q", got, err, want)
	}
	if err := os.Remove(filepath.Join(sys, "bus/pci/devices/0000:00:03.0/class")); err != nil {
		t.Fatal(err)
	}
	if _, err := Find(sys); err == nil {
		t.Error("a device without a class: got no error; a GPU could hide there")
	}
}
