package main

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"
)

// TestPacked: what is made of a program for each system, twice the same bytes.
func TestPacked(t *testing.T) {
	for _, tt := range []struct{ system, want string }{
		{"linux", "chrysalis-1.0-linux-arm64.tar.gz chrysalis-1.0-linux-arm64.cdx.json chrysalis_1.0_arm64.deb"},
		{"windows", "chrysalis-1.0-windows-arm64.tar.gz chrysalis-1.0-windows-arm64.cdx.json"},
	} {
		made, err := packed(tt.system, "arm64", "1.0", []byte("program"), []byte("{}"), []byte("free"))
		if err != nil {
			t.Fatal(err)
		}
		again, err := packed(tt.system, "arm64", "1.0", []byte("program"), []byte("{}"), []byte("free"))
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for i, f := range made {
			if names = append(names, f.Path); !bytes.Equal(f.Data, again[i].Data) {
				t.Errorf("%s is another the second time", f.Path)
			}
		}
		if got := strings.Join(names, " "); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.system, got, tt.want)
		}
	}
}

// TestPackagesOf: another program than this one is not packed under its name.
func TestPackagesOf(t *testing.T) {
	program, err := exec.LookPath("go")
	if err != nil {
		t.Skip("no go here, which is another program")
	}
	if _, err := packagesOf(program, "1.0", nil); err == nil || !strings.Contains(err.Error(), "want "+commandLine) {
		t.Errorf("go itself: got error %v", err)
	}
	if _, err := packagesOf("release_package_test.go", "1.0", nil); err == nil {
		t.Error("a text: got no error")
	}
}
