package measure

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"
)

// TestDiskVariables compares with what OVMF 2025.02 measured of a disk at device 1, out of a booted guest's log.
func TestDiskVariables(t *testing.T) {
	shape := Shape{Devices: []string{"tpm-crb,tpmdev=tpm0", "virtio-blk-pci,drive=root,serial=chrysalis-disk,bootindex=1",
		"virtio-blk-pci,drive=config"}}
	got, err := diskVariables(shape)
	if err != nil {
		t.Fatal(err)
	}
	var digests []string
	for _, b := range got {
		sum := sha256.Sum256(b.data)
		digests = append(digests, hex.EncodeToString(sum[:]))
	}
	want := []string{
		"263d99957c7b574c63a265b32da7fff8b8ad831828946bfbff650d7074dd9198", "e6f87048b3bcb1bef394cc3db6914f212e4697d9b26c43f3c36aec330447cbc0",
		"3197be1e300fa1600d1884c3a4bd4a90a15405bfb546cf2e6cf6095f8c362a93", "4d387b02d63b2f4cd7f667feb0a387fe47a10a3e26bf3533ddd001c605f3dec5",
	}
	if strings.Join(digests, " ") != strings.Join(want, " ") {
		t.Errorf("got %q, want %q", digests, want)
	}
}

func TestBootDisk(t *testing.T) {
	const disk = "virtio-blk-pci,drive=root,bootindex=1"
	for _, tt := range []struct {
		name    string
		devices []string
		gpus    []string
		slot    uint8
		want    string
	}{
		{"first", []string{"tpm-crb,tpmdev=tpm0", disk}, nil, 1, ""},
		{"behind two", []string{"virtio-net-pci,netdev=n", "virtio-serial-pci", "virtserialport,chardev=s", disk}, nil, 3, ""},
		{"none", []string{"virtio-blk-pci,drive=root"}, nil, 0, "no device has a boot index"},
		{"two", []string{disk, disk}, nil, 0, "alone to have one"},
		{"a network card", []string{"virtio-net-pci,netdev=n,bootindex=1"}, nil, 0, "alone to have one"},
		{"a place of its own", []string{"virtio-blk-pci,drive=root,addr=5,bootindex=1"}, nil, 0, "no place of its own"},
		{"a GPU", []string{disk}, []string{"vfio-pci,host=1"}, 0, "1 GPUs"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			slot, err := Shape{Devices: tt.devices, GPUs: tt.gpus}.bootDisk()
			if tt.want == "" && (err != nil || slot != tt.slot) || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %d, %v, want %d and %q", slot, err, tt.slot, tt.want)
			}
		})
	}
}
