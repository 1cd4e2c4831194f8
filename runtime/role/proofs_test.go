package role

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestForwardProofs(t *testing.T) {
	long := "proof " + strings.Repeat("a", maxProofBytes-6) + "\n"
	for _, tt := range []struct{ name, in, out, refused string }{
		{"none", "", "", ""},
		{"some", "proof a b\nproof c d\n", "proof a b\nproof c d\n", ""},
		{"messages that go with no receipt", "claim a\nproof b\nclaim c\n", "claim a\nproof b\nclaim c\n", ""},
		{"a word that begins like theirs", "claims a\n", "", "is no proof"},
		{"the longest", long, long, ""},
		{"a longer one", "proof a b\n" + long[:6] + "a" + long[6:], "proof a b\n", "more than 2048"},
		{"another word", "proof a b\nend init-broken\nproof c d\n", "proof a b\n", "is no proof"},
		{"an empty line", "\n", "", "is no proof"},
		{"bytes that are no text", "proof \x00\n", "", "is no proof"},
		{"a carriage return", "proof a\r\n", "", "is no proof"},
		{"no end", "proof a b\nproof c", "proof a b\n", "without an end"},
	} {
		var out bytes.Buffer
		err := ForwardProofs(iotest.OneByteReader(strings.NewReader(tt.in)), &out)
		if out.String() != tt.out || (err == nil) != (tt.refused == "") || err != nil && !strings.Contains(err.Error(), tt.refused) {
			t.Errorf("%s: got %.40q and error %v, want %.40q and %q", tt.name, out.String(), err, tt.out, tt.refused)
		}
	}
	gone, writer := io.Pipe()
	gone.Close()
	if err := ForwardProofs(strings.NewReader("proof a b\n"), writer); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("a writer that is gone: got %v, want %v", err, io.ErrClosedPipe)
	}
}
