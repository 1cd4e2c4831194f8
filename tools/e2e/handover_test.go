package e2e

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"chrysalis/attest/evidence"
	"chrysalis/attest/handover"
	"chrysalis/attest/release"
	"chrysalis/init/status"
	"chrysalis/measure"
	"chrysalis/measure/config"
	"chrysalis/measure/pubkey"
	"chrysalis/measure/register"
	"chrysalis/tools/internal/guest"
	"chrysalis/tools/internal/qemu"
)

// releaseKey is a key that signs lists, by its seed.
func releaseKey(seed byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
}

// published returns the spec over a release of that security version, which two of the keys 1 to 3 let another one follow. Its manifest
// says what its files measure.
func published(t *testing.T, spec guest.Spec, version uint32) (guest.Spec, measure.Manifest) {
	t.Helper()
	image := handover.Image{SecurityVersion: version, Threshold: 2}
	for seed := byte(1); seed <= 3; seed++ {
		image.Signers = append(image.Signers, pubkey.Of(releaseKey(seed)))
	}
	slices.SortFunc(image.Signers, func(a, b pubkey.Ed25519) int { return bytes.Compare(a[:], b[:]) })
	text, err := image.Encode()
	if err != nil {
		t.Fatal(err)
	}
	spec = repacked(t, spec, "image.json", string(text))
	data, err := os.ReadFile(filepath.Join(spec.Release, "manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := measure.DecodeManifest(data)
	if err != nil {
		t.Fatal(err)
	}
	m.SecurityVersion, m.PCRs = version, measuredPCRs(t, spec.Release)
	initrd, err := os.ReadFile(filepath.Join(spec.Release, "initrd"))
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(m.Files, func(f measure.File) bool { return f.Name == "initrd" })
	m.Files[i].Size, m.Files[i].SHA256 = int64(len(initrd)), sha256.Sum256(initrd)
	if data, err = measure.EncodeManifest(m); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "manifest.json")
	if err := os.WriteFile(file, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return withRelease(t, spec, "manifest.json", file), m
}

func measuredPCRs(t *testing.T, folder string) register.PCRs {
	t.Helper()
	read := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join(folder, name))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	pcrs, err := measure.DirectBoot{Firmware: read("OVMF_CODE.fd"), Kernel: read("vmlinuz"), Initrd: bytes.NewReader(read("initrd")),
		Cmdline: string(read("cmdline"))}.PCRs()
	if err != nil {
		t.Fatal(err)
	}
	return pcrs
}

// listOf returns a list of one release, at a security version, by the keys of seeds.
func listOf(t *testing.T, m measure.Manifest, version uint32, seeds ...byte) []byte {
	t.Helper()
	d := release.NewDocument(time.Now(), time.Hour)
	d.Releases = []release.Listed{{Manifest: register.Digest{1}, Rebuilds: []release.Envelope{},
		Values: release.Release{Name: "next", SecurityVersion: version, VTPM: []register.PCRs{m.PCRs}}}}
	list, err := release.EncodeList(d)
	if err != nil {
		t.Fatal(err)
	}
	for _, seed := range seeds {
		if list, err = release.SignList(list, releaseKey(seed)); err != nil {
			t.Fatal(err)
		}
	}
	return list
}

// counted has the guest answer, and returns what the receipt counts: answers before it, and tokens of the contract in all.
func (c client) counted() (number, tokens uint64) {
	c.t.Helper()
	out, _ := chrysalis(c.t, 0, c.remote("chat", "--json", "Say yes.")...)
	var a struct {
		Receipt struct {
			Sequence   uint64 `json:"sequence"`
			Cumulative uint64 `json:"cumulative"`
		} `json:"receipt"`
	}
	if err := json.Unmarshal([]byte(out), &a); err != nil || a.Receipt.Cumulative == 0 {
		c.t.Fatalf("chat --json printed %q (%v), want a receipt with its count", out, err)
	}
	return a.Receipt.Sequence, a.Receipt.Cumulative
}

// TestUpgrade goes from release N to N+1 with the same key and the same count, after attempts at what must not pass.
func TestUpgrade(t *testing.T) {
	needsGuests(t)
	g := newGuest(t)
	old, oldManifest := published(t, demoSpec(t), 2)
	next, nextManifest := published(t, old, 3)
	rogue, rogueManifest := published(t, old, 9) // the owner's own: any other image would do

	start(t, g, old)
	policyOf := func(spec guest.Spec, more ...string) string {
		shape := filepath.Join(t.TempDir(), "shape.json")
		text, err := measure.EncodeShape(spec.Shape)
		if err == nil {
			err = os.WriteFile(shape, text, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
		out := filepath.Join(t.TempDir(), "policy.json")
		chrysalis(t, 0, slices.Concat([]string{"policy", "--manifest", filepath.Join(spec.Release, "manifest.json"), "--engine", spec.Engine,
			"--model", spec.Model, "--shape", shape, "--tools-tree", filepath.Join(built, "tools-tree"), "-o", out}, more)...)
		return out
	}
	c := client{t, fmt.Sprintf("https://127.0.0.1:%d", old.Port), g.Roots(old.Shape), policyOf(old)}
	key := c.verify(0).ClaimKey
	number, tokens := c.counted()

	written := func(list []byte) string {
		file := filepath.Join(t.TempDir(), "list.json")
		if err := os.WriteFile(file, list, 0o644); err != nil {
			t.Fatal(err)
		}
		return file
	}
	upgrade := func(want int, release string, list []byte) string {
		t.Helper()
		_, stderr := chrysalis(t, want, "upgrade", "--dir", g.Dir, "--tools-tree", filepath.Join(built, "tools-tree"), "--wait", bootLimit.String(),
			"--release", release, "--list", written(list))
		return stderr
	}
	refused := []struct {
		name string
		to   guest.Spec
		list []byte
		want string
	}{
		{"a release that the owner signed", rogue, listOf(t, rogueManifest, 9, 8, 9), "0 of its 2 signatures"},
		{"one of three keys and the owner", rogue, listOf(t, rogueManifest, 9, 1, 9), "1 of its 2 signatures"},
		{"down", next, listOf(t, nextManifest, 1, 1, 2), "security version 1, want more"},
		{"another image than the list's", rogue, listOf(t, nextManifest, 3, 1, 2), "none of the 1 releases"},
	}
	for _, tt := range refused {
		if said := upgrade(1, tt.to.Release, tt.list); !strings.Contains(said, tt.want) {
			t.Errorf("%s: upgrade said %q, want %q", tt.name, said, tt.want)
		}
	}
	if !g.Running() {
		t.Fatal("a refused upgrade ended the guest")
	}

	// What the command line refuses the guest refuses, whoever writes its host document.
	ask := func(m measure.Manifest, list []byte) config.HostHandover {
		return config.HostHandover{PCRs: register.PCRs{0: m.PCRs[0], 4: m.PCRs[4], 9: m.PCRs[9]}, List: list}
	}
	// An answer that is under way ends, and nobody else gets in.
	answered := make(chan string, 1)
	go func() {
		out, _, _ := try(t, c.remote("chat", "--json", "Tell me of the rain.")...)
		answered <- out
	}()
	for connected := 0; connected == 0; time.Sleep(20 * time.Millisecond) {
		var err error
		if connected, err = qemu.Connections(g.Path("qmp.sock"), 8443); err != nil {
			t.Fatal(err)
		}
	}
	if left, err := g.Drain(t.Context(), old, bootLimit); err != nil || left != 0 {
		t.Errorf("draining: %d connections are left (%v), want none", left, err)
	}
	if said := <-answered; !strings.Contains(said, `"outcome": "complete"`) {
		t.Errorf("the answer that was under way: chat printed %q, want a complete one", said)
	}
	if conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", old.Port)); err == nil {
		conn.Close()
		t.Error("a drained guest's port takes connections, want none")
	}
	number++
	chrysalis(t, 0, "down", "--dir", g.Dir, "--tools-tree", filepath.Join(built, "tools-tree"), "--drain", "1m")
	asking := old
	for name, asked := range map[string]config.HostHandover{
		"a release that the owner signed": ask(rogueManifest, refused[0].list), "down": ask(nextManifest, refused[2].list),
	} {
		asking.Handover = asked
		if got := ending(t, g, asking); got != "handover-refused" {
			t.Errorf("%s: the guest's last word is %q, want handover-refused", name, got)
		}
	}

	// The power goes while the secret is handed over, at some moment of it; each moment is tested with the TPM alone. Then the whole is done again.
	list := listOf(t, nextManifest, 3, 1, 2)
	asking.Handover = ask(nextManifest, list)
	if err := g.Start(t.Context(), asking); err != nil {
		t.Fatal(err)
	}
	reaches(t, g, status.ModuleLock)
	g.Cut()
	said := upgrade(0, next.Release, list)
	t.Logf("upgrade said %s", said)

	if got := c.with(policyOf(next)).verify(1).Check; got != "held-by" {
		t.Errorf("a client that does not know the old release: %q refuses, want held-by", got)
	}
	c = c.with(policyOf(next, "--held-by", filepath.Join(old.Release, "manifest.json")))
	verdict := c.verify(0)
	if verdict.ClaimKey != key {
		t.Errorf("the new release signs with key %s, want the old one's, %s", verdict.ClaimKey, key)
	}
	if want := measurementOf(t, oldManifest); !slices.Equal(verdict.Held, []string{want}) {
		t.Errorf("the verdict says that %q held the secret, want %s", verdict.Held, want)
	}
	if n, all := c.counted(); n != number+1 || all <= tokens {
		t.Errorf("the new release's first receipt has number %d over %d tokens, want %d over more than %d", n, all, number+1, tokens)
	}
	if err := g.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := ending(t, g, old); got != "unseal-refused" {
		t.Errorf("the old release's last word is %q, want unseal-refused", got)
	}
}

// reaches waits until the guest's boot has done a step.
func reaches(t *testing.T, g guest.Guest, step status.Step) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bootLimit)
	defer cancel()
	reached := false
	if err := g.Wait(ctx, func(line status.Line) {
		if line.Step == step {
			reached = true
			cancel()
		}
	}); !reached {
		t.Fatal(err)
	}
}

// measurementOf is the name of a release's image, as evidence has it.
func measurementOf(t *testing.T, m measure.Manifest) string {
	t.Helper()
	registers := map[string][]byte{}
	for index, value := range m.PCRs {
		registers[register.PCR(index)] = value[:]
	}
	measurement, err := handover.Measurement(evidence.VTPM, registers)
	if err != nil {
		t.Fatal(err)
	}
	return measurement.String()
}
