package image

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFindProfile(t *testing.T) {
	if got, err := FindProfile(sourceTree, string(DefaultProfile)); err != nil || got != DefaultProfile {
		t.Errorf("got %q, error %v, want %q", got, err, DefaultProfile)
	}
	for _, name := range []string{"", ".", "..", "gpu2", "cpu/", "./cpu", "cpu/cmdline", "../mkosi.profiles/cpu"} {
		if got, err := FindProfile(sourceTree, name); err == nil || !strings.Contains(err.Error(), "which has cpu") {
			t.Errorf("%q: got %q, error %v, want a refusal that names the profiles there are", name, got, err)
		}
	}
	for _, name := range []string{profileBase, profileModules, profileCmdline} {
		if _, err := os.Stat(filepath.Join(sourceTree, DefaultProfile.file(name))); err != nil {
			t.Error(err)
		}
	}
}

// TestProfileIsAValue builds with a profile of another name: every file that is read for it is of its folder.
func TestProfileIsAValue(t *testing.T) {
	source := t.TempDir()
	b := Builder{Source: source, Profile: "other"}
	for _, name := range append(b.mkosiFiles(), b.Profile.file(profileModules), b.Profile.file(profileCmdline)) {
		if err := os.MkdirAll(filepath.Join(source, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(source, name), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	folders, err := os.ReadDir(filepath.Join(source, profiles))
	if err != nil || len(folders) != 1 || folders[0].Name() != "other" {
		t.Fatalf("files of the profile lie in %v (error %v), want in other alone", folders, err)
	}
	first, err := b.configDigest()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(source, b.Profile.file(profileBase)), []byte("changed"), 0o644); err != nil {
		t.Fatal(err)
	}
	if second, err := b.configDigest(); err != nil || second == first {
		t.Errorf("changed configuration of the profile: got digest %x, error %v, want another than before", second, err)
	}
	o := origins{cmdline: b.Profile.file(profileCmdline)}
	if got, err := o.of("cmdline", ""); err != nil || got.Name != "image/mkosi.profiles/other/cmdline" {
		t.Errorf("origin of the command line: got %v, error %v", got, err)
	}
	b.Profile = DefaultProfile
	if _, err := b.configDigest(); err == nil {
		t.Error("a profile that the source tree lacks: got no error")
	}
}
