package tdvf

import (
	"crypto/sha512"
	"encoding/hex"
	"strings"
	"testing"
)

// ovmf are the sections of OVMF for TDX.
var ovmf = []Section{
	{Offset: 0x84000, Size: 0x37c000, Address: 0xffc84000, Memory: 0x37c000, Type: 0, Flags: 1},
	{Offset: 0, Size: 0x84000, Address: 0xffc00000, Memory: 0x84000, Type: 1},
	{Address: 0x810000, Memory: 0x10000, Type: 3},
	{Address: 0x80b000, Memory: 0x2000, Type: 3},
	{Address: 0x809000, Memory: 0x2000, Type: 2},
	{Address: 0x800000, Memory: 0x6000, Type: 3},
}

// TestHOB is written out by hand from the structures of the specification, for 4 GiB of memory.
func TestHOB(t *testing.T) {
	got, err := HOB(ovmf, []Range{{0, 0x80000000}, {0x100000000, 0x80000000}})
	if err != nil {
		t.Fatal(err)
	}
	resource := func(kind, start, length string) string {
		return "0300300000000000" + strings.Repeat("00", 16) + kind + "000000" + "07000000" + start + length
	}
	want := "0100380000000000" + "09000000" + strings.Repeat("00", 36) + "f091800000000000" +
		resource("07", "0000000000000000", "0000800000000000") +
		resource("00", "0000800000000000", "0060000000000000") +
		resource("07", "0060800000000000", "0030000000000000") +
		resource("00", "0090800000000000", "0020000000000000") +
		resource("00", "00b0800000000000", "0020000000000000") +
		resource("07", "00d0800000000000", "0030000000000000") +
		resource("00", "0000810000000000", "0000010000000000") +
		resource("07", "0000820000000000", "00007e7f00000000") +
		resource("07", "0000000001000000", "0000008000000000")
	if hex.EncodeToString(got) != want {
		t.Errorf("got  %x\nwant %s", got, want)
	}
}

// TestHOBAgainstGuests compares with the first event of RTMR0 in logs of TDX guests under QEMU, which google/go-eventlog has
// as test data (CCEL_unpadded.data.bin and gdc-tdx.bin). Their memory sizes are those that give these digests.
func TestHOBAgainstGuests(t *testing.T) {
	for _, tt := range []struct {
		mib  uint64
		want string
	}{
		{8192, "2e070cda358b5aa00f27cca25c47381bb564f4be3a84d059805a73cbbde764ed8341f7e09915b5e7b370f9c08a743fbd"},
		{5000, "a916fc3fdff3f3f32076dbc0e6817236a09da7f318561ae53870a0dea063ed741486f950e8b43b38533112c992937303"},
	} {
		hob, err := HOB(ovmf, []Range{{0, 2 << 30}, {4 << 30, tt.mib<<20 - 2<<30}})
		if err != nil {
			t.Fatal(err)
		}
		if sum := sha512.Sum384(hob); hex.EncodeToString(sum[:]) != tt.want {
			t.Errorf("%d MiB: got %x, want %s", tt.mib, sum, tt.want)
		}
	}
}

func TestHOBRefuses(t *testing.T) {
	for _, tt := range []struct {
		name     string
		sections []Section
		ram      []Range
		want     string
	}{
		{"no memory", ovmf, nil, "0 ranges"},
		{"too many ranges", ovmf, make([]Range, maxRanges+1), "129 ranges"},
		{"empty range", ovmf, []Range{{0, 0}}, "0x0 bytes"},
		{"memory past the end", ovmf, []Range{{1 << 63, 1 << 63}}, "0x8000000000000000 bytes"},
		{"too little memory", ovmf, []Range{{0, 0x800000}}, "no free memory"},
		{"section twice", append(ovmf[:6:6], ovmf[5]), []Range{{0, 1 << 30}}, "no free memory"},
		{"two places", append(ovmf[:6:6], Section{Address: 0x900000, Memory: 4096, Type: 2}), []Range{{0, 1 << 30}}, "second place"},
		{"no place", ovmf[:4], []Range{{0, 1 << 30}}, "no place"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := HOB(tt.sections, tt.ram); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want one that says %q", err, tt.want)
			}
		})
	}
}
