package measure

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"
)

// testLoader is a script that loads the files.
func testLoader(names ...string) []byte {
	var b []byte
	for _, name := range names {
		entry := make([]byte, loaderEntry)
		binary.LittleEndian.PutUint32(entry, loaderAllocate)
		copy(entry[4:], name)
		b = append(b, entry...)
	}
	return append(b, make([]byte, loaderEntry)...)
}

func TestLoaderFiles(t *testing.T) {
	got, err := LoaderFiles(testLoader("a", "b/c"))
	if err != nil || !slices.Equal(got, []string{"a", "b/c"}) {
		t.Errorf("got %q, error %v, want a and b/c", got, err)
	}
	dirty := testLoader("a")
	dirty[4+loaderName-1] = 1
	for name, tt := range map[string]struct {
		script []byte
		want   string
	}{
		"empty": {nil, "0 bytes"}, "half an entry": {make([]byte, 64), "64 bytes"}, "no file": {testLoader(), "load no file"},
		"oversized": {make([]byte, maxLoaderBytes+loaderEntry), "at most"}, "file twice": {testLoader("a", "a"), "loaded twice"},
		"no name": {testLoader(""), "has the name"}, "bytes after the name": {dirty, "has the name"},
		"endless name": {testLoader(strings.Repeat("a", loaderName)), "has the name"},
	} {
		if _, err := LoaderFiles(tt.script); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got error %v, want one that says %q", name, err, tt.want)
		}
	}
}

func TestPCR1Moves(t *testing.T) {
	clean, err := testTables().PCR1()
	if err != nil {
		t.Fatal(err)
	}
	other := testTables()
	other.Files["etc/acpi/rsdp"][0]++
	if got, err := other.PCR1(); err != nil || got == clean {
		t.Errorf("another table: got %s, error %v, want another than %s", got, err, clean)
	}
	settings := testTables()
	settings.Settings["bootorder"] = nil
	if got, err := settings.PCR1(); err != nil || got != clean {
		t.Errorf("another setting: got %s, error %v, want %s, which does not hold settings", got, err, clean)
	}
}

func TestParseMemoryMap(t *testing.T) {
	good := testTables().Settings[MemoryMap]
	if got, err := ParseMemoryMap(good); err != nil || len(got) != 1 || !got[0].Memory || got[0].Length != 1<<30 {
		t.Errorf("got %+v, error %v, want 1 GiB of memory", got, err)
	}
	kind := slices.Clone(good)
	kind[16] = 9
	past := slices.Clone(good)
	past[7], past[15] = 0xff, 0xff
	for name, b := range map[string][]byte{"empty": nil, "truncated": good[:19], "unknown kind": kind, "past the end": past,
		"oversized": slices.Repeat(good, maxE820+1),
		"no bytes":  make([]byte, e820Bytes)} {
		if _, err := ParseMemoryMap(b); err == nil {
			t.Errorf("%s: got no error, want a refusal", name)
		}
	}
}

func FuzzTables(f *testing.F) {
	seed := testTables()
	f.Add(seed.Loader, seed.Settings[MemoryMap])
	f.Fuzz(func(t *testing.T, loader, memory []byte) {
		if names, err := LoaderFiles(loader); err == nil && (len(names) == 0 || len(names) > len(loader)/loaderEntry) {
			t.Errorf("got %d files of %d bytes", len(names), len(loader))
		}
		if entries, err := ParseMemoryMap(memory); err == nil && len(entries) != len(memory)/e820Bytes {
			t.Errorf("got %d ranges of %d bytes", len(entries), len(memory))
		}
	})
}
