package image

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cavaliergopher/cpio"

	"chrysalis/attest/handover"
	"chrysalis/measure/config"
	"chrysalis/measure/register"
)

func testEntries(t *testing.T) []entry {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"b.ko.xz", "a.ko.xz"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := initrdEntries([]byte("init"), kernel{"1", dir}, []string{"b.ko.xz", "a.ko.xz"},
		config.Volume{Root: register.Digest{1}, Blocks: 7}, []byte("quiet"), []byte("{}"))
	if err != nil {
		t.Fatal(err)
	}
	return entries
}

func written(t *testing.T, entries []entry) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := writeInitrd(&b, entries); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestInitrdReadsBack(t *testing.T) {
	r := cpio.NewReader(bytes.NewReader(written(t, testEntries(t))))
	var names []string
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
		if h.Uid != 0 || h.Guid != 0 || h.ModTime.Unix() != 0 {
			t.Errorf("%s: owner %d:%d, time %v, want root and none", h.Name, h.Uid, h.Guid, h.ModTime)
		}
		if h.Name == "init" && h.Mode != cpio.TypeReg|0o755 {
			t.Errorf("init: mode %o, want a program", h.Mode)
		}
		if h.Name == "root.json" {
			got, err := io.ReadAll(r)
			want := `{"root":"01` + string(bytes.Repeat([]byte("0"), 62)) + `","blocks":7}`
			if err != nil || string(got) != want {
				t.Errorf("root.json: got %s, error %v, want %s", got, err, want)
			}
		}
	}
	want := []string{"cmdline", "dev", "image.json", "init", "modules", "modules/00-b.ko.xz", "modules/01-a.ko.xz", "newroot", "proc", "root.json",
		"run", "sys"}
	if !slices.Equal(names, want) {
		t.Errorf("names: got %q, want %q", names, want)
	}
}

func TestInitrdIsReproducible(t *testing.T) {
	first := written(t, testEntries(t))
	shuffled := testEntries(t)
	slices.Reverse(shuffled)
	if !bytes.Equal(first, written(t, shuffled)) {
		t.Error("another order of entries: got other bytes, want equal ones")
	}
	for name, change := range map[string]func(*entry){
		"mode": func(e *entry) { e.mode ^= 0o001 },
		"data": func(e *entry) { e.data = append(e.data, 0) },
		"name": func(e *entry) { e.name += "x" },
	} {
		entries := testEntries(t)
		change(&entries[0])
		if bytes.Equal(first, written(t, entries)) {
			t.Errorf("another %s: got equal bytes, want other ones", name)
		}
	}
}

func TestModuleOrder(t *testing.T) {
	dir := t.TempDir()
	const dep = "kernel/md/dm-verity.ko.xz: kernel/lib/rs.ko.xz kernel/md/dm-bufio.ko.xz kernel/md/dm-mod.ko.xz\nkernel/md/dm-bufio.ko.xz: kernel/md/dm-mod.ko.xz\n" +
		"kernel/md/dm-mod.ko.xz:\nkernel/lib/rs.ko.xz:\nkernel/fs/erofs.ko.xz:\n"
	if err := os.WriteFile(filepath.Join(dir, "modules.dep"), []byte(dep), 0o644); err != nil {
		t.Fatal(err)
	}
	k := kernel{"1", dir}
	got, err := k.moduleOrder([]string{"erofs", "dm-verity", "dm_mod"})
	want := []string{"kernel/fs/erofs.ko.xz", "kernel/lib/rs.ko.xz", "kernel/md/dm-mod.ko.xz", "kernel/md/dm-bufio.ko.xz",
		"kernel/md/dm-verity.ko.xz"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, error %v, want %q", got, err, want)
	}
	if _, err := k.moduleOrder([]string{"nosuch"}); err == nil {
		t.Error("a module that the kernel lacks: got no error")
	}
}

func TestReleaseKeys(t *testing.T) {
	a, b := strings.Repeat("1", 64), strings.Repeat("2", 64)
	got, err := parseReleaseKeys("# who\nthreshold 1\n\n" + a + "\n" + b + "\n")
	if err != nil || got.Threshold != 1 || len(got.Signers) != 2 || got.Signers[0].String() != a || got.Signers[1].String() != b {
		t.Errorf("got %+v and error %v", got, err)
	}
	for name, text := range map[string]string{"nothing": "", "no threshold": a, "no number": "threshold\n" + a, "a number and more": "threshold 1 of 2\n" + a,
		"a key in upper case": "threshold 1\n" + strings.Repeat("A", 64), "half a key": "threshold 1\n" + a[:32], "two thresholds": "threshold 1\nthreshold 2"} {
		if got, err := parseReleaseKeys(text); err == nil {
			t.Errorf("%s: got %+v, want an error", name, got)
		}
	}
	// What stands in the tree is what goes into the initrd.
	image, err := (&Builder{Source: "../../.."}).imageFile()
	if err != nil {
		t.Fatal(err)
	}
	if parsed, err := handover.ParseImage(image); err != nil || parsed.SecurityVersion == 0 {
		t.Errorf("the tree's own: got %+v and error %v", parsed, err)
	}
}
