//go:build !linux

package toolstree

import "syscall"

// OwnMounts is nothing on other systems, where Open returns no tree.
func OwnMounts() *syscall.SysProcAttr { return nil }
