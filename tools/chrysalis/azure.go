package main

import (
	"fmt"
	"io"

	"github.com/go-json-experiment/json/jsontext"

	"chrysalis/attest/check"
	"chrysalis/attest/dialect"
)

// readHCL reads a report of Azure's host compatibility layer: bytes, or their hexadecimal or base64 text.
func readHCL(name string) (*dialect.HCL, error) {
	raw, err := readEvidence("hcl", name, []byte("HCLA"))
	if err != nil {
		return nil, err
	}
	azure, err := dialect.ParseHCL(raw)
	if err != nil {
		return nil, malformed{"hcl-format", err}
	}
	return azure, nil
}

// bindsRuntime judges that what the hardware signed is the hash of Azure's runtime data.
func bindsRuntime(got [64]byte, azure *dialect.HCL) ([]check.Line, error) {
	want := azure.ReportData()
	lines, refusal := check.Run("verifying Azure's runtime data", []check.Step[*dialect.HCL]{
		{Name: "runtime-data", Judge: func(*dialect.HCL) check.Finding { return check.Same(got[:], want[:]) }},
	}, azure)
	if refusal != nil {
		return nil, refusal
	}
	return check.Told(lines), nil
}

// runtimeOf returns the runtime data as JSON, or as text where it is none.
func runtimeOf(azure *dialect.HCL) jsontext.Value {
	value := jsontext.Value(azure.Runtime)
	if value.IsValid() {
		return value
	}
	quoted, err := jsontext.AppendQuote(nil, azure.Runtime)
	if err != nil {
		return nil
	}
	return quoted
}

func printRuntime(out io.Writer, runtime jsontext.Value) {
	if len(runtime) > 0 {
		fmt.Fprintf(out, "%-14s %s\n", "runtime_data", printable(string(runtime)))
	}
}
