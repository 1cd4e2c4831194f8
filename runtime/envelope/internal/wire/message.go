package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"slices"
	"strings"
)

// The message inside is Binary HTTP (RFC 9292): a known-length request, and an indeterminate-length response. Of its encodings
// of one meaning the shortest is the one that is taken.

// Framing indicators (RFC 9292, section 3.3).
const (
	knownLengthRequest          = 0
	indeterminateLengthResponse = 3
)

// Bounds of a message's fields.
const (
	MaxFields     = 64
	MaxFieldBytes = 16 << 10
)

// Field is one line of a message's header. Names are lower case and stand in ascending order.
type Field struct{ Name, Value string }

// Request is what a client asks for.
type Request struct {
	Method, Path string
	// Query is what follows ? in the target, sealed alone: the request line around the envelope has the path without it. "" is none.
	Query  string
	Header []Field
	Body   []byte

	plain []byte
}

// Wipe overwrites an opened request.
func (r *Request) Wipe() { clear(r.plain) }

const (
	minBucket = 256
	maxBucket = 64 << 10
)

// Bucket returns the length to which n bytes are padded: the least power of two from 256 to 64 KiB that holds them, and the least
// multiple of 64 KiB beyond.
func Bucket(n int) int {
	switch {
	case n <= minBucket:
		return minBucket
	case n <= maxBucket:
		return 1 << bits.Len(uint(n-1))
	}
	return (n + maxBucket - 1) / maxBucket * maxBucket
}

// SealedBytes returns the most bytes that a sealed request with a body of n bytes has.
func SealedBytes(n int) int {
	const around = 64 // framing indicator, method and scheme, lengths
	return HeaderBytes + encBytes + Bucket(n+MaxFieldBytes+maxTargetBytes+around) + tagBytes
}

// maxTargetBytes bounds path and query together.
const maxTargetBytes = 1 << 10

// forbidden are the fields of a connection, which no message inside an envelope has.
var forbidden = []string{"connection", "content-length", "host", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}

func appendVarint(b []byte, n uint64) []byte { // RFC 9000, section 16
	switch {
	case n < 1<<6:
		return append(b, byte(n))
	case n < 1<<14:
		return binary.BigEndian.AppendUint16(b, 1<<14|uint16(n))
	case n < 1<<30:
		return binary.BigEndian.AppendUint32(b, 1<<31|uint32(n))
	}
	return binary.BigEndian.AppendUint64(b, 3<<62|n)
}

// readVarint reads a number in its shortest form.
func readVarint(r io.ByteReader) (uint64, error) {
	first, err := r.ReadByte()
	if err != nil {
		return 0, err
	}
	size, n := 1<<(first>>6), uint64(first&0x3f)
	for range size - 1 {
		b, err := r.ReadByte()
		if err != nil {
			return 0, noEOF(err)
		}
		n = n<<8 | uint64(b)
	}
	if len(appendVarint(nil, n)) != size {
		return 0, fmt.Errorf("number %d in %d bytes: %w", n, size, errLonger)
	}
	return n, nil
}

var errLonger = errors.New("want its shortest form")

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func appendText[Text ~string | ~[]byte](b []byte, s Text) []byte {
	return append(appendVarint(b, uint64(len(s))), s...)
}

// target is what a request line would have: path, and query.
func (r *Request) target() string {
	if r.Query == "" {
		return r.Path
	}
	return r.Path + "?" + r.Query
}

// Check reports why no envelope takes the request, whatever its body: its method, its path and query, its header.
func (r *Request) Check() error {
	if strings.Contains(r.Path, "?") {
		return fmt.Errorf("path of %d bytes has a query in it", len(r.Path))
	}
	if err := checkTarget(r.Method, r.target()); err != nil {
		return err
	}
	return checkFields(r.Header)
}

func (r *Request) encode() ([]byte, error) {
	if err := r.Check(); err != nil {
		return nil, err
	}
	fields, err := appendFields(nil, r.Header)
	if err != nil {
		return nil, err
	}
	size := SealedBytes(len(r.Body)) // a copy that is left behind would not be wiped
	b := append(make([]byte, 0, size), knownLengthRequest)
	for _, s := range []string{r.Method, "https", "", r.target()} {
		b = appendText(b, s)
	}
	b = appendText(b, fields)
	b = appendText(b, r.Body)
	b = append(b, 0) // no trailer
	return b[:Bucket(len(b))], nil
}

func decodeRequest(plain []byte) (*Request, error) {
	in := bytes.NewReader(plain)
	d := decoder{in}
	var r Request
	kind, err := d.ReadByte()
	if err != nil || kind != knownLengthRequest {
		return nil, fmt.Errorf("framing indicator %d (%v), want %d", kind, err, knownLengthRequest)
	}
	var scheme, authority, target string
	for _, s := range []*string{&r.Method, &scheme, &authority, &target} {
		text, err := d.text(maxTargetBytes)
		if err != nil {
			return nil, fmt.Errorf("reading request: %w", err)
		}
		*s = string(text)
	}
	if scheme != "https" || authority != "" {
		return nil, fmt.Errorf("scheme of %d bytes and authority of %d, want https and none", len(scheme), len(authority))
	}
	if err := checkTarget(r.Method, target); err != nil {
		return nil, err
	}
	var asks bool
	if r.Path, r.Query, asks = strings.Cut(target, "?"); asks && r.Query == "" {
		return nil, errors.New("a query without anything in it, want none")
	}
	fields, err := d.text(MaxFieldBytes)
	if err != nil {
		return nil, fmt.Errorf("reading header: %w", err)
	}
	if r.Header, err = decodeFields(decoder{bytes.NewReader(fields)}); err != io.EOF {
		return nil, fmt.Errorf("reading header: %w", err)
	}
	size, err := readVarint(d)
	if err != nil {
		return nil, fmt.Errorf("reading body: %w", err)
	}
	if size > uint64(in.Len()) {
		return nil, fmt.Errorf("body of %d bytes, want at most the %d left", size, in.Len())
	}
	at := len(plain) - in.Len()
	r.Body = plain[at : at+int(size) : at+int(size)]
	rest := plain[at+int(size):]
	if len(rest) == 0 || rest[0] != 0 {
		return nil, errors.New("a trailer, want none")
	}
	if err := checkPadding(rest[1:], len(plain)); err != nil {
		return nil, err
	}
	return &r, nil
}

// checkPadding wants zeros that fill the least bucket.
func checkPadding(padding []byte, whole int) error {
	if want := Bucket(whole - len(padding)); whole != want {
		return fmt.Errorf("padded to %d bytes, want %d", whole, want)
	}
	if i := slices.IndexFunc(padding, func(b byte) bool { return b != 0 }); i >= 0 {
		return fmt.Errorf("byte %d of the padding is not zero", i)
	}
	return nil
}

// checkTarget wants a method and a target: a path, and a query behind it where there is one.
func checkTarget(method, target string) error {
	if !isToken(method) || strings.ToUpper(method) != method {
		return fmt.Errorf("method of %d bytes is none", len(method))
	}
	if len(target) > maxTargetBytes || !strings.HasPrefix(target, "/") || strings.ContainsFunc(target, func(r rune) bool { return r <= ' ' || r == '#' || r >= 0x7f }) {
		return fmt.Errorf("path and query of %d bytes, want / and visible characters without #, %d at most", len(target), maxTargetBytes)
	}
	return nil
}

// appendFields writes field lines, as they stand in a message of known length.
func appendFields(b []byte, fields []Field) ([]byte, error) {
	if err := checkFields(fields); err != nil {
		return nil, err
	}
	for _, f := range fields {
		b = appendText(appendText(b, f.Name), f.Value)
	}
	return b, nil
}

// decodeFields reads field lines to their end: io.EOF at the end of d, nil behind a zero.
func decodeFields(d decoder) (fields []Field, err error) {
	total := 0
	for {
		name, err := d.text(MaxFieldBytes)
		if err == io.EOF || err == nil && len(name) == 0 {
			if bad := checkFields(fields); bad != nil {
				return nil, bad
			}
			return fields, err
		}
		if err != nil {
			return nil, err
		}
		value, err := d.text(MaxFieldBytes)
		if err != nil {
			return nil, noEOF(err)
		}
		if total += len(name) + len(value); total > MaxFieldBytes || len(fields) == MaxFields {
			return nil, fmt.Errorf("more than %d fields or %d bytes", MaxFields, MaxFieldBytes)
		}
		fields = append(fields, Field{string(name), string(value)})
	}
}

func checkFields(fields []Field) error {
	total, last := 0, ""
	for i, f := range fields {
		if !isToken(f.Name) || strings.ToLower(f.Name) != f.Name || f.Name < last || slices.Contains(forbidden, f.Name) {
			return fmt.Errorf("name of field %d: want a lower-case name that may be in an envelope, in ascending order", i)
		}
		if strings.Trim(f.Value, " \t") != f.Value || strings.ContainsFunc(f.Value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
			return fmt.Errorf("value of field %d has spaces around it or control characters", i)
		}
		total += len(f.Name) + len(f.Value)
		last = f.Name
	}
	// Lengths take a byte or two each.
	if len(fields) > MaxFields || total+4*len(fields) > MaxFieldBytes {
		return fmt.Errorf("%d fields of %d bytes, want at most %d and %d", len(fields), total, MaxFields, MaxFieldBytes)
	}
	return nil
}

func isToken(s string) bool { // RFC 9110, section 5.6.2
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("!#$%&'*+-.^_`|~", r))
	})
}

// decoder reads what stands in a message.
type decoder struct{ byteReader }

type byteReader interface {
	io.Reader
	io.ByteReader
}

// text reads a length and as many bytes. An end before the length is io.EOF.
func (d decoder) text(most int) ([]byte, error) {
	n, err := readVarint(d)
	if err != nil {
		return nil, err
	}
	if n > uint64(most) {
		return nil, fmt.Errorf("%d bytes, want at most %d", n, most)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(d, b); err != nil {
		return nil, noEOF(err)
	}
	return b, nil
}
