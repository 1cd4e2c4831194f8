package e2e

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"chrysalis/init/status"
	"chrysalis/measure/config"
	"chrysalis/measure/ton"
	"chrysalis/runtime/numbers"
	"chrysalis/tools/internal/guest"
)

const (
	question = "What is the capital of Norway?"
	oslo     = "The capital of Norway is Oslo."
	// tokensOfOslo is what the question and its answer cost with the tiny model's tokeniser: 14 and 16 tokens.
	tokensOfOslo = 30
	// maxStory is the most that any other answer can cost: the demo's context.
	maxStory = 1024
)

// TestServe follows one guest from its first boot to the attacks on what it keeps: what clients refuse of it, and that the count and the key go
// on after a power cut at each step of the first boot, in the middle of an answer, and after a change of price.
func TestServe(t *testing.T) {
	needsGuests(t)
	g, spec := newGuest(t), demoMachine(t)
	spec.Config.Service.Limits.Concurrent = 1           // wipe per-request wants it
	cutAt(t, g, spec, status.ModuleLock, status.Secret) // before the secret is sealed, and right after

	start(t, g, spec)
	c := newClient(t, g, spec)
	clean := c.verify(0)
	if clean.Verdict != "accepted" {
		t.Fatalf("a clean guest: got %+v, want it accepted", clean)
	}
	first := c.ask(question)
	if first.text != oslo || first.tokens != tokensOfOslo {
		t.Fatalf("first answer: got %+v, want %q and %d tokens", first, oslo, tokensOfOslo)
	}

	counts(t, g, spec, first)
	forgetsFreed(t, g, spec)
	refusals(t, c, spec, clean)

	// The power goes while an answer streams. Where the client has its receipt, that count stands; where it has none, the
	// answer costs nothing, or, when the cut came between the record and the last byte, itself once.
	counted, received := cutInAnswer(t, g.Cut, c)
	spec.Config.Service.Wipe = config.WipeClient // more than the client's policy asks for
	start(t, g, spec)
	second := c.ask(question)
	before := second.tokens - tokensOfOslo
	switch {
	case received && before != counted:
		t.Errorf("count after a power cut: got %d, want %d, of which the client has the receipt", before, counted)
	case !received && (before < first.tokens || before > first.tokens+maxStory):
		t.Errorf("count after a power cut: got %d, want %d, or one whole answer more", before, first.tokens)
	}
	if second.key != first.key {
		t.Errorf("claim key after a reboot: got %s, want %s", second.key, first.key)
	}
	if second.text != oslo {
		t.Errorf("answer after a power cut: got %q, want %q", second.text, oslo)
	}

	forgetsClient(t, g, spec)

	// A new price is another service under the same identity: visible to clients, and the key goes on.
	g.Cut()
	spec.Config.Service.Price.NanotonPerToken = 10
	spec.Config.Service.Wipe = config.WipeRequest
	start(t, g, spec)
	repriced := newClient(t, g, spec)
	third := repriced.ask(question)
	if third.key != first.key || third.tokens != second.tokens+tokensOfOslo {
		t.Errorf("answer after a change of price: got %+v, want key %s and %d tokens", third, first.key, second.tokens+tokensOfOslo)
	}
	if v := c.edited(`"max": 20`, `"max": 9`).verify(1); v.Check != "config.service.price.nanoton_per_token" {
		t.Errorf("a policy of a lower price: got refused by %q (%s), want by the price", v.Check, v.Reason)
	}
	wantCauses(t, "the demo's limits, price and wipe", explained(t, c.saved(0), demoMachine(t)), "config", "config", "config")

	// The same guest, sealed and by way of a proxy that is told nothing but what a client is told.
	if text := repriced.throughProxy(question); strings.TrimSpace(text) != strings.TrimSpace(oslo) {
		t.Errorf("through the proxy: got %q, want %q", text, oslo)
	}

	forgetsRequest(t, g, spec)

	if err := g.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	foreignState(t, g, spec)
}

// counts waits for the guest's numbers to say what was asked of it, and has the command line show them. Every line that the guest has written
// since its start is one of numbers.
func counts(t *testing.T, g guest.Guest, spec guest.Spec, first answer) {
	t.Helper()
	var v numbers.Values
	for deadline := time.Now().Add(bootLimit); v[numbers.Answered] == 0; time.Sleep(100 * time.Millisecond) {
		var err error
		if v, _, _, err = g.Numbers(); err != nil || time.Now().After(deadline) {
			t.Fatalf("numbers: got %v and error %v, want one answer", v, err)
		}
	}
	ends, made := time.Unix(int64(v[numbers.KeyEnds]), 0), time.Unix(int64(v[numbers.EvidenceMade]), 0)
	if v[numbers.Asked] != 1 || v[numbers.Answered] != 1 || v[numbers.Cut] != 0 || v[numbers.PromptTokens] > numbers.TokenStep || v[numbers.CompletionTokens] > numbers.TokenStep ||
		v[numbers.Challenges] == 0 || v[numbers.Receipts] != 1 || v[numbers.Contracts] != 1 || v[numbers.Places] != 1 || v[numbers.Computing] != 0 ||
		v[numbers.JournalBytes] < 60<<20 || v[numbers.ContractsLeft] < 100_000 ||
		time.Until(ends) < 10*time.Minute || time.Since(made) > 30*time.Minute {
		t.Errorf("numbers: got %s, want those of one answer of %d tokens", v.Line(), first.tokens)
	}
	written, err := os.ReadFile(g.Path(guest.NumbersFile))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(written)) {
		if _, err := numbers.Parse(strings.TrimSuffix(line, "\n")); err != nil && strings.HasSuffix(line, "\n") {
			t.Errorf("numbers' port: %v", err)
		}
	}
	if err := g.RememberSigners(t.Context(), spec); err != nil { // as up does
		t.Fatal(err)
	}
	chrysalis := filepath.Join(built, "bin/chrysalis")
	var said []byte
	for deadline := time.Now().Add(bootLimit); ; { // a greeting has four seconds, which an emulated guest beside others may not keep
		if said, err = exec.CommandContext(t.Context(), chrysalis, "status", "--dir", g.Dir).CombinedOutput(); err == nil || time.Now().After(deadline) {
			break
		}
	}
	if err != nil || !strings.Contains(string(said), "state    serving\n") || !strings.Contains(string(said), "number   answered 1\n") {
		t.Errorf("status: got %q (%v), want that it serves, and its numbers", said, err)
	}
	of := fmt.Sprintf(`{guest=%q} `, strings.TrimPrefix(filepath.Base(g.Dir), "guest-"))
	for deadline := time.Now().Add(bootLimit); ; {
		said, err = exec.CommandContext(t.Context(), chrysalis, "exporter", "--once").CombinedOutput()
		if strings.Contains(string(said), "chrysalis_up"+of+"1\n") || time.Now().After(deadline) {
			break
		}
	}
	for _, want := range []string{"chrysalis_up" + of + "1\n", "chrysalis_engine_up" + of + "1\n", "chrysalis_answered_total" + of + "1\n",
		fmt.Sprintf("chrysalis_earned_tokens%s%d\n", of, first.tokens)} {
		if !strings.Contains(string(said), want) {
			t.Errorf("exporter: got %q (%v), want %q in it", said, err, want)
		}
	}
}

// cutInAnswer asks for a long answer and takes the power away once its first words are there. On a fast machine the answer
// may be whole by then: received says whether the client has its receipt, and counted is the count in it.
func cutInAnswer(t *testing.T, cut func(), c client) (counted uint64, received bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bootLimit)
	defer cancel()
	dir := filepath.Join(t.TempDir(), "answer")
	cmd := exec.CommandContext(ctx, filepath.Join(built, "bin/chrysalis"), "chat", c.url, "--policy", c.policy, "--reach", patience, "--roots", c.roots, "--save",
		dir, "Tell me a story.")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(out).ReadByte(); err != nil {
		t.Fatalf("the answer did not begin: %v", err)
	}
	cut()
	err = cmd.Wait()
	t.Logf("cut in the middle of an answer: chat ends with %v", err)
	if err != nil {
		return 0, false
	}
	return c.charged(dir).tokens, true
}

// refusals has clients whose policies do not fit look at a clean guest, and holds it against what others would show.
func refusals(t *testing.T, c client, spec guest.Spec, clean verdict) {
	t.Helper()
	pcr9 := clean.got(t, "pcr-9")
	for _, tt := range []struct {
		name   string
		client client
		check  string
	}{
		{"another release", c.edited(pcr9, pcr9[1:]+"0"), "pcr-9"},
		{"another model", c.edited(spec.Config.Service.Model.Volume.Root.String(), spec.Config.Service.Engine.Volume.Root.String()), "config.service.model.volume"},
		{"another root contract", c.edited(spec.Config.Identity.RootContract.String(), "0:"+spec.Config.Service.Model.Volume.Root.String()),
			"config.identity.root_contract"},
		{"a later security version", c.edited(`"min_security_version": 1`, `"min_security_version": 2`), "security-version"},
		{"confidentiality not waived", c.edited(`"confidentiality"`, ``), "confidentiality"},
		{"another TPM maker", client{t, c.url, otherMaker(t), c.policy}, "certificate"},
	} {
		if v := tt.client.verify(1); v.Verdict != "rejected" || v.Check != tt.check {
			t.Errorf("%s: got %s by %q (%s), want rejected by %q", tt.name, v.Verdict, v.Check, v.Reason, tt.check)
		}
	}
	evidence := c.explains(spec)
	foreign := spec
	foreign.Config.Service.Engine.Volume = spec.Config.Service.Model.Volume
	wantCauses(t, "a guest with another engine", explained(t, evidence, foreign), "engine")
	for name, policy := range map[string]string{"empty": "", "empty object": "{}", "unknown field": `{"debug":true}`} {
		file := filepath.Join(t.TempDir(), "policy.json")
		if err := os.WriteFile(file, []byte(policy), 0o644); err != nil {
			t.Fatal(err)
		}
		if out, _, code := try(t, c.with(file).remote("verify")...); code == 0 {
			t.Errorf("%s policy: got exit code 0, want a refusal\n%s", name, out)
		}
	}
}

// foreignState backs up a guest that was stopped, and boots guests that the backup makes, each with one thing changed that an attacker could
// change. What they end over needs the TPM's secret and count, and the journal.
func foreignState(t *testing.T, g guest.Guest, spec guest.Spec) {
	saved := filepath.Join(t.TempDir(), "guest.backup")
	chrysalis(t, 0, "backup", "--dir", g.Dir, "-o", saved)
	flip := func(at ...int64) func(*testing.T, guest.Guest, *guest.Spec) {
		return func(t *testing.T, g guest.Guest, _ *guest.Spec) {
			journal, err := os.ReadFile(g.Path("journal.disk"))
			if err != nil {
				t.Fatal(err)
			}
			for _, at := range at {
				journal[at] ^= 1
			}
			if err := os.WriteFile(g.Path("journal.disk"), journal, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, tt := range []struct {
		name   string
		change func(*testing.T, guest.Guest, *guest.Spec)
		want   string
	}{
		{"another identity", func(_ *testing.T, _ guest.Guest, s *guest.Spec) {
			s.Config.Identity.PayoutOwner = ton.Address{Account: [32]byte(bytes.Repeat([]byte{0xee}, 32))}
		}, "unseal-refused"},
		{"another command line, and an initrd that does not mind", func(t *testing.T, _ guest.Guest, s *guest.Spec) { *s, _ = talkative(t, *s) }, "unseal-refused"},
		{"blank journal", func(t *testing.T, g guest.Guest, _ *guest.Spec) {
			info, err := os.Stat(g.Path("journal.disk"))
			if err == nil {
				err = errors.Join(os.Truncate(g.Path("journal.disk"), 0), os.Truncate(g.Path("journal.disk"), info.Size()))
			}
			if err != nil {
				t.Fatal(err)
			}
		}, "journal-rolled-back"},
		{"the journal's two anchors changed in one byte each", flip(100, 4096+100), "journal-foreign"},
		{"one record changed in the middle of the journal", flip(8192 + 1024 + 64), "journal-corrupt"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			beside(t)
			restored, changed := newGuest(t), onOwnPort(t, spec)
			changed.Shape.CPUs = 1 // the secret is bound to no register that knows of processors
			if err := os.Remove(restored.Dir); err != nil {
				t.Fatal(err)
			}
			chrysalis(t, 0, "restore", saved, "--dir", restored.Dir)
			tt.change(t, restored, &changed)
			if got := ending(t, restored, changed); got != tt.want {
				t.Errorf("the guest's last word: got %q, want %q", got, tt.want)
			}
		})
	}
}

// talkative returns the spec with a word more on the command line and an initrd that does not mind, and the file of that line.
func talkative(t *testing.T, spec guest.Spec) (guest.Spec, string) {
	t.Helper()
	cmdline, err := os.ReadFile(filepath.Join(spec.Release, "cmdline"))
	if err != nil {
		t.Fatal(err)
	}
	longer := string(cmdline) + " console=ttyS0"
	file := filepath.Join(t.TempDir(), "cmdline")
	if err := os.WriteFile(file, []byte(longer), 0o644); err != nil {
		t.Fatal(err)
	}
	return withRelease(t, relaxed(t, spec, longer), "cmdline", file), file
}

// TestTPMGuestOfAnother boots a guest that differs from the release in what its firmware measures, each thing in a register of its own. Text on
// the command line ends the guest whose initrd is the release's.
func TestTPMGuestOfAnother(t *testing.T) {
	needsGuests(t)
	spec := demoSpec(t)
	changed, cmdline := talkative(t, spec)
	t.Run("the release's initrd", func(t *testing.T) {
		beside(t)
		if got, want := ending(t, newGuest(t), onOwnPort(t, withRelease(t, spec, "cmdline", cmdline))), "cmdline-failed"; got != want {
			t.Errorf("another command line: the guest's last word: got %q, want %q", got, want)
		}
	})
	signers := filepath.Join(t.TempDir(), "OVMF_VARS.fd")
	if err := os.WriteFile(signers, storeWithSigner(t), 0o644); err != nil {
		t.Fatal(err)
	}
	changed = withRelease(t, changed, "OVMF_VARS.fd", signers)
	changed = withRelease(t, changed, "vmlinuz", otherKernel(t, filepath.Join(spec.Release, "vmlinuz")))
	c, spec := shows(t, spec, changed, extraTable(t)...)
	evidence := c.saved(1)
	wantCauses(t, "the demo", explained(t, evidence, spec), "secure-boot", "acpi-table", "kernel", "command-line", "initrd")
	for _, register := range []string{"pcr-1", "pcr-4", "pcr-7", "pcr-9"} {
		c = c.taught(register)
	}
	if v := c.verify(0); v.Verdict != "accepted" {
		t.Errorf("under a policy of its own registers: got %+v, want it accepted: nothing else differs", v)
	}
}

// extraTable has QEMU add an ACPI table of the host's.
func extraTable(t *testing.T) []string {
	t.Helper()
	table := filepath.Join(t.TempDir(), "aml")
	if err := os.WriteFile(table, []byte{0x08, 'E', 'V', 'I', 'L', 0x01}, 0o644); err != nil { // Name (EVIL, One)
		t.Fatal(err)
	}
	return []string{"-acpitable", "sig=SSDT,rev=2,oem_id=EVIL,oem_table_id=EVIL,data=" + table}
}

// otherMaker writes a maker's certificate that has nothing to do with the guest.
func otherMaker(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "maker.pem")
	if err := os.WriteFile(file, otherMakerPEM(t), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

// storeWithSigner is a variable store of firmware with certificates in KEK and db. It has no PK, so that no firmware enforces Secure Boot by it.
func storeWithSigner(t *testing.T) []byte {
	t.Helper()
	f, err := os.Open("../../measure/varstore/testdata/snakeoil.fd.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	store, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	// EDK2, MdeModulePkg/Include/Guid/VariableFormat.h: 60 bytes of header, of which the third is the state, then the name.
	const headerBytes, stateAt, added, deleted = 60, 2, 0x3f, 0x3d
	at := bytes.Index(store, []byte("P\x00K\x00\x00\x00")) - headerBytes
	if at < 0 || store[at+stateAt] != added {
		t.Fatal("the store has no PK")
	}
	store[at+stateAt] = deleted
	return store
}
