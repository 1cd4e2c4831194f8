package quote

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"chrysalis/attest/evidence"
	"chrysalis/measure/config"
	"chrysalis/measure/eventlog"
)

// Keys are the public values that follow from the sealed secret. They are in every statement, and no caller can name
// others.
type Keys struct {
	Receipt    [32]byte // Ed25519
	Claim      [32]byte // Ed25519
	SecretHash [32]byte
}

// SetKeys says which keys the guest's statements carry.
func (r *Recorder) SetKeys(k Keys) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keys = &k
}

// SetBootLog says what the firmware's log is. It is evidence, not truth: the quote decides.
func (r *Recorder) SetBootLog(log []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bootLog = log
}

// Evidence makes a statement from the request and from the recorder's own state, and quotes it. The caller decides over
// nonces and its TLS key, and over nothing else.
func (r *Recorder) Evidence(request evidence.Request) (*evidence.Evidence, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.broken {
		return nil, ErrBroken
	}
	if r.keys == nil {
		return nil, errors.New("making evidence: the keys are not there yet")
	}
	certificate, err := r.akCertificate()
	if err != nil {
		return nil, err
	}
	statement := evidence.Statement{
		NonceRoot: request.NonceRoot, TLSKey: request.TLSKey, HPKEKey: request.HPKEKey,
		Epoch: request.Epoch, NotAfter: request.NotAfter,
		ReceiptKey: r.keys.Receipt, ClaimKey: r.keys.Claim, SecretHash: r.keys.SecretHash,
		ConfigHash: config.SHA256(r.measured),
		LogHead:    eventlog.Head(r.log),
	}
	quoted, err := r.device.Quote(evidence.ReportData(statement))
	if err != nil {
		return nil, fmt.Errorf("making evidence: %w", err)
	}
	return &evidence.Evidence{
		Platform: evidence.VTPM, Statement: statement,
		Config: bytes.Clone(r.measured), RuntimeLog: slices.Clone(r.log), BootLog: r.bootLog,
		Quote: quoted.Attest, Signature: quoted.Signature, Certificates: [][]byte{certificate},
	}, nil
}

func (r *Recorder) akCertificate() ([]byte, error) {
	if r.certificate == nil {
		certificate, err := r.device.AKCertificate()
		if err != nil {
			return nil, fmt.Errorf("making evidence: %w", err)
		}
		r.certificate = certificate
	}
	return r.certificate, nil
}
