package acpi

import (
	"bufio"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"chrysalis/measure"
	"chrysalis/tools/internal/toolstree"
)

// answer is a test port that answers each command by a function.
func answer(t *testing.T, reply func(command string) string) *port {
	t.Helper()
	here, there := net.Pipe()
	t.Cleanup(func() { here.Close(); there.Close() })
	go func() {
		for s := bufio.NewScanner(there); s.Scan(); {
			if _, err := there.Write([]byte(reply(s.Text()))); err != nil {
				return
			}
		}
	}()
	return newPort(here)
}

// fwConfig answers like a machine whose fw_cfg holds one item.
func fwConfig(t *testing.T, item []byte, fails bool) *port {
	return answer(t, func(command string) string {
		switch {
		case strings.HasPrefix(command, fmt.Sprintf("b64read %#x 0x4", transferAt)):
			state := uint32(0)
			if fails {
				state = dmaError
			}
			return "IRQ raise 1\nOK " + base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, state)) + "\n"
		case strings.HasPrefix(command, "b64read"):
			var at, size int
			if _, err := fmt.Sscanf(command, "b64read %v %v", &at, &size); err != nil || size > len(item) {
				return "FAIL size\n"
			}
			return "OK " + base64.StdEncoding.EncodeToString(item[:size]) + "\n"
		}
		return "OK\n"
	})
}

func testDirectory(names ...string) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(names)))
	for i, name := range names {
		b = binary.BigEndian.AppendUint32(b, uint32(100+i))
		b = binary.BigEndian.AppendUint16(b, uint16(0x20+i))
		b = append(b, 0, 0)
		b = append(b, append([]byte(name), make([]byte, 56-len(name))...)...)
	}
	return b
}

func TestDirectory(t *testing.T) {
	files, err := fwConfig(t, testDirectory("etc/e820", "etc/table-loader"), false).directory()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := files["etc/table-loader"], (fwFile{0x21, 101}); len(files) != 2 || got != want {
		t.Errorf("got %v, want two files, the second %v", files, want)
	}
	if _, err := fwConfig(t, testDirectory("a"), true).directory(); err == nil || !strings.Contains(err.Error(), "transfer") {
		t.Errorf("a failed transfer: got error %v, want one that says so", err)
	}
	if _, err := fwConfig(t, []byte{0, 1, 0, 0}, false).directory(); err == nil || !strings.Contains(err.Error(), "65536 files") {
		t.Errorf("65536 files: got error %v, want a refusal", err)
	}
	dirty := testDirectory("a")
	dirty[4+8+2] = 'b'
	for name, b := range map[string][]byte{"truncated": testDirectory("a")[:40], "longer": append(testDirectory("a"), 0), "name twice": testDirectory("a", "a"),
		"no name": testDirectory(""), "bytes after the name": dirty, "empty": nil} {
		if _, err := parseDirectory(b); err == nil {
			t.Errorf("%s: got no error, want a refusal", name)
		}
	}
}

func FuzzParseDirectory(f *testing.F) {
	f.Add(testDirectory("etc/e820", "etc/table-loader"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if files, err := parseDirectory(b); err == nil && 4+len(files)*fwEntryBytes != len(b) {
			t.Errorf("got %d files of %d bytes", len(files), len(b))
		}
	})
}

func TestPortRefuses(t *testing.T) {
	if _, err := fwConfig(t, nil, false).readFile(fwFile{size: maxFileBytes + 1}); err == nil {
		t.Error("a file of too many bytes: got no error, want a refusal")
	}
	if _, err := answer(t, func(string) string { return "ERR\n" }).in32(1); err == nil || !strings.Contains(err.Error(), "want OK") {
		t.Errorf("an answer that is none: got error %v, want a refusal", err)
	}
	if _, err := answer(t, func(string) string { return "OK " + strings.Repeat("A", maxLine) + "\n" }).do("x"); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("an endless answer: got error %v, want a refusal", err)
	}
	if _, err := answer(t, func(string) string { return "OK AAAA\n" }).memory(0, 4); err == nil || !strings.Contains(err.Error(), "3 bytes of memory, want 4") {
		t.Errorf("too little memory: got error %v, want one that says got and want", err)
	}
}

func TestCacheHeals(t *testing.T) {
	name := filepath.Join(t.TempDir(), "cache", "tables")
	want := measure.Tables{Loader: []byte("script"), Files: map[string][]byte{"a": {1}}, Settings: map[string][]byte{"b": {2}}}
	if err := store(name, want); err != nil {
		t.Fatal(err)
	}
	if got, err := load(name); err != nil || string(got.Loader) != "script" || got.Files["a"][0] != 1 || got.Settings["b"][0] != 2 {
		t.Fatalf("got %v, error %v, want %v", got, err, want)
	}
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)-3]++
	for what, bad := range map[string][]byte{"changed": data, "truncated": data[:10]} {
		if err := os.WriteFile(name, bad, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := load(name); err == nil {
			t.Errorf("%s: got no error, want the file refused and so made again", what)
		}
	}
	if _, err := load(name + "x"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: got error %v, want %v", err, os.ErrNotExist)
	}
}

// TestReadRefuses asks for machines whose tables can't be known.
func TestReadRefuses(t *testing.T) {
	gpu := demoShape("10.0.13", 1024, 1)
	gpu.GPUs = []string{"vfio-pci,host=01:00.0"}
	amd := demoShape("10.0.13", 1024, 1)
	amd.PhysBits = 39
	none := demoShape("10.0.13", 1024, 0)
	for want, s := range map[string]measure.Shape{"shape has 1 GPUs, want none": gpu, "phys_bits is 39": amd, "cpus is 0": none} {
		if _, err := read(t.Context(), toolstree.Tree{}, s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got error %v, want one that says %q", err, want)
		}
	}
}
