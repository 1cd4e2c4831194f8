package volume

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The erofs writer copies one file after the other, and remembers nothing. So it sees large files as their lengths alone: the image is
// laid out around their places, which takes no time, and then their contents are copied there, several pieces at once, with a record
// of those that are done.
const (
	largeBytes = 1 << 20  // files of at least this size are filled in afterwards
	spanBytes  = 16 << 20 // what one worker copies at a time, and one line of a record
	pieceBytes = 1 << 20  // a worker's buffer

	recordBytes  = 256 << 20 // how much may be written before it is synced and recorded
	maxRecorded  = 64 << 20  // bytes of a record file
	recordFormat = "chrysalis volume record v1"
)

// sink is the image as the erofs writer writes it. The next hole bytes are the contents of a large file.
type sink struct {
	out  *os.File
	at   int64
	end  int64 // of what was written, holes included
	hole int64
}

func (s *sink) Write(p []byte) (int, error) {
	skip := min(s.hole, int64(len(p)))
	s.hole, s.at = s.hole-skip, s.at+skip
	n, err := s.out.WriteAt(p[skip:], s.at)
	s.at += int64(n)
	s.end = max(s.end, s.at)
	return int(skip) + n, err
}

func (s *sink) Seek(offset int64, whence int) (int64, error) {
	if whence != io.SeekStart || s.hole != 0 {
		return s.at, fmt.Errorf("seeking to %d (%d) with %d bytes to come", offset, whence, s.hole)
	}
	s.at = offset
	return s.at, nil
}

// extent is where the contents of a large file belong.
type extent struct {
	name     string
	at, size int64
}

// span is a part of an extent.
type span struct {
	extent
	from, bytes int64
}

func (s *stage) spans() (all []span, err error) {
	for _, e := range s.large {
		step := int64(spanBytes)
		f, err := s.tree.Open(e.name)
		if err != nil {
			return nil, err
		}
		if _, ok := f.(io.ReaderAt); !ok { // it can only be read from its beginning
			step = e.size
		}
		if err := f.Close(); err != nil {
			return nil, err
		}
		for from := int64(0); from < e.size; from += step {
			all = append(all, span{e, from, min(step, e.size-from)})
		}
	}
	return all, nil
}

// fill copies the contents of the large files to their places, several at a time, and passes over what record says is done. Memory does
// not grow with them.
func (s *stage) fill(ctx context.Context, out, record *os.File) error {
	all, err := s.spans()
	if err != nil {
		return err
	}
	r, err := openRecord(record, s.key(), len(all))
	if err != nil {
		return fmt.Errorf("reading record: %w", err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var mu sync.Mutex
	next := 0
	take := func() (int, bool) {
		mu.Lock()
		defer mu.Unlock()
		for ; next < len(all) && r.done[next]; next++ {
			s.count(all[next].bytes)
		}
		next++
		return next - 1, next <= len(all) && ctx.Err() == nil
	}
	finished := func(i int) error {
		mu.Lock()
		defer mu.Unlock()
		s.count(all[i].bytes)
		return r.add(out, i, all[i].bytes)
	}
	var workers sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(all)) {
		workers.Go(func() {
			w := filler{tree: s.tree, out: out, buffer: make([]byte, pieceBytes)}
			defer w.close()
			for i, ok := take(); ok; i, ok = take() {
				err := w.copy(ctx, all[i])
				if err == nil {
					err = finished(i)
				}
				if err != nil {
					cancel(err)
					return
				}
			}
		})
	}
	workers.Wait()
	// So that as little as can be is done again: after an error, or where the hashing is interrupted.
	return errors.Join(context.Cause(ctx), r.flush(out))
}

// count counts bytes of content that are written.
func (s *stage) count(bytes int64) {
	s.written += bytes
	if s.progress != nil {
		s.progress(Writing, s.written, s.total)
	}
}

// filler copies spans, and keeps the last span's file open: the next is mostly of the same one.
type filler struct {
	tree   fs.FS
	out    *os.File
	buffer []byte
	name   string
	file   fs.File
}

func (w *filler) close() {
	if w.file != nil {
		_ = w.file.Close() // it was read from
	}
	w.name, w.file = "", nil
}

func (w *filler) copy(ctx context.Context, s span) (err error) {
	if w.name != s.name || s.bytes == s.size {
		w.close()
		if w.file, err = w.tree.Open(s.name); err != nil {
			return err
		}
		w.name = s.name
	}
	at, random := w.file.(io.ReaderAt)
	read := func(p []byte, offset int64) (int, error) {
		if random {
			return at.ReadAt(p, offset)
		}
		return io.ReadFull(w.file, p)
	}
	for done := int64(0); done < s.bytes; {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		piece := w.buffer[:min(pieceBytes, s.bytes-done)]
		n, err := read(piece, s.from+done)
		if n < len(piece) {
			if err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				err = fmt.Errorf("%s gave %d bytes, want the %d of its listing", s.name, s.from+done+int64(n), s.size)
			}
			return err
		}
		if _, err := w.out.WriteAt(piece, s.at+s.from+done); err != nil {
			return err
		}
		done += int64(n)
	}
	if s.from+s.bytes == s.size {
		if n, _ := read(w.buffer[:1], s.size); n > 0 {
			return fmt.Errorf("%s grew past the %d bytes of its listing", s.name, s.size)
		}
	}
	return nil
}

// key names what is packed, as far as a listing tells: names, kinds, sizes, links, and when each file was changed.
func (s *stage) key() [sha256.Size]byte {
	h := sha256.New()
	fmt.Fprintf(h, "%s\n%d %d\n", recordFormat, largeBytes, spanBytes)
	for _, name := range slices.Sorted(maps.Keys(s.nodes)) {
		n := s.nodes[name]
		fmt.Fprintf(h, "%q %v %d %q %d\n", name, n.mode, n.size, n.link, n.changed.UnixNano())
	}
	for _, e := range s.large {
		fmt.Fprintf(h, "%q %d\n", e.name, e.at)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// record is a file with a line that names what is packed, and the number of each span that is on disk.
type record struct {
	file    *os.File
	done    map[int]bool
	pending []int
	bytes   int64
	synced  time.Time
}

// openRecord reads what an earlier run recorded, if it packed the same, and begins anew otherwise. A line that is cut, or names no
// span, ends it.
func openRecord(file *os.File, key [sha256.Size]byte, spans int) (*record, error) {
	r := &record{file: file, done: map[int]bool{}, synced: time.Now()}
	if file == nil {
		return r, nil
	}
	header := recordFormat + " " + hex.EncodeToString(key[:]) + "\n"
	text, err := io.ReadAll(io.NewSectionReader(file, 0, maxRecorded))
	if err != nil {
		return nil, err
	}
	rest, same := bytes.CutPrefix(text, []byte(header))
	good := int64(len(header))
	if same {
		for line := range bytes.Lines(rest) {
			n, err := strconv.Atoi(strings.TrimSuffix(string(line), "\n"))
			if err != nil || n < 0 || n >= spans || !bytes.HasSuffix(line, []byte("\n")) {
				break
			}
			r.done[n] = true
			good += int64(len(line))
		}
	}
	if err := file.Truncate(good); err != nil {
		return nil, err
	}
	if !same {
		if _, err := file.WriteAt([]byte(header), 0); err != nil {
			return nil, err
		}
	}
	_, err = file.Seek(good, io.SeekStart)
	return r, err
}

// Recorded reports whether a record says that anything is written.
func Recorded(record *os.File) bool {
	info, err := record.Stat()
	return err == nil && info.Size() > int64(len(recordFormat)+len(" ")+2*sha256.Size+len("\n"))
}

// recordEvery bounds how long what is written goes without being recorded.
const recordEvery = 5 * time.Second

func (r *record) add(out *os.File, n int, bytes int64) error {
	if r.file == nil {
		return nil
	}
	r.pending, r.bytes = append(r.pending, n), r.bytes+bytes
	if r.bytes < recordBytes && time.Since(r.synced) < recordEvery {
		return nil
	}
	return r.flush(out)
}

// flush syncs what is written and then records it: a record never says more than a disk has.
func (r *record) flush(out *os.File) error {
	if r.file == nil || len(r.pending) == 0 {
		return nil
	}
	if err := out.Sync(); err != nil {
		return err
	}
	var lines strings.Builder
	for _, n := range r.pending {
		fmt.Fprintln(&lines, n)
	}
	if _, err := r.file.WriteString(lines.String()); err != nil {
		return err
	}
	r.pending, r.bytes, r.synced = r.pending[:0], 0, time.Now()
	return r.file.Sync()
}
