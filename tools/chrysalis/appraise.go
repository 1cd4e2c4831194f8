package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"charm.land/lipgloss/v2"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"

	"chrysalis/attest"
	"chrysalis/attest/check"
)

func newAppraise() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "appraise",
		Short: "Judge a platform's evidence alone: a quote or a log in a file",
		Long: "Judges what a processor signed, without a guest to talk to and without a policy for what it measured: a genuine and\n" +
			"current machine can measure anything. Whether a guest is to be trusted is for chrysalis verify.",
	}
	cmd.AddCommand(newAppraiseTDX(), newAppraiseSEVSNP(), newAppraiseNVIDIA(), newAppraiseEventlog())
	return cmd
}

// appraisalReport is appraise's JSON, whose members are there whatever the verdict. What a refused quote says is not proven, and
// only its debug bit is repeated wherever it can be read.
type appraisalReport struct {
	check.Report
	TEE          string            `json:"tee"`
	Debug        *bool             `json:"debug"`        // null when it can't be read
	TCB          appraisedTCB      `json:"tcb"`          // statuses that were not judged are ""
	Measurements map[string]string `json:"measurements"` // none of evidence that is not signed
	ReportData   string            `json:"report_data"`
	Platform     map[string]string `json:"platform,omitempty"`
	Runtime      jsontext.Value    `json:"runtime_data,omitzero"` // Azure's, where the evidence binds it
}

type appraisedTCB struct {
	Status   string `json:"status"`
	Platform string `json:"platform"`
	Module   string `json:"module"`
	QE       string `json:"qe"`
}

// unreadable is a file that can't be read: what it is for could not be checked.
type unreadable struct {
	what string
	err  error
}

func (u unreadable) Error() string        { return fmt.Sprintf("reading %s: %v", u.what, u.err) }
func (u unreadable) Is(target error) bool { return target == attest.ErrUnavailable }

// malformed is a file that is not what it should be, and the check that it fails.
type malformed struct {
	check string
	err   error
}

func (m malformed) Error() string { return m.err.Error() }
func (m malformed) Unwrap() error { return m.err }

// exitOf gives the error of an appraisal its exit code.
func exitOf(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, attest.ErrUnavailable):
		return unavailable(err)
	}
	return rejected(err)
}

// noMeasurementPolicy is said with every acceptance.
const noMeasurementPolicy = "no measurement policy was given: the machine is judged, not what runs on it"

// printChecks writes the table of checks.
func printChecks(w io.Writer, checks []attest.Check) {
	if len(checks) == 0 {
		return
	}
	for line := range strings.Lines(checkTable(checks, columns(w)).String()) {
		lipgloss.Fprintln(w, strings.TrimRight(line, " \n"))
	}
	for _, c := range checks {
		for _, short := range c.Shortfalls {
			fmt.Fprintf(w, "too low: %s\n", printable(short.String()))
		}
	}
}

// parseAt reads the time of an appraisal.
func parseAt(text string) (time.Time, error) {
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return at, exitError{exitUsage, fmt.Errorf("--at %q: want a time like 2026-11-20T12:00:00Z", text)}
	}
	return at, nil
}

// readEvidence reads a file that holds bytes, or their hexadecimal or base64 text. what names it, magic is how the bytes begin.
func readEvidence(what, name string, magic ...[]byte) ([]byte, error) {
	raw, err := readInput(name)
	if err != nil {
		return nil, unreadable{what, err}
	}
	for _, m := range magic {
		if bytes.HasPrefix(raw, m) {
			return raw, nil
		}
	}
	text := strings.TrimPrefix(strings.Join(strings.Fields(string(raw)), ""), "0x")
	for _, decode := range []func(string) ([]byte, error){hex.DecodeString, base64.StdEncoding.Strict().DecodeString} {
		if b, err := decode(text); err == nil && len(b) > 0 {
			return b, nil
		}
	}
	return raw, nil // the parser says what it is not
}
