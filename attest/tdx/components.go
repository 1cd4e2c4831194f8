package tdx

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// components are the components of a TCB level as its document has them. They are most of the document, and read token by token: by
// reflection each number was an allocation.
type components struct {
	count int
	known int // of the first so many svn was there
	svn   [16]byte
	names [16]string
}

// parsed returns 16 components.
func (c *components) parsed() (svn [16]byte, names [16]string, err error) {
	if c.count != len(c.svn) {
		return svn, names, fmt.Errorf("%d components, want %d", c.count, len(c.svn))
	}
	if c.known != c.count {
		return svn, names, fmt.Errorf("component %d has no svn", c.known)
	}
	return c.svn, c.names, nil
}

// UnmarshalJSONFrom reads an array of objects. Values of other kinds are for the decoder to refuse, in its words, or to take for nothing
// where they are null.
func (c *components) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	*c = components{}
	if dec.PeekKind() != '[' {
		return json.UnmarshalDecode(dec, new([]struct{}))
	}
	if _, err := dec.ReadToken(); err != nil {
		return err
	}
	for dec.PeekKind() != ']' {
		var one componentJSON
		if err := one.read(dec); err != nil {
			return err
		}
		if c.count < len(c.svn) {
			if one.there && c.known == c.count {
				c.known++
			}
			c.svn[c.count], c.names[c.count] = one.svn, strings.TrimSpace(one.category+" "+one.kind)
		}
		c.count++
	}
	_, err := dec.ReadToken()
	return err
}

// componentJSON is one of them.
type componentJSON struct {
	svn            uint8
	there          bool // svn is
	category, kind string
}

func (o *componentJSON) read(dec *jsontext.Decoder) error {
	if dec.PeekKind() != '{' {
		return json.UnmarshalDecode(dec, new(struct{}))
	}
	if _, err := dec.ReadToken(); err != nil {
		return err
	}
	for dec.PeekKind() != '}' {
		quoted, err := dec.ReadValue()
		if err != nil {
			return err
		}
		var buffer [16]byte
		name, err := jsontext.AppendUnquote(buffer[:0], quoted)
		if err != nil {
			return err
		}
		switch string(name) {
		case "svn":
			err = o.readSVN(dec)
		case "category":
			err = readText(dec, &o.category)
		case "type":
			err = readText(dec, &o.kind)
		default:
			err = dec.SkipValue()
		}
		if err != nil {
			return err
		}
	}
	_, err := dec.ReadToken()
	return err
}

func (o *componentJSON) readSVN(dec *jsontext.Decoder) error {
	if dec.PeekKind() != '0' {
		return json.UnmarshalDecode(dec, new(uint8))
	}
	value, err := dec.ReadValue()
	if err != nil {
		return err
	}
	n, err := strconv.ParseUint(string(value), 10, 8)
	if err != nil {
		return fmt.Errorf("svn is %.40s, want a whole number of at most 255", value)
	}
	o.svn, o.there = uint8(n), true
	return nil
}

func readText(dec *jsontext.Decoder, into *string) error {
	if dec.PeekKind() != '"' {
		return json.UnmarshalDecode(dec, into)
	}
	value, err := dec.ReadValue()
	if err != nil {
		return err
	}
	plain, err := jsontext.AppendUnquote(nil, value)
	*into = string(plain)
	return err
}
