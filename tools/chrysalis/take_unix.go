//go:build unix

package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// takeFile takes a file for this process, or fails where another has it.
func takeFile(f *os.File) error { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) }
