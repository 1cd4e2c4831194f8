package claim

import (
	"encoding/base64"
	"strings"
)

// linePrefix opens a signed message as a line.
const linePrefix = "claim "

// Line returns a signed message, a Body's or a CloseBody's bytes, as a line without its end (CLAIM.md).
func Line(body []byte) string { return linePrefix + base64.StdEncoding.EncodeToString(body) }

// ParseLine reads a line, of which there is one form for each message. Nobody has checked the signature. The error wraps check.ErrRejected.
func ParseLine(line string) (body []byte, err error) {
	text, ok := strings.CutPrefix(line, linePrefix)
	if !ok || len(text) > base64.StdEncoding.EncodedLen(BodySize) {
		return nil, rejectf("line of %d bytes begins with %.10q, want %q and a message", len(line), line, linePrefix)
	}
	if body, err = base64.StdEncoding.Strict().DecodeString(text); err != nil {
		return nil, rejectf("line: %v", err)
	}
	if len(body) != BodySize && len(body) != CloseSize || Line(body) != line {
		return nil, rejectf("line of %d bytes holds %d, want %d or %d, and nothing else", len(line), len(body), BodySize, CloseSize)
	}
	_, err = Parse(body)
	return body, err
}
