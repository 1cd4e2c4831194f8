// Package journal keeps what must not be lost on a raw disk that the host owns: an append-only row of encrypted records,
// each bound to its place, its number and the record before it. No file system and no superblock is read; JOURNAL.md
// beside this file is the layout.
//
// The common path: Open replays every entry and writes a boot record; Commit appends many entries with one write and one
// flush, and returns when they are durable.
//
// A power cut can tear the last record only. It is told from tampering by this: the space after the last record is zero,
// so each 512-byte sector of a torn record is either still zero or authentic. Such a record was never acknowledged; Open
// zeroes it and goes on. A sector that is neither, a hole with anything behind it, a disk that has become shorter, or
// another guest's disk is refused, each with an error of its own.
//
// What this package does not promise. Whoever holds the disk can put an older state of it back, which erasing the last
// record is a case of. Across boots the boot counter, which the caller keeps elsewhere, catches a state from before the
// last boot. Nothing here catches a return to a state since the last boot began: only those who were shown a later record
// can tell.
package journal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"chrysalis/runtime/role"
)

// The refusals of Open and Commit. Each is a different thing that happened to the disk.
var (
	ErrForeign    = errors.New("the disk is another guest's, or no journal")
	ErrChanged    = errors.New("a record was changed")
	ErrGap        = errors.New("records are missing before others")
	ErrShort      = errors.New("the disk was cut short")
	ErrRolledBack = errors.New("the disk is older than the last boot")
	ErrFull       = errors.New("the journal is full")
	ErrBroken     = errors.New("the disk fails")
)

// words are what the keeper says of each refusal.
var words = []struct {
	err  error
	word role.Word
}{
	{ErrForeign, role.JournalForeign}, {ErrChanged, role.JournalCorrupt}, {ErrGap, role.JournalTorn}, {ErrShort, role.JournalShort},
	{ErrRolledBack, role.JournalRolledBack}, {ErrFull, role.JournalFull}, {ErrBroken, role.JournalIO},
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

// Sizes in bytes.
const (
	sectorBytes = 512                      // what a disk writes whole or not at all
	blockBytes  = 4096                     // where a record begins, so that no write touches a committed one
	plainBytes  = sectorBytes - 12 - 16    // a sector without nonce and tag
	headBytes   = 4 + 4 + 32               // length, kind, hash of the payload
	maxSectors  = 512                      // of one record
	maxBytes    = maxSectors * sectorBytes // of one record
	maxDevice   = 1 << 30                  // of the disk, the rest is not used

	// MaxPayload is the most that one Commit takes: the entries, each with 4 bytes for its length.
	MaxPayload = maxSectors*plainBytes - headBytes
)

type kind uint32

const (
	kindHeader  kind = 1 // first record: 32 random bytes and the disk's size
	kindBoot    kind = 2 // boot counter after this boot
	kindEntries kind = 3
)

const label = "chrysalis journal v1\n"

// Journal is an open journal. It belongs to one goroutine.
type Journal struct {
	dev    Device
	aead   cipher.AEAD
	size   int64
	end    int64 // where the next record begins
	next   uint64
	prev   [32]byte // hash of the last record as it lies on the disk
	boot   uint64   // of the last boot record
	broken error    // set by the first failed write: what lies on the disk is not known any more
}

// Open replays the journal on dev, whose key is this guest's alone, and begins a boot. counter says how many boots the
// caller has completed, by a register that the host can't turn back; the new boot record carries counter + 1, and the
// caller must raise the register to that before the guest serves. A disk of zeros becomes a journal if counter is 0.
//
// replay gets each entry once, in order; it must not keep the slice. Its error ends Open.
func Open(dev Device, key [32]byte, counter uint64, replay func(entry []byte) error) (*Journal, error) {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, fmt.Errorf("opening journal: %v", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("opening journal: %v", err)
	}
	j := &Journal{dev: dev, aead: aead}
	if err := j.open(counter, replay); err != nil {
		return nil, fmt.Errorf("opening journal: %w", err)
	}
	return j, nil
}

func (j *Journal) open(counter uint64, replay func([]byte) error) error {
	size, err := j.dev.Size()
	if err != nil {
		return fmt.Errorf("%w: %v", ErrBroken, err)
	}
	j.size = min(size, maxDevice) / blockBytes * blockBytes
	if j.size < 4*blockBytes {
		return fmt.Errorf("%w: %d bytes, want at least %d", ErrShort, size, 4*blockBytes)
	}
	torn, err := j.scan(replay)
	if err != nil {
		return err
	}
	if torn > 0 {
		// Its sectors must not come back as part of the record that will be written here.
		if err := j.write(make([]byte, torn), j.end); err != nil {
			return err
		}
	}
	switch {
	case j.next == 0 && counter != 0:
		return fmt.Errorf("%w: it is empty, but %d boots came before", ErrRolledBack, counter)
	case j.boot < counter:
		return fmt.Errorf("%w: its last boot is %d, want %d", ErrRolledBack, j.boot, counter)
	case j.boot > counter+1:
		return fmt.Errorf("%w: its last boot is %d, want at most %d", ErrForeign, j.boot, counter+1)
	}
	if j.next == 0 {
		header := make([]byte, 32, 40)
		rand.Read(header)
		if err := j.append(kindHeader, binary.LittleEndian.AppendUint64(header, uint64(j.size))); err != nil {
			return err
		}
	}
	j.boot = counter + 1
	return j.append(kindBoot, binary.LittleEndian.AppendUint64(nil, j.boot))
}

// Boot returns the number of this boot: the value to which the caller must raise its counter.
func (j *Journal) Boot() uint64 { return j.boot }

// Room reports whether a Commit of n payload bytes would still fit.
func (j *Journal) Room(n int) bool {
	return j.broken == nil && n <= MaxPayload && j.end+span(n) <= j.size
}

// Size returns how many bytes of the disk the journal has.
func (j *Journal) Size() int64 { return j.size }

// Left returns how many bytes of the disk are unused.
func (j *Journal) Left() int64 { return j.size - j.end }

// Cost returns how many bytes of the disk a Commit of n payload bytes takes.
func Cost(n int) int64 { return span(n) }

// EntryPayload returns the payload bytes that an entry of n bytes takes in a Commit.
func EntryPayload(n int) int { return 4 + n }

// Commit appends entries as one record and returns when they are durable. After an error of the disk it is not known
// whether they are there, and every later Commit fails too: the next Open tells. ErrFull leaves the journal as it was.
func (j *Journal) Commit(entries ...[]byte) error {
	var payload []byte
	for _, e := range entries {
		payload = binary.LittleEndian.AppendUint32(payload, uint32(len(e)))
		payload = append(payload, e...)
	}
	if len(entries) == 0 || len(payload) > MaxPayload {
		return fmt.Errorf("committing: %d entries of %d bytes, want 1 or more of at most %d", len(entries), len(payload), MaxPayload)
	}
	if err := j.append(kindEntries, payload); err != nil {
		return fmt.Errorf("committing: %w", err)
	}
	return nil
}

func (j *Journal) append(k kind, payload []byte) error {
	if j.broken != nil {
		return j.broken
	}
	if !j.Room(len(payload)) {
		return fmt.Errorf("%w: %d bytes are left, want %d", ErrFull, j.Left(), span(len(payload)))
	}
	record := j.seal(k, payload)
	if err := j.write(record, j.end); err != nil {
		return err
	}
	j.advance(record)
	return nil
}

func (j *Journal) write(p []byte, at int64) error {
	n, err := j.dev.WriteAt(p, at)
	if err == nil && n != len(p) {
		err = fmt.Errorf("%d of %d bytes written", n, len(p))
	}
	if err == nil {
		err = j.dev.Sync()
	}
	if err != nil {
		j.broken = fmt.Errorf("%w: writing at %d: %v", ErrBroken, at, err)
	}
	return j.broken
}

// advance makes record, which lies at the end, the last one.
func (j *Journal) advance(record []byte) {
	j.prev = sha256.Sum256(record)
	j.next++
	j.end += int64(len(record))
}

// span returns the bytes that a record with n payload bytes takes: whole sectors, then zeros to the end of the block.
func span(n int) int64 {
	used := int64(sectors(n)) * sectorBytes
	return (used + blockBytes - 1) / blockBytes * blockBytes
}

func sectors(n int) int { return (headBytes + n + plainBytes - 1) / plainBytes }

// seal encodes and encrypts a record for the place at the end.
func (j *Journal) seal(k kind, payload []byte) []byte {
	count := sectors(len(payload))
	plain := make([]byte, 0, count*plainBytes)
	plain = binary.LittleEndian.AppendUint32(plain, uint32(len(payload)))
	plain = binary.LittleEndian.AppendUint32(plain, uint32(k))
	digest := sha256.Sum256(payload)
	plain = append(append(plain, digest[:]...), payload...)
	plain = plain[:count*plainBytes]
	record := make([]byte, 0, span(len(payload)))
	for i := range count {
		record = j.aead.Seal(record, nil, plain[i*plainBytes:(i+1)*plainBytes], j.bind(i))
	}
	return record[:cap(record)]
}

// bind returns the associated data of sector i of the record at the end.
func (j *Journal) bind(i int) []byte {
	b := append(make([]byte, 0, len(label)+8+8+4+32), label...)
	b = binary.LittleEndian.AppendUint64(b, uint64(j.end))
	b = binary.LittleEndian.AppendUint64(b, j.next)
	b = binary.LittleEndian.AppendUint32(b, uint32(i))
	return append(b, j.prev[:]...)
}
