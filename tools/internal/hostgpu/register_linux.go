package hostgpu

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// ReadRegister reads a word at an offset of a resource file, which is mapped for it: sysfs lets nobody read one. The offset is a multiple of 4.
func ReadRegister(files fs.FS, name string, offset int64) (word uint32, err error) {
	f, err := files.Open(name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	file, ok := f.(*os.File)
	if !ok {
		return 0, fmt.Errorf("%s: no file of this machine", name)
	}
	page := int64(os.Getpagesize())
	start := offset / page * page
	data, err := unix.Mmap(int(file.Fd()), start, int(page), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return 0, fmt.Errorf("mapping %s: %w", name, err)
	}
	defer func() { err = errors.Join(err, unix.Munmap(data)) }()
	return binary.LittleEndian.Uint32(data[offset-start:]), nil
}
