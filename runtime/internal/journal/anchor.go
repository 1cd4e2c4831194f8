package journal

import (
	"encoding/binary"
	"fmt"
)

// anchor says where reading begins.
type anchor struct {
	generation uint64 // 0: there is none that can be read
	size       int64
	start      mark
	durable    uint64 // records
}

const anchorBytes = 8 + 8 + 8 + len(salt{}) + 8

// anchors reads both and returns the newer one, or nothing from a disk whose anchors are blank.
func (j *Journal) anchors(device int64) (*anchor, error) {
	raw := make([]byte, ringStart)
	if err := j.readAt(raw, 0); err != nil {
		return nil, err
	}
	var newest *anchor
	for i := range j.slots {
		s, state := j.sealer.open(raw[i*blockBytes:][:sectorBytes], int64(i*blockBytes))
		if state != sectorAuthentic || !zero(raw[i*blockBytes+sectorBytes:(i+1)*blockBytes]) {
			continue
		}
		if j.slots[i] = parseAnchor(s); newest == nil || j.slots[i].generation > newest.generation {
			newest = &j.slots[i]
		}
	}
	switch {
	case newest == nil && zero(raw):
		return nil, nil
	case newest == nil && j.sealer.old(raw):
		return nil, ErrOld
	case newest == nil:
		return nil, fmt.Errorf("%w: neither anchor is by this guest", ErrForeign)
	case newest.size > device:
		return nil, fmt.Errorf("%w: it has %d bytes, and was used with %d", ErrShort, device, newest.size)
	}
	named := *newest
	return &named, nil
}

// blank looks whether a disk without anchors is blank where it will be read, and returns where a journal begins on it.
func (j *Journal) blank(device int64, counter uint64) (*anchor, error) {
	if counter != 0 {
		return nil, fmt.Errorf("%w: it is blank, but %d boots came before", ErrRolledBack, counter)
	}
	j.size = device
	part := make([]byte, j.reach())
	if err := j.readAt(part, ringStart); err != nil {
		return nil, err
	}
	if !zero(part) {
		return nil, fmt.Errorf("%w: there are no anchors, and other bytes behind them", ErrForeign)
	}
	return &anchor{size: device, start: mark{off: ringStart}}, nil
}

func parseAnchor(s sector) anchor {
	take := func(n int) []byte { part := s.data[:n]; s.data = s.data[n:]; return part }
	number := func() uint64 { return binary.LittleEndian.Uint64(take(8)) }
	a := anchor{generation: s.number, size: int64(number())}
	a.start = mark{off: int64(number()), number: number(), prev: salt(take(len(salt{})))}
	a.durable = number()
	return a
}

// anchorDue reports whether an anchor names something else than m.
func (j *Journal) anchorDue(m mark) bool { return j.slot(m) >= 0 }

// slot returns which anchor is to be written so that both name m: the older one of those that do not.
func (j *Journal) slot(m mark) int {
	found := -1
	for i, a := range j.slots {
		if a.generation > 0 && a.size == j.size && a.start.number == m.number {
			continue
		}
		if found < 0 || a.generation < j.slots[found].generation {
			found = i
		}
	}
	return found
}

// writeAnchor writes the anchor that is due. One flush makes at most one of them durable, so there is always one that was not touched.
func (j *Journal) writeAnchor(m mark) {
	i := j.slot(m)
	a := anchor{max(j.slots[0].generation, j.slots[1].generation) + 1, j.size, m, j.next}
	data := make([]byte, 0, anchorBytes)
	for _, n := range []uint64{uint64(a.size), uint64(m.off), m.number} {
		data = binary.LittleEndian.AppendUint64(data, n)
	}
	data = binary.LittleEndian.AppendUint64(append(data, m.prev[:]...), a.durable)
	_, raw := j.sealer.seal(a.generation, data, 1, func(int) int64 { return int64(i) * blockBytes })
	j.write(append(raw, zeros[sectorBytes:]...), int64(i)*blockBytes)
	j.slots[i] = a
}
