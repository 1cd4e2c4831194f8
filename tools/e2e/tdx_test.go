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
	"chrysalis/tools/internal/qemu"
)

// TestTD has the unmodified release serve as a TD: firmware and kernel extend RTMR0 to RTMR2 from the reset vector on, init RTMR3, and a
// policy that waives nothing accepts what is computed from files. Then its quoting service does what one can do.
func TestTD(t *testing.T) {
	needsGuests(t)
	g, spec := newGuest(t), tdSpec(t)
	loose := spec.Shape
	spec.Shape = guest.StrictShape(spec.Shape) // as libvirt starts it
	start(t, g, spec)
	c := newClient(t, g, spec)
	clean := c.verify(0)
	if clean.Verdict != "accepted" || !slices.ContainsFunc(clean.Weaknesses, func(w string) bool { return strings.Contains(w, "not Intel's but software's") }) {
		t.Fatalf("a clean TD: got %+v, want it accepted, and that its root is software", clean)
	}
	for _, name := range []string{"mrtd", "rtmr-0", "rtmr-1", "rtmr-2", "rtmr-3", "mr-config-id", "boot-log"} {
		if verdict := clean.verdictOf(t, name); verdict != "accepted" {
			t.Errorf("%s: got %s, want it accepted", name, verdict)
		}
	}
	if got, want := clean.got(t, "boot-log"), "23 events"; got != want {
		t.Errorf("the firmware's log: got %s, want %s", got, want)
	}
	policy, err := os.ReadFile(c.policy)
	if err != nil || !strings.Contains(string(policy), `"waive": []`) {
		t.Errorf("the policy waives something (error %v): %s", err, policy)
	}
	if first := c.ask(question); first.text != oslo || first.tokens != tokensOfOslo {
		t.Errorf("first answer: got %+v, want %q and %d tokens", first, oslo, tokensOfOslo)
	}
	evidence := c.explains(spec)
	foreign := spec
	foreign.Shape = loose
	wantCauses(t, "a TD whose boot order is not strict", explained(t, evidence, foreign), "boot-order")

	// Nobody takes this root for Intel's.
	out, _ := chrysalis(t, 1, "verify", c.url, "--policy", c.policy, "--reach", patience, "--offline", "--json")
	var v verdict
	if err := json.Unmarshal([]byte(out), &v); err != nil || v.Check != "tdx.pck-chain" {
		t.Errorf("under Intel's root: got refused by %q (error %v), want by tdx.pck-chain", v.Check, err)
	}
	rtmr2 := clean.got(t, "rtmr-2")
	for _, tt := range []struct {
		name   string
		client client
		check  string
	}{
		{"another release", c.edited(rtmr2, rtmr2[1:]+"0"), "rtmr-2"},
		{"another config", c.edited(`"max": 20`, `"max": 19`), "config.service.price.nanoton_per_token"},
		{"a boot order that is not strict, in a policy of all platforms", c.everyPlatform(), "rtmr-0"},
		{"a sealed secret", c.edited(`"ephemeral"`, `"tpm-pcr"`), "config.identity.sealing"},
		{"no stranding", c.edited(`"accepted"`, ``), "config.identity.stranding"},
		{"newer collateral", c.edited(`"min_tcb_evaluation": 17`, `"min_tcb_evaluation": 18`), "tdx.tcb-info-evaluation"},
	} {
		if v := tt.client.verify(1); v.Check != tt.check {
			t.Errorf("%s: got refused by %q (%s), want by %q", tt.name, v.Check, v.Reason, tt.check)
		}
	}
	quotingService(t, g, c)
}

// TestPublicTD has a TD take COCOON's public identity: its image hash is computed from the release's files and its shape, whatever its config,
// and a policy that says so judges it whole.
func TestPublicTD(t *testing.T) {
	needsGuests(t)
	g, spec := newGuest(t), tdSpec(t)
	spec.Config.Identity.Cocoon = true
	start(t, g, spec)
	c := newClient(t, g, spec)
	clean := c.verify(0)
	if clean.Verdict != "accepted" || !slices.ContainsFunc(clean.Weaknesses, func(w string) bool { return strings.HasPrefix(w, "identity.cocoon: ") }) {
		t.Fatalf("got %+v, want it accepted, and what is weaker", clean)
	}
	if got, want := clean.got(t, "mr-config-id"), strings.Repeat("0", 96); got != want {
		t.Errorf("MRCONFIGID: got %s, want zeros", got)
	}
	in := func(name string) string { return filepath.Join(spec.Release, name) }
	hash := func(args ...string) (registers struct {
		RTMR3     string `json:"rtmr3"`
		ImageHash string `json:"image_hash"`
	}) {
		out, _ := chrysalis(t, 0, slices.Concat([]string{"measure", "tdx", "--firmware", in("OVMF.inteltdx.fd"), "--kernel", in("vmlinuz"), "--initrd", in("initrd"),
			"--cmdline", "@" + in("cmdline"), "--shape", g.Path(guest.ShapeFile), "--tools-tree", filepath.Join(built, "tools-tree"), "--json"}, args)...)
		if err := json.Unmarshal([]byte(out), &registers); err != nil {
			t.Fatal(err)
		}
		return registers
	}
	own, bare := hash("--config", g.Path("config.disk")), hash("--spec-tree", "6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321") // git's empty tree
	if clean.ImageHash == "" || clean.ImageHash != own.ImageHash || own != bare || clean.got(t, "rtmr-3") != own.RTMR3 {
		t.Errorf("image hash %s and RTMR3 %s, want those of the files under its config, %+v, and under none, %+v", clean.ImageHash, clean.got(t, "rtmr-3"), own, bare)
	}
	if first := c.ask(question); first.text != oslo || first.tokens != tokensOfOslo {
		t.Errorf("first answer: got %+v, want %q and %d tokens", first, oslo, tokensOfOslo)
	}
	for _, tt := range []struct {
		name   string
		client client
		check  string
	}{
		{"a policy that does not say so", c.edited(`"cocoon": true,`, ``), "config.identity.cocoon"},
		{"another config", c.edited(`"max": 20`, `"max": 19`), "config.service.price.nanoton_per_token"},
	} {
		if v := tt.client.verify(1); v.Check != tt.check {
			t.Errorf("%s: got refused by %q (%s), want by %q", tt.name, v.Check, v.Reason, tt.check)
		}
	}
	evidence := c.explains(spec)
	foreign := spec
	foreign.Config.Identity.Cocoon = false
	wantCauses(t, "a TD without that identity", explained(t, evidence, foreign), "config")
}

// TestQuotesOverVsock has a TD ask the host's quoting service itself, over a vsock that the double plays in the kernel's place. The registers
// are those of a machine with the kernel's. Its engine is the probe, which reaches neither the vsock nor the TD.
func TestQuotesOverVsock(t *testing.T) {
	needsGuests(t)
	g, spec := newGuest(t), probing(t, tdSpec(t))
	spec.Shape, spec.Hardware.QuotingPort = guest.WithVsock(spec.Shape, 3), guest.DefaultQuotingPort
	start(t, g, spec)
	c := newClient(t, g, spec)
	before := quotesOverVsock(t, g)
	if v := c.verify(0); v.Verdict != "accepted" || v.verdictOf(t, "rtmr-0") != "accepted" {
		t.Fatalf("got %+v, want it accepted", v)
	}
	if n := len(quotesOverVsock(t, g)) - len(before); n != 1 {
		t.Errorf("%d quotes were made over vsock for a client, want 1", n)
	}
	engineCannotReach(t, c, "EROFS")
	quotingService(t, g, c)
}

// quotesOverVsock are the times that the double's service took for each quote over vsock, as it says them.
func quotesOverVsock(t *testing.T, g guest.Guest) (took []time.Duration) {
	t.Helper()
	log, err := os.ReadFile(g.Path("double.log"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(log)) {
		if text, is := strings.CutPrefix(line, "double: quote over vsock: "); is {
			d, err := time.ParseDuration(strings.ReplaceAll(strings.TrimSpace(text), " ", ""))
			if err != nil {
				t.Fatal(err)
			}
			took = append(took, d)
		}
	}
	return took
}

// quotingService has the host's quoting service misbehave in one way after the other: no client is answered with what it makes, the
// host is told, and the guest goes on.
func quotingService(t *testing.T, g guest.Guest, c client) {
	t.Helper()
	behave := func(way string) {
		t.Helper()
		if err := os.WriteFile(g.Path(guest.QuotesFile), []byte(way), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	events := func() (all []status.Event) {
		t.Helper()
		_, lines, err := g.State()
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range lines {
			if line.Event != 0 {
				all = append(all, line.Event)
			}
		}
		return all
	}
	for _, tt := range []struct {
		way  string
		code int
		says status.Event // 0: the guest can't tell
	}{
		{"garbage", 3, status.QuoteForeign}, {"other", 3, status.QuoteForeign}, {"yesterday", 3, status.QuoteForeign}, {"long", 3, status.QuoteForeign},
		{"refuse", 3, status.QuoteRefused},
		{"short", 1, 0}, // its first half is this TD's, so it is for clients to refuse
	} {
		behave(tt.way)
		before := len(events())
		v := c.verify(tt.code)
		if v.Verdict == "accepted" || tt.code == 1 && v.Check != "tdx.quote-format" {
			t.Errorf("%s: got %s by %q, want no acceptance", tt.way, v.Verdict, v.Check)
		}
		said := events()[before:]
		if tt.says == 0 && len(said) > 0 || tt.says != 0 && !slices.Contains(said, tt.says) {
			t.Errorf("%s: the guest says %v, want %v", tt.way, said, tt.says)
		}
	}

	// It hangs: the kernel gives up after 30 seconds, and asks nothing more before the host has given the request back. Then all is
	// well.
	behave("hang")
	before := len(events())
	if v := c.verify(3); v.Verdict == "accepted" {
		t.Error("a service that hangs: got an acceptance")
	}
	for end := time.Now().Add(time.Minute); !slices.Contains(events()[before:], status.QuoteLate); time.Sleep(time.Second) {
		if time.Now().After(end) {
			t.Fatalf("a service that hangs: the guest says %v, want %v", events()[before:], status.QuoteLate)
		}
	}
	behave("")
	if v := c.verify(0); v.Verdict != "accepted" {
		t.Errorf("after the service came back: got %+v, want it accepted", v)
	}
}

// TestTDOfAnother boots TDs that differ from the release in what the firmware measures, each thing in a register of its own, over a host
// that gave no MRCONFIGID.
func TestTDOfAnother(t *testing.T) {
	needsGuests(t)
	spec := tdSpec(t)
	// A TD's firmware has its variable store at its beginning: db is measured, with what else RTMR0 has.
	firmware, err := os.ReadFile(filepath.Join(spec.Release, "OVMF.inteltdx.fd"))
	if err != nil {
		t.Fatal(err)
	}
	copy(firmware, storeWithSigner(t))
	signers := filepath.Join(t.TempDir(), "OVMF.inteltdx.fd")
	if err := os.WriteFile(signers, firmware, 0o644); err != nil {
		t.Fatal(err)
	}
	changed, _ := talkative(t, spec)
	changed = withRelease(t, changed, "OVMF.inteltdx.fd", signers)
	if changed.Shape.Firmware, err = guest.FirmwareFile(signers); err != nil { // the owner's own
		t.Fatal(err)
	}
	changed = withRelease(t, changed, "vmlinuz", otherKernel(t, filepath.Join(spec.Release, "vmlinuz")))
	changed.Double = []string{"-config-id", strings.Repeat("00", 48)}
	c, spec := shows(t, spec, changed, extraTable(t)...)
	evidence := c.saved(1)
	wantCauses(t, "the demo", explained(t, evidence, spec), "config", "variable-store", "secure-boot", "acpi-table", "kernel", "command-line", "initrd")
	for _, name := range []string{"mr-config-id", "rtmr-0", "rtmr-1", "rtmr-2"} {
		if name == "mr-config-id" {
			c = c.refusedBy(name).edited(`"waive": []`, `"waive": ["mr-config-id"]`)
			continue
		}
		c = c.taught(name)
	}
	if v := c.verify(0); v.Verdict != "accepted" {
		t.Errorf("under a policy of its own registers: got %+v, want it accepted: nothing else differs", v)
	}
}

// refusedBy wants the client to refuse by a check, and returns it.
func (c client) refusedBy(check string) client {
	c.t.Helper()
	if v := c.verify(1); v.Check != check {
		c.t.Fatalf("got refused by %q (%s), want by %s", v.Check, v.Reason, check)
	}
	return c
}

// taught wants the client to refuse by a register, and returns it under a policy of the value that it got.
func (c client) taught(register string) client {
	c.t.Helper()
	for _, check := range c.refusedBy(register).verify(1).Checks {
		if check.Name == register {
			return c.edited(check.Want, check.Got)
		}
	}
	c.t.Fatalf("verify made no check %q", register)
	return c
}

// otherKernel writes a kernel with one letter of its version's text changed, which nothing reads before init.
func otherKernel(t *testing.T, file string) string {
	t.Helper()
	kernel, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	const setupHeader, versionAt = 0x200, 0x20e // Linux, Documentation/arch/x86/boot.rst
	at := setupHeader + int(kernel[versionAt]) + int(kernel[versionAt+1])<<8
	kernel[at] ^= 1
	out := filepath.Join(t.TempDir(), "vmlinuz")
	if err := os.WriteFile(out, kernel, 0o644); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestDebuggedTD boots a TD that its host can read, with a TPM of the host's beside it: it stays a TD, and no policy accepts it.
func TestDebuggedTD(t *testing.T) {
	needsGuests(t)
	spec := tdSpec(t)
	spec.Double = []string{"-debug"}
	c, _ := shows(t, spec, spec, besideTPM(t)...)
	v := c.verify(1)
	if v.Check != "tdx.td-debug" {
		t.Errorf("got refused by %q (%s), want by tdx.td-debug", v.Check, v.Reason)
	}
	if got := v.got(t, "platform"); got != "tdx" {
		t.Errorf("with a TPM beside it the guest is of platform %s, want tdx", got)
	}
}

// TestTDConfig gives a TD a config that is not the one whose hash the hardware was given, and one that it can't keep.
func TestTDConfig(t *testing.T) {
	needsGuests(t)
	spec := tdSpec(t)
	given := func(measured []byte) []string {
		hash := config.SHA384(measured)
		return []string{"-config-id", hex.EncodeToString(hash[:])}
	}
	foreignConfigs(t, spec, given, ended{"COCOON's identity under the hash of its config", func(s *guest.Spec) {
		s.Config.Identity.Cocoon = true
		s.Double = given(encoded(t, s.Config))
	}, "config-foreign"})
}

// besideTPM starts a TPM of the host's, and returns QEMU's arguments for it.
func besideTPM(t *testing.T) []string {
	t.Helper()
	dir := newGuest(t).Dir
	socket := filepath.Join(dir, "other.sock")
	cmd, err := qemu.StartTPM(t.Context(), tree(t), dir, socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return append(qemu.Emulator("other", "other", socket), "-device", "tpm-crb,tpmdev=other")
}

func encoded(t *testing.T, m config.Measured) []byte {
	t.Helper()
	measured, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return measured
}

// ended is a boot that ends by itself.
type ended struct {
	name   string
	change func(*guest.Spec)
	want   string // its last word
}

// foreignConfigs boots a confidential guest with configs that it must end over, and those of its platform alone. given is what its double is
// told of the hash in the hardware's own field.
func foreignConfigs(t *testing.T, demo guest.Spec, given func(measured []byte) []string, own ...ended) {
	other := demo.Config
	other.Service.Price.NanotonPerToken = 10
	of := func(m config.Measured) []string { return given(encoded(t, m)) }
	for _, tt := range append(own, []ended{
		{"another config under the same hash", func(s *guest.Spec) { s.Config, s.Double = other, of(demo.Config) }, "config-foreign"},
		{"the same config under another hash", func(s *guest.Spec) { s.Double = of(other) }, "config-foreign"},
		{"a secret sealed to a TPM", func(s *guest.Spec) { s.Config.Identity.Sealing, s.Config.Identity.Stranding = config.SealTPM, "" }, "sealing-unfit"},
	}...) {
		t.Run(tt.name, func(t *testing.T) {
			beside(t)
			spec := onOwnPort(t, demo)
			tt.change(&spec)
			if got := ending(t, newGuest(t), spec); got != tt.want {
				t.Errorf("the guest's last word: got %q, want %q", got, tt.want)
			}
		})
	}
}

// verdictOf returns the named check's verdict.
func (v verdict) verdictOf(t *testing.T, name string) string {
	t.Helper()
	for _, check := range v.Checks {
		if check.Name == name {
			return check.Verdict
		}
	}
	t.Fatalf("verify made no check %q", name)
	return ""
}
