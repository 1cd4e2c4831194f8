package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// disk is a device in memory that loses what was not synced when power is cut. Hooks fail a write or a sync.
type disk struct {
	durable  []byte
	read     int64            // bytes
	pending  map[int64][]byte // sectors written since the last sync
	writes   int
	onWrite  func(n int) error // before a write is taken
	onSync   func() error      // before a sync is made
	syncKeep bool              // a sync that fails has still made everything durable
}

func newDisk(size int) *disk { return &disk{durable: make([]byte, size), pending: map[int64][]byte{}} }

func (d *disk) Size() (int64, error) { return int64(len(d.durable)), nil }

func (d *disk) ReadAt(p []byte, off int64) (int, error) {
	d.read += int64(len(p))
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

// tally is an owner that counts by name, as a keeper counts by contract. An entry is the number of all before it, the name's count with it,
// the name, and padding.
type tally struct {
	total  uint64
	sums   map[string]uint64
	names  []string
	marked map[string]int // in which round a name was last part of a checkpoint
	round  int
	cursor int
	whole  bool // a checkpoint was read whole, or there is none
	began  bool
	places map[string]Place // of each name's newest entry
	newest map[string]string
	parts  int
	wide   int // bytes that a part has for nothing beside each name
}

func newTally() *tally {
	return &tally{sums: map[string]uint64{}, marked: map[string]int{}, places: map[string]Place{}, newest: map[string]string{}}
}

func (y *tally) set(name string, count uint64) {
	if _, ok := y.sums[name]; !ok {
		y.names = append(y.names, name)
	}
	y.sums[name] = count
}

// entry makes the next entry of a name and counts it.
func (y *tally) entry(name string, padding int) []byte {
	e := binary.LittleEndian.AppendUint64(nil, y.total)
	e = binary.LittleEndian.AppendUint64(e, y.sums[name]+1)
	y.total++
	y.set(name, y.sums[name]+1)
	return append(append(append(e, byte(len(name))), name...), bytes.Repeat([]byte{'x'}, padding)...)
}

func (y *tally) Entry(e []byte, at Place) error {
	total, count, name := binary.LittleEndian.Uint64(e), binary.LittleEndian.Uint64(e[8:]), string(e[17:17+e[16]])
	if total != y.total {
		return fmt.Errorf("entry %d after %d", total, y.total)
	}
	if before, ok := y.sums[name]; (ok || y.whole) && count != before+1 {
		return fmt.Errorf("entry counts %q to %d after %d", name, count, before)
	}
	y.total++
	y.set(name, count)
	y.places[name], y.newest[name] = at, string(e)
	return nil
}

func (y *tally) Begin(head []byte) error {
	if total := binary.LittleEndian.Uint64(head); y.began && total != y.total {
		return fmt.Errorf("a checkpoint of %d entries after %d", total, y.total)
	}
	y.total, y.began = binary.LittleEndian.Uint64(head), true
	y.round++
	y.cursor = 0
	return nil
}

func (y *tally) Part(part []byte) error {
	for y.parts++; len(part) > 0; {
		n := int(part[0])
		name, count := string(part[1:1+n]), binary.LittleEndian.Uint64(part[1+n:])
		if before, ok := y.sums[name]; (ok || y.whole) && count != before {
			return fmt.Errorf("a part has %q at %d, want %d", name, count, before)
		}
		y.set(name, count)
		y.marked[name] = y.round
		part = part[1+n+8+y.wide:]
	}
	return nil
}

func (y *tally) End() error { y.whole = true; return nil }

func (y *tally) Head() []byte {
	y.round++
	y.cursor, y.whole = 0, true
	return binary.LittleEndian.AppendUint64(nil, y.total)
}

func (y *tally) Next(most int) []byte {
	var part []byte
	for ; y.cursor < len(y.names); y.cursor++ {
		name := y.names[y.cursor]
		if y.marked[name] == y.round {
			continue
		}
		if len(part)+1+len(name)+8+y.wide > most {
			break
		}
		part = binary.LittleEndian.AppendUint64(append(append(part, byte(len(name))), name...), y.sums[name])
		part = append(part, make([]byte, y.wide)...)
		y.marked[name] = y.round
	}
	return part
}

// log is a tally with its journal.
type log struct {
	*tally
	*Journal
}

func reopen(d Device, counter uint64) (log, error) { return reopenWide(d, counter, 0) }

func reopenWide(d Device, counter uint64, wide int) (log, error) {
	y := newTally()
	y.wide = wide
	j, err := Open(d, testKey, counter, y)
	return log{y, j}, err
}

func mustOpen(t testing.TB, d Device, counter uint64) log {
	t.Helper()
	l, err := reopen(d, counter)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// add commits one entry of a name.
func (l log) add(name string, padding int) error {
	e := l.entry(name, padding)
	at, err := l.Commit(e)
	if err == nil {
		l.places[name], l.newest[name] = at[0], string(e)
	}
	return err
}

func (l log) mustAdd(t testing.TB, name string, padding int) {
	t.Helper()
	if err := l.add(name, padding); err != nil {
		t.Fatal(err)
	}
}

// run commits entries of several names and sizes: less than a sector, several sectors, several blocks.
func run(t testing.TB, l log, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		l.mustAdd(t, nameOf(i), sizeOf(i))
	}
}

func nameOf(i int) string { return fmt.Sprintf("client %d", i*i%23) }
func sizeOf(i int) int    { return []int{10, 700, 3_000, 6_000}[i%4] }

// counted returns what the first n entries of run add up to.
func counted(n int) map[string]uint64 {
	sums := map[string]uint64{}
	for i := range n {
		sums[nameOf(i)]++
	}
	return sums
}

func (l log) want(t testing.TB, n int) {
	t.Helper()
	if l.total != uint64(n) || !maps.Equal(l.sums, counted(n)) {
		t.Fatalf("%d entries were counted as %v, want %d: %v", l.total, l.sums, n, counted(n))
	}
}

const small = minDevice // its ring comes round after some sixty entries of run

func TestReplay(t *testing.T) {
	d := newDisk(small)
	l := mustOpen(t, d, 0)
	if l.total != 0 || l.Boot() != 1 {
		t.Fatalf("new journal: %d entries, boot %d; want none, 1", l.total, l.Boot())
	}
	n, boots := 0, uint64(0)
	for _, more := range []int{0, 1, 7, 30, 200, 1, 500, 3} {
		boots++
		l = mustOpen(t, d, boots)
		l.want(t, n)
		run(t, l, n, n+more)
		n += more
	}
	// Entries of one commit, one of them empty of all but its name.
	many := [][]byte{l.entry("a", 0), l.entry("b", 3000), l.entry("a", 1)}
	places, err := l.Commit(many...)
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range places {
		if got, err := l.Journal.Entry(p); err != nil || !bytes.Equal(got, many[i]) {
			t.Errorf("entry %d: got %d bytes and error %v, want %d", i, len(got), err, len(many[i]))
		}
	}
	// A boot after which the counter was not raised begins the same boot again.
	for range 2 {
		l = mustOpen(t, d, boots+1)
		if l.total != uint64(n)+3 || l.sums["a"] != 2 || l.Boot() != boots+2 {
			t.Fatalf("%d entries, %d of a, boot %d; want %d, 2, %d", l.total, l.sums["a"], l.Boot(), n+3, boots+2)
		}
	}
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
	run(t, mustOpen(t, Disk{f}, 0), 0, 900)
	mustOpen(t, Disk{f}, 1).want(t, 900)
}

// TestNeverFills: a ring takes many times what it holds, across boots, and each boot reads no more of the disk for it.
func TestNeverFills(t *testing.T) {
	for _, size := range []int{small, 1 << 20, 3<<20 + 5*blockBytes + 7} {
		d := newDisk(size)
		boots, n, written := uint64(0), 0, int64(0)
		for written < 12*int64(size) {
			d.read = 0
			l := mustOpen(t, d, boots)
			l.want(t, n)
			if most := 4*l.distance() + 4*l.reach() + 2*windowBytes; d.read > most {
				t.Fatalf("boot %d of a disk of %d bytes read %d, want at most %d", boots, size, d.read, most)
			}
			before := l.Journal.at
			run(t, l, n, n+150)
			n += 150
			written += l.Journal.at - before
			boots++
		}
	}
}

// TestBootsAlone: boots without an answer between them fill nothing either.
func TestBootsAlone(t *testing.T) {
	d := newDisk(small)
	run(t, mustOpen(t, d, 0), 0, 40)
	for boots := uint64(1); boots < 550; boots++ {
		mustOpen(t, d, boots).want(t, 40)
	}
}

// TestManyNames: a state that takes all that it may is carried from checkpoint to checkpoint, boots in the middle of one or not.
func TestManyNames(t *testing.T) {
	d := newDisk(1 << 20)
	l := mustOpen(t, d, 0)
	each := int64(1 + 8 + 8)
	most := int(l.MaxState() / each)
	sums := map[string]uint64{}
	name := func(i int) string { return fmt.Sprintf("%08d", i%most) }
	for i, boots := 0, uint64(1); i < 3*most; i++ {
		sums[name(i)]++
		l.mustAdd(t, name(i), 300)
		if i%(most/3) == most/4 {
			l = mustOpen(t, d, boots)
			if boots++; !maps.Equal(l.sums, sums) {
				t.Fatalf("after %d entries another count came out", i+1)
			}
		}
	}
	if l.Journal.whole < 1 || l.parts < 10 {
		t.Fatalf("%d checkpoints of %d parts: nothing was tested", l.Journal.whole, l.parts)
	}
}

// TestReleases: nothing is given free before both anchors, on the disk, name what comes behind it.
func TestReleases(t *testing.T) {
	d := newDisk(small)
	l := mustOpen(t, d, 0)
	moved := uint64(0)
	for i := range 300 {
		l.mustAdd(t, nameOf(i), sizeOf(i))
		reader := &Journal{dev: d, sealer: sealer{root: testKey}}
		if _, err := reader.anchors(small); err != nil {
			t.Fatal(err)
		}
		for k, a := range reader.slots {
			if a.start.number < l.start.number || a.start.off == 0 || a.durable > l.next {
				t.Fatalf("after %d entries, anchor %d names record %d, and %d may be written over", i+1, k, a.start.number, l.start.number)
			}
		}
		moved = l.start.number
	}
	if moved < 100 {
		t.Errorf("the beginning moved to record %d: it tests nothing", moved)
	}
}

// TestRoundAcrossBoots has the ring come round for the first time before, at and after a boot. What was clean stays so: it is not written over
// for being read again.
func TestRoundAcrossBoots(t *testing.T) {
	d := newDisk(3 << 20)
	l := mustOpen(t, d, 0)
	n, round := 0, 0
	for ; round < 20; n += 5 {
		run(t, l, n, n+5)
		if l.Journal.at < l.ring()-l.distance() {
			continue
		}
		after := d.clone()
		again := mustOpen(t, after, 1)
		again.want(t, n+5)
		if again.end < again.start.off {
			if round++; again.clean != again.size {
				t.Fatalf("after %d entries the ring has come round, and is said to be clean up to %d of %d", n+5, again.clean, again.size)
			}
		}
		run(t, again, n+5, n+40)
		mustOpen(t, after, 2).want(t, n+40)
	}
}

// TestEntry: an entry can be read until the ring comes round to it, and never as another.
func TestEntry(t *testing.T) {
	d := newDisk(small)
	l := mustOpen(t, d, 0)
	l.mustAdd(t, "early", 5000)
	early, text := l.places["early"], l.newest["early"]
	released := false
	for i := range 400 {
		l.mustAdd(t, nameOf(i), sizeOf(i))
		switch got, err := l.Journal.Entry(early); {
		case errors.Is(err, ErrReleased):
			released = true
		case err != nil:
			t.Fatal(err)
		case string(got) != text && (len(got) < 16 || bytes.Equal(got[:16], []byte(text[:16]))):
			t.Fatalf("after %d more: got %d bytes, want the entry or none", i, len(got))
		}
	}
	if !released {
		t.Error("the ring came round and the entry was never released")
	}
	after := mustOpen(t, d, 1) // what Open has read has its place too
	for name, at := range after.places {
		if got, err := after.Journal.Entry(at); err != nil || string(got) != after.newest[name] {
			t.Errorf("newest entry of %s: got %d bytes and error %v, want %d", name, len(got), err, len(after.newest[name]))
		}
	}
	for _, at := range []Place{0, 5, 4096, Place(ringStart + dataBytes), Place(d.size()), Place(d.size()) + 512, 1 << 62} {
		if got, err := after.Journal.Entry(at); !errors.Is(err, ErrReleased) {
			t.Errorf("place %d: got %d bytes and error %v, want %v", at, len(got), err, ErrReleased)
		}
	}
}

func (d *disk) size() int { return len(d.durable) }

// powerCut cuts power in one write after another of a script that goes on from a disk, with several choices of the sectors that reached the
// disk. What was acknowledged must be there, what was not may be there whole or not at all, and the journal must go on.
func powerCut(t *testing.T, base *disk, counter uint64, from, to int) (writes int) {
	t.Helper()
	clean := base.clone()
	l := mustOpen(t, clean, counter)
	l.want(t, from)
	run(t, l, from, to)
	total := clean.writes
	for stop := 1; stop <= total; stop++ {
		for seed := range uint64(3) {
			d := base.clone()
			power := errors.New("power cut")
			// The write before is not flushed either: where a commit has several writes, any of them may have reached the disk.
			d.onSync = func() error {
				if d.writes >= stop {
					return power
				}
				return nil
			}
			acked := from
			l, err := reopen(d, counter)
			for err == nil && acked < to {
				if err = l.add(nameOf(acked), sizeOf(acked)); err == nil {
					acked++
				}
			}
			random := rand.New(rand.NewPCG(seed, uint64(stop)))
			after := d.cut(func(int64) bool { // none, all, or a random part
				return seed == 1 || seed > 1 && random.IntN(3) > 0
			})
			l, err = reopen(after, counter)
			if err != nil {
				t.Fatalf("cut in write %d, choice %d: %v", stop, seed, err)
			}
			if got := int(l.total); got < acked || got > acked+1 {
				t.Fatalf("cut in write %d, choice %d: %d entries, %d were acknowledged", stop, seed, got, acked)
			}
			n := int(l.total)
			l.want(t, n)
			run(t, l, n, n+2)
			again := mustOpen(t, after, counter+1)
			again.want(t, n+2)
		}
	}
	return total
}

func TestPowerCut(t *testing.T) {
	if n := powerCut(t, newDisk(small), 0, 0, 9); n < 2+1+9 {
		t.Errorf("%d writes, want two anchors, one for the first boot and one each", n)
	}
}

// TestPowerCutInCheckpoint cuts power in each write while a checkpoint is begun, carried on and ended, while the anchors are written, and
// while the ring comes round.
func TestPowerCutInCheckpoint(t *testing.T) {
	d := newDisk(small)
	l := mustOpen(t, d, 0)
	n, boots := 0, uint64(1)
	for from := 0; from < 150; from += 30 {
		l = mustOpen(t, d.clone(), boots)
		run(t, l, n, n+30)
		ends, rounds := l.Journal.whole, l.Journal.end
		powerCut(t, d, boots, n, n+30)
		l = mustOpen(t, d, boots)
		run(t, l, n, n+30)
		n += 30
		boots++
		t.Logf("to %d entries: %d checkpoints whole, the head at %d", n, ends, rounds)
	}
	if l.Journal.clean != l.size || l.slots[0].generation < 6 {
		t.Errorf("clean up to %d of %d, anchors of generation %d: the ring never came round", l.Journal.clean, l.size, l.slots[0].generation)
	}
}

// TestBootsInCheckpoint cuts power after each few writes of one checkpoint that many boots carry on.
func TestBootsInCheckpoint(t *testing.T) {
	const names, wide = 150, 480 // so that a checkpoint takes several records
	d := newDisk(1 << 20)
	l, err := reopenWide(d, 0, wide)
	if err != nil {
		t.Fatal(err)
	}
	add := func() error { return l.add(fmt.Sprint(l.total%names), sizeOf(int(l.total))) }
	for range 2 * names {
		if err := add(); err != nil {
			t.Fatal(err)
		}
	}
	inOpen := 0
	for boots := uint64(1); boots < 150; boots++ {
		writes := int(boots % 3)
		d.writes = 0
		d.onSync = func() error {
			if d.writes > writes {
				return errors.New("power cut")
			}
			return nil
		}
		acked := l.total
		if l, err = reopenWide(d, boots, wide); err == nil {
			for err = add(); err == nil; err = add() {
				acked++
			}
		}
		d.onSync = nil
		d = d.cut(func(at int64) bool { return (at/sectorBytes+int64(boots))%3 > 0 })
		if l, err = reopenWide(d, boots, wide); err != nil {
			t.Fatalf("boot %d: %v", boots, err)
		}
		if l.open {
			inOpen++
		}
		if l.total < acked || l.total > acked+1 {
			t.Fatalf("boot %d: %d entries, %d were acknowledged", boots, l.total, acked)
		}
		for i := range uint64(names) {
			if got, want := l.sums[fmt.Sprint(i)], (l.total+names-1-i)/names; got != want {
				t.Fatalf("boot %d: %d has %d entries of %d, want %d", boots, i, got, l.total, want)
			}
		}
	}
	if inOpen < 4 {
		t.Errorf("%d boots were in a checkpoint: too few to test anything", inOpen)
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
			d := newDisk(small)
			l := mustOpen(t, d, 0)
			run(t, l, 0, 1)
			tt.set(d)
			if err := l.add(nameOf(1), 10); !errors.Is(err, ErrBroken) {
				t.Fatalf("got error %v, want %v", err, ErrBroken)
			}
			d.onWrite, d.onSync = nil, nil
			if err := l.add(nameOf(2), 10); !errors.Is(err, ErrBroken) {
				t.Fatalf("commit on a broken journal: got error %v, want %v", err, ErrBroken)
			}
			want := 1
			if tt.kept {
				want = 2
			}
			mustOpen(t, d.cut(func(int64) bool { return false }), 1).want(t, want)
		})
	}
}

// TestTooSmall: an owner that keeps more than it may is refused at last, and nothing that it needs was written over.
func TestTooSmall(t *testing.T) {
	d := newDisk(small)
	l := mustOpen(t, d, 0)
	var err error
	acked := 0
	for ; err == nil && acked < 20_000; acked++ {
		err = l.add(fmt.Sprintf("%032d", acked), 0)
	}
	if !errors.Is(err, ErrFull) {
		t.Fatalf("after %d names: got error %v, want %v", acked, err, ErrFull)
	}
	if again := l.add("one", 0); !errors.Is(again, ErrFull) {
		t.Errorf("once more: got error %v, want %v", again, ErrFull)
	}
	if int64(acked) < l.MaxState()/(32+9) {
		t.Errorf("it was refused after %d names, and may have %d", acked, l.MaxState()/(32+9))
	}
	larger := newDisk(4 * small)
	copy(larger.durable, d.durable)
	if grown, err := reopen(larger, 1); err == nil && grown.total != uint64(acked)-1 {
		t.Errorf("on a larger disk: %d entries, want %d", grown.total, acked-1)
	}
}

// TestGrows: a larger disk with the same beginning is used, at the latest when what must be kept does not lie across the old end.
func TestGrows(t *testing.T) {
	d := newDisk(small)
	n, boots := 0, uint64(0)
	grew := 0
	for ; boots < 60; boots++ {
		if boots == 20 {
			larger := newDisk(2 * small)
			random := rand.NewChaCha8([32]byte{})
			random.Read(larger.durable) // what a volume manager hands out need not be blank
			copy(larger.durable, d.durable)
			d = larger
		}
		l := mustOpen(t, d, boots)
		l.want(t, n)
		if l.Size() == 2*small {
			grew++
		}
		run(t, l, n, n+17)
		n += 17
	}
	if grew < 20 {
		t.Errorf("of 40 boots %d had the larger disk", grew)
	}
	if d.durable = d.durable[:small]; true {
		if _, err := reopen(d, boots); !errors.Is(err, ErrShort) {
			t.Errorf("cut back: got error %v, want %v", err, ErrShort)
		}
	}
}

// TestDirtyDisk: only the beginning of a disk must be blank.
func TestDirtyDisk(t *testing.T) {
	d := newDisk(1 << 20)
	l := mustOpen(t, newDisk(1<<20), 0)
	rand.NewChaCha8([32]byte{}).Read(d.durable[ringStart+l.reach():])
	n := 0
	for boots := range uint64(40) {
		l := mustOpen(t, d, boots)
		l.want(t, n)
		run(t, l, n, n+25)
		n += 25
	}
}

// TestShares: records that come one by one share blocks.
func TestShares(t *testing.T) {
	l := mustOpen(t, newDisk(1<<20), 0)
	before := l.Journal.at
	for range 30 {
		l.mustAdd(t, "a", 650)
	}
	if got := l.Journal.at - before; got != 30*2*sectorBytes {
		t.Errorf("30 entries of 667 bytes took %d bytes, want two sectors each", got)
	}
}

func TestCommitRefuses(t *testing.T) {
	l := mustOpen(t, newDisk(4<<20), 0)
	if _, err := l.Commit(); err == nil {
		t.Error("no entries: got no error, want one")
	}
	if _, err := l.Commit(make([]byte, l.MaxEntries()-frameBytes+1)); err == nil {
		t.Error("one byte too many: got no error, want one")
	}
	if err := l.add("a", l.MaxEntries()-EntryPayload(18)); err != nil {
		t.Errorf("the most that fits: %v", err)
	}
}

// stubborn takes nothing.
type stubborn struct {
	*tally
	err error
}

func (s stubborn) Entry([]byte, Place) error { return s.err }

func TestReplayErrorEndsOpen(t *testing.T) {
	d := newDisk(small)
	run(t, mustOpen(t, d, 0), 0, 1)
	stop := errors.New("no such entry")
	if _, err := Open(d, testKey, 1, stubborn{newTally(), stop}); !errors.Is(err, stop) || !errors.Is(err, ErrChanged) {
		t.Errorf("got error %v, want %v", err, stop)
	}
}
