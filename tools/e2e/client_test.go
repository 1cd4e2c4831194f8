package e2e

import (
	"bytes"
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"chrysalis/measure"
	"chrysalis/tools/internal/guest"
)

// chrysalis runs the command line as a user would, wants the exit code, and returns what was printed.
func chrysalis(t *testing.T, want int, args ...string) (stdout, stderr string) {
	t.Helper()
	stdout, stderr, code := try(t, args...)
	if code != want {
		t.Fatalf("chrysalis %s: got exit code %d, want %d\n%s%s", strings.Join(args, " "), code, want, stdout, stderr)
	}
	return stdout, stderr
}

func try(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, notes bytes.Buffer
	cmd := exec.CommandContext(t.Context(), filepath.Join(built, "bin/chrysalis"), args...)
	cmd.Stdout, cmd.Stderr = &out, &notes
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), notes.String(), cmd.ProcessState.ExitCode()
}

// client is somebody on this machine who talks to one guest under one policy.
type client struct {
	t      *testing.T
	url    string
	roots  string
	policy string
}

func newClient(t *testing.T, g guest.Guest, spec guest.Spec, more ...string) client {
	t.Helper()
	return client{t, fmt.Sprintf("https://127.0.0.1:%d", spec.Port), g.Roots(spec.Shape), makePolicy(t, spec, more...)}
}

// The roots of software GPUs and of their reference values, in the folder of a guest that has some.
const gpuRootFile, gpuRIMRootFile = "gpu-root.pem", "gpu-rim-root.pem"

// trust names the client's root: of a TPM's maker, or of software that plays a confidential machine; and those of software GPUs.
func (c client) trust() (flags []string) {
	dir := filepath.Dir(c.roots)
	if _, err := os.Stat(filepath.Join(dir, gpuRootFile)); err == nil {
		flags = []string{"--gpu-root", filepath.Join(dir, gpuRootFile), "--gpu-rim-root", filepath.Join(dir, gpuRIMRootFile)}
	}
	of := map[string]string{guest.TDXRootFile: "--tdx-root", guest.SNPRootFile: "--snp-root"}[filepath.Base(c.roots)]
	return append(flags, cmp.Or(of, "--roots"), c.roots)
}

// patience is how long a client waits for a guest's first word: one that is emulated beside others may take its time.
const patience = "1m"

// remote is a verb that talks to the guest, with the client's policy and root.
func (c client) remote(verb string, more ...string) []string {
	return slices.Concat([]string{verb, c.url, "--policy", c.policy, "--reach", patience}, c.trust(), more)
}

// makePolicy writes the strict policy for the spec's release, config and shape, and returns its file. Nothing in it comes
// from a boot.
func makePolicy(t *testing.T, spec guest.Spec, more ...string) string {
	t.Helper()
	shape, err := measure.EncodeShape(spec.Shape)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "shape.json")
	if err := os.WriteFile(file, shape, 0o644); err != nil {
		t.Fatal(err)
	}
	return makePolicyOf(t, spec, append([]string{"--shape", file, "--tools-tree", filepath.Join(built, "tools-tree")}, more...)...)
}

// makePolicyOf writes the strict policy for the spec's release and config with other arguments for the machine.
func makePolicyOf(t *testing.T, spec guest.Spec, machine ...string) string {
	t.Helper()
	dir := t.TempDir()
	document, err := json.Marshal(map[string]any{"identity": spec.Config.Identity, "service": spec.Config.Service})
	if err != nil {
		t.Fatal(err)
	}
	configFile, out := filepath.Join(dir, "config.json"), filepath.Join(dir, "policy.json")
	if err := os.WriteFile(configFile, document, 0o644); err != nil {
		t.Fatal(err)
	}
	if spec.Shape.Platform == measure.TDX {
		machine = append(machine, "--min-tcb-evaluation", "17") // what the software TDX says is today's
	}
	if spec.Shape.Platform == measure.SEVSNP {
		machine = append(machine, "--min-tcb", softwareTCB, "--waive", "acpi") // nothing on SEV-SNP measures the tables
	}
	chrysalis(t, 0, append([]string{"policy", "--manifest", filepath.Join(built, "release/manifest.json"), "--config", configFile, "-o",
		out}, machine...)...)
	return out
}

// everyPlatform is the client under a policy for all platforms that was written in one go, over the demo's machines.
func (c client) everyPlatform() client {
	c.t.Helper()
	out := filepath.Join(c.t.TempDir(), "policy.json")
	chrysalis(c.t, 0, "policy", "--manifest", filepath.Join(built, "release/manifest.json"), "--engine", filepath.Join(built, "volumes/engine.img"),
		"--model", filepath.Join(built, "volumes/model.img"), "--platform", "all", "--accelerator", "tcg", "--tools-tree", filepath.Join(built, "tools-tree"),
		"--min-tcb-evaluation", "17", "--min-tcb", softwareTCB, "--waive", "acpi", "-o", out)
	return c.with(out)
}

// with returns the client under another policy.
func (c client) with(policy string) client {
	c.policy = policy
	return c
}

// edited returns the client under its policy after one replacement in its text, which must occur.
func (c client) edited(old, new string) client {
	c.t.Helper()
	text, err := os.ReadFile(c.policy)
	if err != nil {
		c.t.Fatal(err)
	}
	if !strings.Contains(string(text), old) {
		c.t.Fatalf("policy does not hold %q", old)
	}
	out := filepath.Join(c.t.TempDir(), "policy.json")
	if err := os.WriteFile(out, []byte(strings.ReplaceAll(string(text), old, new)), 0o644); err != nil {
		c.t.Fatal(err)
	}
	return c.with(out)
}

// verdict is what verify --json prints.
type verdict struct {
	Verdict    string   `json:"verdict"`
	Check      string   `json:"check"`
	Reason     string   `json:"reason"`
	ClaimKey   string   `json:"claim_key"`
	ImageHash  string   `json:"image_hash"`
	Held       []string `json:"held"`
	Weaknesses []string `json:"weaknesses"`
	Checks     []struct{ Name, Got, Want, Verdict string }
}

func (c client) verify(want int) verdict {
	c.t.Helper()
	out, _ := chrysalis(c.t, want, c.remote("verify", "--json")...)
	var v verdict
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		c.t.Fatalf("verify --json printed %q: %v", out, err)
	}
	return v
}

// got returns what the named check found.
func (v verdict) got(t *testing.T, name string) string {
	t.Helper()
	for _, check := range v.Checks {
		if check.Name == name {
			return check.Got
		}
	}
	t.Fatalf("verify made no check %q", name)
	return ""
}

// answer is what chat leaves of one answer, with the charge judged by claim verify.
type answer struct {
	text   string
	tokens uint64 // cumulative
	key    string
}

func (c client) ask(question string) answer {
	c.t.Helper()
	dir := filepath.Join(c.t.TempDir(), "answer")
	chrysalis(c.t, 0, c.remote("chat", "--save", dir, question)...)
	return c.charged(dir)
}

// charged reads what chat saved, and has the charge judged alone.
func (c client) charged(dir string) answer {
	c.t.Helper()
	read := func(name string) string {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			c.t.Fatal(err)
		}
		return strings.TrimSpace(string(data))
	}
	a := answer{text: read("answer.txt"), key: read("claim-key.hex")}
	out, _ := chrysalis(c.t, 0, "claim", "verify", "--body", filepath.Join(dir, "charge.boc"), "--pubkey", a.key, "--contract",
		read("contract.txt"), "--json")
	var claim struct {
		Verdict string `json:"verdict"`
		Op      string `json:"op"`
		Tokens  uint64 `json:"tokens"`
	}
	if err := json.Unmarshal([]byte(out), &claim); err != nil {
		c.t.Fatalf("claim verify --json printed %q: %v", out, err)
	}
	if claim.Verdict != "accepted" || claim.Op != "client-charge" {
		c.t.Fatalf("claim: got %+v, want an accepted client-charge", claim)
	}
	a.tokens = claim.Tokens
	return a
}

// saved verifies, wants the exit code, and returns a file with the evidence that the guest showed.
func (c client) saved(want int) string {
	c.t.Helper()
	file := filepath.Join(c.t.TempDir(), "evidence.bin")
	if _, notes := chrysalis(c.t, want, c.remote("verify", "--save-evidence", file)...); want == 1 &&
		!strings.Contains(notes, "chrysalis explain") {
		c.t.Errorf("the refusal of a register says %q, want a hint at explain", notes)
	}
	return file
}

// explains wants the guest's evidence explained by nothing against its own spec, and by the model against another's. It returns the evidence.
func (c client) explains(spec guest.Spec) (evidence string) {
	c.t.Helper()
	evidence = c.saved(0)
	wantCauses(c.t, "itself", explained(c.t, evidence, spec, "--policy", c.policy))
	spec.Config.Service.Model.Volume = spec.Config.Service.Engine.Volume
	wantCauses(c.t, "a guest with another model", explained(c.t, evidence, spec), "model")
	return evidence
}

// explained has evidence compared with what a guest of the spec would show, and returns the kinds of causes.
func explained(t *testing.T, evidence string, spec guest.Spec, extra ...string) (kinds []string) {
	t.Helper()
	dir := t.TempDir()
	shape, err := measure.EncodeShape(spec.Shape)
	if err != nil {
		t.Fatal(err)
	}
	document, err := json.Marshal(map[string]any{"identity": spec.Config.Identity, "service": spec.Config.Service})
	if err != nil {
		t.Fatal(err)
	}
	shapeFile, configFile := filepath.Join(dir, "shape.json"), filepath.Join(dir, "config.json")
	if err := errors.Join(os.WriteFile(shapeFile, shape, 0o644), os.WriteFile(configFile, document, 0o644)); err != nil {
		t.Fatal(err)
	}
	out, notes, code := try(t, append([]string{"explain", "--evidence", evidence, "--manifest",
		filepath.Join(built, "release/manifest.json"), "--config", configFile, "--json",
		"--shape", shapeFile, "--tools-tree", filepath.Join(built, "tools-tree")}, extra...)...)
	var report struct {
		Causes []struct{ Cause, Says string }
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatalf("explain --json printed %q, %q: %v", out, notes, err)
	}
	for _, c := range report.Causes {
		t.Logf("%s: %s", c.Cause, c.Says)
		kinds = append(kinds, c.Cause)
	}
	if want := min(1, len(kinds)); code != want {
		t.Errorf("explain ended with %d over %q, want %d", code, kinds, want)
	}
	return kinds
}

// otherMakerPEM is a CA of this test's own.
func otherMakerPEM(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "another maker"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
