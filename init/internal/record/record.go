// Package record owns the guest's runtime log and the evidence over it. Append and extend are one act under one owner, and a
// quote leaves with the log that it was made over, or not at all.
package record

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"

	"chrysalis/attest/evidence"
	"chrysalis/init/internal/platform"
	"chrysalis/init/internal/sealing"
	"chrysalis/measure/config"
	"chrysalis/measure/eventlog"
)

// ErrBroken says that an extend failed, after which log and register may differ. Nothing is recorded or quoted any more.
var ErrBroken = errors.New("the runtime log is broken: an extend did not succeed")

// Recorder owns the log. What has been recorded is its own state, which no caller holds a copy of: an event that does not follow
// in eventlog's sequence is refused, whoever asks for it and however often.
type Recorder struct {
	platform platform.Platform
	bootLog  []byte

	quoting sync.Mutex // held while the platform makes a quote: one at a time

	mu       sync.Mutex // held while a register is extended, never while a quote is made
	states   eventlog.Sequence
	kinds    []eventlog.Kind // what has been recorded, in order
	log      []byte
	records  uint64
	measured []byte
	broken   bool
	keys     *Keys
	binding  ed25519.PrivateKey // signs statements under COCOON's public identity; nil: hardware signs them
	gpus     func(nonce [32]byte) (evidence.GPUs, error)
}

// New returns a recorder with an empty log, and reads the firmware's.
func New(p platform.Platform) (*Recorder, error) {
	bootLog, err := p.BootLog()
	if err != nil {
		return nil, err
	}
	return &Recorder{platform: p, bootLog: bootLog}, nil
}

// Config records the measured config and its identity part, before anybody has parsed either. Where the config asks for COCOON's public
// identity, that is taken first: registers say so whatever a parser makes of the config later.
func (r *Recorder) Config(measured []byte) error {
	states, err := eventlog.Unparsed(measured)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if config.IsCocoon(measured) {
		if err := r.takePublicIdentity(); err != nil {
			return fmt.Errorf("taking public identity: %w", err)
		}
	}
	// What does not follow must not change what evidence says, either.
	if err := r.record(eventlog.KindConfig, states); err != nil {
		return err
	}
	r.measured = measured
	return r.record(eventlog.KindIdentity, states)
}

// takePublicIdentity fills the registers, and makes the key that signs statements in their place. The caller holds mu.
func (r *Recorder) takePublicIdentity() error {
	if _, err := r.next(eventlog.KindConfig); err != nil {
		return err
	}
	public, can := r.platform.(platform.Public)
	if !can {
		return platform.ErrNotPublic
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	if err := public.TakePublicIdentity(); err != nil {
		r.broken = true
		return err
	}
	r.binding = key
	return nil
}

// Serves says what the parsed config serves, once config and identity are recorded and before anything else is: engine and model follow once for
// each pair, in this order.
func (r *Recorder) Serves(pairs []eventlog.Pair) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(pairs) == 0 || len(r.states.Models) > 0 || !slices.Equal(r.kinds, []eventlog.Kind{eventlog.KindConfig, eventlog.KindIdentity}) {
		return fmt.Errorf("taking in %d models after %v: want one or more, once, after config and identity", len(pairs), r.kinds)
	}
	r.states.Models = slices.Clone(pairs)
	return nil
}

// Engine records an engine volume that was opened: that of the model whose turn it is.
func (r *Recorder) Engine(v config.Volume) error { return r.opened(eventlog.KindEngine, v) }

// Model records a model volume in the same way, behind its engine.
func (r *Recorder) Model(v config.Volume) error { return r.opened(eventlog.KindModel, v) }

// opened records a volume, and refuses one that is not the config's in that place.
func (r *Recorder) opened(k eventlog.Kind, v config.Volume) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	got, want := eventlog.VolumeData(v.Root, v.Blocks), r.states.Data(k, r.come(k))
	if _, err := r.next(k); err == nil && !bytes.Equal(got, want) {
		return fmt.Errorf("recording %s: opened is %x, want what the config names, %x", k, got, want)
	}
	return r.record(k, r.states)
}

// come returns how often an event of the kind has been recorded.
func (r *Recorder) come(k eventlog.Kind) (n int) {
	for _, before := range r.kinds {
		if before == k {
			n++
		}
	}
	return n
}

// GPU records what the GPU rule found, and closes the measured sequence.
func (r *Recorder) GPU(found string) error {
	return r.add(func(s *eventlog.Sequence) { s.GPU = found }, eventlog.KindGPU, eventlog.KindSeparator)
}

// SetGPUs says what has the guest's GPUs sign a nonce: each statement is made with it then.
func (r *Recorder) SetGPUs(sign func(nonce [32]byte) (evidence.GPUs, error)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gpus = sign
}

// GPULost records that a GPU is gone. It is refused before the keys are released.
func (r *Recorder) GPULost() error {
	return r.add(func(*eventlog.Sequence) {}, eventlog.KindGPULost)
}

// Secret takes the sealed secret out of its vault and at once records keys-released, in every register that the secret is sealed to, so
// that nobody can take it again in this boot. The event says who has held it before. It is refused, before the vault is asked, unless
// keys-released is the event that follows.
func (r *Recorder) Secret(vault sealing.Vault) (sealing.Taken, error) { return r.release(vault.Secret) }

// HandOver has move take the secret to another image, under the same rule as Secret: whatever comes of it, nobody takes the secret in
// this boot any more.
func (r *Recorder) HandOver(move func() error) error {
	_, err := r.release(func() (sealing.Taken, error) { return sealing.Taken{}, move() })
	return err
}

func (r *Recorder) release(take func() (sealing.Taken, error)) (sealing.Taken, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, err := r.next(eventlog.KindKeysReleased); err != nil {
		return sealing.Taken{}, fmt.Errorf("taking secret: %w", err)
	}
	taken, err := take()
	states := r.states
	states.Held, states.Loan = taken.Held, taken.Loan
	// Also after a refusal: the boot ends, and nothing may try again.
	released := r.record(eventlog.KindKeysReleased, states)
	if err == nil {
		err = released
	}
	if err != nil {
		if taken.Secret != nil {
			taken.Secret.Wipe()
		}
		return sealing.Taken{}, err
	}
	return taken, nil
}

// Terminated records the end of the guest. Nothing is recorded after it, and no statement signed.
func (r *Recorder) Terminated() error {
	r.mu.Lock()
	clear(r.binding)
	r.binding = nil
	r.mu.Unlock()
	return r.add(func(*eventlog.Sequence) {}, eventlog.KindTerminated)
}

// add records events of a sequence that states what change adds.
func (r *Recorder) add(change func(*eventlog.Sequence), kinds ...eventlog.Kind) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	states := r.states
	change(&states)
	for _, k := range kinds {
		if err := r.record(k, states); err != nil {
			return err
		}
	}
	return nil
}

// next returns the places of an event, and refuses one that does not follow.
func (r *Recorder) next(k eventlog.Kind) ([]eventlog.Place, error) {
	if r.broken {
		return nil, ErrBroken
	}
	return r.states.Next(r.platform.Registers(), r.kinds, k)
}

// record appends and extends, in each register of the event. The register goes first: an event that is in the log is in the
// register, and one that is in the register alone makes the log useless for ever, which is what broken says.
func (r *Recorder) record(k eventlog.Kind, states eventlog.Sequence) error {
	places, err := r.next(k)
	if err != nil {
		return fmt.Errorf("recording %s: %w", k, err)
	}
	number := r.come(k)
	for _, p := range places {
		record := eventlog.Record{Number: r.records, Register: p.Register, Kind: k, Data: states.Data(k, number)}
		if err := r.platform.Extend(record); err != nil {
			r.broken = true
			return fmt.Errorf("recording %s: %v", k, err)
		}
		r.log = record.Append(r.log)
		r.records++
	}
	r.kinds, r.states = append(r.kinds, k), states
	return nil
}
