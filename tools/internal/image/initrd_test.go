package image

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cavaliergopher/cpio"

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
		config.Volume{Root: register.Digest{1}, Blocks: 7}, []byte("quiet"))
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
	want := []string{"cmdline", "dev", "init", "modules", "modules/00-b.ko.xz", "modules/01-a.ko.xz", "newroot", "proc", "root.json",
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
