package journal

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"chrysalis/runtime/role"
)

func TestRefuses(t *testing.T) {
	d := newDisk(1 << 20)
	j, _ := mustOpen(t, d, 0)
	want := entries(8)
	commit(t, j, want[:4]...)
	firstBoot := d.clone()
	middle := j.end
	j, _ = mustOpen(t, d, 1)
	commit(t, j, want[4:]...)
	end := j.end
	other := newDisk(1 << 20)
	if _, err := Open(other, [32]byte{9}, 0, func([]byte) error { return nil }); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name    string
		counter uint64
		want    error
		change  func(d *disk) *disk
	}{
		{"blank disk after a boot", 2, ErrRolledBack, func(d *disk) *disk { return newDisk(1 << 20) }},
		{"whole disk rolled back", 2, ErrRolledBack, func(*disk) *disk { return firstBoot.clone() }},
		{"boots the counter never saw", 0, ErrForeign, func(d *disk) *disk { return d }},
		{"another guest's disk", 2, ErrForeign, func(*disk) *disk { return other.clone() }},
		{"no journal", 0, ErrForeign, func(*disk) *disk { return &disk{durable: bytes.Repeat([]byte("junk"), 1<<18)} }},
		{"junk behind a blank beginning", 0, ErrGap, func(*disk) *disk {
			d := newDisk(1 << 20)
			d.durable[1<<20-1] = 1
			return d
		}},
		{"cut short behind the end", 2, ErrShort, func(d *disk) *disk { d.durable = d.durable[:1<<20-blockBytes]; return d }},
		{"cut short in the middle", 2, ErrShort, func(d *disk) *disk { d.durable = d.durable[:middle]; return d }},
		{"cut to nothing", 2, ErrShort, func(d *disk) *disk { d.durable = nil; return d }},
		{"a record missing in the middle", 2, ErrGap, func(d *disk) *disk { clear(d.durable[middle : middle+blockBytes]); return d }},
		{"a sector missing in the middle", 2, ErrGap, func(d *disk) *disk { clear(d.durable[middle-blockBytes:][:sectorBytes]); return d }},
		{"records moved", 2, ErrChanged, func(d *disk) *disk {
			copy(d.durable[2*blockBytes:], d.durable[3*blockBytes:4*blockBytes])
			return d
		}},
		{"last record changed", 2, ErrChanged, func(d *disk) *disk { d.durable[end-blockBytes] ^= 1; return d }},
		{"a byte behind the last record", 2, ErrGap, func(d *disk) *disk { d.durable[end+sectorBytes+5] = 1; return d }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			changed := tt.change(d.clone())
			before := bytes.Clone(changed.durable)
			if _, _, err := reopen(changed, tt.counter); !errors.Is(err, tt.want) {
				t.Fatalf("got error %v, want %v", err, tt.want)
			}
			if !bytes.Equal(changed.durable, before) {
				t.Error("the refused disk was written to")
			}
		})
	}
	if _, _, err := reopen(d.clone(), 2); err != nil {
		t.Errorf("the unchanged disk: %v", err)
	}
}

// TestEverySector changes one sector at a time, in each of three ways: a bit flips, its content of an older time comes
// back, the content of another sector takes its place. Only the last record may vanish by it, as if it had been torn.
func TestEverySector(t *testing.T) {
	d := newDisk(256 << 10)
	j, _ := mustOpen(t, d, 0)
	want := entries(6)
	older := d.clone()
	commit(t, j, want[:5]...)
	last := j.end
	commit(t, j, want[5])
	for at := int64(0); at < j.end+2*sectorBytes; at += sectorBytes {
		for name, change := range map[string]func(b []byte){
			"bit flipped":   func(b []byte) { b[at+17] ^= 4 },
			"older content": func(b []byte) { copy(b[at:at+sectorBytes], older.durable[at:]) },
			"other sector":  func(b []byte) { copy(b[at:at+sectorBytes], d.durable[(at+7*sectorBytes)%j.end:]) },
		} {
			bad := d.clone()
			change(bad.durable)
			if bytes.Equal(bad.durable, d.durable) {
				continue
			}
			_, got, err := reopen(bad, 1)
			if err != nil {
				if Word(err) == role.JournalRefused {
					t.Fatalf("%s at %d: error %v has no word", name, at, err)
				}
				continue
			}
			if at < last || !slices.Equal(got, want[:5]) {
				t.Fatalf("%s at %d: accepted with %d entries", name, at, len(got))
			}
		}
	}
}

// TestHybrid makes a record of sectors of two attempts to write it, which are all authentic.
func TestHybrid(t *testing.T) {
	d := newDisk(256 << 10)
	j, _ := mustOpen(t, d, 0)
	at := j.end
	first := d.clone()
	k, _ := mustOpen(t, first, 0)
	if k.end != at+blockBytes {
		t.Fatalf("second opening wrote %d bytes", k.end-at)
	}
	// Both attempts stand at the same place, after the same records.
	a, b := j.seal(kindEntries, make([]byte, 1500)), j.seal(kindEntries, bytes.Repeat([]byte{1}, 1500))
	copy(d.durable[at:], a)
	copy(d.durable[at+sectorBytes:at+2*sectorBytes], b[sectorBytes:])
	if _, _, err := reopen(d, 1); !errors.Is(err, ErrChanged) {
		t.Errorf("got error %v, want %v", err, ErrChanged)
	}
}

// FuzzScan changes a good disk at one place. Whatever happens, no entry may come out that was not committed, in order.
func FuzzScan(f *testing.F) {
	d := newDisk(64 << 10)
	j, _ := mustOpen(f, d, 0)
	want := entries(5)
	commit(f, j, want...)
	for _, at := range []uint32{0, 511, 4096, uint32(j.end) - 1, uint32(j.end), 65535} {
		f.Add(at, []byte{0}, uint64(1))
		f.Add(at, make([]byte, 600), uint64(0))
	}
	f.Fuzz(func(t *testing.T, at uint32, data []byte, counter uint64) {
		bad := d.clone()
		copy(bad.durable[int(at)%len(bad.durable):], data)
		_, got, err := reopen(bad, counter)
		if len(got) > len(want) || !slices.Equal(got, want[:len(got)]) {
			t.Fatalf("%d entries came out that were not committed so", len(got))
		}
		if err != nil && Word(err) == role.JournalRefused {
			t.Fatalf("error %v has no word", err)
		}
	})
}

// FuzzUnframe feeds the record decoder plaintexts that the key would have had to seal.
func FuzzUnframe(f *testing.F) {
	j := &Journal{}
	d := newDisk(64 << 10)
	j, _ = mustOpen(f, d, 0)
	record := j.seal(kindEntries, []byte("\x03\x00\x00\x00abc"))
	plain, state := j.sector(record, 0)
	if state != sectorAuthentic {
		f.Fatal("seed does not decrypt")
	}
	f.Add(plain)
	f.Add(plain[:headBytes])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		k, payload, err := unframe(data)
		if err != nil {
			return
		}
		again := j.seal(k, payload)
		var back []byte
		for i := range sectors(len(payload)) {
			part, _ := j.sector(again, i)
			back = append(back, part...)
		}
		if !bytes.Equal(back, data) {
			t.Fatalf("framed again: got %x, want %x", back, data)
		}
		split(payload, func([]byte) error { return nil })
	})
}
