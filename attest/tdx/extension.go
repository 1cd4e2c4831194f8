package tdx

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// The names of entries in the SGX extension, as DER has them: oidSGX and one number more, of the TCB's entries two.
const (
	nameSGX = "\x2a\x86\x48\x86\xf8\x4d\x01\x0d\x01"
	nameTCB = nameSGX + "\x02"
)

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

// parseEntries reads a SEQUENCE of entries, each a SEQUENCE of a name and a value, in which no name is twice.
func parseEntries(list element) (map[string]element, error) {
	if list.tag != tagSequence {
		return nil, fmt.Errorf("tag %#x, want a sequence", list.tag)
	}
	entries := make(map[string]element, 32)
	for rest := list.content; len(rest) > 0; {
		entry, after, err := cutElement(rest)
		if err != nil {
			return nil, err
		}
		name, tail, err := cutElement(entry.content)
		if err != nil {
			return nil, err
		}
		value, tail, err := cutElement(tail)
		switch {
		case err != nil:
			return nil, err
		case entry.tag != tagSequence || name.tag != tagName:
			return nil, fmt.Errorf("an entry has tags %#x and %#x, want a sequence that begins with a name", entry.tag, name.tag)
		case len(tail) > 0:
			return nil, fmt.Errorf("%d bytes after an entry's value", len(tail))
		}
		if _, twice := entries[string(name.content)]; twice {
			return nil, fmt.Errorf("%s is there twice", dotted(string(name.content)))
		}
		entries[string(name.content)] = value
		rest = after
	}
	return entries, nil
}

// dotted writes a name for people. One that is none has no numbers.
func dotted(name string) string {
	oid, err := parseName(name)
	if err != nil {
		return fmt.Sprintf("%x", name)
	}
	return oid.String()
}

func parseName(name string) (oid asn1.ObjectIdentifier, err error) {
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
	entries, err := parseEntries(whole)
	if err != nil {
		return p, fmt.Errorf("SGX extension: %w", err)
	}
	tcb, err := parseEntries(entries[nameTCB])
	if err != nil {
		return p, fmt.Errorf("SGX extension: TCB: %w", err)
	}
	delete(entries, nameTCB)
	x := &extensionReader{}
	x.octets(entries, nameSGX+"\x01", p.PPID[:])
	x.octets(entries, nameSGX+"\x03", p.PCEID[:])
	x.octets(entries, nameSGX+"\x04", p.FMSPC[:])
	if _, ok := entries[nameSGX+"\x05"]; ok {
		p.SGXType = uint8(x.integer(entries, nameSGX+"\x05", tagEnumerated, 2))
	}
	if _, ok := entries[nameSGX+"\x06"]; ok {
		x.octets(entries, nameSGX+"\x06", p.PlatformInstanceID[:])
	}
	delete(entries, nameSGX+"\x07") // configuration: says nothing about the TCB
	for i := range p.SGXSVN {
		p.SGXSVN[i] = uint8(x.integer(tcb, nameTCB+string(rune(i+1)), tagInteger, 255))
	}
	p.PCESVN = uint16(x.integer(tcb, nameTCB+"\x11", tagInteger, 65535))
	x.octets(tcb, nameTCB+"\x12", p.CPUSVN[:])
	if x.err == nil {
		p.unknown, x.err = unknownNames(entries, tcb)
	}
	if x.err != nil {
		return p, fmt.Errorf("SGX extension: %w", x.err)
	}
	return p, nil
}

// unknownNames lists the entries that nobody has taken. What Intel adds is signed by it. Whether to go by a certificate of which a part
// is not understood is for the caller to say; a name that is none is not understood by anybody.
func unknownNames(lists ...map[string]element) (string, error) {
	var all []string
	for _, entries := range lists {
		for name := range maps.Keys(entries) {
			oid, err := parseName(name)
			if err != nil {
				return "", fmt.Errorf("an entry's name: %w", err)
			}
			all = append(all, oid.String())
		}
	}
	slices.Sort(all)
	return strings.Join(slices.Compact(all), ", "), nil
}

// extensionReader takes entries out by name and keeps the first error.
type extensionReader struct{ err error }

func (x *extensionReader) take(entries map[string]element, name string, tag byte) []byte {
	value, ok := entries[name]
	delete(entries, name)
	switch {
	case x.err != nil:
	case !ok:
		x.err = fmt.Errorf("no %s", dotted(name))
	case value.tag != tag:
		x.err = fmt.Errorf("%s has tag %#x, want %#x", dotted(name), value.tag, tag)
	}
	return value.content
}

func (x *extensionReader) octets(entries map[string]element, name string, into []byte) {
	value := x.take(entries, name, tagOctets)
	if x.err == nil && len(value) != len(into) {
		x.err = fmt.Errorf("%s has %d bytes, want %d", dotted(name), len(value), len(into))
	}
	if x.err == nil {
		copy(into, value)
	}
}

func (x *extensionReader) integer(entries map[string]element, name string, tag byte, most uint32) (n uint32) {
	value := x.take(entries, name, tag)
	if x.err != nil {
		return 0
	}
	// DER: the shortest two's complement. Four bytes hold whatever is allowed here.
	if len(value) == 0 || len(value) > 4 || value[0]&0x80 != 0 || len(value) > 1 && value[0] == 0 && value[1]&0x80 == 0 {
		x.err = fmt.Errorf("%s is the integer %x, want one of at most %d", dotted(name), value, most)
		return 0
	}
	for _, b := range value {
		n = n<<8 | uint32(b)
	}
	if n > most {
		x.err = fmt.Errorf("%s is %d, want at most %d", dotted(name), n, most)
	}
	return n
}
