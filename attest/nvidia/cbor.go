package nvidia

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"unicode/utf8"
)

// This is the part of CBOR (RFC 8949) that CoRIM uses, with one encoding of each value: shortest heads, no indefinite lengths, no two
// keys alike, no floating point.
const (
	maxCBORDepth = 16
	maxCBORItems = 1 << 15

	kindUnsigned = 0
	kindNegative = 1
	kindBytes    = 2
	kindText     = 3
	kindArray    = 4
	kindMap      = 5
	kindTag      = 6
	kindSimple   = 7

	simpleFalse = 20
	simpleTrue  = 21
	simpleNull  = 22
)

// cbor is one data item.
type cbor struct {
	kind   byte
	number uint64 // of a number, a tag or a simple value; of a negative number -1 minus it
	bytes  []byte // of bytes and text
	items  []cbor // of an array; of a map keys and values in turn; of a tag its one content
}

// parseCBOR parses one item, which must be all there is.
func parseCBOR(b []byte) (cbor, error) {
	p := &cborParser{rest: b}
	item, err := p.item(1)
	if err == nil && len(p.rest) > 0 {
		err = fmt.Errorf("%d bytes after the item, want none", len(p.rest))
	}
	return item, err
}

type cborParser struct {
	rest  []byte
	items int
}

// head reads the first bytes of an item: its kind, and a number in the fewest bytes that hold it.
func (p *cborParser) head() (kind byte, n uint64, err error) {
	if len(p.rest) == 0 {
		return 0, 0, errors.New("an item is missing")
	}
	kind, info := p.rest[0]>>5, p.rest[0]&31
	p.rest = p.rest[1:]
	if info < 24 {
		return kind, uint64(info), nil
	}
	if info > 27 {
		return 0, 0, fmt.Errorf("head has the length %d, which is indefinite or reserved", info)
	}
	size := 1 << (info - 24)
	if len(p.rest) < size {
		return 0, 0, fmt.Errorf("head of %d bytes, want %d", len(p.rest), size)
	}
	for _, b := range p.rest[:size] {
		n = n<<8 | uint64(b)
	}
	p.rest = p.rest[size:]
	if least := [4]uint64{24, 1 << 8, 1 << 16, 1 << 32}[info-24]; n < least || kind == kindSimple {
		return 0, 0, fmt.Errorf("%d is written in %d bytes, want fewer", n, size)
	}
	return kind, n, nil
}

func (p *cborParser) item(depth int) (cbor, error) {
	if p.items++; p.items > maxCBORItems {
		return cbor{}, fmt.Errorf("more than %d items", maxCBORItems)
	}
	if depth > maxCBORDepth {
		return cbor{}, fmt.Errorf("items lie more than %d deep", maxCBORDepth)
	}
	kind, n, err := p.head()
	if err != nil {
		return cbor{}, err
	}
	c := cbor{kind: kind, number: n}
	switch kind {
	case kindUnsigned, kindNegative:
		if n > math.MaxInt64 {
			return c, fmt.Errorf("number %d is out of range", n)
		}
		return c, nil
	case kindBytes, kindText:
		if n > uint64(len(p.rest)) {
			return c, fmt.Errorf("string of %d bytes, in %d", n, len(p.rest))
		}
		c.number, c.bytes, p.rest = 0, p.rest[:n], p.rest[n:]
		if kind == kindText && !utf8.Valid(c.bytes) {
			return c, errors.New("text is not UTF-8")
		}
		return c, nil
	case kindSimple:
		if n != simpleFalse && n != simpleTrue && n != simpleNull {
			return c, fmt.Errorf("simple value %d is unknown", n)
		}
		return c, nil
	case kindTag:
		content, err := p.item(depth + 1)
		c.items = []cbor{content}
		return c, err
	}
	if n > uint64(len(p.rest)) { // each item takes a byte at least
		return c, fmt.Errorf("%d items, in %d bytes", n, len(p.rest))
	}
	c.number = 0
	if kind == kindMap {
		n *= 2
	}
	for range n {
		item, err := p.item(depth + 1)
		if err != nil {
			return c, err
		}
		c.items = append(c.items, item)
	}
	return c, c.distinct()
}

// distinct refuses two keys alike. A key is a number or a text.
func (c cbor) distinct() error {
	if c.kind != kindMap {
		return nil
	}
	seen := make(map[string]bool, len(c.items)/2)
	for i := 0; i < len(c.items); i += 2 {
		key := c.items[i]
		if key.kind > kindText || key.kind == kindBytes {
			return fmt.Errorf("key of kind %d, want a number or a text", key.kind)
		}
		name := string(key.append(nil))
		if seen[name] {
			return errors.New("a key is there twice")
		}
		seen[name] = true
	}
	return nil
}

// append writes the item.
func (c cbor) append(b []byte) []byte {
	head := c.number
	switch c.kind {
	case kindBytes, kindText:
		return append(appendHead(b, c.kind, uint64(len(c.bytes))), c.bytes...)
	case kindArray:
		head = uint64(len(c.items))
	case kindMap:
		head = uint64(len(c.items) / 2)
	}
	b = appendHead(b, c.kind, head)
	for _, item := range c.items {
		b = item.append(b)
	}
	return b
}

func appendHead(b []byte, kind byte, n uint64) []byte {
	kind <<= 5
	switch {
	case n < 24:
		return append(b, kind|byte(n))
	case n < 1<<8:
		return append(b, kind|24, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(b, kind|25), uint16(n))
	case n < 1<<32:
		return binary.BigEndian.AppendUint32(append(b, kind|26), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(b, kind|27), n)
}

// integer returns a number, and whether the item is one.
func (c cbor) integer() (int64, bool) {
	switch c.kind {
	case kindUnsigned:
		return int64(c.number), true
	case kindNegative:
		return -1 - int64(c.number), true
	}
	return 0, false
}

// tagged returns the content of an item with that tag.
func (c cbor) tagged(tag uint64) (cbor, error) {
	if c.kind != kindTag || c.number != tag {
		return cbor{}, fmt.Errorf("item of kind %d and the tag %d, want the tag %d", c.kind, c.number, tag)
	}
	return c.items[0], nil
}

// list returns the items of an array of least to most.
func (c cbor) list(least, most int) ([]cbor, error) {
	if c.kind != kindArray || len(c.items) < least || len(c.items) > most {
		return nil, fmt.Errorf("item of kind %d with %d items, want an array of %d to %d", c.kind, len(c.items), least, most)
	}
	return c.items, nil
}

// members returns the values of a map by their keys, all of which must be known.
func (c cbor) members(known ...int64) (map[int64]cbor, error) {
	if c.kind != kindMap {
		return nil, fmt.Errorf("item of kind %d, want a map", c.kind)
	}
	all := make(map[int64]cbor, len(c.items)/2)
next:
	for i := 0; i < len(c.items); i += 2 {
		if key, ok := c.items[i].integer(); ok {
			for _, k := range known {
				if k == key {
					all[key] = c.items[i+1]
					continue next
				}
			}
		}
		return nil, fmt.Errorf("key %x is unknown", c.items[i].append(nil))
	}
	return all, nil
}
