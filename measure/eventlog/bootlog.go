package eventlog

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"fmt"
	"slices"
)

// Algorithm is that of a bank of registers: TPM 2.0 Part 2, section 6.3.
type Algorithm uint16

// The banks that a replay can be made in. A log may have others beside them.
const (
	SHA1   Algorithm = 0x04 // broken: two contents of one digest can be made, so such a bank proves no content
	SHA256 Algorithm = algSHA256
	SHA384 Algorithm = algSHA384
	SHA512 Algorithm = 0x0d
)

func (a Algorithm) String() string {
	if name, ok := map[Algorithm]string{SHA1: "sha1", SHA256: "sha256", SHA384: "sha384", SHA512: "sha512"}[a]; ok {
		return name
	}
	return fmt.Sprintf("%#x", uint16(a))
}

// Size returns the bytes of a digest, or 0 of an algorithm that no log here may carry.
func (a Algorithm) Size() int { return digestSizes[uint16(a)] }

// Sum hashes data. The algorithm is one of the four that have a name.
func (a Algorithm) Sum(data []byte) []byte {
	switch a {
	case SHA1:
		sum := sha1.Sum(data)
		return sum[:]
	case SHA256:
		sum := sha256.Sum256(data)
		return sum[:]
	case SHA384:
		sum := sha512.Sum384(data)
		return sum[:]
	case SHA512:
		sum := sha512.Sum512(data)
		return sum[:]
	}
	panic(fmt.Sprintf("eventlog: no bank of algorithm %v", a))
}

// LogForm is the form of a boot log.
type LogForm string

// The forms.
const (
	FormTCG2  LogForm = "tcg2"    // crypto-agile: TCG PC Client Platform Firmware Profile 1.06, section 10.2.2
	FormTCG12 LogForm = "tcg-1.2" // one SHA-1 digest an event: the same, section 10.2.1
)

// BootLog is the log of any machine's firmware and boot loaders, in every bank that it has.
type BootLog struct {
	Form   LogForm
	Banks  []Algorithm // in the log's order
	Events []BankedEvent
}

// BankedEvent is one event. Its data is what the log claims and nothing more, unless Hashed says otherwise.
type BankedEvent struct {
	Register uint8 // a PCR, or NoRegister
	Type     uint32
	Data     []byte // untrusted
	digests  []byte // one for each bank, after its algorithm where the form has that
}

// ParseBootLog parses a log of either form: events with a digest for exactly the header's banks, or of TPM 1.2 with a SHA-1
// digest each, its header being optional. Zeros or 0xff may fill what follows the last event, and nothing else. ParseBoot is
// the strict parser, for the log of a guest of this house.
func ParseBootLog(log []byte) (*BootLog, error) {
	if len(log) > maxBootBytes {
		return nil, fmt.Errorf("parsing boot log: %d bytes, want at most %d", len(log), maxBootBytes)
	}
	l := &BootLog{Form: FormTCG12, Banks: []Algorithm{SHA1}}
	cut := cutEvent12
	rest := log
	if headerOf2(log) {
		banks, after, err := cutBootHeader(log, 0)
		if err == nil {
			err = distinct(banks)
		}
		if err != nil {
			return nil, fmt.Errorf("parsing boot log: header: %v", err)
		}
		l.Form, l.Banks, rest = FormTCG2, nil, after
		for _, bank := range banks {
			l.Banks = append(l.Banks, Algorithm(bank))
		}
		cut = func(b []byte) (bankEvent, []byte, error) { return cutBankEvent(b, banks, pcRegisters) }
	}
	for len(rest) > 0 && !padding(rest) {
		if len(l.Events) == maxBootEvents {
			return nil, fmt.Errorf("parsing boot log: more than %d events", maxBootEvents)
		}
		raw, after, err := cut(rest)
		if err != nil {
			return nil, fmt.Errorf("parsing boot log: event %d: %v", len(l.Events), err)
		}
		l.Events, rest = append(l.Events, BankedEvent{raw.register, raw.typ, raw.data, raw.digests}), after
	}
	if len(l.Events) == 0 {
		return nil, fmt.Errorf("parsing boot log: no event in %d bytes", len(log))
	}
	return l, nil
}

// headerOf2 reports whether a log begins with the event that says what its banks are.
func headerOf2(log []byte) bool {
	const at, signature = 32, "Spec ID Event03\x00"
	return len(log) >= at+len(signature) && string(log[at:at+len(signature)]) == signature &&
		binary.LittleEndian.Uint32(log[4:]) == evNoAction
}

func distinct(banks []uint16) error {
	for i, bank := range banks {
		if slices.Contains(banks[:i], bank) {
			return fmt.Errorf("bank %v stands there twice", Algorithm(bank))
		}
	}
	return nil
}

// cutEvent12 parses one TCG_PCClientPCREvent: register, type, SHA-1 digest, size, data.
func cutEvent12(b []byte) (e bankEvent, rest []byte, err error) {
	const fixed = 4 + 4 + 20 + 4
	if len(b) < fixed {
		return e, nil, fmt.Errorf("%d bytes left, want at least %d", len(b), fixed)
	}
	register := binary.LittleEndian.Uint32(b)
	e.typ = binary.LittleEndian.Uint32(b[4:])
	if e.register, err = registerOf(register, e.typ, pcRegisters); err != nil {
		return e, nil, err
	}
	e.digests = b[8:28:28]
	if e.data, rest, err = cutData(b[28:]); err != nil {
		return e, nil, err
	}
	return e, rest, nil
}

// Digest returns the event's digest in a bank of the log, or nil.
func (l *BootLog) Digest(e BankedEvent, bank Algorithm) []byte {
	if l.Form == FormTCG12 {
		if bank != SHA1 {
			return nil
		}
		return e.digests
	}
	b := e.digests
	for _, a := range l.Banks {
		if a == bank {
			return b[2 : 2+a.Size()]
		}
		b = b[2+a.Size():]
	}
	return nil
}

// Replay returns the registers that the events leave behind in a bank of the log, each that an event names, of those that start
// at zero; PCR 0 at the startup locality where an event names it. Registers from 16 on can be reset at will and are left out.
func (l *BootLog) Replay(bank Algorithm) (map[uint8][]byte, error) {
	if !slices.Contains(l.Banks, bank) {
		return nil, fmt.Errorf("replaying boot log: no %v bank, it has %v", bank, l.Banks)
	}
	if !slices.Contains([]Algorithm{SHA1, SHA256, SHA384, SHA512}, bank) {
		return nil, fmt.Errorf("replaying boot log: no way to hash in a bank of algorithm %v", bank)
	}
	registers := map[uint8][]byte{}
	if i := slices.IndexFunc(l.Events, func(e BankedEvent) bool { return e.Register == 0 && e.Type != evNoAction }); i > 0 {
		for _, e := range l.Events[:i] {
			if locality, ok := bytes.CutPrefix(e.Data, []byte(localitySignature)); ok && e.Register == 0 && e.Type == evNoAction && len(locality) == 1 {
				registers[0] = make([]byte, bank.Size())
				registers[0][bank.Size()-1] = locality[0]
			}
		}
	}
	for _, e := range l.Events {
		if e.Type == evNoAction || e.Register >= bootRegisters {
			continue
		}
		value := registers[e.Register]
		if value == nil {
			value = make([]byte, bank.Size())
		}
		registers[e.Register] = bank.Sum(slices.Concat(value, l.Digest(e, bank)))
	}
	return registers, nil
}
