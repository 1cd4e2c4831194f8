package journal

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
)

var zeros [256 << 10]byte

// scan replays the records from the disk's beginning and returns the length of the torn record at the end, or 0.
func (j *Journal) scan(replay func([]byte) error) (torn int64, err error) {
	for j.end < j.size {
		record, plain, err := j.read()
		if err != nil {
			return 0, err
		}
		if record == nil {
			return j.tail()
		}
		k, payload, err := unframe(plain)
		if err != nil {
			return 0, fmt.Errorf("%w: record %d: %v", ErrChanged, j.next, err)
		}
		if err := j.apply(k, payload, replay); err != nil {
			return 0, fmt.Errorf("record %d: %w", j.next, err)
		}
		j.advance(record)
	}
	return 0, nil
}

// read returns the bytes and the plaintext of the record at the end, or nil if there is no whole one.
func (j *Journal) read() (record, plain []byte, err error) {
	record = make([]byte, blockBytes)
	if err := j.readAt(record, j.end); err != nil {
		return nil, nil, err
	}
	first, state := j.sector(record, 0)
	switch state {
	case sectorZero:
		return nil, nil, nil
	case sectorBad:
		if j.next == 0 {
			return nil, nil, fmt.Errorf("%w: its first sector is not by this guest", ErrForeign)
		}
		return nil, nil, fmt.Errorf("%w: record %d at %d, sector 0", ErrChanged, j.next, j.end)
	}
	n := binary.LittleEndian.Uint32(first)
	if n > MaxPayload || j.end+span(int(n)) > j.size {
		if j.next == 0 {
			return nil, nil, fmt.Errorf("%w: record %d claims %d bytes", ErrChanged, j.next, n)
		}
		return nil, nil, fmt.Errorf("%w: record %d at %d has %d bytes, and the disk ends at %d", ErrShort, j.next, j.end, n, j.size)
	}
	if whole := span(int(n)); whole > blockBytes {
		record = make([]byte, whole)
		if err := j.readAt(record, j.end); err != nil {
			return nil, nil, err
		}
	}
	plain = append(make([]byte, 0, sectors(int(n))*plainBytes), first...)
	for i := 1; i < sectors(int(n)); i++ {
		part, state := j.sector(record, i)
		switch state {
		case sectorZero:
			return nil, nil, nil
		case sectorBad:
			return nil, nil, fmt.Errorf("%w: record %d at %d, sector %d", ErrChanged, j.next, j.end, i)
		}
		plain = append(plain, part...)
	}
	if rest := record[sectors(int(n))*sectorBytes:]; !bytes.Equal(rest, zeros[:len(rest)]) {
		return nil, nil, fmt.Errorf("%w: record %d at %d is followed by other bytes in its block", ErrChanged, j.next, j.end)
	}
	return record, plain, nil
}

// tail checks what lies after the last whole record: at most one torn record, each sector of it zero or authentic, and
// then nothing. It returns the length of the torn one.
func (j *Journal) tail() (torn int64, err error) {
	span := make([]byte, min(maxBytes, j.size-j.end))
	if err := j.readAt(span, j.end); err != nil {
		return 0, err
	}
	for i := range len(span) / sectorBytes {
		switch _, state := j.sector(span, i); state {
		case sectorAuthentic:
			torn = int64(i+1) * sectorBytes
		case sectorBad:
			return 0, fmt.Errorf("%w: after %d records, at %d", ErrGap, j.next, j.end+int64(i)*sectorBytes)
		}
	}
	buffer := make([]byte, len(zeros))
	for at := j.end + int64(len(span)); at < j.size; at += int64(len(buffer)) {
		part := buffer[:min(int64(len(buffer)), j.size-at)]
		if err := j.readAt(part, at); err != nil {
			return 0, err
		}
		if !bytes.Equal(part, zeros[:len(part)]) {
			return 0, fmt.Errorf("%w: after %d records, between %d and %d", ErrGap, j.next, at, at+int64(len(part)))
		}
	}
	return torn, nil
}

type sectorState int

const (
	sectorZero sectorState = iota
	sectorAuthentic
	sectorBad
)

// sector decrypts sector i of the record at the end.
func (j *Journal) sector(record []byte, i int) ([]byte, sectorState) {
	raw := record[i*sectorBytes : (i+1)*sectorBytes]
	if bytes.Equal(raw, zeros[:sectorBytes]) {
		return nil, sectorZero
	}
	plain, err := j.aead.Open(nil, nil, raw, j.bind(i))
	if err != nil {
		return nil, sectorBad
	}
	return plain, sectorAuthentic
}

// unframe takes a record's plaintext apart. Sectors of two attempts to write one record each are authentic; the hash
// tells that they don't belong together.
func unframe(plain []byte) (kind, []byte, error) {
	if len(plain) < headBytes || len(plain)%plainBytes != 0 {
		return 0, nil, fmt.Errorf("%d bytes, want whole sectors", len(plain))
	}
	n := binary.LittleEndian.Uint32(plain)
	if n > MaxPayload || len(plain) != sectors(int(n))*plainBytes {
		return 0, nil, fmt.Errorf("payload of %d bytes in %d", n, len(plain))
	}
	payload, padding := plain[headBytes:headBytes+n], plain[headBytes+n:]
	if sha256.Sum256(payload) != [32]byte(plain[8:headBytes]) {
		return 0, nil, fmt.Errorf("payload does not have the hash that stands before it")
	}
	if !bytes.Equal(padding, zeros[:len(padding)]) {
		return 0, nil, fmt.Errorf("padding is not zero")
	}
	return kind(binary.LittleEndian.Uint32(plain[4:])), payload, nil
}

func (j *Journal) apply(k kind, payload []byte, replay func([]byte) error) error {
	if (k == kindHeader) != (j.next == 0) {
		return fmt.Errorf("%w: kind %d", ErrChanged, k)
	}
	switch k {
	case kindHeader:
		if len(payload) != 40 {
			return fmt.Errorf("%w: header has %d bytes, want 40", ErrChanged, len(payload))
		}
		if size := binary.LittleEndian.Uint64(payload[32:]); uint64(j.size) < size {
			return fmt.Errorf("%w: it has %d bytes, and was made with %d", ErrShort, j.size, size)
		}
		return nil
	case kindBoot:
		if len(payload) != 8 {
			return fmt.Errorf("%w: boot record has %d bytes, want 8", ErrChanged, len(payload))
		}
		boot := binary.LittleEndian.Uint64(payload)
		if boot != j.boot && boot != j.boot+1 {
			return fmt.Errorf("%w: boot %d after boot %d", ErrChanged, boot, j.boot)
		}
		j.boot = boot
		return nil
	case kindEntries:
		return split(payload, replay)
	}
	return fmt.Errorf("%w: kind %d", ErrChanged, k)
}

// split calls replay with each entry of a payload.
func split(payload []byte, replay func([]byte) error) error {
	for len(payload) > 0 {
		if len(payload) < 4 {
			return fmt.Errorf("%w: %d bytes after the last entry", ErrChanged, len(payload))
		}
		n := binary.LittleEndian.Uint32(payload)
		if uint64(n) > uint64(len(payload)-4) {
			return fmt.Errorf("%w: entry of %d bytes, and %d are left", ErrChanged, n, len(payload)-4)
		}
		if err := replay(payload[4 : 4+n]); err != nil {
			return err
		}
		payload = payload[4+n:]
	}
	return nil
}

func (j *Journal) readAt(p []byte, at int64) error {
	if n, err := j.dev.ReadAt(p, at); n != len(p) {
		if err == io.EOF {
			return fmt.Errorf("%w: it ends before %d", ErrShort, at+int64(len(p)))
		}
		return fmt.Errorf("%w: reading at %d: %v", ErrBroken, at, err)
	}
	return nil
}
