package main

import (
	"bytes"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tdx-guest/testing/testdata"

	"chrysalis/attest/attesttest"
	"chrysalis/measure/eventlog"
)

// appraisedAt is the clock of the appraise scripts.
var appraisedAt = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// writeAppraisals writes quotes, collateral and logs of software machines, and a genuine quote.
func writeAppraisals(dir string) error {
	files := map[string][]byte{"genuine-v5.bin": testdata.RawQuoteV5}
	m := attesttest.NewTDX(appraisedAt, 5, true)
	records := []eventlog.Record{{Number: 0, Register: eventlog.RTMR3, Kind: eventlog.KindSeparator, Data: eventlog.SeparatorData()}}
	m.Body.RTMR = [4][48]byte{3: eventlog.Replay384(records, eventlog.RTMR3)}
	for _, r := range records {
		files["runtime.cel"] = r.Append(files["runtime.cel"])
	}
	files["edited.cel"] = bytes.Clone(files["runtime.cel"])
	files["edited.cel"][len(files["edited.cel"])-1] ^= 1

	add := func(name string, m *attesttest.TDX) (*attesttest.TDXEvidence, error) {
		e := m.Build()
		var err error
		files[name+".bin"] = e.Quote
		files[name+".json"], err = e.Collateral.Encode()
		files[name+".pem"] = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: e.Root.Raw})
		return e, err
	}
	e, err := add("good", m)
	if err != nil {
		return err
	}
	files["good.hex"] = []byte(hex.EncodeToString(e.Quote) + "\n")
	files["good.b64"] = []byte(base64.StdEncoding.EncodeToString(e.Quote) + "\n")
	files["padded.bin"] = append(bytes.Clone(e.Quote), make([]byte, 100)...)
	files["trailing.bin"] = append(bytes.Clone(e.Quote), 1)
	files["missing.json"] = []byte(strings.Replace(string(files["good.json"]),
		`"pck_crl":"`+hex.EncodeToString(e.Collateral.PCKCRL)+`",`, "", 1))
	files["unknown.json"] = bytes.Replace(files["good.json"], []byte(`{`), []byte(`{"other":1,`), 1)

	debug := *m
	debug.Body.TDAttributes[0] = 1
	if _, err := add("debug", &debug); err != nil {
		return err
	}
	firmware, err := os.ReadFile(filepath.Join(dir, "ccel-live.bin"))
	if err != nil {
		return err
	}
	booted, err := eventlog.ParseCCEL(firmware)
	if err != nil {
		return err
	}
	live := attesttest.NewTDX(appraisedAt, 5, true)
	live.Body.RTMR = eventlog.ReplayCCEL(booted)
	live.Body.RTMR[3] = m.Body.RTMR[3]
	if _, err := add("live", live); err != nil {
		return err
	}
	septVE := attesttest.NewTDX(appraisedAt, 5, true)
	septVE.Body.TDAttributes[3] &^= 0x10
	if _, err := add("septve", septVE); err != nil {
		return err
	}
	xfam := attesttest.NewTDX(appraisedAt, 5, true)
	xfam.Body.XFAM[7] = 1
	xfam.Extension = func(e []attesttest.SGXEntry) []attesttest.SGXEntry {
		return append(e, attesttest.SGXEntry{Name: asn1.ObjectIdentifier{1, 2, 3}, Value: asn1.RawValue{FullBytes: asn1.NullBytes}})
	}
	if _, err := add("xfam", xfam); err != nil {
		return err
	}
	service := attesttest.NewTDX(appraisedAt, 5, true)
	service.Body.MRSERVICETD = [48]byte{7}
	if _, err := add("service", service); err != nil {
		return err
	}
	old := attesttest.NewTDX(appraisedAt, 4, false)
	old.Platform.PCESVN = 12
	if _, err := add("old", old); err != nil {
		return err
	}
	maps.Copy(files, mistaken())
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// mistaken are what people give in place of a quote or a log.
func mistaken() map[string][]byte {
	report := make([]byte, 1024)
	report[0] = 0x81
	sgx := make([]byte, 500)
	sgx[0], sgx[2] = 3, 2
	sgx4 := bytes.Clone(sgx)
	sgx4[0] = 4
	table := func(name string, size int) []byte {
		b := make([]byte, size)
		copy(b, name)
		b[4] = byte(size)
		return b
	}
	return map[string][]byte{"tdreport.bin": report, "sgx-quote.bin": sgx, "sgx4-quote.bin": sgx4, "ccel-table.bin": table("CCEL", 56),
		"tpm2-table.bin": table("TPM2", 76)}
}

// TestReadEvidence takes a quote in each of its forms.
func TestReadEvidence(t *testing.T) {
	want := testdata.RawQuoteV5
	for name, content := range map[string][]byte{
		"bytes": want, "hexadecimal": []byte(hex.EncodeToString(want)), "with 0x": []byte("0x" + hex.EncodeToString(want)),
		"upper case": []byte(strings.ToUpper(hex.EncodeToString(want))),
		"base64":     []byte(base64.StdEncoding.EncodeToString(want)),
	} {
		file := filepath.Join(t.TempDir(), "quote")
		if err := os.WriteFile(file, content, 0o644); err != nil {
			t.Fatal(err)
		}
		got, err := readEvidence("quote", file, []byte{5, 0, 2, 0})
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: got %d bytes and %v, want %d", name, len(got), err, len(want))
		}
	}
}
