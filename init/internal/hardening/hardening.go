// Package hardening sets the kernel's switches that close what the guest never needs, and holds the kernel against what the
// command line has asked of it. A switch that does not read back as it was set ends the boot.
package hardening

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// settings are written once, in order; each must exist. The reason stands beside each.
var settings = []struct{ name, value string }{
	{"kernel/kexec_load_disabled", "1"},       // no other kernel
	{"kernel/io_uring_disabled", "2"},         // a large attack surface that nothing here uses
	{"kernel/unprivileged_bpf_disabled", "1"}, // the same
	{"kernel/perf_event_paranoid", "3"},       // the same
	{"kernel/yama/ptrace_scope", "3"},         // nobody reads another process
	{"kernel/dmesg_restrict", "1"},            // the log is init's
	{"kernel/kptr_restrict", "2"},             // no kernel addresses
	{"kernel/sysrq", "0"},                     // no keys from the host's console
	{"kernel/core_pattern", ""},               // no core file of a process that holds a prompt
	{"fs/suid_dumpable", "0"},                 // the same
	{"user/max_user_namespaces", "0"},         // no second root
}

// lock closes the kernel to modules for good. It comes apart from the settings, once the drivers of everything that the guest
// was found to have are loaded.
const lock, locked = "kernel/modules_disabled", "1"

// asked is what the command line asks of the kernel, as it reads back.
var asked = []struct{ name, value string }{
	{"kernel/panic_on_oops", "1"}, // a damaged kernel does not go on
	{"kernel/panic", "-1"},        // and does not stay
}

// Paths is where the kernel's files are; tests point it at a folder of their own.
type Paths struct{ Proc, Sys string }

// Apply writes the settings and reads each back, and then looks at what only the command line can set.
func Apply(p Paths) error {
	for _, s := range settings {
		if err := set(p, s.name, s.value); err != nil {
			return fmt.Errorf("hardening: %v", err)
		}
	}
	for _, s := range asked {
		if err := reads(filepath.Join(p.Proc, "sys", s.name), s.value); err != nil {
			return fmt.Errorf("hardening: %s: %v", s.name, err)
		}
	}
	for _, check := range []func(Paths) error{lockedDown, signedModules, noDebugFS, noFirmwareConfig} {
		if err := check(p); err != nil {
			return fmt.Errorf("hardening: %v", err)
		}
	}
	return nil
}

// LockModules lets the kernel load no module any more.
func LockModules(p Paths) error {
	if err := set(p, lock, locked); err != nil {
		return fmt.Errorf("locking modules: %v", err)
	}
	return nil
}

// set writes a switch and reads it back.
func set(p Paths, name, value string) error {
	file := filepath.Join(p.Proc, "sys", name)
	if err := os.WriteFile(file, []byte(value+"\n"), 0o644); err != nil {
		return fmt.Errorf("setting %s to %q: %v", name, value, err)
	}
	if err := reads(file, value); err != nil {
		return fmt.Errorf("%s: %v", name, err)
	}
	return nil
}

func reads(file, want string) error {
	got, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if got := strings.TrimSpace(string(got)); got != want {
		return fmt.Errorf("reads %q, want %q", got, want)
	}
	return nil
}

// lockedDown: root in the guest reads neither kernel memory nor ports, and changes no running kernel.
func lockedDown(p Paths) error {
	got, err := os.ReadFile(filepath.Join(p.Sys, "kernel/security/lockdown"))
	if err != nil {
		return err
	}
	if !strings.Contains(string(got), "[confidentiality]") {
		return fmt.Errorf("lockdown is %q, want confidentiality", strings.TrimSpace(string(got)))
	}
	return nil
}

// signedModules: the modules that the initrd has loaded were signed by the kernel's builder.
func signedModules(p Paths) error {
	if err := reads(filepath.Join(p.Sys, "module/module/parameters/sig_enforce"), "Y"); err != nil {
		return fmt.Errorf("module signatures: %v", err)
	}
	return nil
}

// noDebugFS: the file system is not there to be mounted.
func noDebugFS(p Paths) error {
	kinds, err := os.ReadFile(filepath.Join(p.Proc, "filesystems"))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(kinds)) {
		if kind := strings.Fields(line); len(kind) > 0 && kind[len(kind)-1] == "debugfs" {
			return errors.New("debugfs can be mounted, want none")
		}
	}
	return nil
}

// noFirmwareConfig: QEMU's fw_cfg, through which a host hands files to a guest, has no driver here.
func noFirmwareConfig(p Paths) error {
	if _, err := os.Stat(filepath.Join(p.Sys, "firmware/qemu_fw_cfg")); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("QEMU's fw_cfg is there (%v), want none", err)
	}
	return nil
}
