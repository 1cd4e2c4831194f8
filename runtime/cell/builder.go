package cell

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/bits"
	"slices"

	"chrysalis/measure/ton"
)

// Builder puts fields into an ordinary cell, in order. The first error stays until Cell.
type Builder struct {
	data []byte
	bits int
	refs []*Cell
	err  error
}

// Uint appends v in n bits, at most 64.
func (b *Builder) Uint(v uint64, n int) *Builder {
	if n < 64 && v>>n != 0 {
		b.fail("%d does not fit %d bits", v, n)
	}
	if b.bits+n > MaxBits {
		b.fail("%d bits and %d, want at most %d", b.bits, n, MaxBits)
	}
	if b.err != nil {
		return b
	}
	for i := n - 1; i >= 0; i-- {
		if b.bits%8 == 0 {
			b.data = append(b.data, 0)
		}
		if v>>i&1 == 1 {
			b.data[b.bits/8] |= 0x80 >> (b.bits % 8)
		}
		b.bits++
	}
	return b
}

// Bool appends one bit.
func (b *Builder) Bool(v bool) *Builder {
	if v {
		return b.Uint(1, 1)
	}
	return b.Uint(0, 1)
}

// Bytes appends whole bytes.
func (b *Builder) Bytes(p []byte) *Builder {
	for _, v := range p {
		b.Uint(uint64(v), 8)
	}
	return b
}

// Coins appends an amount as Reader.Coins takes it.
func (b *Builder) Coins(v uint64) *Builder {
	if v>>63 != 0 {
		b.fail("amount %d has 64 bits, want at most 63", v)
	}
	size := (bits.Len64(v) + 7) / 8
	return b.Uint(uint64(size), 4).Uint(v, 8*size)
}

// Address appends an addr_std.
func (b *Builder) Address(a ton.Address) *Builder {
	return b.Uint(0b100, 3).Uint(uint64(byte(a.Workchain)), 8).Bytes(a.Account[:])
}

// Ref appends a reference.
func (b *Builder) Ref(c *Cell) *Builder {
	switch {
	case c == nil:
		b.fail("reference is to no cell")
	case len(b.refs) == MaxRefs:
		b.fail("more than %d references", MaxRefs)
	default:
		b.refs = append(b.refs, c)
	}
	return b
}

// MaybeRef appends a bit, and a reference if there is a cell.
func (b *Builder) MaybeRef(c *Cell) *Builder {
	if c == nil {
		return b.Bool(false)
	}
	return b.Bool(true).Ref(c)
}

func (b *Builder) fail(format string, args ...any) {
	if b.err == nil {
		b.err = fmt.Errorf(format, args...)
	}
}

// Cell returns the cell.
func (b *Builder) Cell() (*Cell, error) {
	if b.err != nil {
		return nil, fmt.Errorf("building cell: %w", b.err)
	}
	c := &Cell{data: slices.Clone(b.data), bits: b.bits, refs: slices.Clone(b.refs)}
	if c.bits%8 != 0 {
		c.data[len(c.data)-1] |= 0x80 >> (c.bits % 8)
	}
	var scratch []hashed
	if err := c.finish(&scratch); err != nil {
		return nil, fmt.Errorf("building cell: %v", err)
	}
	return c, nil
}

// Encode writes a bag with one root and a check sum. Equal cells are written once, each after all that refer to it.
func Encode(root *Cell) ([]byte, error) {
	order, err := topological(root)
	if err != nil {
		return nil, fmt.Errorf("encoding bag of cells: %v", err)
	}
	place := make(map[[32]byte]int, len(order))
	for i, c := range order {
		place[c.representation()] = i
	}
	width := (bits.Len(uint(len(order))) + 7) / 8
	var body []byte
	for _, c := range order {
		body = append(append(body, c.descriptor(c.mask), c.size()), c.data...)
		for _, r := range c.refs {
			body = appendNumber(body, uint64(place[r.representation()]), width)
		}
	}
	offsetWidth := (bits.Len(uint(len(body))) + 7) / 8
	bag := binary.BigEndian.AppendUint32(nil, magic)
	bag = append(bag, flagCheckSum|byte(width), byte(offsetWidth))
	for _, n := range []int{len(order), 1, 0} {
		bag = appendNumber(bag, uint64(n), width)
	}
	bag = appendNumber(bag, uint64(len(body)), offsetWidth)
	bag = append(appendNumber(bag, 0, width), body...)
	if len(bag)+4 > MaxBag {
		return nil, fmt.Errorf("encoding bag of cells: %d bytes, want at most %d", len(bag)+4, MaxBag)
	}
	return binary.LittleEndian.AppendUint32(bag, crc32.Checksum(bag, castagnoli)), nil
}

// representation tells a cell from one that was pruned where it was not.
func (c *Cell) representation() [32]byte { return c.at(maxLevel).hash }

// topological returns the tree's cells, equal ones once, each before what it refers to.
func topological(root *Cell) ([]*Cell, error) {
	const most = 1 << 16
	seen := map[[32]byte]bool{}
	var order []*Cell
	var visit func(c *Cell) // calls itself as deep as a cell can be
	visit = func(c *Cell) {
		if seen[c.representation()] || len(order) > most {
			return
		}
		seen[c.representation()] = true
		for _, r := range c.refs {
			visit(r)
		}
		order = append(order, c)
	}
	visit(root)
	if len(order) > most {
		return nil, fmt.Errorf("more than %d cells", most)
	}
	slices.Reverse(order)
	return order, nil
}

func appendNumber(b []byte, v uint64, width int) []byte {
	for i := width - 1; i >= 0; i-- {
		b = append(b, byte(v>>(8*i)))
	}
	return b
}
