package e2e

import (
	"slices"
	"testing"

	"chrysalis/measure"
)

// TestShapes boots other machines than the demo's. Each is accepted by the policy that was computed for its shape, and
// refused by that for the demo's: no register of it comes from a boot. TestLibvirt does so with the newer QEMU.
func TestShapes(t *testing.T) {
	needsGuests(t)
	demo := demoSpec(t)
	for _, tt := range []struct {
		name   string
		change func(*measure.Shape)
		causes []string // that explain finds against the demo's shape
	}{
		{"one CPU and memory above 4 GiB", func(s *measure.Shape) { s.CPUs, s.MemoryMiB = 1, 3072 }, []string{"cpus+memory"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			beside(t)
			spec := demoSpec(t)
			tt.change(&spec.Shape)
			g := newGuest(t)
			start(t, g, spec)
			c := newClient(t, g, spec)
			if v := c.verify(0); v.Verdict != "accepted" {
				t.Errorf("got %+v, want it accepted", v)
			}
			if v := c.with(makePolicy(t, demo)).verify(1); v.Check != "pcr-1" {
				t.Errorf("under the policy for another shape: got refused by %q (%s), want by pcr-1", v.Check, v.Reason)
			}
			evidence := c.with(makePolicy(t, demo)).saved(1)
			wantCauses(t, "the shape itself", explained(t, evidence, spec))
			wantCauses(t, "the demo's shape", explained(t, evidence, demo), tt.causes...)
			if spec.Shape.CPUs == demo.Shape.CPUs {
				return
			}
			half := spec
			half.Shape.CPUs = demo.Shape.CPUs
			wantCauses(t, "the demo's CPUs", explained(t, evidence, half), "cpus")
			half.Shape.CPUs, half.Shape.MemoryMiB = spec.Shape.CPUs, demo.Shape.MemoryMiB
			wantCauses(t, "the demo's memory", explained(t, evidence, half), "memory")
		})
	}
}

// wantCauses compares kinds of causes; none are expected of a guest that is as it should be.
func wantCauses(t *testing.T, expected string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("explained against %s: got %q, want %q", expected, got, want)
	}
}
