package image

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestCmdline is the list of the kernel's options: adding or dropping one means doing it here, and saying in SECURITY.md what it stops.
func TestCmdline(t *testing.T) {
	line, err := os.ReadFile(filepath.Join(sourceTree, "image/mkosi.profiles/cpu/cmdline"))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"quiet", "loglevel=0", "lockdown=confidentiality", "module.sig_enforce=1", "oops=panic", "panic=-1", "init_on_alloc=1",
		"init_on_free=1",
		"slab_nomerge", "page_alloc.shuffle=1", "randomize_kstack_offset=on", "vsyscall=none", "debugfs=off", "random.trust_cpu=on",
		"random.trust_bootloader=off",
		"ia32_emulation=0", "efi=disable_early_pci_dma", "tsc=nowatchdog", "sysctl.kernel.kexec_load_disabled=1"}
	got := strings.Split(string(line), " ")
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	text, err := os.ReadFile(filepath.Join(sourceTree, "SECURITY.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, option := range got {
		if !strings.Contains(string(text), "`"+option+"`") {
			t.Errorf("SECURITY.md does not say what %s stops", option)
		}
	}
}
