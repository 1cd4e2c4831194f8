package quote

import (
	"errors"
	"slices"
	"testing"

	"chrysalis/attest/evidence"
	"chrysalis/init/internal/tpm"
	"chrysalis/measure/config"
	"chrysalis/measure/eventlog"
	"chrysalis/measure/register"
	"chrysalis/runtime/secret"
)

// memory is a TPM in memory: two registers, a secret that is bound to PCR 14, and hooks that fail.
type memory struct {
	pcr        map[eventlog.Register][32]byte
	sealedTo   *[32]byte
	secret     *secret.Secret
	extends    int
	failExtend int  // the extend of this number fails
	kept       bool // a failed extend reached the register all the same
	boots      uint64
}

func newMemory() *memory {
	s, err := secret.Random()
	if err != nil {
		panic(err)
	}
	return &memory{pcr: map[eventlog.Register][32]byte{}, secret: s, failExtend: -1}
}

func (m *memory) Extend(r eventlog.Record) error {
	m.extends++
	fails := m.extends-1 == m.failExtend
	if !fails || m.kept {
		m.pcr[r.Register] = eventlog.Extend256(m.pcr[r.Register], r.SHA256())
	}
	if fails {
		return errors.New("the TPM does not answer")
	}
	return nil
}

func (m *memory) Secret() (*secret.Secret, uint64, error) {
	now := m.pcr[eventlog.PCR14]
	if m.sealedTo == nil {
		m.sealedTo = &now
	}
	if *m.sealedTo != now {
		return nil, 0, tpm.ErrUnsealRefused
	}
	var taken *secret.Secret
	var err error
	m.secret.Expose(func(raw []byte) { taken, err = secret.New(raw) })
	return taken, m.boots, err
}

func (m *memory) reset() { m.pcr = map[eventlog.Register][32]byte{}; m.extends = 0 }
func (m *memory) Quote(report [64]byte) (tpm.Quote, error) {
	return tpm.Quote{Attest: report[:], Signature: []byte{1}}, nil
}
func (m *memory) AKCertificate() ([]byte, error) { return []byte("certificate"), nil }
func (m *memory) Increment() error               { m.boots++; return nil }

var engineVolume, modelVolume = config.Volume{Root: register.Digest{1}, Blocks: 10}, config.Volume{Root: register.Digest{2}, Blocks: 20}

// measure goes through the measured sequence.
func measure(r *Recorder, identity string) (Complete, error) {
	configured, err := r.Begin().Config([]byte("measured"), []byte(identity))
	if err != nil {
		return Complete{}, err
	}
	engined, err := configured.Engine(engineVolume)
	if err != nil {
		return Complete{}, err
	}
	modelled, err := engined.Model(modelVolume)
	if err != nil {
		return Complete{}, err
	}
	return modelled.GPU("none")
}

func TestSequence(t *testing.T) {
	m := newMemory()
	r := NewRecorder(m)
	complete, err := measure(r, "me")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := complete.Secret(); err != nil {
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

func TestSecretOnce(t *testing.T) {
	m := newMemory()
	complete, err := measure(NewRecorder(m), "me")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := complete.Secret(); err != nil {
		t.Fatal(err)
	}
	if again, _, err := complete.Secret(); !errors.Is(err, tpm.ErrUnsealRefused) || again != nil {
		t.Errorf("second unseal: got %v and error %v, want %v", again, err, tpm.ErrUnsealRefused)
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
		{"another identity", "you", tpm.ErrUnsealRefused},
		{"the first again", "me", nil},
	} {
		m.reset()
		complete, err := measure(NewRecorder(m), tt.identity)
		if err != nil {
			t.Fatal(err)
		}
		got, _, err := complete.Secret()
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: got error %v, want %v", tt.name, err, tt.want)
		}
		if same := got != nil && got.Equal(m.secret); same != (tt.want == nil) {
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
			r := NewRecorder(m)
			complete, err := measure(r, "me")
			if err == nil {
				var got *secret.Secret
				if got, _, err = complete.Secret(); got != nil {
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
			if len(r.log) != before {
				t.Errorf("extend %d failed (kept %v): the log grew", fail, kept)
			}
		}
	}
}

// TestEvidence: the caller names nonce and TLS key; everything else is the recorder's own.
func TestEvidence(t *testing.T) {
	m := newMemory()
	r := NewRecorder(m)
	request := evidence.Request{NonceRoot: [32]byte{1}, TLSKey: [32]byte{2}, Epoch: 3, NotAfter: 4}
	if _, err := r.Evidence(request); err == nil {
		t.Error("evidence before the keys: got no error, want a refusal")
	}
	complete, err := measure(r, "me")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := complete.Secret(); err != nil {
		t.Fatal(err)
	}
	keys := Keys{Receipt: [32]byte{5}, Claim: [32]byte{6}, SecretHash: [32]byte{7}}
	r.SetKeys(keys)
	r.SetBootLog([]byte("boot log"))
	e, err := r.Evidence(request)
	if err != nil {
		t.Fatal(err)
	}
	want := evidence.Statement{NonceRoot: [32]byte{1}, TLSKey: [32]byte{2}, Epoch: 3, NotAfter: 4, ReceiptKey: keys.Receipt, ClaimKey: keys.Claim,
		SecretHash: keys.SecretHash, ConfigHash: config.SHA256([]byte("measured")), LogHead: eventlog.Head(e.RuntimeLog)}
	if e.Statement != want {
		t.Errorf("statement: got %+v, want %+v", e.Statement, want)
	}
	if report := evidence.ReportData(want); !slices.Equal(e.Quote, report[:]) {
		t.Errorf("quoted report data: got %x, want %x", e.Quote, report)
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
