package main

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
)

// ociTree flattens the one image of an OCI layout. The flattened tar lies in an unnamed temporary file and is read in
// place: extracting it would need root for its owners, and would follow its links.
func ociTree(dir string) (fs.FS, func() error, error) {
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("reading OCI layout: %w", err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return nil, nil, fmt.Errorf("reading OCI layout: %w", err)
	}
	if n := len(manifest.Manifests); n != 1 {
		return nil, nil, fmt.Errorf("reading OCI layout: it holds %d images, want one", n)
	}
	img, err := index.Image(manifest.Manifests[0].Digest)
	if err != nil {
		return nil, nil, fmt.Errorf("reading OCI layout: %w", err)
	}
	spool, err := os.CreateTemp("", "chrysalis-oci-*")
	if err != nil {
		return nil, nil, err
	}
	if err := os.Remove(spool.Name()); err != nil {
		return nil, nil, errors.Join(err, spool.Close())
	}
	flat := mutate.Extract(img)
	_, err = io.Copy(spool, flat)
	if err = errors.Join(err, flat.Close()); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("flattening image: %w", err), spool.Close())
	}
	tree, err := newTarTree(spool)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("flattening image: %w", err), spool.Close())
	}
	return tree, spool.Close, nil
}

// tarTree is a tar file as a file system. Names are taken as they stand and never resolved through links.
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

func newTarTree(f *os.File) (tarTree, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	t := tarTree{".": {base: ".", mode: fs.ModeDir | 0o755}}
	r := tar.NewReader(f)
	for {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		name := path.Clean(strings.TrimLeft(h.Name, "/"))
		if !fs.ValidPath(name) {
			return nil, fmt.Errorf("entry %q leaves the tree", h.Name)
		}
		if name == "." {
			continue
		}
		e := &tarEntry{base: path.Base(name), mode: h.FileInfo().Mode()}
		switch h.Typeflag {
		case tar.TypeReg:
			// The reader has just parsed the header, so the file stands at the content.
			at, err := f.Seek(0, io.SeekCurrent)
			if err != nil {
				return nil, err
			}
			e.data = io.NewSectionReader(f, at, h.Size)
		case tar.TypeLink:
			target, ok := t[path.Clean(strings.TrimLeft(h.Linkname, "/"))]
			if !ok || target.IsDir() {
				return nil, fmt.Errorf("entry %s is a hard link to %q, which stands nowhere before it", name, h.Linkname)
			}
			e.mode, e.link, e.data = target.mode, target.link, target.data
		case tar.TypeSymlink:
			e.link = h.Linkname
		case tar.TypeDir:
			if old, ok := t[name]; ok && old.IsDir() {
				continue
			}
		default:
			return nil, fmt.Errorf("entry %s has type %q, want a file, a folder or a link", name, h.Typeflag)
		}
		if err := t.add(name, e); err != nil {
			return nil, err
		}
	}
	return t, nil
}

func (t tarTree) add(name string, e *tarEntry) error {
	if _, ok := t[name]; ok {
		return fmt.Errorf("entry %s stands twice", name)
	}
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
