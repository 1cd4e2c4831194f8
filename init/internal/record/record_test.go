package record

import (
	"cmp"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"chrysalis/attest/evidence"
	"chrysalis/init/internal/platform"
	"chrysalis/init/internal/sealing"
	"chrysalis/measure/config"
	"chrysalis/measure/eventlog"
	"chrysalis/measure/register"
	"chrysalis/runtime/secret"
)

// memory is a platform in memory: two registers, a secret that is bound to PCR 14, and hooks that fail.
type memory struct {
	in         eventlog.Registers // where the log is kept; PCRs unless set
	rtmr       [48]byte
	pcr        map[eventlog.Register][32]byte
	sealedTo   *[32]byte
	secret     *secret.Secret
	opened     int // how often the secret was asked for
	extends    int
	failExtend int  // the extend of this number fails
	kept       bool // a failed extend reached the register all the same
	boots      uint64
	held       []register.Digest
	loan       eventlog.Loan
	whileQuote func()       // runs while a quote is made, before the registers are read
	failQuote  func() error // why a quote fails; nil: none does
}

// publicMemory is a platform in memory that can take COCOON's public identity, as a TD can.
type publicMemory struct {
	*memory
	taken int
	fails error
}

func (m *publicMemory) TakePublicIdentity() error {
	m.taken++
	if m.extends > 0 {
		return errors.New("an event came before")
	}
	return m.fails
}

func newMemory() *memory {
	s, err := secret.Random()
	if err != nil {
		panic(err)
	}
	return &memory{pcr: map[eventlog.Register][32]byte{}, secret: s, failExtend: -1}
}

func newRecorder(t *testing.T, m *memory) *Recorder {
	t.Helper()
	r, err := New(m)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (m *memory) Registers() eventlog.Registers { return cmp.Or(m.in, eventlog.InPCRs) }
func (m *memory) Launched([]byte) error         { return nil }
func (m *memory) UseHost(config.Host) error     { return nil }
func (m *memory) BootLog() ([]byte, error)      { return []byte("boot log"), nil }

func (m *memory) Extend(r eventlog.Record) error {
	m.extends++
	fails := m.extends-1 == m.failExtend
	if !fails || m.kept {
		m.pcr[r.Register] = eventlog.Extend256(m.pcr[r.Register], r.SHA256())
		m.rtmr = eventlog.Extend384(m.rtmr, r.SHA384())
	}
	if fails {
		return errors.New("the TPM does not answer")
	}
	return nil
}

func (m *memory) Secret() (sealing.Taken, error) {
	m.opened++
	now := m.pcr[eventlog.PCR14]
	if m.sealedTo == nil {
		m.sealedTo = &now
	}
	if *m.sealedTo != now {
		return sealing.Taken{}, secret.ErrSealed
	}
	taken := sealing.Taken{Boots: m.boots, Held: m.held, Loan: m.loan}
	var err error
	m.secret.Expose(func(raw []byte) { taken.Secret, err = secret.New(raw) })
	return taken, err
}

func (m *memory) reset() { m.pcr = map[eventlog.Register][32]byte{}; m.extends = 0 }

// Quote is the report data and the registers as they are.
func (m *memory) Quote(report [64]byte) (evidence.Evidence, error) {
	if m.whileQuote != nil {
		m.whileQuote()
	}
	if m.failQuote != nil {
		if err := m.failQuote(); err != nil {
			return evidence.Evidence{}, err
		}
	}
	a, b := m.pcr[eventlog.PCR13], m.pcr[eventlog.PCR14]
	return evidence.Evidence{
		Platform: evidence.VTPM, Quote: slices.Concat(report[:], a[:], b[:]), Signature: []byte{1}, Certificates: [][]byte{[]byte("certificate")},
	}, nil
}
func (m *memory) CountBoot() error { m.boots++; return nil }

var engineVolume, modelVolume = config.Volume{Root: register.Digest{1}, Blocks: 10}, config.Volume{Root: register.Digest{2}, Blocks: 20}

var onePair = []eventlog.Pair{{Engine: engineVolume, Model: modelVolume}}

// measured is a config by its identity part: init records it before it parses either.
func measured(identity string) (b []byte) {
	for _, part := range []string{identity, "service"} {
		b = append(binary.LittleEndian.AppendUint32(b, uint32(len(part))), part...)
	}
	return b
}

// measure goes through the measured sequence.
func measure(r *Recorder, identity string) error {
	for _, step := range []func() error{
		func() error { return r.Config(measured(identity)) },
		func() error { return r.Serves(onePair) },
		func() error { return r.Engine(engineVolume) },
		func() error { return r.Model(modelVolume) },
		func() error { return r.GPU("none") },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func TestSequence(t *testing.T) {
	m := newMemory()
	r := newRecorder(t, m)
	if err := measure(r, "me"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Secret(m); err != nil {
		t.Fatal(err)
	}
	if err := r.Terminated(); err != nil {
		t.Fatal(err)
	}
	records, err := eventlog.ParseRuntime(r.log)
	if err != nil {
		t.Fatal(err)
	}
	var got []eventlog.Kind
	for _, record := range records {
		got = append(got, record.Kind)
	}
	want := []eventlog.Kind{eventlog.KindConfig, eventlog.KindIdentity, eventlog.KindEngine, eventlog.KindModel, eventlog.KindGPU,
		eventlog.KindSeparator, eventlog.KindSeparator, eventlog.KindKeysReleased, eventlog.KindKeysReleased, eventlog.KindTerminated}
	if !slices.Equal(got, want) {
		t.Errorf("events: got %v, want %v", got, want)
	}
	for _, register := range []eventlog.Register{eventlog.PCR13, eventlog.PCR14} {
		if got, want := eventlog.Replay256(records, register), m.pcr[register]; got != want {
			t.Errorf("register %d: the log replays to %x, want %x", register, got, want)
		}
	}
}

// TestModels: of several models each pair is recorded in the config's order, and nothing that is not the config's in its place.
func TestModels(t *testing.T) {
	otherEngine, otherModel := config.Volume{Root: register.Digest{3}, Blocks: 3}, config.Volume{Root: register.Digest{4}, Blocks: 4}
	pairs := []eventlog.Pair{onePair[0], {Engine: otherEngine, Model: otherModel}}
	for _, in := range []eventlog.Registers{eventlog.InPCRs, eventlog.InRTMR} {
		m := newMemory()
		m.in = in
		r := newRecorder(t, m)
		if err := r.Config(measured("me")); err != nil {
			t.Fatal(err)
		}
		if err := r.Engine(engineVolume); err == nil || !strings.Contains(err.Error(), "what the config serves") {
			t.Errorf("an engine before anybody has said what is served: got %v", err)
		}
		if err := r.Serves(pairs); err != nil {
			t.Fatal(err)
		}
		refused := func(want string, err error) {
			t.Helper()
			extends, log := m.extends, len(r.log)
			if err == nil || errors.Is(err, ErrBroken) || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want an error with %q", err, want)
			}
			if m.extends != extends || len(r.log) != log {
				t.Error("a refused event is in the log")
			}
		}
		refused("want one or more, once", r.Serves(pairs))
		refused("want what the config names", r.Engine(otherEngine))
		refused("want engine", r.Model(modelVolume))
		for i, p := range pairs {
			if err := r.Engine(p.Engine); err != nil {
				t.Fatal(err)
			}
			refused("want what the config names", r.Model(pairs[1-i].Model))
			refused("want one or more, once", r.Serves(pairs))
			if err := r.Model(p.Model); err != nil {
				t.Fatal(err)
			}
			if i == 0 {
				refused("want engine", r.GPU("none"))
			}
		}
		refused("engine comes 3 times", r.Engine(engineVolume))
		if err := r.GPU("none"); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Secret(m); err != nil {
			t.Fatal(err)
		}
		records, err := eventlog.ParseRuntime(r.log)
		if err != nil {
			t.Fatal(err)
		}
		want := eventlog.Sequence{Config: config.SHA256(measured("me")), Identity: register.Digest(identityOf("me")), Models: pairs, GPU: "none"}.Records(in)
		for i := range want {
			want[i].Data = append([]byte{}, want[i].Data...)
		}
		if len(records) != len(want) {
			t.Fatalf("got %d records, want %d", len(records), len(want))
		}
		for i, got := range records {
			if got.Register != want[i].Register || got.Kind != want[i].Kind || !slices.Equal(got.Data, want[i].Data) {
				t.Errorf("record %d: got %+v, want %+v", i, got, want[i])
			}
		}
	}
	for _, none := range [][]eventlog.Pair{nil, {}} {
		r := newRecorder(t, newMemory())
		if err := r.Config(measured("me")); err != nil {
			t.Fatal(err)
		}
		if err := r.Serves(none); err == nil {
			t.Error("nothing to serve was taken in")
		}
	}
	if err := newRecorder(t, newMemory()).Serves(pairs); err == nil {
		t.Error("models were taken in before the config was recorded")
	}
}

// TestSequenceInRTMR: a platform without a TPM has the same log in its one register.
func TestSequenceInRTMR(t *testing.T) {
	m := newMemory()
	m.in = eventlog.InRTMR
	r := serving(t, m)
	e, err := r.Evidence(evidence.Request{})
	if err != nil {
		t.Fatal(err)
	}
	records, err := eventlog.ParseRuntime(e.RuntimeLog)
	if err != nil {
		t.Fatal(err)
	}
	var got []eventlog.Place
	for _, record := range records {
		got = append(got, eventlog.Place{Register: record.Register, Kind: record.Kind})
	}
	if want := (eventlog.Sequence{Models: onePair}).Places(eventlog.InRTMR); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := eventlog.Replay384(records, eventlog.RTMR3); got != m.rtmr {
		t.Errorf("the log replays to %x, want %x", got, m.rtmr)
	}
}

// TestPublicIdentity: where the config asks for it, the identity is taken before anything is recorded, and then a key that nobody else has
// signs what hardware signs elsewhere. It goes with the guest.
func TestPublicIdentity(t *testing.T) {
	const identity = `{"cocoon":true,`
	m := &publicMemory{memory: newMemory()}
	m.in = eventlog.InRTMR
	r, err := New(m)
	if err != nil {
		t.Fatal(err)
	}
	if err := measure(r, identity); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Secret(m); err != nil {
		t.Fatal(err)
	}
	r.SetKeys(Keys{})
	e, err := r.Evidence(evidence.Request{NonceRoot: [32]byte{1}})
	if err != nil {
		t.Fatal(err)
	}
	key := sha512.Sum512(e.Binding.Key[:])
	if !e.Binding.Binds(e.Statement) || !slices.Equal(e.Quote[:64], key[:]) || m.taken != 1 {
		t.Errorf("the quote is over %x and the statement signed: %v, want the hash of the key that signed it, and the identity taken once, got %d", e.Quote[:64],
			e.Binding.Binds(e.Statement), m.taken)
	}
	if err := r.Config(measured(identity)); err == nil || m.taken != 1 {
		t.Errorf("a second config: got error %v and the identity taken %d times, want a refusal before it", err, m.taken)
	}
	again, err := r.Evidence(evidence.Request{NonceRoot: [32]byte{2}})
	if err != nil || again.Binding.Key != e.Binding.Key || again.Binding.Binds(e.Statement) {
		t.Errorf("asked again: error %v, key %s after %s", err, again.Binding.Key, e.Binding.Key)
	}
	if err := r.Terminated(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Evidence(evidence.Request{}); err == nil || !strings.Contains(err.Error(), "is gone") {
		t.Errorf("after the end: got error %v, want that the key is gone", err)
	}

	other := &publicMemory{memory: newMemory()}
	if r, err = New(other); err != nil {
		t.Fatal(err)
	}
	if err := measure(r, "me"); err != nil || other.taken != 0 {
		t.Errorf("a config that does not ask for it: error %v, and the identity taken %d times", err, other.taken)
	}
	plain := newMemory()
	if err := newRecorder(t, plain).Config(measured(identity)); !errors.Is(err, platform.ErrNotPublic) || plain.extends != 0 {
		t.Errorf("a platform that can't: got error %v and %d extends, want %v and none", err, plain.extends, platform.ErrNotPublic)
	}
	half := &publicMemory{memory: newMemory(), fails: errors.New("the module does not answer")}
	if r, err = New(half); err != nil {
		t.Fatal(err)
	}
	if err := r.Config(measured(identity)); err == nil || half.extends != 0 {
		t.Errorf("an identity that was half taken: got error %v and %d extends", err, half.extends)
	}
	if err := r.Config(measured("me")); !errors.Is(err, ErrBroken) {
		t.Errorf("afterwards: got error %v, want %v", err, ErrBroken)
	}
}

// TestSecretOnce: the recorder asks once, and a second recorder finds that the registers have moved on.
func TestSecretOnce(t *testing.T) {
	m := newMemory()
	r := newRecorder(t, m)
	if err := measure(r, "me"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Secret(m); err != nil {
		t.Fatal(err)
	}
	if again, err := r.Secret(m); err == nil || again.Secret != nil || m.opened != 1 {
		t.Errorf("a second time: got %v, error %v and %d unseals, want a refusal before the second", again, err, m.opened)
	}
	another := newRecorder(t, m)
	if err := measure(another, "me"); err != nil {
		t.Fatal(err)
	}
	if again, err := another.Secret(m); !errors.Is(err, secret.ErrSealed) || again.Secret != nil {
		t.Errorf("by another recorder: got %v and error %v, want %v", again, err, secret.ErrSealed)
	}
}

// TestHeld: keys-released says who held the secret before, in each of its registers.
func TestHeld(t *testing.T) {
	m := newMemory()
	m.held = []register.Digest{{7}, {8}}
	r := newRecorder(t, m)
	if err := measure(r, "me"); err != nil {
		t.Fatal(err)
	}
	if taken, err := r.Secret(m); err != nil || !slices.Equal(taken.Held, m.held) {
		t.Fatalf("got %v and error %v", taken.Held, err)
	}
	records, err := eventlog.ParseRuntime(r.log)
	if err != nil {
		t.Fatal(err)
	}
	said := 0
	for _, record := range records {
		if record.Kind == eventlog.KindKeysReleased && slices.Equal(record.Data, eventlog.HeldData(m.held)) {
			said++
		}
	}
	if said != 2 {
		t.Errorf("%d events say who held the secret, want 2", said)
	}
}

// TestHandOver: a secret that goes to another image is let go of under the rule of one that is taken: in its place, and for good.
func TestHandOver(t *testing.T) {
	for _, fails := range []error{nil, errors.New("the TPM does not answer")} {
		m := newMemory()
		r := newRecorder(t, m)
		moved := 0
		move := func() error { moved++; return fails }
		if err := r.HandOver(move); err == nil || moved != 0 {
			t.Errorf("before the sequence: got error %v and %d moves, want a refusal before it moves", err, moved)
		}
		if err := measure(r, "me"); err != nil {
			t.Fatal(err)
		}
		if err := r.HandOver(move); !errors.Is(err, fails) || moved != 1 {
			t.Errorf("got error %v and %d moves, want %v and one", err, moved, fails)
		}
		if err := r.HandOver(move); err == nil || moved != 1 {
			t.Errorf("a second time: got error %v and %d moves, want a refusal", err, moved)
		}
		if taken, err := r.Secret(m); err == nil || taken.Secret != nil || m.opened != 0 {
			t.Errorf("the secret afterwards: got %v, error %v and %d unseals, want a refusal before the first", taken.Secret, err, m.opened)
		}
		// Nor does anybody else get it in this boot.
		s := m.pcr[eventlog.PCR14]
		if want := eventlog.Extend256(eventlog.Extend256(eventlog.Extend256([32]byte{}, eventlog.Record{Kind: eventlog.KindIdentity, Data: identityOf("me")}.SHA256()),
			eventlog.Record{Kind: eventlog.KindSeparator, Data: eventlog.SeparatorData()}.SHA256()), eventlog.Record{Kind: eventlog.KindKeysReleased}.SHA256()); s != want {
			t.Errorf("PCR 14 is %x, want %x, with keys-released", s, want)
		}
	}
}

func identityOf(identity string) []byte {
	digest := config.IdentityDigest([]byte(identity))
	return digest[:]
}

// TestOutOfOrder asks for each act at each place of the sequence. Only the one that follows may reach the registers or change
// what evidence says.
func TestOutOfOrder(t *testing.T) {
	acts := []struct {
		name string
		act  func(*Recorder) error
	}{
		{"config", func(r *Recorder) error {
			if err := r.Config(measured("me")); err != nil {
				return err
			}
			return r.Serves(onePair)
		}},
		{"engine", func(r *Recorder) error { return r.Engine(engineVolume) }},
		{"model", func(r *Recorder) error { return r.Model(modelVolume) }},
		{"gpu", func(r *Recorder) error { return r.GPU("none") }},
		{"secret", func(r *Recorder) error { _, err := r.Secret(r.platform.(*memory)); return err }},
		{"terminated", (*Recorder).Terminated},
	}
	for done := range len(acts) + 1 {
		for i, wrong := range acts {
			if i == done || i == len(acts)-1 && done < len(acts) {
				continue // what follows, and an end, which may come at any time
			}
			m := newMemory()
			r := newRecorder(t, m)
			for _, a := range acts[:done] {
				if err := a.act(r); err != nil {
					t.Fatal(err)
				}
			}
			log, extends, opened, config := slices.Clone(r.log), m.extends, m.opened, string(r.measured)
			err := wrong.act(r)
			if err == nil || errors.Is(err, ErrBroken) {
				t.Errorf("%s after %d acts: got error %v, want one that says what follows", wrong.name, done, err)
			}
			if !slices.Equal(r.log, log) || m.extends != extends || m.opened != opened || string(r.measured) != config {
				t.Errorf("%s after %d acts: refused, and yet log, registers or config have changed", wrong.name, done)
			}
			if done < len(acts) {
				if err := acts[done].act(r); err != nil {
					t.Errorf("after a refused %s: %s gave %v, want it to follow", wrong.name, acts[done].name, err)
				}
			}
		}
	}
	for _, tt := range []struct {
		name, want string
		acts       []int
	}{
		{"config twice", "config comes twice", []int{0, 0}},
		{"a GPU after the separator", "gpu comes twice", []int{0, 1, 2, 3, 3}},
		{"a model before its engine", "want engine", []int{0, 2}},
		{"an engine before the config", "want config", []int{1}},
		{"the secret before the separator", "want gpu", []int{0, 1, 2, 4}},
		{"an event after the end", "follows terminated", []int{0, 5, 1}},
		{"the end twice", "follows terminated", []int{0, 5, 5}},
	} {
		r := newRecorder(t, newMemory())
		var err error
		for i, n := range tt.acts {
			if err = acts[n].act(r); err != nil && i < len(tt.acts)-1 {
				t.Fatalf("%s: %v", tt.name, err)
			}
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want an error with %q", tt.name, err, tt.want)
		}
	}
}

func TestSecretAcrossBoots(t *testing.T) {
	m := newMemory()
	for _, tt := range []struct {
		name, identity string
		want           error
	}{
		{"first boot", "me", nil},
		{"the same identity", "me", nil},
		{"another identity", "you", secret.ErrSealed},
		{"the first again", "me", nil},
	} {
		m.reset()
		r := newRecorder(t, m)
		if err := measure(r, tt.identity); err != nil {
			t.Fatal(err)
		}
		got, err := r.Secret(m)
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: got error %v, want %v", tt.name, err, tt.want)
		}
		if same := got.Secret != nil && got.Secret.Equal(m.secret); same != (tt.want == nil) {
			t.Errorf("%s: got the secret: %v, want %v", tt.name, same, tt.want == nil)
		}
	}
}

// TestFailedExtend has each extend fail in turn, reaching the register and not. Nothing may be recorded, quoted or unsealed
// afterwards, whatever the register holds.
func TestFailedExtend(t *testing.T) {
	const extends = 9
	for fail := range extends {
		for _, kept := range []bool{false, true} {
			m := newMemory()
			m.failExtend, m.kept = fail, kept
			r := newRecorder(t, m)
			err := measure(r, "me")
			if err == nil {
				var got sealing.Taken
				if got, err = r.Secret(m); got.Secret != nil {
					t.Errorf("extend %d failed (kept %v): the secret came out all the same", fail, kept)
				}
			}
			if err == nil {
				t.Fatalf("extend %d failed (kept %v): got no error", fail, kept)
			}
			before := len(r.log)
			if err := r.Terminated(); !errors.Is(err, ErrBroken) {
				t.Errorf("extend %d failed (kept %v): the next event gave %v, want %v", fail, kept, err, ErrBroken)
			}
			for name, act := range map[string]func() error{
				"the config": func() error { return r.Config(measured("me")) },
				"the secret": func() error { _, err := r.Secret(m); return err },
				"evidence":   func() error { r.SetKeys(Keys{}); _, err := r.Evidence(evidence.Request{}); return err },
			} {
				opened := m.opened
				if err := act(); !errors.Is(err, ErrBroken) || m.opened != opened {
					t.Errorf("extend %d failed (kept %v): %s afterwards gave %v, want %v", fail, kept, name, err, ErrBroken)
				}
			}
			if len(r.log) != before {
				t.Errorf("extend %d failed (kept %v): the log grew", fail, kept)
			}
		}
	}
}

// TestEvidence: the caller names nonce and TLS key; everything else is the recorder's own.
func TestEvidence(t *testing.T) {
	m := newMemory()
	r := newRecorder(t, m)
	request := evidence.Request{NonceRoot: [32]byte{1}, TLSKey: [32]byte{2}, Epoch: 3, NotAfter: 4}
	if _, err := r.Evidence(request); err == nil {
		t.Error("evidence before the keys: got no error, want a refusal")
	}
	if err := measure(r, "me"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Secret(m); err != nil {
		t.Fatal(err)
	}
	keys := Keys{Receipt: [32]byte{5}, Claim: [32]byte{6}, SecretHash: [32]byte{7}}
	r.SetKeys(keys)
	e, err := r.Evidence(request)
	if err != nil {
		t.Fatal(err)
	}
	want := evidence.Statement{
		NonceRoot: [32]byte{1}, TLSKey: [32]byte{2}, Epoch: 3, NotAfter: 4, ReceiptKey: keys.Receipt, ClaimKey: keys.Claim,
		SecretHash: keys.SecretHash, ConfigHash: config.SHA256(measured("me")), LogHead: eventlog.Head(e.RuntimeLog),
	}
	if e.Statement != want {
		t.Errorf("statement: got %+v, want %+v", e.Statement, want)
	}
	if report := evidence.ReportData(want); !slices.Equal(e.Quote[:64], report[:]) {
		t.Errorf("quoted report data: got %x, want %x", e.Quote, report)
	}
	own := string(e.BootLog) == "boot log" && string(e.Config) == string(measured("me"))
	if !own || e.Platform != evidence.VTPM || len(e.Signature) != 1 || len(e.Certificates) != 1 {
		t.Errorf("evidence: got %+v, want what the platform and the recorder have", e)
	}
	if err := r.Terminated(); err != nil {
		t.Fatal(err)
	}
	later, err := r.Evidence(request)
	if err != nil {
		t.Fatal(err)
	}
	if later.Statement.LogHead == e.Statement.LogHead {
		t.Error("the log grew and its head in the statement did not change")
	}
}

// serving returns a recorder whose guest serves.
func serving(t *testing.T, m *memory) *Recorder {
	t.Helper()
	r := newRecorder(t, m)
	if err := measure(r, "me"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Secret(m); err != nil {
		t.Fatal(err)
	}
	r.SetKeys(Keys{})
	return r
}

// consistent reports whether the registers in the quote are those of the log in the evidence, whose head is in the statement.
func consistent(e *evidence.Evidence) error {
	records, err := eventlog.ParseRuntime(e.RuntimeLog)
	if err != nil {
		return err
	}
	a, b := eventlog.Replay256(records, eventlog.PCR13), eventlog.Replay256(records, eventlog.PCR14)
	report := evidence.ReportData(e.Statement)
	if !slices.Equal(e.Quote, slices.Concat(report[:], a[:], b[:])) || e.Statement.LogHead != eventlog.Head(e.RuntimeLog) {
		return fmt.Errorf("the quote is not over the log of %d records", len(records))
	}
	return nil
}

// TestFailedQuote: a platform may fail over a register that moved meanwhile; then it is asked again, and else its reason is the answer.
func TestFailedQuote(t *testing.T) {
	foreign := errors.New("a quote of other registers")
	for _, tt := range []struct {
		name   string
		moves  bool // the log, during the first quote
		fails  int  // that many quotes
		quotes int
		want   error
	}{
		{"it fails", false, 1, 1, foreign},
		{"it fails while the log moves, and then it does not", true, 1, 2, nil},
		{"it fails again", true, 2, 2, foreign},
	} {
		m := newMemory()
		r := serving(t, m)
		quotes := 0
		m.failQuote = func() error {
			if quotes++; quotes == 1 && tt.moves {
				if err := r.Terminated(); err != nil {
					t.Error(err)
				}
			}
			if quotes <= tt.fails {
				return foreign
			}
			return nil
		}
		e, err := r.Evidence(evidence.Request{})
		if !errors.Is(err, tt.want) || quotes != tt.quotes {
			t.Errorf("%s: got error %v after %d quotes, want %v after %d", tt.name, err, quotes, tt.want, tt.quotes)
		}
		if err == nil {
			if err := consistent(e); err != nil {
				t.Errorf("%s: %v", tt.name, err)
			}
		}
	}
}

// TestLogMovesDuringQuote: an event does not wait for a quote, and a quote over which the log has moved is made once more.
func TestLogMovesDuringQuote(t *testing.T) {
	for _, tt := range []struct {
		name   string
		events []eventlog.Kind // one is recorded during each quote
		quotes int
		fails  bool
	}{
		{"it does not", nil, 1, false},
		{"the end", []eventlog.Kind{eventlog.KindTerminated}, 2, false},
		{"a GPU is lost", []eventlog.Kind{eventlog.KindGPULost}, 2, false},
		{"both", []eventlog.Kind{eventlog.KindGPULost, eventlog.KindTerminated}, 2, true},
	} {
		m := newMemory()
		r := serving(t, m)
		quotes := 0
		m.whileQuote = func() {
			if quotes++; quotes <= len(tt.events) {
				if err := r.add(func(*eventlog.Sequence) {}, tt.events[quotes-1]); err != nil {
					t.Error(err)
				}
			}
		}
		e, err := r.Evidence(evidence.Request{})
		if (err != nil) != tt.fails || quotes != tt.quotes {
			t.Errorf("%s: got error %v after %d quotes, want %d", tt.name, err, quotes, tt.quotes)
		}
		if err == nil {
			err = consistent(e)
		}
		if (err != nil) != tt.fails {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// TestBrokenDuringQuote: an extend that fails while a quote is made takes the quote with it.
func TestBrokenDuringQuote(t *testing.T) {
	m := newMemory()
	r := serving(t, m)
	m.whileQuote = func() {
		m.failExtend = m.extends
		if err := r.Terminated(); err == nil {
			t.Error("a failed extend: got no error")
		}
	}
	if e, err := r.Evidence(evidence.Request{}); !errors.Is(err, ErrBroken) {
		t.Errorf("got %v and error %v, want %v", e, err, ErrBroken)
	}
}

// TestOneQuoteAtATime has two ask at once, while the platform takes its time.
func TestOneQuoteAtATime(t *testing.T) {
	m := newMemory()
	r := serving(t, m)
	inside, most := make(chan struct{}, 2), 0
	m.whileQuote = func() {
		inside <- struct{}{}
		time.Sleep(20 * time.Millisecond)
		most = max(most, len(inside))
		<-inside
	}
	done := make(chan error, 2)
	for range 2 {
		go func() { _, err := r.Evidence(evidence.Request{}); done <- err }()
	}
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if most != 1 {
		t.Errorf("got %d quotes at once, want 1", most)
	}
}

// TestAsking: a guest that has no secret has evidence that names no keys, from the end of the measured sequence until keys are released, and
// none before or after; what was lent stands in the log.
func TestAsking(t *testing.T) {
	m := newMemory()
	r := newRecorder(t, m)
	if e, err := r.Asking(evidence.Request{}); err == nil {
		t.Errorf("before the measured sequence: got %+v, want a refusal", e.Statement)
	}
	if err := measure(r, "me"); err != nil {
		t.Fatal(err)
	}
	if e, err := r.Evidence(evidence.Request{}); err == nil {
		t.Errorf("evidence of a guest with keys: got %+v, want a refusal", e.Statement)
	}
	e, err := r.Asking(evidence.Request{TLSKey: [32]byte{3}})
	if err != nil || e.Statement.TLSKey != [32]byte{3} || e.Statement.ClaimKey != (Keys{}).Claim || e.Statement.ReceiptKey != (Keys{}).Receipt ||
		e.Statement.SecretHash != [32]byte{} || e.Statement.LogHead != eventlog.Head(r.log) {
		t.Errorf("got %+v and error %v, want the key of the request and no other", e, err)
	}
	m.loan = eventlog.Loan{Number: 6, Lender: register.Digest{1}}
	if _, err := r.Secret(m); err != nil {
		t.Fatal(err)
	}
	if e, err := r.Asking(evidence.Request{}); err == nil {
		t.Errorf("after keys were released: got %+v, want a refusal", e.Statement)
	}
	records, err := eventlog.ParseRuntime(r.log)
	if err != nil {
		t.Fatal(err)
	}
	if got := (eventlog.Sequence{}).Released(records).Loan; got != m.loan {
		t.Errorf("the log says %+v, want %+v", got, m.loan)
	}
}

// TestGPUEvidence: every statement has GPUs sign its own nonce, and their digest; what they refuse is no evidence.
func TestGPUEvidence(t *testing.T) {
	m := newMemory()
	r := serving(t, m)
	var nonces [][32]byte
	fails := error(nil)
	r.SetGPUs(func(nonce [32]byte) (evidence.GPUs, error) {
		nonces = append(nonces, nonce)
		return evidence.GPUs{Devices: []evidence.Device{{Kind: evidence.KindGPU, Report: nonce[:], Chain: []byte("chain")}}, RIMs: [][]byte{{1}}}, fails
	})
	for _, request := range []evidence.Request{{NonceRoot: [32]byte{1}}, {NonceRoot: [32]byte{2}}, {TLSKey: [32]byte{3}}} {
		e, err := r.Evidence(request)
		if err != nil {
			t.Fatal(err)
		}
		if e.Statement.GPUDigest != e.GPUs.Digest() || e.GPUs.Digest() == [32]byte{} || len(e.GPUs.RIMs) != 1 || nonces[len(nonces)-1] != evidence.GPUNonce(e.Statement) {
			t.Errorf("got %+v over %x, want the digest in the statement, and its nonce", e.GPUs, nonces[len(nonces)-1])
		}
		if err := consistent(e); err != nil {
			t.Error(err)
		}
	}
	if nonces[0] == nonces[1] || nonces[1] == nonces[2] {
		t.Errorf("two statements have one nonce: %x", nonces)
	}
	// A log that moves moves the nonce.
	before := len(nonces)
	quotes := 0
	m.whileQuote = func() {
		if quotes++; quotes == 1 {
			if err := r.GPULost(); err != nil {
				t.Error(err)
			}
		}
	}
	e, err := r.Evidence(evidence.Request{})
	if err != nil || len(nonces) != before+2 || nonces[before] == nonces[before+1] || nonces[before+1] != evidence.GPUNonce(e.Statement) {
		t.Errorf("over a log that moved: got error %v and the nonces %x, want one for each log", err, nonces[before:])
	}
	fails = errors.New("fell off the bus")
	if e, err := r.Evidence(evidence.Request{}); !errors.Is(err, fails) {
		t.Errorf("got %v and error %v, want %v", e, err, fails)
	}
}

// TestGPULost: it is logged once, and not before the keys are released.
func TestGPULost(t *testing.T) {
	early := newRecorder(t, newMemory())
	if err := measure(early, "me"); err != nil {
		t.Fatal(err)
	}
	if err := early.GPULost(); err == nil || errors.Is(err, ErrBroken) {
		t.Errorf("before the keys: got %v, want a refusal that breaks nothing", err)
	}
	r := serving(t, newMemory())
	if err := r.GPULost(); err != nil {
		t.Fatal(err)
	}
	if err := r.GPULost(); err == nil {
		t.Error("twice: got no error")
	}
	if err := r.Terminated(); err != nil {
		t.Errorf("the end after it: %v", err)
	}
}
