package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/go-json-experiment/json"
)

// modelFacts reads licence and quantisation out of a model's files; "" where they do not tell, or disagree.
func modelFacts(tree fs.FS) (licence, quantisation string, err error) {
	var told [2]map[string]int64 // how many bytes of files say which
	for i := range told {
		told[i] = map[string]int64{}
	}
	err = fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		f, err := tree.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		if strings.HasSuffix(name, ".safetensors") {
			for kind, bytes := range safetensorsKinds(f, info.Size()) {
				told[1][kind] += bytes
			}
			return nil
		}
		l, q := ggufFacts(bufio.NewReader(f))
		if l != "" {
			told[0][l] += info.Size()
		}
		if q != "" {
			told[1][q] += info.Size()
		}
		return nil
	})
	if len(told[0]) == 1 {
		licence = most(told[0])
	}
	return licence, most(told[1]), err
}

// most returns the word that most bytes have.
func most(told map[string]int64) (word string) {
	for w, n := range told {
		if word == "" || n > told[word] || n == told[word] && w < word {
			word = w
		}
	}
	return word
}

// fileTypes are how a GGUF file's general.file_type is called. Sources: ggml-org/ggml, docs/gguf.md, "General metadata"; 30 and above:
// ggml-org/llama.cpp, include/llama.h, llama_ftype.
var fileTypes = map[uint32]string{0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S",
	12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 30: "IQ4_XS", 32: "BF16"}

// ggufFacts reads licence and quantisation out of a GGUF header's properties.
func ggufFacts(r *bufio.Reader) (licence, quantisation string) {
	g := &ggufReader{r: r}
	magic := make([]byte, len(ggufMagic))
	g.bytes(magic)
	version, _, pairs := g.u32(), g.u64(), g.u64()
	if g.err != nil || string(magic) != ggufMagic || version < 2 || version > 3 {
		return "", ""
	}
	const text, u32 = 8, 4
	for i := uint64(0); i < pairs && g.err == nil; i++ {
		key := g.word()
		switch kind := g.u32(); {
		case key == "general.license" && kind == text:
			licence = g.word()
		case key == "general.file_type" && kind == u32:
			quantisation = fileTypes[g.u32()]
		default:
			g.value(kind, 0)
		}
	}
	if g.err != nil {
		return "", ""
	}
	return licence, quantisation
}

// word reads a short text.
func (g *ggufReader) word() string {
	const maxWord = 1 << 16
	n := g.u64()
	if g.err == nil && n > maxWord {
		g.err = fmt.Errorf("a word of %d bytes", n)
	}
	if g.err != nil {
		return ""
	}
	b := make([]byte, n)
	g.bytes(b)
	return string(b)
}

// safetensorsKinds returns how many bytes of tensors have which type.
func safetensorsKinds(r io.Reader, size int64) map[string]int64 {
	var length uint64
	if err := binary.Read(r, binary.LittleEndian, &length); err != nil || length > maxHeaderBytes || int64(length) > size-8 {
		return nil
	}
	var header map[string]struct {
		Kind    string  `json:"dtype"`
		Offsets []int64 `json:"data_offsets"`
	}
	if json.UnmarshalRead(io.LimitReader(r, int64(length)), &header) != nil {
		return nil
	}
	kinds := map[string]int64{}
	for _, t := range header {
		if len(t.Offsets) == 2 && t.Offsets[1] >= t.Offsets[0] {
			kinds[t.Kind] += t.Offsets[1] - t.Offsets[0]
		}
	}
	return kinds
}
