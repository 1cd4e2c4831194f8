package acpi

import (
	"testing"

	"chrysalis/measure"
	"chrysalis/measure/tdvf"
)

// TestWindow compares with where OVMF has put windows: those of emulated guests were read off booted ones, and that of 46
// bits is the one of public TDX guests.
func TestWindow(t *testing.T) {
	memory := func(end uint64) measure.MapEntry {
		return measure.MapEntry{Range: tdvf.Range{Length: end}, Memory: true}
	}
	above := func(length uint64) measure.MapEntry {
		return measure.MapEntry{Range: tdvf.Range{Start: 4 * gib, Length: length}, Memory: true}
	}
	hole := measure.MapEntry{Range: tdvf.Range{Start: 0xfd00000000, Length: 0x300000000}} // AMD's, below 1 TiB
	for _, tt := range []struct {
		name   string
		memory []measure.MapEntry
		vendor string
		bits   int
		want   uint64
	}{
		{"emulated guest", []measure.MapEntry{memory(gib), hole}, measure.VendorAMD, 40, 0xc000000000},
		{"emulated guest of 16 GiB", []measure.MapEntry{memory(2 * gib), above(14 * gib), hole}, measure.VendorAMD, 40, 0xc000000000},
		{"Intel of 46 bits", []measure.MapEntry{memory(gib)}, measure.VendorIntel, 46, 0x380000000000},
		{"Intel of 52 bits", []measure.MapEntry{memory(gib)}, measure.VendorIntel, 52, 0x380000000000},
		{"Intel of 39 bits", []measure.MapEntry{memory(gib)}, measure.VendorIntel, 39, 0x7000000000},
		{"Intel of 40 bits, which QEMU says without knowing", []measure.MapEntry{memory(gib)}, measure.VendorIntel, 40, 0x800000000},
		{"the same with 64 GiB", []measure.MapEntry{memory(2 * gib), above(62 * gib)}, measure.VendorIntel, 40, 0x1800000000},
	} {
		if got := window(tt.memory, tt.vendor, tt.bits); got != tt.want {
			t.Errorf("%s: got %#x, want %#x", tt.name, got, tt.want)
		}
	}
}
