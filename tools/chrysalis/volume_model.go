package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
)

// isModel reports what keeps a tree from being a model that an engine here runs: GGUF files, safetensors with the model's config and
// its tokenizer, or whisper.cpp's files. What is wrong shows otherwise when the engine does not come up, minutes after the boot began.
func isModel(tree fs.FS) error {
	var gguf, whisper, tensors, others []string
	err := fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.Type()&fs.ModeSymlink != 0 {
			err = linksInside(tree, name)
		}
		switch {
		case err != nil || d.IsDir():
			return err
		case strings.HasSuffix(name, ".safetensors"):
			tensors = append(tensors, name)
		default:
			f, err := tree.Open(name)
			if err != nil {
				return err
			}
			defer f.Close()
			magic := make([]byte, len(ggufMagic))
			_, err = io.ReadFull(f, magic)
			switch {
			case err == nil && string(magic) == ggufMagic:
				gguf = append(gguf, name)
			case err == nil && string(magic) == whisperMagic:
				whisper = append(whisper, name)
			default:
				others = append(others, name)
			}
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case len(gguf) > 0:
		return eachFile(tree, gguf, checkGGUF)
	case len(whisper) > 0:
		return eachFile(tree, whisper, checkWhisper)
	case len(tensors) > 0:
		if err := eachFile(tree, tensors, checkSafetensors); err != nil {
			return err
		}
		return wholeSafetensors(tree, tensors, others)
	case slices.Contains(others, "oci-layout"):
		return errors.New("this is an OCI image layout, want a model: an engine is packed with volume pack engine")
	case len(others) == 0:
		return errors.New("it is empty, want a GGUF file, safetensors with config.json and a tokenizer, or a file of whisper.cpp's")
	}
	return fmt.Errorf("it has no model in it: %s is none (GGUF begins with %q), want a GGUF file, safetensors with config.json and a "+
		"tokenizer, or a file of whisper.cpp's",
		others[0], ggufMagic)
}

// linksInside refuses a link that leads out of the tree: the volume would hold the link, and nothing that it leads to.
func linksInside(tree fs.FS, name string) error {
	link, err := fs.ReadLink(tree, name)
	if err != nil {
		return err
	}
	if path.IsAbs(link) || !fs.ValidPath(path.Join(path.Dir(name), link)) {
		return fmt.Errorf("%s is a link to %s, which is outside: of a cache of downloads, pack NAME@REVISION with --downloads; of others, "+
			"a copy with the files "+
			"themselves (cp -rL)", name, link)
	}
	return nil
}

func eachFile(tree fs.FS, names []string, check func(r io.Reader, size int64) error) error {
	for _, name := range names {
		f, err := tree.Open(name)
		if err != nil {
			return err
		}
		info, err := f.Stat()
		if err == nil {
			err = check(f, info.Size())
		}
		f.Close()
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// wholeSafetensors checks that what an engine reads beside the tensors is there, and each file that an index names.
func wholeSafetensors(tree fs.FS, tensors, others []string) error {
	dir := path.Dir(tensors[0])
	if !slices.Contains(others, path.Join(dir, "config.json")) {
		return fmt.Errorf("safetensors have no %s beside them, want the model's config", path.Join(dir, "config.json"))
	}
	tokenizers := []string{"tokenizer.json", "tokenizer.model", "vocab.json", "tekken.json"}
	if !slices.ContainsFunc(tokenizers, func(name string) bool { return slices.Contains(others, path.Join(dir, name)) }) {
		return fmt.Errorf("safetensors have no tokenizer beside them, want one of %s", strings.Join(tokenizers, ", "))
	}
	const maxIndexBytes = 64 << 20
	f, err := tree.Open(path.Join(dir, "model.safetensors.index.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	var index struct {
		Files map[string]string `json:"weight_map"`
	}
	if err := json.UnmarshalRead(io.LimitReader(f, maxIndexBytes), &index); err != nil {
		return fmt.Errorf("model.safetensors.index.json is no index: %v", err)
	}
	for _, name := range index.Files {
		if !slices.Contains(tensors, path.Join(dir, name)) {
			return fmt.Errorf("the index names %s, which is not there: want every part of the model", name)
		}
	}
	return nil
}

const maxHeaderBytes = 100_000_000 // of safetensors: the format's own bound

// checkSafetensors reads a file's header: 8 bytes of length, then JSON with where each tensor lies. The last ends where the file does.
// Source: huggingface/safetensors, README, "Format".
func checkSafetensors(r io.Reader, size int64) error {
	var length uint64
	if err := binary.Read(r, binary.LittleEndian, &length); err != nil || length > maxHeaderBytes || int64(length) > size-8 {
		return fmt.Errorf("it is no safetensors file of %d bytes: a pointer to one (git lfs pull brings the file), or cut short", size)
	}
	var header map[string]struct {
		Offsets []int64 `json:"data_offsets"`
	}
	if err := json.UnmarshalRead(io.LimitReader(r, int64(length)), &header); err != nil {
		return fmt.Errorf("its header is none of safetensors: %v", err)
	}
	end := int64(0)
	for _, tensor := range header {
		if len(tensor.Offsets) == 2 {
			end = max(end, tensor.Offsets[1])
		}
	}
	if want := 8 + int64(length) + end; size != want {
		return fmt.Errorf("it has %d bytes, and its tensors end at %d: download it again", size, want)
	}
	return nil
}

const ggufMagic = "GGUF"

const whisperMagic = "lmgg"

// checkWhisper reads a file of whisper.cpp's through: what the model is, filters, words, and tensors, the last of which ends where the file does. Source: whisper_model_load of
// ggml-org/whisper.cpp, src/whisper.cpp.
func checkWhisper(r io.Reader, size int64) error {
	g := &ggufReader{r: bufio.NewReader(r)}
	cut := func() error {
		return fmt.Errorf("it ends after %d bytes of %d: it is cut short, or none of whisper.cpp's: download it again", g.read, size)
	}
	g.skip(uint64(len(whisperMagic)))
	var sizes [11]uint64 // words, frames, widths, heads and layers of encoder and decoder, bands, type
	for i := range sizes {
		sizes[i] = uint64(g.u32())
	}
	bands, bins := uint64(g.u32()), uint64(g.u32())
	if g.err != nil {
		return cut()
	}
	for _, n := range sizes[:10] {
		if n == 0 || n > 1<<20 {
			return fmt.Errorf("it is none of whisper.cpp's models: a size in its header is %d", n)
		}
	}
	if bands > 1<<10 || bins > 1<<16 {
		return fmt.Errorf("it is none of whisper.cpp's models: it has filters of %d by %d", bands, bins)
	}
	g.skip(bands * bins * 4)
	words := uint64(g.u32())
	for i := uint64(0); i < words && g.err == nil; i++ {
		n := uint64(g.u32())
		g.skip(n)
	}
	tensors := 0
	for g.err == nil && int64(g.read) < size {
		dimensions, name, kind := uint64(g.u32()), uint64(g.u32()), uint64(g.u32())
		elements := uint64(1)
		if g.err != nil || dimensions > 4 || name > 256 || kind >= uint64(len(ggmlBlocks)) || ggmlBlocks[kind].bytes == 0 {
			return cut()
		}
		for range dimensions {
			if elements *= uint64(g.u32()); elements > uint64(size)*256 {
				return cut()
			}
		}
		g.skip(name)
		g.skip(elements / ggmlBlocks[kind].elements * ggmlBlocks[kind].bytes)
		tensors++
	}
	if g.err != nil {
		return cut()
	}
	if tensors == 0 {
		return errors.New("it has no tensors: it is one of whisper.cpp's for tests, which hears nothing")
	}
	return nil
}

// ggmlBlocks are the types that a tensor of whisper.cpp's may have: how many elements a block has, and how many bytes. Source: ggml-org/ggml, src/ggml.c,
// type_traits.
var ggmlBlocks = [...]struct{ elements, bytes uint64 }{
	0: {1, 4}, 1: {1, 2}, 2: {32, 18}, 3: {32, 20}, 6: {32, 22}, 7: {32, 24}, 8: {32, 34}, 10: {256, 84}, 11: {256, 110}, 12: {256, 144}, 13: {256, 176}, 14: {256, 210},
}

// checkGGUF reads a file's header as far as its tensors' places: the last begins within the file. Source: ggml-org/ggml, docs/gguf.md.
func checkGGUF(r io.Reader, size int64) error {
	g := &ggufReader{r: bufio.NewReader(r)}
	g.skip(4)
	version, tensors, pairs := g.u32(), g.u64(), g.u64()
	const maxTensors, maxPairs = 1 << 20, 1 << 16
	if g.err == nil && (version < 2 || version > 3 || tensors == 0 || tensors > maxTensors || pairs > maxPairs) {
		return fmt.Errorf("it is GGUF of version %d with %d tensors and %d properties, want version 2 or 3, and a model", version, tensors, pairs)
	}
	for range pairs {
		g.text()
		g.value(g.u32(), 0)
	}
	last := uint64(0)
	for range tensors {
		g.text()
		dimensions := g.u32()
		g.skip(8*uint64(dimensions) + 4)
		last = max(last, g.u64())
	}
	if g.err != nil {
		return fmt.Errorf("its header ends after %d bytes of %d: it is cut short, or no GGUF: download it again", g.read, size)
	}
	if at := g.read + last; at >= uint64(size) {
		return fmt.Errorf("it has %d bytes, and its last tensor begins at %d: download it again", size, at)
	}
	return nil
}

// ggufReader reads a header; after an error it reads nothing more.
type ggufReader struct {
	r    *bufio.Reader
	read uint64
	err  error
}

func (g *ggufReader) skip(n uint64) {
	const maxSkip = 1 << 30
	if g.err == nil && n > maxSkip {
		g.err = errors.New("too long")
	}
	if g.err == nil {
		var done int
		done, g.err = g.r.Discard(int(n))
		g.read += uint64(done)
	}
}

func (g *ggufReader) bytes(b []byte) {
	if g.err == nil {
		var done int
		done, g.err = io.ReadFull(g.r, b)
		g.read += uint64(done)
	}
}

func (g *ggufReader) u32() uint32 {
	var b [4]byte
	g.bytes(b[:])
	return binary.LittleEndian.Uint32(b[:])
}
func (g *ggufReader) u64() uint64 {
	var b [8]byte
	g.bytes(b[:])
	return binary.LittleEndian.Uint64(b[:])
}
func (g *ggufReader) text() { g.skip(g.u64()) }

// value skips a value of a type; arrays hold values of one type.
func (g *ggufReader) value(kind uint32, depth int) {
	const text, array = 8, 9
	sizes := map[uint32]uint64{0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
	switch size, fixed := sizes[kind]; {
	case g.err != nil:
	case fixed:
		g.skip(size)
	case kind == text:
		g.text()
	case kind == array && depth < 4:
		of, n := g.u32(), g.u64()
		if size, fixed := sizes[of]; fixed && n < 1<<30 {
			g.skip(size * n)
			return
		}
		for i := uint64(0); i < n && g.err == nil; i++ {
			g.value(of, depth+1)
		}
	default:
		g.err = fmt.Errorf("value of type %d", kind)
	}
}
