// Package cell reads and builds TON's cells: trees of up to 1023 bits and four references a node, each named by a hash.
//
// The common path: Parse takes a bag of cells from outside, checks every rule that makes its hashes mean something, and returns the
// roots; Unwrap takes the tree out of a Merkle proof of a known hash; a Reader takes fields off a cell and keeps the first error;
// Lookup finds a key of a dictionary, and reports absence only where nothing on the way to it was pruned. A Builder makes cells, and
// Encode writes them.
//
// It exists beside tonutils-go because the process that holds the keys reads bytes here that strangers wrote: it has no lazy or
// virtual cells, no recursion over what was parsed, and no reflection. Tests hold its hashes and bags against tonutils-go's.
//
// What this package does not promise: that a tree is one of the chain. Whoever knows a hash can compare it.
//
// Specification: https://docs.ton.org/foundations/serialization/boc and the representation of cells there.
package cell

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
)

// The kinds of cell, as the first byte of a special one's data.
const (
	kindOrdinary     = 0
	kindPruned       = 1
	kindLibrary      = 2
	kindMerkleProof  = 3
	kindMerkleUpdate = 4
)

// Bounds of a cell.
const (
	MaxBits  = 1023
	MaxRefs  = 4
	maxDepth = 1024
	maxLevel = 3
)

// Bits of the special kinds, whole.
const (
	hashBits  = 256
	depthBits = 16
	kindBits  = 8
	maskBits  = 8
)

// ErrPruned says that a part of a tree is not there: a proof left it out. It is neither presence nor absence.
var ErrPruned = errors.New("the cell is pruned: the proof does not show it")

// Cell is one cell of a tree that was checked whole. It does not change.
type Cell struct {
	data []byte // bits, and behind them a completion tag where they end inside a byte
	bits int
	kind byte
	mask byte // levels at which the hash differs
	refs []*Cell
	// hashes and depths by level that the mask names, the lowest first. A pruned cell computes its highest alone; the others lie in its
	// data.
	hashes []hashed
}

type hashed struct {
	hash  [32]byte
	depth uint16
}

// Bits returns how many bits of data the cell has.
func (c *Cell) Bits() int { return c.bits }

// Refs returns how many references the cell has.
func (c *Cell) Refs() int { return len(c.refs) }

// Hash returns the hash by which the cell is known on the chain: of a pruned one, and of one with pruned parts, that of what was there.
func (c *Cell) Hash() [32]byte { return c.at(0).hash }

// Depth returns how many references lie one below another under the cell, or lay before a proof pruned them.
func (c *Cell) Depth() uint16 { return c.at(0).depth }

// at returns the hash and depth of a level.
func (c *Cell) at(level int) hashed {
	index := bits.OnesCount8(c.mask & (1<<level - 1))
	if c.kind != kindPruned {
		return c.hashes[index]
	}
	count := bits.OnesCount8(c.mask)
	if index == count {
		return c.hashes[0]
	}
	body := c.data[(kindBits+maskBits)/8:]
	return hashed{[32]byte(body[32*index:]), binary.BigEndian.Uint16(body[32*count+2*index:])}
}

// finish checks the cell's own form, derives its level mask, and computes its hashes. Its references are finished.
func (c *Cell) finish(scratch *[]hashed) error {
	if err := c.checkForm(); err != nil {
		return err
	}
	significant := bits.OnesCount8(c.mask) + 1 // hashes
	if c.kind == kindPruned {
		significant = 1
	}
	if len(*scratch) < significant {
		*scratch = make([]hashed, max(significant, 64))
	}
	c.hashes, *scratch = (*scratch)[:significant:significant], (*scratch)[significant:]
	if c.kind == kindPruned {
		c.hashes[0] = hashed{hash: c.represent(c.mask, nil, 0)}
		return nil
	}
	if c.mask == 0 && c.kind == kindOrdinary {
		return c.finishPlain()
	}
	index := 0
	for level := 0; level <= maxLevel; level++ {
		if level != 0 && c.mask&(1<<(level-1)) == 0 {
			continue
		}
		below := level
		if c.kind == kindMerkleProof || c.kind == kindMerkleUpdate {
			below++
		}
		depth := uint16(0)
		for _, r := range c.refs {
			depth = max(depth, r.at(below).depth+1)
		}
		if depth > maxDepth {
			return fmt.Errorf("depth is %d, want at most %d", depth, maxDepth)
		}
		var previous *[32]byte
		if index > 0 {
			previous = &c.hashes[index-1].hash
		}
		c.hashes[index] = hashed{c.represent(c.mask&(1<<level-1), previous, below), depth}
		index++
	}
	return nil
}

// finishPlain computes the one hash of an ordinary cell under which nothing is pruned: nearly every cell there is.
func (c *Cell) finishPlain() error {
	var buffer [2 + 128 + MaxRefs*(2+32)]byte
	b := append(append(buffer[:0], byte(len(c.refs)), c.size()), c.data...)
	depth := uint16(0)
	for _, r := range c.refs {
		b = binary.BigEndian.AppendUint16(b, r.hashes[0].depth)
		depth = max(depth, r.hashes[0].depth+1)
	}
	for _, r := range c.refs {
		b = append(b, r.hashes[0].hash[:]...)
	}
	if depth > maxDepth {
		return fmt.Errorf("depth is %d, want at most %d", depth, maxDepth)
	}
	c.hashes[0] = hashed{sha256.Sum256(b), depth}
	return nil
}

// size is the second descriptor: twice the whole bytes, and one for a part of a byte.
func (c *Cell) size() byte { return byte(c.bits/8 + (c.bits+7)/8) }

// represent hashes the cell as it is at a level: descriptors under mask, data or the hash of the level before, and the references.
func (c *Cell) represent(mask byte, previous *[32]byte, below int) [32]byte {
	var buffer [2 + 128 + MaxRefs*(2+32)]byte
	b := append(buffer[:0], c.descriptor(mask), c.size())
	if previous != nil {
		b = append(b, previous[:]...)
	} else {
		b = append(b, c.data...)
	}
	for _, r := range c.refs {
		b = binary.BigEndian.AppendUint16(b, r.at(below).depth)
	}
	for _, r := range c.refs {
		h := r.at(below).hash
		b = append(b, h[:]...)
	}
	return sha256.Sum256(b)
}

func (c *Cell) descriptor(mask byte) byte {
	d := byte(len(c.refs)) | mask<<5
	if c.kind != kindOrdinary {
		d |= 8
	}
	return d
}

// checkForm checks what a special cell says of itself and of its references, and derives the level mask.
func (c *Cell) checkForm() error {
	var below byte
	for _, r := range c.refs {
		below |= r.mask
	}
	want := func(bits, refs int) error {
		if c.bits != bits || len(c.refs) != refs {
			return fmt.Errorf("special cell of kind %d has %d bits and %d references, want %d and %d", c.kind, c.bits, len(c.refs), bits, refs)
		}
		return nil
	}
	switch c.kind {
	case kindOrdinary:
		c.mask = below
		return nil
	case kindPruned:
		if len(c.data) < 2 || c.data[1] == 0 || c.data[1] >= 1<<maxLevel {
			return fmt.Errorf("pruned cell of %d bits has no level from 1 to %d", c.bits, maxLevel)
		}
		c.mask = c.data[1]
		return want(kindBits+maskBits+bits.OnesCount8(c.mask)*(hashBits+depthBits), 0)
	case kindLibrary:
		return want(kindBits+hashBits, 0)
	case kindMerkleProof, kindMerkleUpdate:
		c.mask = below >> 1
		n := int(c.kind) - kindMerkleProof + 1
		if err := want(kindBits+n*(hashBits+depthBits), n); err != nil {
			return err
		}
		for i, r := range c.refs {
			got := hashed{[32]byte(c.data[1+32*i:]), binary.BigEndian.Uint16(c.data[1+32*n+2*i:])}
			if h := r.at(0); got != h {
				return fmt.Errorf("special cell says hash %x and depth %d of its reference %d, want %x and %d", got.hash, got.depth, i, h.hash, h.depth)
			}
		}
		return nil
	}
	return fmt.Errorf("special cell is of kind %d, want one from 1 to 4", c.kind)
}

// Unwrap returns the tree whose Merkle proof c is, if its hash is want.
func Unwrap(c *Cell, want [32]byte) (*Cell, error) {
	if c.kind != kindMerkleProof {
		return nil, fmt.Errorf("root is of kind %d, want a Merkle proof", c.kind)
	}
	if got := c.refs[0].Hash(); got != want {
		return nil, fmt.Errorf("the proof is of %x, want %x", got, want)
	}
	return c.refs[0], nil
}

// NewHash returns the hash of the tree after a Merkle update, which c must be.
func NewHash(c *Cell) ([32]byte, error) {
	switch c.kind {
	case kindMerkleUpdate:
		return c.refs[1].Hash(), nil
	case kindPruned:
		return [32]byte{}, ErrPruned
	}
	return [32]byte{}, fmt.Errorf("cell is of kind %d, want a Merkle update", c.kind)
}
