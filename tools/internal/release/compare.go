package release

import (
	"bytes"
	"cmp"
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
	File  string `json:"file"`            // of the release folder
	Path  string `json:"path,omitempty"`  // inside the root or the initrd
	Kind  string `json:"kind"`            // missing, extra, type, mode, owner, time, link, content, order
	Bytes string `json:"bytes,omitempty"` // which bytes of the file at Path, or of File where Path is empty
	A     string `json:"a,omitempty"`
	B     string `json:"b,omitempty"`
	FromA string `json:"from_a,omitempty"` // who owns it in A, as A's contents.json says
	FromB string `json:"from_b,omitempty"`
}

// Where names the file that differs.
func (d Difference) Where() string {
	if d.Path == "" {
		return d.File
	}
	return d.File + ": " + d.Path
}

// Compare compares two release folders byte for byte, and where they differ looks inside. Equal folders have no difference; a
// file that differs has at least one.
func Compare(a, b string) ([]Difference, error) {
	var all []Difference
	names := slices.Concat(measure.ReleaseFiles(), measure.ReleaseDocuments(), []string{ManifestName, ProvenanceName})
	for _, dir := range []string{a, b} { // two folders without a release are not two equal releases
		if !slices.ContainsFunc(names, func(name string) bool { _, err := os.Stat(filepath.Join(dir, name)); return err == nil }) {
			return nil, fmt.Errorf("comparing releases: %s holds no file of a release", dir)
		}
	}
	for _, name := range names {
		differences, err := compareFiles(name, filepath.Join(a, name), filepath.Join(b, name))
		if err != nil {
			return nil, fmt.Errorf("comparing releases: %w", err)
		}
		all = append(all, differences...)
	}
	if len(all) > 0 {
		ownersA, ownersB := readContents(a), readContents(b)
		for i := range all {
			all[i].FromA, all[i].FromB = ownersA.Owner(all[i].File, all[i].Path), ownersB.Owner(all[i].File, all[i].Path)
		}
	}
	return all, nil
}

// readContents reads who owns what. The contents are a help and no proof here: a folder without them is compared all the same.
func readContents(dir string) Contents {
	data, err := os.ReadFile(filepath.Join(dir, ContentsName))
	if err != nil {
		return Contents{}
	}
	c, err := DecodeContents(data)
	if err != nil {
		return Contents{}
	}
	return c
}

// inside returns the function that lists what an archive of the release holds; nil for other files.
func inside(name string) func([]byte) (map[string]found, error) {
	switch name {
	case "root.img":
		return readRoot
	case "initrd":
		return readInitrd
	}
	return nil
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
	open := inside(name)
	if open == nil {
		return []Difference{contentOf(name, "", inA, inB)}, nil
	}
	entriesA, errA := open(inA)
	entriesB, errB := open(inB)
	if errA != nil || errB != nil { // one of them is no such file: the bytes are what can be said
		return []Difference{contentOf(name, "", inA, inB)}, nil
	}
	differences := compareEntries(name, entriesA, entriesB)
	if len(differences) == 0 {
		differences = []Difference{{File: name, Kind: "order", Bytes: DifferingBytes(inA, inB), A: "the same entries",
			B: "the same entries, laid out differently"}}
	}
	return differences, nil
}

// found is a file of the root or the initrd.
type found struct {
	mode  fs.FileMode
	owner string // uid:gid
	time  int64  // of its content, in nanoseconds of Unix time
	link  string
	data  []byte
	order int64 // its place in the archive, or its inode's in the volume
}

func compareEntries(file string, a, b map[string]found) (all []Difference) {
	names := maps.Clone(a)
	maps.Copy(names, b)
	for _, path := range slices.Sorted(maps.Keys(names)) {
		x, inA := a[path]
		y, inB := b[path]
		add := func(kind, was, is string) {
			all = append(all, Difference{File: file, Path: path, Kind: kind, A: was, B: is})
		}
		switch {
		case !inB:
			add("missing", "", "")
			continue
		case !inA:
			add("extra", "", "")
			continue
		case x.mode.Type() != y.mode.Type():
			add("type", x.mode.Type().String(), y.mode.Type().String())
			continue
		}
		if x.mode != y.mode {
			add("mode", x.mode.String(), y.mode.String())
		}
		if x.owner != y.owner {
			add("owner", x.owner, y.owner)
		}
		if x.time != y.time {
			add("time", instant(x.time), instant(y.time))
		}
		if x.link != y.link {
			add("link", x.link, y.link)
		}
		if !bytes.Equal(x.data, y.data) {
			all = append(all, contentOf(file, path, x.data, y.data))
		}
	}
	// Places are compared among the names that both have: a file more is no other order of the rest.
	if at := firstDisorder(a, b); at != "" {
		all = append(all, Difference{File: file, Path: at, Kind: "order", A: fmt.Sprintf("entry %d", a[at].order),
			B: fmt.Sprintf("entry %d", b[at].order)})
	}
	return all
}

// firstDisorder returns the first name of a that b has at another place among the names of both, or "".
func firstDisorder(a, b map[string]found) string {
	sorted := func(x, other map[string]found) []string {
		var names []string
		for name := range x {
			if _, ok := other[name]; ok {
				names = append(names, name)
			}
		}
		slices.SortFunc(names, func(p, q string) int { return cmp.Or(cmp.Compare(x[p].order, x[q].order), cmp.Compare(p, q)) })
		return names
	}
	inA, inB := sorted(a, b), sorted(b, a)
	for i := range inA {
		if inA[i] != inB[i] {
			return inA[i]
		}
	}
	return ""
}

func instant(ns int64) string { return fmt.Sprintf("%d.%09d", ns/1e9, ns%1e9) }

// contentOf says where the bytes part, and shows a few of each.
func contentOf(file, path string, a, b []byte) Difference {
	at := firstDifference(a, b)
	show := func(data []byte) string {
		return fmt.Sprintf("%d bytes; from byte %d: %q", len(data), at, data[at:min(at+16, len(data))])
	}
	return Difference{File: file, Path: path, Kind: "content", Bytes: DifferingBytes(a, b), A: show(a), B: show(b)}
}

// DifferingBytes says which bytes differ: the first, the last, and how many in between, comparing byte by byte at the same place.
func DifferingBytes(a, b []byte) string {
	n := min(len(a), len(b))
	first, last, count := -1, -1, 0
	for i := range n {
		if a[i] != b[i] {
			if first < 0 {
				first = i
			}
			last, count = i, count+1
		}
	}
	text := "none of the common bytes"
	if count > 0 {
		text = fmt.Sprintf("%d of %d, from byte %d to byte %d", count, n, first, last)
	}
	if len(a) != len(b) {
		text += fmt.Sprintf(", and one is %d bytes longer", max(len(a), len(b))-n)
	}
	return text
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
		if st, ok := info.Sys().(*erofs.Stat); ok {
			e.owner, e.time = fmt.Sprintf("%d:%d", st.UID, st.GID), int64(st.Mtime)*1e9+int64(st.MtimeNs)
			e.order = st.Ino
			e.mode = st.Mode // FileInfo has set-user-ID where no Go program looks for it
		}
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
		e := found{mode: header.FileInfo().Mode(), owner: fmt.Sprintf("%d:%d", header.Uid, header.Guid), link: header.Linkname, data: data,
			order: int64(len(entries))}
		if !header.ModTime.IsZero() {
			e.time = header.ModTime.UnixNano()
		}
		entries[header.Name] = e
	}
}
