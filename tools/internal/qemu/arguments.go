package qemu

import (
	"fmt"
	"strings"
)

// Bare are the arguments that leave nothing to QEMU's defaults, the machine's configuration files or a window.
func Bare() []string { return []string{"-nodefaults", "-no-user-config", "-display", "none"} }

// Flash is a flash chip: unit 0 holds the firmware's code, unit 1 its variables.
func Flash(unit int, file string, readOnly bool) []string {
	mode := ""
	if readOnly {
		mode = "readonly=on,"
	}
	return []string{"-drive", fmt.Sprintf("if=pflash,unit=%d,format=raw,%sfile=%s", unit, mode, Escape(file))}
}

// Boot says whether the firmware may try what is not in its list of what to boot from.
func Boot(strict bool) []string {
	if !strict {
		return nil
	}
	return []string{"-boot", "strict=on"}
}

// Drive is a disk of a format (raw, qcow2) that a device names as id.
func Drive(id, format, file string, readOnly bool) []string {
	mode := map[bool]string{true: "on", false: "off"}[readOnly]
	return []string{"-drive", "if=none,format=" + format + ",id=" + id + ",readonly=" + mode + ",file=" + Escape(file)}
}

// Emulator is the TPM id behind a control socket: see StartTPM.
func Emulator(id, chardev, socket string) []string {
	return []string{"-chardev", "socket,id=" + chardev + ",path=" + Escape(socket), "-tpmdev", "emulator,id=" + id + ",chardev=" + chardev}
}

// Monitored lets the monitor listen at a socket.
func Monitored(socket string) []string { return []string{"-qmp", listen(socket)} }

// Tested lets the test port listen at a socket. It has the machine's whole bus.
func Tested(socket string) []string {
	return []string{"-qtest", listen(socket), "-qtest-log", "/dev/null"}
}

func listen(socket string) string { return "unix:" + Escape(socket) + ",server=on,wait=off" }

// Escape doubles commas, which separate QEMU's options.
func Escape(path string) string { return strings.ReplaceAll(path, ",", ",,") }
