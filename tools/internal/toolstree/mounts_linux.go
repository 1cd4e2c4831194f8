package toolstree

import "syscall"

// OwnMounts is of a process whose mounts are its own, and gone with it.
func OwnMounts() *syscall.SysProcAttr { return &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS} }
