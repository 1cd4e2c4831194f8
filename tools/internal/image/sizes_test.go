package image

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"chrysalis/measure"
)

// TestSizes holds the built release against what is recorded.
func TestSizes(t *testing.T) {
	files, err := ReleaseFiles(filepath.Join(sourceTree, "build/release"))
	if err != nil {
		t.Skipf("no build of the image here: %v", err)
	}
	grown, err := CheckSizes(sourceTree, files)
	if err != nil || len(grown) > 0 {
		t.Errorf("sizes (%v): %s\nif that is wanted: chrysalis image sizes > %s", err, strings.Join(grown, "; "), SizesFile)
	}
}

func TestCheckSizes(t *testing.T) {
	source := t.TempDir()
	if err := os.Mkdir(filepath.Join(source, "image"), 0o755); err != nil {
		t.Fatal(err)
	}
	record := func(text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(source, SizesFile), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	record(FormatSizes([]measure.File{{Name: "initrd", Size: 1000}, {Name: "root.img", Size: 2000}}))
	for _, tt := range []struct {
		name  string
		files []measure.File
		want  []string
	}{
		{"the same", []measure.File{{Name: "initrd", Size: 1000}, {Name: "root.img", Size: 2000}}, nil},
		{"5 % more, and less", []measure.File{{Name: "initrd", Size: 1050}, {Name: "root.img", Size: 2}}, nil},
		{"past 5 %", []measure.File{{Name: "initrd", Size: 1051}, {Name: "root.img", Size: 2000}},
			[]string{"initrd has 1051 bytes, want at most 5 % more than the recorded 1000"}},
		{"a file more", []measure.File{{Name: "extra", Size: 1}, {Name: "initrd", Size: 1000}, {Name: "root.img", Size: 2000}},
			[]string{"extra has 1 bytes, and none are recorded"}},
		{"a file less", []measure.File{{Name: "initrd", Size: 1000}}, []string{"root.img is recorded, and not in the release"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got, err := CheckSizes(source, tt.files); err != nil || !slices.Equal(got, tt.want) {
				t.Errorf("got %q (%v), want %q", got, err, tt.want)
			}
		})
	}
	for _, text := range []string{"initrd\n", "initrd many\n", "initrd -1\n", "initrd 1\ninitrd 1\n"} {
		record(text)
		if got, err := CheckSizes(source, nil); err == nil {
			t.Errorf("%q: got %q, want a refusal", text, got)
		}
	}
}
