package e2e

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

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

// TestServe follows one guest over four boots: the count and the key go on after a power cut, after a cut in the middle of
// an answer, and after a change of price.
func TestServe(t *testing.T) {
	needsGuests(t)
	g, spec := newGuest(t), demoSpec(t)

	start(t, g, spec)
	c := newClient(t, g, spec)
	if v := c.verify(0); v.Verdict != "accepted" {
		t.Fatalf("a clean guest: got %+v, want it accepted", v)
	}
	first := c.ask(question)
	if first.text != oslo || first.tokens != tokensOfOslo {
		t.Fatalf("first answer: got %+v, want %q and %d tokens", first, oslo, tokensOfOslo)
	}

	counts(t, g, spec, first)

	// The power goes while an answer streams. Where the client has its receipt, that count stands; where it has none, the
	// answer costs nothing, or, when the cut came between the record and the last byte, itself once.
	counted, received := cutInAnswer(t, g.Cut, c)
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

	// A new price is another service under the same identity: visible to clients, and the key goes on.
	g.Cut()
	spec.Config.Service.Price.NanotonPerToken = 10
	start(t, g, spec)
	repriced := newClient(t, g, spec)
	third := repriced.ask(question)
	if third.key != first.key || third.tokens != second.tokens+tokensOfOslo {
		t.Errorf("answer after a change of price: got %+v, want key %s and %d tokens", third, first.key, second.tokens+tokensOfOslo)
	}
	if v := c.edited(`"max": 20`, `"max": 9`).verify(1); v.Check != "config.service.price.nanoton_per_token" {
		t.Errorf("a policy of a lower price: got refused by %q (%s), want by the price", v.Check, v.Reason)
	}
	wantCauses(t, "the demo's price", explained(t, c.saved(0), demoSpec(t)), "config")

	// The same guest, sealed and by way of a proxy that is told nothing but what a client is told.
	if text := repriced.throughProxy(question); strings.TrimSpace(text) != strings.TrimSpace(oslo) {
		t.Errorf("through the proxy: got %q, want %q", text, oslo)
	}

	// One record changed in the middle of the journal.
	g.Cut()
	journal, err := os.ReadFile(g.Path("journal.disk"))
	if err != nil {
		t.Fatal(err)
	}
	ring := journal[8192:]
	ring[1024+64] ^= 1
	if err := os.WriteFile(g.Path("journal.disk"), journal, 0o644); err != nil {
		t.Fatal(err)
	}
	if got, want := ending(t, g, spec), "journal-corrupt"; got != want {
		t.Errorf("a changed record: the guest's last word: got %q, want %q", got, want)
	}
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
		v[numbers.Challenges] == 0 || v[numbers.Receipts] != 1 || v[numbers.Contracts] != 1 || v[numbers.Places] != 2 || v[numbers.Computing] != 0 ||
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

// TestVerifyRefuses looks at one clean guest under policies that do not fit, and at guests that differ in one thing.
func TestVerifyRefuses(t *testing.T) {
	needsGuests(t)
	g, spec := newGuest(t), demoSpec(t)
	start(t, g, spec)
	c := newClient(t, g, spec)
	clean := c.verify(0)
	pcr9 := clean.got(t, "pcr-9")

	for _, tt := range []struct {
		name   string
		client client
		code   int
		check  string
	}{
		{"another release", c.edited(pcr9, pcr9[1:]+"0"), 1, "pcr-9"},
		{"another model", c.edited(spec.Config.Service.Model.Volume.Root.String(), spec.Config.Service.Engine.Volume.Root.String()), 1,
			"config.service.model.volume"},
		{"another root contract", c.edited(spec.Config.Identity.RootContract.String(), "0:"+spec.Config.Service.Model.Volume.Root.String()), 1,
			"config.identity.root_contract"},
		{"a later security version", c.edited(`"min_security_version": 1`, `"min_security_version": 2`), 1, "security-version"},
		{"confidentiality not waived", c.edited(`"confidentiality"`, ``), 1, "confidentiality"},
		{"another TPM maker", client{t, c.url, otherMaker(t), c.policy}, 1, "certificate"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.client.t = t
			if v := tt.client.verify(tt.code); v.Verdict != "rejected" || v.Check != tt.check {
				t.Errorf("got %s by %q (%s), want rejected by %q", v.Verdict, v.Check, v.Reason, tt.check)
			}
		})
	}
	t.Run("explained", func(t *testing.T) {
		c.t = t
		evidence := c.saved(0)
		wantCauses(t, "itself", explained(t, evidence, spec, "--policy", c.policy))
		foreign := spec
		foreign.Config.Service.Model.Volume = spec.Config.Service.Engine.Volume
		wantCauses(t, "a guest with another model", explained(t, evidence, foreign), "model")
		foreign = spec
		foreign.Config.Service.Engine.Volume = spec.Config.Service.Model.Volume
		wantCauses(t, "a guest with another engine", explained(t, evidence, foreign), "engine")
	})
	for name, policy := range map[string]string{"empty": "", "empty object": "{}", "unknown field": `{"debug":true}`} {
		t.Run(name+" policy", func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "policy.json")
			if err := os.WriteFile(file, []byte(policy), 0o644); err != nil {
				t.Fatal(err)
			}
			if out, _, code := try(t, c.with(file).remote("verify")...); code == 0 {
				t.Errorf("got exit code 0, want a refusal\n%s", out)
			}
		})
	}

	// The policy's PCR 1 is computed, as is every other register. One more ACPI table, and it refuses.
	g.Cut()
	table := filepath.Join(t.TempDir(), "aml")
	if err := os.WriteFile(table, []byte{0x08, 'E', 'V', 'I', 'L', 0x01}, 0o644); err != nil { // Name (EVIL, One)
		t.Fatal(err)
	}
	start(t, g, spec, "-acpitable", "sig=SSDT,rev=2,oem_id=EVIL,oem_table_id=EVIL,data="+table)
	t.Run("an extra ACPI table", func(t *testing.T) {
		c.t = t
		if v := c.verify(1); v.Check != "pcr-1" {
			t.Errorf("got refused by %q (%s), want by pcr-1", v.Check, v.Reason)
		}
		wantCauses(t, "the demo", explained(t, c.saved(1), spec), "acpi-table")
	})
	g.Cut()

	// Text on the command line ends the guest. One whose initrd does not mind boots, with a fresh TPM since the old one keeps
	// its secret from it.
	cmdline, err := os.ReadFile(filepath.Join(spec.Release, "cmdline"))
	if err != nil {
		t.Fatal(err)
	}
	longer := filepath.Join(t.TempDir(), "cmdline")
	if err := os.WriteFile(longer, []byte(string(cmdline)+" console=ttyS0"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got, want := ending(t, g, withRelease(t, spec, "cmdline", longer)), "cmdline-failed"; got != want {
		t.Errorf("another command line: the guest's last word: got %q, want %q", got, want)
	}
	changed := withRelease(t, relaxed(t, spec, string(cmdline)+" console=ttyS0"), "cmdline", longer)
	if got, want := ending(t, g, changed), "unseal-refused"; got != want {
		t.Errorf("another command line over the same TPM: the guest's last word: got %q, want %q", got, want)
	}
	other := newGuest(t)
	start(t, other, changed)
	t.Run("text on the command line", func(t *testing.T) {
		c := newClient(t, other, spec)
		if v := c.verify(1); v.Check != "pcr-9" {
			t.Errorf("got refused by %q (%s), want by pcr-9", v.Check, v.Reason)
		}
		wantCauses(t, "the demo", explained(t, c.saved(1), spec), "command-line", "initrd")
	})
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
