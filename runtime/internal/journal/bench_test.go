package journal

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// filler is an owner whose state is so many bytes.
type filler struct{ size, left int }

func (f *filler) Entry([]byte, Place) error { return nil }
func (f *filler) Begin([]byte) error        { return nil }
func (f *filler) Part([]byte) error         { return nil }
func (f *filler) End() error                { return nil }
func (f *filler) Head() []byte              { f.left = f.size; return nil }
func (f *filler) Next(most int) []byte {
	n := min(most, f.left)
	f.left -= n
	return make([]byte, n)
}

// entryOfAnswer is what a paid answer takes.
const entryOfAnswer = 16 + 440 + 134

// BenchmarkCommit sets a commit beside the flush that it can't do without, each on a disk that has its blocks, by turns.
func BenchmarkCommit(b *testing.B) {
	const size = 64 << 20
	disk := func(b *testing.B) *os.File {
		b.Helper()
		f, err := os.Create(filepath.Join(b.TempDir(), "journal"))
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { f.Close() })
		for at := int64(0); at < size; at += 1 << 20 {
			if _, err := f.WriteAt(make([]byte, 1<<20), at); err != nil {
				b.Fatal(err)
			}
		}
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
		return f
	}
	bare := disk(b)
	block, at := make([]byte, blockBytes), int64(0)
	for _, run := range []struct {
		name    string
		entries int
		state   int // bytes, of which there is always a checkpoint under way
	}{{"one", 1, 0}, {"64", 64, 0}, {"one-in-checkpoint", 1, 100_000 * 49}} {
		b.Run(run.name, func(b *testing.B) {
			owner := &filler{size: run.state}
			j, err := Open(Disk{disk(b)}, testKey, 0, owner)
			if err != nil {
				b.Fatal(err)
			}
			list := slices.Repeat([][]byte{make([]byte, entryOfAnswer)}, run.entries)
			var flushes, commits []time.Duration
			began := j.at
			for b.Loop() {
				if run.state > 0 && !j.open { // the next begins with the next commit, not eight megabytes later
					j.begun.at = j.at - j.distance()
				}
				start := time.Now()
				if _, err := bare.WriteAt(block, at%size); err != nil {
					b.Fatal(err)
				}
				at += blockBytes
				if err := (Disk{bare}).Sync(); err != nil {
					b.Fatal(err)
				}
				flushed := time.Now()
				if _, err := j.Commit(list...); err != nil {
					b.Fatal(err)
				}
				flushes, commits = append(flushes, flushed.Sub(start)), append(commits, time.Since(flushed))
			}
			slices.Sort(flushes)
			slices.Sort(commits)
			n := len(commits)
			b.ReportMetric(float64(flushes[n/2].Microseconds()), "us-flush")
			b.ReportMetric(float64(commits[n/2].Microseconds()), "us-commit")
			b.ReportMetric(float64(commits[n/2])/float64(flushes[n/2]), "x-flush")
			b.ReportMetric(float64(j.at-began)/blockBytes/float64(n*run.entries), "blocks/answer")
		})
	}
}
