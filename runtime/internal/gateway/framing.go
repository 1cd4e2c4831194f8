package gateway

import (
	"bytes"
	"errors"
	"strconv"
)

// framing reads along with net/http what a connection brings, and stops before what two readers could take for two different requests:
// net/http folds lines, takes a bare LF for an end, and counts equal or zero-padded lengths as one. Everything else is its business.
type framing struct {
	at      position
	line    [64]byte // the beginning of the header's line
	n       int      // bytes of the line
	first   bool     // the line is a request's first
	lengths int      // Content-Length headers of this header
	body    int64    // what follows of the body
	opaque  bool     // the body's length is not told: the request is refused, and the connection ends with it
	begun   int      // requests of which there is a byte
	header  int      // requests whose header is whole
}

// position is where in a request a connection is.
type position uint8

const (
	inLine position = iota // the zero value: before the first line, or in one
	atCR
	inBody
)

var errFraming = errors.New("the request has more than one reading")

// take returns how much of b may be passed on. Less than all of it comes with an error.
func (f *framing) take(b []byte) (int, error) {
	for i := 0; i < len(b); i++ {
		if f.opaque {
			return len(b), nil
		}
		c := b[i]
		switch f.at {
		case inBody:
			n := min(f.body, int64(len(b)-i))
			f.body -= n
			i += int(n) - 1
			if f.body == 0 {
				f.next()
			}
		case atCR:
			if c != '\n' {
				return i, errFraming
			}
			f.at = inLine
			if err := f.ended(); err != nil {
				return i, err
			}
		default:
			if f.n == 0 && !f.started() {
				f.first = true
				f.begun++
			}
			switch {
			case c == '\n', c == 0, f.n == 0 && (c == ' ' || c == '\t'):
				return i, errFraming
			case c == '\r':
				f.at = atCR
			default:
				if f.n < len(f.line) {
					f.line[f.n] = c
				}
				f.n++
			}
		}
	}
	return len(b), nil
}

// started reports whether the request at hand has begun.
func (f *framing) started() bool { return f.begun > f.header }

// next begins the next request.
func (f *framing) next() { f.at, f.n, f.lengths, f.body = inLine, 0, 0, 0 }

// ended judges a line.
func (f *framing) ended() error {
	line := f.line[:min(f.n, len(f.line))]
	whole := f.n <= len(f.line)
	empty, first := f.n == 0, f.first
	f.n, f.first = 0, false
	switch {
	case empty && first:
		return errFraming // an empty line before a request
	case empty:
		clear(f.line[:])
		f.header++
		if f.body == 0 {
			f.next()
		} else {
			f.at = inBody
		}
		return nil
	case first:
		return nil
	}
	name, value, ok := bytes.Cut(line, []byte(":"))
	switch {
	case !ok && whole:
		return errFraming
	case bytes.EqualFold(name, []byte("Transfer-Encoding")):
		f.opaque = true
	case bytes.EqualFold(name, []byte("Content-Length")):
		digits := string(bytes.Trim(value, " \t"))
		n, err := strconv.ParseUint(digits, 10, 62)
		if f.lengths++; !whole || err != nil || f.lengths > 1 || strconv.FormatUint(n, 10) != digits {
			return errFraming
		}
		f.body = int64(n)
	}
	return nil
}
