package eventlog

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
)

// Types of the boot events whose data is judged here: TCG PC Client Platform Firmware Profile 1.06, section 10.4.1.
const (
	evNoAction             = 0x00000003
	evSeparator            = 0x00000004
	evSCRTMVersion         = 0x00000008
	evIPL                  = 0x0000000d
	evEFIVariableConfig    = 0x80000001
	evEFIVariableBoot      = 0x80000002
	evEFIAction            = 0x80000007
	evEFIVariableAuthority = 0x800000e0
)

const (
	maxBootBytes     = 2 << 20 // the area of a CCEL is often 1 MiB, most of it padding
	maxBootEvents    = 1024
	maxBootEventData = 1 << 20 // a dbx and a vendor's tables go past 64 KiB
	maxBootBanks     = 8

	bootRegisters = 16 // that a replay speaks of: 16 and above can be reset at will, or do not start at zero, and prove nothing
	pcRegisters   = 24 // of a TPM in a PC
)

// NoRegister is the register of an EV_NO_ACTION event that names none of the platform's: it extends nothing, wherever it says it
// would. Some firmware writes 0xffffffff.
const NoRegister = 0xff

// digestSizes are the banks that a boot log may carry: TPM 2.0 Part 2, section 6.3.
var digestSizes = map[uint16]int{0x04: 20, 0x0b: 32, 0x0c: 48, 0x0d: 64, 0x12: 32, 0x27: 32, 0x28: 48, 0x29: 64}

// BootEvent is one event of a TCG2 log, reduced to its SHA-256 digest. Its data is what the log claims and nothing more,
// unless Matches reports otherwise.
type BootEvent struct {
	Register uint8 // a PCR, or NoRegister
	Type     uint32
	Digest   [32]byte
	Data     []byte // untrusted unless Matches

	digests []byte // every bank, as in the log
}

// Matches reports whether the data, all of it, hashes to the digest: then it is what was measured. A replay checks digests
// alone, so an edited log replays as well as the genuine one. Of a type whose digest the profile does not tie to the data it
// may match by its writer's habit.
func (e BootEvent) Matches() bool {
	return matches(e.Type, e.Data, e.is)
}

// Broken reports whether the profile ties this type's digest to the event's data, and they disagree.
func (e BootEvent) Broken() bool { return broken(e.Type, e.Data, e.is) }

func (e BootEvent) is(data []byte) bool { return sha256.Sum256(data) == e.Digest }

// hashedType reports whether the profile ties the digest of events of the type to their data.
func hashedType(typ uint32) bool {
	switch typ {
	case evSeparator, evSCRTMVersion, evEFIVariableConfig, evEFIVariableBoot, evEFIAction, evEFIVariableAuthority:
		return true
	}
	return false
}

// matches reports whether the event's data is what was hashed.
func matches(typ uint32, data []byte, is func([]byte) bool) bool {
	return typ != evNoAction && is(data) // of EV_NO_ACTION nothing was extended
}

// broken reports whether an event of a hashed type has other data than its digest. EDK2 hashes a boot variable's content
// and logs the structure around it: such an event is not broken, and its variable's name is not proven either.
func broken(typ uint32, data []byte, is func([]byte) bool) bool {
	if !hashedType(typ) || is(data) {
		return false
	}
	if typ == evEFIVariableBoot {
		content, ok := variableContent(data)
		return !ok || !is(content)
	}
	return true
}

// variableContent cuts the content out of a UEFI_VARIABLE_DATA.
func variableContent(data []byte) ([]byte, bool) {
	if len(data) < 32 {
		return nil, false
	}
	name, content := binary.LittleEndian.Uint64(data[16:]), binary.LittleEndian.Uint64(data[24:])
	rest := uint64(len(data) - 32)
	if name > rest/2 || content != rest-2*name {
		return nil, false
	}
	return data[32+2*name:], true
}

// ParseBoot parses a TCG2 log (crypto-agile format, as Linux shows it in binary_bios_measurements): a header event, then
// events that each carry a digest for exactly the header's banks, SHA-256 among them, and nothing after the last.
func ParseBoot(log []byte) ([]BootEvent, error) {
	if len(log) > maxBootBytes {
		return nil, fmt.Errorf("parsing boot log: %d bytes, want at most %d", len(log), maxBootBytes)
	}
	banks, rest, err := cutBootHeader(log, 0)
	if err == nil {
		err = oneBank(banks, algSHA256)
	}
	if err != nil {
		return nil, fmt.Errorf("parsing boot log: header: %v", err)
	}
	var events []BootEvent
	for len(rest) > 0 {
		if len(events) == maxBootEvents {
			return nil, fmt.Errorf("parsing boot log: more than %d events", maxBootEvents)
		}
		var e BootEvent
		if e, rest, err = cutBootEvent(rest, banks); err != nil {
			return nil, fmt.Errorf("parsing boot log: event %d: %v", len(events), err)
		}
		events = append(events, e)
	}
	return events, nil
}

// cutBootHeader parses the TCG_PCClientPCREvent that opens the log and the TCG_EfiSpecIDEvent in it, and returns the
// algorithms of the banks in their order. most is the highest register that the header may name.
func cutBootHeader(b []byte, most uint32) (banks []uint16, rest []byte, err error) {
	const fixed = 4 + 4 + 20 + 4 // register, type, SHA-1 digest, size
	if len(b) < fixed {
		return nil, nil, fmt.Errorf("%d bytes, want at least %d", len(b), fixed)
	}
	register, typ, size := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:]), binary.LittleEndian.Uint32(b[28:])
	if register > most || typ != evNoAction || !bytes.Equal(b[8:28], make([]byte, 20)) {
		return nil, nil, fmt.Errorf("register %d and type %#x, want at most %d, %#x and a zero digest", register, typ, most, evNoAction)
	}
	if b = b[fixed:]; uint64(size) > uint64(len(b)) {
		return nil, nil, fmt.Errorf("%d bytes announced, %d left", size, len(b))
	}
	spec, rest := b[:size], b[size:]
	const signature = "Spec ID Event03\x00"
	// Signature, platform class u32, version 2.0, errata u8, size of UINTN u8, number of algorithms u32.
	const head = len(signature) + 4 + 4 + 4
	if len(spec) < head || string(spec[:len(signature)]) != signature {
		return nil, nil, fmt.Errorf("no Spec ID Event03 in %d bytes", len(spec))
	}
	if version := spec[20:22]; version[0] != 0 || version[1] != 2 {
		return nil, nil, fmt.Errorf("version is %d.%d, want 2.0", version[1], version[0])
	}
	count := binary.LittleEndian.Uint32(spec[24:])
	if count == 0 || count > maxBootBanks || len(spec) < head+int(count)*4+1 {
		return nil, nil, fmt.Errorf("%d banks in %d bytes, want 1 to %d", count, len(spec), maxBootBanks)
	}
	for at := head; at < head+int(count)*4; at += 4 {
		alg, size := binary.LittleEndian.Uint16(spec[at:]), binary.LittleEndian.Uint16(spec[at+2:])
		if digestSizes[alg] == 0 || digestSizes[alg] != int(size) {
			return nil, nil, fmt.Errorf("bank %#x has digests of %d bytes, want %d", alg, size, digestSizes[alg])
		}
		banks = append(banks, alg)
	}
	vendor := spec[head+int(count)*4:]
	if int(vendor[0]) != len(vendor)-1 {
		return nil, nil, fmt.Errorf("%d bytes of vendor information, want %d", len(vendor)-1, vendor[0])
	}
	return banks, rest, nil
}

// oneBank checks that a header names one bank of the algorithm.
func oneBank(banks []uint16, alg uint16) error {
	count := 0
	for _, bank := range banks {
		if bank == alg {
			count++
		}
	}
	if count != 1 {
		return fmt.Errorf("%d SHA-%d banks, want one", count, digestSizes[alg]*8)
	}
	return nil
}

// bankEvent is one event with a digest for each bank.
type bankEvent struct {
	register uint8
	typ      uint32
	digests  []byte // every bank, as in the log
	data     []byte
}

// digest returns that of one bank.
func (e bankEvent) digest(banks []uint16, alg uint16) []byte {
	b := e.digests
	for _, bank := range banks {
		if bank == alg {
			return b[2 : 2+digestSizes[alg]]
		}
		b = b[2+digestSizes[bank]:]
	}
	return nil
}

// cutBootEvent parses one TCG_PCR_EVENT2.
func cutBootEvent(b []byte, banks []uint16) (e BootEvent, rest []byte, err error) {
	raw, rest, err := cutBankEvent(b, banks, pcRegisters)
	if err != nil {
		return e, nil, err
	}
	return BootEvent{Register: raw.register, Type: raw.typ, Digest: [32]byte(raw.digest(banks, algSHA256)), Data: raw.data,
		digests: raw.digests}, rest, nil
}

func cutBankEvent(b []byte, banks []uint16, registers uint32) (e bankEvent, rest []byte, err error) {
	if len(b) < 12 {
		return e, nil, fmt.Errorf("%d bytes left, want at least 12", len(b))
	}
	register, count := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[8:])
	e.typ = binary.LittleEndian.Uint32(b[4:])
	if e.register, err = registerOf(register, e.typ, registers); err != nil {
		return e, nil, err
	}
	if int64(count) != int64(len(banks)) {
		return e, nil, fmt.Errorf("%d digests, want the %d of the header", count, len(banks))
	}
	b = b[12:]
	digests := b
	for _, want := range banks {
		size := digestSizes[want]
		if len(b) < 2+size {
			return e, nil, fmt.Errorf("%d bytes left, want a digest in %d", len(b), 2+size)
		}
		if alg := binary.LittleEndian.Uint16(b); alg != want {
			return e, nil, fmt.Errorf("bank is %#x, want %#x", alg, want)
		}
		b = b[2+size:]
	}
	e.digests = digests[:len(digests)-len(b)]
	if e.data, rest, err = cutData(b); err != nil {
		return e, nil, err
	}
	return e, rest, nil
}

// registerOf returns the register of an event. One that extends nothing may name any.
func registerOf(register, typ, registers uint32) (uint8, error) {
	switch {
	case register < registers:
		return uint8(register), nil
	case typ == evNoAction:
		return NoRegister, nil
	}
	return 0, fmt.Errorf("register is %d, want at most %d", register, registers-1)
}

// cutData parses the size and the data that end an event.
func cutData(b []byte) (data, rest []byte, err error) {
	if len(b) < 4 {
		return nil, nil, fmt.Errorf("%d bytes left, want a length of 4", len(b))
	}
	size := binary.LittleEndian.Uint32(b)
	if b = b[4:]; size > maxBootEventData || int64(size) > int64(len(b)) {
		return nil, nil, fmt.Errorf("%d bytes of data, want at most %d and the %d left", size, maxBootEventData, len(b))
	}
	return b[:size:size], b[size:], nil
}

// localitySignature opens the data of the event by which firmware says that PCR 0 started at another value: TCG PC Client
// Platform Firmware Profile 1.06, section 10.4.5.3. One byte follows, the locality of TPM2_Startup.
const localitySignature = "StartupLocality\x00"

// ReplayBoot returns the SHA-256 bank that the events leave behind in registers that started at zero, PCR 0 at the startup
// locality where an event names it. Events of type EV_NO_ACTION are not extended, and those of higher registers are left out.
func ReplayBoot(events []BootEvent) (bank [bootRegisters][32]byte) {
	if i := slices.IndexFunc(events, func(e BootEvent) bool { return e.Register == 0 && e.Type != evNoAction }); i > 0 {
		for _, e := range events[:i] {
			if locality, ok := bytes.CutPrefix(e.Data, []byte(localitySignature)); ok && e.Register == 0 && e.Type == evNoAction &&
				len(locality) == 1 {
				bank[0][31] = locality[0]
			}
		}
	}
	for _, e := range events {
		if e.Type != evNoAction && e.Register < bootRegisters {
			bank[e.Register] = Extend256(bank[e.Register], e.Digest)
		}
	}
	return bank
}
