package main

import (
	"bytes"
	"crypto/ed25519"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"chrysalis/attest"
	"chrysalis/attest/attesttest"
	"chrysalis/attest/release"
	"chrysalis/measure"
	"chrysalis/measure/config"
	"chrysalis/measure/pubkey"
	"chrysalis/measure/register"
	"chrysalis/runtime/client/clienttest"
)

// softwareGuest is a guest whose prompt says what goes wrong with its answer.
type softwareGuest struct{ *clienttest.Guest }

func newSoftwareGuest(t *testing.T, measured []byte) softwareGuest {
	t.Helper()
	g := softwareGuest{clienttest.New(t, measured)}
	g.Spoil = func(body []byte, r *clienttest.Reply) {
		for words, spoil := range map[string]func(){
			"too long":          func() { r.Refusal = "the prompt is \x1b[31mtoo long" },
			"wrong receipt key": func() { r.ReceiptKey = r.ClaimKey },
			"wrong claim key":   func() { r.ClaimKey = r.ReceiptKey },
			"wrong request":     func() { r.Receipt.Request[0]++ },
			"wrong model":       func() { r.Receipt.Model[0]++ },
			"dear":              func() { r.Receipt.Price.NanotonPerToken++ },
			"more charged":      func() { r.Charge.Tokens++ },
			"cut":               func() { r.Events = func(events []string) []string { return events[:len(events)-2] } },
		} {
			if bytes.Contains(body, []byte(words)) {
				spoil()
			}
		}
	}
	return g
}

// cardKey signs the card of the software guest's model.
var cardKey = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))

// cards is a catalogue with the card of the guest's model and one of another, by cardKey, and a stranger's of the guest's model.
func (g softwareGuest) cards() ([]byte, error) {
	var k release.Catalogue
	for name, of := range map[string]struct {
		volume config.Volume
		key    ed25519.PrivateKey
	}{
		"tiny": {g.Rules().Config.Model.Volumes[0], cardKey}, "other": {config.Volume{Root: register.Digest{9}, Blocks: 9}, cardKey},
		"stranger": {g.Rules().Config.Model.Volumes[0], ed25519.NewKeyFromSeed(bytes.Repeat([]byte{8}, ed25519.SeedSize))},
	} {
		c := release.Card{Format: release.CardFormat, Name: name, Revision: "v1", Licence: "MIT", Quantisation: "F16", Root: of.volume.Root, Blocks: of.volume.Blocks,
			Size: 1, Files: []release.CardFile{{Name: "tiny.gguf", Size: 1, SHA256: register.Digest{1}}}}
		signed, err := release.EncodeCard(c)
		if err == nil {
			signed, err = release.SignCard(signed, of.key)
		}
		if err == nil {
			err = k.Add(signed)
		}
		if err != nil {
			return nil, err
		}
	}
	return k.Bytes(), nil
}

// files writes what a client of the guest has: its policy, spoiled ones, and the roots.
func (g softwareGuest) files(dir string) error {
	rules := g.Rules()
	good, err := json.Marshal(rules)
	if err != nil {
		return err
	}
	rules.Releases[0].Name = "other"
	for index := range rules.Releases[0].VTPM[0] {
		rules.Releases[0].VTPM[0][index] = register.Digest{1}
	}
	other, err := json.Marshal(rules)
	if err != nil {
		return err
	}
	rules = g.Rules()
	rules.Config.Model.Volumes = []config.Volume{{Root: register.Digest{9}, Blocks: 9}}
	model, err := json.Marshal(rules)
	if err != nil {
		return err
	}
	listed, list, err := g.listed()
	if err != nil {
		return err
	}
	manifest, err := g.manifest()
	if err != nil {
		return err
	}
	cards, err := g.cards()
	if err != nil {
		return err
	}
	example, err := os.ReadFile("../../measure/testdata/manifest.json")
	if err != nil {
		return err
	}
	for _, folder := range []string{"published", "other"} {
		if err := os.MkdirAll(filepath.Join(dir, folder), 0o755); err != nil {
			return err
		}
	}
	for name, content := range map[string][]byte{
		"cards.jsonl": cards, "other.jsonl": cards[:bytes.IndexByte(cards, '\n')+1], "guest-manifest.json": manifest, "published/manifest.json": manifest, "other/manifest.json": example,
		"policy.json": good, "listed-policy.json": listed, "list.json": list, "other-release.json": other, "other-model.json": model,
		"unknown-field.json": []byte(strings.Replace(string(good), `{"version"`, `{"debug":true,"version"`, 1)),
		"roots.pem":          pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: g.Hardware.(*attesttest.Guest).Root.Raw}),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// changed writes evidence whose statement is not the one that was quoted.
func (g softwareGuest) changed(file string) error {
	e := g.Evidence(attest.Challenge{Nonce: [32]byte{1}})
	e.Statement.NotAfter++
	encoded, err := e.Encode()
	if err != nil {
		return err
	}
	return os.WriteFile(file, encoded, 0o644)
}

// manifest describes a release with the guest's registers, whose files nobody has.
func (g softwareGuest) manifest() ([]byte, error) {
	example, err := os.ReadFile("../../measure/testdata/manifest.json")
	if err != nil {
		return nil, err
	}
	m, err := measure.DecodeManifest(example)
	if err != nil {
		return nil, err
	}
	m.PCRs = g.Rules().Releases[0].VTPM[0]
	return measure.EncodeManifest(m)
}

// listed returns a policy that asks for a signed list of releases, and such a list.
func (g softwareGuest) listed() (policy, list []byte, err error) {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32))
	rules := g.Rules()
	d := release.NewDocument(time.Now().Add(-time.Minute), time.Hour)
	d.Releases = []release.Listed{{Manifest: register.Digest{1}, Values: rules.Releases[0], Rebuilds: []release.Envelope{}}}
	if list, err = release.EncodeList(d); err == nil {
		list, err = release.SignList(list, key)
	}
	if err != nil {
		return nil, nil, err
	}
	rules.Releases = nil
	rules.ReleaseList = attest.ListRules{Signers: []pubkey.Ed25519{pubkey.Of(key)}, Threshold: 1,
		MaxAge: "1h"}
	policy, err = json.Marshal(rules)
	return policy, list, err
}
