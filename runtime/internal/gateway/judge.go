package gateway

import (
	"slices"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"
)

// judge reports whether a value is one that a field may have. What it should be is said in the field's row.
type judge func(v jsontext.Value) bool

// ofType judges a value by the type that JSON gives it.
func ofType(kinds ...jsontext.Kind) judge {
	return func(v jsontext.Value) bool { return slices.Contains(kinds, v.Kind()) }
}

var (
	anyText  = ofType('"')
	anObject = ofType('{')
	isFalse  = ofType('f')
	boolean  = ofType('t', 'f')
)

// either judges a value by several judges, one of which must accept it.
func either(judges ...judge) judge {
	return func(v jsontext.Value) bool {
		return slices.ContainsFunc(judges, func(j judge) bool { return j(v) })
	}
}

// orNull takes null beside what a judge takes.
func orNull(j judge) judge { return either(j, ofType('n')) }

// short narrows a judge to values of at most n bytes, as they are written.
func short(n int, j judge) judge {
	return func(v jsontext.Value) bool { return len(v) <= n && j(v) }
}

// text judges a string of at most n bytes, as it is written.
func text(n int) judge { return short(n+2, anyText) }

// number judges a number by its value.
func number(from, to float64) judge {
	return func(v jsontext.Value) bool {
		f, err := strconv.ParseFloat(string(v), 64)
		return v.Kind() == '0' && len(v) <= 32 && err == nil && f >= from && f <= to
	}
}

// aboveZero narrows a judge of numbers to those above zero.
func aboveZero(j judge) judge {
	return func(v jsontext.Value) bool {
		f, err := strconv.ParseFloat(string(v), 64)
		return err == nil && f > 0 && j(v)
	}
}

// whole judges a number that is written in digits alone.
func whole(from, to uint64) judge {
	return func(v jsontext.Value) bool {
		n, err := strconv.ParseUint(string(v), 10, 64)
		return v.Kind() == '0' && err == nil && n >= from && n <= to
	}
}

// oneOf judges a string that is one of some words.
func oneOf(words ...string) judge {
	return func(v jsontext.Value) bool { return v.Kind() == '"' && slices.Contains(words, word(v)) }
}

// listed judges a list of at most so many elements.
func listed(most int, each judge) judge {
	return func(v jsontext.Value) bool {
		n, ok := 0, v.Kind() == '['
		array(v, func(v jsontext.Value) {
			n++
			ok = ok && n <= most && each(v)
		})
		return ok
	}
}

// keyed judges an object of at most so many members by their names and values.
func keyed(most int, name func(string) bool, each judge) judge {
	return func(v jsontext.Value) bool {
		n, ok := 0, v.Kind() == '{'
		object(v, func(of string, v jsontext.Value) {
			n++
			ok = ok && n <= most && name(of) && each(v)
		})
		return ok
	}
}

// member is one that an object may have, or must have.
type member struct {
	name  string
	needs bool
	judge judge
}

func must(name string, j judge) member { return member{name, true, j} }
func may(name string, j judge) member  { return member{name, false, j} }

// shaped judges an object that has these members and no other.
func shaped(members ...member) judge {
	return func(v jsontext.Value) bool {
		if v.Kind() != '{' {
			return false
		}
		ok, needed := true, 0
		object(v, func(name string, v jsontext.Value) {
			i := slices.IndexFunc(members, func(m member) bool { return m.name == name })
			if ok = ok && i >= 0 && members[i].judge(v); ok && members[i].needs {
				needed++ // no name is there twice
			}
		})
		for _, m := range members {
			if m.needs {
				needed--
			}
		}
		return ok && needed == 0
	}
}

// function judges what has a name, may have a description and a strictness, and has more members.
func function(more ...member) judge {
	return shaped(append(more, must("name", functionName), may("description", orNull(anyText)), may("strict", orNull(boolean)))...)
}

// functionName judges a name as OpenAI has them.
func functionName(v jsontext.Value) bool {
	name := word(v)
	for _, c := range []byte(name) {
		if !(c == '_' || c == '-' || c == '.' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z') {
			return false
		}
	}
	return name != "" && len(name) <= 64
}

func isTokenID(name string) bool {
	_, err := strconv.ParseUint(name, 10, 31)
	return err == nil
}
