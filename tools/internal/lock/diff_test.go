package lock

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const helloNews = `hello (2.10-5) trixie-security; urgency=high

  * CVE-2026-11111: refuse a greeting that is too long (Closes: #1).
  * Also of DSA-6001-1 and CVE-2026-1234567.

 -- Somebody <somebody@example.test>  Fri, 20 Nov 2026 10:00:00 +0000

hello (2.10-4) trixie; urgency=medium

  * Mentions CVE-2026-22222 and, again, CVE-2026-11111.

 -- Somebody <somebody@example.test>  Thu, 19 Nov 2026 10:00:00 +0000

hello (2.10-3) trixie; urgency=medium

  * CVE-2020-33333 was the last one.

 -- Somebody <somebody@example.test>  Wed, 18 Nov 2026 10:00:00 +0000
`

func TestAdvisoriesSince(t *testing.T) {
	for _, tt := range []struct {
		name, text, source, since string
		want                      []string
		err                       string
	}{
		{"two entries", helloNews, "hello", "2.10-3", []string{"CVE-2026-11111", "CVE-2026-1234567", "CVE-2026-22222", "DSA-6001-1"}, ""},
		{"one entry", helloNews, "hello", "2.10-4", []string{"CVE-2026-11111", "CVE-2026-1234567", "DSA-6001-1"}, ""},
		{"between two entries", helloNews, "hello", "2.10-3+deb13u1",
			[]string{"CVE-2026-11111", "CVE-2026-1234567", "CVE-2026-22222", "DSA-6001-1"}, ""},
		{"nothing new", helloNews, "hello", "2.10-5", []string{}, ""},
		{"does not reach back", helloNews, "hello", "2.9-1", nil, "does not reach back to version 2.9-1"},
		{"of another source", helloNews, "glibc", "2.10-3", nil, `of "hello", want "glibc"`},
		{"empty", "", "hello", "2.10-3", nil, "does not reach back"},
		{"no changelog at all", "just some text\n", "hello", "2.10-3", nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := advisoriesSince([]byte(tt.text), tt.source, tt.since)
			if tt.want == nil {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("got %q, error %v, want one with %q", got, err, tt.err)
				}
				return
			}
			if err != nil || !slices.Equal(got, tt.want) {
				t.Errorf("got %q, error %v, want %q", got, err, tt.want)
			}
		})
	}
}

// FuzzAdvisories: whatever a package calls its changelog, reading it ends.
func FuzzAdvisories(f *testing.F) {
	f.Add([]byte(helloNews), "2.10-3")
	if _, err := advisoriesSince([]byte(helloNews), "hello", "2.10-3"); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text []byte, since string) { advisoriesSince(text, "hello", since) })
}

func TestCompareLocks(t *testing.T) {
	before, err := Parse([]byte(smallLock))
	if err != nil {
		t.Fatal(err)
	}
	if d := Compare(before, before); !d.Empty() || len(d.Archives) != 0 {
		t.Errorf("a lock and itself: got %+v, want no difference", d)
	}
	after, err := Parse([]byte(strings.NewReplacer("2026-09-12T07:55:41Z 0584", "2026-11-20T00:00:00Z 1584", "Version: 2.10-3",
		"Version: 2.10-5", "SHA256: 2cf2", "SHA256: 3cf2",
		"Size: 5", "Size: 7").Replace(smallLock)))
	if err != nil {
		t.Fatal(err)
	}
	d := Compare(before, after)
	if len(d.Archives) != 1 || d.Archives[0] != (ArchiveChange{Debian, "trixie", "2026-09-12T07:55:41Z", "2026-11-20T00:00:00Z"}) {
		t.Errorf("archives: got %+v", d.Archives)
	}
	if len(d.Packages) != 1 || d.Packages[0].Name != "hello" || d.Packages[0].Old != "2.10-3" || d.Packages[0].New != "2.10-5" ||
		d.Packages[0].OldSize != 5 || d.Packages[0].NewSize != 7 {
		t.Errorf("packages: got %+v", d.Packages)
	}
	if d.Packages[0].Downgrade() || !Compare(after, before).Packages[0].Downgrade() {
		t.Error("which of the versions is the older one is told wrong")
	}
	none := before
	none.Packages = nil
	if d := Compare(before, none); len(d.Packages) != 1 || d.Packages[0].New != "" {
		t.Errorf("a package less: got %+v", d.Packages)
	}
	if d := Compare(none, before); len(d.Packages) != 1 || d.Packages[0].Old != "" {
		t.Errorf("a package more: got %+v", d.Packages)
	}
}

// debPackage makes a real package file with dpkg-deb.
func debPackage(t *testing.T, name, version, news string) []byte {
	t.Helper()
	dir := t.TempDir()
	write := func(file string, data []byte) {
		file = filepath.Join(dir, file)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("DEBIAN/control", fmt.Appendf(nil, "Package: %s\nVersion: %s\nArchitecture: amd64\nMaintainer: Somebody <somebody@example.test>\nDescription: greets\n", name, version))
	write("usr/bin/"+name, []byte("program"))
	if news != "" {
		var z bytes.Buffer
		w := gzip.NewWriter(&z)
		if _, err := w.Write([]byte(news)); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		write("usr/share/doc/"+name+"/changelog.Debian.gz", z.Bytes())
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "package.deb")
	if out, err := exec.CommandContext(t.Context(), "dpkg-deb", "--build", "--root-owner-group", dir, file).CombinedOutput(); err != nil {
		t.Fatalf("dpkg-deb: %v: %s", err, out)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestReadNews downloads changed packages from a mirror and reads their changelogs.
func TestReadNews(t *testing.T) {
	if _, err := exec.LookPath("dpkg-deb"); err != nil {
		t.Skip("needs dpkg-deb")
	}
	files := map[string][]byte{}
	mirror := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, ok := files[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Write(data)
	}))
	defer mirror.Close()
	make := func(name, version, source string, data []byte) Package {
		p := Package{Name: name, Version: version, Architecture: "amd64", Archive: Debian, Filename: "pool/" + name + "_" + version + ".deb",
			Size:   int64(len(data)),
			SHA256: sha256.Sum256(data), values: map[string]string{}}
		if source != "" {
			p.values["Source"] = source
		}
		if strings.HasSuffix(version, "-5") && name != "gone" {
			files["/"+p.Filename] = data
		}
		return p
	}
	named, silent := debPackage(t, "hello", "2.10-5", helloNews), debPackage(t, "quiet", "2.10-5", "")
	libs := debPackage(t, "libhello", "2.10-5", strings.ReplaceAll(helloNews, "2.10-3", "2.10-2"))
	kernel := debPackage(t, "kernel-2", "2.10-5", strings.ReplaceAll(helloNews, "hello", "kernel"))
	before := Lock{Name: "small", Packages: []Package{make("gone", "2.10-3", "", []byte("g")), make("hello", "2.10-3", "", []byte("h")),
		make("kernel-1", "2.10-3", "kernel", []byte("k")), make("kernel-1-modules", "2.10-3", "kernel", []byte("m")),
		make("libhello", "2.10-3", "hello", []byte("l")),
		make("old", "2.10-6", "", []byte("o")), make("quiet", "2.10-3", "", []byte("q")), make("removed", "1", "", []byte("r"))}}
	after := Lock{Name: "small", Releases: []Release{{Archive: Debian, Date: time.Now()}},
		Packages: []Package{make("added", "2.10-5", "", []byte("a")), make("gone", "2.10-5", "", []byte("g2")),
			make("hello", "2.10-5", "", named), make("kernel-2", "2.10-5", "kernel", kernel), make("libhello", "2.10-5", "hello", append(libs, bytes.Repeat([]byte("\n"), len(named))...)),
			make("old", "2.10-5", "", []byte("o2")),
			make("quiet", "2.10-5", "", silent)}}
	d := Compare(before, after)
	p := Places{Cache: t.TempDir(), Mirrors: map[string][]string{Debian: {mirror.URL}}}
	if err := p.ReadNews(t.Context(), http.DefaultClient, &d, after); err != nil {
		t.Fatal(err)
	}
	ids := []string{"CVE-2026-11111", "CVE-2026-1234567", "CVE-2026-22222", "DSA-6001-1"}
	for i, want := range []struct {
		name       string
		advisories []string
		news       string
	}{
		{"added", nil, "no earlier version"}, {"gone", nil, "cannot be told: gone: locked packages are nowhere"},
		{"hello", ids, "changelog in hello"}, {"kernel-1", ids, "changelog in kernel-2"}, {"kernel-1-modules", ids, "changelog in kernel-2"},
		{"kernel-2", nil, "no earlier version"},
		{"libhello", ids, "changelog in hello"}, {"old", nil, "an older version"},
		{"quiet", nil, "cannot be told: quiet: no changelog in the package"}, {"removed", nil, "removed"},
	} {
		if i >= len(d.Packages) {
			t.Fatalf("got %d changes, want more", len(d.Packages))
		}
		c := d.Packages[i]
		if c.Name != want.name || !slices.Equal(c.Advisories, want.advisories) || !strings.Contains(c.News, want.news) {
			t.Errorf("got %s %q %q, want %s %q %q", c.Name, c.Advisories, c.News, want.name, want.advisories, want.news)
		}
	}
}

// TestChangelogElsewhere: a package whose documents are another's says so.
func TestChangelogElsewhere(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: "./usr/share/doc/libhello", Typeflag: tar.TypeSymlink, Linkname: "hello"}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	script := "#!/bin/sh\ncat '" + filepath.Join(dir, "tar") + "'\n"
	for name, data := range map[string]string{"tar": b.String(), "dpkg-deb": script} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	if _, err := packageChangelog(t.Context(), "package.deb", "libhello"); err == nil || !strings.Contains(err.Error(), "those of hello") {
		t.Errorf("got error %v, want one that names the other package", err)
	}
}
