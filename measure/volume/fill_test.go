package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"chrysalis/measure/config"
	"chrysalis/measure/verity"

	"github.com/erofs/go-erofs"
)

// largeTree has files around the sizes at which they are filled in, and cut into spans.
func largeTree() fstest.MapFS {
	m := fstest.MapFS{"config.json": {Data: []byte("{}")}, "sub/small": {Data: bytes.Repeat([]byte{3}, 70000)}}
	for i, size := range []int{largeBytes - 1, largeBytes, largeBytes + 1, spanBytes - 1, spanBytes, spanBytes + verity.BlockSize + 1,
		2*spanBytes + 5} {
		data := make([]byte, size)
		for j := range data {
			data[j] = byte(j*7+i) ^ byte(j>>13)
		}
		m[fmt.Sprintf("sub/model-%d.safetensors", i)] = &fstest.MapFile{Data: data, ModTime: time.Unix(1790000000, 0)}
	}
	return m
}

// sequential writes the same volume by the erofs writer alone, one file after the other.
func sequential(t *testing.T, tree fs.FS) []byte {
	t.Helper()
	name := filepath.Join(t.TempDir(), "v")
	out, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	s, err := plan(t.Context(), tree, nil)
	if err != nil {
		t.Fatal(err)
	}
	w := erofs.Create(out, erofs.WithBlockSize(verity.BlockSize), erofs.WithBuildTime(0, 0))
	if err := w.CopyFrom(plainStage{s}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return append(data, make([]byte, -len(data)&(verity.BlockSize-1))...)
}

// plainStage opens every file as it is.
type plainStage struct{ *stage }

func (p plainStage) Open(name string) (fs.File, error) {
	n, err := p.find("open", name)
	if err != nil {
		return nil, err
	}
	return &lazyFile{stage: p.stage, name: name, node: n}, nil
}

// TestFillIsTheWriters: what is laid out first and filled in afterwards is, byte for byte, what the writer makes in one go.
func TestFillIsTheWriters(t *testing.T) {
	tree := largeTree()
	want := sequential(t, tree)
	for name, tree := range map[string]fs.FS{"at random": tree, "from the beginning alone": forwards{tree}} {
		file, ref := packed(t, tree, Options{})
		got, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if int64(len(got)) != sizeOf(ref) || !bytes.Equal(got[:ref.Blocks*verity.BlockSize], want) {
			t.Errorf("%s: the volume's %d bytes are not the writer's %d", name, ref.Blocks*verity.BlockSize, len(want))
		}
	}
}

// forwards is a tree whose files have no ReadAt.
type forwards struct{ fs.FS }

func (f forwards) Open(name string) (fs.File, error) {
	file, err := f.FS.Open(name)
	if err != nil {
		return nil, err
	}
	if dir, ok := file.(fs.ReadDirFile); ok {
		return dir, nil
	}
	return struct{ fs.File }{file}, nil
}

// breaking ends the packing after so many reads of large files, and counts the bytes that were asked for.
type breaking struct {
	fs.FS
	reads *atomic.Int64 // how many are left
	bytes *atomic.Int64
}

var errBroken = errors.New("the disk is gone")

func (b breaking) Open(name string) (fs.File, error) {
	f, err := b.FS.Open(name)
	if r, ok := f.(io.ReaderAt); ok && err == nil {
		return brokenFile{f, r, b}, nil
	}
	return f, err
}

type brokenFile struct {
	fs.File
	at io.ReaderAt
	b  breaking
}

func (f brokenFile) ReadAt(p []byte, at int64) (int, error) {
	if f.b.reads.Add(-1) < 0 {
		return 0, errBroken
	}
	f.b.bytes.Add(int64(len(p)))
	return f.at.ReadAt(p, at)
}

// resumable packs a tree over a volume and its record.
func resumable(t *testing.T, dir string, tree fs.FS) (config.Volume, error) {
	t.Helper()
	var files [2]*os.File
	for i, name := range []string{"v", "record"} {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files[i] = f
	}
	return Pack(t.Context(), tree, files[0], Options{Record: files[1]})
}

// TestPackGoesOn: packing that breaks again and again ends with the same volume, and copies little twice.
func TestPackGoesOn(t *testing.T) {
	tree := largeTree()
	_, want := packed(t, tree, Options{})
	var total int64
	for _, f := range tree {
		if len(f.Data) >= largeBytes {
			total += int64(len(f.Data))
		}
	}
	for _, after := range []int64{0, 7, 33} {
		dir := t.TempDir()
		var read atomic.Int64
		broke := 0
		for {
			reads := &atomic.Int64{}
			reads.Store(after + int64(broke)*20)
			got, err := resumable(t, dir, breaking{tree, reads, &read})
			if err == nil {
				if got != want {
					t.Fatalf("broken after %d reads: got %v, want %v", after, got, want)
				}
				break
			}
			if !errors.Is(err, errBroken) {
				t.Fatal(err)
			}
			if broke++; broke > 20 {
				t.Fatal("it does not come to an end")
			}
		}
		// Each time at most one span of each worker is lost.
		most := total + int64(broke*runtime.GOMAXPROCS(0))*spanBytes
		if broke == 0 || read.Load() > most {
			t.Errorf("broken after %d reads, %d times: read %d bytes, want at most %d", after, broke, read.Load(), most)
		}
	}
}

// TestRecordIsOfItsTree: a record of another tree, or one that was changed, is not believed.
func TestRecordIsOfItsTree(t *testing.T) {
	tree := largeTree()
	_, want := packed(t, tree, Options{})
	whole := func(dir string) {
		t.Helper()
		if got, err := resumable(t, dir, tree); err != nil || got != want {
			t.Fatalf("got %v, %v, want %v", got, err, want)
		}
	}
	count := func(dir string, tree fs.FS) (config.Volume, int64) {
		t.Helper()
		var reads, read atomic.Int64
		reads.Store(1 << 30)
		got, err := resumable(t, dir, breaking{tree, &reads, &read})
		if err != nil {
			t.Fatal(err)
		}
		return got, read.Load()
	}
	// Whole spans that were recorded are not read again, whatever lies in the file.
	dir := t.TempDir()
	var reads, read atomic.Int64
	reads.Store(40)
	if _, err := resumable(t, dir, breaking{tree, &reads, &read}); !errors.Is(err, errBroken) {
		t.Fatal(err)
	}
	_, fresh := count(t.TempDir(), tree)
	if _, again := count(dir, tree); again >= fresh {
		t.Errorf("with a record: read %d bytes, want less than the %d of all", again, fresh)
	}
	for name, change := range map[string]func(dir string, tree fstest.MapFS) fstest.MapFS{
		"a file of another time": func(_ string, tree fstest.MapFS) fstest.MapFS {
			f := *tree["sub/model-6.safetensors"]
			f.ModTime = f.ModTime.Add(1)
			f.Data = bytes.Clone(f.Data)
			f.Data[0] ^= 1
			tree["sub/model-6.safetensors"] = &f
			return tree
		},
		"a file more": func(_ string, tree fstest.MapFS) fstest.MapFS {
			tree["a"] = &fstest.MapFile{Data: []byte("a")}
			return tree
		},
		"a record of lies": func(dir string, tree fstest.MapFS) fstest.MapFS {
			if err := os.WriteFile(filepath.Join(dir, "record"), []byte(recordFormat+" "+strings.Repeat("00", 32)+"\n0\n1\n2\n3\n"),
				0o644); err != nil {
				t.Fatal(err)
			}
			return tree
		},
		"a record that is none": func(dir string, tree fstest.MapFS) fstest.MapFS {
			if err := os.WriteFile(filepath.Join(dir, "record"), bytes.Repeat([]byte{0xff}, 3000), 0o644); err != nil {
				t.Fatal(err)
			}
			return tree
		},
	} {
		dir := t.TempDir()
		whole(dir)
		other := change(dir, largeTree())
		_, want := packed(t, other, Options{})
		if got, read := count(dir, other); got != want || read < fresh {
			t.Errorf("%s: got %v after reading %d bytes, want %v after at least %d", name, got, read, want, fresh)
		}
	}
}

// TestRecordReadsWhatIsWhole: a line that was cut, or names no span, ends a record.
func TestRecordReadsWhatIsWhole(t *testing.T) {
	key := [32]byte{1}
	header := recordFormat + " 01" + strings.Repeat("00", 31) + "\n"
	for _, tt := range []struct {
		text string
		want int
		left string
	}{
		{header + "0\n4\n2\n", 3, header + "0\n4\n2\n"},
		{header + "0\n4\n2", 2, header + "0\n4\n"},
		{header + "0\n5\n2\n", 1, header + "0\n"},
		{header + "-1\n", 0, header},
		{header + "x\n0\n", 0, header},
		{header, 0, header},
		{header[:20], 0, header},
		{"", 0, header},
		{"x" + header + "0\n", 0, header},
	} {
		name := filepath.Join(t.TempDir(), "record")
		if err := os.WriteFile(name, []byte(tt.text), 0o644); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		r, err := openRecord(f, key, 5)
		if err != nil {
			t.Fatal(err)
		}
		left, err := os.ReadFile(name)
		if err != nil || len(r.done) != tt.want || string(left) != tt.left {
			t.Errorf("%q: got %d spans, left %q (%v), want %d, %q", tt.text, len(r.done), left, err, tt.want, tt.left)
		}
		f.Close()
	}
}

// TestFillRefuses: large files that are not what their listing says.
func TestFillRefuses(t *testing.T) {
	large := fstest.MapFS{"a": {Data: make([]byte, spanBytes+3)}}
	for name, tt := range map[string]struct {
		tree fs.FS
		want string
	}{
		"grows":                         {resized{large, +1}, "grew past the 16777219 bytes"},
		"shrinks":                       {resized{large, -1}, "want the 16777219 of its listing"},
		"grows, read from its start":    {forwards{resized{large, +1}}, "grew past the 16777219 bytes"},
		"shrinks, read from its start":  {forwards{resized{large, -1}}, "want the 16777219 of its listing"},
		"cannot be read":                {unreadable{large}, "permission denied"},
		"cannot be opened a third time": {&onlyTwice{FS: large}, "permission denied"},
	} {
		out, err := os.Create(filepath.Join(t.TempDir(), "v"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Pack(t.Context(), tt.tree, out, Options{}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want an error with %q", name, err, tt.want)
		}
		out.Close()
	}
}

type onlyTwice struct {
	fs.FS
	opened atomic.Int64
}

func (o *onlyTwice) Open(name string) (fs.File, error) {
	if name == "a" && o.opened.Add(1) > 1 {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
	}
	return o.FS.Open(name)
}

// TestFillCancelled: a packing that is ended while it copies ends, and its record says what is there.
func TestFillCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	out, err := os.Create(filepath.Join(t.TempDir(), "v"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	opt := Options{Progress: func(_ Stage, done, total int64) {
		if done > total/3 {
			cancel()
		}
	}}
	if _, err := Pack(ctx, largeTree(), out, opt); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}
