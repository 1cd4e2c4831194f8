package guest

import (
	"os"
	"strings"
	"testing"
	"time"

	"chrysalis/runtime/numbers"
)

// TestNumbers reads what a guest has counted, however long the file is, and cuts a long one short.
func TestNumbers(t *testing.T) {
	g := Guest{Dir: t.TempDir()}
	if _, _, found, err := g.Numbers(); found || err != nil {
		t.Errorf("no file: got %t and error %v, want nothing", found, err)
	}
	line := func(asked uint64) string { return numbers.Values{numbers.Asked: asked}.Line() + "\n" }
	for _, tt := range []struct {
		name, written string
		asked         uint64
		found         bool
		size          int64
		want          string
	}{
		{"nothing yet", "", 0, false, 0, ""},
		{"a line and a half", line(7) + line(8)[:9], 7, true, int64(len(line(7)) + 9), ""},
		{"days of lines", strings.Repeat(line(1), maxNumbersBytes/len(line(1))+1) + line(9), 9, true, 0, ""},
		{"something else", line(1) + "hello\n", 0, false, int64(len(line(1)) + 6), "numbers.log: parsing numbers"},
	} {
		if err := os.WriteFile(g.Path(NumbersFile), []byte(tt.written), 0o600); err != nil {
			t.Fatal(err)
		}
		v, at, found, err := g.Numbers()
		if v[numbers.Asked] != tt.asked || found != tt.found || (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %d, %t and error %v, want %d, %t and one with %q", tt.name, v[numbers.Asked], found, err, tt.asked, tt.found, tt.want)
		}
		if found && time.Since(at) > time.Hour {
			t.Errorf("%s: it came at %s, want now", tt.name, at)
		}
		if info, err := os.Stat(g.Path(NumbersFile)); err != nil || info.Size() != tt.size {
			t.Errorf("%s: the file has %d bytes (%v), want %d", tt.name, info.Size(), err, tt.size)
		}
	}
}
