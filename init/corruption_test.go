package main

import (
	"slices"
	"testing"

	"chrysalis/measure/config"
	"chrysalis/measure/engines"
)

// TestVolumeNames: when the kernel's words are lost, every volume that a guest may have open is looked at.
func TestVolumeNames(t *testing.T) {
	names := volumeNames()
	for of := 1; of <= config.MaxModels; of++ {
		for at := range of {
			for _, name := range []string{engineVolume, modelVolume} {
				if want := engines.Nth(name, at, of); !slices.Contains(names, want) {
					t.Errorf("%s is not looked at, of %q", want, names)
				}
			}
		}
	}
}

func TestCorrupt(t *testing.T) {
	for _, tt := range []struct {
		name, uevent string
		want         bool
	}{
		{"verity error", "change@/devices/virtual/block/dm-1\x00ACTION=change\x00DM_VERITY_ERR_BLOCK_NR=17, 0\x00SEQNUM=9\x00", true},
		{"another change", "change@/devices/virtual/block/dm-1\x00ACTION=change\x00DM_COOKIE=1\x00", false},
		{"name inside a value", "add@/devices/x\x00PATH=/a DM_VERITY_ERR_BLOCK_NR=1\x00", false},
		{"empty", "", false},
	} {
		if got := corrupt([]byte(tt.uevent)); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}
