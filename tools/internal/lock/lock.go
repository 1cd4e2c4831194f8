// Package lock holds what the build takes from Debian: which packages, by SHA-256, and where their bytes come from.
//
// A lock is a text file of stanzas as in an apt Packages file. The first stanza is the header:
//
//	Lock: NAME
//	Request:
//	 PACKAGE or apt pattern, one a line; a * stands for the newest text that there is, the same in every line
//	Alone: yes                     if what the packages depend on is left out
//	Archives:
//	 ARCHIVE SUITE DATE SHA256     of the InRelease file that vouched for the hashes when the lock was made
//
// Each further stanza is a package: a fixed choice of the fields of its Packages stanza in a fixed order, then
// X-Archive, the archive whose pool holds it. There is one encoding: Parse refuses what Bytes would not write.
//
// The hashes decide, never the place: Fetch takes a package from whichever place has bytes with the right hash. A lock
// does not say that its packages are good, only that everyone builds from the same ones.
package lock

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	maxLockBytes    = 4 << 20
	maxPackages     = 4096
	maxPackageBytes = 512 << 20
)

// Archives that a lock may name.
const (
	Debian   = "debian"
	Security = "debian-security"
)

// fields are the kept fields of a package in their order; the first five of required must be there. Maintainers, tags and
// home pages are left out: they change without the package and say nothing to apt.
var (
	fields = []string{"Package", "Source", "Version", "Architecture", "Multi-Arch", "Essential", "Protected", "Priority",
		"Section", "Installed-Size", "Provides", "Pre-Depends", "Depends", "Conflicts", "Breaks", "Replaces",
		"Filename", "Size", "SHA256", "X-Archive"}
	required = []string{"Package", "Version", "Architecture", "Filename", "Size", "SHA256", "X-Archive"}
)

// Release is the dated, signed index of one suite that vouched for the hashes when the lock was made.
type Release struct {
	Archive, Suite string
	Date           time.Time
	InRelease      [32]byte // SHA-256 of the InRelease file
}

// Package is one locked package.
type Package struct {
	Name, Version, Architecture string
	Archive                     string // Debian or Security
	Filename                    string // pool path below the archive's root
	Size                        int64
	SHA256                      [32]byte

	values map[string]string
}

// Lock is a parsed lock file.
type Lock struct {
	Name     string
	Request  []string
	Alone    bool // the requested packages without what they depend on: they run over the tools tree, or are no programs
	Releases []Release
	Packages []Package // sorted by name, then architecture
}

// Parse reads a lock file.
func Parse(data []byte) (Lock, error) {
	if len(data) > maxLockBytes {
		return Lock{}, fmt.Errorf("parsing lock: file is %d bytes, want at most %d", len(data), maxLockBytes)
	}
	var l Lock
	for i, text := range strings.Split(strings.TrimSuffix(string(data), "\n"), "\n\n") {
		values, err := parseStanza(text)
		if err != nil {
			return Lock{}, fmt.Errorf("parsing lock: stanza %d: %w", i, err)
		}
		if i == 0 {
			err = l.parseHeader(values)
		} else {
			var p Package
			if p, err = newPackage(values); err == nil {
				l.Packages = append(l.Packages, p)
			}
		}
		if err != nil {
			return Lock{}, fmt.Errorf("parsing lock: stanza %d: %w", i, err)
		}
	}
	if len(l.Packages) > maxPackages {
		return Lock{}, fmt.Errorf("parsing lock: %d packages, want at most %d", len(l.Packages), maxPackages)
	}
	for i := 1; i < len(l.Packages); i++ {
		if order(l.Packages[i-1], l.Packages[i]) >= 0 {
			return Lock{}, fmt.Errorf("parsing lock: package %s stands after %s, want each once and sorted", l.Packages[i].Name,
				l.Packages[i-1].Name)
		}
	}
	if again := l.Bytes(); !bytes.Equal(again, data) {
		return Lock{}, fmt.Errorf("parsing lock: %d bytes are not the one encoding of their content (%d bytes)", len(data), len(again))
	}
	return l, nil
}

func order(a, b Package) int {
	return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Architecture, b.Architecture))
}

// parseStanza splits a stanza into its fields. A value with continuation lines keeps its line breaks.
func parseStanza(text string) (map[string]string, error) {
	values := make(map[string]string)
	last := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, " ") && last != "" {
			values[last] += "\n" + line
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || name == "" || strings.ContainsAny(name, " \t") {
			return nil, fmt.Errorf("line %q is no field", line)
		}
		if _, twice := values[name]; twice {
			return nil, fmt.Errorf("field %s stands twice", name)
		}
		values[name] = strings.TrimPrefix(value, " ")
		last = name
	}
	return values, nil
}

func (l *Lock) parseHeader(values map[string]string) error {
	for name := range values {
		if name != "Lock" && name != "Request" && name != "Alone" && name != "Archives" {
			return fmt.Errorf("header has field %q, want Lock, Request, Alone, Archives", name)
		}
	}
	alone, said := values["Alone"]
	if l.Alone = said; said && alone != "yes" {
		return fmt.Errorf("header has Alone: %q, want yes", alone)
	}
	l.Name = values["Lock"]
	l.Request = strings.Fields(values["Request"])
	if l.Name == "" || len(l.Request) == 0 {
		return fmt.Errorf("header has lock %q and %d requests, want both", l.Name, len(l.Request))
	}
	for line := range strings.Lines(values["Archives"]) {
		word := strings.Fields(line)
		if len(word) == 0 {
			continue
		}
		if len(word) != 4 {
			return fmt.Errorf("archive line has %d words, want 4", len(word))
		}
		r := Release{Archive: word[0], Suite: word[1]}
		var err error
		if r.Date, err = time.Parse(time.RFC3339, word[2]); err != nil {
			return fmt.Errorf("archive %s %s: %w", r.Archive, r.Suite, err)
		}
		if r.InRelease, err = parseHash(word[3]); err != nil {
			return fmt.Errorf("archive %s %s: %w", r.Archive, r.Suite, err)
		}
		l.Releases = append(l.Releases, r)
	}
	return nil
}

// newPackage checks the values of a stanza and keeps them. Whether the stanza holds other fields is for the caller of Parse
// to see: the lock's one encoding has none.
func newPackage(values map[string]string) (Package, error) {
	for _, name := range required {
		if values[name] == "" {
			return Package{}, fmt.Errorf("package %q has no %s", values["Package"], name)
		}
	}
	p := Package{Name: values["Package"], Version: values["Version"], Architecture: values["Architecture"],
		Archive: values["X-Archive"], Filename: values["Filename"], values: make(map[string]string)}
	for _, name := range fields {
		if v, ok := values[name]; ok {
			p.values[name] = v
		}
	}
	if p.Archive != Debian && p.Archive != Security {
		return Package{}, fmt.Errorf("package %s: archive %q, want %s or %s", p.Name, p.Archive, Debian, Security)
	}
	// The pool path becomes part of a URL and of a local path.
	if !strings.HasPrefix(p.Filename, "pool/") || strings.Contains(p.Filename, "..") || strings.ContainsAny(p.Filename, "?#%\\ ") {
		return Package{}, fmt.Errorf("package %s: file name %q is no pool path", p.Name, p.Filename)
	}
	var err error
	if p.Size, err = strconv.ParseInt(values["Size"], 10, 64); err != nil || p.Size <= 0 || p.Size > maxPackageBytes ||
		strconv.FormatInt(p.Size, 10) != values["Size"] {
		return Package{}, fmt.Errorf("package %s: size %q, want 1 to %d", p.Name, values["Size"], maxPackageBytes)
	}
	if p.SHA256, err = parseHash(values["SHA256"]); err != nil {
		return Package{}, fmt.Errorf("package %s: %w", p.Name, err)
	}
	return p, nil
}

func parseHash(s string) (sum [32]byte, err error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(sum) || strings.ToLower(s) != s {
		return sum, fmt.Errorf("hash %q, want 64 hex digits in lower case", s)
	}
	return [32]byte(b), nil
}

// Bytes encodes the lock.
func (l Lock) Bytes() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "Lock: %s\nRequest:\n", l.Name)
	for _, r := range l.Request {
		fmt.Fprintf(&b, " %s\n", r)
	}
	if l.Alone {
		fmt.Fprintf(&b, "Alone: yes\n")
	}
	if len(l.Releases) > 0 {
		fmt.Fprintf(&b, "Archives:\n")
	}
	for _, r := range l.Releases {
		fmt.Fprintf(&b, " %s %s %s %x\n", r.Archive, r.Suite, r.Date.UTC().Format(time.RFC3339), r.InRelease)
	}
	for _, p := range l.Packages {
		b.WriteByte('\n')
		p.encode(&b, fields)
	}
	return b.Bytes()
}

func (p Package) encode(b *bytes.Buffer, names []string) {
	for _, name := range names {
		if v, ok := p.values[name]; ok {
			fmt.Fprintf(b, "%s: %s\n", name, v)
		}
	}
}

// Source returns name and version of the package's source package, after which changelogs and advisories are filed.
func (p Package) Source() (name, version string) {
	name, version = p.Name, p.Version
	if field := p.values["Source"]; field != "" {
		name = field
		if bare, rest, ok := strings.Cut(field, " ("); ok {
			name, version = bare, strings.TrimSuffix(rest, ")")
		}
	}
	return name, version
}

// Digest names the lock's content.
func (l Lock) Digest() [32]byte { return sha256.Sum256(l.Bytes()) }

// Package returns the package of that name.
func (l Lock) Package(name string) (Package, error) {
	i := slices.IndexFunc(l.Packages, func(p Package) bool { return p.Name == name })
	if i < 0 {
		return Package{}, fmt.Errorf("lock %s has no package %s", l.Name, name)
	}
	return l.Packages[i], nil
}
