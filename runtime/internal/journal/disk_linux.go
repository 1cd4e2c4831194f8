package journal

import (
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Disk is a block device, or a file in tests.
type Disk struct{ File *os.File }

// ReadAt reads from the disk.
func (d Disk) ReadAt(p []byte, off int64) (int, error) { return d.File.ReadAt(p, off) }

// WriteAt writes to the disk's cache.
func (d Disk) WriteAt(p []byte, off int64) (int, error) { return d.File.WriteAt(p, off) }

// Sync makes what was written durable. The file's times do not matter.
func (d Disk) Sync() error { return unix.Fdatasync(int(d.File.Fd())) }

// Size returns the disk's size in bytes.
func (d Disk) Size() (int64, error) { return d.File.Seek(0, io.SeekEnd) }
