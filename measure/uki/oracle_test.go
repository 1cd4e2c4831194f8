//go:build !js

package uki

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"chrysalis/measure/pe/petest"
)

// oracle are what systemd-measure of Debian's systemd-ukify 257.13-1~deb13u1 says of sections of this test, by
// systemd-measure calculate --bank=sha256 --phase= --json=short with --NAME=FILE for each.
var oracle = []struct {
	sections string // without .linux, .osrel, .cmdline and .initrd
	want     string
}{
	{"", "f42bdfab3de64c6c8ec6ce591c42d54e49b986aa669732009f77274897f6919a"},
	{".uname .sbat", "ba1708320824508fd0bb440d827a2af20de1c0f577517f1134c3d66354c4bdc9"},
	{".ucode .splash .dtb .uname .sbat .pcrpkey .profile .hwids", "c62c454b2cbf610cfdab9f82f903a7caae3f125fb5e09ae3357680eb867e335c"},
}

// TestAgainstSystemdMeasure compares with the recorded values, and runs the program where the image's tools tree lies here.
func TestAgainstSystemdMeasure(t *testing.T) {
	for _, tt := range oracle {
		names := append([]string{".sdmagic", ".osrel", ".cmdline", ".initrd", ".linux"}, strings.Fields(tt.sections)...)
		// The first .profile ends what is common to all: it comes last, and has no section of its own.
		for i, name := range names {
			if name == ".profile" {
				names = append(append(names[:i:i], names[i+1:]...), name)
			}
		}
		image, err := Read(withStub(petest.Image(names...), "257.13-1~deb13u1"), 0)
		if err != nil {
			t.Fatal(err)
		}
		if got := pcr11(image).String(); got != tt.want {
			t.Errorf("%q: got %s, want %s", tt.sections, got, tt.want)
		}
		t.Run("now "+tt.sections, func(t *testing.T) {
			if got := systemdMeasure(t, image); got != tt.want {
				t.Errorf("systemd-measure says %s, want %s", got, tt.want)
			}
		})
	}
}

// systemdMeasure runs the tools tree's systemd-measure over the sections of an image, and skips where there is none.
func systemdMeasure(t *testing.T, image Image) string {
	t.Helper()
	tree, err := filepath.Abs("../../build/tools-tree")
	if err != nil {
		t.Fatal(err)
	}
	loader, program := filepath.Join(tree, "usr/lib64/ld-linux-x86-64.so.2"), filepath.Join(tree, "usr/lib/systemd/systemd-measure")
	for _, file := range []string{loader, program} {
		if _, err := os.Stat(file); err != nil {
			t.Skipf("no tools tree here: %v", err)
		}
	}
	lib := filepath.Join(tree, "usr/lib/x86_64-linux-gnu")
	args := []string{"--library-path", lib + ":" + filepath.Join(lib, "systemd"), program, "calculate", "--bank=sha256", "--phase=", "--json=short"}
	for name, data := range image.sections {
		file := filepath.Join(t.TempDir(), "section")
		if err := os.WriteFile(file, data, 0o644); err != nil {
			t.Fatal(err)
		}
		option := strings.TrimPrefix(name, ".")
		if option == "hwids" {
			option = "dtbauto" // 257 has the two options the wrong way round; its stub measures .hwids under its name
		}
		args = append(args, "--"+option+"="+file)
	}
	out, err := exec.CommandContext(t.Context(), loader, args...).Output()
	if err != nil {
		t.Fatalf("%q: %v", args, err)
	}
	var answer struct {
		SHA256 []struct {
			Hash string `json:"hash"`
		} `json:"sha256"`
	}
	if err := json.Unmarshal(out, &answer); err != nil || len(answer.SHA256) != 1 {
		t.Fatalf("answer %s: %v", out, err)
	}
	return answer.SHA256[0].Hash
}
