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
	"chrysalis/measure/fault"
)

// eventlogFlags are appraise eventlog's.
type eventlogFlags struct {
	log, format, bank, runtime, registers, quote string
	asJSON                                       bool
}

// eventlogReport is its JSON.
type eventlogReport struct {
	check.Report
	Format    string            `json:"format"`
	Form      string            `json:"form,omitempty"` // of a boot log: tcg2, or tcg-1.2
	Bank      string            `json:"bank"`           // in which it was replayed
	Registers map[string]string `json:"registers"`
	Events    []reportedEvent   `json:"events"`
}

// reportedEvent is one event. Proven says whether the data, all of it, hashes to the digest; a replay looks at digests alone.
type reportedEvent struct {
	Number   int    `json:"number"`
	Register string `json:"register"`
	Type     string `json:"type"`
	Digest   string `json:"digest"`
	Data     string `json:"data"`
	Name     string `json:"name,omitempty"` // that the log gives it
	Proven   bool   `json:"proven"`
	Hashed   string `json:"hashed"` // what of the data was hashed, "" where that is not in the log
	Lie      bool   `json:"lie"`    // the type ties data and digest together, and they differ
}

func newAppraiseEventlog() *cobra.Command {
	var flags eventlogFlags
	cmd := &cobra.Command{
		Use:   "eventlog --log FILE --format ccel|tcg2|cel|dstack",
		Short: "Replay a measured-boot or runtime log, and compare it with a quote",
		Long: "Replays a log and prints the registers that it leaves and each event, with whether its data hashes to its digest. A log\n" +
			"is what somebody says until its registers are compared: with --quote (TDX for ccel, cel and dstack; a TPMS_ATTEST for tcg2)\n" +
			"or --registers (a JSON file or text like {\"rtmr0\":\"…\",\"pcr4\":\"…\"}) a register that does not replay is a rejection. The\n" +
			"quote's own signature is for chrysalis appraise tdx. A CCEL is compared with RTMR0 to RTMR2, and with RTMR3 where it has\n" +
			"an event of it: what runs later extends that one, and --runtime gives its log. A TCG2 log is replayed in the bank that the\n" +
			"quote or the registers are of, else in SHA-256 or the strongest that it has; logs of TPM 1.2 are SHA-1 alone. A replay\n" +
			"that was compared with nothing has a verdict of its own, not-compared.\n" +
			"Of an event that is no proof the JSON says what was hashed, and whether it lies: of its type the data must hash to the digest.\n" +
			"Exit code 0: accepted, 1: rejected, 2: usage, 3: could not check, or compared with nothing.",
		Example: "  chrysalis appraise eventlog --log ccel.bin --format ccel --runtime runtime.cel --quote quote.bin\n" +
			"  chrysalis appraise eventlog --log binary_bios_measurements --format tcg2 --bank sha384 --json\n" +
			"  chrysalis appraise eventlog --log eventlog.json --format dstack --quote quote.hex",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return flags.appraise(cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.StringVar(&flags.log, "log", "", "log")
	f.StringVar(&flags.format, "format", "", "ccel (SHA-384, RTMRs), tcg2 (PCRs; TPM 1.2's too), cel (runtime log, CEL-TLV) or dstack (its JSON, RTMRs)")
	f.StringVar(&flags.bank, "bank", "", "with tcg2: sha1, sha256, sha384 or sha512, instead of the one that is compared with")
	f.StringVar(&flags.runtime, "runtime", "", "with ccel: the log of what extended RTMR3 after firmware and boot loader, CEL-TLV")
	f.StringVar(&flags.registers, "registers", "", "registers to compare with: JSON, or a file with it")
	f.StringVar(&flags.quote, "quote", "", "quote to compare with: bytes, hexadecimal or base64")
	f.BoolVar(&flags.asJSON, "json", false, "print JSON")
	cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{"ccel", "tcg2", "cel", "dstack"}, cobra.ShellCompDirectiveNoFileComp))
	for _, name := range []string{"log", "format"} {
		_ = cmd.MarkFlagRequired(name)
	}
	return cmd
}

func (f *eventlogFlags) appraise(out, notes io.Writer) error {
	replay, ok := replays[f.format]
	if !ok {
		return exitError{exitUsage, fmt.Errorf("--format %q: want ccel, tcg2, cel or dstack", f.format)}
	}
	if f.runtime != "" && f.format != "ccel" {
		return exitError{exitUsage, fmt.Errorf("--runtime with --format %s: want it with ccel", f.format)}
	}
	if f.bank != "" && (f.format != "tcg2" || bankOf(f.bank) == 0) {
		return exitError{exitUsage, fmt.Errorf("--bank %q with --format %s: want sha1, sha256, sha384 or sha512, with tcg2", f.bank, f.format)}
	}
	want, err := f.wanted()
	if err != nil {
		return err
	}
	v := eventlogReport{Report: check.Accept(nil, nil), Format: f.format, Bank: "sha384", Registers: map[string]string{}, Events: []reportedEvent{}}
	log, runtime, quote, err := f.read()
	var unread unreadable
	if errors.As(err, &unread) {
		v.Report = check.Refuse(err)
		v.Check = unread.what
	} else if err := replay(&v, log, f.bankWanted(want, quote)); err != nil {
		v.deny("log-format", err.Error()+otherLog(f.format, log), "a "+f.format+" log")
	} else if err := v.goOn(runtime); err != nil {
		v.deny("runtime-log-format", err.Error(), "a cel log of RTMR3")
	} else {
		v.compare(want, f.quote != "")
		if f.quote != "" {
			v.compareQuote(quote, want)
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
	if lie := slices.IndexFunc(v.Events, func(e reportedEvent) bool { return e.Lie }); lie >= 0 {
		fmt.Fprintf(notes, "chrysalis: note: event %d (%s) has other data than was measured\n", lie, v.Events[lie].Type)
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
			Data: hex.EncodeToString(e.Content), Proven: e.Matches(), Hashed: hashedAll(e.Matches()), Lie: !e.Matches(),
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
		return nil, exitError{exitUsage, fmt.Errorf("--registers: %w", fault.JSON(err))}
	}
	lower, pcrs := map[string]string{}, 0
	for name, value := range want {
		b, err := hex.DecodeString(value)
		ok := err == nil && registerName.MatchString(name)
		if strings.HasPrefix(name, "rtmr") {
			ok = ok && len(b) == 48
		} else {
			ok = ok && slices.Contains([]int{20, 32, 48, 64}, len(b)) && (pcrs == 0 || pcrs == len(b))
			pcrs = len(b)
		}
		if !ok {
			return nil, exitError{exitUsage, fmt.Errorf("--registers: %q is %q, want rtmr0 to rtmr3 or pcr0 to pcr23, those of one bank, with as "+
				"many hexadecimal digits as its digests have", name, value)}
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
	size := 48
	if strings.HasPrefix(name, "pcr") {
		size = bankOf(v.Bank).Size()
	}
	return strings.Repeat("00", size)
}

// compare compares with the registers that were stated. What no log speaks of is stated for the quote, whose digest covers it.
func (v *eventlogReport) compare(want map[string]string, quoted bool) {
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if quoted && v.Format == "tcg2" && !spokenOf(name) {
			continue
		}
		v.add(name, v.value(name), want[name])
	}
}

// compareQuote compares the replayed registers with a quote's: every RTMR for ccel and dstack, RTMR3 for cel, and for tcg2 the
// digest over the PCRs that the quote selects.
func (v *eventlogReport) compareQuote(raw []byte, stated map[string]string) {
	if v.Format == "tcg2" {
		q, err := vtpm.ParseQuote(raw)
		if err != nil {
			v.deny("quote-format", err.Error()+otherQuote(raw), "a TPMS_ATTEST of a quote")
			return
		}
		v.compareTPM(q, stated)
		return
	}
	q, err := tdx.Parse(raw)
	if err != nil {
		v.deny("quote-format", err.Error()+otherQuote(raw), "a TDX quote")
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
		if v.Format != "cel" || i == 3 || v.Registers[name] != "" {
			v.add(name, v.value(name), hex.EncodeToString(rtmr[:]))
		}
	}
}

// spokenOf reports whether a log can say what is in the register: PCR 16 and above can be reset or do not start at zero.
func spokenOf(name string) bool {
	return !strings.HasPrefix(name, "pcr1") && !strings.HasPrefix(name, "pcr2") || len(name) < 5 || name[3] == '1' && name[4] < '6'
}

func (v *eventlogReport) compareTPM(q *vtpm.Quote, stated map[string]string) {
	if len(q.Selections) != 1 || len(q.Selections[0].Registers) == 0 || eventlog.Algorithm(q.Selections[0].Hash) != bankOf(v.Bank) {
		v.deny("pcr-selection", fmt.Sprint(q.Selections), "some of PCR 0 to 15 in the "+v.Bank+" bank")
		return
	}
	var values []byte
	for _, pcr := range q.Selections[0].Registers {
		name := fmt.Sprintf("pcr%d", pcr)
		value := v.value(name)
		if !spokenOf(name) {
			if value = stated[name]; value == "" {
				v.deny("pcr-selection", fmt.Sprint(q.Selections), "some of PCR 0 to 15 in the "+v.Bank+" bank, or --registers with "+name+", of which no log speaks")
				return
			}
		}
		b, _ := hex.DecodeString(value)
		values = append(values, b...)
	}
	// The digest is by the hash of the key's signature, which a quote does not name.
	for _, signing := range []eventlog.Algorithm{eventlog.SHA1, eventlog.SHA256, eventlog.SHA384, eventlog.SHA512} {
		if signing.Size() == len(q.Digest) {
			v.add("pcr-digest", hex.EncodeToString(signing.Sum(values)), hex.EncodeToString(q.Digest))
			return
		}
	}
	v.deny("pcr-digest", fmt.Sprintf("%d bytes", len(q.Digest)), "a digest of 20, 32, 48 or 64")
}
