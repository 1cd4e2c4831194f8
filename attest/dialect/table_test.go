//go:build !js

package dialect_test

import (
	"bytes"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-sev-guest/abi"

	"chrysalis/attest/attesttest"
	"chrysalis/attest/check"
	"chrysalis/attest/dialect"
	"chrysalis/attest/sevsnp"
)

// extended is a report with the table that go-sev-guest writes.
func extended(t testing.TB, e sevsnp.Evidence, leaf string) []byte {
	t.Helper()
	var table []byte
	offset := 4 * 24
	var data []byte
	for _, entry := range []struct {
		guid string
		der  []byte
	}{{leaf, e.Certificate}, {abi.AskGUID, e.Chain[0]}, {abi.ArkGUID, e.Chain[1]}} {
		id, err := hex.DecodeString(strings.ReplaceAll(entry.guid, "-", ""))
		if err != nil {
			t.Fatal(err)
		}
		table = append(table, id...)
		table = binary.LittleEndian.AppendUint32(table, uint32(offset+len(data)))
		table = binary.LittleEndian.AppendUint32(table, uint32(len(entry.der)))
		data = append(data, entry.der...)
	}
	table = append(append(table, make([]byte, 24)...), data...)
	// go-sev-guest reads what is written here.
	parsed := new(abi.CertTable)
	if err := parsed.Unmarshal(table); err != nil {
		t.Fatal(err)
	}
	if der, err := parsed.GetByGUIDString(leaf); err != nil || !bytes.Equal(der, e.Certificate) {
		t.Fatalf("go-sev-guest reads another certificate: %v", err)
	}
	return append(bytes.Clone(e.Report), table...)
}

func TestExtended(t *testing.T) {
	for signer, leaf := range map[sevsnp.Signer]string{sevsnp.SignerVCEK: abi.VcekGUID, sevsnp.SignerVLEK: abi.VlekGUID} {
		s := attesttest.NewSNP(sevsnp.Milan, signer, now)
		want := s.Evidence()
		raw := extended(t, want, leaf)
		x, err := dialect.ParseExtended(raw)
		if err != nil {
			t.Fatal(err)
		}
		e := sevsnp.Evidence{Report: x.Report, Certificate: x.Certificate, Chain: x.Chain, CRL: want.CRL}
		if _, err := sevsnp.Verify(e, s.Options(sevsnp.Milan), now, []*x509.Certificate{s.Root()}); err != nil {
			t.Errorf("%s: %v", signer, err)
		}
		const stride = 7
		facts := new(check.Facts)
		for at := sevsnp.ReportSize; at < len(raw); at += stride {
			changed := bytes.Clone(raw)
			changed[at] ^= 1 << (at % 8)
			x, err := dialect.ParseExtended(changed)
			if err != nil {
				continue
			}
			e := sevsnp.Evidence{Report: x.Report, Certificate: x.Certificate, Chain: x.Chain, CRL: want.CRL}
			o := s.Options(sevsnp.Milan)
			o.Facts = facts
			if _, err := sevsnp.Verify(e, o, now, []*x509.Certificate{s.Root()}); err == nil &&
				(!bytes.Equal(x.Certificate, want.Certificate) || !bytes.Equal(x.Chain[0], want.Chain[0])) {
				t.Fatalf("byte %d: accepted with another certificate", at)
			}
		}
		table := raw[sevsnp.ReportSize:]
		twice := slices.Concat(raw[:sevsnp.ReportSize], table[:24], table[:24], make([]byte, 24), table)
		for name, tt := range map[string]struct {
			raw  []byte
			want string
		}{
			"a report alone": {want.Report, "want a report of"}, "no end": {slices.Concat(raw[:sevsnp.ReportSize], append([]byte{1}, make([]byte, 46)...)), "no end"},
			"twice": {twice, "twice"}, "past the end": {raw[:len(raw)-1], "want it within"},
		} {
			if _, err := dialect.ParseExtended(tt.raw); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: got %v, want an error with %q", name, err, tt.want)
			}
		}
	}
}

func FuzzExtended(f *testing.F) {
	raw := extended(f, attesttest.NewSNP(sevsnp.Milan, sevsnp.SignerVCEK, now).Evidence(), abi.VcekGUID)
	if _, err := dialect.ParseExtended(raw); err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, b []byte) {
		if e, err := dialect.ParseExtended(b); err == nil && (len(e.Report) != sevsnp.ReportSize || !bytes.Contains(b, e.Certificate)) {
			t.Errorf("got %+v of %x", e, b)
		}
	})
}
