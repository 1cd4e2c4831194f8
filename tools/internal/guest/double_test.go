package guest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"chrysalis/measure"
)

// TestStartDoubleRefuses shows what a software TDX is not started for, before anything of it runs.
func TestStartDoubleRefuses(t *testing.T) {
	half := t.TempDir()
	if err := os.WriteFile(filepath.Join(half, doubleProgram), []byte("#!/bin/false\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	emulated := Spec{Shape: measure.Shape{Platform: measure.TDX, Accelerator: measure.TCG}, Config: DemoConfigOn(measure.TDX)}
	plain := emulated
	plain.Shape.Platform = ""
	accelerated := emulated
	accelerated.Shape.Accelerator = measure.KVM
	for _, tt := range []struct {
		name, double string
		spec         Spec
		want         string
	}{
		{"a machine that is not emulated", half, accelerated, `accelerator is "kvm", want "tcg"`},
		{"a machine without such hardware", half, plain, `no double of platform ""`},
		{"no program", t.TempDir(), emulated, "make image makes it"},
		{"no plugin", half, emulated, "tdx.so: no such file"},
	} {
		if _, err := (Guest{Dir: t.TempDir(), Double: tt.double}).startDouble(t.Context(), tt.spec); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got error %v, want one that says %q", tt.name, err, tt.want)
		}
	}
}

// TestDemoOnTD: the demo's config is one that a TD can keep, and says what becomes of its keys.
func TestDemoOnTD(t *testing.T) {
	td, plain := DemoConfigOn(measure.TDX), DemoConfigOn("")
	if td.Identity.Sealing == plain.Identity.Sealing || td.Identity.Stranding == "" || plain.Identity.Stranding != "" {
		t.Errorf("a TD seals to %q with stranding %q, a vtpm to %q with %q", td.Identity.Sealing, td.Identity.Stranding, plain.Identity.Sealing,
			plain.Identity.Stranding)
	}
}
