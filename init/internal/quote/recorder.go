package quote

import (
	"errors"
	"fmt"
	"sync"

	"chrysalis/init/internal/tpm"
	"chrysalis/measure/config"
	"chrysalis/measure/eventlog"
	"chrysalis/runtime/secret"
)

// ErrBroken says that an extend failed, after which log and register may differ. Nothing is recorded or quoted any more.
var ErrBroken = errors.New("the runtime log is broken: an extend did not succeed")

// Device is what the recorder needs of the TPM.
type Device interface {
	Extend(eventlog.Record) error
	Quote(reportData [64]byte) (tpm.Quote, error)
	AKCertificate() ([]byte, error)
	Secret() (s *secret.Secret, boots uint64, err error)
	Increment() error
}

// Recorder owns the device and the log.
type Recorder struct {
	mu       sync.Mutex
	device   Device
	log      []byte
	records  uint64
	measured []byte
	broken   bool

	keys        *Keys
	bootLog     []byte
	certificate []byte
}

// NewRecorder returns a recorder with an empty log.
func NewRecorder(d Device) *Recorder { return &Recorder{device: d} }

// Measured is the measured sequence of a boot. Its methods return the next state, so that no event can come twice or in
// another order, and nothing can take the secret before all of it is measured.
type (
	// Start is the state before any event.
	Start struct{ r *Recorder }
	// Configured follows the config and identity events.
	Configured struct{ r *Recorder }
	// Engined follows the engine event.
	Engined struct{ r *Recorder }
	// Modelled follows the model event.
	Modelled struct{ r *Recorder }
	// Complete follows the GPU event and the separators.
	Complete struct{ r *Recorder }
)

// Begin starts the measured sequence.
func (r *Recorder) Begin() Start { return Start{r} }

// Config records the measured config, before anybody has parsed it: identity is its first part as it lies there.
func (s Start) Config(measured, identity []byte) (Configured, error) {
	digest, of := config.SHA256(measured), config.IdentityDigest(identity)
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	s.r.measured = measured
	return Configured(s), s.r.record(
		event{eventlog.PCR13, eventlog.KindConfig, digest[:]},
		event{eventlog.PCR14, eventlog.KindIdentity, of[:]})
}

// Engine records the engine volume.
func (s Configured) Engine(v config.Volume) (Engined, error) {
	return Engined(s), s.r.lockedRecord(event{eventlog.PCR13, eventlog.KindEngine, eventlog.VolumeData(v.Root, v.Blocks)})
}

// Model records the model volume.
func (s Engined) Model(v config.Volume) (Modelled, error) {
	return Modelled(s), s.r.lockedRecord(event{eventlog.PCR13, eventlog.KindModel, eventlog.VolumeData(v.Root, v.Blocks)})
}

// GPU records what the GPU rule found, and closes the measured sequence.
func (s Modelled) GPU(found string) (Complete, error) {
	return Complete(s), s.r.lockedRecord(
		event{eventlog.PCR13, eventlog.KindGPU, []byte(found)},
		event{eventlog.PCR13, eventlog.KindSeparator, eventlog.SeparatorData()},
		event{eventlog.PCR14, eventlog.KindSeparator, eventlog.SeparatorData()})
}

// Secret takes the sealed secret and at once records keys-released, in every register that the secret is sealed to, so
// that nobody can take it again in this boot. boots counts the boots since the secret was made.
func (s Complete) Secret() (taken *secret.Secret, boots uint64, err error) {
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	if s.r.broken {
		return nil, 0, ErrBroken
	}
	taken, boots, err = s.r.device.Secret()
	// Also after a refusal: the boot ends, and nothing may try again.
	released := s.r.record(
		event{eventlog.PCR13, eventlog.KindKeysReleased, nil},
		event{eventlog.PCR14, eventlog.KindKeysReleased, nil})
	if err != nil {
		return nil, 0, err
	}
	if released != nil {
		taken.Wipe()
		return nil, 0, released
	}
	return taken, boots, nil
}

// CountBoot adds one to the boot counter, once the journal carries the boot.
func (r *Recorder) CountBoot() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.device.Increment()
}

// Terminated records the end of the guest.
func (r *Recorder) Terminated() error {
	return r.lockedRecord(event{eventlog.PCR13, eventlog.KindTerminated, nil})
}

type event struct {
	register eventlog.Register
	kind     eventlog.Kind
	data     []byte
}

func (r *Recorder) lockedRecord(events ...event) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.record(events...)
}

// record appends and extends. The register goes first: an event that is in the log is in the register, and one that is in
// the register alone makes the log useless for ever, which is what broken says.
func (r *Recorder) record(events ...event) error {
	for _, e := range events {
		if r.broken {
			return ErrBroken
		}
		record := eventlog.Record{Number: r.records, Register: e.register, Kind: e.kind, Data: e.data}
		if err := r.device.Extend(record); err != nil {
			r.broken = true
			return fmt.Errorf("recording %s: %v", e.kind, err)
		}
		r.log = record.Append(r.log)
		r.records++
	}
	return nil
}
