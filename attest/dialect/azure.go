package dialect

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"

	"chrysalis/attest/sevsnp"
)

// The report of Azure's host compatibility layer, as the index 0x01400001 of a guest's TPM holds it: a header, a place for the hardware's
// report, and the request that it answers. Source: Microsoft's documentation of guest attestation in Azure's confidential virtual
// machines; the structures are those of OpenHCL (attestation report, version 1 and 2).
const (
	hclHeaderBytes  = 32
	hclReportBytes  = sevsnp.ReportSize
	hclRequestBytes = 20
	tdReportBytes   = 1024
	tdReportDataAt  = 128 // in REPORTMACSTRUCT: Intel TDX Module ABI Reference, TDREPORT_STRUCT

	hclTypeSNP, hclTypeTDX = 2, 4

	maxRuntimeBytes = 32 << 10
)

var hclMagic = []byte("HCLA")

// HCL is Azure's report: the hardware's, and the runtime data that its report data is the hash of. A TD's report proves nothing outside
// its machine; its quote, which Azure hands out beside it, carries the same report data.
type HCL struct {
	SNP     []byte // ATTESTATION_REPORT; nil in a TD
	TD      []byte // TDREPORT; nil on SEV-SNP
	Runtime []byte // JSON: the TPM's attestation key, how the machine is configured, the guest's own data

	bound [64]byte
}

// IsHCL reports whether bytes begin as such a report does.
func IsHCL(b []byte) bool { return bytes.HasPrefix(b, hclMagic) }

// ParseHCL reads a report. Zeros may follow, as the TPM's index is of a fixed size.
func ParseHCL(b []byte) (*HCL, error) {
	if err := bounded("HCL report", b); err != nil {
		return nil, err
	}
	h, err := parseHCL(b)
	if err != nil {
		return nil, fmt.Errorf("parsing HCL report: %w", err)
	}
	return h, nil
}

func parseHCL(b []byte) (*HCL, error) {
	const fixed = hclHeaderBytes + hclReportBytes + hclRequestBytes
	if len(b) < fixed {
		return nil, fmt.Errorf("%d bytes, want at least %d", len(b), fixed)
	}
	if !IsHCL(b) {
		return nil, fmt.Errorf("it begins with %.4q, want %q", b, hclMagic)
	}
	u32 := binary.LittleEndian.Uint32
	if version := u32(b[4:]); version != 1 && version != 2 {
		return nil, fmt.Errorf("version is %d, want 1 or 2", version)
	}
	request := b[hclHeaderBytes+hclReportBytes:]
	kind, hash, size := u32(request[8:]), u32(request[12:]), u32(request[16:])
	rest := request[hclRequestBytes:]
	if size == 0 || size > maxRuntimeBytes || int(size) > len(rest) {
		return nil, fmt.Errorf("runtime data has %d bytes of %d, want 1 to %d", size, len(rest), maxRuntimeBytes)
	}
	h := &HCL{Runtime: rest[:size:size]}
	if len(bytes.Trim(rest[size:], "\x00")) != 0 {
		return nil, errors.New("something after the runtime data, want nothing but zeros")
	}
	report := b[hclHeaderBytes : hclHeaderBytes+hclReportBytes]
	switch kind {
	case hclTypeSNP:
		h.SNP = report
	case hclTypeTDX:
		h.TD = report[:tdReportBytes:tdReportBytes]
		if len(bytes.Trim(report[tdReportBytes:], "\x00")) != 0 {
			return nil, errors.New("something after the TD's report, want nothing but zeros")
		}
	default:
		return nil, fmt.Errorf("report is of type %d, want %d (SEV-SNP) or %d (TDX)", kind, hclTypeSNP, hclTypeTDX)
	}
	switch hash {
	case 1:
		sum := sha256.Sum256(h.Runtime)
		copy(h.bound[:], sum[:])
	case 2:
		sum := sha512.Sum384(h.Runtime)
		copy(h.bound[:], sum[:])
	case 3:
		h.bound = sha512.Sum512(h.Runtime)
	default:
		return nil, fmt.Errorf("runtime data is hashed by %d, want 1 (SHA-256), 2 (SHA-384) or 3 (SHA-512)", hash)
	}
	if h.TD != nil && !bytes.Equal(h.TD[tdReportDataAt:tdReportDataAt+64], h.bound[:]) {
		return nil, fmt.Errorf("report data of the TD's report is %x, want the hash of the runtime data, %x", h.TD[tdReportDataAt:tdReportDataAt+64], h.bound)
	}
	return h, nil
}

// ReportData returns what the hardware's report data must be: the hash of the runtime data, and zeros.
func (h *HCL) ReportData() [64]byte { return h.bound }

// THIM are the certificates of a processor as Azure's service for them hands them out.
type THIM struct {
	Certificate []byte   // VCEK, DER
	Chain       [][]byte // ASK and ARK, DER
}

// IsTHIM reports whether bytes are JSON, which no certificate is.
func IsTHIM(b []byte) bool { return bytes.HasPrefix(bytes.TrimLeft(b, " \t\r\n"), []byte("{")) }

// ParseTHIM reads the answer of Azure's service at /metadata/THIM/amd/certification.
func ParseTHIM(b []byte) (*THIM, error) {
	if err := bounded("THIM answer", b); err != nil {
		return nil, err
	}
	var answer struct {
		VCEK  string `json:"vcekCert"`
		Chain string `json:"certificateChain"`
	}
	if err := json.Unmarshal(b, &answer); err != nil {
		return nil, fmt.Errorf("parsing THIM answer: %w", err)
	}
	leaf, err := certificates(answer.VCEK)
	if err != nil || len(leaf) != 1 {
		return nil, fmt.Errorf("parsing THIM answer: vcekCert has %d certificates, want 1 in PEM: %v", len(leaf), err)
	}
	chain, err := certificates(answer.Chain)
	if err != nil || len(chain) == 0 {
		return nil, fmt.Errorf("parsing THIM answer: certificateChain has %d certificates, want those above the VCEK in PEM: %v", len(chain), err)
	}
	return &THIM{leaf[0], chain}, nil
}

func certificates(text string) (all [][]byte, err error) {
	for rest := bytes.TrimSpace([]byte(text)); len(rest) > 0; rest = bytes.TrimSpace(rest) {
		block, after := pem.Decode(rest)
		if block == nil || block.Type != "CERTIFICATE" || len(all) == 8 {
			return nil, errors.New("something that is no certificate, or more than 8")
		}
		all, rest = append(all, block.Bytes), after
	}
	return all, nil
}
