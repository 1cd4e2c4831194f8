package guest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cavaliergopher/cpio"

	"chrysalis/measure"
)

// TestSuccessorRefuses: what can't be judged is said to be, before anything is read of a release.
func TestSuccessorRefuses(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		spec       Spec
	}{
		{"a TD", "want vtpm", Spec{Shape: measure.Shape{Platform: measure.TDX}}},
		{"an SEV-SNP guest", "want vtpm", Spec{Shape: measure.Shape{Platform: measure.SEVSNP}}},
		{"a boot disk", "boots a release directly", Spec{Disk: "chrysalis.raw"}},
		{"a release that is not there", "no such file", Spec{Release: filepath.Join(t.TempDir(), "nowhere")}},
	} {
		if got, err := SuccessorOf(tt.spec, t.TempDir(), nil); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %+v and error %v, want one with %q", tt.name, got, err, tt.want)
		}
	}
}

// TestImageOf reads what an initrd says of its image, where it says anything.
func TestImageOf(t *testing.T) {
	write := func(files map[string]string) string {
		dir := t.TempDir()
		f, err := os.Create(filepath.Join(dir, "initrd"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		w := cpio.NewWriter(f)
		for name, data := range files {
			if err := w.WriteHeader(&cpio.Header{Name: name, Mode: cpio.TypeReg | 0o644, Size: int64(len(data))}); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write([]byte(data)); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	good := `{"security_version":3,"signers":[],"threshold":0}`
	if got, err := imageOf(write(map[string]string{"init": "a program", "image.json": good})); err != nil || got.SecurityVersion != 3 {
		t.Errorf("got %+v and error %v, want version 3", got, err)
	}
	for name, files := range map[string]map[string]string{
		"an initrd of before": {"init": "a program"}, "another format": {"image.json": good + " "}, "too much": {"image.json": strings.Repeat(" ", 100<<10)},
	} {
		if got, err := imageOf(write(files)); err == nil {
			t.Errorf("%s: got %+v, want an error", name, got)
		}
	}
}
