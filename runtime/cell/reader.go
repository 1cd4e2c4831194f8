package cell

import (
	"errors"
	"fmt"

	"chrysalis/measure/ton"
)

// Reader takes fields off a cell, in order. The first error stays, and every field read after it is zero: read all, then ask Err or End.
type Reader struct {
	c   *Cell
	at  int // bits taken
	ref int // references taken
	err error
}

// Read returns a reader at the cell's beginning. Of a pruned cell it has ErrPruned.
func (c *Cell) Read() *Reader {
	r := &Reader{c: c}
	switch c.kind {
	case kindOrdinary:
	case kindPruned:
		r.err = ErrPruned
	default:
		r.err = fmt.Errorf("cell is special, of kind %d, want an ordinary one", c.kind)
	}
	return r
}

// Err returns the first error.
func (r *Reader) Err() error { return r.err }

// End returns the first error, or one if anything of the cell was not taken.
func (r *Reader) End() error {
	if r.err == nil && (r.at != r.c.bits || r.ref != len(r.c.refs)) {
		r.err = fmt.Errorf("%d bits and %d references are left", r.c.bits-r.at, len(r.c.refs)-r.ref)
	}
	return r.err
}

// Fail keeps an error of the caller's, if it is the first.
func (r *Reader) Fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf(format, args...)
	}
}

func (r *Reader) take(n int) bool {
	if r.err == nil && n > r.c.bits-r.at {
		r.err = fmt.Errorf("%d bits are left, want %d", r.c.bits-r.at, n)
	}
	return r.err == nil
}

// Uint takes an unsigned number of n bits, at most 64.
func (r *Reader) Uint(n int) (v uint64) {
	if !r.take(n) {
		return 0
	}
	for n > 0 {
		part := min(8-r.at%8, n)
		b := r.c.data[r.at/8] << (r.at % 8) >> (8 - part)
		v = v<<part | uint64(b)
		r.at += part
		n -= part
	}
	return v
}

// Bool takes one bit.
func (r *Reader) Bool() bool { return r.Uint(1) == 1 }

// Tag takes n bits that must be want.
func (r *Reader) Tag(n int, want uint64, name string) {
	if got := r.Uint(n); r.err == nil && got != want {
		r.err = fmt.Errorf("%s begins with %#x, want %#x", name, got, want)
	}
}

// Skip passes n bits.
func (r *Reader) Skip(n int) {
	if r.take(n) {
		r.at += n
	}
}

// Bytes takes bits to fill dst.
func (r *Reader) Bytes(dst []byte) {
	if !r.take(8 * len(dst)) {
		return
	}
	src, shift := r.c.data[r.at/8:], r.at%8
	r.at += 8 * len(dst)
	if shift == 0 {
		copy(dst, src)
		return
	}
	for i := range dst {
		dst[i] = src[i]<<shift | src[i+1]>>(8-shift)
	}
}

// Hash takes 256 bits.
func (r *Reader) Hash() (h [32]byte) {
	r.Bytes(h[:])
	return h
}

// Coins takes an amount (VarUInteger 16) of at most 63 bits, written as short as it can be. All coins that there are fit.
func (r *Reader) Coins() uint64 { return r.VarUint(4) }

// VarUint takes a number whose bytes are counted in the first n bits, of at most 63 bits, written as short as it can be.
func (r *Reader) VarUint(n int) uint64 {
	size := int(r.Uint(n))
	if size > 8 {
		r.Fail("number has %d bytes, want at most 8", size)
		return 0
	}
	v := r.Uint(8 * size)
	switch {
	case r.err != nil:
		return 0
	case v>>63 != 0:
		r.Fail("number %d has 64 bits, want at most 63", v)
		return 0
	case size > 0 && v>>(8*(size-1)) == 0:
		r.Fail("number %d is written with %d bytes, more than it needs", v, size)
		return 0
	}
	return v
}

// Address takes an addr_std without anycast, of workchain 0 or -1.
func (r *Reader) Address() (a ton.Address) {
	r.Tag(3, 0b100, "address")
	a.Workchain = int8(r.Uint(8))
	a.Account = r.Hash()
	if r.err == nil && a.Workchain != 0 && a.Workchain != -1 {
		r.err = fmt.Errorf("workchain is %d, want 0 or -1", a.Workchain)
	}
	if r.err != nil {
		return ton.Address{}
	}
	return a
}

// Ref takes a reference, which may be to a pruned cell.
func (r *Reader) Ref() *Cell {
	if r.err == nil && r.ref == len(r.c.refs) {
		r.err = errors.New("no reference is left")
	}
	if r.err != nil {
		return nil
	}
	r.ref++
	return r.c.refs[r.ref-1]
}

// Open takes a reference and returns a reader of the cell, which has this one's error.
func (r *Reader) Open() *Reader {
	c := r.Ref()
	if c == nil {
		return &Reader{c: &Cell{}, err: r.err}
	}
	return c.Read()
}

// MaybeRef takes a bit, and a reference if it is set.
func (r *Reader) MaybeRef() *Cell {
	if r.Bool() {
		return r.Ref()
	}
	return nil
}

// Rest returns how many bits and references are left.
func (r *Reader) Rest() (bits, refs int) { return r.c.bits - r.at, len(r.c.refs) - r.ref }
