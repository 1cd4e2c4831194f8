package guest

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"chrysalis/measure"
	"chrysalis/measure/config"
)

// ReadConfig reads a config as JSON, with white space as its author likes and lines of comments, which begin with //; "" is the platform's
// demo. Volumes that it does not name are those of the two files, or the volumes themselves where ROOT/BLOCKS stands in a file's place.
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
	if n := len(m.Service.Models); n > 0 {
		return m, fmt.Errorf("reading config: %d models, want engine and model: a guest of several is not started from here", n)
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
		if *v.into, err = namedVolume(v.file); err != nil {
			return m, fmt.Errorf("reading config: %w", err)
		}
	}
	_, err := m.Encode()
	return m, err
}

// namedVolume takes a volume as config.Volume writes it, or a volume's file.
func namedVolume(text string) (v config.Volume, err error) {
	root, blocks, ok := strings.Cut(text, "/")
	if !ok || len(root) != 2*len(v.Root) || v.Root.UnmarshalText([]byte(root)) != nil {
		return VolumeRef(text)
	}
	v.Blocks, err = strconv.ParseUint(blocks, 10, 64)
	if err != nil || v.String() != text {
		return config.Volume{}, fmt.Errorf("volume %q: want ROOT/BLOCKS", text)
	}
	return v, nil
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
