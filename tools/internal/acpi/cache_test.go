package acpi

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"chrysalis/measure"
)

func TestCacheHeals(t *testing.T) {
	name := filepath.Join(t.TempDir(), "cache", "tables")
	want := measure.Tables{Loader: []byte("script"), Files: map[string][]byte{"a": {1}}, Settings: map[string][]byte{"b": {2}}}
	if err := store(name, want); err != nil {
		t.Fatal(err)
	}
	if got, err := load(name); err != nil || string(got.Loader) != "script" || got.Files["a"][0] != 1 || got.Settings["b"][0] != 2 {
		t.Fatalf("got %v, error %v, want %v", got, err, want)
	}
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)-3]++
	for what, bad := range map[string][]byte{"changed": data, "truncated": data[:10]} {
		if err := os.WriteFile(name, bad, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := load(name); err == nil {
			t.Errorf("%s: got no error, want the file refused and so made again", what)
		}
	}
	if _, err := load(name + "x"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: got error %v, want %v", err, os.ErrNotExist)
	}
}
