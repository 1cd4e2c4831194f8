package journal

import (
	"encoding/binary"
	"fmt"
	"io"
)

// window is a part of the disk that was read ahead.
type window struct {
	at int64
	b  []byte
}

const windowBytes = 1 << 20

// raw returns the sector at an offset of the ring. It is good until the next call.
func (j *Journal) raw(off int64) ([]byte, error) {
	w := &j.ahead
	if off < w.at || off+sectorBytes > w.at+int64(len(w.b)) {
		if w.b == nil {
			w.b = make([]byte, min(windowBytes, j.ring()))
		}
		w.at, w.b = off, w.b[:min(int64(cap(w.b)), j.size-off)]
		if err := j.readAt(w.b, off); err != nil {
			return nil, err
		}
	}
	return w.b[off-w.at:][:sectorBytes], nil
}

// scan replays the records from where reading begins, and looks at what lies beyond the last one. So many records at least must be there.
func (j *Journal) scan(durable uint64) error {
	for {
		payload, of, count, err := j.read()
		if err != nil {
			return err
		}
		if count == 0 {
			break
		}
		if j.at+int64(count)*sectorBytes > j.ring() {
			return fmt.Errorf("%w: record %d goes round the whole ring", ErrChanged, j.next)
		}
		if err := j.apply(payload); err != nil {
			return fmt.Errorf("record %d: %w", j.next, err)
		}
		j.advance(of, count)
	}
	if err := j.beyond(); err != nil {
		return err
	}
	if j.next < durable {
		return fmt.Errorf("%w: the last record is before number %d, which is known", ErrGap, durable)
	}
	j.clean = max(j.clean, min(j.size, j.end+j.reach()))
	return nil
}

// read returns the payload, the salt and the number of sectors of the record at the end; no sectors if there is no whole one.
func (j *Journal) read() (payload []byte, of salt, count int, err error) {
	var data []byte
	off := j.end
	for i := 0; count == 0 || i < count; i++ {
		raw, err := j.raw(off)
		if err != nil {
			return nil, of, 0, err
		}
		s, state := j.sealer.open(raw, off)
		switch {
		case state == sectorBad:
			return nil, of, 0, fmt.Errorf("%w: record %d at %d, sector %d", ErrChanged, j.next, j.end, i)
		case state == sectorZero || s.number != j.next || s.index != uint32(i) || i > 0 && s.salt != of:
			return nil, of, 0, nil
		}
		if data = append(data, s.data...); i == 0 {
			of = s.salt
			if before := salt(data[4:]); before != j.prev {
				return nil, of, 0, fmt.Errorf("%w: record %d at %d does not follow the one before it", ErrChanged, j.next, j.end)
			}
			n := binary.LittleEndian.Uint32(data)
			if uint64(n) > uint64(j.maxPayload()) {
				return nil, of, 0, fmt.Errorf("%w: record %d has %d bytes, want at most %d", ErrChanged, j.next, n, j.maxPayload())
			}
			count = (headBytes + int(n) + dataBytes - 1) / dataBytes
		}
		off = j.behind(off, 1)
	}
	return data[headBytes:][:binary.LittleEndian.Uint32(data)], of, count, nil
}

// beyond checks what lies behind the last whole record: nothing, older records, and what there is of the one that was torn.
func (j *Journal) beyond() error {
	off := j.end
	for range j.reach() / sectorBytes {
		raw, err := j.raw(off)
		if err != nil {
			return err
		}
		switch s, state := j.sealer.open(raw, off); {
		case state == sectorBad:
			return fmt.Errorf("%w: after record %d, something else at %d", ErrGap, j.next, off)
		case state == sectorAuthentic && s.number > j.next:
			return fmt.Errorf("%w: record %d at %d, and record %d is not there", ErrGap, s.number, off, j.next)
		}
		off = j.behind(off, 1)
	}
	return nil
}

// apply hands the frames of the record at the end to the owner. Reading begins with a checkpoint: what lies before it in the same
// record is in it.
func (j *Journal) apply(payload []byte) error {
	for at := 0; at < len(payload); {
		if len(payload)-at < frameBytes {
			return fmt.Errorf("%w: %d bytes after the last frame", ErrChanged, len(payload)-at)
		}
		k, n := kind(payload[at]), binary.LittleEndian.Uint32(payload[at+1:])
		if uint64(n) > uint64(len(payload)-at-frameBytes) {
			return fmt.Errorf("%w: a frame of %d bytes, and %d are left", ErrChanged, n, len(payload)-at-frameBytes)
		}
		body := payload[at+frameBytes:][:n]
		if !j.reading && k != kindBegin {
			at += frameBytes + len(body)
			continue
		}
		if err := j.frame(k, body, j.place(j.end, headBytes+at)); err != nil {
			return fmt.Errorf("%w: %w", ErrChanged, err)
		}
		at += frameBytes + len(body)
	}
	if !j.reading {
		return fmt.Errorf("%w: no checkpoint begins in it", ErrChanged)
	}
	return nil
}

func (j *Journal) frame(k kind, body []byte, at Place) error {
	switch k {
	case kindBoot:
		if len(body) != 8 {
			return fmt.Errorf("a boot of %d bytes, want 8", len(body))
		}
		boot := binary.LittleEndian.Uint64(body)
		if boot != j.boot && boot != j.boot+1 {
			return fmt.Errorf("boot %d after boot %d", boot, j.boot)
		}
		j.boot = boot
		return nil
	case kindEntry:
		return j.owner.Entry(body, at)
	case kindBegin:
		if len(body) < beginBytes || j.open {
			return fmt.Errorf("a checkpoint begins with %d bytes, in another: %t", len(body), j.open)
		}
		boot, clean := binary.LittleEndian.Uint64(body), int64(binary.LittleEndian.Uint64(body[8:]))
		if j.reading && boot != j.boot || clean < ringStart || clean > j.size {
			return fmt.Errorf("a checkpoint of boot %d in boot %d, with %d bytes of %d", boot, j.boot, clean, j.size)
		}
		j.boot, j.clean = boot, max(j.clean, clean)
		j.begins(mark{j.end, j.next, j.prev, j.at})
		return j.owner.Begin(body[beginBytes:])
	case kindPart:
		if !j.open {
			return fmt.Errorf("a part of no checkpoint")
		}
		return j.owner.Part(body)
	case kindEnd:
		if !j.open || len(body) != 0 {
			return fmt.Errorf("the end of no checkpoint")
		}
		j.ends()
		return j.owner.End()
	}
	return fmt.Errorf("a frame of kind %d", k)
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
