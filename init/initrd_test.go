package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCheckCmdline(t *testing.T) {
	const release = "quiet lockdown=confidentiality"
	for _, tt := range []struct {
		name, running string
		ok            bool
	}{
		{"a direct boot", release + " initrd=initrd\n", true},
		{"a direct boot under a newer firmware", "initrd=initrd " + release + "\n", true},
		{"both", "initrd=initrd " + release + " initrd=initrd\n", false},
		{"another initrd", "initrd=other " + release + "\n", false},
		{"a boot from a disk", release + "\n", true},
		{"text after it", release + " initrd=initrd rdinit=/bin/sh\n", false},
		{"text before it", "debug " + release + "\n", false},
		{"another text", strings.Replace(release, "confidentiality", "none", 1) + "\n", false},
		{"a space more", release + " \n", false},
		{"nothing", "\n", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			running, want := filepath.Join(dir, "running"), filepath.Join(dir, "release")
			for file, text := range map[string]string{running: tt.running, want: release} {
				if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if err := checkCmdline(running, want); (err == nil) != tt.ok {
				t.Errorf("got error %v, want one: %t", err, !tt.ok)
			}
		})
	}
	if err := checkCmdline("/proc/cmdline", filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("an initrd without a command line: got no error, want one")
	}
}
