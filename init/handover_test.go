package main

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"chrysalis/attest/evidence"
	"chrysalis/attest/handover"
	"chrysalis/attest/release"
	"chrysalis/init/internal/sealing"
	"chrysalis/measure/config"
	"chrysalis/measure/pubkey"
	"chrysalis/measure/register"
)

// mover is a vault under an image with these registers.
type mover struct {
	sealing.Mover
	image map[string][]byte
	fails error
}

func (m mover) Image() (map[string][]byte, error) { return m.image, m.fails }

// TestMayHandOver: what a host document asks for is held against the guest's own registers, image and identity.
func TestMayHandOver(t *testing.T) {
	measured, err := os.ReadFile(filepath.Join("..", "measure", "config", "testdata", "vectors", "measured.bin"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := config.Decode(measured)
	if err != nil {
		t.Fatal(err)
	}
	own, next := register.PCRs{0: {1}, 4: {1}, 9: {1}}, register.PCRs{0: {1}, 4: {2}, 9: {2}}
	list := func(seed byte) []byte {
		d := release.NewDocument(time.Now(), time.Hour)
		d.Releases = []release.Listed{{Manifest: register.Digest{1}, Rebuilds: []release.Envelope{},
			Values: release.Release{Name: "next", SecurityVersion: 2, VTPM: []register.PCRs{next}}}}
		unsigned, err := release.EncodeList(d)
		if err != nil {
			t.Fatal(err)
		}
		signed, err := release.SignList(unsigned, ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, 32)))
		if err != nil {
			t.Fatal(err)
		}
		return signed
	}
	signer := pubkey.Of(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32)))
	giver, err := handover.Measurement(evidence.VTPM, named(own))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		asked  config.HostHandover
		change func(*guest)
		want   string // of the refusal
		giver  register.Digest
	}{
		{"a successor", config.HostHandover{PCRs: next, List: list(1)}, nil, "", giver},
		{"its own image", config.HostHandover{PCRs: own}, nil, "", register.Digest{}},
		{"its own image, and registers that name none beside it", config.HostHandover{PCRs: own.With(register.PCRs{7: {7}})}, nil, "", register.Digest{}},
		{"the owner's image", config.HostHandover{PCRs: next, List: list(9)}, nil, "0 of its 1 signatures", giver},
		{"a register that is not asked for", config.HostHandover{PCRs: register.PCRs{0: {1}, 4: {2}}, List: list(1)}, nil, "pcr-9 has 0 bytes", giver},
		{"an image of the same version", config.HostHandover{PCRs: next, List: list(1)}, func(g *guest) { g.image.SecurityVersion = 2 }, "want more than the giver's, 2", giver},
		{"an image without keys", config.HostHandover{PCRs: next, List: list(1)}, func(g *guest) { g.image = handover.Image{SecurityVersion: 1} }, "names no key", giver},
		{"an identity that forbids it", config.HostHandover{PCRs: own}, func(g *guest) { g.config.Identity.Handover = config.HandoverNone }, `"none"`, giver},
		{"a vault that can't", config.HostHandover{PCRs: own}, func(g *guest) { g.vault = sealing.Ephemeral{} }, "tpm-pcr", giver},
		{"a TPM that does not answer", config.HostHandover{PCRs: own}, func(g *guest) { g.vault = mover{fails: errors.New("no answer")} }, "no answer", giver},
	} {
		g := &guest{measured: measured, config: m, vault: mover{image: named(own)}, image: handover.Image{SecurityVersion: 1, Signers: []pubkey.Ed25519{signer}, Threshold: 1}}
		if tt.change != nil {
			tt.change(g)
		}
		to, adds, err := g.mayHandOver(tt.asked)
		if tt.want != "" {
			if err == nil || to != nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: got error %v, want one with %q", tt.name, err, tt.want)
			}
			continue
		}
		if err != nil || to == nil || adds != tt.giver {
			t.Errorf("%s: got %v, which adds %s, and error %v, want it to pass and to add %s", tt.name, to, adds, err, tt.giver)
		}
	}
}
