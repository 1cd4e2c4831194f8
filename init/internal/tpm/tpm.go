// Package tpm is the only user of the guest's TPM. It quotes, extends and seals; no other process can open the device.
//
// A TPM that the host emulates proves measurement and protocol to a client that trusts its maker, and keeps nothing from
// the host itself.
package tpm

import (
	"errors"
	"fmt"
	"io"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"chrysalis/attest/vtpm/enrol"
	"chrysalis/measure/eventlog"
	"chrysalis/measure/register"
)

// TPM wraps a transport. It is not safe for concurrent use: one goroutine owns it.
type TPM struct{ t transport.TPM }

// New returns a TPM that speaks over t.
func New(t transport.TPM) *TPM { return &TPM{t} }

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

// Quote is a TPM's signed statement about its PCRs.
type Quote struct {
	Attest    []byte // TPMS_ATTEST
	Signature []byte // TPMT_SIGNATURE
}

// Quote quotes register.Quoted with reportData as qualifying data.
func (t *TPM) Quote(reportData [64]byte) (Quote, error) {
	ak, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHEndorsement, InPublic: tpm2.New2B(enrol.AKTemplate())}.Execute(t.t)
	if err != nil {
		return Quote{}, fmt.Errorf("quoting: making attestation key: %v", err)
	}
	defer t.flush(ak.ObjectHandle)
	quote, err := tpm2.Quote{
		SignHandle:     tpm2.NamedHandle{Handle: ak.ObjectHandle, Name: ak.Name},
		QualifyingData: tpm2.TPM2BData{Buffer: reportData[:]},
		InScheme:       tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
		PCRSelect:      selection(register.Quoted()...),
	}.Execute(t.t)
	if err != nil {
		return Quote{}, fmt.Errorf("quoting: %v", err)
	}
	return Quote{Attest: quote.Quoted.Bytes(), Signature: tpm2.Marshal(quote.Signature)}, nil
}

// AKCertificate returns the DER certificate of the attestation key that the TPM's maker left in NV memory.
func (t *TPM) AKCertificate() ([]byte, error) {
	cert, err := t.readNV(enrol.AKCertificateIndex)
	if err != nil {
		return nil, fmt.Errorf("reading attestation key certificate: %v", err)
	}
	return cert, nil
}

const (
	maxNVBytes   = 8 << 10
	nvChunkBytes = 512
)

func (t *TPM) readNV(index tpm2.TPMHandle) ([]byte, error) {
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
	var data []byte
	for len(data) < int(contents.DataSize) {
		part, err := tpm2.NVRead{
			AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
			NVIndex:    tpm2.NamedHandle{Handle: index, Name: public.NVName},
			Size:       uint16(min(nvChunkBytes, int(contents.DataSize)-len(data))),
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
