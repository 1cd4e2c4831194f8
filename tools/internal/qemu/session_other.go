//go:build !linux

package qemu

import "syscall"

// Guests run on Linux alone, and the verbs that start them say so before they come here.

func bound() *syscall.SysProcAttr { return nil }

// Unbound is nothing on other systems.
func Unbound() *syscall.SysProcAttr { return nil }
