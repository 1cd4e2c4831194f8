package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"chrysalis/measure/config"
	"chrysalis/measure/verity"

	"github.com/erofs/go-erofs"
)

// tree has each shape that the writer treats differently: empty, inline, block-long and longer files, a directory longer
// than a block, links short and long.
func tree(mtime time.Time) fstest.MapFS {
	m := fstest.MapFS{
		"usr/bin/tool":  {Mode: 0o755, Data: bytes.Repeat([]byte("tool"), 5000)},
		"etc/empty":     {Mode: 0o600},
		"etc/inline":    {Mode: 0o640, Data: []byte("short")},
		"etc/block":     {Mode: 0o644, Data: bytes.Repeat([]byte{7}, verity.BlockSize)},
		"etc/over":      {Mode: 0o644, Data: bytes.Repeat([]byte{8}, verity.BlockSize+1)},
		"lib":           {Mode: fs.ModeSymlink | 0o777, Data: []byte("usr/lib")},
		"usr/long":      {Mode: fs.ModeSymlink | 0o777, Data: []byte(strings.Repeat("d/", 700))},
		"var/empty":     {Mode: fs.ModeDir | 0o700},
		"setuid":        {Mode: 0o755 | fs.ModeSetuid, Data: []byte("x")},
		"name with spa": {Data: []byte("y")},
	}
	for i := range 400 {
		m[fmt.Sprintf("big/file-%04d", i)] = &fstest.MapFile{Mode: 0o644, Data: []byte{byte(i)}}
	}
	for _, f := range m {
		f.ModTime = mtime
	}
	return m
}

// modeBits are the bits of a mode that mean something: the reader of go-erofs leaves Unix type bits in as well.
const modeBits = fs.ModeType | fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky

func packed(t testing.TB, tree fs.FS, opt Options) (string, config.Volume) {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), "volume"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	ref, err := Pack(context.Background(), tree, out, opt)
	if err != nil {
		t.Fatal(err)
	}
	return out.Name(), ref
}

// sizeOf returns the length of the volume's file in bytes, the tree included.
func sizeOf(v config.Volume) int64 {
	return int64(v.Blocks+verity.TreeBlocks(v.Blocks)) * verity.BlockSize
}

func TestPackReadsBack(t *testing.T) {
	src := tree(time.Unix(1, 0))
	name, ref := packed(t, src, Options{Dirs: []string{"run/engine", "model"}})
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Size() != sizeOf(ref) {
		t.Errorf("size: got %d (%v), want %d", info.Size(), err, sizeOf(ref))
	}
	if got, err := Check(f, sizeOf(ref), ref.Root); err != nil || got != ref {
		t.Errorf("Check: got %v, %v, want %v", got, err, ref)
	}
	img, err := erofs.Open(f)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range src {
		info, err := fs.Lstat(img, name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		st := info.Sys().(*erofs.Stat)
		if st.UID != 0 || st.GID != 0 || st.Mtime != 0 || st.MtimeNs != 0 {
			t.Errorf("%s: owner %d:%d at %d, want zeros", name, st.UID, st.GID, st.Mtime)
		}
		wantMode := fs.FileMode(0o644)
		switch {
		case want.Mode.IsDir():
			wantMode = fs.ModeDir | 0o755
		case want.Mode&fs.ModeSymlink != 0:
			wantMode = fs.ModeSymlink | 0o777
		case want.Mode&0o111 != 0:
			wantMode = 0o755
		}
		if got := st.Mode & modeBits; got != wantMode {
			t.Errorf("%s: mode %v, want %v", name, got, wantMode)
		}
		switch {
		case want.Mode&fs.ModeSymlink != 0:
			if got, err := fs.ReadLink(img, name); err != nil || got != string(want.Data) {
				t.Errorf("%s: link to %q (%v), want %q", name, got, err, want.Data)
			}
		case !want.Mode.IsDir():
			if got, err := fs.ReadFile(img, name); err != nil || !bytes.Equal(got, want.Data) {
				t.Errorf("%s: got %d bytes (%v), want %d", name, len(got), err, len(want.Data))
			}
		}
	}
	for _, dir := range []string{"run", "run/engine", "model"} {
		if info, err := fs.Stat(img, dir); err != nil || info.Mode()&modeBits != fs.ModeDir|0o755 {
			t.Errorf("added directory %s: %v, %v", dir, info, err)
		}
	}
}

// TestPackIsReproducible packs equal trees that differ only in what must not count, and a twin that must differ.
func TestPackIsReproducible(t *testing.T) {
	first, ref := packed(t, tree(time.Unix(1, 0)), Options{})
	second, again := packed(t, tree(time.Now()), Options{})
	a, _ := os.ReadFile(first)
	b, _ := os.ReadFile(second)
	if len(a) == 0 || !bytes.Equal(a, b) || ref != again {
		t.Errorf("two packs of one tree differ: %v and %v", ref, again)
	}
	twin := tree(time.Unix(1, 0))
	twin["etc/inline"].Mode = 0o755
	if _, other := packed(t, twin, Options{}); other == ref {
		t.Error("a tree with one changed mode has the same root hash")
	}
}

// TestGolden pins the bytes: a new erofs writer that lays files out differently would change every measured volume.
func TestGolden(t *testing.T) {
	_, ref := packed(t, tree(time.Time{}), Options{})
	if got, want := fmt.Sprintf("%s %d", ref.Root, ref.Blocks), golden; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestPackRefuses(t *testing.T) {
	small := fstest.MapFS{"a": {Data: []byte("abc")}}
	for _, tt := range []struct {
		name string
		tree fs.FS
		opt  Options
		want string
	}{
		{"a pipe", fstest.MapFS{"p": {Mode: fs.ModeNamedPipe}}, Options{}, "p: neither a file"},
		{"a device", fstest.MapFS{"d": {Mode: fs.ModeDevice}}, Options{}, "d: neither a file"},
		{"a directory over a file", small, Options{Dirs: []string{"a"}}, "something else there"},
		{"a directory below a file", small, Options{Dirs: []string{"a/b"}}, "something else there"},
		{"an absolute directory", small, Options{Dirs: []string{"/a"}}, "not a relative path"},
		{"a file that grows", resized{small, +1}, Options{}, "grew past the 3 bytes"},
		{"a file that shrinks", resized{small, -1}, Options{}, "want the 3"},
		{"a file that cannot be read", unreadable{small}, Options{}, "permission denied"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, err := os.Create(filepath.Join(t.TempDir(), "v"))
			if err != nil {
				t.Fatal(err)
			}
			defer out.Close()
			_, err = Pack(t.Context(), tt.tree, out, tt.opt)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
	t.Run("output not empty", func(t *testing.T) {
		name, _ := packed(t, small, Options{})
		out, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		if _, err := Pack(t.Context(), small, out, Options{}); err == nil {
			t.Error("got nil, want an error")
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		out, err := os.Create(filepath.Join(t.TempDir(), "v"))
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		if _, err := Pack(ctx, small, out, Options{}); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want context.Canceled", err)
		}
	})
}

func TestCheckRefuses(t *testing.T) {
	name, ref := packed(t, tree(time.Time{}), Options{})
	good, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		data []byte
	}{
		{"empty", nil},
		{"cut by a byte", good[:len(good)-1]},
		{"cut by a block", good[:len(good)-verity.BlockSize]},
		{"a block more", append(bytes.Clone(good), make([]byte, verity.BlockSize)...)},
		{"a flipped bit in the superblock", flipped(good, 1024)},
		{"a flipped bit in the tree", flipped(good, len(good)-1)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := Check(bytes.NewReader(tt.data), int64(len(tt.data)), ref.Root); !errors.Is(err, verity.ErrCorrupt) {
				t.Errorf("got %v, want verity.ErrCorrupt", err)
			}
		})
	}
}

func flipped(p []byte, at int) []byte {
	p = bytes.Clone(p)
	p[at] ^= 1
	return p
}

// TestPackOpensOneFileAtATime holds the number of descriptors: an engine tree has more files than a process may open.
func TestPackOpensOneFileAtATime(t *testing.T) {
	c := &counting{FS: tree(time.Time{})}
	packed(t, c, Options{})
	if c.most != 1 || c.open != 0 {
		t.Errorf("got %d files open at once and %d left open, want 1 and 0", c.most, c.open)
	}
}

// TestFsckAgrees asks erofs-utils for its opinion of the image.
func TestFsckAgrees(t *testing.T) {
	tool, err := exec.LookPath("fsck.erofs")
	if err != nil {
		t.Skip("no fsck.erofs on this machine: the second opinion on the image is not asked")
	}
	name, _ := packed(t, tree(time.Unix(1, 0)), Options{})
	if out, err := exec.Command(tool, name).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// TestKernelMounts mounts the volume and reads it through Linux, where root, a loop device and erofs are to be had.
func TestKernelMounts(t *testing.T) {
	if fsys, _ := os.ReadFile("/proc/filesystems"); runtime.GOOS != "linux" || os.Getuid() != 0 || !bytes.Contains(fsys, []byte("erofs")) {
		t.Skip("no root or no erofs in this kernel: the kernel's reading of the image is not asked")
	}
	src := tree(time.Unix(1, 0))
	name, _ := packed(t, src, Options{})
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "erofs", "-o", "ro,loop", name, dir).CombinedOutput(); err != nil {
		t.Skipf("this machine mounts no loop device: %v: %s", err, out)
	}
	defer exec.Command("umount", dir).Run()
	for name, want := range src {
		switch {
		case want.Mode&fs.ModeSymlink != 0:
			if got, err := os.Readlink(filepath.Join(dir, name)); err != nil || got != string(want.Data) {
				t.Errorf("%s: link to %q (%v), want %q", name, got, err, want.Data)
			}
		case !want.Mode.IsDir():
			if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !bytes.Equal(got, want.Data) {
				t.Errorf("%s: got %d bytes (%v), want %d", name, len(got), err, len(want.Data))
			}
		}
	}
}

// resized announces its files with by bytes less than they give.
type resized struct {
	fstest.MapFS
	by int
}

func (r resized) Open(name string) (fs.File, error) {
	f, ok := r.MapFS[name]
	if !ok {
		return r.MapFS.Open(name)
	}
	other := fstest.MapFS{name: {Mode: f.Mode, Data: append(bytes.Clone(f.Data), 'd')[:len(f.Data)+r.by]}}
	return other.Open(name)
}

type unreadable struct{ fstest.MapFS }

func (u unreadable) Open(name string) (fs.File, error) {
	if _, ok := u.MapFS[name]; ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
	}
	return u.MapFS.Open(name)
}

type counting struct {
	fs.FS
	open, most int
}

func (c *counting) ReadLink(name string) (string, error)       { return fs.ReadLink(c.FS, name) }
func (c *counting) Lstat(name string) (fs.FileInfo, error)     { return fs.Lstat(c.FS, name) }
func (c *counting) ReadDir(name string) ([]fs.DirEntry, error) { return fs.ReadDir(c.FS, name) }
func (c *counting) Stat(name string) (fs.FileInfo, error)      { return fs.Stat(c.FS, name) }

func (c *counting) Open(name string) (fs.File, error) {
	f, err := c.FS.Open(name)
	if err != nil {
		return nil, err
	}
	c.open++
	c.most = max(c.most, c.open)
	return &counted{f, c}, nil
}

type counted struct {
	fs.File
	c *counting
}

func (f *counted) Close() error { f.c.open--; return f.File.Close() }

var _ io.Reader = (*counted)(nil)

const golden = "e8f70e0a865d509109bde20de1305e68903bcf0e9d00ca0464bc024244ed1310 20"
