// Package vtpm is a TPM as a guest's platform: it extends PCRs, quotes them and seals to them.
//
// A TPM that the host emulates proves measurement and protocol to a client that trusts its maker, and keeps nothing from
// the host itself. Inside the guest init is its one user by plan, not by force: root beside init can open the device, too, and
// have it quote what it likes. What it can't have is the secret, which opens for nobody once init has recorded that the keys
// are released.
package vtpm

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"chrysalis/attest/evidence"
	"chrysalis/attest/vtpm/template"
	"chrysalis/measure/config"
	"chrysalis/measure/eventlog"
	"chrysalis/measure/register"
)

// TPM is a guest's TPM. It is safe for concurrent use, but for Secret and Move, during which nobody may extend what it is sealed to.
type TPM struct {
	t       transport.TPM
	bootLog string

	mu          sync.Mutex
	certificate []byte // of the attestation key, once it was read
}

// Registers are PCRs 13 and 14.
func (t *TPM) Registers() eventlog.Registers { return eventlog.InPCRs }

// Extend extends a PCR's SHA-256 bank with the record's digest.
func (t *TPM) Extend(r eventlog.Record) error {
	digest := r.SHA256()
	_, err := tpm2.PCRExtend{
		PCRHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(r.Register), Auth: tpm2.PasswordAuth(nil)},
		Digests:   tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{HashAlg: tpm2.TPMAlgSHA256, Digest: digest[:]}}},
	}.Execute(t.t)
	if err != nil {
		return fmt.Errorf("extending PCR %d: %v", r.Register, err)
	}
	return nil
}

// Launched does nothing: a TPM has no field that is given at launch.
func (t *TPM) Launched([]byte) error { return nil }

// UseHost does nothing: a TPM holds what goes with its quotes.
func (t *TPM) UseHost(config.Host) error { return nil }

// Quote quotes register.Quoted with reportData as qualifying data.
func (t *TPM) Quote(reportData [64]byte) (evidence.Evidence, error) {
	certificate, err := t.akCertificate()
	if err != nil {
		return evidence.Evidence{}, fmt.Errorf("quoting: %w", err)
	}
	ak, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHEndorsement, InPublic: tpm2.New2B(template.AK())}.Execute(t.t)
	if err != nil {
		return evidence.Evidence{}, fmt.Errorf("quoting: making attestation key: %v", err)
	}
	defer t.flush(ak.ObjectHandle)
	quote, err := tpm2.Quote{
		SignHandle:     tpm2.NamedHandle{Handle: ak.ObjectHandle, Name: ak.Name},
		QualifyingData: tpm2.TPM2BData{Buffer: reportData[:]},
		InScheme:       tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
		PCRSelect:      selection(register.Quoted()...),
	}.Execute(t.t)
	if err != nil {
		return evidence.Evidence{}, fmt.Errorf("quoting: %v", err)
	}
	return evidence.Evidence{
		Platform: evidence.VTPM, Quote: quote.Quoted.Bytes(), Signature: tpm2.Marshal(quote.Signature), Certificates: [][]byte{certificate},
	}, nil
}

// akCertificate returns the DER certificate of the attestation key that the TPM's maker left in NV memory.
func (t *TPM) akCertificate() ([]byte, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.certificate == nil {
		certificate, err := t.readNV(template.AKCertificate, 0)
		if err != nil {
			return nil, fmt.Errorf("reading attestation key certificate: %v", err)
		}
		t.certificate = certificate
	}
	return t.certificate, nil
}

const (
	maxNVBytes   = 8 << 10
	nvChunkBytes = 512
)

// readNV reads the first bytes of an index, of which it must have as many; 0: all that it has.
func (t *TPM) readNV(index tpm2.TPMHandle, size int) ([]byte, error) {
	public, err := tpm2.NVReadPublic{NVIndex: index}.Execute(t.t)
	if err != nil {
		return nil, err
	}
	contents, err := public.NVPublic.Contents()
	if err != nil {
		return nil, err
	}
	if contents.DataSize > maxNVBytes {
		return nil, fmt.Errorf("index %#x has %d bytes, want at most %d", uint32(index), contents.DataSize, maxNVBytes)
	}
	if size == 0 {
		size = int(contents.DataSize)
	}
	if size > int(contents.DataSize) {
		return nil, fmt.Errorf("index %#x has %d bytes, want %d", uint32(index), contents.DataSize, size)
	}
	var data []byte
	for len(data) < size {
		part, err := tpm2.NVRead{
			AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
			NVIndex:    tpm2.NamedHandle{Handle: index, Name: public.NVName},
			Size:       uint16(min(nvChunkBytes, size-len(data))),
			Offset:     uint16(len(data)),
		}.Execute(t.t)
		if err != nil {
			return nil, err
		}
		if len(part.Data.Buffer) == 0 {
			return nil, io.ErrUnexpectedEOF
		}
		data = append(data, part.Data.Buffer...)
	}
	return data, nil
}

func (t *TPM) flush(handle tpm2.TPMHandle) {
	// A handle that can't be flushed is gone at the next reset.
	_, _ = tpm2.FlushContext{FlushHandle: handle}.Execute(t.t)
}

func selection(pcrs ...uint) tpm2.TPMLPCRSelection {
	return tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{{
		Hash: tpm2.TPMAlgSHA256, PCRSelect: tpm2.PCClientCompatible.PCRs(pcrs...),
	}}}
}

// absent reports whether err says that a handle or index does not exist.
func absent(err error) bool {
	return errors.Is(err, tpm2.TPMRCHandle)
}
