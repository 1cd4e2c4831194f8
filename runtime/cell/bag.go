package cell

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/bits"
)

// Bounds of a bag.
const (
	MaxBag   = 8 << 20 // bytes
	MaxRoots = 1 << 10
)

const magic = 0xb5ee9c72

// Flags of a bag's fifth byte.
const (
	flagIndex    = 0x80
	flagCheckSum = 0x40
	flagCache    = 0x20
	flagsUnknown = 0x18
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// take reads fields of a bag off its beginning.
type take struct {
	b   []byte
	err error
}

func (t *take) bytes(n uint64) []byte {
	if t.err != nil || n > uint64(len(t.b)) {
		if t.err == nil {
			t.err = fmt.Errorf("bag ends %d bytes short", n-uint64(len(t.b)))
		}
		return nil
	}
	part := t.b[:n]
	t.b = t.b[n:]
	return part
}

func (t *take) number(width int) (n uint64) {
	for _, v := range t.bytes(uint64(width)) {
		n = n<<8 | uint64(v)
	}
	return n
}

// Parse reads a bag of cells without believing it, and returns its roots. A cell may refer only to later ones; each must be reached, say
// the level that it has, and, if it is a Merkle cell, the hashes of what it refers to. Nothing may follow. A check sum and an index may be
// there, and must then be right; hashes stored beside cells are refused.
func Parse(untrusted []byte) ([]*Cell, error) {
	roots, err := parse(untrusted)
	if err != nil {
		return nil, fmt.Errorf("parsing bag of cells: %v", err)
	}
	return roots, nil
}

// ParseOne reads a bag with one root.
func ParseOne(untrusted []byte) (*Cell, error) {
	roots, err := Parse(untrusted)
	if err != nil {
		return nil, err
	}
	if len(roots) != 1 {
		return nil, fmt.Errorf("parsing bag of cells: %d roots, want 1", len(roots))
	}
	return roots[0], nil
}

func parse(untrusted []byte) ([]*Cell, error) {
	if len(untrusted) > MaxBag {
		return nil, fmt.Errorf("%d bytes, want at most %d", len(untrusted), MaxBag)
	}
	t := take{b: untrusted}
	if got := t.number(4); t.err == nil && got != magic {
		return nil, fmt.Errorf("bag begins with %08x, want %08x", got, magic)
	}
	flags := byte(t.number(1))
	width, offsetWidth := int(flags&7), int(t.number(1))
	switch {
	case t.err != nil:
		return nil, t.err
	case flags&flagsUnknown != 0, flags&flagCache != 0 && flags&flagIndex == 0:
		return nil, fmt.Errorf("flags are %#02x, want those of an index, a check sum and a cache alone", flags)
	case width < 1 || width > 4 || offsetWidth < 1 || offsetWidth > 8:
		return nil, fmt.Errorf("numbers have %d and %d bytes, want 1 to 4 and 1 to 8", width, offsetWidth)
	}
	count, rootCount, absent := t.number(width), t.number(width), t.number(width)
	size := t.number(offsetWidth)
	switch {
	case t.err != nil:
		return nil, t.err
	case rootCount < 1 || rootCount > MaxRoots || rootCount > count || absent != 0:
		return nil, fmt.Errorf("%d roots and %d absent cells of %d, want 1 to %d roots and none absent", rootCount, absent, count, MaxRoots)
	case count > size/2 || size > uint64(len(t.b)):
		return nil, fmt.Errorf("%d cells in %d bytes, and %d are left", count, size, len(t.b))
	}
	rootList := t.bytes(rootCount * uint64(width))
	var index []byte
	if flags&flagIndex != 0 {
		index = t.bytes(count * uint64(offsetWidth))
	}
	body := t.bytes(size)
	if flags&flagCheckSum != 0 {
		at := len(untrusted) - len(t.b)
		sum := t.bytes(4)
		if t.err == nil {
			if got, want := binary.LittleEndian.Uint32(sum), crc32.Checksum(untrusted[:at], castagnoli); got != want {
				return nil, fmt.Errorf("check sum is %08x, want %08x", got, want)
			}
		}
	}
	if t.err != nil {
		return nil, t.err
	}
	if len(t.b) != 0 {
		return nil, fmt.Errorf("%d bytes follow", len(t.b))
	}
	cells := make([]Cell, count)
	reached := make([]bool, count) // by a root or by an earlier cell, and thus, one after the other, from a root
	if err := parseCells(cells, reached, body, width, index, offsetWidth, flags&flagCache != 0); err != nil {
		return nil, err
	}
	roots := make([]*Cell, rootCount)
	for i := range roots {
		at := be(rootList[i*width : (i+1)*width])
		if at >= count {
			return nil, fmt.Errorf("root %d is cell %d of %d", i, at, count)
		}
		roots[i], reached[at] = &cells[at], true
	}
	for i, ok := range reached {
		if !ok {
			return nil, fmt.Errorf("nothing refers to cell %d", i)
		}
	}
	if err := finishAll(cells); err != nil {
		return nil, err
	}
	return roots, nil
}

func be(b []byte) (n uint64) {
	for _, v := range b {
		n = n<<8 | uint64(v)
	}
	return n
}

// parseCells reads the cells' own bytes. References are pointers into cells, not yet finished.
func parseCells(cells []Cell, reached []bool, body []byte, width int, index []byte, offsetWidth int, cache bool) error {
	t := take{b: body}
	refs := make([]*Cell, 0, 2*len(cells))
	for i := range cells {
		c := &cells[i]
		d := t.bytes(2)
		if t.err != nil {
			return fmt.Errorf("cell %d: %v", i, t.err)
		}
		count := int(d[0] & 7)
		if count > MaxRefs || d[0]&0x10 != 0 {
			return fmt.Errorf("cell %d has descriptor %#02x, want at most %d references and no stored hashes", i, d[0], MaxRefs)
		}
		c.mask = d[0] >> 5
		c.data = t.bytes((uint64(d[1]) + 1) / 2)
		list := t.bytes(uint64(count * width))
		if t.err != nil {
			return fmt.Errorf("cell %d: %v", i, t.err)
		}
		if err := c.setBits(d[1]); err != nil {
			return fmt.Errorf("cell %d: %v", i, err)
		}
		if d[0]&8 != 0 {
			if c.bits < kindBits || c.data[0] == kindOrdinary {
				return fmt.Errorf("cell %d is special and names no kind", i)
			}
			c.kind = c.data[0]
		}
		for j := range count {
			at := be(list[j*width : (j+1)*width])
			if at <= uint64(i) || at >= uint64(len(cells)) {
				return fmt.Errorf("cell %d refers to cell %d, want a later one of %d", i, at, len(cells))
			}
			reached[at] = true
			refs = append(refs, &cells[at])
		}
		c.refs = refs[len(refs)-count : len(refs) : len(refs)]
		if index != nil {
			want := uint64(len(body) - len(t.b))
			got := be(index[i*offsetWidth : (i+1)*offsetWidth])
			if cache {
				got >>= 1
			}
			if got != want {
				return fmt.Errorf("index says that cell %d ends at %d, want %d", i, got, want)
			}
		}
	}
	if len(t.b) != 0 {
		return fmt.Errorf("%d bytes follow the last cell", len(t.b))
	}
	return nil
}

// setBits counts the bits of data, which ends with a completion tag where the descriptor says that it ends inside a byte.
func (c *Cell) setBits(descriptor byte) error {
	c.bits = 8 * len(c.data)
	if descriptor%2 == 0 {
		return nil
	}
	last := c.data[len(c.data)-1]
	if last&0x7f == 0 {
		return errors.New("data of whole bytes is written as if it ended inside one")
	}
	c.bits -= bits.TrailingZeros8(last) + 1
	return nil
}

// finishAll computes hashes from the last cell to the first, so that what a cell refers to is done before it.
func finishAll(cells []Cell) error {
	scratch := make([]hashed, len(cells)+len(cells)/2)
	for i := len(cells) - 1; i >= 0; i-- {
		c := &cells[i]
		stated := c.mask
		c.mask = 0
		if err := c.finish(&scratch); err != nil {
			return fmt.Errorf("cell %d: %v", i, err)
		}
		if c.mask != stated {
			return fmt.Errorf("cell %d says level mask %d, want %d", i, stated, c.mask)
		}
	}
	return nil
}
