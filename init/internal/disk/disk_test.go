package disk

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"chrysalis/init/disks"
)

func addDisk(t *testing.T, p Paths, name, serial, sectors string) {
	t.Helper()
	dir := filepath.Join(p.Sys, "class/block", name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for file, text := range map[string]string{"serial": serial, "size": sectors} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFind(t *testing.T) {
	p := Paths{Sys: t.TempDir(), Dev: "/dev"}
	addDisk(t, p, "vda", "chrysalis-model\n", "16\n")
	addDisk(t, p, "vdb", disks.Root, "8\n")
	got, err := p.Find(t.Context(), disks.Root)
	if want := (Disk{"/dev/vdb", 4096}); err != nil || got != want {
		t.Errorf("got %+v (%v), want %+v", got, err, want)
	}
}

func TestFindRefuses(t *testing.T) {
	for _, tt := range []struct {
		name string
		add  func(Paths)
		want string
	}{
		{"none", func(Paths) {}, "none appeared"},
		{"two of one serial", func(p Paths) { addDisk(t, p, "vda", disks.Root, "8"); addDisk(t, p, "vdb", disks.Root, "8") }, "found 2, want 1"},
		{"prefix of the serial", func(p Paths) { addDisk(t, p, "vda", disks.Root+"2", "8") }, "none appeared"},
		{"size is no number", func(p Paths) { addDisk(t, p, "vda", disks.Root, "many") }, `size of vda is "many"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := Paths{Sys: t.TempDir(), Dev: "/dev"}
			tt.add(p)
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
			defer cancel()
			if _, err := p.Find(ctx, disks.Root); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want one that says %q", err, tt.want)
			}
		})
	}
}

// addPartition makes a partition of sysfs: it has a name in its uevent, and no serial number.
func addPartition(t *testing.T, p Paths, name, uuid, sectors string) {
	t.Helper()
	dir := filepath.Join(p.Sys, "class/block", name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for file, text := range map[string]string{"uevent": "MAJOR=254\nDEVTYPE=partition\nPARTN=2\nPARTUUID=" + uuid + "\n", "size": sectors} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFindRoot(t *testing.T) {
	root := [32]byte{0x8d, 0xc5, 0xbc, 0xeb, 0x26, 0x44, 0xaf, 0x46, 0x98, 0xfe, 15: 1, 16: 2}
	const uuid = "8dc5bceb-2644-af46-98fe-000000000001"
	for _, tt := range []struct {
		name string
		add  func(Paths)
		want Disk
		err  string
	}{
		{"a disk", func(p Paths) { addDisk(t, p, "vda", disks.Root, "8") }, Disk{"/dev/vda", 4096}, ""},
		{"a partition", func(p Paths) {
			addDisk(t, p, "vda", "chrysalis-disk", "80")
			addPartition(t, p, "vda1", "c4a7c5f2-8b53-4d0e-9d1e-636872797302", "16")
			addPartition(t, p, "vda2", uuid, "8")
		}, Disk{"/dev/vda2", 4096}, ""},
		{"both", func(p Paths) { addDisk(t, p, "vda", disks.Root, "8"); addPartition(t, p, "vdb2", uuid, "8") }, Disk{}, "found 2, want 1"},
		{"two partitions", func(p Paths) { addPartition(t, p, "vda2", uuid, "8"); addPartition(t, p, "vdb2", uuid, "8") }, Disk{},
			"found 2, want 1"},
		{"the partition of another root", func(p Paths) { addPartition(t, p, "vda2", strings.Replace(uuid, "8d", "8e", 1), "8") }, Disk{},
			"none appeared"},
		{"size is no number", func(p Paths) { addPartition(t, p, "vda2", uuid, "-1") }, Disk{}, `size of vda2 is "-1"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := Paths{Sys: t.TempDir(), Dev: "/dev"}
			tt.add(p)
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
			defer cancel()
			got, err := p.FindRoot(ctx, root)
			if got != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("got %+v (%v), want %+v (%s)", got, err, tt.want, tt.err)
			}
		})
	}
}

// TestVolumePastDisk: more data blocks than the disk has are refused before the kernel is asked.
func TestVolumePastDisk(t *testing.T) {
	for _, blocks := range []uint64{0, 3, 1 << 62} {
		if _, err := OpenVerity(Disk{"/dev/none", 2 * 4096}, "x", [32]byte{1}, blocks); err == nil ||
			!strings.Contains(err.Error(), "data blocks, but") {
			t.Errorf("%d blocks on a disk of 2: got error %v, want a refusal", blocks, err)
		}
	}
}

func TestVerityIntact(t *testing.T) {
	for _, tt := range []struct {
		status     string
		intact, ok bool
	}{
		{"V\x00rest", true, true}, {"C\x00", false, true}, // up to kernel 6
		{"V -\x00", true, true}, {"C -\x00", false, true}, {"C 12\x00", false, true}, // kernel 7.2
		{"\x00", false, false}, {"VC\x00", false, false}, {"- V\x00", false, false},
	} {
		if intact, err := verityIntact([]byte(tt.status)); intact != tt.intact || (err == nil) != tt.ok {
			t.Errorf("%q: got %t (%v), want %t, and no error: %t", tt.status, intact, err, tt.intact, tt.ok)
		}
	}
}

func TestTarget(t *testing.T) {
	got := target(2, "verity", "1 a")
	if len(got)%8 != 0 || got[8] != 16 || string(got[24:30]) != "verity" || string(got[40:44]) != "1 a\x00" {
		t.Errorf("target spec: got %q", got)
	}
}
