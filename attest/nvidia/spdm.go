package nvidia

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// Sizes and codes of an SPDM exchange GET_MEASUREMENTS and MEASUREMENTS: DSP0274 1.1, sections 10.11 and 10.11.1.
const (
	spdmVersion      = 0x11
	codeRequest      = 0xe0
	codeResponse     = 0x60
	attributesSigned = 1    // GenerateSignature
	operationAll     = 0xff // all measurement blocks
	specDMTF         = 1    // DMTFmeasSpec
	maxSlot          = 7

	nonceSize      = 32
	requestSize    = 4 + nonceSize + 1
	responseSize   = 8 // up to the measurement record
	blockHeadSize  = 4
	valueHeadSize  = 3
	fieldHeadSize  = 4
	signatureSize  = 96 // r and s on P-384
	maxReportBytes = 16 << 10
)

// Report is an SPDM exchange: the request, and the response that the device signed together with it. Until Verify accepts it, it is
// what somebody claims.
type Report struct {
	Nonce          [nonceSize]byte // of the request
	Slot           uint8           // of the certificate chain
	Measurements   []Measurement   // in the order of the report
	ResponderNonce [nonceSize]byte
	Opaque         []Field
	Signature      [signatureSize]byte
}

// Measurement is one block of a report. Index is that of SPDM, which counts from 1.
type Measurement struct {
	Index uint8
	Type  uint8 // DMTFSpecMeasurementValueType; the highest bit says that Value is no digest
	Value []byte
}

// Field is one field of a report's opaque data.
type Field struct {
	ID    uint16
	Value []byte
}

// Parse parses a report: request and response, one after the other, and nothing else.
func Parse(raw []byte) (*Report, error) {
	r, err := parse(raw)
	if err != nil {
		return nil, fmt.Errorf("parsing report: %w", err)
	}
	return r, nil
}

func parse(raw []byte) (*Report, error) {
	if len(raw) > maxReportBytes {
		return nil, fmt.Errorf("%d bytes, want at most %d", len(raw), maxReportBytes)
	}
	if least := requestSize + responseSize + nonceSize + 2 + signatureSize; len(raw) < least {
		return nil, fmt.Errorf("%d bytes, want at least %d", len(raw), least)
	}
	r := &Report{Nonce: [nonceSize]byte(raw[4:]), Slot: raw[4+nonceSize], Signature: [signatureSize]byte(raw[len(raw)-signatureSize:])}
	response := raw[requestSize : len(raw)-signatureSize]
	number, length := int(response[4]), int(response[5])|int(response[6])<<8|int(response[7])<<16
	rest := response[responseSize:]
	if length > len(rest)-nonceSize-2 {
		return nil, fmt.Errorf("measurement record is said to have %d bytes, want at most %d", length, len(rest)-nonceSize-2)
	}
	record, rest := rest[:length], rest[length:]
	r.ResponderNonce = [nonceSize]byte(rest)
	if opaque := int(binary.LittleEndian.Uint16(rest[nonceSize:])); opaque != len(rest)-nonceSize-2 {
		return nil, fmt.Errorf("opaque data is said to have %d bytes, want %d, all up to the signature", opaque, len(rest)-nonceSize-2)
	}
	var err error
	if r.Measurements, err = parseRecord(record, number); err != nil {
		return nil, err
	}
	if r.Opaque, err = parseOpaque(rest[nonceSize+2:]); err != nil {
		return nil, err
	}
	// What the codes, the attributes and the reserved bytes are is exactly what the fields above leave out.
	if want := r.Marshal(); !bytes.Equal(raw, want) {
		at := 0
		for raw[at] == want[at] {
			at++
		}
		return nil, fmt.Errorf("byte %#x: got %#x, want %#x", at, raw[at], want[at])
	}
	if r.Slot > maxSlot {
		return nil, fmt.Errorf("slot is %d, want at most %d", r.Slot, maxSlot)
	}
	return r, nil
}

func parseRecord(record []byte, number int) (all []Measurement, err error) {
	if number == 0 {
		return nil, fmt.Errorf("no measurements")
	}
	var seen [256]bool
	for len(record) > 0 {
		if len(record) < blockHeadSize+valueHeadSize {
			return nil, fmt.Errorf("%d bytes of a measurement, want at least %d", len(record), blockHeadSize+valueHeadSize)
		}
		index, spec := record[0], record[1]
		size, valueSize := int(binary.LittleEndian.Uint16(record[2:])), int(binary.LittleEndian.Uint16(record[5:]))
		switch {
		case index == 0 || seen[index]:
			return nil, fmt.Errorf("measurement %d is there twice, or is none", index)
		case spec != specDMTF:
			return nil, fmt.Errorf("measurement %d is of specification %d, want %d", index, spec, specDMTF)
		case size != valueHeadSize+valueSize || blockHeadSize+size > len(record):
			return nil, fmt.Errorf("measurement %d has a block of %d bytes and a value of %d, in %d bytes", index, size, valueSize,
				len(record)-blockHeadSize)
		}
		seen[index] = true
		all = append(all, Measurement{Index: index, Type: record[4], Value: record[blockHeadSize+valueHeadSize : blockHeadSize+size]})
		record = record[blockHeadSize+size:]
	}
	if len(all) != number {
		return nil, fmt.Errorf("%d measurements, want %d as the report says", len(all), number)
	}
	return all, nil
}

func parseOpaque(opaque []byte) (all []Field, err error) {
	seen := map[uint16]bool{}
	for len(opaque) > 0 {
		if len(opaque) < fieldHeadSize {
			return nil, fmt.Errorf("%d bytes of an opaque field, want at least %d", len(opaque), fieldHeadSize)
		}
		id, size := binary.LittleEndian.Uint16(opaque), int(binary.LittleEndian.Uint16(opaque[2:]))
		if size > len(opaque)-fieldHeadSize {
			return nil, fmt.Errorf("opaque field %d is said to have %d bytes, want at most %d", id, size, len(opaque)-fieldHeadSize)
		}
		if seen[id] {
			return nil, fmt.Errorf("opaque field %d is there twice", id)
		}
		seen[id] = true
		all = append(all, Field{id, opaque[fieldHeadSize : fieldHeadSize+size]})
		opaque = opaque[fieldHeadSize+size:]
	}
	return all, nil
}

// Marshal returns the report that Parse would parse into r.
func (r *Report) Marshal() []byte {
	b := append([]byte{spdmVersion, codeRequest, attributesSigned, operationAll}, r.Nonce[:]...)
	b = append(b, r.Slot, spdmVersion, codeResponse, 0, r.Slot, uint8(len(r.Measurements)), 0, 0, 0)
	start := len(b)
	for _, m := range r.Measurements {
		b = append(b, m.Index, specDMTF)
		b = binary.LittleEndian.AppendUint16(b, uint16(valueHeadSize+len(m.Value)))
		b = append(b, m.Type)
		b = append(binary.LittleEndian.AppendUint16(b, uint16(len(m.Value))), m.Value...)
	}
	length := len(b) - start
	b[start-3], b[start-2], b[start-1] = byte(length), byte(length>>8), byte(length>>16)
	b = append(b, r.ResponderNonce[:]...)
	start = len(b)
	b = append(b, 0, 0)
	for _, f := range r.Opaque {
		b = binary.LittleEndian.AppendUint16(b, f.ID)
		b = append(binary.LittleEndian.AppendUint16(b, uint16(len(f.Value))), f.Value...)
	}
	binary.LittleEndian.PutUint16(b[start:], uint16(len(b)-start-2))
	return append(b, r.Signature[:]...)
}

// measurement returns the value at an index of SPDM, or nil.
func (r *Report) measurement(index uint8) []byte {
	for _, m := range r.Measurements {
		if m.Index == index {
			return m.Value
		}
	}
	return nil
}
