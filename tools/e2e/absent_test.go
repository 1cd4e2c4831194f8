package e2e

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"chrysalis/attest/attesttest"
)

// symbol returns how the name of every function of the software platform begins. Function names are in the table that Go's
// runtime needs for stacks, so stripping does not take them out. It is put together at run time: as a constant it would itself
// be found in this test's program.
func symbol(function string) []byte {
	return []byte(strings.Join([]string{"chrysalis", "attest", "attesttest." + function}, "/"))
}

// TestAbsentFromPrograms searches what was built, the programs as they lie in the release and the command line: none may be
// able to make the evidence that it should judge.
func TestAbsentFromPrograms(t *testing.T) {
	needsBuild(t)
	for _, program := range []string{"programs/init", "programs/runtime", "programs/engine-host", "bin/chrysalis"} {
		binary, err := os.ReadFile(filepath.Join(built, program))
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
	linked = attesttest.New
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

// linked keeps a function of the software platform in the test's program.
var linked any
