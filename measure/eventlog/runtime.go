package eventlog

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"fmt"
)

// Kind says what a runtime event states.
type Kind uint8

// The runtime events. Data of each: see RUNTIME.md.
const (
	KindConfig       Kind = 1 // SHA-256 of the measured config
	KindEngine       Kind = 2 // root hash and u64le block count of the engine volume
	KindModel        Kind = 3 // the same of the model volume
	KindGPU          Kind = 4 // what the GPU rule found: Found
	KindSeparator    Kind = 5 // four zero bytes: the measured sequence is complete
	KindKeysReleased Kind = 6 // who held the secret before: it has been unsealed, nobody can unseal again
	KindGPULost      Kind = 7 // empty
	KindTerminated   Kind = 8 // empty
	KindIdentity     Kind = 9 // SHA-256 of the identity part of the measured config
)

var kindNames = map[Kind]string{
	KindConfig: "config", KindEngine: "engine", KindModel: "model", KindGPU: "gpu", KindSeparator: "separator",
	KindKeysReleased: "keys-released", KindGPULost: "gpu-lost", KindTerminated: "terminated", KindIdentity: "identity",
}

func (k Kind) String() string {
	if name, ok := kindNames[k]; ok {
		return name
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Register is where an event is extended to.
type Register uint8

// The registers of the runtime log. A TDX guest has RTMR3 alone; it is index 4 in the CC measurement registers.
const (
	PCR13 Register = 13
	PCR14 Register = 14
	RTMR3 Register = 4
)

// Types of the TLV records: TCG Canonical Event Log Format 1.0, section 5.1, and for the register of a confidential VM
// the value that go-eventlog uses.
const (
	tlvRecordNumber = 0
	tlvPCR          = 1
	tlvDigests      = 3
	tlvContent      = 81 // events of this package
	tlvCCMR         = 108

	algSHA256 = 0x0b // TPM_ALG_SHA256
	algSHA384 = 0x0c // TPM_ALG_SHA384
)

const (
	maxRuntimeBytes   = 64 << 10
	maxRuntimeRecords = 256
	maxEventBytes     = 256 // but for keys-released: heldBytes and loanBytes
)

// Record is one event of a runtime log. A Record out of ParseRuntime has digests that are those of its data.
type Record struct {
	Number   uint64
	Register Register
	Kind     Kind
	Data     []byte
}

// content is the TLV that is hashed: kind, length, data.
func (r Record) content() []byte { return appendTLV(nil, uint8(r.Kind), r.Data) }

// SHA256 is the digest that a SHA-256 register is extended with.
func (r Record) SHA256() [32]byte { return sha256.Sum256(r.content()) }

// SHA384 is the digest that an RTMR is extended with.
func (r Record) SHA384() [48]byte { return sha512.Sum384(r.content()) }

// Append returns log with the record's encoding added.
func (r Record) Append(log []byte) []byte {
	log = appendTLV(log, tlvRecordNumber, binary.BigEndian.AppendUint64(nil, r.Number))
	registerType := uint8(tlvPCR)
	if r.Register == RTMR3 {
		registerType = tlvCCMR
	}
	log = appendTLV(log, registerType, []byte{uint8(r.Register)})
	d256, d384 := r.SHA256(), r.SHA384()
	log = appendTLV(log, tlvDigests, appendTLV(appendTLV(nil, algSHA256, d256[:]), algSHA384, d384[:]))
	return appendTLV(log, tlvContent, r.content())
}

// ParseRuntime parses a runtime log: records numbered from 0, each with data that hashes to its digests, and nothing
// else. There is one encoding for each log.
func ParseRuntime(log []byte) ([]Record, error) {
	if len(log) > maxRuntimeBytes {
		return nil, fmt.Errorf("parsing runtime log: %d bytes, want at most %d", len(log), maxRuntimeBytes)
	}
	var records []Record
	for rest := log; len(rest) > 0; {
		if len(records) == maxRuntimeRecords {
			return nil, fmt.Errorf("parsing runtime log: more than %d records", maxRuntimeRecords)
		}
		record, tail, err := cutRecord(rest)
		if err != nil {
			return nil, fmt.Errorf("parsing runtime log: record %d: %v", len(records), err)
		}
		if record.Number != uint64(len(records)) {
			return nil, fmt.Errorf("parsing runtime log: record %d is numbered %d", len(records), record.Number)
		}
		records, rest = append(records, record), tail
	}
	return records, nil
}

func cutRecord(b []byte) (r Record, rest []byte, err error) {
	number, rest, err := cutTLV(b, tlvRecordNumber)
	if err != nil {
		return r, nil, fmt.Errorf("record number: %v", err)
	}
	if len(number) != 8 {
		return r, nil, fmt.Errorf("record number has %d bytes, want 8", len(number))
	}
	r.Number = binary.BigEndian.Uint64(number)
	registerType := uint8(tlvPCR)
	if len(rest) > 0 && rest[0] == tlvCCMR {
		registerType = tlvCCMR
	}
	register, rest, err := cutTLV(rest, registerType)
	if err != nil {
		return r, nil, fmt.Errorf("register: %v", err)
	}
	if len(register) != 1 {
		return r, nil, fmt.Errorf("register has %d bytes, want 1", len(register))
	}
	r.Register = Register(register[0])
	switch {
	case registerType == tlvCCMR && r.Register == RTMR3:
	case registerType == tlvPCR && (r.Register == PCR13 || r.Register == PCR14):
	default:
		return r, nil, fmt.Errorf("register %d of type %d is none of the runtime log's", r.Register, registerType)
	}
	digests, rest, err := cutTLV(rest, tlvDigests)
	if err != nil {
		return r, nil, fmt.Errorf("digests: %v", err)
	}
	content, rest, err := cutTLV(rest, tlvContent)
	if err != nil {
		return r, nil, fmt.Errorf("content: %v", err)
	}
	if len(content) == 0 {
		return r, nil, fmt.Errorf("content is empty")
	}
	r.Kind = Kind(content[0])
	if kindNames[r.Kind] == "" {
		return r, nil, fmt.Errorf("content is of unknown %s", r.Kind)
	}
	data, tail, err := cutTLV(content, uint8(r.Kind))
	if err != nil {
		return r, nil, fmt.Errorf("%s: %v", r.Kind, err)
	}
	limit := maxEventBytes
	if r.Kind == KindKeysReleased {
		limit = heldBytes + loanBytes
	}
	if len(tail) != 0 || len(data) > limit {
		return r, nil, fmt.Errorf("%s has %d bytes and %d after it, want at most %d and none", r.Kind, len(data), len(tail), limit)
	}
	r.Data = data
	d256, d384 := r.SHA256(), r.SHA384()
	want := appendTLV(appendTLV(nil, algSHA256, d256[:]), algSHA384, d384[:])
	if string(digests) != string(want) {
		return r, nil, fmt.Errorf("%s: digests are %x, want those of its data, %x", r.Kind, digests, want)
	}
	return r, rest, nil
}

// Replay256 returns the value of a SHA-256 register that started at zero and took the records that name it.
func Replay256(records []Record, register Register) (value [32]byte) {
	for _, r := range records {
		if r.Register == register {
			value = Extend256(value, r.SHA256())
		}
	}
	return value
}

// Replay384 is Replay256 for an RTMR.
func Replay384(records []Record, register Register) (value [48]byte) {
	for _, r := range records {
		if r.Register == register {
			d := r.SHA384()
			value = sha512.Sum384(append(value[:], d[:]...))
		}
	}
	return value
}

// Extend256 is TPM2_PCR_Extend on a SHA-256 bank: SHA-256(value, digest).
func Extend256(value, digest [32]byte) [32]byte {
	return sha256.Sum256(append(value[:], digest[:]...))
}

// headLabel opens the hash of a log head, so that it is no other digest.
const headLabel = "chrysalis runtime log v1\x00"

// Head commits to the exact bytes of a runtime log. Platforms without a runtime register bind it in report data.
func Head(log []byte) [32]byte { return sha256.Sum256(append([]byte(headLabel), log...)) }

// VolumeData is the data of an engine or model event.
func VolumeData(root [32]byte, blocks uint64) []byte {
	return binary.LittleEndian.AppendUint64(root[:len(root):len(root)], blocks)
}

// SeparatorData returns the data of a separator event: four zero bytes, as in the firmware's separators.
func SeparatorData() []byte { return make([]byte, 4) }

func appendTLV(b []byte, typ uint8, value []byte) []byte {
	return append(binary.BigEndian.AppendUint32(append(b, typ), uint32(len(value))), value...)
}

func cutTLV(b []byte, typ uint8) (value, rest []byte, err error) {
	if len(b) < 5 {
		return nil, nil, fmt.Errorf("%d bytes left, want a type and a length in 5", len(b))
	}
	if b[0] != typ {
		return nil, nil, fmt.Errorf("type is %d, want %d", b[0], typ)
	}
	n := binary.BigEndian.Uint32(b[1:])
	if b = b[5:]; uint64(n) > uint64(len(b)) {
		return nil, nil, fmt.Errorf("length is %d, but %d bytes are left", n, len(b))
	}
	return b[:n:n], b[n:], nil
}
