package cell

import (
	"errors"
	"fmt"
	"math/bits"
)

// ErrAbsent says that a dictionary has no value under a key, and that nothing on the way there was pruned.
var ErrAbsent = errors.New("the dictionary has no such key")

// Lookup returns a reader of the value under a key of keyBits bits, which lie in key from its first. It stands where the value begins; in
// an augmented dictionary that is the value's extra. A nil root is an empty dictionary. ErrAbsent means proven absence, and ErrPruned that
// nothing is known.
func Lookup(root *Cell, key []byte, keyBits int) (*Reader, error) {
	if root == nil {
		return nil, ErrAbsent
	}
	at := 0
	for {
		r := root.Read()
		label, n := r.label(keyBits - at)
		if r.err != nil {
			return nil, fmt.Errorf("dictionary: %w", r.err)
		}
		for i := range n {
			if label.bit(i) != bitOf(key, at+i) {
				return nil, ErrAbsent
			}
		}
		at += n
		if at == keyBits {
			return r, nil
		}
		left, right := r.Ref(), r.Ref()
		if r.err != nil {
			return nil, fmt.Errorf("dictionary: %w", r.err)
		}
		root = left
		if bitOf(key, at) {
			root = right
		}
		at++
	}
}

// Each calls do with every key of keyBits bits, at most 256, and a reader of its value, in order, until it returns an error. Pruned parts
// are an error, and so are more than most values.
func Each(root *Cell, keyBits, most int, do func(key [32]byte, value *Reader) error) error {
	if root == nil {
		return nil
	}
	type place struct {
		c   *Cell
		key [32]byte
		at  int
	}
	stack := []place{{c: root}}
	for count := 0; len(stack) > 0; {
		p := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		r := p.c.Read()
		label, n := r.label(keyBits - p.at)
		if r.err != nil {
			return fmt.Errorf("dictionary: %w", r.err)
		}
		for i := range n {
			if label.bit(i) {
				p.key[(p.at+i)/8] |= 0x80 >> ((p.at + i) % 8)
			}
		}
		p.at += n
		if p.at == keyBits {
			if count++; count > most {
				return fmt.Errorf("dictionary: more than %d values", most)
			}
			if err := do(p.key, r); err != nil {
				return err
			}
			continue
		}
		left, right := r.Ref(), r.Ref()
		if r.err != nil {
			return fmt.Errorf("dictionary: %w", r.err)
		}
		one := p
		one.c, one.at = right, p.at+1
		one.key[p.at/8] |= 0x80 >> (p.at % 8)
		p.c = left
		p.at++
		stack = append(stack, one, p)
	}
	return nil
}

// label is an edge's bits: some of a cell's, or one bit again and again.
type label struct {
	c    *Cell
	from int
	same bool
	one  bool
}

func (l label) bit(i int) bool {
	if l.same {
		return l.one
	}
	return bitOf(l.c.data, l.from+i)
}

func bitOf(b []byte, i int) bool { return b[i/8]<<(i%8)&0x80 != 0 }

// label takes an edge's label (HmLabel), of at most most bits.
func (r *Reader) label(most int) (l label, n int) {
	width := bits.Len(uint(most))
	switch {
	case !r.Bool(): // hml_short: the length in ones
		for r.Bool() {
			n++
		}
		l = label{c: r.c, from: r.at}
		r.Skip(min(n, MaxBits))
	case !r.Bool(): // hml_long
		n = int(r.Uint(width))
		l = label{c: r.c, from: r.at}
		r.Skip(n)
	default: // hml_same
		l = label{same: true, one: r.Bool()}
		n = int(r.Uint(width))
	}
	if r.err == nil && n > most {
		r.err = fmt.Errorf("label has %d bits, want at most %d", n, most)
	}
	return l, n
}
