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

// ReadConfig is ReadConfigOf the volumes of one model.
func ReadConfig(p measure.Platform, file, engine, model string) (config.Measured, error) {
	return ReadConfigOf(p, file, []Volumes{{engine, model}})
}

// ReadConfigOf reads a config as JSON, with white space as its author likes and lines of comments, which begin with //; "" is the platform's
// demo. Volumes that it does not name are those of the files, a pair for each model in its order, or the volumes themselves where ROOT/BLOCKS stands in
// a file's place.
func ReadConfigOf(p measure.Platform, file string, files []Volumes) (config.Measured, error) {
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
	type pair struct{ engine, model *config.Volume }
	pairs := []pair{{&m.Service.Engine.Volume, &m.Service.Model.Volume}}
	if len(m.Service.Models) > 0 {
		pairs = nil
	}
	for i := range m.Service.Models {
		served := &m.Service.Models[i]
		pairs = append(pairs, pair{&served.Engine.Volume, &served.Model.Volume})
	}
	for i, p := range pairs {
		if (*p.engine != config.Volume{}) && (*p.model != config.Volume{}) {
			continue
		}
		if len(files) != len(pairs) {
			return m, fmt.Errorf("reading config: it has %d models and names not all volumes, and those of %d are given: want as many, in the config's order", len(pairs), len(files))
		}
		for _, v := range []struct {
			file string
			into *config.Volume
		}{{files[i].Engine, p.engine}, {files[i].Model, p.model}} {
			if *v.into != (config.Volume{}) {
				continue
			}
			var err error
			if *v.into, err = namedVolume(v.file); err != nil {
				return m, fmt.Errorf("reading config: %w", err)
			}
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
