package main

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

func TestFold(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		columns  int
		want     string
	}{
		{"no terminal", "a b c\n", 0, "a b c\n"},
		{"fits", "a b c\n", 5, "a b c\n"},
		{"does not", "a b c d\n", 5, "a b c\nd\n"},
		{"without an end", "a b c d", 5, "a b c\nd"},
		{"below its value", "key   one two three\n", 14, "key   one two\n      three\n"},
		{"indented", "  one two\n", 6, "  one\n  two\n"},
		{"a long word", "key  0123456789abcdef x\n", 12, "key  0123456789abcdef\n     x\n"},
		{"letters of several bytes", "ä ö ü\nä ö ü ß\n", 5, "ä ö ü\nä ö ü\nß\n"},
		{"an empty line", "\na b c d\n\n", 5, "\na b c\nd\n\n"},
	} {
		if got := fold(tt.in, tt.columns); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

// tooWide returns the lines of text that have more columns and could have fewer: one word behind an indent can't.
func tooWide(text string, columns int) (lines []string) {
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		words := strings.Fields(line)
		if utf8.RuneCountInString(line) > columns && (len(words) > 2 || len(words) == 2 && utf8.RuneCountInString(words[1]) <= columns/2) {
			lines = append(lines, line)
		}
	}
	return lines
}

// TestHelpFits: the help of each command, where no terminal says how wide it may be, fits into 80 columns, but for examples, which are to be
// copied. It has no colour.
func TestHelpFits(t *testing.T) {
	var names [][]string
	var walk func(*cobra.Command, []string)
	walk = func(c *cobra.Command, path []string) {
		names = append(names, path)
		for _, sub := range c.Commands() {
			walk(sub, append(append([]string{}, path...), sub.Name()))
		}
	}
	walk(newRoot(), nil)
	if len(names) < 60 {
		t.Fatalf("found %d commands, want all of them", len(names))
	}
	for _, path := range names {
		var b bytes.Buffer
		root := newRoot()
		root.SetOut(&b)
		root.SetArgs(append(append([]string{}, path...), "--help"))
		if err := root.Execute(); err != nil {
			t.Fatal(err)
		}
		text := b.String()
		if before, rest, ok := strings.Cut(text, "Examples:\n"); ok {
			_, after, _ := strings.Cut(rest, "\n\n")
			text = before + after
		}
		if lines := tooWide(text, helpColumns); len(lines) > 0 || strings.ContainsAny(text, "\x1b\r") {
			t.Errorf("chrysalis %s --help: wider than %d columns, or coloured: %q", strings.Join(path, " "), helpColumns, lines)
		}
	}
}
