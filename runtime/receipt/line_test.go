package receipt

import (
	"bytes"
	"encoding/base64"
	"strings"
	"testing"

	"chrysalis/runtime/claim"
)

func testProof(t testing.TB) Proof {
	t.Helper()
	charge := claim.Body(bytes.Repeat([]byte{0xb5}, claim.BodySize))
	return Proof{Receipt: mustSign(t, example()), Charge: &charge}
}

func TestLine(t *testing.T) {
	p := testProof(t)
	line, err := p.Line()
	if err != nil || len(line) != LineBytes || strings.ContainsAny(line, "\n\r") {
		t.Fatalf("got %d bytes and error %v, want %d in one line", len(line), err, LineBytes)
	}
	got, err := ParseLine(line)
	if err != nil || *got.Receipt != *p.Receipt || *got.Charge != *p.Charge {
		t.Errorf("got %v and error %v, want the proof again", got, err)
	}
	if _, err := (Proof{Receipt: p.Receipt}).Line(); err == nil {
		t.Error("a proof without a charge: got no error, want one")
	}
}

func TestParseLineRefuses(t *testing.T) {
	line, err := testProof(t).Line()
	if err != nil {
		t.Fatal(err)
	}
	at := len(linePrefix) + base64.StdEncoding.EncodedLen(Size)
	for name, spoilt := range map[string]string{
		"empty": "", "cut": line[:len(line)-1], "grown": line + "=", "another word": "proof!" + line[6:], "with its end": line + "\n",
		"another space":          strings.Replace(line[:7], " ", "\t", 1) + line[7:],
		"no space between":       line[:at] + "A" + line[at+1:],
		"a line break in base64": line[:20] + "\n" + line[21:],
		"another alphabet":       line[:20] + "-" + line[21:],
		"bits beyond the end":    line[:at-2] + string(line[at-2]+1) + line[at-1:],
	} {
		if got, err := ParseLine(spoilt); err == nil {
			t.Errorf("%s: got %v, want a refusal", name, got)
		}
	}
}

func FuzzParseLine(f *testing.F) {
	line, err := testProof(f).Line()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(line)
	f.Fuzz(func(t *testing.T, line string) {
		p, err := ParseLine(line)
		if err != nil {
			return
		}
		if again, err := p.Line(); err != nil || again != line {
			t.Errorf("%q: encoded again it is %q, %v", line, again, err)
		}
	})
}
