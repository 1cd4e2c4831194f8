package main

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/spf13/cobra"

	"chrysalis/attest"
	"chrysalis/attest/check"
	"chrysalis/attest/tdx"
	"chrysalis/attest/vtpm"
	"chrysalis/measure/eventlog"
)

// eventlogFlags are appraise eventlog's.
type eventlogFlags struct {
	log, format, runtime, registers, quote string
	asJSON                                 bool
}

// eventlogReport is its JSON.
type eventlogReport struct {
	check.Report
	Format    string            `json:"format"`
	Registers map[string]string `json:"registers"`
	Events    []reportedEvent   `json:"events"`
}

// reportedEvent is one event. Proven says whether the data hashes to the digest; a replay looks at digests alone.
type reportedEvent struct {
	Number   int    `json:"number"`
	Register string `json:"register"`
	Type     string `json:"type"`
	Digest   string `json:"digest"`
	Data     string `json:"data"`
	Proven   bool   `json:"proven"`
	broken   bool   // the type ties data and digest together, and they differ
}

func newAppraiseEventlog() *cobra.Command {
	var flags eventlogFlags
	cmd := &cobra.Command{
		Use:   "eventlog --log FILE --format ccel|tcg2|cel",
		Short: "Replay a measured-boot or runtime log, and compare it with a quote",
		Long: "Replays a log and prints the registers that it leaves and each event, with whether its data hashes to its digest. A log\n" +
			"is what somebody says until its registers are compared: with --quote (TDX for ccel and cel; a TPMS_ATTEST for tcg2) or\n" +
			"--registers (a JSON file or text like {\"rtmr0\":\"…\",\"pcr4\":\"…\"}) a register that does not replay is a rejection. The\n" +
			"quote's own signature is for chrysalis appraise tdx. A CCEL is compared with RTMR0 to RTMR2, and with RTMR3 where it has\n" +
			"an event of it: what runs later extends that one, and --runtime gives its log. A replay that was compared with nothing has a\n" +
			"verdict of its own, not-compared.\nExit code 0: accepted, 1: rejected, 2: usage, 3: could not check, or compared with nothing.",
		Example: "  chrysalis appraise eventlog --log ccel.bin --format ccel --runtime runtime.cel --quote quote.bin\n" +
			"  chrysalis appraise eventlog --log binary_bios_measurements --format tcg2 --json",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return flags.appraise(cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.StringVar(&flags.log, "log", "", "log")
	f.StringVar(&flags.format, "format", "", "ccel (SHA-384, RTMRs), tcg2 (SHA-256, PCRs) or cel (runtime log, CEL-TLV)")
	f.StringVar(&flags.runtime, "runtime", "", "with ccel: the log of what extended RTMR3 after firmware and boot loader, CEL-TLV")
	f.StringVar(&flags.registers, "registers", "", "registers to compare with: JSON, or a file with it")
	f.StringVar(&flags.quote, "quote", "", "quote to compare with: bytes, hexadecimal or base64")
	f.BoolVar(&flags.asJSON, "json", false, "print JSON")
	for _, name := range []string{"log", "format"} {
		_ = cmd.MarkFlagRequired(name)
	}
	return cmd
}

func (f *eventlogFlags) appraise(out, notes io.Writer) error {
	replay, ok := map[string]func(*eventlogReport, []byte) error{"ccel": replayCCEL, "tcg2": replayTCG2, "cel": replayCEL}[f.format]
	if !ok {
		return exitError{exitUsage, fmt.Errorf("--format %q: want ccel, tcg2 or cel", f.format)}
	}
	if f.runtime != "" && f.format != "ccel" {
		return exitError{exitUsage, fmt.Errorf("--runtime with --format %s: want it with ccel", f.format)}
	}
	want, err := f.wanted()
	if err != nil {
		return err
	}
	v := eventlogReport{Report: check.Accept(nil, nil), Format: f.format, Registers: map[string]string{}, Events: []reportedEvent{}}
	log, runtime, quote, err := f.read()
	var unread unreadable
	if errors.As(err, &unread) {
		v.Report = check.Refuse(err)
		v.Check = unread.what
	} else if err := replay(&v, log); err != nil {
		v.deny("log-format", err.Error(), "a "+f.format+" log")
	} else if err := v.goOn(runtime); err != nil {
		v.deny("runtime-log-format", err.Error(), "a cel log of RTMR3")
	} else {
		v.compare(want)
		if f.quote != "" {
			v.compareQuote(quote)
		}
		if len(v.Checks) == 0 {
			v.Verdict, v.Reason = notCompared, "nothing was compared: the log is what somebody says (--quote or --registers compares it)"
		}
	}
	if f.asJSON {
		if err := printJSON(out, v); err != nil {
			return unavailable(err)
		}
	} else {
		printEventlog(out, v)
	}
	if broken := slices.IndexFunc(v.Events, func(e reportedEvent) bool { return e.broken }); broken >= 0 {
		fmt.Fprintf(notes, "chrysalis: note: event %d (%s) has other data than was measured\n", broken, v.Events[broken].Type)
	}
	for _, weakness := range v.Weaknesses {
		fmt.Fprintf(notes, "chrysalis: note: %s\n", weakness)
	}
	switch {
	case err != nil:
		return exitOf(err)
	case v.Verdict == notCompared:
		return unavailable(errors.New(v.Reason))
	case v.Verdict != check.WordAccepted:
		return rejected(errors.New(v.Reason))
	}
	return nil
}

// notCompared is the verdict of a replay that nothing was held against.
const notCompared = "not-compared"

// goOn replays into RTMR3 what a runtime log says was extended after the firmware's log ended.
func (v *eventlogReport) goOn(log []byte) error {
	if log == nil {
		return nil
	}
	events, err := eventlog.ParseCEL(log)
	if err != nil {
		return err
	}
	const name = "rtmr3"
	b, err := hex.DecodeString(v.value(name))
	if err != nil || len(b) != 48 {
		return fmt.Errorf("%s of the log is %q, want 96 hexadecimal digits", name, v.value(name))
	}
	value := [48]byte(b)
	for i, e := range events {
		if !e.CC || eventlog.Register(e.Register) != eventlog.RTMR3 || e.SHA384 == nil {
			return fmt.Errorf("record %d is of another register, or has no digest for it", i)
		}
		value = eventlog.Extend384(value, *e.SHA384)
		v.Events = append(v.Events, reportedEvent{
			Number: len(v.Events), Register: name, Type: fmt.Sprintf("content %d", e.Type), Digest: hex.EncodeToString(e.SHA384[:]),
			Data: hex.EncodeToString(e.Content), Proven: e.Matches(), broken: !e.Matches(),
		})
	}
	v.Registers[name] = hex.EncodeToString(value[:])
	return nil
}

// read reads the log and, where there are some, runtime log and quote.
func (f *eventlogFlags) read() (log, runtime, quote []byte, err error) {
	if log, err = readInput(f.log); err != nil {
		return nil, nil, nil, unreadable{"log", err}
	}
	if f.runtime != "" {
		if runtime, err = readInput(f.runtime); err != nil {
			return nil, nil, nil, unreadable{"runtime-log", err}
		}
		runtime = append([]byte{}, runtime...) // an empty file is a log too
	}
	if f.quote != "" {
		quote, err = readEvidence("quote", f.quote, []byte{4, 0, 2, 0}, []byte{5, 0, 2, 0}, []byte{0xff, 'T', 'C', 'G'})
	}
	return log, runtime, quote, err
}

var registerName = regexp.MustCompile(`^(rtmr[0-3]|pcr(1?[0-9]|2[0-3]))$`)

// wanted reads --registers.
func (f *eventlogFlags) wanted() (map[string]string, error) {
	if f.registers == "" {
		return nil, nil
	}
	text := []byte(f.registers)
	if !bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) {
		var err error
		if text, err = readInput(f.registers); err != nil {
			return nil, unavailable(err)
		}
	}
	var want map[string]string
	if err := json.Unmarshal(text, &want); err != nil {
		return nil, exitError{exitUsage, fmt.Errorf("--registers: %w", err)}
	}
	lower := map[string]string{}
	for name, value := range want {
		size := 32
		if strings.HasPrefix(name, "rtmr") {
			size = 48
		}
		if b, err := hex.DecodeString(value); err != nil || len(b) != size || !registerName.MatchString(name) {
			return nil, exitError{exitUsage, fmt.Errorf("--registers: %q is %q, want rtmr0 to rtmr3 or pcr0 to pcr23 with as many hexadecimal "+
				"digits as their digests have", name, value)}
		}
		lower[name] = strings.ToLower(value)
	}
	if len(lower) == 0 {
		return nil, exitError{exitUsage, errors.New("--registers names no register")}
	}
	return lower, nil
}

// add appends a comparison. The first that denies gives the reason.
func (v *eventlogReport) add(name, got, want string) {
	c := attest.Check{Name: name, Got: got, Want: want, Verdict: attest.Accepted}
	if got != want {
		c.Verdict = attest.Denied
		if v.Verdict == check.WordAccepted {
			v.Verdict, v.Check, v.Reason = check.WordRejected, name, fmt.Sprintf("appraising log: %s: got %s, want %s", name, got, want)
		}
	}
	v.Checks = append(v.Checks, c)
}

func (v *eventlogReport) deny(name, got, want string) { v.add(name, got, want) }

// value returns a replayed register. One that no event names is at zero.
func (v *eventlogReport) value(name string) string {
	if value, ok := v.Registers[name]; ok {
		return value
	}
	size := 32
	if strings.HasPrefix(name, "rtmr") {
		size = 48
	}
	return strings.Repeat("00", size)
}

func (v *eventlogReport) compare(want map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(want)) {
		v.add(name, v.value(name), want[name])
	}
}

// compareQuote compares the replayed registers with a quote's: every RTMR for ccel, RTMR3 for cel, and for tcg2 the digest
// over the PCRs that the quote selects.
func (v *eventlogReport) compareQuote(raw []byte) {
	if v.Format == "tcg2" {
		q, err := vtpm.ParseQuote(raw)
		if err != nil {
			v.deny("quote-format", err.Error(), "a TPMS_ATTEST of a quote")
			return
		}
		v.compareTPM(q)
		return
	}
	q, err := tdx.Parse(raw)
	if err != nil {
		v.deny("quote-format", err.Error(), "a TDX quote")
		return
	}
	for i, rtmr := range q.Body.RTMR {
		name := fmt.Sprintf("rtmr%d", i)
		// Firmware and boot loader write the CCEL, and what runs after them extends RTMR3: another log speaks of it.
		if v.Format == "ccel" && i == 3 && !slices.ContainsFunc(v.Events, func(e reportedEvent) bool { return e.Register == name }) {
			delete(v.Registers, name)
			v.Checks = append(v.Checks, attest.Check{Name: name, Got: "no event", Want: "no event, or all of " + hex.EncodeToString(rtmr[:]), Verdict: attest.Accepted})
			if rtmr != ([48]byte{}) {
				v.Weaknesses = append(v.Weaknesses, name+" was extended at run time, and no event of this log speaks of it: --runtime gives its log")
			}
			continue
		}
		if v.Format == "ccel" || i == 3 || v.Registers[name] != "" {
			v.add(name, v.value(name), hex.EncodeToString(rtmr[:]))
		}
	}
}

func (v *eventlogReport) compareTPM(q *vtpm.Quote) {
	var pcrs []uint
	if len(q.Selections) == 1 {
		pcrs = q.Selections[0].Registers
	}
	// A log can say what is in PCR 0 to 15 alone: others can be reset or do not start at zero.
	if !q.Selects(pcrs) || slices.ContainsFunc(pcrs, func(pcr uint) bool { return pcr > 15 }) {
		v.deny("pcr-selection", fmt.Sprint(q.Selections), "some of PCR 0 to 15 in the SHA-256 bank")
		return
	}
	var values [][32]byte
	for _, pcr := range pcrs {
		b, _ := hex.DecodeString(v.value(fmt.Sprintf("pcr%d", pcr)))
		values = append(values, [32]byte(b))
	}
	digest := vtpm.Digest(values)
	v.add("pcr-digest", hex.EncodeToString(digest[:]), hex.EncodeToString(q.Digest))
}

// noRegister stands for the register of an event that extends none.
const noRegister = "none"

func replayCCEL(v *eventlogReport, log []byte) error {
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
			Proven: e.Matches(), broken: e.Broken(),
		})
	}
	for i, value := range eventlog.ReplayCCEL(events) {
		v.Registers[fmt.Sprintf("rtmr%d", i)] = hex.EncodeToString(value[:])
	}
	return nil
}

func replayTCG2(v *eventlogReport, log []byte) error {
	events, err := eventlog.ParseBoot(log)
	if err != nil {
		return err
	}
	for i, e := range events {
		register := fmt.Sprintf("pcr%d", e.Register)
		if e.Register == eventlog.NoRegister {
			register = noRegister
		}
		v.Events = append(v.Events, reportedEvent{
			Number: i, Register: register, Type: eventTypeName(e.Type), Digest: hex.EncodeToString(e.Digest[:]),
			Data:   hex.EncodeToString(e.Data),
			Proven: e.Matches(), broken: e.Broken(),
		})
	}
	for i, value := range eventlog.ReplayBoot(events) {
		v.Registers[fmt.Sprintf("pcr%d", i)] = hex.EncodeToString(value[:])
	}
	return nil
}

func replayCEL(v *eventlogReport, log []byte) error {
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
		r.broken = !r.Proven
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
	0x08: "EV_S_CRTM_VERSION", 0x0a: "EV_PLATFORM_CONFIG_FLAGS", 0x0d: "EV_IPL",
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
		if e.Proven {
			proven = "proven"
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
