package page

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"chrysalis/tools/internal/toolstree"
)

// TestLZMA has xz unpack what is packed here: texts that repeat near and far, bytes without any order, runs, and what is shorter than a match.
func TestLZMA(t *testing.T) {
	tree, err := toolstree.Open("../../../build/tools-tree")
	if err != nil {
		t.Skipf("no tools tree here, whose xz would read it: %v", err)
	}
	noise := make([]byte, 70_000)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	few := make([]byte, 50_000)
	for i := range few {
		few[i] = "abcd"[r.IntN(4)]
	}
	dir := t.TempDir()
	for name, data := range map[string][]byte{
		"nothing": {}, "a byte": {7}, "three": []byte("abc"), "a run": make([]byte, 3000), "noise": noise, "few letters": few,
		"noise again, far away": append(append(append([]byte{}, noise...), few...), noise...), "in turns": bytes.Repeat([]byte("one two\x00three\xff"), 900),
		"the client's program": program(t).Wasm,
	} {
		out := packed(data)
		if got := binary.LittleEndian.Uint32(out); int(got) != len(data) {
			t.Errorf("%s: it says %d bytes, want %d", name, got, len(data))
		}
		// The header of an .lzma file: properties, dictionary, length.
		file := append(binary.LittleEndian.AppendUint64(append([]byte{3}, 0, 0, 0, 1), uint64(len(data))), out[4:]...)
		path := filepath.Join(dir, hex.EncodeToString([]byte(name))+".lzma")
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		c := tree.Command(t.Context(), "xz", "--format=lzma", "-dc", path)
		got, err := c.Output()
		if exit, ok := err.(*exec.ExitError); ok {
			t.Errorf("%s: %s", name, exit.Stderr)
		}
		if !bytes.Equal(got, data) {
			t.Errorf("%s: unpacked %d bytes, want the %d that were packed", name, len(got), len(data))
		}
	}
}
