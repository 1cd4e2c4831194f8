// Package evidence is what travels: what a guest hands out to prove what it is, the statement in it that the hardware signs,
// the tree of challenges that one quote answers, and the certificate extension that carries it.
//
//	report := evidence.ReportData(statement)            // a guest has its hardware sign it
//	encoded, err := (&evidence.Evidence{…}).Encode()    // and hands this out
//	e, err := evidence.Decode(encoded)                  // a client reads it, and has attest.Verify judge it
//
// Nothing here judges, so a guest's programs have it without a verifier. EVIDENCE.md beside this file is the specification.
package evidence

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// Platform is the kind of hardware that measured and signed.
type Platform uint8

// The platforms.
const (
	VTPM   Platform = 1 // a TPM that the host runs
	TDX    Platform = 2
	SEVSNP Platform = 3
)

// Platforms returns all of them.
func Platforms() []Platform { return []Platform{VTPM, TDX, SEVSNP} }

func (p Platform) String() string {
	switch p {
	case VTPM:
		return "vtpm"
	case TDX:
		return "tdx"
	case SEVSNP:
		return "sev-snp"
	}
	return fmt.Sprintf("platform %d", uint8(p))
}

// Evidence is what a guest hands out to prove what it is. Every field is untrusted: only Verify tells what is true of it.
type Evidence struct {
	Platform  Platform
	Statement Statement
	Path      Path   // from the challenge's leaf to the statement's nonce root; none in epoch evidence
	Config    []byte // measured config
	// RuntimeLog is the log behind PCR 13 and 14 (RTMR3), of init.
	RuntimeLog []byte
	// BootLog is the log behind the other registers, of firmware and boot loader: a TCG2 log, a CCEL on TDX.
	BootLog []byte
	// Quote is the signed structure: TPMS_ATTEST of a TPM, the whole quote of TDX, the report of SEV-SNP.
	Quote []byte
	// Signature stands beside the quote where it is not part of it: TPMT_SIGNATURE of a TPM.
	Signature []byte
	// Certificates lead from the quote's key towards a root, the key's own first, in DER. A TDX quote carries its own.
	Certificates [][]byte
	// Collateral is stapled, so that a client can verify offline: Intel's in JSON on TDX, AMD's revocation list in DER on
	// SEV-SNP. Whoever hands the evidence on may put newer collateral in its place.
	Collateral []byte
	// HPKE is the public key that the statement names: ML-KEM-768 with X25519, as crypto/hpke writes it. A certificate leaves it out.
	HPKE []byte
	// Binding is there where the config asks for COCOON's public identity: it stands between quote and statement.
	Binding Binding
	// GPUs is there where the config asks for some. A certificate has the devices without what is stapled.
	GPUs GPUs
}

const (
	evidenceMagic = "CHRYEVD1"

	// MaxBytes bounds encoded evidence.
	MaxBytes = 1 << 20

	// HPKEBytes is the length of an HPKE key.
	HPKEBytes = 1216
)

// section numbers of the encoding, in the order in which they stand.
const (
	sectionPath         = 1
	sectionConfig       = 2
	sectionRuntimeLog   = 3
	sectionBootLog      = 4
	sectionQuote        = 5
	sectionSignature    = 6
	sectionCertificates = 7
	sectionCollateral   = 8
	sectionHPKE         = 9
	sectionDevices      = 10
	sectionRIMs         = 11
	sectionOCSP         = 12
	sectionAuthorities  = 13
	sectionBinding      = 14
)

// sectionLimits bounds each section in bytes; a number without a limit is no section.
var sectionLimits = map[uint8]int{
	sectionPath: maxPathBytes, sectionConfig: 96 << 10, sectionRuntimeLog: 64 << 10, sectionBootLog: 256 << 10,
	sectionQuote: 16 << 10, sectionSignature: 4 << 10, sectionCertificates: 64 << 10, sectionCollateral: 512 << 10,
	sectionHPKE: HPKEBytes, sectionDevices: MaxDeviceBytes, sectionRIMs: 256 << 10, sectionOCSP: 192 << 10, sectionAuthorities: 24 << 10,
	sectionBinding: bindingBytes,
}

// Encode returns the one encoding of the evidence.
func (e *Evidence) Encode() ([]byte, error) {
	b := append([]byte(evidenceMagic), byte(e.Platform))
	b = append(b, e.Statement.Encode()...)
	for _, s := range []struct {
		number uint8
		body   []byte
	}{
		{sectionPath, e.Path.encode()}, {sectionConfig, e.Config}, {sectionRuntimeLog, e.RuntimeLog}, {sectionBootLog, e.BootLog},
		{sectionQuote, e.Quote}, {sectionSignature, e.Signature},
		{sectionCertificates, encodeList(e.Certificates)}, {sectionCollateral, e.Collateral}, {sectionHPKE, e.HPKE},
		{sectionDevices, EncodeDevices(e.GPUs.Devices)}, {sectionRIMs, encodeList(e.GPUs.RIMs)}, {sectionOCSP, encodeList(e.GPUs.OCSP)},
		{sectionAuthorities, encodeList(e.GPUs.Authorities)}, {sectionBinding, e.Binding.encode()},
	} {
		if len(s.body) == 0 {
			continue
		}
		b = append(b, s.number)
		b = append(binary.LittleEndian.AppendUint32(b, uint32(len(s.body))), s.body...)
	}
	// What the other side would refuse is refused here, by the same code.
	if _, err := Decode(b); err != nil {
		return nil, fmt.Errorf("encoding evidence: %w", err)
	}
	return b, nil
}

// WithPath puts a path into encoded evidence that has none. What it returns is the encoding in two pieces: the second is all that
// evidence for other paths has in common, and shares memory with encoded.
func WithPath(encoded []byte, p Path) (head, rest []byte, err error) {
	const fixed = len(evidenceMagic) + 1 + StatementSize
	if len(encoded) < fixed || string(encoded[:len(evidenceMagic)]) != evidenceMagic {
		return nil, nil, fmt.Errorf("adding path: no %s header in %d bytes, want at least %d", evidenceMagic, len(encoded), fixed)
	}
	if rest = encoded[fixed:]; len(rest) > 0 && rest[0] == sectionPath {
		return nil, nil, errors.New("adding path: the evidence has one already")
	}
	path := p.encode()
	if _, err := decodePath(path); err != nil {
		return nil, nil, fmt.Errorf("adding path: %w", err)
	}
	if n := len(encoded) + 5 + len(path); n > MaxBytes {
		return nil, nil, fmt.Errorf("adding path: %d bytes, want at most %d", n, MaxBytes)
	}
	head = slices.Clone(encoded[:fixed])
	head = binary.LittleEndian.AppendUint32(append(head, sectionPath), uint32(len(path)))
	return append(head, path...), rest, nil
}

// Decode parses encoded evidence. There is one encoding: sections in ascending order, none empty, none unknown,
// nothing after the last. The parts inside the sections are parsed by Verify.
func Decode(b []byte) (*Evidence, error) {
	e, err := decodeEvidence(b)
	if err != nil {
		return nil, fmt.Errorf("decoding evidence: %w", err)
	}
	return e, nil
}

func decodeEvidence(b []byte) (*Evidence, error) {
	if len(b) > MaxBytes {
		return nil, fmt.Errorf("%d bytes, want at most %d", len(b), MaxBytes)
	}
	const fixed = len(evidenceMagic) + 1 + StatementSize
	if len(b) < fixed || string(b[:len(evidenceMagic)]) != evidenceMagic {
		return nil, fmt.Errorf("no %s header in %d bytes, want at least %d", evidenceMagic, len(b), fixed)
	}
	e := &Evidence{Platform: Platform(b[len(evidenceMagic)])}
	if !slices.Contains(Platforms(), e.Platform) {
		return nil, fmt.Errorf("%s is unknown", e.Platform)
	}
	var err error
	if e.Statement, err = DecodeStatement(b[len(evidenceMagic)+1 : fixed]); err != nil {
		return nil, err
	}
	last := uint8(0)
	for rest := b[fixed:]; len(rest) > 0; {
		if len(rest) < 5 {
			return nil, fmt.Errorf("%d bytes left, want a section's number and length in 5", len(rest))
		}
		number, size := rest[0], binary.LittleEndian.Uint32(rest[1:])
		rest = rest[5:]
		limit, known := sectionLimits[number]
		if !known || number <= last {
			return nil, fmt.Errorf("section %d after section %d, want a known and higher one", number, last)
		}
		if size == 0 || int64(size) > int64(limit) || int64(size) > int64(len(rest)) {
			return nil, fmt.Errorf("section %d has %d bytes, want 1 to %d and at most the %d left", number, size, limit, len(rest))
		}
		if err := e.set(number, rest[:size:size]); err != nil {
			return nil, fmt.Errorf("section %d: %w", number, err)
		}
		last, rest = number, rest[size:]
	}
	return e, nil
}

func (e *Evidence) set(number uint8, body []byte) (err error) {
	switch number {
	case sectionPath:
		e.Path, err = decodePath(body)
	case sectionConfig:
		e.Config = body
	case sectionRuntimeLog:
		e.RuntimeLog = body
	case sectionBootLog:
		e.BootLog = body
	case sectionQuote:
		e.Quote = body
	case sectionSignature:
		e.Signature = body
	case sectionCertificates:
		e.Certificates, err = decodeList(body)
	case sectionCollateral:
		e.Collateral = body
	case sectionHPKE:
		e.HPKE = body
	case sectionDevices:
		e.GPUs.Devices, err = DecodeDevices(body)
	case sectionRIMs:
		e.GPUs.RIMs, err = decodeList(body)
	case sectionOCSP:
		e.GPUs.OCSP, err = decodeList(body)
	case sectionAuthorities:
		e.GPUs.Authorities, err = decodeList(body)
	case sectionBinding:
		e.Binding, err = decodeBinding(body)
	}
	return err
}

func encodeList(items [][]byte) (b []byte) {
	for _, item := range items {
		b = append(binary.LittleEndian.AppendUint32(b, uint32(len(item))), item...)
	}
	return b
}

func decodeList(b []byte) (items [][]byte, err error) {
	for len(b) > 0 {
		var item []byte
		if item, b, err = cutItem(b); err != nil {
			return nil, err
		}
		items = append(items, item)
	}
	return items, nil
}
