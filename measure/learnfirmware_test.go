package measure

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// TestLearnFirmware finds what is known of Debian's build in a boot log of it, and nothing in another's.
func TestLearnFirmware(t *testing.T) {
	if testing.Short() {
		t.Skip("it hashes gigabytes")
	}
	code := release(t, "tools-tree", "usr", "share", "OVMF", "OVMF_CODE_4M.fd")
	log, err := os.ReadFile(filepath.Join("eventlog", "testdata", "boots", "qemu10-ovmf2025.02.tcg2"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := LearnFirmware(firmwareBuilds[0].Name, code, log)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, firmwareBuilds[0]) {
		t.Errorf("got %+v, want %+v", got, firmwareBuilds[0])
	}
	// As JSON, as the command line passes it on.
	text, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	var again FirmwareBuild
	if err := json.Unmarshal(text, &again); err != nil || !reflect.DeepEqual(again, got) {
		t.Errorf("through JSON: got %+v (%v), want %+v", again, err, got)
	}
	events, _, err := firmwareEvents(code, &again)
	if err != nil || len(events) != 3 {
		t.Errorf("a learned build: got %d events (%v), want 3", len(events), err)
	}
	edited := bytes.Replace(bytes.Clone(log), []byte("2\x000\x002\x005\x00"), []byte("3\x000\x002\x005\x00"), 1)
	volumes, err := firmwareVolumes(code)
	if err != nil {
		t.Fatal(err)
	}
	dxe := sha256.Sum256(volumes[1])
	otherDXE := bytes.Clone(log)
	otherDXE[bytes.Index(log, dxe[:])] ^= 1
	other := bytes.Clone(code)
	other[len(other)-1] ^= 1 // outside the volumes
	for _, tt := range []struct {
		name      string
		code, log []byte
		want      string
	}{
		{"another version in the log", code, edited, "its version is proven: false"},
		{"another DXE volume in the log", code, otherDXE, "it is of another firmware"},
		{"no log", code, nil, "no event"},
		{"no firmware", code[:1000], log, "LZMA section of"},
	} {
		if _, err := LearnFirmware("x", tt.code, tt.log); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want an error with %q", tt.name, err, tt.want)
		}
	}
	// Volumes and log may fit, and yet the build is only that of the file that was given.
	learned, err := LearnFirmware("other", other, log)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := firmwareEvents(code, &learned); err == nil || !strings.Contains(err.Error(), "want that of the given build") {
		t.Errorf("another file's build: got %v, want a refusal", err)
	}
	learned.SHA256, learned.Patches = firmwareBuilds[0].SHA256, []FirmwarePatch{{Offset: -4}}
	if _, _, err := firmwareEvents(code, &learned); err == nil || !strings.Contains(err.Error(), "patch at") {
		t.Errorf("a patch outside: got %v, want a refusal", err)
	}
	secure := release(t, "tools-tree", "usr", "share", "OVMF", "OVMF_CODE_4M.secboot.fd")
	if _, err := LearnFirmware("x", secure, log); err == nil || !strings.Contains(err.Error(), "follows from the machine") {
		t.Errorf("a build of which PCR 0 follows from the machine: got %v, want a refusal", err)
	}
}

// TestFindPatch looks for a word where there is none and where there is one.
func TestFindPatch(t *testing.T) {
	volume := bytes.Repeat([]byte{1, 0, 0, 0, 0, 0, 0, 0}, 64)
	patched := bytes.Clone(volume)
	patched[0x84], patched[0x85] = 8, 6
	if at, ok := findPatch(volume, acpiTimer, sha256.Sum256(patched)); !ok || at != 0x84 {
		t.Errorf("got %#x and %t, want 0x84", at, ok)
	}
	patched[0] = 9
	if at, ok := findPatch(volume, acpiTimer, sha256.Sum256(patched)); ok {
		t.Errorf("another change too: found %#x", at)
	}
}
