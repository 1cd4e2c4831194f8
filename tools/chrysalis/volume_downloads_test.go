package main

import (
	"crypto/sha1"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	attestrelease "chrysalis/attest/release"
	"chrysalis/measure/config"
	"chrysalis/measure/register"
	"chrysalis/measure/volume"
	"chrysalis/tools/internal/release"
)

const testCommit = "0123456789abcdef0123456789abcdef01234567"

// hub lays out a model as huggingface_hub keeps it; large files by SHA-256, others by git's name.
func hub(t *testing.T, files map[string]string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	model := filepath.Join(dir, "models--org--tiny")
	put := func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put(filepath.Join(model, "refs/main"), testCommit)
	for name, text := range files {
		blob := fmt.Sprintf("%x", sha256.Sum256([]byte(text)))
		if len(text) < 100 {
			blob = fmt.Sprintf("%x", sha1.Sum(fmt.Appendf(nil, "blob %d\x00%s", len(text), text)))
		}
		put(filepath.Join(model, "blobs", blob), text)
		link := filepath.Join(model, "snapshots", testCommit, name)
		if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
			t.Fatal(err)
		}
		up := strings.Repeat("../", 2+strings.Count(name, "/"))
		if err := os.Symlink(up+"blobs/"+blob, link); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func modelFiles() map[string]string {
	return map[string]string{"config.json": "{}", "tokenizer.json": "{}", "sub/deep/notes.md": strings.Repeat("words ", 100),
		"model.safetensors": safetensors("4", "x", 4)}
}

// TestDownload: a download packs as the same volume as a folder with its files, by branch and by commit.
func TestDownload(t *testing.T) {
	plain := fstest.MapFS{}
	for name, text := range modelFiles() {
		plain[name] = &fstest.MapFile{Data: []byte(text)}
	}
	pack := func(tree fs.FS) config.Volume {
		t.Helper()
		f, err := os.Create(filepath.Join(t.TempDir(), "v"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		ref, err := volume.Pack(t.Context(), tree, f, volume.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return ref
	}
	want := pack(plain)
	listed := t.TempDir()
	sums := ""
	for name, text := range modelFiles() {
		file := filepath.Join(listed, "org/tiny/v1", name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		sums += fmt.Sprintf("%x  ./%s\n", sha256.Sum256([]byte(text)), name)
	}
	if err := os.WriteFile(filepath.Join(listed, "org/tiny/v1", sumsName), []byte(sums), 0o644); err != nil {
		t.Fatal(err)
	}
	cache := hub(t, modelFiles())
	for _, tt := range []struct {
		dir, id, revision string
		weak              int
	}{{cache, "org/tiny@main", testCommit, 3}, {cache, "org/tiny@" + testCommit, testCommit, 3}, {listed, "org/tiny@v1", "v1", 0}} {
		d, err := findDownload(tt.dir, tt.id)
		if err != nil {
			t.Fatal(err)
		}
		weak, err := d.check(t.Context(), func(string, int64, int64) {})
		if err != nil || weak != tt.weak || d.revision != tt.revision {
			t.Errorf("%s: got revision %s, %d weak, error %v, want %s, %d", tt.id, d.revision, weak, err, tt.revision, tt.weak)
		}
		if err := fstest.TestFS(d.tree(), "config.json", "sub/deep/notes.md"); err != nil {
			t.Errorf("%s: %v", tt.id, err)
		}
		if err := isModel(d.tree()); err != nil {
			t.Errorf("%s: %v", tt.id, err)
		}
		if got := pack(d.tree()); got != want {
			t.Errorf("%s: got volume %v, want %v", tt.id, got, want)
		}
	}
}

// TestDownloadRefuses: each fault of a folder of downloads, by name.
func TestDownloadRefuses(t *testing.T) {
	snapshot := func(dir string) string { return filepath.Join(dir, "models--org--tiny/snapshots", testCommit) }
	blob := func(dir, name string) string {
		file, err := filepath.EvalSymlinks(filepath.Join(snapshot(dir), name))
		if err != nil {
			t.Fatal(err)
		}
		return file
	}
	for _, tt := range []struct {
		name, id string
		spoil    func(dir string) error
		want     string
	}{
		{"another large file", "org/tiny@main", func(dir string) error {
			return os.WriteFile(blob(dir, "sub/deep/notes.md"), []byte("x"),
				0o644)
		}, "sub/deep/notes.md: its 1 bytes have hash"},
		{"another small file", "org/tiny@main", func(dir string) error { return os.WriteFile(blob(dir, "config.json"), []byte("[]"), 0o644) },
			"download it again"},
		{"a file that is gone", "org/tiny@main", func(dir string) error { return os.Remove(blob(dir, "config.json")) }, "no such file"},
		{"a file that is no link", "org/tiny@main", func(dir string) error {
			return os.WriteFile(filepath.Join(snapshot(dir), "more"), nil,
				0o644)
		}, "more is no link to one of"},
		{"a link elsewhere", "org/tiny@main", func(dir string) error {
			return os.Symlink("/etc/passwd", filepath.Join(snapshot(dir),
				"more"))
		}, "more is no link to one of"},
		{"a link to another folder's blob", "org/tiny@main", func(dir string) error {
			elsewhere := filepath.Join(t.TempDir(), strings.Repeat("a", 40))
			return errors.Join(os.WriteFile(elsewhere, nil, 0o644), os.Symlink(elsewhere, filepath.Join(snapshot(dir), "more")))
		}, "more is no link to one of"},
		{"another model", "org/other@main", nil, "has neither"},
		{"another branch", "org/tiny@dev", nil, "no such file"},
		{"another commit", "org/tiny@" + strings.Repeat("f", 40), nil, "no such file"},
		{"no revision", "org/tiny", nil, "want NAME@REVISION"},
		{"a way out", "../tiny@main", nil, "want NAME@REVISION"},
		{"a branch that is a way out", "org/tiny@../../x", nil, "want NAME@REVISION"},
		{"a branch that is none", "org/tiny@main", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "models--org--tiny/refs/main"), []byte("../../.."), 0o644)
		}, "want a commit"},
	} {
		dir := hub(t, modelFiles())
		if tt.spoil != nil {
			if err := tt.spoil(dir); err != nil {
				t.Fatal(err)
			}
		}
		d, err := findDownload(dir, tt.id)
		if err == nil {
			_, err = d.check(t.Context(), func(string, int64, int64) {})
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got error %v, want one with %q", tt.name, err, tt.want)
		}
	}
	sum := strings.Repeat("ab", 32)
	for _, tt := range []struct{ name, sums, want string }{
		{"not listed", sum + "  b\n", "a is not in SHA256SUMS"},
		{"not there", sum + "  a\n" + sum + "  b\n", "names b, which is not there"},
		{"twice", sum + "  a\n" + sum + "  a\n", "each once"},
		{"a way out", sum + "  ../a\n", "each once"},
		{"no hash", "abc  a\n", "each once"},
		{"git's hash", strings.Repeat("a", 40) + "  a\n", "each once"},
	} {
		dir := t.TempDir()
		for name, text := range map[string]string{"m/1/a": "a", "m/1/" + sumsName: tt.sums} {
			if err := os.MkdirAll(filepath.Join(dir, "m/1"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := findDownload(dir, "m@1"); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got error %v, want one with %q", tt.name, err, tt.want)
		}
	}
}

// TestCardOfOtherFiles: a card that names the right volume and lies about its files is refused.
func TestCardOfOtherFiles(t *testing.T) {
	dir := t.TempDir()
	image, card := filepath.Join(dir, "model.img"), filepath.Join(dir, "card.json")
	tree := fstest.MapFS{"a": {Data: []byte("a")}, "b": {Data: []byte("b")}}
	ref, err := packInto(t.Context(), image, tree, nil, os.Stderr, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := release.NewKey(filepath.Join(dir, "key")); err != nil {
		t.Fatal(err)
	}
	key, err := readPrivateKey(filepath.Join(dir, "key"))
	if err != nil {
		t.Fatal(err)
	}
	files := []attestrelease.CardFile{{Name: "a", Size: 1, SHA256: sha256.Sum256([]byte("a"))}, {Name: "b", Size: 1,
		SHA256: sha256.Sum256([]byte("b"))}}
	for _, tt := range []struct {
		name   string
		change func(*attestrelease.Card)
		code   int
	}{
		{"the right files", func(*attestrelease.Card) {}, 0},
		{"another hash", func(c *attestrelease.Card) { c.Files[1].SHA256[0] ^= 1 }, exitRejected},
		{"another name", func(c *attestrelease.Card) { c.Files[1].Name = "c" }, exitRejected},
		{"a file less", func(c *attestrelease.Card) { c.Files, c.Size = c.Files[:1], 1 }, exitRejected},
		{"a file more", func(c *attestrelease.Card) {
			c.Files, c.Size = append(c.Files, attestrelease.CardFile{Name: "c", Size: 1, SHA256: register.Digest{1}}), 3
		}, exitRejected},
		{"another number of blocks", func(c *attestrelease.Card) { c.Blocks++ }, exitRejected},
	} {
		c := attestrelease.Card{Format: attestrelease.CardFormat, Name: "m", Revision: "1", Licence: "MIT", Quantisation: "F16",
			Root: ref.Root, Blocks: ref.Blocks, Size: 2,
			Files: slices.Clone(files)}
		tt.change(&c)
		signed, err := attestrelease.EncodeCard(c)
		if err == nil {
			signed, err = attestrelease.SignCard(signed, key)
		}
		if err == nil {
			err = os.WriteFile(card, signed, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := run([]string{"volume", "card", "verify", card, "--signer", filepath.Join(dir, "key.pub"), "--volume", image}); got != tt.code {
			t.Errorf("%s: got exit code %d, want %d", tt.name, got, tt.code)
		}
	}
}

// TestCardFits: a policy by a card is not one over a config with another model.
func TestCardFits(t *testing.T) {
	m := cardModel{"tiny@v1", config.Volume{Root: register.Digest{1}, Blocks: 2}}
	good, bad := config.Measured{}, config.Measured{}
	good.Service.Model.Volume, bad.Service.Model.Volume = m.volume, config.Volume{Root: register.Digest{1}, Blocks: 3}
	if err := m.fits([]config.Measured{good, good}); err != nil {
		t.Error(err)
	}
	if err := m.fits([]config.Measured{good, bad}); err == nil || !strings.Contains(err.Error(), "the card of tiny@v1 says") {
		t.Errorf("got error %v", err)
	}
	if err := (cardModel{}).fits([]config.Measured{bad}); err != nil {
		t.Errorf("without a card: %v", err)
	}
}

// TestModelFacts: what the files say, and nothing where they don't.
func TestModelFacts(t *testing.T) {
	tiny, err := os.ReadFile("../../image/model/tiny.gguf")
	if err != nil {
		t.Fatal(err)
	}
	mixed := `{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","data_offsets":[0,4]},"b":{"dtype":"BF16","data_offsets":[4,20]}}`
	for name, tt := range map[string]struct {
		files                 map[string]string
		licence, quantisation string
	}{
		"GGUF":          {map[string]string{"tiny.gguf": string(tiny)}, "apache-2.0", "F16"},
		"safetensors":   {map[string]string{"m.safetensors": string(rune(len(mixed))) + "\x00\x00\x00\x00\x00\x00\x00" + mixed + strings.Repeat("x", 20)}, "", "BF16"},
		"nothing":       {map[string]string{"a.txt": "words"}, "", ""},
		"a cut header":  {map[string]string{"tiny.gguf": string(tiny[:200])}, "", ""},
		"endless words": {map[string]string{"x.gguf": gguf(3, 1, 1) + "\xff\xff\xff\xff\xff\xff\xff\x7f"}, "", ""},
	} {
		tree := fstest.MapFS{}
		for file, text := range tt.files {
			tree[file] = &fstest.MapFile{Data: []byte(text)}
		}
		if l, q, err := modelFacts(tree); err != nil || l != tt.licence || q != tt.quantisation {
			t.Errorf("%s: got %q, %q, error %v, want %q, %q", name, l, q, err, tt.licence, tt.quantisation)
		}
	}
}
