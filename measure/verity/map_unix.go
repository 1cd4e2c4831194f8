//go:build linux || darwin

package verity

import (
	"io"
	"math"
	"os"
	"syscall"
)

// mapData maps the data blocks of a file, so that hashing them copies nothing. It returns nil where that can't be done.
func mapData(r io.ReaderAt, dataBlocks uint64) (data []byte, unmap func()) {
	f, ok := r.(*os.File)
	if !ok || dataBlocks > math.MaxInt/BlockSize {
		return nil, func() {}
	}
	size := int64(dataBlocks) * BlockSize
	// Past the end of the file there are no pages: reading reports that, a mapping would fault.
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() || info.Size() < size {
		return nil, func() {}
	}
	data, err := syscall.Mmap(int(f.Fd()), 0, int(size), syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		return nil, func() {}
	}
	return data, func() { _ = syscall.Munmap(data) } // it was mapped above
}
