package qemu

import (
	"bufio"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"net"
	"strings"
	"testing"
)

// answer is a test port that answers each command by a function.
func answer(t *testing.T, reply func(command string) string) *Port {
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
	return NewPort(here)
}

// fwConfig answers like a machine whose fw_cfg holds one item.
func fwConfig(t *testing.T, item []byte, fails bool) *Port {
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
	files, err := fwConfig(t, testDirectory("etc/e820", "etc/table-loader"), false).Files()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := files["etc/table-loader"], (File{0x21, 101}); len(files) != 2 || got != want {
		t.Errorf("got %v, want two files, the second %v", files, want)
	}
	if _, err := fwConfig(t, testDirectory("a"), true).Files(); err == nil || !strings.Contains(err.Error(), "transfer") {
		t.Errorf("a failed transfer: got error %v, want one that says so", err)
	}
	if _, err := fwConfig(t, []byte{0, 1, 0, 0}, false).Files(); err == nil || !strings.Contains(err.Error(), "65536 files") {
		t.Errorf("65536 files: got error %v, want a refusal", err)
	}
	dirty := testDirectory("a")
	dirty[4+8+2] = 'b'
	for name, b := range map[string][]byte{"truncated": testDirectory("a")[:40], "longer": append(testDirectory("a"), 0),
		"name twice": testDirectory("a", "a"),
		"no name":    testDirectory(""), "bytes after the name": dirty, "empty": nil} {
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
	if _, err := fwConfig(t, nil, false).ReadFile(File{Size: MaxFileBytes + 1}); err == nil {
		t.Error("a file of too many bytes: got no error, want a refusal")
	}
	if _, err := answer(t, func(string) string { return "ERR\n" }).In32(1); err == nil || !strings.Contains(err.Error(), "want OK") {
		t.Errorf("an answer that is none: got error %v, want a refusal", err)
	}
	if _, err := answer(t, func(string) string { return "OK " + strings.Repeat("A", maxLine) + "\n" }).do("x"); err == nil ||
		!strings.Contains(err.Error(), "longer than") {
		t.Errorf("an endless answer: got error %v, want a refusal", err)
	}
	if _, err := answer(t, func(string) string { return "OK AAAA\n" }).memory(0, 4); err == nil ||
		!strings.Contains(err.Error(), "3 bytes of memory, want 4") {
		t.Errorf("too little memory: got error %v, want one that says got and want", err)
	}
}
