package eventlog

import (
	"bytes"
	"crypto/sha512"
	"fmt"
)

// ccRegisters are the measurement registers of a confidential VM: index 0 is MRTD, 1 to 4 are RTMR0 to RTMR3 (UEFI 2.10,
// section 38.4.1).
const ccRegisters = 5

// CCEvent is one event of a CCEL, the log of a TDX guest's firmware and boot loader. Its data is what the log claims and
// nothing more, unless Matches reports otherwise.
type CCEvent struct {
	Register uint8 // 0 MRTD, 1 to 4 RTMR0 to RTMR3, or NoRegister
	Type     uint32
	Digest   [48]byte
	Data     []byte // untrusted unless Matches
}

// Matches reports whether the data, all of it, hashes to the digest.
func (e CCEvent) Matches() bool { return matches(e.Type, e.Data, e.is) }

// Broken reports whether the profile ties this type's digest to the event's data, and they disagree.
func (e CCEvent) Broken() bool { return broken(e.Type, e.Data, e.is) }

func (e CCEvent) is(data []byte) bool { return sha512.Sum384(data) == e.Digest }

// ParseCCEL parses the log area that the ACPI table CCEL points to: a TCG2 log with a SHA-384 bank, then 0xff or zeros up
// to the end of the area and nothing else.
func ParseCCEL(log []byte) ([]CCEvent, error) {
	events, _, err := cutCCEL(log)
	return events, err
}

// CutCCEL returns a log area without what fills it after the last event.
func CutCCEL(area []byte) ([]byte, error) {
	_, rest, err := cutCCEL(area)
	if err != nil {
		return nil, err
	}
	return area[:len(area)-len(rest)], nil
}

func cutCCEL(log []byte) (events []CCEvent, rest []byte, err error) {
	if len(log) > maxBootBytes {
		return nil, nil, fmt.Errorf("parsing CCEL: %d bytes, want at most %d", len(log), maxBootBytes)
	}
	// Firmware puts the header into RTMR0, or leaves zero.
	banks, rest, err := cutBootHeader(log, 1)
	if err == nil {
		err = oneBank(banks, algSHA384)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("parsing CCEL: header: %v", err)
	}
	for !padding(rest) {
		if len(events) == maxBootEvents {
			return nil, nil, fmt.Errorf("parsing CCEL: more than %d events", maxBootEvents)
		}
		var raw bankEvent
		if raw, rest, err = cutBankEvent(rest, banks, ccRegisters); err != nil {
			return nil, nil, fmt.Errorf("parsing CCEL: event %d: %v", len(events), err)
		}
		if raw.register == 0 && raw.typ != evNoAction {
			return nil, nil, fmt.Errorf("parsing CCEL: event %d extends MRTD, which nothing can", len(events))
		}
		events = append(events, CCEvent{Register: raw.register, Type: raw.typ, Digest: [48]byte(raw.digest(banks, algSHA384)), Data: raw.data})
	}
	return events, rest, nil
}

// padding reports whether b is all zeros or all 0xff. No event is so: type 0 in register 0 extends MRTD, a PCR takes no digest of
// zeros, and no register has the other number. What does not begin so is not looked at whole.
func padding(b []byte) bool {
	const begin = 8
	for _, fill := range []byte{0, 0xff} {
		if bytes.HasPrefix(b, bytes.Repeat([]byte{fill}, min(len(b), begin))) {
			return bytes.Count(b, []byte{fill}) == len(b)
		}
	}
	return false
}

// ReplayCCEL returns RTMR0 to RTMR3 as the events leave them. Events of type EV_NO_ACTION are not extended.
func ReplayCCEL(events []CCEvent) (rtmr [4][48]byte) {
	for _, e := range events {
		if e.Type != evNoAction && e.Register > 0 {
			rtmr[e.Register-1] = Extend384(rtmr[e.Register-1], e.Digest)
		}
	}
	return rtmr
}

// Extend384 is how an RTMR takes a digest: SHA-384(value, digest).
func Extend384(value, digest [48]byte) [48]byte {
	return sha512.Sum384(append(value[:], digest[:]...))
}
