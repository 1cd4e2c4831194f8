package gateway

import (
	"bytes"

	"github.com/go-json-experiment/json/jsontext"
)

// object calls each for the members of an object that has been read once as a whole, and for none of anything else. What each is given
// points into v.
func object(v jsontext.Value, each func(name string, v jsontext.Value)) {
	if v.Kind() != '{' {
		return
	}
	dec := jsontext.NewDecoder(bytes.NewBuffer(v))
	dec.ReadToken()
	for dec.PeekKind() == '"' {
		token, err := dec.ReadToken()
		if err != nil {
			return
		}
		name := token.String()
		each(name, next(dec, v))
	}
}

// array calls each for the elements of an array that has been read once as a whole, and for none of anything else.
func array(v jsontext.Value, each func(v jsontext.Value)) {
	if v.Kind() != '[' {
		return
	}
	dec := jsontext.NewDecoder(bytes.NewBuffer(v))
	dec.ReadToken()
	for k := dec.PeekKind(); k != ']' && k != jsontext.KindInvalid; k = dec.PeekKind() {
		each(next(dec, v))
	}
}

// next returns the decoder's next value, as a part of v, which it reads.
func next(dec *jsontext.Decoder, v jsontext.Value) jsontext.Value {
	start := dec.InputOffset()
	if dec.SkipValue() != nil {
		return nil
	}
	return jsontext.Value(bytes.TrimLeft(v[start:dec.InputOffset()], " \t\r\n:,"))
}

// at returns a member of an object, nil where it has none.
func at(v jsontext.Value, name string) (member jsontext.Value) {
	object(v, func(n string, v jsontext.Value) {
		if n == name {
			member = v
		}
	})
	return member
}

// depth returns how deep JSON nests.
func depth(v []byte) (deepest int) {
	level, inText := 0, false
	for i := 0; i < len(v); i++ {
		switch c := v[i]; {
		case inText && c == '\\':
			i++
		case c == '"':
			inText = !inText
		case inText:
		case c == '{' || c == '[':
			level++
			deepest = max(deepest, level)
		case c == '}' || c == ']':
			level--
		}
	}
	return deepest
}

// word returns a short string, "" for everything else.
func word(v jsontext.Value) string {
	if v.Kind() != '"' || len(v) > 2+6*64 {
		return ""
	}
	s, err := jsontext.AppendUnquote(nil, []byte(v))
	if err != nil {
		return ""
	}
	return string(s)
}

// comma separates what follows from what stands before it in the same object or list.
func comma(b []byte) []byte {
	if n := len(b); n > 0 && b[n-1] != '{' && b[n-1] != '[' {
		return append(b, ',')
	}
	return b
}

// appendMember appends a member of an object.
func appendMember(b []byte, name string, v jsontext.Value) []byte {
	return append(append(append(append(comma(b), '"'), name...), `":`...), v...)
}

// quote appends s as a JSON string.
func quote[Text ~[]byte | ~string](b []byte, s Text) []byte {
	b, err := jsontext.AppendQuote(b, s)
	if err != nil {
		// Only invalid UTF-8 is an error, and then the string is still there, with replacement characters.
		return b
	}
	return b
}
