package image

import (
	"os"

	"golang.org/x/sys/unix"
)

// take takes a file for this process, or fails where another has it.
func take(f *os.File) error { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) }
