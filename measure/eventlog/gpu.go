package eventlog

import (
	"fmt"
	"strings"

	"chrysalis/measure/config"
)

// Found is what the GPU event says of GPUs that were verified: the facts of them that stay the same from boot to boot. Who verifies again
// makes the same text out of what he saw.
type Found struct {
	Rule   config.GPURule // that they are as
	Driver string         // version
	VBIOS  []string       // versions on the GPUs, each once, in ascending order
	BIOS   []string       // versions on the switches, the same
}

// maxVersionBytes bounds the text of one version.
const maxVersionBytes = 20

// Text returns the event's data: "verified", the rule, and the versions.
func (f Found) Text() (string, error) {
	text := fmt.Sprintf("verified %s driver %s vbios %s", f.Rule, f.Driver, strings.Join(f.VBIOS, ","))
	if len(f.BIOS) > 0 {
		text += " bios " + strings.Join(f.BIOS, ",")
	}
	for _, version := range append(append([]string{f.Driver}, f.VBIOS...), f.BIOS...) {
		if version == "" || len(version) > maxVersionBytes || strings.IndexFunc(version, func(r rune) bool {
			return (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && r != '.' && r != '-'
		}) >= 0 {
			return "", fmt.Errorf("writing GPU event: version is %.40q, want 1 to %d letters, digits, dots and dashes", version, maxVersionBytes)
		}
	}
	if asks, err := f.Rule.GPUs(); err != nil || asks.Count == 0 || len(f.VBIOS) == 0 || (len(f.BIOS) > 0) != (asks.Switches > 0) ||
		len(f.VBIOS) > asks.Count || len(f.BIOS) > asks.Switches {
		return "", fmt.Errorf("writing GPU event: versions %q and %q under the rule %.40q, want one for each device at most", f.VBIOS, f.BIOS, f.Rule)
	}
	if len(text) > maxEventBytes {
		return "", fmt.Errorf("writing GPU event: %d bytes, want at most %d", len(text), maxEventBytes)
	}
	return text, nil
}

// Found returns the sequence of a config that asks for GPUs with what a log says of them, where it says that they were verified under the
// rule. It follows from no config.
func (s Sequence) Found(rule config.GPURule, log []Record) Sequence {
	for _, r := range log {
		if r.Kind == KindGPU && rule != config.GPUNone && strings.HasPrefix(string(r.Data), "verified "+string(rule)+" driver ") {
			s.GPU = string(r.Data)
			break
		}
	}
	return s
}
