package guest

import (
	"bytes"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestKeptMaker: TPMs of several guests have one root, and a TPM of another maker is refused before a boot.
func TestKeptMaker(t *testing.T) {
	g := Guest{Dir: t.TempDir()}
	file := filepath.Join(t.TempDir(), "made", "root.pem")
	root, err := g.SoftwareRoot(t.Context(), "", file)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := g.SoftwareRoot(t.Context(), "", file); err != nil || !bytes.Equal(root, again) {
		t.Errorf("the file's root changed (error %v)", err)
	}
	m, err := readMaker(file)
	if err != nil || !bytes.Equal(m.certificate.Raw, root) {
		t.Fatalf("got error %v, want the maker that was written", err)
	}
	other, err := newMaker(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		maker *maker
		want  string
	}{"its own": {m, ""}, "another": {other, "was made under another root"}} {
		roots := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: tt.maker.certificate.Raw})
		if err := os.WriteFile(g.Path(RootsFile), roots, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := g.underRoot(file); (tt.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want an error with %q", name, err, tt.want)
		}
	}
	stranger := *other
	stranger.certificate = m.certificate
	for name, write := range map[string]func() error{
		"another's key":  func() error { return stranger.write(file) },
		"something else": func() error { return os.WriteFile(file, []byte("no root"), 0o600) },
	} {
		if err := write(); err != nil {
			t.Fatal(err)
		}
		if _, err := readMaker(file); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}
