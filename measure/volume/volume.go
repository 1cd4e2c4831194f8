// Package volume packs a directory tree into a volume: an erofs image, padded to whole blocks, followed at once by its
// dm-verity tree (measure/verity). A volume is named by its root hash and its number of data blocks, and by nothing that
// stands on the disk.
//
// Equal trees give equal bytes: owner, group and times are zero, modes are normalised, names are sorted, nothing is
// compressed. Hard links become copies; extended attributes, and with them file capabilities, are dropped; devices,
// sockets and pipes are refused.
package volume

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"time"

	"chrysalis/measure/config"
	"chrysalis/measure/verity"

	"github.com/erofs/go-erofs"
)

// Options shape a volume. The zero value packs the tree as it is.
type Options struct {
	// Dirs are empty directories (mode 0755) to add where the tree has none; their parents are added too. A tree that has
	// something else under that name is refused. Default none.
	Dirs []string
	// Progress, when set, is called with the bytes of file content written and their sum, then with the bytes hashed and
	// their sum; never by two goroutines at once.
	Progress func(stage Stage, done, total int64)
	// Record, when set, is a file that says which contents are written: with it and the output of a run that was interrupted, Pack goes
	// on where that one was, and the output may hold bytes. A record of another tree is begun anew. What is in the output is believed as
	// far as the record goes, and a file to be the same where its size and time are: the name that Pack returns is that of what is there.
	// Default none.
	Record *os.File
}

// Stage says what Progress counts.
type Stage string

// The two stages of Pack, in order.
const (
	Writing Stage = "writing"
	Hashing Stage = "hashing"
)

// Pack writes tree as a volume to out, which must be empty, and returns its name. Large files are copied by as many workers as there are
// CPUs, in constant memory. The file is not synced.
func Pack(ctx context.Context, tree fs.FS, out *os.File, opt Options) (config.Volume, error) {
	ref, err := pack(ctx, tree, out, opt)
	if err != nil {
		return config.Volume{}, fmt.Errorf("packing volume: %w", err)
	}
	return ref, nil
}

func pack(ctx context.Context, tree fs.FS, out *os.File, opt Options) (config.Volume, error) {
	if size, err := out.Seek(0, io.SeekEnd); err != nil {
		return config.Volume{}, err
	} else if size != 0 && opt.Record == nil {
		return config.Volume{}, fmt.Errorf("output holds %d bytes, want an empty file", size)
	}
	s, err := plan(ctx, tree, opt.Dirs)
	if err != nil {
		return config.Volume{}, err
	}
	s.progress, s.sink = opt.Progress, &sink{out: out}
	// The build time equals every mtime, which lets all inodes take the compact form.
	w := erofs.Create(s.sink, erofs.WithBlockSize(verity.BlockSize), erofs.WithBuildTime(0, 0))
	if err := w.CopyFrom(s); err != nil {
		return config.Volume{}, fmt.Errorf("writing erofs image: %w", err)
	}
	if err := w.Close(); err != nil {
		return config.Volume{}, fmt.Errorf("writing erofs image: %w", err)
	}
	if s.sink.hole != 0 {
		return config.Volume{}, fmt.Errorf("writing erofs image: %d bytes of a large file have no place in it", s.sink.hole)
	}
	if err := out.Truncate(s.sink.end); err != nil {
		return config.Volume{}, err
	}
	if err := s.fill(ctx, out, opt.Record); err != nil {
		return config.Volume{}, fmt.Errorf("copying files: %w", err)
	}
	// The writer copies at most the announced bytes and takes fewer without a word.
	if s.written != s.total {
		return config.Volume{}, fmt.Errorf("writing erofs image: files gave %d bytes, want the %d of their listing", s.written, s.total)
	}
	size, err := out.Seek(0, io.SeekEnd)
	if err != nil {
		return config.Volume{}, err
	}
	blocks := uint64(size+verity.BlockSize-1) / verity.BlockSize
	if err := out.Truncate(int64(blocks) * verity.BlockSize); err != nil {
		return config.Volume{}, err
	}
	root, err := verity.Append(ctx, out, blocks, func(done int64) {
		if opt.Progress != nil {
			opt.Progress(Hashing, done, int64(blocks)*verity.BlockSize)
		}
	})
	if err != nil {
		return config.Volume{}, err
	}
	return config.Volume{Root: root, Blocks: blocks}, nil
}

// Check reads the whole volume of size bytes and returns the volume that root names, or the reason why the bytes are not
// that volume. The number of blocks follows from the size; a size that no volume has is verity.ErrCorrupt.
func Check(r io.ReaderAt, size int64, root [32]byte) (config.Volume, error) {
	var blocks uint64
	ok := size > 0 && size%verity.BlockSize == 0
	if ok {
		blocks, ok = verity.DataBlocks(uint64(size) / verity.BlockSize)
	}
	if !ok {
		return config.Volume{}, fmt.Errorf("checking volume: %w: no volume is %d bytes long", verity.ErrCorrupt, size)
	}
	if err := verity.Check(r, blocks, root); err != nil {
		return config.Volume{}, fmt.Errorf("checking volume: %w", err)
	}
	return config.Volume{Root: root, Blocks: blocks}, nil
}

// stage is the tree as it will stand in the image, in the form of the fs.FS that the erofs writer takes.
type stage struct {
	ctx            context.Context
	tree           fs.FS
	nodes          map[string]*node
	total, written int64
	progress       func(Stage, int64, int64)
	sink           *sink
	large          []extent // files that are filled in afterwards, in the order of their places
}

// node is one name of the stage and its own fs.FileInfo and fs.DirEntry. Sys is nil, so the writer finds no owner, link
// count or time to copy.
type node struct {
	base     string
	mode     fs.FileMode
	size     int64
	changed  time.Time // as the tree says; not in the volume
	link     string
	children []fs.DirEntry
}

func (n *node) Name() string               { return n.base }
func (n *node) Size() int64                { return n.size }
func (n *node) Mode() fs.FileMode          { return n.mode }
func (n *node) Type() fs.FileMode          { return n.mode.Type() }
func (n *node) ModTime() time.Time         { return time.Unix(0, 0).UTC() }
func (n *node) IsDir() bool                { return n.mode.IsDir() }
func (n *node) Sys() any                   { return nil }
func (n *node) Info() (fs.FileInfo, error) { return n, nil }

var errKind = errors.New("neither a file, a directory nor a symbolic link")

// plan walks the tree once and decides every mode.
func plan(ctx context.Context, tree fs.FS, dirs []string) (*stage, error) {
	s := &stage{ctx: ctx, tree: tree, nodes: map[string]*node{}}
	err := fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
		n := &node{base: path.Base(name)}
		switch info, err := d.Info(); {
		case err != nil:
			return err
		case info.IsDir():
			n.mode = fs.ModeDir | 0o755
		case info.Mode()&fs.ModeSymlink != 0:
			n.mode = fs.ModeSymlink | 0o777
			if n.link, err = fs.ReadLink(tree, name); err != nil {
				return err
			}
			n.size = int64(len(n.link))
		case info.Mode().IsRegular():
			n.mode, n.size, n.changed = 0o644, info.Size(), info.ModTime()
			if info.Mode()&0o111 != 0 {
				n.mode = 0o755
			}
			s.total += n.size
		default:
			return fmt.Errorf("%s: %w", name, errKind)
		}
		return s.add(name, n)
	})
	if err != nil {
		return nil, err
	}
	for _, dir := range dirs {
		if err := s.mkdir(dir); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *stage) add(name string, n *node) error {
	s.nodes[name] = n
	if name == "." {
		if !n.IsDir() {
			return errors.New("the root of the tree is not a directory")
		}
		return nil
	}
	parent := s.nodes[path.Dir(name)]
	parent.children = append(parent.children, n)
	return nil
}

func (s *stage) mkdir(dir string) error {
	if !fs.ValidPath(dir) {
		return fmt.Errorf("empty directory %q: not a relative path", dir)
	}
	switch n, ok := s.nodes[dir]; {
	case ok && n.IsDir():
		return nil
	case ok:
		return fmt.Errorf("empty directory %q: the tree has something else there", dir)
	}
	if err := s.mkdir(path.Dir(dir)); err != nil {
		return err
	}
	return s.add(dir, &node{base: path.Base(dir), mode: fs.ModeDir | 0o755})
}
