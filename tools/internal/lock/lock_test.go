package lock

import (
	"bytes"
	"crypto/sha256"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// projectLocks are the locks of this project, which also seed the fuzz test.
func projectLocks(t testing.TB) [][]byte {
	t.Helper()
	files, err := filepath.Glob("../../../image/*.lock")
	if err != nil || len(files) == 0 {
		t.Fatalf("finding the project's locks: %d files, error %v", len(files), err)
	}
	var locks [][]byte
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		locks = append(locks, data)
	}
	return locks
}

const smallLock = `Lock: small
Request:
 hello
Archives:
 debian trixie 2026-09-12T07:55:41Z 0584fba32e13e0ab8285fb16c27adea1ec03a73669c18702821094fd6ca86675

Package: hello
Version: 2.10-3
Architecture: amd64
Depends: libc6 (>= 2.34)
Filename: pool/main/h/hello/hello_2.10-3_amd64.deb
Size: 5
SHA256: 2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824
X-Archive: debian
`

func TestParse(t *testing.T) {
	l, err := Parse([]byte(smallLock))
	if err != nil {
		t.Fatal(err)
	}
	p, err := l.Package("hello")
	if err != nil {
		t.Fatal(err)
	}
	if p.Version != "2.10-3" || p.Size != 5 || p.SHA256 != sha256.Sum256([]byte("hello")) || p.Archive != Debian {
		t.Errorf("package: got %+v", p)
	}
	if l.Name != "small" || len(l.Request) != 1 || l.Request[0] != "hello" || len(l.Releases) != 1 || l.Releases[0].Suite != "trixie" {
		t.Errorf("header: got %q %q %+v", l.Name, l.Request, l.Releases)
	}
	if _, err := l.Package("hallo"); err == nil {
		t.Error("a package that is not there: got no error")
	}
}

func TestParseRefuses(t *testing.T) {
	swap := func(old, new string) string {
		if !strings.Contains(smallLock, old) {
			t.Fatalf("the small lock has no %q", old)
		}
		return strings.Replace(smallLock, old, new, 1)
	}
	stanza := smallLock[strings.Index(smallLock, "\nPackage"):]
	for _, tt := range []struct{ name, lock, want string }{
		{"empty", "", "0 requests"},
		{"unknown header field", swap("Request:", "Extra: x\nRequest:"), `field "Extra"`},
		{"no request", swap(" hello\n", ""), "0 requests"},
		{"archive line short", swap(" trixie 2026", " 2026"), "3 words"},
		{"archive date", swap("2026-09-12T", "2026-99-12T"), "month out of range"},
		{"archive hash", swap("0584fb", "0584zz"), "64 hex digits"},
		{"no hash", swap("SHA256: 2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824\n", ""), "has no SHA256"},
		{"short hash", swap("SHA256: 2cf2", "SHA256: "), "64 hex digits"},
		{"upper-case hash", swap("2cf24dba", "2CF24DBA"), "lower case"},
		{"zero size", swap("Size: 5", "Size: 0"), "want 1 to"},
		{"padded size", swap("Size: 5", "Size: 05"), "want 1 to"},
		{"huge size", swap("Size: 5", "Size: 99999999999"), "want 1 to"},
		{"path out of the pool", swap("pool/main/h/hello/", "pool/../../etc/"), "no pool path"},
		{"absolute path", swap("Filename: pool", "Filename: /pool"), "no pool path"},
		{"path with a query", swap("hello_2.10", "hello?2.10"), "no pool path"},
		{"unknown archive", swap("X-Archive: debian", "X-Archive: elsewhere"), `archive "elsewhere"`},
		{"unknown field", swap("Depends:", "Homepage: x\nDepends:"), "one encoding"},
		{"field twice", swap("Size: 5\n", "Size: 5\nSize: 5\n"), "stands twice"},
		{"fields out of order", swap("Size: 5\nSHA256", "SHA256") + "Size: 5\n", "one encoding"},
		{"package twice", smallLock + stanza, "each once and sorted"},
		{"trailing bytes", smallLock + "\n", ""},
		{"carriage returns", strings.ReplaceAll(smallLock, "\n", "\r\n"), ""},
		{"no field", swap("Version: ", "Version "), "is no field"},
		{"too long", smallLock + strings.Repeat("#", maxLockBytes), "want at most"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse([]byte(tt.lock))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want one with %q", err, tt.want)
			}
		})
	}
}

func TestProjectLocksParse(t *testing.T) {
	for _, data := range projectLocks(t) {
		l, err := Parse(data)
		if err != nil {
			t.Error(err)
			continue
		}
		if len(l.Packages) == 0 || len(l.Releases) == 0 {
			t.Errorf("lock %s: %d packages, %d releases, want some of each", l.Name, len(l.Packages), len(l.Releases))
		}
		for _, r := range l.Releases {
			if r.InRelease == ([32]byte{}) {
				t.Errorf("lock %s: suite %s was never resolved", l.Name, r.Suite)
			}
		}
	}
}

// TestLocksNameNoHost keeps the machine's mirror out of the tree: a lock must serve everywhere.
func TestLocksNameNoHost(t *testing.T) {
	for _, data := range projectLocks(t) {
		for _, sign := range []string{"://", ".org", "mirror+"} {
			if bytes.Contains(data, []byte(sign)) {
				t.Errorf("a lock contains %q, want no address", sign)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(smallLock))
	for _, data := range projectLocks(f) {
		if len(data) < 16<<10 { // a long seed slows the search down
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := Parse(data)
		if err != nil {
			return
		}
		if got := l.Bytes(); !bytes.Equal(got, data) {
			t.Errorf("encoding again: got %q, want %q", got, data)
		}
	})
}

func TestRepository(t *testing.T) {
	l, err := Parse([]byte(smallLock))
	if err != nil {
		t.Fatal(err)
	}
	cached := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(cached, []byte("hello"), 0o644); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for range 2 { // a second run finds its own files there
		if err := l.WriteRepository(dir, func(Package) string { return cached }); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(filepath.Join(dir, "pool/main/h/hello/hello_2.10-3_amd64.deb"))
	if err != nil || string(got) != "hello" {
		t.Errorf("package in the pool: got %q, error %v", got, err)
	}
	index, err := os.ReadFile(filepath.Join(dir, "dists/trixie/main/binary-amd64/Packages"))
	if err != nil || !bytes.Contains(index, []byte("Package: hello\n")) || bytes.Contains(index, []byte("X-Archive")) {
		t.Errorf("index: got %q, error %v", index, err)
	}
}
