package role

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"chrysalis/runtime/numbers"
)

func TestForwardNumbers(t *testing.T) {
	line := func(asked uint64) string { return numbers.Values{numbers.Asked: asked}.Line() + "\n" }
	for _, tt := range []struct {
		name, from, to, want string
		step                 time.Duration
	}{
		{"lines", line(1) + line(2), line(1) + line(2), "", numbers.Interval},
		{"a flood", line(1) + line(2) + line(3), line(1), "", time.Second},
		{"nothing", "", "", "", numbers.Interval},
		{"a line of another form", line(1) + "hello\n" + line(2), line(1), "words of which the first is", numbers.Interval},
		{"a count that tells", strings.Replace(line(1), "prompt_tokens=0", "prompt_tokens=14", 1), "", "multiples of 1000", numbers.Interval},
		{"no end", line(1) + "numbers", line(1), "7 bytes without an end", numbers.Interval},
		{"too long", strings.Repeat("x", numbers.MaxLineBytes+2), "", "more than 1024 bytes", numbers.Interval},
	} {
		clock := time.Unix(1, 0)
		var out bytes.Buffer
		err := ForwardNumbers(strings.NewReader(tt.from), &out, func() time.Time { clock = clock.Add(tt.step); return clock })
		if out.String() != tt.to || (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %q and error %v, want %q and one with %q", tt.name, out.String(), err, tt.to, tt.want)
		}
	}
}
