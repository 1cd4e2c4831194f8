package main

import (
	"encoding/binary"
	"fmt"
	"io"

	"chrysalis/attest/tdx"
	"chrysalis/attest/vtpm"
	"chrysalis/measure/eventlog"
)

// What evidence is, where it is what a verb wants.
const (
	kindTDX = "a TDX quote"
	kindSNP = "an SEV-SNP report"
)

// saySlip notes that a flag was given other evidence than it is for.
func saySlip(notes io.Writer, flag string, raw []byte, wanted string) {
	if kind, use := evidenceOf(raw); kind != "" && kind != wanted {
		fmt.Fprintf(notes, "chrysalis: hint: %s is %s, want %s: %s\n", flag, kind, wanted, use)
	}
}

// evidenceOf names what a piece of evidence is, and which verb or flag it is for. It is asked where a parser has refused the
// evidence, so that who took one file for another is told so.
func evidenceOf(raw []byte) (kind, use string) {
	le := binary.LittleEndian
	const (
		tdReport, sgxReport, snpReport = 1024, 432, 1184
		tdReportType                   = 0x81 // Intel TDX Module ABI, REPORTTYPE
		teeSGX                         = 0
	)
	switch {
	case len(raw) == tdReport && raw[0] == tdReportType:
		return "a TD report, which only its own machine can check", "the machine's quoting enclave makes a quote of it (in the guest: configfs-tsm's outblob)"
	case len(raw) == sgxReport:
		return "an enclave's report of SGX, which only its own machine can check", "there is no verb for SGX"
	case len(raw) >= 48 && le.Uint16(raw) == 3 && le.Uint16(raw[2:]) <= 3:
		return "a quote of version 3, which is SGX's", "there is no verb for SGX"
	case len(raw) >= 48 && (le.Uint16(raw) == 4 || le.Uint16(raw) == 5) && le.Uint32(raw[4:]) == teeSGX:
		return "a quote of an SGX enclave", "there is no verb for SGX"
	case len(raw) == snpReport:
		return kindSNP, "chrysalis appraise sev-snp"
	}
	if _, err := vtpm.ParseQuote(raw); err == nil {
		return "a TPM's quote", "chrysalis appraise eventlog --format tcg2"
	}
	if _, err := tdx.Parse(raw); err == nil {
		return kindTDX, "chrysalis appraise tdx, or --format ccel, cel or dstack of appraise eventlog"
	}
	if table := acpiTable(raw); table != "" {
		return table, "the log itself"
	}
	if format := logFormat(raw); format != "" {
		return "an event log", "--log with --format " + format
	}
	return "", ""
}

// otherQuote says what was given in place of a quote, or nothing.
func otherQuote(raw []byte) string {
	kind, use := evidenceOf(raw)
	if kind == "" {
		return ""
	}
	return fmt.Sprintf("; it is %s: %s", kind, use)
}

// otherLog says what was given in place of a log of the format, or nothing.
func otherLog(format string, log []byte) string {
	if table := acpiTable(log); table != "" {
		return fmt.Sprintf("; it is %s", table)
	}
	if other := logFormat(log); other != "" && other != format {
		return "; it reads as another log: --format " + other
	}
	if kind, _ := evidenceOf(log); kind != "" && logFormat(log) == "" {
		return fmt.Sprintf("; it is %s: --quote takes evidence", kind)
	}
	return ""
}

// logFormat returns the format that a log reads as, or "".
func logFormat(log []byte) string {
	if _, err := eventlog.ParseCCEL(log); err == nil {
		return "ccel"
	}
	if _, err := eventlog.ParseBootLog(log); err == nil {
		return "tcg2"
	}
	if events, err := eventlog.ParseCEL(log); err == nil && len(events) > 0 {
		return "cel"
	}
	if _, err := eventlog.ParseDstack(log); err == nil {
		return "dstack"
	}
	return ""
}

// acpiTable names the ACPI table that stands in place of the log that it points to, and where that lies under Linux; "" for
// anything else. A table begins with four letters and its own length: ACPI 6.5, section 5.2.6.
func acpiTable(b []byte) string {
	const header = 36
	if len(b) < header || uint64(binary.LittleEndian.Uint32(b[4:])) != uint64(len(b)) {
		return ""
	}
	switch name := string(b[:4]); name {
	case "CCEL":
		return "the ACPI table CCEL, which says where the log lies; under Linux the log is /sys/firmware/acpi/tables/data/CCEL"
	case "TPM2", "TCPA":
		return "the ACPI table " + name + ", which says where the log lies; under Linux the log is /sys/kernel/security/tpm0/binary_bios_measurements"
	}
	return ""
}
