package main

import "golang.org/x/sys/unix"

// freeHere returns what is free on the disk of the work folder.
func freeHere() (uint64, error) {
	var s unix.Statfs_t
	err := unix.Statfs(".", &s)
	return s.Bavail * uint64(s.Bsize), err
}

// clockIsKept reports whether something keeps the clock of this machine.
func clockIsKept() (bool, error) {
	const timeError = 5 // TIME_ERROR: adjtimex(2)
	state, err := unix.Adjtimex(&unix.Timex{})
	return state != timeError, err
}
