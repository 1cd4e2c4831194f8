//go:build !linux

package hostgpu

import (
	"errors"
	"io/fs"
)

// ReadRegister reads a word at an offset of a resource file, which only Linux has.
func ReadRegister(fs.FS, string, int64) (uint32, error) { return 0, errors.ErrUnsupported }
