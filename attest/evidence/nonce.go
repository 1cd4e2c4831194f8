package evidence

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
)

// ServedAt is where a guest hands out evidence: GET with one of the parameters below, 64 lower-case hexadecimal digits.
const ServedAt = "/v1/evidence"

// The parameters of ServedAt: a nonce that is bound to the connection, and one that is not.
const (
	NonceParameter    = "nonce"
	DetachedParameter = "detached"
)

// ExporterLabel is the label of the TLS exporter (RFC 9266's mechanism, with a label of our own, empty context, 32 bytes)
// that binds evidence to one connection.
const ExporterLabel = "EXPORTER-chrysalis-attestation-v1"

// A guest answers all challenges of a second with one quote: their leaves form a Merkle tree whose root is in the
// statement, and each answer carries its path. A leaf binds a nonce to the exporter of the connection that brought it, so
// neither another client's answer nor another connection's can be passed off as one's own.

// maxLeaves bounds one tree.
const maxLeaves = 1 << 16

// Leaf is the leaf of one challenge.
func Leaf(nonce, exporter [32]byte) [32]byte {
	var b [65]byte
	copy(b[1:], nonce[:])
	copy(b[33:], exporter[:])
	return sha256.Sum256(b[:])
}

// DetachedLeaf is the leaf of a challenge that binds no connection, for clients behind somebody who ends TLS. It is of another
// kind: no nonce and exporter have it as their leaf, so it answers no client that knows its connection.
func DetachedLeaf(nonce [32]byte) [32]byte {
	return sha256.Sum256(append([]byte{2}, nonce[:]...))
}

func node(left, right [32]byte) [32]byte {
	var b [65]byte
	b[0] = 1
	copy(b[1:], left[:])
	copy(b[33:], right[:])
	return sha256.Sum256(b[:])
}

// Path is the way from one leaf to the root of a tree.
type Path struct {
	Index    uint32 // of the leaf
	Leaves   uint32 // in the tree
	Siblings [][32]byte
}

// Batch returns the root over the leaves and each leaf's path. A node without a sibling moves up as it is.
func Batch(leaves [][32]byte) (root [32]byte, paths []Path, err error) {
	if len(leaves) == 0 || len(leaves) > maxLeaves {
		return root, nil, fmt.Errorf("batching nonces: %d leaves, want 1 to %d", len(leaves), maxLeaves)
	}
	paths = make([]Path, len(leaves))
	for i := range paths {
		paths[i] = Path{Index: uint32(i), Leaves: uint32(len(leaves))}
	}
	level := append([][32]byte(nil), leaves...)
	for height := 0; len(level) > 1; height++ {
		for i := range paths {
			if sibling := i>>height ^ 1; sibling < len(level) {
				paths[i].Siblings = append(paths[i].Siblings, level[sibling])
			}
		}
		next := level[:0]
		for i := 0; i < len(level); i += 2 {
			if i+1 < len(level) {
				next = append(next, node(level[i], level[i+1]))
			} else {
				next = append(next, level[i])
			}
		}
		level = next
	}
	return level[0], paths, nil
}

var errPath = errors.New("path does not fit its tree")

// Root returns the root that the path leads to from leaf.
func (p Path) Root(leaf [32]byte) ([32]byte, error) {
	if p.Index >= p.Leaves || p.Leaves > maxLeaves {
		return leaf, errPath
	}
	siblings := p.Siblings
	for index, width := p.Index, p.Leaves; width > 1; index, width = index/2, (width+1)/2 {
		if index^1 >= width {
			continue
		}
		if len(siblings) == 0 {
			return leaf, errPath
		}
		if index%2 == 0 {
			leaf = node(leaf, siblings[0])
		} else {
			leaf = node(siblings[0], leaf)
		}
		siblings = siblings[1:]
	}
	if len(siblings) != 0 {
		return leaf, errPath
	}
	return leaf, nil
}

var maxPathBytes = 8 + 32*bits.Len(maxLeaves-1)

func (p Path) encode() []byte {
	if p.Leaves == 0 {
		return nil
	}
	b := binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, p.Index), p.Leaves)
	for _, s := range p.Siblings {
		b = append(b, s[:]...)
	}
	return b
}

func decodePath(b []byte) (p Path, err error) {
	if len(b) < 8 || (len(b)-8)%32 != 0 {
		return p, fmt.Errorf("%d bytes, want 8 and a multiple of 32", len(b))
	}
	p.Index, p.Leaves = binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:])
	for b = b[8:]; len(b) > 0; b = b[32:] {
		p.Siblings = append(p.Siblings, [32]byte(b))
	}
	if _, err := p.Root([32]byte{}); err != nil {
		return p, err
	}
	return p, nil
}
