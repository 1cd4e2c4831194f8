package main

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// safetensors is a file whose tensors end at end, with so many bytes behind its header.
func safetensors(end, bytes string, n int) string {
	header := `{"__metadata__":{"format":"pt"},"w":{"dtype":"F32","shape":[1],"data_offsets":[0,` + end + `]}}`
	return string(binary.LittleEndian.AppendUint64(nil, uint64(len(header)))) + header + strings.Repeat(bytes, n)
}

func TestIsModel(t *testing.T) {
	whole := safetensors("4", "x", 4)
	for _, tt := range []struct {
		name, want string // want is empty for a model
		files      map[string]string
	}{
		{"safetensors", "", map[string]string{"a/model.safetensors": whole, "a/config.json": "{}", "a/tokenizer.model": "x"}},
		{"parts by an index", "", map[string]string{"1.safetensors": whole, "config.json": "{}", "tokenizer.json": "{}",
			"model.safetensors.index.json": `{"weight_map":{"w":"1.safetensors"}}`}},
		{"a part that is not there", "names 2.safetensors", map[string]string{"1.safetensors": whole, "config.json": "{}", "tokenizer.json": "{}",
			"model.safetensors.index.json": `{"weight_map":{"w":"1.safetensors","v":"2.safetensors"}}`}},
		{"an index that is none", "is no index", map[string]string{"1.safetensors": whole, "config.json": "{}", "tokenizer.json": "{}",
			"model.safetensors.index.json": `[`}},
		{"no config", "no config.json", map[string]string{"model.safetensors": whole, "tokenizer.json": "{}"}},
		{"no tokenizer", "no tokenizer", map[string]string{"model.safetensors": whole, "config.json": "{}"}},
		{"cut short", "tensors end at", map[string]string{"model.safetensors": safetensors("4", "x", 3), "config.json": "{}",
			"tokenizer.json": "{}"}},
		{"bytes behind", "tensors end at", map[string]string{"model.safetensors": safetensors("4", "x", 5), "config.json": "{}",
			"tokenizer.json": "{}"}},
		{"a header that is none", "is none of safetensors", map[string]string{"model.safetensors": "\x02\x00\x00\x00\x00\x00\x00\x00[]",
			"config.json": "{}"}},
		{"an endless header", "cut short", map[string]string{"model.safetensors": "\xff\xff\xff\xff\xff\xff\xff\x7f{}"}},
		{"GGUF of another version", "version 9", map[string]string{"x.gguf": gguf(9, 1, 0)}},
		{"GGUF without tensors", "0 tensors", map[string]string{"x.gguf": gguf(3, 0, 0)}},
		{"GGUF with properties without end", "properties", map[string]string{"x.gguf": gguf(3, 1, 1<<40)}},
		{"GGUF with a property of no type", "no GGUF", map[string]string{"x.gguf": gguf(3, 1,
			1) + "\x00\x00\x00\x00\x00\x00\x00\x00\x63\x00\x00\x00"}},
		{"a name without end", "no GGUF", map[string]string{"x.gguf": gguf(3, 1, 1) + "\xff\xff\xff\xff\xff\xff\xff\x7f"}},
		{"PyTorch's", "pytorch_model.bin is none", map[string]string{"pytorch_model.bin": "PK"}},
	} {
		tree := fstest.MapFS{}
		for name, text := range tt.files {
			tree[name] = &fstest.MapFile{Data: []byte(text)}
		}
		if err := isModel(tree); (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got error %v, want one with %q", tt.name, err, tt.want)
		}
	}
}

// gguf is the begin of a GGUF file.
func gguf(version uint32, tensors, pairs uint64) string {
	b := binary.LittleEndian.AppendUint32([]byte(ggufMagic), version)
	return string(binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(b, tensors), pairs))
}

func FuzzGGUF(f *testing.F) {
	f.Add([]byte(gguf(3, 1, 1)))
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := checkGGUF(strings.NewReader(string(b)), int64(len(b))); err == nil && len(b) < 24 {
			t.Errorf("%d bytes are a model", len(b))
		}
	})
}

// TestWhisperModels: a file of whisper.cpp's is read to its end.
func TestWhisperModels(t *testing.T) {
	le := binary.LittleEndian
	words := func(b []byte, n ...uint32) []byte {
		for _, v := range n {
			b = le.AppendUint32(b, v)
		}
		return b
	}
	head := words([]byte("lmgg"), 51864, 1500, 16, 1, 1, 448, 16, 1, 1, 2, 0, 2, 3) // two filters of three
	head = append(head, make([]byte, 2*3*4)...)
	head = append(words(head, 2, 1), "a"...)
	head = append(words(head, 2), "bc"...)
	whole := append(words(head, 2, 4, 0, 3, 5), "name"...)
	whole = append(whole, make([]byte, 15*4)...)
	whole = append(words(whole, 1, 1, 8, 64), "q"...)
	whole = append(whole, make([]byte, 2*34)...) // two blocks of 32
	changed := func(at int, v uint32) []byte {
		b := slices.Clone(whole)
		le.PutUint32(b[at:], v)
		return b
	}
	for _, tt := range []struct {
		name, want string
		file       []byte
	}{
		{"whole", "", whole},
		{"cut short", "cut short", whole[:len(whole)-1]},
		{"more behind it", "cut short", append(slices.Clone(whole), 0)},
		{"its header alone", "ends after 4 bytes", []byte("lmgg")},
		{"no tensors", "hears nothing", head},
		{"no frames", "a size in its header is 0", changed(8, 0)},
		{"frames without end", "a size in its header is 4294967295", changed(8, 1<<32-1)},
		{"filters without end", "filters of 4294967295 by 3", changed(48, 1<<32-1)},
		{"words without end", "cut short", changed(len("lmgg")+13*4+2*3*4, 1<<32-1)},
		{"a tensor of an unknown type", "cut short", changed(len(head)+8, 99)},
		{"a tensor of many dimensions", "cut short", changed(len(head), 5)},
		{"a tensor without end", "cut short", changed(len(head)+12, 1<<31)},
	} {
		err := isModel(fstest.MapFS{"ggml-base.bin": {Data: tt.file}})
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
}
