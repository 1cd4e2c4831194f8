package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// disk is a device in memory that loses what was not synced when power is cut. Hooks fail a write or a sync.
type disk struct {
	durable  []byte
	pending  map[int64][]byte // sectors written since the last sync
	writes   int
	onWrite  func(n int) error // before a write is taken
	onSync   func() error      // before a sync is made
	syncKeep bool              // a sync that fails has still made everything durable
}

func newDisk(size int) *disk { return &disk{durable: make([]byte, size), pending: map[int64][]byte{}} }

func (d *disk) Size() (int64, error) { return int64(len(d.durable)), nil }

func (d *disk) ReadAt(p []byte, off int64) (int, error) {
	n := 0
	if off < int64(len(d.durable)) {
		n = copy(p, d.durable[off:])
	}
	for at, s := range d.pending {
		if at+sectorBytes > off && at < off+int64(n) {
			if at >= off {
				copy(p[at-off:n], s)
			} else {
				copy(p, s[off-at:])
			}
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (d *disk) WriteAt(p []byte, off int64) (int, error) {
	if off%sectorBytes != 0 || len(p)%sectorBytes != 0 || off+int64(len(p)) > int64(len(d.durable)) {
		panic(fmt.Sprintf("write of %d bytes at %d", len(p), off))
	}
	d.writes++
	if d.onWrite != nil {
		if err := d.onWrite(d.writes); err != nil {
			return 0, err
		}
	}
	for i := 0; i < len(p); i += sectorBytes {
		d.pending[off+int64(i)] = bytes.Clone(p[i : i+sectorBytes])
	}
	return len(p), nil
}

func (d *disk) Sync() error {
	if d.onSync != nil {
		if err := d.onSync(); err != nil {
			if d.syncKeep {
				d.flush(func(int64) bool { return true })
			}
			return err
		}
	}
	d.flush(func(int64) bool { return true })
	return nil
}

func (d *disk) flush(keep func(at int64) bool) {
	for at, s := range d.pending {
		if keep(at) {
			copy(d.durable[at:], s)
		}
	}
	clear(d.pending)
}

// cut returns the disk after a power cut: of what was not synced, the sectors that keep names are there.
func (d *disk) cut(keep func(at int64) bool) *disk {
	after := newDisk(len(d.durable))
	copy(after.durable, d.durable)
	for at, s := range d.pending {
		if keep(at) {
			copy(after.durable[at:], s)
		}
	}
	return after
}

func (d *disk) clone() *disk { return d.cut(func(int64) bool { return true }) }

var testKey = [32]byte{1, 2, 3}

// reopen opens the journal and returns it with the entries it replayed.
func reopen(d Device, counter uint64) (*Journal, []string, error) {
	var got []string
	j, err := Open(d, testKey, counter, func(e []byte) error { got = append(got, string(e)); return nil })
	return j, got, err
}

func mustOpen(t testing.TB, d Device, counter uint64) (*Journal, []string) {
	t.Helper()
	j, got, err := reopen(d, counter)
	if err != nil {
		t.Fatal(err)
	}
	return j, got
}

// entries of several sizes: less than a sector, several sectors, several blocks.
func entries(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("entry %d ", i) + string(bytes.Repeat([]byte{byte('a' + i%26)}, []int{10, 700, 3_000, 9_000}[i%4]))
	}
	return list
}

func commit(t testing.TB, j *Journal, list ...string) {
	t.Helper()
	for _, e := range list {
		if err := j.Commit([]byte(e)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestReplay(t *testing.T) {
	d := newDisk(1 << 20)
	want := entries(12)
	j, got := mustOpen(t, d, 0)
	if len(got) != 0 || j.Boot() != 1 {
		t.Fatalf("new journal: %d entries, boot %d; want none, 1", len(got), j.Boot())
	}
	commit(t, j, want[:4]...)
	if err := j.Commit([]byte(want[4]), []byte(want[5]), nil); err != nil {
		t.Fatal(err)
	}
	j, got = mustOpen(t, d, 1)
	if !slices.Equal(got, append(slices.Clone(want[:6]), "")) {
		t.Fatalf("second boot: got %d entries, want what was committed", len(got))
	}
	commit(t, j, want[6:]...)
	// A boot after which the counter was not raised begins the same boot again.
	for range 2 {
		j, got = mustOpen(t, d, 2)
		if len(got) != 13 || j.Boot() != 3 {
			t.Fatalf("third boot: %d entries, boot %d; want 13, 3", len(got), j.Boot())
		}
	}
	mustOpen(t, d, 3)
}

func TestFile(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "journal"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(1 << 20); err != nil {
		t.Fatal(err)
	}
	j, _ := mustOpen(t, Disk{f}, 0)
	commit(t, j, entries(5)...)
	if _, got := mustOpen(t, Disk{f}, 1); !slices.Equal(got, entries(5)) {
		t.Errorf("got %d entries, want what was committed", len(got))
	}
}

// TestPowerCut cuts power during each write, with several choices of the sectors that reached the disk. What was
// acknowledged must be there, what was not may be there whole or not at all, and the journal must go on.
func TestPowerCut(t *testing.T) {
	want := entries(9)
	clean := newDisk(1 << 20)
	j, _ := mustOpen(t, clean, 0)
	commit(t, j, want...)
	total := clean.writes
	if total != 2+len(want) {
		t.Fatalf("%d writes, want one for header, boot and each commit", total)
	}
	for stop := 1; stop <= total; stop++ {
		for seed := range uint64(12) {
			d := newDisk(1 << 20)
			acked := 0
			power := errors.New("power cut")
			d.onSync = func() error {
				if d.writes == stop {
					return power
				}
				return nil
			}
			j, _, err := reopen(d, 0)
			for err == nil && acked < len(want) {
				if err = j.Commit([]byte(want[acked])); err == nil {
					acked++
				}
			}
			random := rand.New(rand.NewPCG(seed, uint64(stop)))
			after := d.cut(func(int64) bool { // none, all, or a random part
				return seed == 1 || seed > 1 && random.IntN(3) > 0
			})
			j, got, err := reopen(after, 0)
			if err != nil {
				t.Fatalf("cut in write %d, choice %d: %v", stop, seed, err)
			}
			if len(got) < acked || len(got) > acked+1 || !slices.Equal(got, want[:len(got)]) {
				t.Fatalf("cut in write %d, choice %d: %d entries, %d were acknowledged", stop, seed, len(got), acked)
			}
			if seed == 1 && len(got) != min(acked+1, len(want)) && stop > 2 {
				t.Fatalf("cut in write %d: all sectors are there, but the record is not", stop)
			}
			commit(t, j, "later")
			if _, again := mustOpen(t, after, 1); !slices.Equal(again, append(slices.Clone(want[:len(got)]), "later")) {
				t.Fatalf("cut in write %d, choice %d: after going on, %d entries", stop, seed, len(again))
			}
		}
	}
}

// TestFaults is the table of what a failing disk can have done: the caller is told of a failure in each case, and the
// next Open finds the entry or not, but nothing else.
func TestFaults(t *testing.T) {
	fault := errors.New("input/output error")
	for _, tt := range []struct {
		name string
		set  func(d *disk)
		kept bool
	}{
		{"write fails, not kept", func(d *disk) { d.onWrite = func(int) error { return fault } }, false},
		{"flush fails, not kept", func(d *disk) { d.onSync = func() error { clear(d.pending); return fault } }, false},
		{"flush fails, kept", func(d *disk) { d.onSync = func() error { return fault }; d.syncKeep = true }, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newDisk(1 << 20)
			j, _ := mustOpen(t, d, 0)
			commit(t, j, "before")
			tt.set(d)
			if err := j.Commit([]byte("during")); !errors.Is(err, ErrBroken) {
				t.Fatalf("got error %v, want %v", err, ErrBroken)
			}
			d.onWrite, d.onSync = nil, nil
			if err := j.Commit([]byte("after")); !errors.Is(err, ErrBroken) {
				t.Fatalf("commit on a broken journal: got error %v, want %v", err, ErrBroken)
			}
			want := []string{"before"}
			if tt.kept {
				want = append(want, "during")
			}
			if _, got := mustOpen(t, d.cut(func(int64) bool { return false }), 1); !slices.Equal(got, want) {
				t.Errorf("opened again: got %q, want %q", got, want)
			}
		})
	}
}

func TestFull(t *testing.T) {
	d := newDisk(8 * blockBytes)
	j, _ := mustOpen(t, d, 0)
	var want []string
	for j.Room(EntryPayload(100)) {
		want = append(want, string(bytes.Repeat([]byte{'x'}, 100)))
		commit(t, j, want[len(want)-1])
	}
	if len(want) != 6 {
		t.Errorf("%d commits fit, want 6", len(want))
	}
	for range 2 {
		if err := j.Commit(make([]byte, 100)); !errors.Is(err, ErrFull) {
			t.Fatalf("got error %v, want %v", err, ErrFull)
		}
	}
	if _, _, err := reopen(d, 1); !errors.Is(err, ErrFull) {
		t.Errorf("opening a full journal: got error %v, want %v: there is no room for the boot record", err, ErrFull)
	}
}

func TestCommitRefuses(t *testing.T) {
	j, _ := mustOpen(t, newDisk(4<<20), 0)
	if err := j.Commit(); err == nil {
		t.Error("no entries: got no error, want one")
	}
	if err := j.Commit(make([]byte, MaxPayload)); err == nil {
		t.Error("one byte too many: got no error, want one")
	}
	if err := j.Commit(make([]byte, MaxPayload-4)); err != nil {
		t.Errorf("the most that fits: %v", err)
	}
}

func TestReplayErrorEndsOpen(t *testing.T) {
	d := newDisk(1 << 20)
	j, _ := mustOpen(t, d, 0)
	commit(t, j, "one")
	stop := errors.New("no such entry")
	if _, err := Open(d, testKey, 1, func([]byte) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("got error %v, want %v", err, stop)
	}
}

func BenchmarkCommit(b *testing.B) {
	f, err := os.Create(filepath.Join(b.TempDir(), "journal"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(maxDevice); err != nil {
		b.Fatal(err)
	}
	j, _ := mustOpen(b, Disk{f}, 0)
	entry := make([]byte, 800)
	b.Run("fdatasync-alone", func(b *testing.B) {
		block := make([]byte, blockBytes)
		for b.Loop() {
			if _, err := f.WriteAt(block, maxDevice-blockBytes); err != nil {
				b.Fatal(err)
			}
			if err := (Disk{f}).Sync(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("one-entry", func(b *testing.B) {
		for b.Loop() {
			if err := j.Commit(entry); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("64-entries", func(b *testing.B) {
		list := slices.Repeat([][]byte{entry}, 64)
		for b.Loop() {
			if err := j.Commit(list...); err != nil {
				b.Fatal(err)
			}
		}
	})
}
