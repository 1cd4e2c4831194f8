package record

import (
	"errors"
	"fmt"
	"slices"

	"chrysalis/attest/evidence"
	"chrysalis/measure/config"
	"chrysalis/measure/eventlog"
	"chrysalis/measure/pubkey"
)

// Keys are the public values that follow from the sealed secret. They are in every statement, and no caller can name
// others.
type Keys struct {
	Receipt    pubkey.Ed25519
	Claim      pubkey.Ed25519
	SecretHash [32]byte
}

// SetKeys says which keys the guest's statements carry.
func (r *Recorder) SetKeys(k Keys) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keys = &k
}

// quoteTries is how often a quote is made anew because an event was recorded meanwhile. After the keys are released two more can
// come at most, and the last of them ends the guest.
const quoteTries = 2

// Evidence makes a statement from the request and from the recorder's own state, and has it quoted. The caller decides over
// nonces and its TLS key, and over nothing else.
//
// The log goes on while the platform answers. The quote of a register covers whatever was extended by then, so evidence over
// which the log has moved is thrown away and made once more, and a platform that met a register in between may have failed over it.
func (r *Recorder) Evidence(request evidence.Request) (*evidence.Evidence, error) {
	return r.made(request, r.keysOf)
}

// Asking is Evidence of a guest that has no secret yet and asks to have one lent: its statement names no key but the one of the request. It is
// refused unless keys-released is the event that follows.
func (r *Recorder) Asking(request evidence.Request) (*evidence.Evidence, error) {
	return r.made(request, func() (Keys, error) {
		_, err := r.next(eventlog.KindKeysReleased)
		return Keys{}, err
	})
}

// keysOf returns the keys that follow from the secret. The caller holds mu.
func (r *Recorder) keysOf() (Keys, error) {
	if r.keys == nil {
		return Keys{}, errors.New("the keys are not there yet")
	}
	return *r.keys, nil
}

func (r *Recorder) made(request evidence.Request, keysOf func() (Keys, error)) (*evidence.Evidence, error) {
	r.quoting.Lock()
	defer r.quoting.Unlock()
	for range quoteTries {
		e, sign, records, err := r.snapshot(request, keysOf)
		if err == nil && sign != nil {
			if e.GPUs, err = sign(evidence.GPUNonce(e.Statement)); err == nil {
				e.Statement.GPUDigest = e.GPUs.Digest()
			}
		}
		if err == nil {
			err = r.bind(e)
		}
		if err != nil {
			return nil, fmt.Errorf("making evidence: %w", err)
		}
		quoted, failed := r.platform.Quote(e.ReportData())
		still, err := r.still(records)
		if err != nil {
			return nil, fmt.Errorf("making evidence: %w", err)
		}
		if still && failed != nil {
			return nil, fmt.Errorf("making evidence: %w", failed)
		}
		if still {
			e.Platform, e.Quote, e.Signature = quoted.Platform, quoted.Quote, quoted.Signature
			e.Certificates, e.Collateral = quoted.Certificates, quoted.Collateral
			return e, nil
		}
	}
	return nil, fmt.Errorf("making evidence: the log moved during each of %d quotes", quoteTries)
}

// snapshot returns evidence without its quote and without what GPUs sign for it, what has them sign, and the number of records in its log.
func (r *Recorder) snapshot(request evidence.Request, keysOf func() (Keys, error)) (*evidence.Evidence, func([32]byte) (evidence.GPUs, error), uint64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.broken {
		return nil, nil, 0, ErrBroken
	}
	keys, err := keysOf()
	if err != nil {
		return nil, nil, 0, err
	}
	return &evidence.Evidence{
		Statement: evidence.Statement{
			NonceRoot: request.NonceRoot, TLSKey: request.TLSKey, HPKEKey: request.HPKEKey,
			Epoch: request.Epoch, NotAfter: request.NotAfter,
			ReceiptKey: keys.Receipt, ClaimKey: keys.Claim, SecretHash: keys.SecretHash,
			ConfigHash: config.SHA256(r.measured),
			LogHead:    eventlog.Head(r.log),
		},
		Config: slices.Clone(r.measured), RuntimeLog: slices.Clone(r.log), BootLog: r.bootLog,
	}, r.gpus, r.records, nil
}

// bind signs the statement where the guest has COCOON's public identity: its report data names a key. Nobody but the recorder has it, so
// that no other process of the guest can state anything.
func (r *Recorder) bind(e *evidence.Evidence) error {
	if !config.IsCocoon(e.Config) {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.binding == nil {
		return errors.New("the key that signs statements is gone")
	}
	e.Binding = evidence.Bind(r.binding, e.Statement)
	return nil
}

// still reports whether the log has as many records as before. An event that is being recorded is waited for.
func (r *Recorder) still(records uint64) (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.broken {
		return false, ErrBroken
	}
	return r.records == records, nil
}
