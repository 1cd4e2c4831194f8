package explain

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"chrysalis/attest"
	"chrysalis/attest/attesttest"
	"chrysalis/attest/evidence"
	"chrysalis/attest/sevsnp"
	"chrysalis/measure"
	"chrysalis/measure/config"
	"chrysalis/measure/eventlog"
	"chrysalis/measure/register"
	"chrysalis/measure/ton"
)

func measuredConfig(t testing.TB, change func(*config.Measured)) []byte {
	t.Helper()
	data, err := os.ReadFile("../../../measure/config/testdata/vectors/measured.bin")
	if err != nil {
		t.Fatal(err)
	}
	m, err := config.Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(&m)
	}
	if data, err = m.Encode(); err != nil {
		t.Fatal(err)
	}
	return data
}

// plainRelease is a release whose files are not there, with the registers of the guest.
func plainRelease(g *attesttest.Guest) Release {
	pcrs := register.PCRs{}
	for register, value := range g.Rules().Releases[0].VTPM[0] {
		pcrs[register] = value
	}
	return Release{Manifest: measure.Manifest{PCRs: pcrs}}
}

func evidenceOf(g interface {
	Evidence(attest.Challenge) *evidence.Evidence
}) *evidence.Evidence {
	return g.Evidence(attest.Challenge{Nonce: [32]byte{1}})
}

func kinds(r *Report) (all []string) {
	for _, c := range r.Causes {
		all = append(all, c.Kind)
	}
	return all
}

// wants explains and compares the kinds of causes.
func wants(t *testing.T, in Inputs, want ...string) *Report {
	t.Helper()
	r, err := Explain(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	if got := kinds(r); !slices.Equal(got, want) {
		t.Fatalf("causes: got %q, want %q: %+v", got, want, r.Causes)
	}
	if got, want := r.Verdict, len(r.Causes) > 0; (got == string(Different)) != want {
		t.Errorf("verdict: got %q over %d causes", got, len(r.Causes))
	}
	for _, c := range r.Causes {
		if c.Says == "" || c.Do == "" {
			t.Errorf("%s: it says %q and advises %q, want both", c.Kind, c.Says, c.Do)
		}
	}
	return r
}

// TestConfigAndLog changes what a guest says of itself after the boot. The release's files are not at hand.
func TestConfigAndLog(t *testing.T) {
	now := time.Now()
	clean := attesttest.New(measuredConfig(t, nil), now)
	release := plainRelease(clean)
	for _, tt := range []struct {
		name   string
		change func(*config.Measured)
		guest  func(*attesttest.Guest)
		edit   func(*evidence.Evidence)
		want   []string
		says   string
	}{
		{name: "nothing"},
		{name: "price", change: func(m *config.Measured) { m.Service.Price.NanotonPerToken++ }, want: []string{"config"},
			says: "service.price.nanoton_per_token 21, expected 20"},
		{name: "owner", change: func(m *config.Measured) {
			m.Identity.PayoutOwner = ton.Address{Account: [32]byte(bytes.Repeat([]byte{0xee}, 32))}
		},
			want: []string{"config"}, says: "identity.payout_owner"},
		{name: "engine", change: func(m *config.Measured) { m.Service.Engine.Volume.Root[0]++ }, want: []string{"engine"},
			says: "service.engine.volume"},
		{name: "model and price", change: func(m *config.Measured) { m.Service.Model.Volume.Blocks++; m.Service.Price.NanotonPerToken++ },
			want: []string{"model", "config"}, says: "service.model.volume"},
		{name: "several models", change: func(m *config.Measured) {
			one := config.Served{Engine: m.Service.Engine, Model: m.Service.Model, Limits: m.Service.Limits}
			other := one
			other.Model.Name, other.Model.Volume.Root = "other", register.Digest{0xee}
			m.Service.Engine, m.Service.Model, m.Service.Limits, m.Service.Models = config.Engine{}, config.Model{}, config.Limits{}, []config.Served{one, other}
		}, want: []string{"config", "runtime-log", "runtime-log"}, says: "the guest's config has service.models tiny, other, expected tiny"},
		{name: "GPUs that the config asks for", change: func(m *config.Measured) { m.Service.GPU = "1 hopper spt" }, guest: func(g *attesttest.Guest) {
			g.Records[4].Data = []byte("verified 1 hopper spt driver 570.124.06 vbios 96.00.9F.00.01")
		}, want: []string{"config"}, says: "service.gpu 1 hopper spt, expected none"},
		{name: "GPUs that the config does not ask for", guest: func(g *attesttest.Guest) {
			g.Records[4].Data = []byte("verified 1 hopper spt driver 570.124.06 vbios 96.00.9F.00.01")
		}, want: []string{"runtime-log"}, says: "another gpu than its config says"},
		{name: "GPU lost", guest: func(g *attesttest.Guest) {
			g.Records = append(g.Records, eventlog.Record{Register: eventlog.PCR13, Kind: eventlog.KindGPULost})
		}, want: []string{"gpu-lost"}, says: "has lost its GPU"},
		{name: "terminated", guest: func(g *attesttest.Guest) {
			g.Records = append(g.Records, eventlog.Record{Register: eventlog.PCR13, Kind: eventlog.KindTerminated})
		}, want: []string{"terminated"}, says: "has ended"},
		{name: "not serving yet", guest: func(g *attesttest.Guest) { g.Records = g.Records[:7] }, want: []string{"not-ready"},
			says: "had not come as far as its keys-released"},
		{name: "a secret that another image held before", guest: func(g *attesttest.Guest) {
			g.Records[7].Data, g.Records[8].Data = eventlog.HeldData([]register.Digest{{7}}), eventlog.HeldData([]register.Digest{{7}})
		}},
		{name: "one story of it in each register", guest: func(g *attesttest.Guest) {
			g.Records[7].Data = eventlog.HeldData([]register.Digest{{7}})
		}, want: []string{"runtime-log"}, says: "keys-released"},
		{name: "another model than its config says", guest: func(g *attesttest.Guest) {
			g.Records[3].Data = bytes.Repeat([]byte{1}, 40)
		}, want: []string{"runtime-log"}, says: "another model than its config says"},
		{name: "config that was not measured", edit: func(e *evidence.Evidence) {
			e.Config = measuredConfig(t, func(m *config.Measured) { m.Service.Price.NanotonPerToken = 1 })
		}, want: []string{"config-not-measured"}, says: "not the one that the guest measured"},
		{name: "log that does not replay", edit: func(e *evidence.Evidence) {
			// The separator of PCR 2 in the log, which the release wants as it is, too.
			i := bytes.Index(e.BootLog, []byte{2, 0, 0, 0, 4, 0, 0, 0})
			e.BootLog[i] = 6
		}, want: []string{"log", "unknown"}, says: "does not replay to its quote"},
		{name: "data of an event", edit: func(e *evidence.Evidence) {
			i := bytes.Index(e.BootLog, []byte("Calling"))
			e.BootLog[i] = 'B'
		}, want: []string{"log-data"}, says: "has other data than was measured"},
		{name: "statement", edit: func(e *evidence.Evidence) { e.Statement.Epoch++ }, want: []string{"statement"}, says: "another statement"},
		{name: "firmware", guest: func(g *attesttest.Guest) { g.Boot[8].Data = []byte("g\x00w\x00") }, want: []string{"firmware"},
			says: "another build"},
		{name: "a release's file", guest: func(g *attesttest.Guest) { g.Boot[10].Hashed = []byte("loud") }, want: []string{"release"},
			says: "initrd or the command line"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := attesttest.New(measuredConfig(t, tt.change), now)
			if tt.guest != nil {
				tt.guest(g)
			}
			e := evidenceOf(g)
			if tt.edit != nil {
				tt.edit(e)
			}
			r := wants(t, Inputs{Evidence: e, Release: release, Config: measuredConfig(t, nil)}, tt.want...)
			if len(tt.want) > 0 && !strings.Contains(r.Causes[0].Says, tt.says) {
				t.Errorf("first cause says %q, want %q in it", r.Causes[0].Says, tt.says)
			}
		})
	}
}

// TestPolicy has the policy refuse what the release does not.
func TestPolicy(t *testing.T) {
	now := time.Now()
	g := attesttest.New(measuredConfig(t, nil), now)
	release := plainRelease(g)
	for _, tt := range []struct {
		name   string
		change func(*attest.Rules)
		want   []string
		says   string
	}{
		{"nothing", func(*attest.Rules) {}, nil, ""},
		{"price", func(r *attest.Rules) { r.Config.Price.NanotonPerToken = attest.Range{Max: 3} }, []string{"config"}, "the policy wants 0 to 3"},
		{"model", func(r *attest.Rules) { r.Config.Model.Volumes = nil }, []string{"model"}, "service.model.volume"},
		{"another PCR 9", func(r *attest.Rules) { r.Releases[0].VTPM[0][9] = register.Digest{1} }, []string{"policy"},
			"pcr-9 is the release's, and the policy pins another"},
		{"PCR 1 of a shape", func(r *attest.Rules) { r.Releases[0].VTPM[0][1] = register.Digest{1} }, []string{"policy"},
			"the shape that it was computed for"},
		{"another platform", func(r *attest.Rules) { r.Releases[0].VTPM = nil }, []string{"policy"}, "accepts no release on vtpm"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rules := g.Rules()
			tt.change(&rules)
			r := wants(t, Inputs{Evidence: evidenceOf(g), Release: release, Policy: &rules}, tt.want...)
			wants(t, Inputs{Evidence: evidenceOf(g), Release: release, Policy: &rules, Config: g.Measured}, tt.want...)
			if len(tt.want) > 0 && !strings.Contains(r.Causes[0].Says, tt.says) {
				t.Errorf("it says %q, want %q in it", r.Causes[0].Says, tt.says)
			}
		})
	}
	// A guest of a release that the policy knows and the manifest is not of.
	rules := g.Rules()
	other := attesttest.New(measuredConfig(t, nil), now)
	other.Boot[8].Data, other.Boot[10].Hashed = []byte("g\x00w\x00"), []byte("loud")
	second := other.Rules().Releases[0]
	second.Name = "second"
	rules.Releases = append(rules.Releases, second)
	r := wants(t, Inputs{Evidence: evidenceOf(other), Release: release, Policy: &rules}, "firmware", "release")
	for _, c := range r.Causes {
		if !strings.Contains(c.Says, `runs release "second"`) {
			t.Errorf("%s says %q, want the release's name in it", c.Kind, c.Says)
		}
	}
}

func TestRefuses(t *testing.T) {
	g := attesttest.New(measuredConfig(t, nil), time.Now())
	for name, tt := range map[string]struct {
		change func(*evidence.Evidence)
		want   string
	}{
		"quote":       {func(e *evidence.Evidence) { e.Quote = e.Quote[1:] }, "parsing quote"},
		"boot log":    {func(e *evidence.Evidence) { e.BootLog = e.BootLog[1:] }, "parsing boot log"},
		"runtime log": {func(e *evidence.Evidence) { e.RuntimeLog = e.RuntimeLog[1:] }, "parsing runtime log"},
		"config":      {func(e *evidence.Evidence) { e.Config = nil }, "no config that can be decoded"},
		"sev-snp":     {func(e *evidence.Evidence) { e.Platform = evidence.SEVSNP }, "no log behind it"},
		"TDX quote":   {func(e *evidence.Evidence) { e.Platform = evidence.TDX }, "quote"},
	} {
		e := evidenceOf(g)
		tt.change(e)
		if _, err := Explain(t.Context(), Inputs{Evidence: e, Release: plainRelease(g)}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got error %v, want one that says %q", name, err, tt.want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s := measure.Shape{}
	x := &explanation{Inputs: Inputs{Evidence: evidenceOf(g), Shape: &s, Machines: imagined{}}, guest: &shown{}}
	if _, err := x.machineCause(ctx, pair{}); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled search: got %v, want it to say so", err)
	}
}

func TestAlign(t *testing.T) {
	list := func(digests string) (events []event) {
		for i, d := range strings.Split(digests, "") {
			events = append(events, event{number: i, digest: d})
		}
		return events
	}
	for _, tt := range []struct{ want, got, pairs string }{
		{"abc", "abc", "aa bb cc"}, {"abc", "axc", "aa bx cc"}, {"abc", "ac", "aa b- cc"}, {"abc", "abxc", "aa bb -x cc"},
		{"ab", "xyab", "-x -y aa bb"}, {"abs", "s", "a- b- ss"},
	} {
		var got []string
		for _, p := range align(list(tt.want), list(tt.got)) {
			a, b := "-", "-"
			if p.want != nil {
				a = p.want.digest
			}
			if p.got != nil {
				b = p.got.digest
			}
			got = append(got, a+b)
		}
		if got := strings.Join(got, " "); got != tt.pairs {
			t.Errorf("%s beside %s: got %s, want %s", tt.want, tt.got, got, tt.pairs)
		}
	}
}

// imagined is a hypervisor whose tables are like QEMU's in what moves which part of them.
type imagined struct{ asked *int }

func (imagined) Versions() []string { return []string{"10.0.13", "11.1.3"} }

func (m imagined) Tables(_ context.Context, s measure.Shape) (measure.Tables, error) {
	if m.asked != nil {
		*m.asked++
	}
	root := uint32(1000 + 16*s.CPUs + 8*len(s.Devices) + len(s.QEMU+s.Machine))
	t := measure.Tables{Settings: map[string][]byte{measure.SMBIOSTables: {127, 4, 0, 127, 0, 0}, measure.BootMenu: {0, 0}, "bootorder": []byte(strings.Join(s.Devices, "\n"))}}
	memory := binary.LittleEndian.AppendUint64(make([]byte, 8), uint64(s.MemoryMiB)<<20)
	t.Settings[measure.MemoryMap] = binary.LittleEndian.AppendUint32(memory, 1)
	t.Loader = script(root, 3)
	rsdp := append([]byte("RSD PTR "), make([]byte, 12)...)
	binary.LittleEndian.PutUint32(rsdp[rsdpRoot:], root)
	t.Files = map[string][]byte{rsdpFile: rsdp, tablesFile: fmt.Appendf(nil, "%s %s %d %d %d %s %d", s.QEMU, s.Machine, s.CPUs, s.MemoryMiB,
		len(s.Devices), s.CPUVendor, s.PhysBits)}
	return t, nil
}

// script loads the two files and has so many pointers in the root table at root, padded to 16 entries.
func script(root uint32, tables int) []byte {
	entry := func(command uint32, names ...string) []byte {
		e := binary.LittleEndian.AppendUint32(make([]byte, 0, scriptEntry), command)
		e = e[:scriptEntry]
		for i, name := range names {
			copy(e[4+i*scriptName:], name)
		}
		return e
	}
	b := slices.Concat(entry(1, rsdpFile), entry(1, tablesFile))
	for i := range tables {
		e := entry(addPointer, tablesFile, tablesFile)
		binary.LittleEndian.PutUint32(e[pointerOffset:], root+36+uint32(4*i))
		e[pointerOffset+4] = 4
		b = append(b, e...)
	}
	sum := entry(addChecksum, tablesFile)
	binary.LittleEndian.PutUint32(sum[checksumOffset:], root+9)
	binary.LittleEndian.PutUint32(sum[checksumOffset+4:], root)
	binary.LittleEndian.PutUint32(sum[checksumOffset+8:], uint32(36+4*tables))
	b = append(b, sum...)
	return append(b, make([]byte, 16*scriptEntry-len(b))...)
}

// releaseFolder is a built release.
func releaseFolder(t *testing.T) Release {
	t.Helper()
	file := filepath.Join("../../../build/release/manifest.json")
	if _, err := os.Stat(file); err != nil {
		t.Skipf("no build of the image here: %v", err)
	}
	r, err := ReadRelease(file)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// smallRelease is a built release with an initrd that is hashed in no time.
func smallRelease(t *testing.T) Release {
	t.Helper()
	r := releaseFolder(t)
	r.Files[initrdFile] = bytes.Repeat([]byte("initrd"), 1000)
	r.Manifest.PCRs = nil
	return r
}

// FuzzExplain gives evidence that anybody could have written. The seeds are whole evidence of both platforms.
func FuzzExplain(f *testing.F) {
	measured := measuredConfig(f, nil)
	guest, td := attesttest.New(measured, time.Now()), attesttest.NewTDXGuest(measured, time.Now())
	td.SetBoot([]attesttest.BootEvent{{Register: 1, Type: typeSecureBoot, Data: make([]byte, 40)},
		{Register: 2, Type: typePartitions, Data: []byte("x")}})
	release := plainRelease(guest)
	seeds := 0
	for _, e := range []*evidence.Evidence{evidenceOf(guest), evidenceOf(td)} {
		encoded, err := e.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(encoded)
		seeds++
	}
	if seeds != 2 {
		f.Fatal("no seeds")
	}
	f.Fuzz(func(t *testing.T, encoded []byte) {
		e, err := evidence.Decode(encoded)
		if err != nil {
			return
		}
		r, err := Explain(t.Context(), Inputs{Evidence: e, Release: release, Config: measured})
		if err != nil {
			return
		}
		if (r.Verdict == string(Expected)) != (len(r.Causes) == 0) {
			t.Errorf("verdict is %q over %d causes", r.Verdict, len(r.Causes))
		}
		for _, register := range r.Registers {
			if register.State == Different && len(r.Causes) == 0 {
				t.Errorf("%s differs, and no cause says so", register.Name)
			}
		}
	})
}

// TestShortfalls: what is too low on the machine is named, of a machine whose evidence is proven and by a policy that is given.
func TestShortfalls(t *testing.T) {
	now := time.Now()
	td := attesttest.NewTDXGuest(measuredConfig(t, nil), now)
	td.Machine.Platform.SGXSVN[0], td.Machine.Body.TEETCBSVN[0] = 4, 5
	snp := attesttest.NewSNPGuest(measuredConfig(t, nil), sevsnp.Milan, now)
	tcb := snp.Rules().SEVSNP.MinTCB[sevsnp.Milan]
	tcb.Microcode++
	low := snp.Rules()
	low.SEVSNP.MinTCB = map[sevsnp.Product]sevsnp.TCB{sevsnp.Milan: tcb}
	tdRules := td.Rules()
	for _, tt := range []struct {
		name   string
		e      *evidence.Evidence
		policy *attest.Rules
		roots  attest.Roots
		want   []string
	}{
		{"TDX", evidenceOf(td), &tdRules, td.Roots(), []string{"TDX module at launch: ISVSVN of version 1 is 5, want at least 6", "platform: SGX component 1 is 4, want at least 5"}},
		{"SEV-SNP", evidenceOf(snp), &low, snp.Roots(), []string{"processor, current level: microcode is 213, want at least 214",
			"processor, committed level: microcode", "processor, reported level: microcode", "guest, level at launch: microcode"}},
		{"no policy", evidenceOf(td), nil, td.Roots(), nil},
		{"other roots", evidenceOf(td), &tdRules, attest.Roots{}, nil},
	} {
		x := &explanation{Inputs: Inputs{Evidence: tt.e, Policy: tt.policy, Roots: tt.roots, At: now}}
		var got []string
		for _, s := range x.shortfalls() {
			got = append(got, s.String())
		}
		if !slices.EqualFunc(got, tt.want, strings.HasPrefix) {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

// TestShortfallsOfSNP: of a guest without logs what is too low is told, and else that nothing can be.
func TestShortfallsOfSNP(t *testing.T) {
	now := time.Now()
	snp := attesttest.NewSNPGuest(measuredConfig(t, nil), sevsnp.Milan, now)
	good, low := snp.Rules(), snp.Rules()
	tcb := good.SEVSNP.MinTCB[sevsnp.Milan]
	tcb.SNP++
	low.SEVSNP.MinTCB = map[sevsnp.Product]sevsnp.TCB{sevsnp.Milan: tcb}
	in := Inputs{Evidence: evidenceOf(snp), Policy: &low, Roots: snp.Roots(), At: now}
	const nothing = "no log behind it"
	r, err := Explain(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	if r.Verdict != string(Different) || len(r.Causes) != 0 || len(r.Notes) != 1 || !strings.Contains(r.Notes[0], nothing) {
		t.Errorf("got %+v, want it different, with a note that there is %s", r, nothing)
	}
	const want = "processor, current level: SNP is 22, want at least 23; update SNP firmware (BIOS)"
	if len(r.Shortfalls) != 4 || r.Shortfalls[0].String() != want {
		t.Errorf("got %v, want four that begin with %q", r.Shortfalls, want)
	}
	for name, policy := range map[string]*attest.Rules{"nothing too low": &good, "no policy": nil} {
		in.Policy = policy
		if r, err := Explain(t.Context(), in); err == nil || !strings.Contains(err.Error(), nothing) {
			t.Errorf("%s: got %+v and %v, want an error: %s", name, r, err, nothing)
		}
	}
}

// TestDifferencesOfModels: of two configs of several models each difference is told under its model's name, and of what kind it is.
func TestDifferencesOfModels(t *testing.T) {
	m, err := config.Decode(measuredConfig(t, nil))
	if err != nil {
		t.Fatal(err)
	}
	one := config.Served{Engine: m.Service.Engine, Model: m.Service.Model, Limits: m.Service.Limits}
	other := one
	other.Model.Name, other.Model.Volume.Root = "other", register.Digest{0xee}
	m.Service.Engine, m.Service.Model, m.Service.Limits, m.Service.Models = config.Engine{}, config.Model{}, config.Limits{}, []config.Served{one, other}
	for _, tt := range []struct {
		change      func([]config.Served)
		field, kind string
	}{
		{func([]config.Served) {}, "", ""},
		{func(s []config.Served) { s[1].Model.Volume.Root[0]++ }, "service.models[other].model.volume", "model"},
		{func(s []config.Served) { s[0].Engine.Volume.Root[0]++ }, "service.models[tiny].engine.volume", "engine"},
		{func(s []config.Served) { s[1].Limits.ContextTokens++ }, "service.models[other].limits.context_tokens", "config"},
		{func(s []config.Served) { s[0], s[1] = s[1], s[0] }, "service.models", "config"},
	} {
		changed := m
		changed.Service.Models = append([]config.Served(nil), m.Service.Models...)
		tt.change(changed.Service.Models)
		got := differences(m, changed)
		if tt.field == "" && len(got) == 0 {
			continue
		}
		if len(got) != 1 || got[0].field != tt.field || configKind(got[0].field) != tt.kind {
			t.Errorf("%s: got %+v, want that alone, of kind %s", tt.field, got, tt.kind)
		}
	}
}
