// Package journal keeps what must not be lost on a raw disk that the host owns: a ring of encrypted records, each bound to its place, its
// number and the record before it. Records carry checkpoints of what they add up to, so the ring never fills and a boot reads a bounded
// part of it. No file system and no superblock is read; JOURNAL.md beside this file is the layout.
//
// The common path: Open replays to its owner the second newest checkpoint and what follows it, and writes a boot record; Commit appends
// many entries with one write and one flush, and returns when they are durable. Checkpoints go along with both: the owner is asked for its
// state in parts.
//
// A power cut can tear the last record only. It is told from tampering by this: beyond the last record lie zeros, authentic sectors of
// older records, or authentic sectors of the torn one, which was never acknowledged. A sector that is neither, a hole with anything newer
// behind it, a disk that has become shorter, or another guest's disk is refused, each with an error of its own.
//
// What this package does not promise. Whoever holds the disk can put an older state of it back, which erasing the last
// record is a case of. Across boots the boot counter, which the caller keeps elsewhere, catches a state from before the
// last boot. Nothing here catches a return to a state since the last boot began: only those who were shown a later record
// can tell.
package journal

import (
	"encoding/binary"
	"errors"
	"fmt"

	"chrysalis/runtime/role"
)

// The refusals of Open and Commit. Each is a different thing that happened to the disk.
var (
	ErrForeign    = errors.New("the disk is another guest's, or no journal")
	ErrOld        = errors.New("the journal is of an older layout")
	ErrChanged    = errors.New("a record was changed")
	ErrGap        = errors.New("records are missing before others")
	ErrShort      = errors.New("the disk was cut short")
	ErrRolledBack = errors.New("the disk is older than the last boot")
	ErrFull       = errors.New("the journal's disk is too small for what it must keep")
	ErrBroken     = errors.New("the disk fails")
)

// ErrReleased says that the ring has come round to an entry.
var ErrReleased = errors.New("the entry is not there any more")

// words are what the keeper says of each refusal.
var words = []struct {
	err  error
	word role.Word
}{
	{ErrForeign, role.JournalForeign}, {ErrOld, role.JournalOld}, {ErrChanged, role.JournalCorrupt}, {ErrGap, role.JournalTorn},
	{ErrShort, role.JournalShort}, {ErrRolledBack, role.JournalRolledBack}, {ErrFull, role.JournalFull}, {ErrBroken, role.JournalIO},
}

// Word returns the keeper's word for an error of this package.
func Word(err error) role.Word {
	for _, w := range words {
		if errors.Is(err, w.err) {
			return w.word
		}
	}
	return role.JournalRefused
}

// Device is the disk. Sync returns when everything written is durable.
type Device interface {
	ReadAt(p []byte, off int64) (int, error)
	WriteAt(p []byte, off int64) (int, error)
	Sync() error
	Size() (int64, error)
}

// Owner is whose journal it is. The slices that it gets are its until it returns.
//
// While Open reads, it gets Begin, Part and End of checkpoints, and entries, in the order in which they were written: at first, unless the
// journal is new, a Begin, and entries between the parts of that checkpoint, of which a later part may say what they said. Its error ends
// Open and counts as a change of the record.
//
// Then it is asked for checkpoints: Head when one begins, and Next until it returns nothing. One that Open has read the beginning and not
// the end of goes on: Next then returns the parts that were not read.
type Owner interface {
	Begin(head []byte) error
	Part(part []byte) error
	End() error
	Entry(entry []byte, at Place) error

	// Head returns what is not part of any part. What it returns and what Next returns is the state behind the entries of the
	// Commit that asks.
	Head() []byte
	// Next returns a part of at most that many bytes, which are 512 at least, or nothing when the checkpoint has them all.
	Next(most int) []byte
}

// Place is where an entry lies: the offset of the sector in which it begins, and the byte in that sector's data. No entry has place zero.
type Place uint64

// Sizes in bytes. The layout is JOURNAL.md's.
const (
	blockBytes  = 4096
	ringStart   = 2 * blockBytes
	frameBytes  = 1 + 4           // kind and length
	headBytes   = 4 + len(salt{}) // length of the payload, salt of the record before
	beginBytes  = 8 + 8           // boot, clean
	maxSectors  = 1024            // of one record
	minDevice   = 256 << 10       // smallest disk
	carryBytes  = 16 << 10        // of a checkpoint with each record, at least
	maxDistance = 8 << 20         // between the beginnings of two checkpoints
	minPart     = 512             // asked of an owner at least
	wipeBytes   = 64 << 10        // made clean at a time
)

type kind uint8

const (
	kindBoot  kind = 1
	kindEntry kind = 2
	kindBegin kind = 3
	kindPart  kind = 4
	kindEnd   kind = 5
)

// mark is the place of a record with which reading can begin.
type mark struct {
	off    int64
	number uint64
	prev   salt
	at     int64 // as Journal.at
}

// Journal is an open journal. It belongs to one goroutine.
type Journal struct {
	dev    Device
	owner  Owner
	sealer sealer
	ahead  window // of the disk, while Open reads

	size   int64  // of the disk as far as it is used
	end    int64  // where the next record begins
	at     int64  // bytes from where reading began to the end, however often the ring came round
	next   uint64 // number of the next record
	prev   salt   // of the last record
	boot   uint64 // of the last boot record
	clean  int64  // up to here the disk is zero or this journal's
	broken error  // set by the first failed write: what lies on the disk is not known any more

	reading      bool // a checkpoint's beginning was read or written
	open         bool // the newest checkpoint is not whole yet
	begun        mark // the newest checkpoint
	newer, older mark // the two newest that are whole, or one twice
	whole        int  // how many are, since reading began
	start        mark // what both anchors name
	slots        [2]anchor
}

// Open replays the journal on dev to its owner, whose key is this guest's alone, and begins a boot. counter says how many boots the
// caller has completed, by a register that the host can't turn back; the new boot record carries counter + 1, and the
// caller must raise the register to that before the guest serves. A blank disk becomes a journal if counter is 0.
func Open(dev Device, key [32]byte, counter uint64, owner Owner) (*Journal, error) {
	j := &Journal{dev: dev, owner: owner, sealer: sealer{root: key}}
	if err := j.begin(counter); err != nil {
		return nil, fmt.Errorf("opening journal: %w", err)
	}
	j.ahead = window{}
	return j, nil
}

func (j *Journal) begin(counter uint64) error {
	device, err := j.dev.Size()
	if err != nil {
		return fmt.Errorf("%w: %v", ErrBroken, err)
	}
	device = device / blockBytes * blockBytes
	if device < minDevice {
		return fmt.Errorf("%w: %d bytes, want at least %d", ErrShort, device, minDevice)
	}
	named, err := j.anchors(device)
	if err != nil {
		return err
	}
	if named == nil {
		if named, err = j.blank(device, counter); err != nil {
			return err
		}
	}
	j.size, j.start, j.older = named.size, named.start, named.start
	j.end, j.next, j.prev = j.start.off, j.start.number, j.start.prev
	if err := j.scan(named.durable); err != nil {
		return err
	}
	switch {
	case j.next == 0 && counter != 0:
		return fmt.Errorf("%w: it is empty, but %d boots came before", ErrRolledBack, counter)
	case j.boot < counter:
		return fmt.Errorf("%w: its last boot is %d, want %d", ErrRolledBack, j.boot, counter)
	case j.boot > counter+1:
		return fmt.Errorf("%w: its last boot is %d, want at most %d", ErrForeign, j.boot, counter+1)
	}
	if j.end >= j.start.off && j.at < j.ring() {
		j.size = device // nothing that must be kept lies across the end
	}
	// Before anything is written over, both anchors name where this reading began.
	for j.anchorDue(j.start) && j.broken == nil {
		j.writeAnchor(j.start)
		j.sync()
	}
	j.boot = counter + 1
	_, err = j.append(frame(nil, kindBoot, binary.LittleEndian.AppendUint64(nil, j.boot)))
	return err
}

// Boot returns the number of this boot: the value to which the caller must raise its counter.
func (j *Journal) Boot() uint64 { return j.boot }

// Size returns how many bytes of the disk the journal has.
func (j *Journal) Size() int64 { return j.size }

// MaxState returns how many bytes the parts of a checkpoint may have together. An owner that has more may come to ErrFull.
func (j *Journal) MaxState() int64 { return j.ring() / 12 }

// MaxEntries returns how many bytes the entries of one Commit may have, each as EntryPayload counts it.
func (j *Journal) MaxEntries() int { return j.maxPayload() / 2 }

// EntryPayload returns what an entry of n bytes takes of MaxEntries.
func EntryPayload(n int) int { return frameBytes + n }

func (j *Journal) ring() int64 { return j.size - ringStart }

// sectors returns how many sectors a record has at most.
func (j *Journal) sectors() int { return int(min(maxSectors, j.ring()/16/sectorBytes)) }

func (j *Journal) maxPayload() int { return j.sectors()*dataBytes - headBytes }

// distance returns how many bytes lie between the beginnings of two checkpoints, at least.
func (j *Journal) distance() int64 { return min(maxDistance, j.ring()/6) }

// reach returns how far beyond the head Open looks.
func (j *Journal) reach() int64 { return int64(j.sectors()*sectorBytes + blockBytes) }

// Commit appends entries as one record and returns where they lie once they are durable. After an error of the disk it is not known
// whether they are there, and every later Commit fails too: the next Open tells.
func (j *Journal) Commit(entries ...[]byte) ([]Place, error) {
	var front []byte
	for _, e := range entries {
		front = frame(front, kindEntry, e)
	}
	if len(entries) == 0 || len(front) > j.MaxEntries() {
		return nil, fmt.Errorf("committing: %d entries of %d bytes, want 1 or more of at most %d", len(entries), len(front), j.MaxEntries())
	}
	begin, err := j.append(front)
	if err != nil {
		return nil, fmt.Errorf("committing: %w", err)
	}
	places := make([]Place, len(entries))
	for i, at := 0, headBytes; i < len(entries); i++ {
		places[i] = j.place(begin, at)
		at += frameBytes + len(entries[i])
	}
	return places, nil
}

// Entry reads an entry that Commit or Open has given the place of. ErrReleased says that the ring has come round to it.
func (j *Journal) Entry(at Place) ([]byte, error) {
	off := int64(at) / sectorBytes * sectorBytes
	skip := int(int64(at) % sectorBytes)
	var data []byte
	var last sector
	for want := skip + frameBytes; len(data) < want; {
		raw := make([]byte, sectorBytes)
		if off < ringStart || off >= j.size || skip >= dataBytes {
			return nil, fmt.Errorf("reading entry at %d: %w", at, ErrReleased)
		}
		if n, err := j.dev.ReadAt(raw, off); n != len(raw) {
			return nil, fmt.Errorf("reading entry at %d: %w: %v", at, ErrBroken, err)
		}
		s, state := j.sealer.open(raw, off)
		if state != sectorAuthentic || data != nil && (s.salt != last.salt || s.index != last.index+1) {
			return nil, fmt.Errorf("reading entry at %d: %w", at, ErrReleased)
		}
		data = append(data, s.data...)
		if last, off = s, j.behind(off, 1); len(data) < skip+frameBytes {
			continue
		}
		n := binary.LittleEndian.Uint32(data[skip+1:])
		if kind(data[skip]) != kindEntry || uint64(n) > uint64(j.MaxEntries()) {
			return nil, fmt.Errorf("reading entry at %d: %w", at, ErrReleased)
		}
		want = skip + frameBytes + int(n)
	}
	return data[skip+frameBytes:][:binary.LittleEndian.Uint32(data[skip+1:])], nil
}

// behind returns the offset that lies n sectors behind off.
func (j *Journal) behind(off int64, n int) int64 {
	if off += int64(n) * sectorBytes; off >= j.size {
		off -= j.ring()
	}
	return off
}

// place returns the place of byte at of the data of the record that begins at off.
func (j *Journal) place(off int64, at int) Place {
	return Place(j.behind(off, at/dataBytes)) + Place(at%dataBytes)
}

func frame(b []byte, k kind, bytes []byte) []byte {
	return append(binary.LittleEndian.AppendUint32(append(b, byte(k)), uint32(len(bytes))), bytes...)
}

// append writes a record with these frames, and what of a checkpoint goes along, and returns where it begins.
func (j *Journal) append(payload []byte) (int64, error) {
	if j.broken != nil {
		return 0, j.broken
	}
	carry := max(carryBytes, len(payload))
	begins, ended := !j.open && (!j.reading || j.at-j.begun.at >= j.distance()), false
	carries := j.open // not the record with the beginning: its entries are before it, and have no place yet
	if begins {
		head := binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, j.boot), uint64(j.clean))
		payload = frame(payload, kindBegin, append(head, j.owner.Head()...))
	}
	for carries && carry >= minPart {
		room := min(carry, j.maxPayload()-len(payload)-2*frameBytes)
		if room < minPart {
			break
		}
		part := j.owner.Next(room)
		if len(part) > room {
			panic(fmt.Sprintf("journal: a part of %d bytes, want at most %d", len(part), room))
		}
		if len(part) == 0 {
			payload, ended = frame(payload, kindEnd, nil), true
			break
		}
		payload = frame(payload, kindPart, part)
		carry -= len(part)
	}
	count := (headBytes + len(payload) + dataBytes - 1) / dataBytes
	if count > j.sectors() {
		panic(fmt.Sprintf("journal: a record of %d sectors, want at most %d", count, j.sectors()))
	}
	if used := j.at - j.start.at + int64(count)*sectorBytes; used > j.ring() {
		j.broken = fmt.Errorf("%w: %d bytes of %d", ErrFull, used, j.ring())
		return 0, j.broken
	}
	j.wipe(j.end + int64(count)*sectorBytes + j.reach())
	if j.anchorDue(j.older) {
		j.writeAnchor(j.older)
	}
	at := mark{j.end, j.next, j.prev, j.at}
	made, record := j.sealer.record(j.next, j.prev, payload, count, func(i int) int64 { return j.behind(at.off, i) })
	first := min(int64(len(record)), j.size-j.end)
	j.write(record[:first], j.end)
	if first < int64(len(record)) {
		j.write(record[first:], ringStart)
	}
	if j.sync(); j.broken != nil {
		return 0, j.broken
	}
	if !j.anchorDue(j.older) {
		j.start = j.older
	}
	j.advance(made, count)
	if begins {
		j.begins(at)
	}
	if ended {
		j.ends()
	}
	return at.off, nil
}

// begins makes the record at m the one in which the newest checkpoint begins.
func (j *Journal) begins(m mark) { j.begun, j.open, j.reading = m, true, true }

// ends makes the newest checkpoint a whole one.
func (j *Journal) ends() {
	if j.whole > 0 {
		j.older = j.newer
	}
	j.newer, j.open = j.begun, false
	j.whole++
}

// write writes to the disk's cache, unless it has failed before.
func (j *Journal) write(p []byte, at int64) {
	if j.broken != nil {
		return
	}
	n, err := j.dev.WriteAt(p, at)
	if err == nil && n != len(p) {
		err = fmt.Errorf("%d of %d bytes written", n, len(p))
	}
	if err != nil {
		j.broken = fmt.Errorf("%w: writing at %d: %v", ErrBroken, at, err)
	}
}

// sync makes what was written durable.
func (j *Journal) sync() {
	if j.broken != nil {
		return
	}
	if err := j.dev.Sync(); err != nil {
		j.broken = fmt.Errorf("%w: flushing: %v", ErrBroken, err)
	}
}

// wipe makes the disk clean up to an offset: what is there is read, and zeroed where it is not zero, before anything is written that would
// have the next Open look at it.
func (j *Journal) wipe(to int64) {
	if to = min(to, j.size); j.clean >= to {
		return
	}
	part := make([]byte, wipeBytes)
	for ; j.clean < to && j.broken == nil; j.clean += int64(len(part)) {
		part = part[:min(wipeBytes, j.size-j.clean)]
		if n, err := j.dev.ReadAt(part, j.clean); n != len(part) {
			j.broken = fmt.Errorf("%w: reading at %d: %v", ErrBroken, j.clean, err)
			return
		}
		if !zero(part) {
			clear(part)
			j.write(part, j.clean)
			j.sync()
		}
	}
}

// advance makes a record of so many sectors, which lies at the end, the last one.
func (j *Journal) advance(s salt, sectors int) {
	before := j.end
	j.end = j.behind(j.end, sectors)
	if j.end < before {
		j.clean = j.size // the ring has come round
	}
	j.prev = s
	j.next++
	j.at += int64(sectors) * sectorBytes
}
