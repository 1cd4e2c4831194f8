package numbers

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

func TestLine(t *testing.T) {
	var v Values
	for n := range v {
		v[n] = uint64(n + 1)
	}
	v[PromptTokens], v[CompletionTokens] = 1999, 2000
	line := v.Line()
	got, err := Parse(line)
	if err != nil || got.Line() != line {
		t.Fatalf("got %q and error %v, want %q", got.Line(), err, line)
	}
	if got[PromptTokens] != 1000 || got[CompletionTokens] != 2000 || got[Asked] != 1 || got[ProofsWaiting] != uint64(Count) {
		t.Errorf("got %v, want tokens in thousands and the rest as it was", got)
	}
	for n := range v {
		v[n] = 1<<64 - 1
	}
	if long := v.Line(); len(long) > MaxLineBytes {
		t.Errorf("the longest line has %d bytes, want at most %d", len(long), MaxLineBytes)
	}
}

func TestParseRefuses(t *testing.T) {
	good := Values{}.Line()
	for name, line := range map[string]string{
		"nothing":             "",
		"another line":        "event engine-up",
		"one missing":         strings.Replace(good, " waiting=0", "", 1),
		"one more":            good + " model=0",
		"one twice":           strings.Replace(good, " waiting=0", " waiting=0 waiting=0", 1),
		"another order":       strings.Replace(good, "places=0 computing=0", "computing=0 places=0", 1),
		"a name of nobody's":  strings.Replace(good, "waiting", "prompted", 1),
		"a zero before":       strings.Replace(good, "waiting=0", "waiting=00", 1),
		"a sign":              strings.Replace(good, "waiting=0", "waiting=+1", 1),
		"less than nothing":   strings.Replace(good, "waiting=0", "waiting=-1", 1),
		"words":               strings.Replace(good, "waiting=0", "waiting=hello", 1),
		"more than 64 bits":   strings.Replace(good, "waiting=0", "waiting=18446744073709551616", 1),
		"a count of tokens":   strings.Replace(good, "prompt_tokens=0", "prompt_tokens=14", 1),
		"two spaces":          strings.Replace(good, " waiting", "  waiting", 1),
		"its end":             good + "\n",
		"too long":            good + strings.Repeat(" ", MaxLineBytes),
		"a beginning of none": strings.Replace(good, "numbers", "number", 1),
	} {
		if v, err := Parse(line); err == nil || v != (Values{}) {
			t.Errorf("%s: got %v and error %v, want a refusal", name, v, err)
		}
	}
}

func TestLast(t *testing.T) {
	first, second := Values{Asked: 1}.Line()+"\n", Values{Asked: 2}.Line()+"\n"
	for name, tt := range map[string]struct {
		written string
		asked   uint64
		found   bool
		err     bool
	}{
		"nothing":                    {"", 0, false, false},
		"a line that is written":     {"numbers ask", 0, false, false},
		"one":                        {first, 1, true, false},
		"the last of two":            {first + second, 2, true, false},
		"and one that is written":    {first + second + "numbers ask", 2, true, false},
		"after half of one":          {first[20:] + second, 2, true, false},
		"half of one alone":          {first[20:], 0, false, true},
		"a line of somebody else's":  {first + "hello\n", 0, false, true},
		"somebody else's before one": {"hello\n" + first, 1, true, false},
	} {
		v, found, err := Last([]byte(tt.written))
		if v[Asked] != tt.asked || found != tt.found || (err != nil) != tt.err {
			t.Errorf("%s: got %d, %t and error %v, want %d, %t and an error: %t", name, v[Asked], found, err, tt.asked, tt.found, tt.err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(Values{}.Line())
	f.Add(Values{Asked: 7, PromptTokens: 3000, KeyEnds: 1 << 40}.Line())
	f.Fuzz(func(t *testing.T, line string) {
		if v, err := Parse(line); err == nil && v.Line() != line {
			t.Errorf("%q was parsed, and comes back as %q", line, v.Line())
		}
	})
}

// TestSpecification: the table in NUMBERS.md is the one here.
func TestSpecification(t *testing.T) {
	text, err := os.ReadFile("NUMBERS.md")
	if err != nil {
		t.Fatal(err)
	}
	table := "| name | kind | unit | step | what it is |\n|---|---|---|---|---|\n"
	for _, n := range All() {
		r := n.Row()
		if r.Name == "" || r.Help == "" || r.Step == 0 {
			t.Errorf("number %d is not described: %+v", n, r)
		}
		table += fmt.Sprintf("| `%s` | %s | %s | %d | %s |\n", r.Name, r.Kind, r.Unit, r.Step, r.Help)
	}
	for _, want := range []string{table, PortName, fmt.Sprintf("%d seconds", int(Interval.Seconds())), fmt.Sprintf("%d seconds", int(MinInterval.Seconds())),
		fmt.Sprintf("%d bytes", MaxLineBytes)} {
		if !strings.Contains(string(text), want) {
			t.Errorf("NUMBERS.md lacks:\n%s", want)
		}
	}
}
