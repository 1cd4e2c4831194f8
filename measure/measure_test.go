package measure

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"chrysalis/measure/eventlog"
)

func TestConfigPCRs(t *testing.T) {
	measured, err := os.ReadFile(filepath.Join("config", "testdata", "vectors", "measured.bin"))
	if err != nil {
		t.Fatal(err)
	}
	sequence, err := eventlog.SequenceOf(measured)
	if err != nil {
		t.Fatal(err)
	}
	var log []byte
	for _, r := range sequence.Records(eventlog.InPCRs) {
		log = r.Append(log)
	}
	if parsed, err := eventlog.ParseRuntime(log); err != nil || len(parsed) != 9 {
		t.Errorf("the log of the records: %d records (%v), want 9", len(parsed), err)
	}
	pcrs, err := ConfigPCRs(measured)
	if err != nil {
		t.Fatal(err)
	}
	changed := bytes.Replace(measured, []byte(`"nanoton_per_token":20`), []byte(`"nanoton_per_token":21`), 1)
	other, err := ConfigPCRs(changed)
	if err != nil {
		t.Fatal(err)
	}
	if pcrs[13] == other[13] || pcrs[14] != other[14] {
		t.Errorf("another price: PCR 13 %s and %s, PCR 14 %s and %s: want 13 to differ and 14 to stay", pcrs[13], other[13], pcrs[14], other[14])
	}
	if _, err := ConfigPCRs(measured[1:]); err == nil {
		t.Error("no config: got no error, want a refusal")
	}
}
