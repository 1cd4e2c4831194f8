// Package hardening sets the kernel's switches that close what the guest never needs.
package hardening

import (
	"fmt"
	"os"
	"path/filepath"
)

// settings are written once, in order; each must exist. The reason stands beside each.
var settings = []struct{ name, value string }{
	{"kernel/modules_disabled", "1"},          // the initrd has loaded all there are
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

// Apply writes the settings below dir, which is /proc/sys.
func Apply(dir string) error {
	for _, s := range settings {
		if err := os.WriteFile(filepath.Join(dir, s.name), []byte(s.value+"\n"), 0o644); err != nil {
			return fmt.Errorf("hardening: setting %s to %q: %v", s.name, s.value, err)
		}
	}
	return nil
}
