package hardening

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// hardKernel makes the files of a kernel that was started with the release's command line.
func hardKernel(t *testing.T) Paths {
	t.Helper()
	p := Paths{Proc: t.TempDir(), Sys: t.TempDir()}
	for _, s := range settings {
		write(t, filepath.Join(p.Proc, "sys", s.name), "before\n")
	}
	for _, s := range asked {
		write(t, filepath.Join(p.Proc, "sys", s.name), s.value+"\n")
	}
	write(t, filepath.Join(p.Proc, "filesystems"), "nodev\tsysfs\nnodev\ttmpfs\n\terofs\n")
	write(t, filepath.Join(p.Sys, "kernel/security/lockdown"), "none integrity [confidentiality]\n")
	write(t, filepath.Join(p.Sys, "module/module/parameters/sig_enforce"), "Y\n")
	return p
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestSettings is the list itself: to drop a switch is to drop it here, too.
func TestSettings(t *testing.T) {
	p := hardKernel(t)
	if err := Apply(p); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"kernel/kexec_load_disabled": "1", "kernel/io_uring_disabled": "2", "kernel/unprivileged_bpf_disabled": "1",
		"kernel/perf_event_paranoid": "3", "kernel/yama/ptrace_scope": "3", "kernel/dmesg_restrict": "1", "kernel/kptr_restrict": "2",
		"kernel/sysrq": "0", "kernel/core_pattern": "", "fs/suid_dumpable": "0", "user/max_user_namespaces": "0",
	}
	for name, value := range want {
		got, err := os.ReadFile(filepath.Join(p.Proc, "sys", name))
		if err != nil || string(got) != value+"\n" {
			t.Errorf("%s: got %q (%v), want %q", name, got, err, value)
		}
	}
	if len(settings) != len(want) {
		t.Errorf("got %d settings, want %d", len(settings), len(want))
	}
}

// TestLockModules: modules are locked by that step and by no other, and a lock that does not hold is an error.
func TestLockModules(t *testing.T) {
	p := hardKernel(t)
	file := filepath.Join(p.Proc, "sys/kernel/modules_disabled")
	write(t, file, "0\n")
	if err := Apply(p); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(file); err != nil || string(got) != "0\n" {
		t.Errorf("after the settings: got %q (%v), want modules still open", got, err)
	}
	if err := LockModules(p); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(file); err != nil || string(got) != "1\n" {
		t.Errorf("after the lock: got %q (%v), want 1", got, err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/null", file); err != nil {
		t.Fatal(err)
	}
	if err := LockModules(p); err == nil || !strings.Contains(err.Error(), `kernel/modules_disabled: reads "", want "1"`) {
		t.Errorf("a lock that does not read back: got error %v, want one that says so", err)
	}
	if err := os.RemoveAll(filepath.Dir(file)); err != nil {
		t.Fatal(err)
	}
	if err := LockModules(p); err == nil {
		t.Error("a kernel without the switch: got no error, want one")
	}
}

func TestRefuses(t *testing.T) {
	replace := func(t *testing.T, file, target string) {
		t.Helper()
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, file); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name   string
		change func(*testing.T, Paths)
		want   string
	}{
		{"a switch that does not read back", func(t *testing.T, p Paths) {
			replace(t, filepath.Join(p.Proc, "sys/kernel/sysrq"), "/dev/null")
		}, `kernel/sysrq: reads "", want "0"`},
		{"a switch that is not there", func(t *testing.T, p Paths) {
			if err := os.RemoveAll(filepath.Join(p.Proc, "sys/kernel/yama")); err != nil {
				t.Fatal(err)
			}
		}, "setting kernel/yama/ptrace_scope"},
		{"a kernel that goes on after an oops", func(t *testing.T, p Paths) {
			write(t, filepath.Join(p.Proc, "sys/kernel/panic_on_oops"), "0\n")
		}, `kernel/panic_on_oops: reads "0", want "1"`},
		{"a weaker lockdown", func(t *testing.T, p Paths) {
			write(t, filepath.Join(p.Sys, "kernel/security/lockdown"), "none [integrity] confidentiality\n")
		}, "want confidentiality"},
		{"no lockdown", func(t *testing.T, p Paths) {
			replace(t, filepath.Join(p.Sys, "kernel/security/lockdown"), "nowhere")
		}, "no such file"},
		{"unsigned modules", func(t *testing.T, p Paths) {
			write(t, filepath.Join(p.Sys, "module/module/parameters/sig_enforce"), "N\n")
		}, `module signatures: reads "N", want "Y"`},
		{"debugfs", func(t *testing.T, p Paths) {
			write(t, filepath.Join(p.Proc, "filesystems"), "nodev\tsysfs\nnodev\tdebugfs\n")
		}, "debugfs can be mounted"},
		{"fw_cfg", func(t *testing.T, p Paths) {
			write(t, filepath.Join(p.Sys, "firmware/qemu_fw_cfg/rev"), "3\n")
		}, "fw_cfg is there"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := hardKernel(t)
			tt.change(t, p)
			if err := Apply(p); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want one that says %q", err, tt.want)
			}
		})
	}
}
