package release

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"chrysalis/measure/register"
)

// ContentsFormat names the one format of contents.json.
const ContentsFormat = "chrysalis contents v1"

const (
	maxContentsBytes = 8 << 20
	maxContentsFiles = 1 << 16
)

// Contents lists the files of a release with their owners.
type Contents struct {
	Format   string    `json:"format"`
	Files    []File    `json:"files"`    // sorted by file, then path
	Packages []Package `json:"packages"` // those that own a file or are linked into a program, sorted by name
	Programs []Program `json:"programs"` // the Go programs among the files, sorted like them
}

// File is a file of the release folder, or of the root or initrd in it.
type File struct {
	File   string          `json:"file"`           // of the folder
	Path   string          `json:"path,omitempty"` // inside File; "" is File itself
	Mode   string          `json:"mode"`           // as ls prints it; in the folder every file is 0644
	Size   int64           `json:"size"`
	SHA256 register.Digest `json:"sha256,omitzero"` // zeros for what has no content
	Link   string          `json:"link,omitempty"`
	From   Origin          `json:"from"`
}

// Origin says where a file comes from.
type Origin struct {
	Kind string `json:"kind"`
	Name string `json:"name,omitempty"` // package, main package of a program, or path in the source tree
}

// Kinds of origin.
const (
	FromPackage = "package"   // shipped by the Debian package Name
	FromScript  = "script"    // made by the installation script of the Debian package Name
	FromGo      = "go"        // built from the main package Name
	FromSource  = "source"    // the file Name of the source tree
	FromBuild   = "assembled" // put together by the build: an archive, a volume, a mount point
)

func (o Origin) String() string {
	switch o.Kind {
	case FromPackage:
		return "package " + o.Name
	case FromScript:
		return "installation script of package " + o.Name
	case FromGo:
		return "Go program " + o.Name
	case FromSource:
		return "source file " + o.Name
	}
	return "assembled by the build"
}

// Package is a Debian package that owns files of the release, or is linked into its programs.
type Package struct {
	Name          string          `json:"name"`
	Version       string          `json:"version"`
	Architecture  string          `json:"architecture"`
	Source        string          `json:"source"`
	SourceVersion string          `json:"source_version"`
	Lock          string          `json:"lock"` // image, firmware or tools
	SHA256        register.Digest `json:"sha256"`
}

// Program is what the Go linker wrote into a program about its build.
type Program struct {
	File     string   `json:"file"`
	Path     string   `json:"path"`
	Go       string   `json:"go"`
	Main     string   `json:"main"`
	Module   Module   `json:"module"`
	Settings []string `json:"settings"`         // KEY=VALUE, as the linker wrote them
	Modules  []Module `json:"modules"`          // as the linker wrote them
	Linked   []string `json:"linked,omitempty"` // Debian packages whose static libraries are in it
}

// Module is a Go module. Sum is that of go.sum; the main module has none.
type Module struct {
	Path    string `json:"path"`
	Version string `json:"version"`
	Sum     string `json:"sum,omitempty"`
}

// EncodeContents checks the contents and returns their one encoding.
func EncodeContents(c Contents) ([]byte, error) {
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("encoding contents: %w", err)
	}
	b, err := json.Marshal(c, json.Deterministic(true), jsontext.WithIndent(" "))
	if err != nil {
		return nil, fmt.Errorf("encoding contents: %w", err)
	}
	return append(b, '\n'), nil
}

// DecodeContents reads contents.json: no unknown or repeated members, no encoding but the one that EncodeContents writes.
func DecodeContents(data []byte) (Contents, error) {
	if len(data) > maxContentsBytes {
		return Contents{}, fmt.Errorf("decoding contents: %d bytes, want at most %d", len(data), maxContentsBytes)
	}
	var c Contents
	if err := json.Unmarshal(data, &c, json.RejectUnknownMembers(true)); err != nil {
		return Contents{}, fmt.Errorf("decoding contents: %w", err)
	}
	again, err := EncodeContents(c)
	if err != nil {
		return Contents{}, fmt.Errorf("decoding contents: %w", err)
	}
	if !bytes.Equal(again, data) {
		return Contents{}, errors.New("decoding contents: the bytes are not the one encoding of their content")
	}
	return c, nil
}

func (c Contents) check() error {
	if c.Format != ContentsFormat {
		return fmt.Errorf("format is %q, want %q", c.Format, ContentsFormat)
	}
	if n := len(c.Files); n == 0 || n > maxContentsFiles {
		return fmt.Errorf("%d files, want 1 to %d", n, maxContentsFiles)
	}
	packages := map[string]bool{}
	for i, p := range c.Packages {
		if p.Name == "" || p.Version == "" || p.Source == "" || p.SourceVersion == "" || p.Lock == "" {
			return fmt.Errorf("package %d (%q) lacks name, version, source or lock", i, p.Name)
		}
		if i > 0 && c.Packages[i-1].Name >= p.Name {
			return fmt.Errorf("package %s stands after %s, want each once and sorted", p.Name, c.Packages[i-1].Name)
		}
		packages[p.Name] = true
	}
	for i, f := range c.Files {
		if f.File == "" || f.Mode == "" || f.Size < 0 {
			return fmt.Errorf("file %d has name %q, mode %q and %d bytes", i, f.File, f.Mode, f.Size)
		}
		if i > 0 && orderFiles(c.Files[i-1], f) >= 0 {
			return fmt.Errorf("file %s stands after %s, want each once and sorted", f.where(), c.Files[i-1].where())
		}
		switch f.From.Kind {
		case FromPackage, FromScript:
			if !packages[f.From.Name] {
				return fmt.Errorf("file %s is of package %q, which is not described", f.where(), f.From.Name)
			}
		case FromGo, FromSource:
			if f.From.Name == "" {
				return fmt.Errorf("file %s is of an unnamed %s", f.where(), f.From.Kind)
			}
		case FromBuild:
			if f.From.Name != "" {
				return fmt.Errorf("file %s is assembled, yet from %q", f.where(), f.From.Name)
			}
		default:
			return fmt.Errorf("file %s is from %q", f.where(), f.From.Kind)
		}
	}
	for i, p := range c.Programs {
		f, ok := c.find(p.File, p.Path)
		if !ok || f.From.Kind != FromGo {
			return fmt.Errorf("program %d is %s: %s, which is no Go program among the files", i, p.File, p.Path)
		}
		if i > 0 && cmp.Or(cmp.Compare(c.Programs[i-1].File, p.File), cmp.Compare(c.Programs[i-1].Path, p.Path)) >= 0 {
			return fmt.Errorf("program %s: %s stands out of order or twice", p.File, p.Path)
		}
		for _, name := range p.Linked {
			if !packages[name] {
				return fmt.Errorf("program %s links package %q, which is not described", p.Path, name)
			}
		}
	}
	return nil
}

func (f File) where() string {
	if f.Path == "" {
		return f.File
	}
	return f.File + ": " + f.Path
}

func orderFiles(a, b File) int {
	return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Path, b.Path))
}

func (c Contents) find(file, path string) (File, bool) {
	i, ok := slices.BinarySearchFunc(c.Files, File{File: file, Path: path}, orderFiles)
	if !ok {
		return File{}, false
	}
	return c.Files[i], true
}

// Owner says in words who owns a file; "" if the contents do not list it.
func (c Contents) Owner(file, path string) string {
	f, ok := c.find(file, path)
	if !ok {
		return ""
	}
	text := f.From.String()
	if f.From.Kind == FromPackage || f.From.Kind == FromScript {
		for _, p := range c.Packages {
			if p.Name == f.From.Name {
				text += " " + p.Version
			}
		}
	}
	return text
}
