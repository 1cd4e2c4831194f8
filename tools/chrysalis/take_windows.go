package main

import (
	"os"

	"golang.org/x/sys/windows"
)

// takeFile takes a file for this process, or fails where another has it. What is locked is a byte far behind its content.
func takeFile(f *os.File) error {
	return windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0,
		&windows.Overlapped{OffsetHigh: 1 << 30})
}
