package e2e

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"chrysalis/init/status"
	"chrysalis/measure/config"
	"chrysalis/tools/internal/guest"
)

// softwareTCB is what the software processor runs, as a policy's minimum.
const softwareTCB = "Milan=bootloader:4,tee:1,snp:22,microcode:213"

// TestSNP has the unmodified release serve as an SEV-SNP guest, twice: a key that the firmware derives seals the secret, so the second boot
// goes on counting. Then the host spoils an answer of the firmware, after which there is no evidence any more and the guest ends.
func TestSNP(t *testing.T) {
	needsGuests(t)
	g, spec := newGuest(t), snpSpec(t)
	cutAt(t, g, spec, status.ModuleLock, status.Secret) // before the secret is sealed, and right after
	start(t, g, spec)
	c := newClient(t, g, spec)
	clean := c.verify(0)
	if clean.Verdict != "accepted" || !slices.ContainsFunc(clean.Weaknesses, func(w string) bool { return strings.Contains(w, "not AMD's but software's") }) {
		t.Fatalf("a clean SEV-SNP guest: got %+v, want it accepted, and that its root is software", clean)
	}
	for _, name := range []string{"sev-snp.measurement", "sev-snp.report-data", "host-data", "statement-log-head", "sev-snp.smt", "sev-snp.ciphertext-hiding"} {
		if verdict := clean.verdictOf(t, name); verdict != "accepted" {
			t.Errorf("%s: got %s, want it accepted", name, verdict)
		}
	}
	policy, err := os.ReadFile(c.policy)
	if err != nil || !strings.Contains(strings.Join(strings.Fields(string(policy)), ""), `"waive":["acpi"]`) {
		t.Errorf("the policy waives more than the ACPI tables (error %v): %s", err, policy)
	}
	if v := c.everyPlatform().verify(0); v.Verdict != "accepted" {
		t.Errorf("under a policy of all platforms: got %+v, want it accepted", v)
	}
	if first := c.ask(question); first.text != oslo || first.tokens != tokensOfOslo {
		t.Errorf("first answer: got %+v, want %q and %d tokens", first, oslo, tokensOfOslo)
	}
	out, _ := chrysalis(t, 1, "verify", c.url, "--policy", c.policy, "--reach", patience, "--offline", "--json")
	var v verdict
	if err := json.Unmarshal([]byte(out), &v); err != nil || !strings.HasPrefix(v.Check, "sev-snp.") {
		t.Errorf("under AMD's roots: got refused by %q (error %v), want by the chain", v.Check, err)
	}
	digest := clean.got(t, "sev-snp.measurement")
	for _, tt := range []struct {
		name   string
		client client
		check  string
	}{
		{"another release", c.withDigest(t, digest), "sev-snp.measurement"},
		{"another config", c.edited(`"max": 20`, `"max": 19`), "config.service.price.nanoton_per_token"},
		{"a secret of one boot", c.edited(`"snp-derived"`, `"ephemeral"`), "config.identity.sealing"},
		{"a newer firmware", c.edited(`"microcode": 213`, `"microcode": 214`), "sev-snp.tcb-minimum"},
	} {
		if v := tt.client.verify(1); v.Check != tt.check {
			t.Errorf("%s: got refused by %q (%s), want by %q", tt.name, v.Check, v.Reason, tt.check)
		}
	}

	if err := g.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	spec = onOwnPort(t, spec)
	start(t, g, spec)
	c = newClient(t, g, spec)
	if second := c.ask(question); second.tokens != 2*tokensOfOslo {
		t.Errorf("after a boot: got %+v, want %d tokens in all: the sealed secret and the journal go on", second, 2*tokensOfOslo)
	}
	behave := func(way string) {
		t.Helper()
		if err := os.WriteFile(g.Path(guest.QuotesFile), []byte(way), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	behave("other") // what lies beside a report is the host's to choose
	if v := c.verify(1); v.Check != "sev-snp.chip" {
		t.Errorf("certificates of another chip: got refused by %q (%s), want by sev-snp.chip", v.Check, v.Reason)
	}
	// Busy is no refusal: the kernel asks again, every two seconds, and the client waits.
	behave("throttle")
	time.AfterFunc(3*time.Second, func() { behave("") })
	began := time.Now()
	if v := c.verify(0); v.Verdict != "accepted" || time.Since(began) < 2*time.Second {
		t.Errorf("a hypervisor that throttles: got %+v after %s, want it accepted, late", v, time.Since(began))
	}
	behave("garbage")
	for range 3 { // the first finds the answer spoilt, another that the channel is closed
		if g.Running() {
			try(t, c.remote("verify", "--json")...)
		}
	}
	for end := time.Now().Add(2 * time.Minute); g.Running() && time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
	}
	_, lines, err := g.State()
	if err != nil || len(lines) == 0 || lines[len(lines)-1].Code != status.PlatformLost {
		t.Errorf("after a spoilt answer: got %v (error %v), want the guest to end with %s", lines[max(0, len(lines)-3):], err, status.PlatformLost)
	}
}

// withDigest returns the client with a policy for another launch digest.
func (c client) withDigest(t *testing.T, shown string) client {
	t.Helper()
	policy, err := os.ReadFile(c.policy)
	if err != nil {
		t.Fatal(err)
	}
	prefix, _, _ := strings.Cut(shown, "…")
	at := strings.Index(string(policy), prefix)
	if at < 0 {
		t.Fatalf("the policy has no launch digest that begins with %s", prefix)
	}
	digit := "0"
	if policy[at] == '0' {
		digit = "1"
	}
	return c.edited(string(policy[at:at+16]), digit+string(policy[at+1:at+16]))
}

// TestSNPOfAnother boots a guest that its host can read, of another kernel, with a TPM of the host's beside it: it stays an SEV-SNP guest,
// and no policy accepts it.
func TestSNPOfAnother(t *testing.T) {
	needsGuests(t)
	spec := snpSpec(t)
	changed := withRelease(t, spec, "vmlinuz", otherKernel(t, filepath.Join(spec.Release, "vmlinuz")))
	changed.Double = []string{"-debug"}
	c, _ := shows(t, spec, changed, besideTPM(t)...)
	v := c.verify(1)
	if v.Check != "sev-snp.debug" {
		t.Errorf("got refused by %q (%s), want by sev-snp.debug", v.Check, v.Reason)
	}
	if got := v.verdictOf(t, "sev-snp.measurement"); got != "rejected" {
		t.Errorf("the launch digest of another kernel: got %s, want it rejected", got)
	}
	if got := v.got(t, "platform"); got != "sev-snp" {
		t.Errorf("with a TPM beside it the guest is of platform %s, want sev-snp", got)
	}
}

// TestSNPConfig gives an SEV-SNP guest a config that is not the one whose hash the hardware was given, and one that it can't keep.
func TestSNPConfig(t *testing.T) {
	needsGuests(t)
	foreignConfigs(t, snpSpec(t), func(measured []byte) []string {
		hash := config.SHA256(measured)
		return []string{"-host-data", hex.EncodeToString(hash[:])}
	}, ended{"COCOON's identity, which is a TD's", takesPublicIdentity, "identity-unfit"})
}
