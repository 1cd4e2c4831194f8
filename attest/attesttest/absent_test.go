package attesttest

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// symbol returns how the name of every function of this package begins. Function names are in the table that Go's runtime
// needs for stacks, so stripping does not take them out. It is put together at run time: as a constant it would itself be
// found in this test's program.
func symbol(function string) []byte {
	return []byte(strings.Join([]string{"chrysalis", "attest", "attesttest." + function}, "/"))
}

// TestAbsentFromPrograms builds the programs of a release: none may be able to make the evidence that it should judge.
func TestAbsentFromPrograms(t *testing.T) {
	if runtime.GOOS == "js" {
		t.Skip("no toolchain under js")
	}
	if testing.Short() {
		t.Skip("it links three programs")
	}
	dir := t.TempDir()
	for _, program := range []string{"init", "runtime", "tools/chrysalis"} {
		out := filepath.Join(dir, filepath.Base(program))
		build := exec.Command("go", "build", "-buildvcs=false", "-trimpath", "-ldflags=-s -w", "-o", out, "../../"+program)
		if said, err := build.CombinedOutput(); err != nil {
			t.Fatalf("building %s: %v: %s", program, err, said)
		}
		binary, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(binary, symbol("")) {
			t.Errorf("%s contains the software platform", program)
		}
		// The search can find something: a package that each of them has.
		if !bytes.Contains(binary, []byte("chrysalis/measure/config.")) {
			t.Errorf("%s: no function of measure/config found: the search looks in the wrong place", program)
		}
	}
	// The twin that must be caught: this test's own program links the package.
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	twin, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(twin, symbol("New")) {
		t.Error("the test's own program: the software platform is not found in it")
	}
}

// TestMain keeps New in the test's program.
func TestMain(m *testing.M) {
	linked = New
	os.Exit(m.Run())
}

var linked any
