package verity

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

// write makes a file of n blocks with seeded content.
func write(t testing.TB, n uint64) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "volume"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	rng := rand.NewChaCha8([32]byte{byte(n)})
	block := make([]byte, BlockSize)
	for range n {
		rng.Read(block)
		if _, err := f.Write(block); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

func TestSalt(t *testing.T) {
	salt := Salt()
	if got, want := hex.EncodeToString(salt[:]), "a0623a131cd1390133f06b8f306faee9e29677dde636db07417ef6c83126abed"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestAgainstVeritysetup compares root hash and tree with the tool whose format this is, around each level's boundary.
func TestAgainstVeritysetup(t *testing.T) {
	tool, err := exec.LookPath("veritysetup")
	if err != nil {
		t.Skip("no veritysetup on this machine: the second opinion on the tree is not asked")
	}
	salt := Salt()
	line := regexp.MustCompile(`Root hash:\s+([0-9a-f]{64})`)
	for _, n := range []uint64{1, 2, 127, 128, 129, 255, 256, 257, 16384, 16385} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			f := write(t, n)
			tree := filepath.Join(t.TempDir(), "tree")
			out, err := exec.Command(tool, "format", "--no-superblock", "--format=1", "--hash=sha256", "--salt="+hex.EncodeToString(salt[:]),
				"--data-block-size=4096", "--hash-block-size=4096", f.Name(), tree).CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			m := line.FindSubmatch(out)
			if m == nil {
				t.Fatalf("no root hash in %q", out)
			}
			root, err := Append(t.Context(), f, n, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := hex.EncodeToString(root[:]), string(m[1]); got != want {
				t.Errorf("root hash: got %s, want %s", got, want)
			}
			want, err := os.ReadFile(tree)
			if err != nil {
				t.Fatal(err)
			}
			all, err := os.ReadFile(f.Name())
			if err != nil {
				t.Fatal(err)
			}
			if got := all[n*BlockSize:]; !bytes.Equal(got, want) {
				t.Errorf("tree differs from veritysetup's: got %d bytes, want %d", len(got), len(want))
			}
			if got, want := uint64(len(all)/BlockSize), n+TreeBlocks(n); got != want {
				t.Errorf("volume is %d blocks, want %d", got, want)
			}
		})
	}
}

func TestCheckFindsEveryFlippedByte(t *testing.T) {
	const n = 300
	f := write(t, n)
	root, err := Append(t.Context(), f, n, nil)
	if err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	if err := Check(bytes.NewReader(good), n, root); err != nil {
		t.Fatalf("the untouched volume: %v", err)
	}
	for block := 0; block < len(good)/BlockSize; block++ {
		bad := bytes.Clone(good)
		bad[block*BlockSize+block%BlockSize] ^= 1
		if err := Check(bytes.NewReader(bad), n, root); !errors.Is(err, ErrCorrupt) {
			t.Errorf("a flipped bit in block %d: got %v, want ErrCorrupt", block, err)
		}
	}
	if err := Check(bytes.NewReader(good[:len(good)-1]), n, root); err == nil {
		t.Error("a volume cut by a byte: got nil, want an error")
	}
	root[0] ^= 1
	if err := Check(bytes.NewReader(good), n, root); !errors.Is(err, ErrCorrupt) {
		t.Errorf("another root: got %v, want ErrCorrupt", err)
	}
}

func TestDataBlocks(t *testing.T) {
	for _, n := range []uint64{1, 2, 127, 128, 129, 16384, 16385, 1 << 30} {
		if got, ok := DataBlocks(n + TreeBlocks(n)); !ok || got != n {
			t.Errorf("DataBlocks(%d): got %d, %t, want %d, true", n+TreeBlocks(n), got, ok, n)
		}
	}
	for _, total := range []uint64{0, 2, maxBlocks + 1} {
		if got, ok := DataBlocks(total); ok {
			t.Errorf("DataBlocks(%d): got %d, want none", total, got)
		}
	}
}

func TestAppendRefusesSizes(t *testing.T) {
	f := write(t, 1)
	for _, n := range []uint64{0, 2, maxBlocks + 1} {
		if _, err := Append(t.Context(), f, n, nil); err == nil {
			t.Errorf("%d blocks over a file of one: got nil, want an error", n)
		}
	}
}

func TestAppendEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	f := write(t, 3*spanBlocks)
	var last int64
	_, err := Append(ctx, f, 3*spanBlocks, func(done int64) {
		if done <= last {
			t.Errorf("progress went from %d to %d", last, done)
		}
		last = done
		cancel()
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}

// TestFileCutShort cuts the file while it is hashed: mapped or read, that is an error and no crash.
func TestFileCutShort(t *testing.T) {
	const n = 64 * spanBlocks
	f := write(t, n)
	_, err := Append(t.Context(), f, n, func(int64) {
		if err := f.Truncate(0); err != nil {
			t.Error(err)
		}
	})
	if err == nil {
		t.Error("got nil, want an error")
	}
}

func TestTableParams(t *testing.T) {
	salt := Salt()
	root := [32]byte{0xab}
	got := TableParams("/dev/vda", 7, root, "panic_on_corruption")
	want := fmt.Sprintf("1 /dev/vda /dev/vda 4096 4096 7 7 sha256 %x %x 1 panic_on_corruption", root, salt)
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func BenchmarkAppend(b *testing.B) {
	const n = 64 << 20 / BlockSize
	f := write(b, n)
	b.SetBytes(n * BlockSize)
	for b.Loop() {
		if _, err := Append(b.Context(), f, n, nil); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSHA256 is Append's reference: one core over data in memory.
func BenchmarkSHA256(b *testing.B) {
	p := make([]byte, 64<<20)
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		sha256.Sum256(p)
	}
}

func TestName(t *testing.T) {
	for _, n := range []uint64{1, 2, 128, 129, 300} {
		f := write(t, n)
		want, err := Append(t.Context(), f, n, nil)
		if err != nil {
			t.Fatal(err)
		}
		got, blocks, err := Name(f, int64(n+TreeBlocks(n))*BlockSize)
		if err != nil || got != want || blocks != n {
			t.Errorf("%d blocks: got name %x with %d blocks (%v), want %x", n, got, blocks, err, want)
		}
		if _, _, err := Name(f, int64(n+TreeBlocks(n))*BlockSize+1); err == nil {
			t.Errorf("%d blocks and one byte: got no error, want a refusal", n)
		}
	}
}
