package image

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/cavaliergopher/cpio"
	"github.com/erofs/go-erofs"

	"chrysalis/measure"
)

// Difference is one thing in which two releases differ.
type Difference struct {
	File string `json:"file"`           // of the release folder
	Path string `json:"path,omitempty"` // inside the root or the initrd
	Kind string `json:"kind"`           // missing, extra, mode, type, size, content, link, order
	A    string `json:"a,omitempty"`
	B    string `json:"b,omitempty"`
}

// CompareReleases compares two release folders byte for byte, and where they differ looks inside. Equal folders have no
// difference; a file that differs has at least one.
func CompareReleases(a, b string) ([]Difference, error) {
	var all []Difference
	for _, name := range append(measure.ReleaseFiles(), "manifest.json") {
		differences, err := compareFiles(name, filepath.Join(a, name), filepath.Join(b, name))
		if err != nil {
			return nil, fmt.Errorf("comparing releases: %w", err)
		}
		all = append(all, differences...)
	}
	return all, nil
}

func compareFiles(name, a, b string) ([]Difference, error) {
	inA, errA := os.ReadFile(a)
	inB, errB := os.ReadFile(b)
	switch {
	case errors.Is(errA, fs.ErrNotExist) && errors.Is(errB, fs.ErrNotExist):
		return nil, nil
	case errors.Is(errA, fs.ErrNotExist):
		return []Difference{{File: name, Kind: "extra"}}, nil
	case errors.Is(errB, fs.ErrNotExist):
		return []Difference{{File: name, Kind: "missing"}}, nil
	case errA != nil || errB != nil:
		return nil, errors.Join(errA, errB)
	}
	if bytes.Equal(inA, inB) {
		return nil, nil
	}
	var entriesA, entriesB map[string]found
	switch name {
	case "root.img":
		entriesA, errA = readRoot(inA)
		entriesB, errB = readRoot(inB)
	case "initrd":
		entriesA, errA = readInitrd(inA)
		entriesB, errB = readInitrd(inB)
	default:
		return []Difference{contentOf(name, "", inA, inB)}, nil
	}
	if errA != nil || errB != nil { // one of them is no such file: the bytes are what can be said
		return []Difference{contentOf(name, "", inA, inB)}, nil
	}
	inside := compareEntries(name, entriesA, entriesB)
	if len(inside) == 0 {
		at := firstDifference(inA, inB)
		inside = []Difference{{File: name, Kind: "order", A: fmt.Sprintf("the same entries, laid out differently from byte %d", at)}}
	}
	return inside, nil
}

// found is a file of the root or the initrd.
type found struct {
	mode fs.FileMode
	link string
	data []byte
}

func compareEntries(file string, a, b map[string]found) (all []Difference) {
	names := maps.Clone(a)
	maps.Copy(names, b)
	for _, path := range slices.Sorted(maps.Keys(names)) {
		x, inA := a[path]
		y, inB := b[path]
		switch {
		case !inB:
			all = append(all, Difference{File: file, Path: path, Kind: "missing"})
		case !inA:
			all = append(all, Difference{File: file, Path: path, Kind: "extra"})
		case x.mode.Type() != y.mode.Type():
			all = append(all, Difference{file, path, "type", x.mode.Type().String(), y.mode.Type().String()})
		case x.mode != y.mode:
			all = append(all, Difference{file, path, "mode", x.mode.String(), y.mode.String()})
		case x.link != y.link:
			all = append(all, Difference{file, path, "link", x.link, y.link})
		case !bytes.Equal(x.data, y.data):
			all = append(all, contentOf(file, path, x.data, y.data))
		}
	}
	return all
}

// contentOf says where the bytes part, and shows a few of each.
func contentOf(file, path string, a, b []byte) Difference {
	at := firstDifference(a, b)
	show := func(data []byte) string {
		return fmt.Sprintf("%d bytes; from byte %d: %q", len(data), at, data[at:min(at+16, len(data))])
	}
	return Difference{file, path, "content", show(a), show(b)}
}

func firstDifference(a, b []byte) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

func readRoot(image []byte) (map[string]found, error) {
	tree, err := erofs.Open(bytes.NewReader(image))
	if err != nil {
		return nil, err
	}
	entries := map[string]found{}
	err = fs.WalkDir(tree, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		e := found{mode: info.Mode()}
		switch {
		case e.mode.IsRegular():
			e.data, err = fs.ReadFile(tree, path)
		case e.mode.Type() == fs.ModeSymlink:
			e.link, err = fs.ReadLink(tree, path)
		}
		entries[path] = e
		return err
	})
	return entries, err
}

func readInitrd(archive []byte) (map[string]found, error) {
	entries := map[string]found{}
	for r := cpio.NewReader(bytes.NewReader(archive)); ; {
		header, err := r.Next()
		if err == io.EOF {
			return entries, nil
		}
		if err != nil {
			return nil, err
		}
		data, err := io.ReadAll(r)
		if err != nil {
			return nil, err
		}
		if _, twice := entries[header.Name]; twice {
			return nil, fmt.Errorf("%s stands in the archive twice", header.Name)
		}
		entries[header.Name] = found{mode: header.FileInfo().Mode(), link: header.Linkname, data: data}
	}
}
