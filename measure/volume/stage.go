package volume

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"io/fs"
	"slices"
)

var (
	_ fs.ReadDirFS  = (*stage)(nil)
	_ fs.StatFS     = (*stage)(nil)
	_ fs.ReadLinkFS = (*stage)(nil)
)

func (s *stage) find(op, name string) (*node, error) {
	n, ok := s.nodes[name]
	if !ok {
		return nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
	}
	return n, nil
}

// Stat, Lstat, ReadLink and ReadDir answer from the plan.
func (s *stage) Stat(name string) (fs.FileInfo, error)  { return s.find("stat", name) }
func (s *stage) Lstat(name string) (fs.FileInfo, error) { return s.find("lstat", name) }

func (s *stage) ReadLink(name string) (string, error) {
	n, err := s.find("readlink", name)
	if err != nil {
		return "", err
	}
	return n.link, nil
}

func (s *stage) ReadDir(name string) ([]fs.DirEntry, error) {
	n, err := s.find("readdir", name)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(n.children, func(a, b fs.DirEntry) int { return cmp.Compare(a.Name(), b.Name()) })
	return n.children, nil
}

// Open opens nothing yet: the erofs writer opens every file before it reads the first, which would take one descriptor
// for each file of the tree.
func (s *stage) Open(name string) (fs.File, error) {
	n, err := s.find("open", name)
	if err != nil {
		return nil, err
	}
	if n.mode.IsRegular() && n.size >= largeBytes {
		return &largeFile{stage: s, name: name, node: n, left: n.size}, nil
	}
	return &lazyFile{stage: s, name: name, node: n}, nil
}

// largeFile gives the writer the length of its file and no content: the sink passes over it, and notes where it belongs.
type largeFile struct {
	stage *stage
	name  string
	node  *node
	left  int64
}

func (f *largeFile) Stat() (fs.FileInfo, error) { return f.node, nil }
func (f *largeFile) Close() error               { return nil }

func (f *largeFile) Read(p []byte) (int, error) {
	if err := context.Cause(f.stage.ctx); err != nil {
		return 0, err
	}
	s := f.stage.sink
	if s.hole != 0 {
		return 0, fmt.Errorf("%s is read before %d bytes were written", f.name, s.hole)
	}
	if f.left == 0 {
		return 0, io.EOF
	}
	if f.left == f.node.size {
		f.stage.large = append(f.stage.large, extent{f.name, s.at, f.node.size})
	}
	n := min(int64(len(p)), f.left)
	f.left, s.hole = f.left-n, n
	return int(n), nil
}

// lazyFile opens its file at the first read and closes it at the end of the content.
type lazyFile struct {
	stage *stage
	name  string
	node  *node
	src   fs.File
	read  int64
}

func (f *lazyFile) Stat() (fs.FileInfo, error) { return f.node, nil }

func (f *lazyFile) Read(p []byte) (int, error) {
	if err := context.Cause(f.stage.ctx); err != nil {
		return 0, err
	}
	if f.src == nil {
		if f.read > 0 {
			return 0, io.EOF
		}
		src, err := f.stage.tree.Open(f.name)
		if err != nil {
			return 0, err
		}
		f.src = src
	}
	n, err := f.src.Read(p)
	f.read += int64(n)
	f.stage.written += int64(n)
	if err == nil && f.read == f.node.size {
		// The writer asks for no byte more than it was told, so a file that has grown must be noticed here.
		var more [1]byte
		if k, _ := f.src.Read(more[:]); k > 0 {
			return n, fmt.Errorf("%s grew past the %d bytes of its listing", f.name, f.node.size)
		}
		err = io.EOF
	}
	if err != nil {
		f.Close()
	}
	if f.stage.progress != nil {
		f.stage.progress(Writing, f.stage.written, f.stage.total)
	}
	return n, err
}

func (f *lazyFile) Close() error {
	if f.src == nil {
		return nil
	}
	err := f.src.Close()
	f.src = nil
	return err
}
