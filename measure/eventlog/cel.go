package eventlog

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"fmt"
)

// CELEvent is one record of any log in CEL-TLV. Its content is what the log claims and nothing more, unless Matches
// reports otherwise. For the runtime log ParseRuntime is the strict parser.
type CELEvent struct {
	Number   uint64
	Register Register
	CC       bool // Register is an index of a confidential VM, RTMR0 being 1; otherwise a PCR
	SHA256   *[32]byte
	SHA384   *[48]byte
	Type     uint8 // of the content
	Content  []byte
}

// Matches reports whether every digest of the record is that of its content, or of the content with its type and length.
func (e CELEvent) Matches() bool {
	for _, hashed := range [][]byte{e.Content, appendTLV(nil, e.Type, e.Content)} {
		ok := e.SHA256 != nil || e.SHA384 != nil
		ok = ok && (e.SHA256 == nil || sha256.Sum256(hashed) == *e.SHA256)
		ok = ok && (e.SHA384 == nil || sha512.Sum384(hashed) == *e.SHA384)
		if ok {
			return true
		}
	}
	return false
}

// ParseCEL parses a log in CEL-TLV: TCG Canonical Event Log Format 1.0, section 5.1. Records are numbered from 0 without
// gaps, and nothing follows the last.
func ParseCEL(log []byte) ([]CELEvent, error) {
	if len(log) > maxBootBytes {
		return nil, fmt.Errorf("parsing CEL: %d bytes, want at most %d", len(log), maxBootBytes)
	}
	var events []CELEvent
	for rest := log; len(rest) > 0; {
		if len(events) == maxBootEvents {
			return nil, fmt.Errorf("parsing CEL: more than %d records", maxBootEvents)
		}
		event, tail, err := cutCELEvent(rest)
		if err != nil {
			return nil, fmt.Errorf("parsing CEL: record %d: %v", len(events), err)
		}
		if event.Number != uint64(len(events)) {
			return nil, fmt.Errorf("parsing CEL: record %d is numbered %d", len(events), event.Number)
		}
		events, rest = append(events, event), tail
	}
	return events, nil
}

func cutCELEvent(b []byte) (e CELEvent, rest []byte, err error) {
	number, rest, err := cutTLV(b, tlvRecordNumber)
	if err != nil {
		return e, nil, fmt.Errorf("record number: %v", err)
	}
	if len(number) != 8 {
		return e, nil, fmt.Errorf("record number has %d bytes, want 8", len(number))
	}
	e.Number = binary.BigEndian.Uint64(number)
	registerType := uint8(tlvPCR)
	if len(rest) > 0 && rest[0] == tlvCCMR {
		registerType, e.CC = tlvCCMR, true
	}
	register, rest, err := cutTLV(rest, registerType)
	if err != nil {
		return e, nil, fmt.Errorf("register: %v", err)
	}
	if len(register) != 1 {
		return e, nil, fmt.Errorf("register has %d bytes, want 1", len(register))
	}
	e.Register = Register(register[0])
	if e.CC && (e.Register == 0 || e.Register >= ccRegisters) || !e.CC && e.Register >= 24 {
		return e, nil, fmt.Errorf("there is no register %d", e.Register)
	}
	digests, rest, err := cutTLV(rest, tlvDigests)
	if err != nil {
		return e, nil, fmt.Errorf("digests: %v", err)
	}
	if err := e.parseDigests(digests); err != nil {
		return e, nil, fmt.Errorf("digests: %v", err)
	}
	if len(rest) == 0 {
		return e, nil, fmt.Errorf("no content")
	}
	e.Type = rest[0]
	if e.Content, rest, err = cutTLV(rest, e.Type); err != nil {
		return e, nil, fmt.Errorf("content: %v", err)
	}
	return e, rest, nil
}

func (e *CELEvent) parseDigests(b []byte) error {
	for len(b) > 0 {
		alg := b[0]
		digest, rest, err := cutTLV(b, alg)
		if err != nil {
			return err
		}
		size, known := digestSizes[uint16(alg)]
		if !known || len(digest) != size {
			return fmt.Errorf("one of algorithm %#x has %d bytes, want %d", alg, len(digest), size)
		}
		switch {
		case alg == algSHA256 && e.SHA256 == nil:
			e.SHA256 = (*[32]byte)(digest)
		case alg == algSHA384 && e.SHA384 == nil:
			e.SHA384 = (*[48]byte)(digest)
		case alg == algSHA256 || alg == algSHA384:
			return fmt.Errorf("two of algorithm %#x", alg)
		}
		b = rest
	}
	if e.SHA256 == nil && !e.CC || e.SHA384 == nil && e.CC {
		return fmt.Errorf("none for its register")
	}
	return nil
}

// ReplayCEL returns the registers that the records name, as they leave them: SHA-256 PCRs and RTMR0 to RTMR3.
func ReplayCEL(events []CELEvent) (pcrs map[uint8][32]byte, rtmrs map[uint8][48]byte) {
	pcrs, rtmrs = map[uint8][32]byte{}, map[uint8][48]byte{}
	for _, e := range events {
		if e.CC {
			i := uint8(e.Register) - 1
			rtmrs[i] = Extend384(rtmrs[i], *e.SHA384)
		} else {
			pcrs[uint8(e.Register)] = Extend256(pcrs[uint8(e.Register)], *e.SHA256)
		}
	}
	return pcrs, rtmrs
}
