package tdx

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// nameSGX is oidSGX as DER has it. An entry's name has one number more, that of an entry of the TCB two.
const nameSGX = "\x2a\x86\x48\x86\xf8\x4d\x01\x0d\x01"

// The tags of DER that the extension has: ITU-T X.690, section 8.
const (
	tagInteger    = 0x02
	tagOctets     = 0x04
	tagName       = 0x06
	tagEnumerated = 0x0a
	tagSequence   = 0x30
)

// element is one of DER: its tag in one byte, and its content.
type element struct {
	tag     byte
	content []byte
}

// cutElement cuts the first element off. encoding/asn1 reads the same by reflection, which took longer than a certificate.
func cutElement(b []byte) (e element, rest []byte, err error) {
	if len(b) < 2 {
		return e, nil, fmt.Errorf("%d bytes, want a tag and a length", len(b))
	}
	if e.tag = b[0]; e.tag&0x1f == 0x1f {
		return e, nil, fmt.Errorf("tag %#x goes on, want one of a byte", e.tag)
	}
	length, rest := int(b[1]), b[2:]
	switch {
	case length < 0x80:
	case length == 0x81 && len(rest) >= 1 && rest[0] >= 0x80:
		length, rest = int(rest[0]), rest[1:]
	case length == 0x82 && len(rest) >= 2 && rest[0] != 0:
		length, rest = int(rest[0])<<8|int(rest[1]), rest[2:]
	default:
		return e, nil, errors.New("a length is not the shortest of at most 65535")
	}
	if len(rest) < length {
		return e, nil, fmt.Errorf("%d bytes, want %d", len(rest), length)
	}
	e.content = rest[:length:length]
	return e, rest[length:], nil
}

// entry is a name and a value in the extension. taken says that somebody knows the name.
type entry struct {
	name  []byte
	value element
	taken bool
}

// entries are few: they are looked through, and their number is bounded. Intel's have 18 at most.
type entries []entry

const maxEntries = 64

// find returns the entry of a name, or nil.
func (e entries) find(name []byte) *entry {
	for i := range e {
		if bytes.Equal(e[i].name, name) {
			return &e[i]
		}
	}
	return nil
}

// parseEntries reads a SEQUENCE of entries, each a SEQUENCE of a name and a value, in which no name is twice.
func parseEntries(list element) (entries, error) {
	if list.tag != tagSequence {
		return nil, fmt.Errorf("tag %#x, want a sequence", list.tag)
	}
	all := make(entries, 0, 20)
	for rest := list.content; len(rest) > 0; {
		one, after, err := cutElement(rest)
		if err != nil {
			return nil, err
		}
		name, tail, err := cutElement(one.content)
		if err != nil {
			return nil, err
		}
		value, tail, err := cutElement(tail)
		switch {
		case err != nil:
			return nil, err
		case one.tag != tagSequence || name.tag != tagName:
			return nil, fmt.Errorf("an entry has tags %#x and %#x, want a sequence that begins with a name", one.tag, name.tag)
		case len(tail) > 0:
			return nil, fmt.Errorf("%d bytes after an entry's value", len(tail))
		}
		if all.find(name.content) != nil {
			return nil, fmt.Errorf("%s is there twice", dotted(name.content))
		}
		if len(all) == maxEntries {
			return nil, fmt.Errorf("more than %d entries", maxEntries)
		}
		all = append(all, entry{name: name.content, value: value})
		rest = after
	}
	return all, nil
}

// dotted writes a name for people. One that is none has no numbers.
func dotted(name []byte) string {
	oid, err := parseName(name)
	if err != nil {
		return fmt.Sprintf("%x", name)
	}
	return oid.String()
}

func parseName(name []byte) (oid asn1.ObjectIdentifier, err error) {
	if len(name) >= 0x80 {
		return nil, fmt.Errorf("a name of %d bytes, want at most 127", len(name))
	}
	_, err = asn1.Unmarshal(append([]byte{tagName, byte(len(name))}, name...), &oid)
	return oid, err
}

func parsePlatform(cert *x509.Certificate) (p Platform, err error) {
	var extension []byte
	for _, e := range cert.Extensions {
		if e.Id.Equal(oidSGX) {
			extension = e.Value // x509 refuses extensions that are there twice
		}
	}
	if extension == nil {
		return p, errors.New("no SGX extension")
	}
	whole, rest, err := cutElement(extension)
	if err == nil && len(rest) != 0 {
		err = fmt.Errorf("%d bytes after it", len(rest))
	}
	if err != nil {
		return p, fmt.Errorf("SGX extension: %w", err)
	}
	outer, err := parseEntries(whole)
	if err != nil {
		return p, fmt.Errorf("SGX extension: %w", err)
	}
	x := &extensionReader{}
	tcb, err := parseEntries(x.take(outer, tagSequence, 2))
	if err != nil && x.err == nil {
		x.err = fmt.Errorf("TCB: %w", err)
	}
	x.octets(outer, p.PPID[:], 1)
	x.octets(outer, p.PCEID[:], 3)
	x.octets(outer, p.FMSPC[:], 4)
	if x.has(outer, 5) {
		p.SGXType = uint8(x.integer(outer, tagEnumerated, 2, 5))
	}
	if x.has(outer, 6) {
		x.octets(outer, p.PlatformInstanceID[:], 6)
	}
	x.has(outer, 7) // configuration: says nothing about the TCB
	for i := range p.SGXSVN {
		p.SGXSVN[i] = uint8(x.integer(tcb, tagInteger, 255, 2, byte(i+1)))
	}
	p.PCESVN = uint16(x.integer(tcb, tagInteger, 65535, 2, 17))
	x.octets(tcb, p.CPUSVN[:], 2, 18)
	if x.err == nil {
		p.unknown, x.err = unknownNames(outer, tcb)
	}
	if x.err != nil {
		return p, fmt.Errorf("SGX extension: %w", x.err)
	}
	return p, nil
}

// unknownNames lists the entries that nobody has taken. What Intel adds is signed by it. Whether to go by a certificate of which a part
// is not understood is for the caller to say; a name that is none is not understood by anybody.
func unknownNames(lists ...entries) (string, error) {
	var all []string
	for _, list := range lists {
		for _, e := range list {
			if e.taken {
				continue
			}
			oid, err := parseName(e.name)
			if err != nil {
				return "", fmt.Errorf("an entry's name: %w", err)
			}
			all = append(all, oid.String())
		}
	}
	slices.Sort(all)
	return strings.Join(slices.Compact(all), ", "), nil
}

// extensionReader takes entries by what their names have after oidSGX, and keeps the first error.
type extensionReader struct {
	err  error
	name [len(nameSGX) + 2]byte // that was looked for last; the entries' own would say nothing of one that is missing
	size int
}

func (x *extensionReader) find(from entries, path []byte) *entry {
	x.size = copy(x.name[:], nameSGX)
	x.size += copy(x.name[x.size:], path)
	return from.find(x.name[:x.size])
}

func (x *extensionReader) named() string { return dotted(x.name[:x.size]) }

// has reports whether an entry is there that need not be.
func (x *extensionReader) has(from entries, path ...byte) bool {
	e := x.find(from, path)
	if e != nil {
		e.taken = true
	}
	return e != nil
}

func (x *extensionReader) take(from entries, tag byte, path ...byte) element {
	e := x.find(from, path)
	switch {
	case x.err != nil:
	case e == nil:
		x.err = fmt.Errorf("no %s", x.named())
	case e.value.tag != tag:
		x.err = fmt.Errorf("%s has tag %#x, want %#x", x.named(), e.value.tag, tag)
	default:
		e.taken = true
		return e.value
	}
	return element{}
}

func (x *extensionReader) octets(from entries, into []byte, path ...byte) {
	value := x.take(from, tagOctets, path...).content
	if x.err == nil && len(value) != len(into) {
		x.err = fmt.Errorf("%s has %d bytes, want %d", x.named(), len(value), len(into))
	}
	if x.err == nil {
		copy(into, value)
	}
}

func (x *extensionReader) integer(from entries, tag byte, most uint32, path ...byte) (n uint32) {
	value := x.take(from, tag, path...).content
	if x.err != nil {
		return 0
	}
	// DER: the shortest two's complement. Four bytes hold whatever is allowed here.
	if len(value) == 0 || len(value) > 4 || value[0]&0x80 != 0 || len(value) > 1 && value[0] == 0 && value[1]&0x80 == 0 {
		x.err = fmt.Errorf("%s is the integer %x, want one of at most %d", x.named(), value, most)
		return 0
	}
	for _, b := range value {
		n = n<<8 | uint32(b)
	}
	if n > most {
		x.err = fmt.Errorf("%s is %d, want at most %d", x.named(), n, most)
	}
	return n
}
