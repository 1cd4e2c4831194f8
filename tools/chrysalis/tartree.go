package main

import (
	"archive/tar"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"
)

// tarTree is layers of tar files as a file system. Names are taken as they stand and never resolved through links.
type tarTree map[string]*tarEntry

type tarEntry struct {
	base     string
	mode     fs.FileMode
	link     string
	data     *io.SectionReader
	children []string
}

func (e *tarEntry) Name() string               { return e.base }
func (e *tarEntry) Mode() fs.FileMode          { return e.mode }
func (e *tarEntry) Type() fs.FileMode          { return e.mode.Type() }
func (e *tarEntry) IsDir() bool                { return e.mode.IsDir() }
func (e *tarEntry) ModTime() time.Time         { return time.Time{} }
func (e *tarEntry) Sys() any                   { return nil }
func (e *tarEntry) Info() (fs.FileInfo, error) { return e, nil }
func (e *tarEntry) Size() int64 {
	if e.data == nil {
		return 0
	}
	return e.data.Size()
}

func newTarTree() tarTree { return tarTree{".": {base: ".", mode: fs.ModeDir | 0o755}} }

// What the names of a layer's files begin with that say what is gone of the layers below: a name, or all that a folder has.
// OCI image specification, layer.md, "Whiteouts".
const (
	whiteout = ".wh."
	opaque   = whiteout + whiteout + ".opq"
)

// lay lays a layer over the tree: the tar that the file has at an offset.
func (t tarTree) lay(f *os.File, start, size int64) error {
	// What is gone is so before anything of the layer is there, wherever in the layer it stands.
	err := eachEntry(f, start, size, func(name string, h *tar.Header, _ int64) error {
		base, dir := path.Base(name), path.Dir(name)
		switch {
		case base == opaque:
			if e, ok := t[dir]; ok {
				t.forget(e.children)
				e.children = nil
			}
		case strings.HasPrefix(base, whiteout):
			t.remove(path.Join(dir, strings.TrimPrefix(base, whiteout)))
		}
		return nil
	})
	if err != nil {
		return err
	}
	laid := map[string]bool{}
	return eachEntry(f, start, size, func(name string, h *tar.Header, at int64) error {
		if strings.HasPrefix(path.Base(name), whiteout) {
			return nil
		}
		e := &tarEntry{base: path.Base(name), mode: h.FileInfo().Mode()}
		switch h.Typeflag {
		case tar.TypeReg:
			for key := range h.PAXRecords {
				if strings.HasPrefix(key, "GNU.sparse.") {
					return fmt.Errorf("entry %s is sparse, want its whole content", name)
				}
			}
			e.data = io.NewSectionReader(f, at, h.Size)
		case tar.TypeLink:
			target, ok := t[path.Clean(strings.TrimLeft(h.Linkname, "/"))]
			if !ok || target.IsDir() {
				return fmt.Errorf("entry %s is a hard link to %q, which stands nowhere before it", name, h.Linkname)
			}
			e.mode, e.link, e.data = target.mode, target.link, target.data
		case tar.TypeSymlink:
			e.link = h.Linkname
		case tar.TypeDir:
			if old, ok := t[name]; ok && old.IsDir() {
				old.mode = e.mode
				return nil
			}
		default:
			return fmt.Errorf("entry %s has type %q, want a file, a folder or a link", name, h.Typeflag)
		}
		if laid[name] {
			return fmt.Errorf("entry %s stands twice", name)
		}
		laid[name] = true
		t.remove(name)
		return t.add(name, e)
	})
}

// eachEntry calls do with each entry of a tar, by its clean name, and where in the file its content begins.
func eachEntry(f *os.File, start, size int64, do func(name string, h *tar.Header, at int64) error) error {
	section := io.NewSectionReader(f, start, size)
	r := tar.NewReader(section)
	for {
		h, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		name := path.Clean(strings.TrimLeft(h.Name, "/"))
		if !fs.ValidPath(name) {
			return fmt.Errorf("entry %q leaves the tree", h.Name)
		}
		if name == "." {
			continue
		}
		// The reader has just parsed the header, so the section stands at the content.
		at, err := section.Seek(0, io.SeekCurrent)
		if err != nil {
			return err
		}
		if err := do(name, h, start+at); err != nil {
			return err
		}
	}
}

// remove takes a name and all below it out of the tree, if it is there.
func (t tarTree) remove(name string) {
	if _, ok := t[name]; !ok || name == "." {
		return
	}
	t.forget([]string{name})
	parent := t[path.Dir(name)]
	parent.children = slices.DeleteFunc(parent.children, func(c string) bool { return c == name })
}

// forget takes names and all below them out of the tree, and leaves it to the caller that their folder no longer lists them.
func (t tarTree) forget(names []string) {
	for _, name := range names {
		t.forget(t[name].children)
		delete(t, name)
	}
}

func (t tarTree) add(name string, e *tarEntry) error {
	dir := path.Dir(name)
	parent, ok := t[dir]
	if !ok {
		parent = &tarEntry{base: path.Base(dir), mode: fs.ModeDir | 0o755}
		if err := t.add(dir, parent); err != nil {
			return err
		}
	}
	if !parent.IsDir() {
		return fmt.Errorf("entry %s lies below %s, which is not a folder", name, dir)
	}
	parent.children = append(parent.children, name)
	t[name] = e
	return nil
}

func (t tarTree) find(op, name string) (*tarEntry, error) {
	e, ok := t[name]
	if !ok {
		return nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
	}
	return e, nil
}

func (t tarTree) Lstat(name string) (fs.FileInfo, error) { return t.find("lstat", name) }
func (t tarTree) Stat(name string) (fs.FileInfo, error)  { return t.find("stat", name) }

func (t tarTree) ReadLink(name string) (string, error) {
	e, err := t.find("readlink", name)
	if err != nil {
		return "", err
	}
	return e.link, nil
}

func (t tarTree) ReadDir(name string) ([]fs.DirEntry, error) {
	e, err := t.find("readdir", name)
	if err != nil {
		return nil, err
	}
	slices.Sort(e.children)
	var entries []fs.DirEntry
	for _, child := range e.children {
		entries = append(entries, t[child])
	}
	return entries, nil
}

func (t tarTree) Open(name string) (fs.File, error) {
	e, err := t.find("open", name)
	if err != nil {
		return nil, err
	}
	f := &tarFile{entry: e}
	if e.data != nil {
		f.Reader = io.NewSectionReader(e.data, 0, e.data.Size())
	}
	return f, nil
}

type tarFile struct {
	io.Reader
	entry *tarEntry
}

func (f *tarFile) Stat() (fs.FileInfo, error) { return f.entry, nil }
func (f *tarFile) Close() error               { return nil }
func (f *tarFile) Read(p []byte) (int, error) {
	if f.Reader == nil {
		return 0, io.EOF
	}
	return f.Reader.Read(p)
}
