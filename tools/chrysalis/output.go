package main

import (
	"encoding/json"
	"io"
	"slices"
	"strings"
	"unicode"
)

// printJSON writes one indented JSON value.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// printable drops what would move a terminal's cursor or change its colours; line feeds and tabs stay.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && (unicode.IsControl(r) || slices.Contains([]rune{'\u2028', '\u2029', '\u202e'}, r)) {
			return -1
		}
		return r
	}, s)
}
