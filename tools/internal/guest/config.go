package guest

import (
	"bytes"
	"fmt"
	"os"
	"regexp"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"chrysalis/measure"
	"chrysalis/measure/config"
)

// ReadConfig reads a config as JSON, with white space as its author likes and lines of comments, which begin with //; "" is the platform's
// demo. Volumes that it does not name are those of the two files.
func ReadConfig(p measure.Platform, file, engine, model string) (config.Measured, error) {
	m := DemoConfigOn(p)
	if file != "" {
		data, err := os.ReadFile(file)
		if err != nil {
			return m, err
		}
		var parts struct {
			Identity config.Identity `json:"identity"`
			Service  config.Service  `json:"service"`
		}
		if err := json.Unmarshal(withoutComments(data), &parts, json.RejectUnknownMembers(true)); err != nil {
			return m, fmt.Errorf("reading config %s: %v", file, err)
		}
		m = config.Measured{Identity: parts.Identity, Service: parts.Service}
	}
	if m.Service.Custodian {
		_, err := m.Encode()
		return m, err
	}
	for _, v := range []struct {
		file string
		into *config.Volume
	}{{engine, &m.Service.Engine.Volume}, {model, &m.Service.Model.Volume}} {
		if *v.into != (config.Volume{}) {
			continue
		}
		var err error
		if *v.into, err = VolumeRef(v.file); err != nil {
			return m, fmt.Errorf("reading config: %w", err)
		}
	}
	_, err := m.Encode()
	return m, err
}

// withoutComments empties the lines that begin with //: no line of JSON does, for a string has no line's end in it.
func withoutComments(data []byte) []byte {
	lines := bytes.SplitAfter(data, []byte("\n"))
	for i, line := range lines {
		if bytes.HasPrefix(bytes.TrimLeft(line, " \t"), []byte("//")) {
			lines[i] = []byte("\n")
		}
	}
	return bytes.Join(lines, nil)
}

// A volume that is not named, before other members and after them.
var (
	firstVolume = regexp.MustCompile(`\s*"volume": \{\s*"root": "0{64}",\s*"blocks": 0\s*\},`)
	lastVolume  = regexp.MustCompile(`,\s*"volume": \{\s*"root": "0{64}",\s*"blocks": 0\s*\}`)
)

// WriteConfig returns a config as JSON that ReadConfig reads, without the volumes that it does not name.
func WriteConfig(m config.Measured) (string, error) {
	parts := struct {
		Identity config.Identity `json:"identity"`
		Service  config.Service  `json:"service"`
	}{m.Identity, m.Service}
	text, err := json.Marshal(parts, jsontext.WithIndent("  "))
	if err != nil {
		return "", fmt.Errorf("writing config: %w", err)
	}
	return string(lastVolume.ReplaceAll(firstVolume.ReplaceAll(text, nil), nil)) + "\n", nil
}
