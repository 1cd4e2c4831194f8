package page

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
)

const magic = "\x00asm\x01\x00\x00\x00"

func section(kind byte, content string) string {
	return string(binary.AppendUvarint([]byte{kind}, uint64(len(content)))) + content
}

func placed(at int64, data string) string {
	return "\x00\x41" + string(appendSigned(nil, at)) + "\x0b" + string(binary.AppendUvarint(nil, uint64(len(data)))) + data
}

func TestJoined(t *testing.T) {
	far := int64(100 + maxGap + 2)
	in := magic + section(1, "types") + section(dataSection, "\x04"+placed(96, "abc")+placed(far, "far")+placed(100, "d")+placed(64, "first")) + section(0, "name")
	want := magic + section(1, "types") + section(dataSection, "\x02"+placed(64, "first"+strings.Repeat("\x00", 27)+"abc\x00d")+placed(far, "far")) + section(0, "name")
	got, err := joined([]byte(in))
	if err != nil || string(got) != want {
		t.Errorf("got %q (%v), want %q", got, err, want)
	}
	for name, bad := range map[string]string{
		"no WebAssembly": "MZ", "a section cut": magic + "\x01\x05ab", "no count": magic + section(dataSection, ""),
		"a segment of another kind": magic + section(dataSection, "\x01\x01\x01a"), "no place": magic + section(dataSection, "\x01\x00\x41\x80"),
		"a segment cut": magic + section(dataSection, "\x01"+placed(1, "abc")[:5]), "two at one place": magic + section(dataSection, "\x02"+placed(1, "abc")+placed(2, "d")),
		"more behind": magic + section(dataSection, "\x01"+placed(1, "abc")+"x"), "fewer than said": magic + section(dataSection, "\x02"+placed(1, "abc")),
	} {
		if got, err := joined([]byte(bad)); err == nil {
			t.Errorf("%s: got %q", name, got)
		}
	}
	for _, n := range []int64{0, 1, 63, 64, -1, -64, -65, 1 << 20, -1 << 31, 1<<31 - 1} {
		if got, size := signed(append(appendSigned(nil, n), 0xff)); got != n || size != len(appendSigned(nil, n)) {
			t.Errorf("%d: read %d of %d bytes", n, got, size)
		}
	}
	p := program(t)
	if !bytes.HasPrefix(p.Wasm, []byte(magic)) || len(p.Packed) > 1_900_000 {
		t.Errorf("the program has %d bytes packed, want at most 1.9 MB", len(p.Packed))
	}
}
