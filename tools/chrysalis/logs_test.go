package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestLastOf: of a log that is too long the end is shown, from the beginning of a line.
func TestLastOf(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	for _, tt := range []struct{ text, want string }{
		{"", ""}, {"a\nb\n", "a\nb\n"}, {"a\n" + strings.Repeat("x", maxLogBytes-3) + "\nb\n", "b\n"}, {strings.Repeat("x", maxLogBytes+1), ""},
	} {
		if err := os.WriteFile(file, []byte(tt.text), 0o644); err != nil {
			t.Fatal(err)
		}
		if got, err := lastOf(file); err != nil || got != tt.want {
			t.Errorf("of %d bytes: got %d bytes (%.20q) and error %v, want %q", len(tt.text), len(got), got, err, tt.want)
		}
	}
}
