package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"maps"
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

// unsparse stands for how the records of a sparse file begin, which the writer of tars has none of.
const unsparse = "XNU.sparse."

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
	written := bytes.ReplaceAll(buf.Bytes(), []byte(unsparse), []byte("GNU.sparse."))
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(written)), nil })
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
	return layoutOf(t, img)
}

func layoutOf(t *testing.T, img v1.Image) string {
	t.Helper()
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

// treeOf reads the tree of a layout: files with what they hold, folders with a slash, links with an arrow.
func treeOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	tree, closing, err := ociTree(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer closing()
	got := map[string]string{}
	err = fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil || name == ".":
			return err
		case d.IsDir():
			got[name+"/"] = ""
			return nil
		case d.Type()&fs.ModeSymlink != 0:
			to, err := fs.ReadLink(tree, name)
			got[name] = "-> " + to
			return err
		}
		data, err := fs.ReadFile(tree, name)
		got[name] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// TestOCILayers: layers lie one over the other as the OCI image specification has it (layer.md, "Changesets").
func TestOCILayers(t *testing.T) {
	file := func(name, content string) tar.Header { return tar.Header{Name: name, Uname: content} }
	for _, tt := range []struct {
		name   string
		layers [][]tar.Header
		want   map[string]string
	}{
		{"a file over a file", [][]tar.Header{{file("a", "1")}, {file("a", "2")}}, map[string]string{"a": "2"}},
		{"a folder over a folder", [][]tar.Header{{file("d/a", "1")}, {{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o755}, file("d/b", "2")}},
			map[string]string{"d/": "", "d/a": "1", "d/b": "2"}},
		{"a folder over a file", [][]tar.Header{{file("d", "1")}, {{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o755}}}, map[string]string{"d/": ""}},
		{"a file over a folder", [][]tar.Header{{file("d/a", "1")}, {file("d", "2")}}, map[string]string{"d": "2"}},
		{"a link over a folder", [][]tar.Header{{file("lib/a", "1")}, {{Name: "lib", Typeflag: tar.TypeSymlink, Linkname: "usr/lib"}}}, map[string]string{"lib": "-> usr/lib"}},
		{"a whiteout", [][]tar.Header{{file("d/a", "1"), file("d/b", "2")}, {file("d/.wh.a", "")}}, map[string]string{"d/": "", "d/b": "2"}},
		{"a whiteout of a folder", [][]tar.Header{{file("d/e/a", "1"), file("d/b", "2")}, {file("d/.wh.e", "")}}, map[string]string{"d/": "", "d/b": "2"}},
		{"a whiteout of nothing", [][]tar.Header{{file("a", "1")}, {file(".wh.b", "")}}, map[string]string{"a": "1"}},
		{"a whiteout beside the same name", [][]tar.Header{{file("d/a", "1")}, {file("d/a", "2"), file("d/.wh.a", "")}}, map[string]string{"d/": "", "d/a": "2"}},
		{"a whiteout in the lowest layer", [][]tar.Header{{file(".wh.a", "")}, {file("a", "1")}}, map[string]string{"a": "1"}},
		{"an opaque folder", [][]tar.Header{{file("d/a", "1"), file("d/e/b", "2"), file("c", "3")}, {file("d/.wh..wh..opq", ""), file("d/f", "4")}},
			map[string]string{"d/": "", "d/f": "4", "c": "3"}},
		{"an opaque folder said at last", [][]tar.Header{{file("d/a", "1")}, {file("d/f", "4"), file("d/.wh..wh..opq", "")}}, map[string]string{"d/": "", "d/f": "4"}},
		{"a hard link", [][]tar.Header{{file("a", "1"), {Name: "b", Typeflag: tar.TypeLink, Linkname: "a"}}}, map[string]string{"a": "1", "b": "1"}},
		{"a hard link whose target is another above", [][]tar.Header{{file("a", "1"), {Name: "b", Typeflag: tar.TypeLink, Linkname: "a"}}, {file("a", "2")}},
			map[string]string{"a": "2", "b": "1"}},
		{"a hard link to a file of the layer below", [][]tar.Header{{file("a", "1")}, {{Name: "b", Typeflag: tar.TypeLink, Linkname: "/a"}}}, map[string]string{"a": "1", "b": "1"}},
		{"a hard link whose target goes", [][]tar.Header{{file("a", "1"), {Name: "b", Typeflag: tar.TypeLink, Linkname: "a"}}, {file(".wh.a", "")}}, map[string]string{"b": "1"}},
		{"attributes, which are left out", [][]tar.Header{{{Name: "a", Uname: "1", PAXRecords: map[string]string{"SCHILY.xattr.security.capability": "\x01\x00\x00\x02"}}}},
			map[string]string{"a": "1"}},
	} {
		var layers []v1.Layer
		for _, entries := range tt.layers {
			layers = append(layers, layer(t, entries...))
		}
		if got := treeOf(t, ociLayout(t, layers...)); !maps.Equal(got, tt.want) {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

// TestOCILayoutOfAnother: what a digest names has that digest, or nothing is taken from the layout.
func TestOCILayoutOfAnother(t *testing.T) {
	named := func(t *testing.T, dir string) (manifest, config, blob string) {
		index, err := layout.ImageIndexFromPath(dir)
		if err != nil {
			t.Fatal(err)
		}
		of, err := index.IndexManifest()
		if err != nil {
			t.Fatal(err)
		}
		img, err := index.Image(of.Manifests[0].Digest)
		if err != nil {
			t.Fatal(err)
		}
		m, err := img.Manifest()
		if err != nil {
			t.Fatal(err)
		}
		at := func(h v1.Hash) string { return filepath.Join(dir, "blobs/sha256", h.Hex) }
		return at(of.Manifests[0].Digest), at(m.Config.Digest), at(m.Layers[0].Digest)
	}
	other := layer(t, tar.Header{Name: "usr/bin/server", Mode: 0o755, Uname: "another"})
	for _, tt := range []struct {
		name, want string
		change     func(t *testing.T, manifest, config, blob string)
	}{
		{"another layer, well formed", "layer 0 has digest", func(t *testing.T, _, _, blob string) {
			r, err := other.Compressed()
			if err != nil {
				t.Fatal(err)
			}
			data, err := io.ReadAll(r)
			if err := errors.Join(err, os.WriteFile(blob, data, 0o644)); err != nil {
				t.Fatal(err)
			}
		}},
		{"a manifest with a space more", "manifest has digest", func(t *testing.T, manifest, _, _ string) { appendTo(t, manifest, " ") }},
		{"a config with a space more", "config has digest", func(t *testing.T, _, config, _ string) { appendTo(t, config, " ") }},
		{"bytes behind a layer", "layer 0 has digest", func(t *testing.T, _, _, blob string) { appendTo(t, blob, "\x00") }},
		{"no layer", "no such file", func(t *testing.T, _, _, blob string) { os.Remove(blob) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := ociLayout(t, layer(t, tar.Header{Name: "usr/bin/server", Mode: 0o755, Uname: "first"}))
			manifest, config, blob := named(t, dir)
			tt.change(t, manifest, config, blob)
			if _, _, err := ociTree(dir); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want one with %q", err, tt.want)
			}
		})
	}
}

// TestOCIConfigOfAnother: a layer unpacks to what the config says of it.
func TestOCIConfigOfAnother(t *testing.T) {
	img, err := mutate.AppendLayers(empty.Image, layer(t, tar.Header{Name: "a", Uname: "1"}))
	if err != nil {
		t.Fatal(err)
	}
	for want, ids := range map[string][]v1.Hash{"layer 0, unpacked, has digest": {{Algorithm: "sha256", Hex: strings.Repeat("0", 64)}}, "config names 0 layers, and the manifest 1": {}} {
		config, err := img.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		config = config.DeepCopy()
		config.RootFS.DiffIDs = ids
		changed, err := mutate.ConfigFile(img, config)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := ociTree(layoutOf(t, changed)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got error %v, want one with %q", err, want)
		}
	}
	twice := layer(t, tar.Header{Name: "a", Uname: "1"}, tar.Header{Name: "a", Uname: "2"})
	if _, _, err := ociTree(ociLayout(t, twice)); err == nil || !strings.Contains(err.Error(), "a stands twice") {
		t.Errorf("a name twice in a layer: got error %v", err)
	}
}

func appendTo(t *testing.T, file, text string) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err := errors.Join(err, os.WriteFile(file, append(data, text...), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func TestOCITreeRefuses(t *testing.T) {
	for _, tt := range []struct {
		name  string
		entry tar.Header
		want  string
	}{
		{"a device", tar.Header{Name: "dev/null", Typeflag: tar.TypeChar}, "want a file, a folder or a link"},
		{"a name that leaves the tree", tar.Header{Name: "../etc/passwd"}, "leaves the tree"},
		{"a sparse file", tar.Header{Name: "a", Uname: "abc", PAXRecords: map[string]string{unsparse + "major": "0", unsparse + "minor": "1", unsparse + "map": "0,3",
			unsparse + "numblocks": "1", unsparse + "size": "3"}}, "is sparse"},
		{"a file that is no folder", tar.Header{Name: "a/b/c"}, "which is not a folder"},
		{"a hard link to nowhere", tar.Header{Name: "c", Typeflag: tar.TypeLink, Linkname: "b"}, "stands nowhere before it"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := ociTree(ociLayout(t, layer(t, tar.Header{Name: "a/b", Uname: "a file"}), layer(t, tt.entry)))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}
