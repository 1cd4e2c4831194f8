package lock

import (
	"crypto/sha256"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestPlanned(t *testing.T) {
	const plan = "Reading package lists...\nInst gcc-14-base (14.2.0-19 Debian:13.1/stable [amd64]) []\nInst libc6:amd64 (2.41-12 Debian:13.1/stable, Debian-Security:13/stable-security [amd64])\n" +
		"Conf libc6 (2.41-12 Debian:13.1/stable [amd64])\n"
	want := map[[2]string]bool{{"gcc-14-base", "14.2.0-19"}: true, {"libc6", "2.41-12"}: true}
	if got := planned([]byte(plan)); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestNewestTexts(t *testing.T) {
	known := func(names ...string) suite {
		var s suite
		for _, name := range names {
			name, v, _ := strings.Cut(name, " ")
			s.stanzas = append(s.stanzas, map[string]string{"Package": name, "Version": v})
		}
		return s
	}
	request := []string{"ca-certificates", "binary-*-cloud", "modules-*-cloud"}
	for _, tt := range []struct {
		name   string
		suites []suite
		want   []string
	}{
		{"newest by version, not by name", []suite{known("binary-7.2.9-cloud 7.2.9-1", "modules-7.2.9-cloud 7.2.9-1"),
			known("binary-7.2.12-cloud 7.2.12-1~bpo", "modules-7.2.12-cloud 7.2.12-1~bpo", "ca-certificates 1")}, []string{"7.2.12", "7.2.9"}},
		{"only where every package is", []suite{known("binary-7.3.4-cloud 7.3.4-1", "binary-unsigned-7.3.4-cloud 7.3.4-1",
			"binary-7.2-cloud 7.2-1", "modules-7.2-cloud 7.2-1")}, []string{"7.2"}},
		{"nothing", []suite{known("binary-cloud 1", "modules-cloud 1")}, []string{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := newestTexts(request, tt.suites); !slices.Equal(got, tt.want) || got == nil {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	if got := newestTexts([]string{"hello", "?essential"}, []suite{known("hello 1")}); got != nil {
		t.Errorf("a request without *: got %q, want nil", got)
	}
}

func TestLists(t *testing.T) {
	work := t.TempDir()
	source := Source{Debian, "trixie"}
	a := apt{work: work, sources: map[Source]string{source: "http://m.test/debian"}}
	release := "-----BEGIN PGP SIGNED MESSAGE-----\n\nOrigin: Debian\nDate: Sat, 12 Sep 2026 07:55:41 UTC\n"
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(work, "state/lists", name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := a.lists(source); err == nil {
		t.Error("no release: got no error")
	}
	write("m.test_debian_dists_trixie_InRelease", release)
	if _, packages, err := a.lists(source); err != nil || packages != nil {
		t.Errorf("suite without packages: got %d bytes, error %v, want none", len(packages), err)
	}
	write("m.test_debian_dists_trixie_main_binary-amd64_Packages", "Package: hello\n")
	r, packages, err := a.lists(source)
	if err != nil || string(packages) != "Package: hello\n" {
		t.Errorf("packages: got %q, error %v", packages, err)
	}
	if want := time.Date(2026, 9, 12, 7, 55, 41, 0, time.UTC); !r.Date.Equal(want) || r.InRelease != sha256.Sum256([]byte(release)) {
		t.Errorf("release: got %+v, want date %v and the hash of the file", r, want)
	}
	write("m.test_debian_dists_trixie_InRelease", "Origin: Debian\n")
	if _, _, err := a.lists(source); err == nil || !strings.Contains(err.Error(), "no date") {
		t.Errorf("release without date: got error %v", err)
	}
}

func TestResolveWithoutMirror(t *testing.T) {
	_, err := Resolve(t.Context(), Places{}, t.TempDir(),
		Lock{Name: "x", Request: []string{"hello"}, Releases: []Release{{Archive: Debian, Suite: "trixie"}}})
	if !errors.Is(err, ErrNoMirror) && !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got error %v, want %v or a missing keyring", err, ErrNoMirror)
	}
}
