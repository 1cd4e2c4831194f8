// Package verity builds and checks dm-verity hash trees as Linux reads them: SHA-256, hash format version 1 (the salt
// comes first), 4096-byte data and hash blocks, no superblock. See the kernel's admin-guide/device-mapper/verity.rst.
//
// A tree follows its data at once, so one file or device holds both:
//
//	root, err := verity.Append(ctx, file, blocks, nil)
//	params := verity.TableParams("/dev/vda", blocks, root, "panic_on_corruption")
//
// Every parameter is a constant or comes from the caller; nothing about the tree is ever read from the disk that holds it.
// The package opens no device: the table is loaded by whoever owns the kernel's device mapper.
package verity

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

const (
	// BlockSize is the size of a data block and of a hash block, in bytes.
	BlockSize = 4096

	digestsPerBlock = BlockSize / sha256.Size
	maxBlocks       = 1 << 40 // 4 PiB of data: keeps every sum below within int64
	spanBlocks      = 2 * digestsPerBlock
	pieceBlocks     = 16
)

// Salt returns the salt of every tree: SHA-256 of "chrysalis volume v1". It is a constant, because a salt that came with
// the volume would be one more value to measure.
func Salt() [sha256.Size]byte { return sha256.Sum256([]byte("chrysalis volume v1")) }

// ErrCorrupt is returned by Check for data or a tree that does not hash to the given root.
var ErrCorrupt = errors.New("volume is corrupt")

// File is what Append needs: it reads the data blocks and writes the tree behind them.
type File interface {
	io.ReaderAt
	io.WriterAt
}

// TreeBlocks returns how many hash blocks stand behind dataBlocks data blocks. One data block has none: its digest is the
// root hash.
func TreeBlocks(dataBlocks uint64) uint64 {
	var sum uint64
	for _, l := range levels(dataBlocks) {
		sum += l.blocks
	}
	return sum
}

// DataBlocks returns the number of data blocks of a volume that has totalBlocks with its tree, and whether there is one.
func DataBlocks(totalBlocks uint64) (uint64, bool) {
	if totalBlocks == 0 || totalBlocks > maxBlocks {
		return 0, false
	}
	low, high := uint64(1), totalBlocks
	for low < high {
		mid := (low + high) / 2
		if mid+TreeBlocks(mid) < totalBlocks {
			low = mid + 1
		} else {
			high = mid
		}
	}
	return low, low+TreeBlocks(low) == totalBlocks
}

// level is one level of the tree: blocks hash blocks from block start of the volume, over the level (or data) below it.
type level struct{ start, blocks uint64 }

// levels returns the levels from the lowest, which hashes the data, to the single top block. On the volume they stand the
// other way round, the top one first.
func levels(dataBlocks uint64) []level {
	var ls []level
	for n := dataBlocks; n > 1; {
		n = (n + digestsPerBlock - 1) / digestsPerBlock
		ls = append(ls, level{blocks: n})
	}
	start := dataBlocks
	for i := len(ls) - 1; i >= 0; i-- {
		ls[i].start = start
		start += ls[i].blocks
	}
	return ls
}

// Append hashes the first dataBlocks blocks of f, writes the tree at once behind them and returns the root hash. Leaves
// are hashed by as many workers as there are CPUs, in constant memory. progress, which may be nil, is called with the
// number of data bytes hashed so far, by one goroutine at a time.
func Append(ctx context.Context, f File, dataBlocks uint64, progress func(done int64)) ([sha256.Size]byte, error) {
	root, err := build(ctx, f, dataBlocks, progress, func(p []byte, at uint64) error {
		_, err := f.WriteAt(p, int64(at)*BlockSize)
		return err
	})
	if err != nil {
		return root, fmt.Errorf("building hash tree: %w", err)
	}
	return root, nil
}

// Check reads the whole volume, data and tree, and returns nil when the tree is the one that Append would write and its
// root hash is root. A difference is ErrCorrupt and names the first hash block seen to differ.
func Check(r io.ReaderAt, dataBlocks uint64, root [sha256.Size]byte) error {
	got, err := build(context.Background(), r, dataBlocks, nil, func(want []byte, at uint64) error {
		stored := make([]byte, len(want))
		if err := readFull(r, stored, at); err != nil {
			return err
		}
		for i := 0; i < len(want); i += sha256.Size {
			if string(stored[i:i+sha256.Size]) != string(want[i:i+sha256.Size]) {
				return fmt.Errorf("%w: hash block %d holds %x, want %x", ErrCorrupt, at+uint64(i/BlockSize),
					stored[i:i+sha256.Size], want[i:i+sha256.Size])
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("checking hash tree: %w", err)
	}
	if got != root {
		return fmt.Errorf("checking hash tree: %w: root hash is %x, want %x", ErrCorrupt, got, root)
	}
	return nil
}

// TableParams returns the parameters of a dm-verity target whose data and tree lie on one device. options are the target's
// optional arguments, one word each.
func TableParams(device string, dataBlocks uint64, root [sha256.Size]byte, options ...string) string {
	n := strconv.FormatUint(dataBlocks, 10)
	salt := Salt()
	fields := []string{"1", device, device, "4096", "4096", n, n, "sha256", hex.EncodeToString(root[:]), hex.EncodeToString(salt[:])}
	if len(options) > 0 {
		fields = append(append(fields, strconv.Itoa(len(options))), options...)
	}
	return strings.Join(fields, " ")
}

// build computes every level from the one below it and hands each run of finished hash blocks to put.
func build(ctx context.Context, r io.ReaderAt, dataBlocks uint64, progress func(int64),
	put func(p []byte, at uint64) error) (root [sha256.Size]byte, err error) {
	if dataBlocks == 0 || dataBlocks > maxBlocks {
		return root, fmt.Errorf("%d data blocks, want 1 to %d", dataBlocks, uint64(maxBlocks))
	}
	below := level{0, dataBlocks}
	data, unmap := mapData(r, dataBlocks)
	defer unmap()
	for _, l := range levels(dataBlocks) {
		if err := hashLevel(ctx, r, data, below, l, progress, put); err != nil {
			return root, err
		}
		// The levels above are read: they have just been written, and are small.
		below, data, progress = l, nil, nil
	}
	// What is left is one block: the top of the tree, or the only data block. Check has compared the stored top with the
	// computed one, Append has just written it.
	top := make([]byte, BlockSize)
	if err := readFull(r, top, below.start); err != nil {
		return root, err
	}
	newHasher().sum(root[:0], top)
	if progress != nil {
		progress(BlockSize)
	}
	return root, nil
}

// hashLevel hashes the blocks of below into the hash blocks of l: spans are taken in order by the workers. mapped is the
// level below in memory, or nil when it must be read.
func hashLevel(ctx context.Context, r io.ReaderAt, mapped []byte, below, l level, progress func(int64),
	put func([]byte, uint64) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	spans := (below.blocks + spanBlocks - 1) / spanBlocks
	var next atomic.Uint64
	var mu sync.Mutex
	var done int64
	var workers sync.WaitGroup
	for range min(uint64(runtime.GOMAXPROCS(0)), spans) {
		workers.Go(func() {
			// A mapped file that somebody cuts short meanwhile faults where a read would fail.
			debug.SetPanicOnFault(true)
			defer func() {
				switch r := recover().(type) {
				case nil:
				case interface{ Addr() uintptr }:
					cancel(fmt.Errorf("reading mapped blocks: fault at %#x", r.Addr()))
				default:
					panic(r)
				}
			}()
			h := newHasher()
			in := make([]byte, pieceBlocks*BlockSize)
			out := make([]byte, spanBlocks/digestsPerBlock*BlockSize)
			for ctx.Err() == nil {
				span := next.Add(1) - 1
				if span >= spans {
					return
				}
				first := span * spanBlocks
				n := min(spanBlocks, below.blocks-first)
				hashes := out[:(n+digestsPerBlock-1)/digestsPerBlock*BlockSize]
				clear(hashes)
				for at := uint64(0); at < n; at += pieceBlocks {
					size := min(pieceBlocks, n-at) * BlockSize
					piece := in[:size]
					if mapped != nil {
						piece = mapped[(first+at)*BlockSize:][:size]
					} else if err := readFull(r, piece, below.start+first+at); err != nil {
						cancel(err)
						return
					}
					for i := range uint64(len(piece)) / BlockSize {
						h.sum(hashes[:(at+i)*sha256.Size], piece[i*BlockSize:(i+1)*BlockSize])
					}
				}
				if err := put(hashes, l.start+first/digestsPerBlock); err != nil {
					cancel(err)
					return
				}
				if progress != nil {
					mu.Lock()
					done += int64(n * BlockSize)
					progress(done)
					mu.Unlock()
				}
			}
		})
	}
	workers.Wait()
	return context.Cause(ctx)
}

// hasher computes salted block digests without allocating.
type hasher struct {
	h    hash.Hash
	salt [sha256.Size]byte
}

func newHasher() *hasher { return &hasher{h: sha256.New(), salt: Salt()} }

func (h *hasher) sum(dst, block []byte) {
	h.h.Reset()
	h.h.Write(h.salt[:])
	h.h.Write(block)
	h.h.Sum(dst)
}

// readFull reads len(p) bytes from block at; a volume that ends earlier is an error.
func readFull(r io.ReaderAt, p []byte, at uint64) error {
	n, err := r.ReadAt(p, int64(at)*BlockSize)
	if n == len(p) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("reading blocks from %d: got %d bytes, want %d: %w", at, n, len(p), err)
}
