package nvidia

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// This is the part of XML 1.0 that reference values use, read so that there is one way to read it: elements, attributes, text and the
// five predefined entities. A DTD, a processing instruction, a comment, CDATA, xml: attributes and other character references than
// those of canonical XML are refused: what is signed is then what is seen.
const (
	maxXMLBytes   = 256 << 10
	maxXMLDepth   = 8
	maxElements   = 4096
	maxAttributes = 64 // of one element, namespaces included
	maxNamespaces = 32 // in scope of one element
)

// element is an element, with what is written in it. Its names are resolved.
type element struct {
	prefix, name, space string
	attributes          []attribute // in the order of canonical XML
	declared            []namespace // here, sorted by prefix
	scope               []namespace // all that hold here, the default among them, sorted by prefix
	parent              *element
	content             []node
}

type attribute struct{ prefix, name, space, value string }

type namespace struct{ prefix, uri string }

// node is an element or, where that is nil, text.
type node struct {
	element *element
	text    string
}

type xmlParser struct {
	rest     []byte
	elements int
}

// parseXML parses a document and returns its root element.
func parseXML(text []byte) (*element, error) {
	if len(text) > maxXMLBytes {
		return nil, fmt.Errorf("%d bytes, want at most %d", len(text), maxXMLBytes)
	}
	if !utf8.Valid(text) {
		return nil, errors.New("not UTF-8")
	}
	for i, b := range text {
		if b < ' ' && b != '\t' && b != '\n' && b != '\r' {
			return nil, fmt.Errorf("byte %d is the control character %#x", i, b)
		}
	}
	// XML 1.0, section 2.11: line ends are one character.
	text = bytes.ReplaceAll(bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n")), []byte("\r"), []byte("\n"))
	p := &xmlParser{rest: text}
	if declaration, ok := bytes.CutPrefix(p.rest, []byte("<?xml ")); ok {
		inner, rest, ok := bytes.Cut(declaration, []byte("?>"))
		if lower := strings.ToLower(string(inner)); !ok || strings.Contains(lower, "encoding") && !strings.Contains(lower, "utf-8") {
			return nil, fmt.Errorf("declaration is %.60q, want one of UTF-8", inner)
		}
		p.rest = rest
	}
	p.space()
	root, err := p.element(nil, 1)
	if err != nil {
		return nil, fmt.Errorf("byte %d: %w", len(text)-len(p.rest), err)
	}
	if p.space(); len(p.rest) > 0 {
		return nil, fmt.Errorf("%d bytes after the root element, want none", len(p.rest))
	}
	return root, nil
}

func isSpace(b byte) bool { return b == ' ' || b == '\t' || b == '\n' }

// space passes over white space and reports whether there was some.
func (p *xmlParser) space() bool {
	n := 0
	for n < len(p.rest) && isSpace(p.rest[n]) {
		n++
	}
	p.rest = p.rest[n:]
	return n > 0
}

func (p *xmlParser) take(what string) error {
	if !bytes.HasPrefix(p.rest, []byte(what)) {
		return fmt.Errorf("%.20q, want %q", p.rest, what)
	}
	p.rest = p.rest[len(what):]
	return nil
}

// name reads a name of ASCII letters, digits, '-', '_' and '.', with or without a prefix.
func (p *xmlParser) name() (prefix, local string, err error) {
	n := 0
	for n < len(p.rest) && (isNameStart(p.rest[n]) || n > 0 && (p.rest[n] >= '0' && p.rest[n] <= '9' || p.rest[n] == '-' ||
		p.rest[n] == '.' || p.rest[n] == ':')) {
		n++
	}
	text := string(p.rest[:n])
	p.rest = p.rest[n:]
	prefix, local, qualified := strings.Cut(text, ":")
	if !qualified {
		prefix, local = "", text
	}
	if local == "" || qualified && prefix == "" || !isNameStart(local[0]) || strings.Contains(local, ":") {
		return "", "", fmt.Errorf("%q is no name", text)
	}
	return prefix, local, nil
}

func isNameStart(b byte) bool { return b >= 'A' && b <= 'Z' || b >= 'a' && b <= 'z' || b == '_' }

// element reads an element, from its first '<' to the end of its end tag.
func (p *xmlParser) element(parent *element, depth int) (*element, error) {
	if p.elements++; p.elements > maxElements {
		return nil, fmt.Errorf("more than %d elements", maxElements)
	}
	if depth > maxXMLDepth {
		return nil, fmt.Errorf("elements lie more than %d deep", maxXMLDepth)
	}
	if err := p.take("<"); err != nil {
		return nil, err
	}
	e := &element{parent: parent}
	var err error
	if e.prefix, e.name, err = p.name(); err != nil {
		return nil, err
	}
	for {
		spaced := p.space()
		if bytes.HasPrefix(p.rest, []byte("/>")) || bytes.HasPrefix(p.rest, []byte(">")) {
			break
		}
		if !spaced {
			return nil, fmt.Errorf("%.20q, want a space before an attribute", p.rest)
		}
		if err := p.attribute(e); err != nil {
			return nil, fmt.Errorf("element %s: %w", e.name, err)
		}
	}
	if err := e.resolve(); err != nil {
		return nil, fmt.Errorf("element %s: %w", e.name, err)
	}
	if p.take("/>") == nil {
		return e, nil
	}
	if err := p.take(">"); err != nil {
		return nil, err
	}
	return e, p.inside(e, depth)
}

// inside reads what an element holds, and its end tag.
func (p *xmlParser) inside(e *element, depth int) error {
	for {
		at := bytes.IndexByte(p.rest, '<')
		if at < 0 {
			return fmt.Errorf("element %s has no end", e.name)
		}
		if at > 0 {
			text, err := unescape(p.rest[:at])
			if err != nil {
				return err
			}
			if strings.Contains(text, "]]>") {
				return errors.New("text has ]]> in it")
			}
			e.content = append(e.content, node{text: text})
			p.rest = p.rest[at:]
		}
		if bytes.HasPrefix(p.rest, []byte("</")) {
			p.rest = p.rest[2:]
			prefix, name, err := p.name()
			if err != nil {
				return err
			}
			if prefix != e.prefix || name != e.name {
				return fmt.Errorf("end of %s, want that of %s", name, e.name)
			}
			p.space()
			return p.take(">")
		}
		if len(p.rest) > 1 && (p.rest[1] == '!' || p.rest[1] == '?') {
			return fmt.Errorf("%.12q, want an element: comments, instructions and CDATA are not read", p.rest)
		}
		child, err := p.element(e, depth+1)
		if err != nil {
			return err
		}
		e.content = append(e.content, node{element: child})
	}
}

func (p *xmlParser) attribute(e *element) error {
	prefix, name, err := p.name()
	if err != nil {
		return err
	}
	p.space()
	if err := p.take("="); err != nil {
		return err
	}
	p.space()
	if len(p.rest) == 0 || p.rest[0] != '"' && p.rest[0] != '\'' {
		return fmt.Errorf("%.20q, want a value in quotes", p.rest)
	}
	quote := p.rest[0]
	raw, rest, ok := bytes.Cut(p.rest[1:], []byte{quote})
	if !ok || bytes.IndexByte(raw, '<') >= 0 {
		return fmt.Errorf("value of %s has no end, or '<' in it", name)
	}
	p.rest = rest
	// XML 1.0, section 3.3.3: white space that is written as it is becomes spaces.
	value, err := unescape(bytes.Map(func(r rune) rune {
		if r == '\t' || r == '\n' {
			return ' '
		}
		return r
	}, raw))
	if err != nil {
		return err
	}
	if len(e.attributes)+len(e.declared) == maxAttributes {
		return fmt.Errorf("more than %d attributes", maxAttributes)
	}
	switch {
	case prefix == "" && name == "xmlns":
		return e.declare("", value)
	case prefix == "xmlns":
		return e.declare(name, value)
	case prefix == "xml", strings.HasPrefix(strings.ToLower(name), "xml"):
		return fmt.Errorf("attribute %s:%s is not read", prefix, name)
	}
	e.attributes = append(e.attributes, attribute{prefix: prefix, name: name, value: value})
	return nil
}

func (e *element) declare(prefix, uri string) error {
	if uri == "" || strings.HasPrefix(strings.ToLower(prefix), "xml") || strings.HasPrefix(uri, "http://www.w3.org/XML/") ||
		strings.HasPrefix(uri, "http://www.w3.org/2000/xmlns") {
		return fmt.Errorf("prefix %q can't stand for %q", prefix, uri)
	}
	if slices.ContainsFunc(e.declared, func(n namespace) bool { return n.prefix == prefix }) {
		return fmt.Errorf("prefix %q is declared twice", prefix)
	}
	e.declared = append(e.declared, namespace{prefix, uri})
	return nil
}

// resolve finds the namespaces of the element's names, and puts its attributes into the order of canonical XML.
func (e *element) resolve() error {
	byPrefix := func(a, b namespace) int { return cmp.Compare(a.prefix, b.prefix) }
	slices.SortFunc(e.declared, byPrefix)
	if e.parent != nil {
		e.scope = e.parent.scope
	}
	if len(e.declared) > 0 {
		e.scope = slices.Clone(e.scope)
		for _, n := range e.declared {
			if at, ok := slices.BinarySearchFunc(e.scope, n, byPrefix); ok {
				e.scope[at] = n
			} else {
				e.scope = slices.Insert(e.scope, at, n)
			}
		}
		if len(e.scope) > maxNamespaces {
			return fmt.Errorf("more than %d namespaces", maxNamespaces)
		}
	}
	uri := func(prefix string) (string, error) {
		if at, ok := slices.BinarySearchFunc(e.scope, namespace{prefix: prefix}, byPrefix); ok {
			return e.scope[at].uri, nil
		}
		if prefix == "" {
			return "", nil
		}
		return "", fmt.Errorf("prefix %q stands for nothing", prefix)
	}
	var err error
	if e.space, err = uri(e.prefix); err != nil {
		return err
	}
	for i := range e.attributes {
		if a := &e.attributes[i]; a.prefix != "" { // an attribute without a prefix is in no namespace
			if a.space, err = uri(a.prefix); err != nil {
				return err
			}
		}
	}
	byName := func(a, b attribute) int { return cmp.Or(cmp.Compare(a.space, b.space), cmp.Compare(a.name, b.name)) }
	slices.SortFunc(e.attributes, byName)
	for i := 1; i < len(e.attributes); i++ {
		if byName(e.attributes[i-1], e.attributes[i]) == 0 {
			return fmt.Errorf("attribute %s is there twice", e.attributes[i].name)
		}
	}
	return nil
}

// The references that canonical XML writes, and two that it does not need.
var references = []struct{ reference, character string }{
	{"&amp;", "&"}, {"&lt;", "<"}, {"&gt;", ">"}, {"&quot;", `"`}, {"&apos;", "'"}, {"&#x9;", "\t"}, {"&#xA;", "\n"}, {"&#xD;", "\r"},
}

func unescape(raw []byte) (string, error) {
	if bytes.IndexByte(raw, '&') < 0 {
		return string(raw), nil
	}
	var b strings.Builder
next:
	for len(raw) > 0 {
		at := bytes.IndexByte(raw, '&')
		if at < 0 {
			at = len(raw)
		}
		b.Write(raw[:at])
		raw = raw[at:]
		for _, r := range references {
			if bytes.HasPrefix(raw, []byte(r.reference)) {
				b.WriteString(r.character)
				raw = raw[len(r.reference):]
				continue next
			}
		}
		if len(raw) > 0 {
			return "", fmt.Errorf("reference %.10q is not read", raw)
		}
	}
	return b.String(), nil
}

var (
	escapeText      = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "\r", "&#xD;")
	escapeAttribute = strings.NewReplacer("&", "&amp;", "<", "&lt;", `"`, "&quot;", "\t", "&#x9;", "\n", "&#xA;", "\r", "&#xD;")
)

// canonical returns the element as Canonical XML 1.1 without comments writes it, without the element except, which may be nil. Of an
// element within a document all namespaces in scope are written, as that specification has it.
func (e *element) canonical(except *element) []byte {
	var b bytes.Buffer
	e.write(&b, nil, except)
	return b.Bytes()
}

// write writes the element. written are the namespaces in scope of the nearest written element around it.
func (e *element) write(b *bytes.Buffer, written []namespace, except *element) {
	name := e.name
	if e.prefix != "" {
		name = e.prefix + ":" + name
	}
	b.WriteByte('<')
	b.WriteString(name)
	for _, n := range e.scope {
		if slices.Contains(written, n) {
			continue
		}
		b.WriteString(" xmlns")
		if n.prefix != "" {
			b.WriteString(":" + n.prefix)
		}
		b.WriteString(`="`)
		_, _ = escapeAttribute.WriteString(b, n.uri)
		b.WriteByte('"')
	}
	for _, a := range e.attributes {
		b.WriteByte(' ')
		if a.prefix != "" {
			b.WriteString(a.prefix + ":")
		}
		b.WriteString(a.name + `="`)
		_, _ = escapeAttribute.WriteString(b, a.value)
		b.WriteByte('"')
	}
	b.WriteByte('>')
	for _, n := range e.content {
		switch {
		case n.element == nil:
			_, _ = escapeText.WriteString(b, n.text)
		case n.element != except:
			n.element.write(b, e.scope, except)
		}
	}
	b.WriteString("</" + name + ">")
}

// is reports whether an element has this name in this namespace.
func (e *element) is(space, name string) bool { return e.space == space && e.name == name }

// attribute returns the value of an attribute, and whether it is there.
func (e *element) attribute(space, name string) (string, bool) {
	for _, a := range e.attributes {
		if a.space == space && a.name == name {
			return a.value, true
		}
	}
	return "", false
}

// children returns the elements directly within one. Text among them must be white space.
func (e *element) children() ([]*element, error) {
	var all []*element
	for _, n := range e.content {
		if n.element != nil {
			all = append(all, n.element)
		} else if strings.TrimSpace(n.text) != "" {
			return nil, fmt.Errorf("element %s has the text %.20q, want none", e.name, n.text)
		}
	}
	return all, nil
}

// words returns the text of an element that holds nothing else.
func (e *element) words() (string, error) {
	var b strings.Builder
	for _, n := range e.content {
		if n.element != nil {
			return "", fmt.Errorf("element %s holds %s, want text", e.name, n.element.name)
		}
		b.WriteString(n.text)
	}
	return b.String(), nil
}
