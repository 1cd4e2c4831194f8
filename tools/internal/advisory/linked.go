package advisory

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Names are those of the functions in a Go program, as its runtime needs them for stack traces: also of functions that the compiler has
// put into others, and in a program without symbols. A function that is not among them was not linked, or is so small that of it no
// instruction of its own is left where it was put into another.
type Names []byte

// NamesOf returns the names of a program for Linux.
func NamesOf(program []byte) (Names, error) {
	f, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		return nil, fmt.Errorf("reading program: %w", err)
	}
	s := f.Section(".gopclntab")
	if s == nil {
		return nil, errors.New("reading program: no table of functions (.gopclntab)")
	}
	if s.Size > uint64(len(program)) {
		return nil, fmt.Errorf("reading program: its table of functions has %d bytes, and it has %d", s.Size, len(program))
	}
	data, err := s.Data()
	if err != nil {
		return nil, fmt.Errorf("reading program: %w", err)
	}
	if !Names(data).begins("runtime.main", ends) {
		return nil, errors.New("reading program: its table of functions does not have runtime.main")
	}
	return data, nil
}

// Linked returns which of the functions that a vulnerability concerns are in the program, and reports whether any is; of a whole package
// or module the words are their own. What concerns other systems alone is not in it.
func (n Names) Linked(v GoFinding) (linked []string, any bool) {
	if len(v.Imports) == 0 {
		return []string{"the whole module"}, true
	}
	for _, i := range v.Imports {
		if len(i.GOOS) > 0 && !slices.Contains(i.GOOS, "linux") || len(i.GOARCH) > 0 && !slices.Contains(i.GOARCH, "amd64") {
			continue
		}
		of := symbolPrefix(i.Path)
		if len(i.Symbols) == 0 {
			if n.begins(of+".", "") {
				linked = append(linked, i.Path)
			}
			continue
		}
		for _, symbol := range i.Symbols {
			receiver, method, is := strings.Cut(symbol, ".")
			// Of a method of a generic type the type alone is looked for: what stands between is any text.
			if n.begins(of+"."+symbol, ends) || is && (n.begins(of+".(*"+receiver+")."+method, ends) || n.begins(of+"."+receiver+"[", "") || n.begins(of+".(*"+receiver+"[", "")) {
				linked = append(linked, i.Path+"."+symbol)
			}
		}
	}
	return linked, len(linked) > 0
}

// ends are the characters behind the name of a function: its end, a closure in it, a method value, or the types that it is for.
const ends = "\x00.-["

// begins reports whether the name of a function begins so, and goes on with one of the characters; "" is any.
func (n Names) begins(name, next string) bool {
	for rest := []byte(n); ; {
		at := bytes.Index(rest, []byte(name))
		if at < 0 {
			return false
		}
		end := at + len(name)
		if (at == 0 || rest[at-1] < ' ') && (next == "" || end < len(rest) && strings.IndexByte(next, rest[end]) >= 0) {
			return true
		}
		rest = rest[at+1:]
	}
}

// symbolPrefix is a package's path as the linker writes it: what is behind the last slash has no dot, quote or per cent sign of its own.
func symbolPrefix(path string) string {
	slash := strings.LastIndexByte(path, '/') + 1
	return path[:slash] + strings.NewReplacer("%", "%25", ".", "%2e", `"`, "%22").Replace(path[slash:])
}
