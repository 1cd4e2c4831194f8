package main

import (
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"chrysalis/attest/vtpm"
	"chrysalis/measure/eventlog"
)

// replays are the formats of a log. The bank is of a boot log alone, 0 where nobody asks for one.
var replays = map[string]func(*eventlogReport, []byte, eventlog.Algorithm) error{
	"ccel": replayCCEL, "tcg2": replayTCG2, "cel": replayCEL, "dstack": replayDstack,
}

// noRegister stands for the register of an event that extends none.
const noRegister = "none"

// banks are those of a boot log that can be replayed, in the order in which one is taken that nobody has asked for.
var banks = []eventlog.Algorithm{eventlog.SHA256, eventlog.SHA384, eventlog.SHA512, eventlog.SHA1}

// bankOf returns a bank by its name, or 0.
func bankOf(name string) eventlog.Algorithm {
	for _, bank := range banks {
		if bank.String() == name {
			return bank
		}
	}
	return 0
}

// bankWanted returns the bank that is asked for, or that the registers or the quote are of.
func (f *eventlogFlags) bankWanted(registers map[string]string, quote []byte) eventlog.Algorithm {
	if f.bank != "" || f.format != "tcg2" {
		return bankOf(f.bank)
	}
	for name, value := range registers {
		for _, bank := range banks {
			if strings.HasPrefix(name, "pcr") && 2*bank.Size() == len(value) {
				return bank
			}
		}
	}
	if q, err := vtpm.ParseQuote(quote); err == nil && len(q.Selections) == 1 {
		return eventlog.Algorithm(q.Selections[0].Hash)
	}
	return 0
}

func hashedAll(matches bool) string {
	if matches {
		return string(eventlog.HashedData)
	}
	return string(eventlog.HashedOther)
}

func replayCCEL(v *eventlogReport, log []byte, _ eventlog.Algorithm) error {
	events, err := eventlog.ParseCCEL(log)
	if err != nil {
		return err
	}
	for i, e := range events {
		register := "mrtd"
		if e.Register == eventlog.NoRegister {
			register = noRegister
		} else if e.Register > 0 {
			register = fmt.Sprintf("rtmr%d", e.Register-1)
		}
		v.Events = append(v.Events, reportedEvent{
			Number: i, Register: register, Type: eventTypeName(e.Type), Digest: hex.EncodeToString(e.Digest[:]), Data: hex.EncodeToString(e.Data),
			Proven: e.Matches(), Hashed: string(e.Hashed()), Lie: e.Lie(),
		})
	}
	for i, value := range eventlog.ReplayCCEL(events) {
		v.Registers[fmt.Sprintf("rtmr%d", i)] = hex.EncodeToString(value[:])
	}
	return nil
}

func replayDstack(v *eventlogReport, log []byte, _ eventlog.Algorithm) error {
	events, err := eventlog.ParseDstack(log)
	if err != nil {
		return err
	}
	for i, e := range events {
		v.Events = append(v.Events, reportedEvent{
			Number: i, Register: fmt.Sprintf("rtmr%d", e.RTMR), Type: eventTypeName(e.Type), Digest: hex.EncodeToString(e.Digest[:]),
			Data: hex.EncodeToString(e.Payload), Name: e.Name, Proven: e.Hashed() == eventlog.HashedData, Hashed: string(e.Hashed()), Lie: e.Lie(),
		})
	}
	for i, value := range eventlog.ReplayDstack(events) {
		v.Registers[fmt.Sprintf("rtmr%d", i)] = hex.EncodeToString(value[:])
	}
	return nil
}

func replayTCG2(v *eventlogReport, log []byte, bank eventlog.Algorithm) error {
	l, err := eventlog.ParseBootLog(log)
	if err != nil {
		return err
	}
	if _, err := eventlog.ParseCCEL(log); err == nil {
		return fmt.Errorf("a CCEL: its registers are RTMRs")
	}
	for _, b := range banks {
		if bank == 0 && slices.Contains(l.Banks, b) {
			bank = b
		}
	}
	registers, err := l.Replay(bank)
	if err != nil {
		return err
	}
	v.Form, v.Bank = string(l.Form), bank.String()
	if bank == eventlog.SHA1 {
		v.Weaknesses = append(v.Weaknesses, "the log was replayed in SHA-1, of which two contents with one digest can be made: no content of an "+
			"event is proven by it")
	}
	for i, e := range l.Events {
		register := fmt.Sprintf("pcr%d", e.Register)
		if e.Register == eventlog.NoRegister {
			register = noRegister
		}
		hashed := l.Hashed(e, bank)
		v.Events = append(v.Events, reportedEvent{
			Number: i, Register: register, Type: eventTypeName(e.Type), Digest: hex.EncodeToString(l.Digest(e, bank)), Data: hex.EncodeToString(e.Data),
			Proven: hashed == eventlog.HashedData && bank != eventlog.SHA1, Hashed: string(hashed), Lie: l.Lie(e, bank),
		})
	}
	for pcr := range uint8(16) { // those of which a log can speak, at zero where it does not
		v.Registers[fmt.Sprintf("pcr%d", pcr)] = strings.Repeat("00", bank.Size())
	}
	for pcr, value := range registers {
		v.Registers[fmt.Sprintf("pcr%d", pcr)] = hex.EncodeToString(value)
	}
	return nil
}

func replayCEL(v *eventlogReport, log []byte, _ eventlog.Algorithm) error {
	events, err := eventlog.ParseCEL(log)
	if err != nil {
		return err
	}
	// The runtime log's own parser knows what its events are called.
	runtime, _ := eventlog.ParseRuntime(log)
	for i, e := range events {
		r := reportedEvent{Number: i, Register: fmt.Sprintf("pcr%d", e.Register), Type: fmt.Sprintf("content %d", e.Type),
			Data: hex.EncodeToString(e.Content), Proven: e.Matches()}
		if e.CC {
			r.Register, r.Digest = fmt.Sprintf("rtmr%d", e.Register-1), hex.EncodeToString(e.SHA384[:])
		} else {
			r.Digest = hex.EncodeToString(e.SHA256[:])
		}
		if i < len(runtime) {
			r.Type, r.Data = runtime[i].Kind.String(), hex.EncodeToString(runtime[i].Data)
		}
		r.Hashed, r.Lie = hashedAll(r.Proven), !r.Proven
		v.Events = append(v.Events, r)
	}
	pcrs, rtmrs := eventlog.ReplayCEL(events)
	for register, value := range pcrs {
		v.Registers[fmt.Sprintf("pcr%d", register)] = hex.EncodeToString(value[:])
	}
	for register, value := range rtmrs {
		v.Registers[fmt.Sprintf("rtmr%d", register)] = hex.EncodeToString(value[:])
	}
	return nil
}

// eventTypeNames are those of TCG PC Client Platform Firmware Profile 1.06, section 10.4.1.
var eventTypeNames = map[uint32]string{
	0x01: "EV_POST_CODE", 0x03: "EV_NO_ACTION", 0x04: "EV_SEPARATOR", 0x05: "EV_ACTION", 0x06: "EV_EVENT_TAG", 0x07: "EV_S_CRTM_CONTENTS",
	0x08: "EV_S_CRTM_VERSION", 0x09: "EV_CPU_MICROCODE", 0x0a: "EV_PLATFORM_CONFIG_FLAGS", 0x0b: "EV_TABLE_OF_DEVICES",
	0x0c: "EV_COMPACT_HASH", 0x0d: "EV_IPL", 0x0e: "EV_IPL_PARTITION_DATA", 0x12: "EV_NONHOST_INFO", 0x08000001: "dstack-runtime",
	0x80000001: "EV_EFI_VARIABLE_DRIVER_CONFIG", 0x80000002: "EV_EFI_VARIABLE_BOOT", 0x80000003: "EV_EFI_BOOT_SERVICES_APPLICATION",
	0x80000004: "EV_EFI_BOOT_SERVICES_DRIVER", 0x80000006: "EV_EFI_GPT_EVENT", 0x80000007: "EV_EFI_ACTION",
	0x80000008: "EV_EFI_PLATFORM_FIRMWARE_BLOB",
	0x80000009: "EV_EFI_HANDOFF_TABLES", 0x8000000a: "EV_EFI_PLATFORM_FIRMWARE_BLOB2", 0x8000000b: "EV_EFI_HANDOFF_TABLES2",
	0x8000000c: "EV_EFI_VARIABLE_BOOT2", 0x800000e0: "EV_EFI_VARIABLE_AUTHORITY",
}

func eventTypeName(typ uint32) string {
	if name, ok := eventTypeNames[typ]; ok {
		return name
	}
	return fmt.Sprintf("%#x", typ)
}

// printEventlog writes events, registers, comparisons and verdict.
func printEventlog(w io.Writer, v eventlogReport) {
	for _, e := range v.Events {
		proven := "not proven"
		switch {
		case e.Proven:
			proven = "proven"
		case e.Lie:
			proven = "a lie: other data was measured"
		case e.Hashed != "" && e.Hashed != string(eventlog.HashedData):
			proven += ": hashed was " + e.Hashed
		}
		fmt.Fprintf(w, "%3d  %-5s  %-33s %s…  %s\n", e.Number, e.Register, e.Type, e.Digest[:16], proven)
	}
	for _, name := range slices.SortedFunc(maps.Keys(v.Registers), func(a, b string) int {
		if len(a) != len(b) {
			return len(a) - len(b) // pcr9 before pcr10
		}
		return strings.Compare(a, b)
	}) {
		fmt.Fprintf(w, "%-6s %s\n", name, v.Registers[name])
	}
	printChecks(w, v.Checks)
	fmt.Fprintln(w, v.Verdict)
}
