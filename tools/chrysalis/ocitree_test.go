package main

import (
	"archive/tar"
	"bytes"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/erofs/go-erofs"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"chrysalis/measure/volume"
	"chrysalis/tools/internal/image"
)

func layer(t *testing.T, entries ...tar.Header) v1.Layer {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, h := range entries {
		content := h.Uname // the name field carries the content of this test's files
		h.Uname, h.Size = "", int64(len(content))
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buf.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func ociLayout(t *testing.T, layers ...v1.Layer) string {
	t.Helper()
	img, err := mutate.AppendLayers(empty.Image, layers...)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	p, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.AppendImage(img); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestEngineFromOCILayout(t *testing.T) {
	dir := ociLayout(t,
		layer(t, tar.Header{Name: "usr/bin/server", Mode: 0o755, Uname: "first"}, tar.Header{Name: "etc/secret", Uname: "gone"},
			tar.Header{Name: "usr/lib/libx.so.1", Uname: strings.Repeat("x", 9000)}),
		layer(t, tar.Header{Name: "usr/bin/server", Mode: 0o755, Uname: "second"}, tar.Header{Name: "etc/.wh.secret"},
			tar.Header{Name: "usr/lib/hard", Typeflag: tar.TypeReg, Uname: "hard"},
			tar.Header{Name: "usr/lib/twin", Typeflag: tar.TypeLink, Linkname: "usr/lib/hard"},
			tar.Header{Name: "usr/lib/libx.so", Typeflag: tar.TypeSymlink, Linkname: "libx.so.1"}))
	p, err := engineTree(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	out, err := os.Create(filepath.Join(t.TempDir(), "v"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := volume.Pack(t.Context(), p.tree, out, volume.Options{Dirs: p.dirs}); err != nil {
		t.Fatal(err)
	}
	img, err := erofs.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"usr/bin/server": "second", "usr/lib/hard": "hard", "usr/lib/twin": "hard",
		"usr/lib/libx.so": strings.Repeat("x", 9000)} {
		if got, err := fs.ReadFile(img, name); err != nil || string(got) != want {
			t.Errorf("%s: got %d bytes (%v), want %d", name, len(got), err, len(want))
		}
	}
	if _, err := fs.Stat(img, "etc/secret"); err == nil {
		t.Error("a file removed by a later layer is in the volume")
	}
	for _, dir := range image.EngineDirs {
		if info, err := fs.Stat(img, dir); err != nil || !info.IsDir() {
			t.Errorf("mount point %s: %v, %v", dir, info, err)
		}
	}
}

func TestOCITreeRefuses(t *testing.T) {
	for _, tt := range []struct {
		name  string
		entry tar.Header
		want  string
	}{
		{"a device", tar.Header{Name: "dev/null", Typeflag: tar.TypeChar}, "want a file, a folder or a link"},
		{"a name that leaves the tree", tar.Header{Name: "../etc/passwd"}, "unsafe tar path"},
		{"a hard link to nowhere", tar.Header{Name: "a", Typeflag: tar.TypeLink, Linkname: "b"}, "stands nowhere before it"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := ociTree(ociLayout(t, layer(t, tt.entry)))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}
