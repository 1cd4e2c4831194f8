package verity

import (
	"fmt"
	"io"
)

// Name returns the root hash and data block count that a volume file of the given size claims by its length and by its
// tree's top block. It is what the file says of itself: whoever opens the volume under this name has every read checked
// against it, and Check looks at the whole file.
func Name(r io.ReaderAt, size int64) (root [32]byte, dataBlocks uint64, err error) {
	if size%BlockSize != 0 {
		return root, 0, fmt.Errorf("naming volume: %d bytes, want a multiple of %d", size, BlockSize)
	}
	dataBlocks, ok := DataBlocks(uint64(size / BlockSize))
	if !ok {
		return root, 0, fmt.Errorf("naming volume: %d blocks are no volume with its tree", size/BlockSize)
	}
	top := dataBlocks // the top level stands first; a volume of one block is its own top
	if dataBlocks == 1 {
		top = 0
	}
	block := make([]byte, BlockSize)
	if err := readFull(r, block, top); err != nil {
		return root, 0, fmt.Errorf("naming volume: %w", err)
	}
	newHasher().sum(root[:0], block)
	return root, dataBlocks, nil
}
