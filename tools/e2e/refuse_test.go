package e2e

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"chrysalis/measure/config"
	"chrysalis/tools/internal/guest"
)

// erofsSuperblock is where an erofs image has its superblock.
const erofsSuperblock = 1024

// TestCorruptVolumes flips one byte of a volume, where it is read. No guest may serve over it.
func TestCorruptVolumes(t *testing.T) {
	needsGuests(t)
	for _, tt := range []struct {
		name   string
		change func(*testing.T, guest.Spec) guest.Spec
		want   string // the guest's last word; "" is the kernel's panic, which has none
	}{
		{"root, a block of the runtime program", func(t *testing.T, s guest.Spec) guest.Spec {
			root := filepath.Join(s.Release, "root.img")
			return withRelease(t, s, "root.img", tampered(t, root, runtimeBlock(t, root)))
		}, ""},
		{"root, superblock", func(t *testing.T, s guest.Spec) guest.Spec {
			return withRelease(t, s, "root.img", tampered(t, filepath.Join(s.Release, "root.img"), erofsSuperblock+4))
		}, ""},
		{"model, superblock", func(t *testing.T, s guest.Spec) guest.Spec {
			s.Model = tampered(t, s.Model, erofsSuperblock+4)
			return s
		}, "volume-corrupt"},
		{"model, weights", func(t *testing.T, s guest.Spec) guest.Spec {
			s.Model = tampered(t, s.Model, 600_000)
			return s
		}, "volume-corrupt"},
		{"engine, superblock", func(t *testing.T, s guest.Spec) guest.Spec {
			s.Engine = tampered(t, s.Engine, erofsSuperblock+4)
			return s
		}, "volume-corrupt"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			beside(t)
			spec := tt.change(t, demoSpec(t))
			// The volume keeps its name: what changed is the disk, not the config.
			if got := ending(t, newGuest(t), spec); got != tt.want {
				t.Errorf("the guest's last word: got %q, want %q", got, tt.want)
			}
		})
	}
}

// takesPublicIdentity has the config ask for what a TD alone can have, sealed as on one.
func takesPublicIdentity(s *guest.Spec) {
	s.Config.Identity.Cocoon, s.Config.Identity.Sealing, s.Config.Identity.Stranding = true, config.SealNothing, config.StrandingAccepted
}

// TestForeignDisks gives the guest disks that are not what its config or its journal says.
func TestForeignDisks(t *testing.T) {
	needsGuests(t)
	t.Run("the model disk holds the engine", func(t *testing.T) {
		beside(t)
		spec := demoSpec(t)
		spec.Model = spec.Engine
		if got, want := ending(t, newGuest(t), spec), "volume-corrupt"; got != want {
			t.Errorf("the guest's last word: got %q, want %q", got, want)
		}
	})
	t.Run("a config that asks for a GPU on a machine without", func(t *testing.T) {
		beside(t)
		spec := demoSpec(t)
		spec.Config.Service.GPU = "1 hopper spt"
		if got, want := ending(t, newGuest(t), spec), "gpu-none"; got != want {
			t.Errorf("the guest's last word: got %q, want %q", got, want)
		}
	})
	t.Run("a config that asks for COCOON's identity on a machine that is no TD", func(t *testing.T) {
		beside(t)
		spec := demoSpec(t)
		takesPublicIdentity(&spec)
		if got, want := ending(t, newGuest(t), spec), "identity-unfit"; got != want {
			t.Errorf("the guest's last word: got %q, want %q", got, want)
		}
	})
	t.Run("a config whose engine would keep prompts for the next one", func(t *testing.T) {
		beside(t)
		spec := demoSpec(t)
		spec.Config.Service.Engine.Argv = slices.DeleteFunc(slices.Clone(spec.Config.Service.Engine.Argv), func(s string) bool { return s == "--no-cache-prompt" })
		if got, want := ending(t, newGuest(t), spec), "engine-unfit"; got != want {
			t.Errorf("the guest's last word: got %q, want %q", got, want)
		}
	})
	t.Run("the models' disks are changed about", func(t *testing.T) {
		beside(t)
		spec := withModels(t, nil, "other")
		spec.Models[0].Model, spec.Models[1].Model = spec.Models[1].Model, spec.Models[0].Model
		if got, want := ending(t, newGuest(t), spec), "volume-corrupt"; got != want {
			t.Errorf("the guest's last word: got %q, want %q", got, want)
		}
	})
	t.Run("the second model's disk is not there", func(t *testing.T) {
		beside(t)
		spec := withModels(t, nil, "other")
		spec.Shape.Devices = slices.DeleteFunc(slices.Clone(spec.Shape.Devices), func(d string) bool { return strings.Contains(d, "chrysalis-model-1") })
		if got, want := ending(t, newGuest(t), spec), "model-volume-failed"; got != want {
			t.Errorf("the guest's last word: got %q, want %q", got, want)
		}
	})
	t.Run("config of another layout", func(t *testing.T) {
		beside(t)
		spec := demoSpec(t)
		g := newGuest(t)
		// The disk is written by Start; the magic is what a guest sees first.
		spec.Shape.Devices = append([]string(nil), spec.Shape.Devices...)
		for i, d := range spec.Shape.Devices {
			if d == "virtio-blk-pci,drive=config,serial=chrysalis-config" {
				spec.Shape.Devices[i] = "virtio-blk-pci,drive=model,serial=chrysalis-config"
			}
			if d == "virtio-blk-pci,drive=model,serial=chrysalis-model" {
				spec.Shape.Devices[i] = "virtio-blk-pci,drive=config,serial=chrysalis-model"
			}
		}
		if got, want := ending(t, g, spec), "config-failed"; got != want {
			t.Errorf("the guest's last word: got %q, want %q", got, want)
		}
	})
}
