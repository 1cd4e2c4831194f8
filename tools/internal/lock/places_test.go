package lock

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestFindPlaces(t *testing.T) {
	members := filepath.Join(t.TempDir(), "members")
	if err := os.WriteFile(members, []byte("http://one.test/debian\npriority:2 # not an address\nhttp://two.test/debian\tpriority:1\n"),
		0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name           string
		files          map[string]string
		env            map[string]string
		main, security []string
	}{
		{
			name:  "one-line",
			files: map[string]string{"sources.list": "# comment\ndeb [arch=amd64 signed-by=/k.gpg] http://m.test/debian/ bookworm main\ndeb-src http://s.test/debian bookworm main\ndeb http://m.test/debian-security bookworm-security main\n"},
			main:  []string{"http://m.test/debian"}, security: []string{"http://m.test/debian-security"},
		},
		{
			name: "deb822",
			files: map[string]string{"sources.list.d/debian.sources": "Types: deb\n# a comment\nURIs: http://m.test/debian\nSuites: trixie\n trixie-updates\nComponents: main\n\n" +
				"Types: deb\nURIs: http://sec.test/\nSuites: trixie-security\n\nTypes: deb\nEnabled: no\nURIs: http://off.test/debian\nSuites: trixie\n"},
			main: []string{"http://m.test/debian"}, security: []string{"http://sec.test"},
		},
		{
			name: "other distributions and vendors are no Debian mirror",
			files: map[string]string{"sources.list.d/ubuntu.sources": "URIs: http://u.test/ubuntu\nSuites: noble noble-security\n",
				"sources.list.d/vendor.list": "deb https://v.test/apt cloud-sdk-bookworm main\n"},
		},
		{
			name:     "list of mirrors in a file",
			files:    map[string]string{"sources.list": "deb mirror+file:" + members + " trixie main\n"},
			main:     []string{"http://one.test/debian", "http://two.test/debian"},
			security: []string{"http://one.test/debian-security", "http://two.test/debian-security"},
		},
		{
			name:  "the variables win",
			files: map[string]string{"sources.list": "deb http://m.test/debian bookworm main\n"},
			env:   map[string]string{"DEBIAN_MIRROR": "http://env.test/debian/"},
			main:  []string{"http://env.test/debian"}, security: []string{"http://env.test/debian-security"},
		},
		{
			name: "both variables",
			env:  map[string]string{"DEBIAN_MIRROR": "http://env.test/debian", "DEBIAN_SECURITY_MIRROR": "http://sec.test"},
			main: []string{"http://env.test/debian"}, security: []string{"http://sec.test"},
		},
		{name: "nothing"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			etc := t.TempDir()
			for name, text := range tt.files {
				path := filepath.Join(etc, name)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			p, err := FindPlaces(etc, "cache", func(name string) string { return tt.env[name] })
			if err != nil {
				t.Fatal(err)
			}
			if got := p.Mirrors[Debian]; !slices.Equal(got, tt.main) {
				t.Errorf("mirrors: got %q, want %q", got, tt.main)
			}
			if got := p.Mirrors[Security]; !slices.Equal(got, tt.security) {
				t.Errorf("security mirrors: got %q, want %q", got, tt.security)
			}
			if _, err := p.Base(Debian); errors.Is(err, ErrNoMirror) != (tt.main == nil) {
				t.Errorf("base: got error %v", err)
			}
		})
	}
}
