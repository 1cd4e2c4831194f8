package journal

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"

	"chrysalis/runtime/role"
)

// history is a journal whose ring has come round, with what the disk was at each entry.
type history struct {
	disk  *disk
	boots uint64 // that were counted when it was written last
	n     int    // entries
	since int    // of them, when the last boot began
	marks []*disk
	at    []int // entries at each mark
	log   log
}

func lapped(t testing.TB, size, boots, each int) history {
	t.Helper()
	h := history{disk: newDisk(size)}
	for range boots {
		h.log = mustOpen(t, h.disk, h.boots)
		h.since = h.n
		for range each {
			run(t, h.log, h.n, h.n+1)
			h.n++
			h.marks, h.at = append(h.marks, h.disk.clone()), append(h.at, h.n)
		}
		h.boots++
	}
	if h.log.clean != h.log.size || h.log.Journal.whole < 2 {
		t.Fatalf("%d checkpoints, clean up to %d of %d: the ring has not come round", h.log.Journal.whole, h.log.clean, h.log.size)
	}
	return h
}

// judge opens a disk that was changed. It may be refused, by a reason of its own and without a write, or what comes out is what really was
// at some moment since the last boot began.
func (h history) judge(t testing.TB, what string, changed *disk) (n int, err error) {
	t.Helper()
	before := bytes.Clone(changed.durable)
	l, err := reopen(changed, h.boots)
	if err != nil {
		if Word(err) == role.JournalRefused {
			t.Fatalf("%s: error %v has no word", what, err)
		}
		if !bytes.Equal(before, changed.durable) {
			t.Fatalf("%s: a refused disk was written to", what)
		}
		return 0, err
	}
	if n = int(l.total); n < h.since || n > h.n || !maps.Equal(l.sums, counted(n)) {
		t.Fatalf("%s: accepted with %d entries that add up to %v, want %d to %d", what, n, l.sums, h.since, h.n)
	}
	return n, nil
}

func TestRefuses(t *testing.T) {
	h := lapped(t, small, 6, 40)
	end, prev := h.log.end, h.marks[len(h.marks)-2]
	other := newDisk(small)
	if _, err := Open(other, [32]byte{9}, 0, newTally()); err != nil {
		t.Fatal(err)
	}
	at := func(off int64) int64 { return ringStart + (off-ringStart+h.log.ring())%h.log.ring() }
	for _, tt := range []struct {
		name    string
		counter uint64
		want    error
		change  func(d *disk) *disk
	}{
		{"blank disk after a boot", h.boots, ErrRolledBack, func(d *disk) *disk { return newDisk(small) }},
		{"blank anchors", h.boots, ErrRolledBack, func(d *disk) *disk { clear(d.durable[:ringStart]); return d }},
		{"whole disk of the boot before", h.boots, ErrRolledBack, func(*disk) *disk { return h.marks[5*40-1].clone() }},
		{"boots the counter never saw", h.boots - 2, ErrForeign, func(d *disk) *disk { return d }},
		{"another guest's disk", h.boots, ErrForeign, func(*disk) *disk { return other.clone() }},
		{"no journal", 0, ErrForeign, func(*disk) *disk { return &disk{durable: bytes.Repeat([]byte("junk"), 1<<17)} }},
		{"blank anchors before something else", 0, ErrForeign, func(d *disk) *disk { clear(d.durable[:ringStart]); return d }},
		{"a file system's second kilobyte", 0, ErrForeign, func(*disk) *disk {
			d := newDisk(small)
			d.durable[1024+56] = 0x53
			return d
		}},
		{"both anchors changed", h.boots, ErrForeign, func(d *disk) *disk { d.durable[77] ^= 1; d.durable[blockBytes+77] ^= 1; return d }},
		{"a journal of the layout before", 0, ErrOld, func(*disk) *disk { return oldLayout(t) }},
		{"cut short", h.boots, ErrShort, func(d *disk) *disk { d.durable = d.durable[:small-blockBytes]; return d }},
		{"cut to nothing", h.boots, ErrShort, func(d *disk) *disk { d.durable = nil; return d }},
		{"a record missing in the middle", h.boots, ErrGap, func(d *disk) *disk {
			for i := range 8 {
				clear(d.durable[at(end-6*blockBytes+int64(i)*sectorBytes):][:sectorBytes])
			}
			return d
		}},
		{"a sector missing in the middle", h.boots, ErrGap, func(d *disk) *disk { clear(d.durable[at(end-6*blockBytes):][:sectorBytes]); return d }},
		{"a sector of an older lap in the middle", h.boots, ErrGap, func(d *disk) *disk {
			off, older := at(end-6*blockBytes), len(h.marks)-1
			for bytes.Equal(d.durable[off:off+sectorBytes], h.marks[older].durable[off:off+sectorBytes]) {
				older--
			}
			copy(d.durable[off:off+sectorBytes], h.marks[older].durable[off:])
			return d
		}},
		{"a sector moved", h.boots, ErrChanged, func(d *disk) *disk {
			copy(d.durable[at(end-6*blockBytes):][:sectorBytes], d.durable[at(end-4*blockBytes):])
			return d
		}},
		{"last record changed", h.boots, ErrChanged, func(d *disk) *disk { d.durable[at(end-sectorBytes)+50] ^= 1; return d }},
		{"a byte behind the last record", h.boots, ErrGap, func(d *disk) *disk { d.durable[at(end+3*sectorBytes)+5] ^= 1; return d }},
		{"anchors newer than the records", h.boots, ErrGap, func(d *disk) *disk {
			i := len(h.marks) - 1
			for bytes.Equal(h.marks[i].durable[:ringStart], d.durable[:ringStart]) {
				i--
			}
			older := h.marks[i-2].clone() // the anchors that differ were written one and two records later
			copy(older.durable, d.durable[:ringStart])
			return older
		}},
		{"anchors of a lap before", h.boots, ErrGap, func(d *disk) *disk { copy(d.durable, h.marks[len(h.marks)/2].durable[:ringStart]); return d }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			changed := tt.change(h.disk.clone())
			before := bytes.Clone(changed.durable)
			if _, err := reopen(changed, tt.counter); !errors.Is(err, tt.want) {
				t.Fatalf("got error %v, want %v", err, tt.want)
			}
			if !bytes.Equal(changed.durable, before) {
				t.Error("the refused disk was written to")
			}
		})
	}
	if n, err := h.judge(t, "unchanged", h.disk.clone()); err != nil || n != h.n {
		t.Errorf("the unchanged disk: %d entries, error %v", n, err)
	}
	if n, err := h.judge(t, "an entry before", prev.clone()); err != nil || n != h.n-1 {
		t.Errorf("a state of this boot: %d entries, error %v; it can't be told", n, err)
	}
}

// TestFrames: frames that only this guest's key can have sealed have to fit what was read before them.
func TestFrames(t *testing.T) {
	number := func(n ...uint64) (b []byte) {
		for _, one := range n {
			b = binary.LittleEndian.AppendUint64(b, one)
		}
		return b
	}
	begin := frame(nil, kindBegin, number(4, ringStart))
	for name, tt := range map[string]struct {
		frames []byte
		want   string // "": none
	}{
		"a boot, entries and a checkpoint": {frame(frame(frame(frame(begin, kindBoot, number(5)), kindEntry, nil), kindPart, nil), kindEnd, nil), ""},
		"the same boot":                    {frame(begin, kindBoot, number(4)), ""},
		"two boots at once":                {frame(begin, kindBoot, number(6)), "boot 6 after boot 4"},
		"a boot before":                    {frame(begin, kindBoot, number(3)), "boot 3 after boot 4"},
		"half a boot":                      {frame(begin, kindBoot, number(5)[:4]), "want 8"},
		"a checkpoint in another":          {append(bytes.Clone(begin), begin...), "in another: true"},
		"a checkpoint of another boot":     {frame(frame(begin, kindEnd, nil), kindBegin, number(5, ringStart)), "of boot 5 in boot 4"},
		"a checkpoint of a larger disk":    {frame(nil, kindBegin, number(4, small+1)), "262145 bytes of 262144"},
		"a short beginning":                {frame(nil, kindBegin, number(4)), "begins with 8 bytes"},
		"no beginning":                     {frame(nil, kindEntry, nil), "no checkpoint begins"},
		"a part of nothing":                {frame(frame(begin, kindEnd, nil), kindPart, nil), "a part of no checkpoint"},
		"an end of nothing":                {frame(frame(begin, kindEnd, nil), kindEnd, nil), "the end of no checkpoint"},
		"an end with more":                 {frame(begin, kindEnd, []byte{1}), "the end of no checkpoint"},
		"another kind":                     {frame(begin, 6, nil), "kind 6"},
		"half a frame":                     {append(bytes.Clone(begin), 2, 0, 0), "3 bytes after the last frame"},
		"a frame that is cut":              {append(bytes.Clone(begin), 2, 9, 0, 0, 0, 1), "a frame of 9 bytes, and 1 are left"},
	} {
		var got frames
		j := &Journal{owner: &got, size: small, end: ringStart, clean: ringStart}
		if err := j.apply(tt.frames); tt.want == "" && err != nil || tt.want != "" && (!errors.Is(err, ErrChanged) || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: got error %v, want %q", name, err, tt.want)
		}
	}
}

// TestCutShort: a disk that has become shorter is refused, also where nothing of it was lost.
func TestCutShort(t *testing.T) {
	d := newDisk(4 << 20)
	run(t, mustOpen(t, d, 0), 0, 3)
	d.durable = d.durable[:3<<20]
	if _, err := reopen(d, 1); !errors.Is(err, ErrShort) {
		t.Errorf("got error %v, want %v", err, ErrShort)
	}
}

// oldLayout makes a disk as the layout before this one began, under the same key.
func oldLayout(t *testing.T) *disk {
	t.Helper()
	block, err := aes.NewCipher(testKey[:])
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		t.Fatal(err)
	}
	bound := append([]byte("chrysalis journal v1\n"), make([]byte, 8+8+4+32)...)
	d := newDisk(small)
	copy(d.durable, aead.Seal(nil, nil, make([]byte, sectorBytes-12-16), bound))
	return d
}

// TestEverySector changes one sector at a time, in each of four ways. Only the last record may vanish by it, as if it had been torn; what is
// not read any more, and one anchor, may be anything.
func TestEverySector(t *testing.T) {
	h := lapped(t, small, 4, 45)
	lap := h.marks[len(h.marks)/2]
	live := h.log.Journal.at - h.log.start.at // from where reading begins to the head
	refused := 0
	for at := int64(0); at < small; at += sectorBytes {
		behind := (h.log.end - at + h.log.ring()) % h.log.ring() // how far before the head
		inside := at >= ringStart && behind > 0 && behind <= live
		for name, change := range map[string]func(b []byte){
			"bit flipped":   func(b []byte) { b[at+17] ^= 4 },
			"older content": func(b []byte) { copy(b[at:at+sectorBytes], lap.durable[at:]) },
			"other sector":  func(b []byte) { copy(b[at:at+sectorBytes], h.disk.durable[(at+7*sectorBytes)%small:]) },
			"nothing":       func(b []byte) { clear(b[at : at+sectorBytes]) },
		} {
			bad := h.disk.clone()
			change(bad.durable)
			if bytes.Equal(bad.durable, h.disk.durable) {
				continue
			}
			what := fmt.Sprintf("%s at %d, %d before the head", name, at, behind)
			n, err := h.judge(t, what, bad)
			if err != nil {
				refused++
			}
			if inside && err == nil && (n != h.n-1 || behind > 14*sectorBytes) {
				t.Fatalf("%s: accepted with %d entries of %d", what, n, h.n)
			}
			if !inside && err == nil && n != h.n {
				t.Fatalf("%s: it is not read, and %d entries of %d came out", what, n, h.n)
			}
			if at < ringStart && err != nil {
				t.Fatalf("%s: one anchor: %v", what, err)
			}
		}
	}
	if refused < int(live/sectorBytes) {
		t.Errorf("%d changes were refused, and %d sectors are live", refused, live/sectorBytes)
	}
}

// TestOldAnchors puts back the anchors of every moment, both and each: reading ends at the same head, or is refused.
func TestOldAnchors(t *testing.T) {
	h := lapped(t, small, 4, 45)
	same := 0
	for i, m := range h.marks {
		for name, part := range map[string][2]int{"both": {0, ringStart}, "the first": {0, blockBytes}, "the second": {blockBytes, ringStart}} {
			bad := h.disk.clone()
			copy(bad.durable[part[0]:part[1]], m.durable[part[0]:])
			n, err := h.judge(t, fmt.Sprintf("%s of entry %d", name, h.at[i]), bad)
			if err == nil && n != h.n {
				t.Fatalf("%s of entry %d: %d entries came out, want %d or a refusal", name, h.at[i], n, h.n)
			}
			if err == nil {
				same++
			}
			// The other one destroyed, so that this one decides.
			if other := blockBytes - part[0]; part[1]-part[0] == blockBytes {
				bad = h.disk.clone()
				copy(bad.durable[part[0]:part[1]], m.durable[part[0]:])
				clear(bad.durable[other : other+blockBytes])
				if n, err := h.judge(t, fmt.Sprintf("%s of entry %d alone", name, h.at[i]), bad); err == nil && n != h.n {
					t.Fatalf("%s of entry %d alone: %d entries came out, want %d or a refusal", name, h.at[i], n, h.n)
				}
			}
		}
	}
	if same == 0 || same == 3*len(h.marks) {
		t.Errorf("%d of %d were accepted: it tests nothing", same, 3*len(h.marks))
	}
}

// TestHalfOfTwo makes disks of the sectors of two moments: halves, runs, and at random; checkpoints are among what is mixed.
func TestHalfOfTwo(t *testing.T) {
	h := lapped(t, small, 5, 40)
	random := rand.New(rand.NewPCG(1, 2))
	accepted := 0
	for range 1500 {
		i, k := random.IntN(len(h.marks)), random.IntN(len(h.marks))
		mixed := h.marks[i].clone()
		from, to := random.IntN(small/sectorBytes), random.IntN(small/sectorBytes)
		choice := random.IntN(3)
		for s := range small / sectorBytes {
			if choice == 0 && s >= small/sectorBytes/2 || choice == 1 && s >= min(from, to) && s < max(from, to) || choice == 2 && random.IntN(8) == 0 {
				copy(mixed.durable[s*sectorBytes:(s+1)*sectorBytes], h.marks[k].durable[s*sectorBytes:])
			}
		}
		if _, err := h.judge(t, fmt.Sprintf("entries %d and %d", h.at[i], h.at[k]), mixed); err == nil {
			accepted++
		}
	}
	if accepted < 20 || accepted > 1000 {
		t.Errorf("%d of 1500 were accepted: it tests nothing", accepted)
	}
}

// listener is a tally that hears which letters its entries end in.
type listener struct {
	*tally
	heard map[byte]int
}

func (l listener) Entry(e []byte, at Place) error {
	l.heard[e[len(e)-1]]++
	return l.tally.Entry(e, at)
}

// TestTwoTimelines mixes two journals that went on from one disk in the same boot, with the same counts and checkpoints of their own: what
// comes out is all the one or all the other.
func TestTwoTimelines(t *testing.T) {
	h := lapped(t, small, 3, 45)
	letters := [2]byte{'l', 'r'}
	var ends [2]*disk
	for i, letter := range letters {
		ends[i] = h.disk.clone()
		l := mustOpen(t, ends[i], h.boots)
		for n := range 60 { // several distances
			if _, err := l.Commit(append(l.entry("same", sizeOf(n)), letter)); err != nil {
				t.Fatal(err)
			}
		}
		if l.Journal.whole < 4 {
			t.Fatalf("%d checkpoints: too few to mix", l.Journal.whole)
		}
	}
	random := rand.New(rand.NewPCG(3, 4))
	seen := map[string]int{}
	for range 2000 {
		mixed := ends[0].clone()
		from, to := random.IntN(small/sectorBytes), random.IntN(small/sectorBytes)
		for s := min(from, to); s < max(from, to); s++ {
			copy(mixed.durable[s*sectorBytes:(s+1)*sectorBytes], ends[1].durable[s*sectorBytes:])
		}
		l := listener{newTally(), map[byte]int{}}
		if _, err := Open(mixed, testKey, h.boots, l); err != nil {
			seen["refused"]++
			continue
		}
		if l.heard['l'] > 0 && l.heard['r'] > 0 {
			t.Fatalf("sectors %d to %d of another timeline: %d entries of one came out and %d of the other", from, to, l.heard['l'], l.heard['r'])
		}
		seen[fmt.Sprintf("left %t right %t", l.heard['l'] > 0, l.heard['r'] > 0)]++
	}
	if seen["refused"] == 0 || seen["left true right false"] == 0 {
		t.Errorf("got %v: it tests nothing", seen)
	}
}

// TestTornOfTwo makes a record of sectors of two attempts to write it: it is torn, and nothing of it comes out.
func TestTornOfTwo(t *testing.T) {
	base := newDisk(small)
	run(t, mustOpen(t, base, 0), 0, 3)
	l := mustOpen(t, base, 1)
	var tries [2]*disk
	var texts []string
	for i := range tries {
		// Both are the same journal's: what it holds is put back before the second.
		text := append(l.entry("a", 0), bytes.Repeat([]byte{'x' + byte(i)}, 3000)...)
		before, kept := *l.Journal, base.clone()
		if _, err := l.Commit(text); err != nil {
			t.Fatal(err)
		}
		tries[i], texts = base.clone(), append(texts, string(text))
		*l.Journal, base.durable = before, kept.durable
		l.total, l.sums["a"] = l.total-1, l.sums["a"]-1
	}
	torn := 0
	for s := range small / sectorBytes {
		d := tries[0].clone()
		copy(d.durable[s*sectorBytes:(s+1)*sectorBytes], tries[1].durable[s*sectorBytes:])
		l, err := reopen(d, 2)
		if err != nil {
			t.Fatalf("sector %d of another attempt: %v", s, err)
		}
		if got := l.newest["a"]; got != texts[0] && (got != "" || l.total != 3) {
			t.Fatalf("sector %d of another attempt: an entry of %d bytes came out", s, len(got))
		} else if got == "" {
			torn++
		}
	}
	if torn < 6 {
		t.Errorf("%d of the record's sectors were another's: too few to test anything", torn)
	}
}

// FuzzScan changes a good disk at one place. Whatever happens, nothing comes out that never was.
func FuzzScan(f *testing.F) {
	h := lapped(f, small, 3, 50)
	for _, at := range []uint32{0, 511, 4096, uint32(h.log.end) - 1, uint32(h.log.end), uint32(h.log.start.off), small - 1} {
		f.Add(at, []byte{0}, uint64(1))
		f.Add(at, make([]byte, 600), uint64(0))
	}
	f.Fuzz(func(t *testing.T, at uint32, data []byte, counter uint64) {
		bad := h.disk.clone()
		copy(bad.durable[int(at)%len(bad.durable):], data)
		h.judge(t, "fuzzed", bad)
		if _, err := reopen(bad, counter); err != nil && Word(err) == role.JournalRefused {
			t.Fatalf("error %v has no word", err)
		}
	})
}

// FuzzFrames feeds the reader of frames payloads that the key would have had to seal.
func FuzzFrames(f *testing.F) {
	begin := append(make([]byte, 8), 0, 0x20, 0, 0, 0, 0, 0, 0)
	f.Add(frame(frame(nil, kindBegin, begin), kindEnd, nil))
	f.Add(frame(frame(frame(nil, kindBegin, begin), kindPart, []byte("p")), kindEntry, []byte("e")))
	f.Add(frame(frame(nil, kindBoot, make([]byte, 8)), kindBegin, begin))
	f.Add([]byte{1, 2, 3})
	f.Fuzz(func(t *testing.T, data []byte) {
		var got frames
		j := &Journal{owner: &got, size: small, end: ringStart, clean: ringStart}
		if err := j.apply(data); err != nil {
			return
		}
		for left, i := data, 0; i < len(got); i++ {
			at := bytes.Index(left, got[i])
			if at < 0 {
				t.Fatalf("of %x came %x", data, got)
			}
			left = left[at+len(got[i]):]
		}
	})
}

// frames is an owner that keeps what it gets as frames.
type frames [][]byte

func (f *frames) Entry(b []byte, _ Place) error {
	*f = append(*f, frame(nil, kindEntry, b))
	return nil
}
func (f *frames) Begin([]byte) error  { return nil }
func (f *frames) Part(b []byte) error { *f = append(*f, frame(nil, kindPart, b)); return nil }
func (f *frames) End() error          { return nil }
func (f *frames) Head() []byte        { return nil }
func (f *frames) Next(int) []byte     { return nil }
