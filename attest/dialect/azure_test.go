package dialect_test

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"errors"
	"os"
	"runtime"
	"strings"
	"testing"

	"chrysalis/attest/attesttest"
	"chrysalis/attest/check"
	"chrysalis/attest/dialect"
	"chrysalis/attest/sevsnp"
)

// hcl is Azure's report around hardware's, with runtime data that binds.
func hcl(report, runtime []byte, kind uint32) []byte {
	b := append([]byte("HCLA"), make([]byte, 28)...)
	b[4] = 2
	b = append(b, report...)
	b = append(b, make([]byte, 32+sevsnp.ReportSize-len(b))...)
	for _, n := range []uint32{uint32(20 + len(runtime)), 1, kind, 1, uint32(len(runtime))} {
		b = binary.LittleEndian.AppendUint32(b, n)
	}
	return append(b, runtime...)
}

var runtimeData = []byte(`{"keys":[{"kid":"HCLAkPub","kty":"RSA","e":"AQAB","n":"00"}],"vm-configuration":{"secure-boot":true},"user-data":"00"}`)

func azureSNP() (*attesttest.SNP, []byte) {
	s := attesttest.NewSNP(sevsnp.Milan, sevsnp.SignerVCEK, now)
	sum := sha256.Sum256(runtimeData)
	s.Report.ReportData = [64]byte{}
	copy(s.Report.ReportData[:], sum[:])
	return s, append(hcl(s.Evidence().Report, runtimeData, 2), make([]byte, 100)...)
}

func tdReport() []byte {
	td := make([]byte, 1024)
	td[0] = 0x81
	sum := sha256.Sum256(runtimeData)
	copy(td[128:], sum[:])
	return td
}

func TestHCL(t *testing.T) {
	s, raw := azureSNP()
	h, err := dialect.ParseHCL(raw)
	if err != nil || h.TD != nil || !bytes.Equal(h.Runtime, runtimeData) {
		t.Fatalf("got %+v, %v", h, err)
	}
	e := s.Evidence()
	e.Report = h.SNP
	o := s.Options(sevsnp.Milan)
	o.ReportData = h.ReportData()
	if _, err := sevsnp.Verify(e, o, now, []*x509.Certificate{s.Root()}); err != nil {
		t.Error(err)
	}
	// Other runtime data is not what the report binds.
	other, err := dialect.ParseHCL(hcl(h.SNP, []byte(`{"keys":[]}`), 2))
	if err != nil {
		t.Fatal(err)
	}
	o.ReportData = other.ReportData()
	if _, err := sevsnp.Verify(e, o, now, []*x509.Certificate{s.Root()}); !errors.Is(err, check.ErrRejected) || !strings.Contains(err.Error(), "report-data") {
		t.Errorf("other runtime data: got %v, want a refusal by report-data", err)
	}
	if h, err = dialect.ParseHCL(hcl(tdReport(), runtimeData, 4)); err != nil || h.SNP != nil || len(h.TD) != 1024 {
		t.Errorf("a TD's: got %+v, %v", h, err)
	}
	edit := func(at int, value byte) []byte {
		b := bytes.Clone(raw)
		b[at] = value
		return b
	}
	const request = 32 + sevsnp.ReportSize
	for _, tt := range []struct {
		name string
		raw  []byte
		want string
	}{
		{"empty", nil, "0 bytes"},
		{"cut", raw[:1000], "1000 bytes"},
		{"another magic", edit(0, 'X'), "HCLA"},
		{"version", edit(4, 3), "version is 3"},
		{"type", edit(request+8, 3), "type 3"},
		{"hash", edit(request+12, 4), "hashed by 4"},
		{"no runtime data", hcl(h.SNP, nil, 2), "0 bytes"},
		{"runtime data past the end", edit(request+17, 1), "runtime data has"},
		{"runtime data too long", hcl(h.SNP, make([]byte, 33<<10), 2), "runtime data has"},
		{"something behind", append(bytes.Clone(raw), 1), "after the runtime data"},
		{"a TD's report of other data", hcl(tdReport(), []byte("{}"), 4), "report data of the TD's report"},
		{"something behind a TD's report", hcl(append(tdReport(), 1), runtimeData, 4), "after the TD's report"},
		{"too large", make([]byte, dialect.MaxFileBytes+1), "want at most"},
	} {
		if _, err := dialect.ParseHCL(tt.raw); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want an error with %q", tt.name, err, tt.want)
		}
	}
}

// TestGenuineHCL reads reports of Azure's own machines: what each binds is the hash of its runtime data.
func TestGenuineHCL(t *testing.T) {
	for name, td := range map[string]bool{"hcl-report-snp.bin": false, "hcl-report-tdx.bin": true} {
		raw, err := os.ReadFile("testdata/azure/" + name)
		if err != nil {
			t.Fatal(err)
		}
		h, err := dialect.ParseHCL(raw)
		if err != nil || (h.TD != nil) != td {
			t.Errorf("%s: got %v, want a report of a TD: %t", name, err, td)
			continue
		}
		var claims struct {
			Keys []struct {
				ID string `json:"kid"`
			} `json:"keys"`
		}
		if err := json.Unmarshal(h.Runtime, &claims); err != nil || len(claims.Keys) == 0 || claims.Keys[0].ID != "HCLAkPub" {
			t.Errorf("%s: got %.80q, %v, want runtime data with the TPM's attestation key", name, h.Runtime, err)
		}
		if td {
			continue
		}
		report, err := sevsnp.Parse(h.SNP)
		if err != nil || report.ReportData != h.ReportData() {
			t.Errorf("%s: got %v, and report data that is not what binds the runtime data", name, err)
		}
	}
}

// TestEveryBitOfHCL: whatever bit is changed, what is accepted is the same report with the same runtime data.
func TestEveryBitOfHCL(t *testing.T) {
	s, raw := azureSNP()
	e := s.Evidence()
	report := raw[32 : 32+sevsnp.ReportSize]
	facts := new(check.Facts)
	for at := range raw {
		for bit := range 8 {
			if in := at - 32; in >= 0 && in < sevsnp.ReportSize && (bit != at%8 || at%3 != 0) || runtime.GOOS == "js" && at%61 != 0 {
				continue // package sevsnp flips each bit of a report
			}
			changed := bytes.Clone(raw)
			changed[at] ^= 1 << bit
			h, err := dialect.ParseHCL(changed)
			if err != nil {
				continue
			}
			e.Report = h.SNP
			o := s.Options(sevsnp.Milan)
			o.ReportData, o.Facts = h.ReportData(), facts
			if _, err := sevsnp.Verify(e, o, now, []*x509.Certificate{s.Root()}); err != nil {
				continue
			}
			if !bytes.Equal(h.SNP, report) || !bytes.Equal(h.Runtime, runtimeData) {
				t.Fatalf("bit %d of byte %d: accepted with another report or other runtime data", bit, at)
			}
		}
	}
}

func TestTHIM(t *testing.T) {
	s := attesttest.NewSNP(sevsnp.Milan, sevsnp.SignerVCEK, now)
	e := s.Evidence()
	text := func(ders ...[]byte) (all string) {
		for _, der := range ders {
			all += string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
		}
		return all
	}
	answer := func(leaf, chain string) []byte {
		b, err := json.Marshal(map[string]string{"vcekCert": leaf, "certificateChain": chain, "tcbm": "DB18000000000004", "cacheControl": "86400"})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	got, err := dialect.ParseTHIM(answer(text(e.Certificate), text(e.Chain...)))
	if err != nil || !bytes.Equal(got.Certificate, e.Certificate) || len(got.Chain) != 2 {
		t.Fatalf("got %+v, %v", got, err)
	}
	for name, raw := range map[string][]byte{
		"no JSON": []byte("x"), "no VCEK": answer("", text(e.Chain...)), "two VCEKs": answer(text(e.Chain...), text(e.Chain...)),
		"no chain": answer(text(e.Certificate), ""), "text in the chain": answer(text(e.Certificate), text(e.Chain...)+"more"),
		"too large": make([]byte, dialect.MaxFileBytes+1),
	} {
		if _, err := dialect.ParseTHIM(raw); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}

func FuzzHCL(f *testing.F) {
	_, raw := azureSNP()
	for _, seed := range [][]byte{raw, hcl(tdReport(), runtimeData, 4)} {
		if _, err := dialect.ParseHCL(seed); err != nil {
			f.Fatal(err)
		}
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := dialect.ParseHCL(b)
		if err == nil && (len(h.SNP)+len(h.TD) == 0 || !bytes.Contains(b, h.Runtime) || len(h.Runtime) == 0) {
			t.Errorf("got %+v of %x", h, b)
		}
	})
}

func FuzzTHIM(f *testing.F) {
	f.Add([]byte(`{"vcekCert":"","certificateChain":""}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if answer, err := dialect.ParseTHIM(b); err == nil && (len(answer.Certificate) == 0 || len(answer.Chain) == 0) {
			t.Errorf("%s: got %+v", b, answer)
		}
	})
}
