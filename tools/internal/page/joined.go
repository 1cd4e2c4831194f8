package page

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// Sections and instructions of WebAssembly 1.0 that are read here: section 5.5 and 5.4 of its specification.
const (
	dataSection = 11
	i32Const    = 0x41
	end         = 0x0b
)

// maxGap is how many zeros are written out between two segments rather than as another segment.
const maxGap = 256

// joined returns the program with fewer segments of data. Go's linker leaves zeros out, which makes tens of thousands of segments, and what is saved by
// that is lost many times over when it is packed.
func joined(wasm []byte) ([]byte, error) {
	if !bytes.HasPrefix(wasm, []byte("\x00asm\x01\x00\x00\x00")) {
		return nil, errors.New("it is no WebAssembly")
	}
	out, rest := append([]byte{}, wasm[:8]...), wasm[8:]
	for len(rest) > 0 {
		kind := rest[0]
		size, n := binary.Uvarint(rest[1:])
		if n <= 0 || size > uint64(len(rest)-1-n) {
			return nil, fmt.Errorf("section %d is longer than what is left", kind)
		}
		content := rest[1+n : 1+n+int(size)]
		if kind == dataSection {
			var err error
			if content, err = joinedData(content); err != nil {
				return nil, err
			}
		}
		out = binary.AppendUvarint(append(out, kind), uint64(len(content)))
		out, rest = append(out, content...), rest[1+n+int(size):]
	}
	return out, nil
}

// segment is data at its place in memory.
type segment struct {
	at   int64
	data []byte
}

func joinedData(content []byte) ([]byte, error) {
	count, n := binary.Uvarint(content)
	if n <= 0 {
		return nil, errors.New("the data section has no count")
	}
	rest := content[n:]
	var found []segment
	for range count {
		if len(rest) < 2 || rest[0] != 0 || rest[1] != i32Const {
			return nil, errors.New("a segment of data is not at a constant place of memory 0")
		}
		at, n := signed(rest[2:])
		if n <= 0 || len(rest) < 3+n || rest[2+n] != end {
			return nil, errors.New("a segment of data has no place")
		}
		rest = rest[3+n:]
		size, n := binary.Uvarint(rest)
		if n <= 0 || size > uint64(len(rest)-n) {
			return nil, errors.New("a segment of data is longer than its section")
		}
		data := rest[n : n+int(size)]
		rest = rest[n+int(size):]
		found = append(found, segment{at, data})
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("%d bytes behind the last segment of data", len(rest))
	}
	slices.SortFunc(found, func(a, b segment) int { return cmp.Compare(a.at, b.at) })
	var all []segment
	for _, s := range found {
		last := len(all) - 1
		if last < 0 {
			all = append(all, segment{s.at, bytes.Clone(s.data)})
			continue
		}
		gap := s.at - all[last].at - int64(len(all[last].data))
		switch {
		case gap < 0:
			return nil, fmt.Errorf("two segments of data at %d", s.at)
		case gap <= maxGap:
			all[last].data = append(append(all[last].data, make([]byte, gap)...), s.data...)
		default:
			all = append(all, segment{s.at, bytes.Clone(s.data)})
		}
	}
	out := binary.AppendUvarint(nil, uint64(len(all)))
	for _, s := range all {
		out = appendSigned(append(out, 0, i32Const), s.at)
		out = append(binary.AppendUvarint(append(out, end), uint64(len(s.data))), s.data...)
	}
	return out, nil
}

// signed reads a signed LEB128 number of at most 32 bits.
func signed(b []byte) (value int64, n int) {
	for shift := 0; n < len(b) && n < 5; {
		c := b[n]
		n++
		value |= int64(c&0x7f) << shift
		if shift += 7; c&0x80 == 0 {
			if c&0x40 != 0 {
				value |= -1 << shift
			}
			return value, n
		}
	}
	return 0, 0
}

func appendSigned(b []byte, v int64) []byte {
	for {
		c := byte(v & 0x7f)
		v >>= 7
		if v == 0 && c&0x40 == 0 || v == -1 && c&0x40 != 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}
