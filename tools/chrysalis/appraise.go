package main

import (
	"bytes"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"charm.land/lipgloss/v2"
	"github.com/spf13/cobra"

	"chrysalis/attest"
)

func newAppraise() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "appraise",
		Short: "Judge the evidence of a platform alone, without a policy for what runs on it",
	}
	cmd.AddCommand(newAppraiseSEVSNP())
	return cmd
}

// appraisal is appraise's JSON. What no proven key has signed is not repeated in it.
type appraisal struct {
	Verdict      string            `json:"verdict"` // accepted, rejected or unavailable
	Check        string            `json:"check,omitempty"`
	Reason       string            `json:"reason,omitempty"`
	TEE          string            `json:"tee"`
	Debug        *bool             `json:"debug,omitempty"`
	TCB          any               `json:"tcb,omitempty"`
	Platform     any               `json:"platform,omitempty"`
	Measurements map[string]string `json:"measurements,omitempty"`
	ReportData   string            `json:"report_data,omitempty"`
	Weaknesses   []string          `json:"weaknesses,omitempty"`
	Checks       []attest.Check    `json:"checks"`
}

// print writes the appraisal as JSON, or as a table with what an acceptance does not cover in notes.
func (a appraisal) print(out, notes io.Writer, asJSON bool) error {
	if asJSON {
		return printJSON(out, a)
	}
	if len(a.Checks) > 0 {
		for line := range strings.Lines(checkTable(a.Checks).String()) {
			lipgloss.Fprintln(out, strings.TrimRight(line, " \n"))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(a.Measurements)) {
		fmt.Fprintf(out, "%-18s %s\n", name, a.Measurements[name])
	}
	if a.ReportData != "" {
		fmt.Fprintf(out, "%-18s %s\n", "report_data", a.ReportData)
	}
	fmt.Fprintln(out, a.Verdict)
	for _, weakness := range a.Weaknesses {
		fmt.Fprintf(notes, "chrysalis: note: %s\n", weakness)
	}
	return nil
}

// noMeasurementPolicy is a weakness of every appraisal of a platform alone.
const noMeasurementPolicy = "no measurement policy was given: the platform was judged, not what runs on it"

// binaryInput reads a file that holds bytes, or their hexadecimal or base64 text.
func binaryInput(path string) ([]byte, error) {
	data, err := readInput(path)
	if err != nil {
		return nil, err
	}
	text := strings.Join(strings.Fields(string(data)), "")
	if raw, ok := decodeText(text); ok {
		return raw, nil
	}
	return data, nil
}

// certificatesInput reads a file of certificates, or of revocation lists, in PEM or DER. What is neither is returned as it
// is, for the appraisal to refuse.
func certificatesInput(path, kind string) ([][]byte, error) {
	data, err := readInput(path)
	if err != nil {
		return nil, err
	}
	var all [][]byte
	if !bytes.Contains(data, []byte("-----BEGIN ")) {
		for len(data) > 0 {
			var one asn1.RawValue
			rest, err := asn1.Unmarshal(data, &one)
			if err != nil {
				break
			}
			all, data = append(all, one.FullBytes), rest
		}
		if len(data) > 0 {
			all = append(all, data)
		}
		return all, nil
	}
	for {
		block, rest := pem.Decode(data)
		if block == nil || block.Type != kind {
			break
		}
		all, data = append(all, block.Bytes), rest
	}
	if len(bytes.TrimSpace(data)) > 0 {
		all = append(all, data)
	}
	return all, nil
}
