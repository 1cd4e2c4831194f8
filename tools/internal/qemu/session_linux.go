package qemu

import "syscall"

// bound is of a process that the kernel ends with this program.
func bound() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }

// Unbound is of a process that outlives this program, and hears nothing of its terminal.
func Unbound() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }
