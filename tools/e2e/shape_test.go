package e2e

import (
	"slices"
	"testing"
)

// TestShapes boots another machine than the demo's, with one processor and memory above 4 GiB. It is accepted by the policy that was computed
// for its shape, and refused by that for the demo's: no register of it comes from a boot. TestLibvirt does so with the newer QEMU.
func TestShapes(t *testing.T) {
	needsGuests(t)
	spec := demoSpec(t) // one processor, where the demo has two
	spec.Shape.MemoryMiB = 3072
	c, spec := shows(t, spec, spec)
	demo := spec
	demo.Shape = demoMachine(t).Shape
	if v := c.verify(0); v.Verdict != "accepted" {
		t.Errorf("got %+v, want it accepted", v)
	}
	other := c.with(makePolicy(t, demo))
	if v := other.verify(1); v.Check != "pcr-1" {
		t.Errorf("under the policy for another shape: got refused by %q (%s), want by pcr-1", v.Check, v.Reason)
	}
	evidence := other.saved(1)
	wantCauses(t, "the shape itself", explained(t, evidence, spec))
	wantCauses(t, "the demo's shape", explained(t, evidence, demo), "cpus+memory")
	half := spec
	half.Shape.CPUs = demo.Shape.CPUs
	wantCauses(t, "the demo's CPUs", explained(t, evidence, half), "cpus")
	half.Shape.CPUs, half.Shape.MemoryMiB = spec.Shape.CPUs, demo.Shape.MemoryMiB
	wantCauses(t, "the demo's memory", explained(t, evidence, half), "memory")
}

// wantCauses compares kinds of causes; none are expected of a guest that is as it should be.
func wantCauses(t *testing.T, expected string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("explained against %s: got %q, want %q", expected, got, want)
	}
}
