package handover_test

import (
	"testing"

	"chrysalis/attest/evidence"
	"chrysalis/attest/handover"
	"chrysalis/attest/release"
	"chrysalis/measure/config"
)

// TestJudgeGiver: from whom a secret is taken. The taker, image 3, judges by the keys in its own image.
func TestJudgeGiver(t *testing.T) {
	same := func(h *handover.Handover) { h.Giver.Registers = h.Taker.Registers }
	for _, tt := range []struct {
		name   string
		change func(testing.TB, evidence.Platform, *handover.Handover)
		want   string // of the refusal; "" lets it pass
	}{
		{"the release before, that two of three stand for", nil, ""},
		{"one of three", func(t testing.TB, p evidence.Platform, h *handover.Handover) { h.List = ask(t, p, 1).List }, "signatures"},
		{"a giver that the list does not name", func(t testing.TB, p evidence.Platform, h *handover.Handover) {
			h.Giver.Registers, _ = machine(p, 5)
		}, "none of the 1 releases of the list has the giver's registers"},
		{"a later release", func(_ testing.TB, _ evidence.Platform, h *handover.Handover) { h.Image.SecurityVersion = 1 }, "version 2, want less than the taker's, 1"},
		{"another of the same version", func(_ testing.TB, _ evidence.Platform, h *handover.Handover) { h.Image.SecurityVersion = 2 }, "version 2, want less"},
		{"listed at a lower version and at the taker's", func(t testing.TB, p evidence.Platform, h *handover.Handover) {
			_, a := machine(p, 2)
			b := a
			b.Name, b.SecurityVersion = "z", 3
			h.List = signed(t, []release.Release{a, b}, 1, 2)
		}, "version 3, want less"},
		{"no list", func(_ testing.TB, _ evidence.Platform, h *handover.Handover) { h.List = nil }, "no release list"},
		{"the taker's own image, no list and no keys", func(_ testing.TB, _ evidence.Platform, h *handover.Handover) {
			same(h)
			h.List, h.Image = nil, handover.Image{SecurityVersion: 3}
		}, ""},
		{"narrowed to equal registers", func(_ testing.TB, _ evidence.Platform, h *handover.Handover) { h.Narrowed = config.HandoverSame }, `"same-registers"`},
		{"narrowed to none", func(_ testing.TB, _ evidence.Platform, h *handover.Handover) {
			same(h)
			h.Narrowed = config.HandoverNone
		}, `"none"`},
		{"another identity", func(_ testing.TB, _ evidence.Platform, h *handover.Handover) { same(h); h.Giver.Identity[0]++ }, "identity is aa"},
		{"another platform", func(_ testing.TB, p evidence.Platform, h *handover.Handover) { same(h); h.Giver.Platform = 1 + p%3 }, "platform is"},
	} {
		for _, p := range evidence.Platforms() {
			h := ask(t, p, 1, 2)
			_, before := machine(p, 2)
			h.List, h.Image.SecurityVersion = signed(t, []release.Release{before}, 1, 2), 3
			if tt.change != nil {
				tt.change(t, p, &h)
			}
			judged(t, p, tt.name, h.JudgeGiver(), tt.want)
		}
	}
}
