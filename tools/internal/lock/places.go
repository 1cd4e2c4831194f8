package lock

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Places says where the bytes of packages may come from. None of them is trusted.
type Places struct {
	Cache    string              // folder of this machine; fetched packages are kept here by hash
	Store    string              // folder or base URL with a file per hash; "" is none. A folder is asked before the network
	Mirrors  map[string][]string // archive name to base URLs
	Snapshot string              // base URL of a snapshot service; "" is none
}

// codenames are the Debian suites by which an apt source is known to be a Debian mirror and not another distribution's.
var codenames = []string{"bullseye", "bookworm", "trixie", "forky", "duke", "sid", "oldstable", "stable", "testing", "unstable"}

// FindPlaces reads the machine's apt sources below etc (usually /etc/apt) and the variables DEBIAN_MIRROR,
// DEBIAN_SECURITY_MIRROR, DEBIAN_SNAPSHOT and CHRYSALIS_STORE, which take precedence.
func FindPlaces(etc, cache string, getenv func(string) string) (Places, error) {
	p := Places{Cache: cache, Store: getenv("CHRYSALIS_STORE"), Snapshot: getenv("DEBIAN_SNAPSHOT"), Mirrors: make(map[string][]string)}
	if mirror := getenv("DEBIAN_MIRROR"); mirror != "" {
		p.add(Debian, mirror)
		// Mirrors keep the security archive beside the main one under this name; a wrong guess is only a place without bytes.
		p.add(Security, cmp.Or(getenv("DEBIAN_SECURITY_MIRROR"), strings.TrimSuffix(mirror, "/")+"-security"))
		return p, nil
	}
	if mirror := getenv("DEBIAN_SECURITY_MIRROR"); mirror != "" {
		p.add(Security, mirror)
	}
	if err := p.readSources(etc); err != nil {
		return Places{}, fmt.Errorf("reading apt sources: %w", err)
	}
	if len(p.Mirrors[Security]) == 0 {
		for _, mirror := range p.Mirrors[Debian] {
			p.add(Security, mirror+"-security")
		}
	}
	return p, nil
}

// ErrNoMirror says that the machine names no Debian mirror.
var ErrNoMirror = errors.New("no Debian mirror in the machine's apt sources: set DEBIAN_MIRROR=http://HOST/debian (and " +
	"DEBIAN_SECURITY_MIRROR)")

// Base returns the first base URL of the archive.
func (p Places) Base(archive string) (string, error) {
	if len(p.Mirrors[archive]) == 0 {
		return "", ErrNoMirror
	}
	return p.Mirrors[archive][0], nil
}

func (p Places) add(archive, base string) {
	base = strings.TrimSuffix(base, "/")
	if !slices.Contains(p.Mirrors[archive], base) {
		p.Mirrors[archive] = append(p.Mirrors[archive], base)
	}
}

func (p Places) readSources(etc string) error {
	files := []string{filepath.Join(etc, "sources.list")}
	for _, pattern := range []string{"sources.list.d/*.list", "sources.list.d/*.sources"} {
		more, err := filepath.Glob(filepath.Join(etc, pattern))
		if err != nil {
			return err
		}
		files = append(files, more...)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if strings.HasSuffix(file, ".sources") {
			p.readDeb822(string(data))
		} else {
			p.readOneLine(string(data))
		}
	}
	return nil
}

// readOneLine reads lines such as: deb [option=value] URI SUITE COMPONENT…
func (p Places) readOneLine(text string) {
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), "deb ")
		if !ok {
			continue
		}
		rest = strings.TrimSpace(rest)
		if strings.HasPrefix(rest, "[") {
			_, rest, _ = strings.Cut(rest, "]")
		}
		if word := strings.Fields(rest); len(word) >= 2 {
			p.addSource(word[0], word[1])
		}
	}
}

func (p Places) readDeb822(text string) {
	var uris, suites []string
	var field *[]string
	enabled := true
	flush := func() {
		for _, uri := range uris {
			for _, suite := range suites {
				if enabled {
					p.addSource(uri, suite)
				}
			}
		}
		uris, suites, field, enabled = nil, nil, nil, true
	}
	for line := range strings.Lines(text + "\n\n") {
		line = strings.TrimRight(line, "\r\n")
		switch name, value, ok := strings.Cut(line, ":"); {
		case strings.HasPrefix(line, "#"):
		case strings.TrimSpace(line) == "":
			flush()
		case strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t"):
			if field != nil {
				*field = append(*field, strings.Fields(line)...)
			}
		case ok:
			field = nil
			switch strings.ToLower(name) {
			case "uris":
				uris, field = strings.Fields(value), &uris
			case "suites":
				suites, field = strings.Fields(value), &suites
			case "enabled":
				enabled = strings.TrimSpace(value) != "no"
			}
		}
	}
	flush()
}

// addSource takes a source that is a Debian archive. A list of mirrors in a local file counts as its members.
func (p Places) addSource(uri, suite string) {
	name, rest, _ := strings.Cut(suite, "-")
	if !slices.Contains(codenames, strings.TrimSuffix(name, "/updates")) {
		return
	}
	archive := Debian
	if rest == "security" || strings.HasSuffix(name, "/updates") {
		archive = Security
	}
	if file, ok := strings.CutPrefix(uri, "mirror+file:"); ok {
		f, err := os.Open(filepath.Clean("/" + strings.TrimLeft(file, "/")))
		if err != nil {
			return // a list that is not there offers no mirror
		}
		defer f.Close()
		for s := bufio.NewScanner(f); s.Scan(); {
			if word := strings.Fields(s.Text()); len(word) > 0 && isHTTP(word[0]) {
				p.add(archive, word[0])
			}
		}
		return
	}
	if isHTTP(uri) {
		p.add(archive, uri)
	}
}

func isHTTP(uri string) bool {
	return strings.HasPrefix(uri, "http://") || strings.HasPrefix(uri, "https://")
}
