package receipt

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"chrysalis/runtime/claim"
)

// linePrefix opens a proof as a line.
const linePrefix = "proof "

// LineBytes is the length of every proof as a line, without its end.
var LineBytes = len(linePrefix) + base64.StdEncoding.EncodedLen(Size) + 1 + base64.StdEncoding.EncodedLen(claim.BodySize)

// Line returns the proof as a line without its end: the word proof, receipt and charge in base64, separated by one space each. A
// proof without a charge has none.
func (p Proof) Line() (string, error) {
	if p.Receipt == nil || p.Charge == nil {
		return "", errors.New("writing proof: it lacks its receipt or its charge")
	}
	return linePrefix + base64.StdEncoding.EncodeToString(p.Receipt[:]) + " " + base64.StdEncoding.EncodeToString(p.Charge[:]), nil
}

// ParseLine parses a proof as a line. There is one encoding of each; what it says is unproved until both are verified.
func ParseLine(line string) (Proof, error) {
	if len(line) != LineBytes || !strings.HasPrefix(line, linePrefix) {
		return Proof{}, fmt.Errorf("parsing proof: a line of %d bytes, want %d that begin with %q", len(line), LineBytes, linePrefix)
	}
	first, second, _ := strings.Cut(line[len(linePrefix):], " ")
	var p Proof
	p.Receipt, p.Charge = new(Signed), new(claim.Body)
	for _, part := range []struct {
		text string
		into []byte
	}{{first, p.Receipt[:]}, {second, p.Charge[:]}} {
		raw, err := base64.StdEncoding.Strict().DecodeString(part.text)
		if err != nil {
			return Proof{}, fmt.Errorf("parsing proof: %v", err)
		}
		// Strict reads line breaks all the same.
		if len(raw) != len(part.into) || base64.StdEncoding.EncodeToString(raw) != part.text {
			return Proof{}, fmt.Errorf("parsing proof: %d bytes in %d digits, want %d in their one form", len(raw), len(part.text), len(part.into))
		}
		copy(part.into, raw)
	}
	return p, nil
}
