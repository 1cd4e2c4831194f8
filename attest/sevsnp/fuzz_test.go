package sevsnp_test

import (
	"bytes"
	"crypto/x509"
	"testing"

	"chrysalis/attest/sevsnp"
)

// FuzzParse shows that what is parsed is written again as it was, so that no bit of a report goes unread.
func FuzzParse(f *testing.F) {
	for _, form := range forms {
		report := form.make().Evidence().Report
		if _, err := sevsnp.Parse(report); err != nil {
			f.Fatalf("seed %s: %v", form.name, err)
		}
		f.Add(report)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := sevsnp.Parse(raw)
		if err != nil {
			return
		}
		if got := r.Marshal(); !bytes.Equal(got, raw) {
			t.Errorf("got %x, want %x", got, raw)
		}
	})
}

// FuzzParseChain shows that no certificate but the signed ones verifies.
func FuzzParseChain(f *testing.F) {
	var signed [][]byte
	for _, form := range forms {
		e := form.make().Evidence()
		if verified, err := sevsnp.ParseChain(e.Certificate, e.Chain); err != nil || !verified {
			f.Fatalf("seed %s: verified %t, %v", form.name, verified, err)
		}
		signed = append(signed, toBeSigned(e.Certificate))
		f.Add(e.Certificate, e.Chain[0], e.Chain[1])
	}
	f.Fuzz(func(t *testing.T, leaf, ask, ark []byte) {
		verified, err := sevsnp.ParseChain(leaf, [][]byte{ask, ark})
		if err != nil || !verified {
			return
		}
		for _, certificate := range signed {
			if bytes.Equal(toBeSigned(leaf), certificate) {
				return
			}
		}
		t.Errorf("verified a certificate that nobody signed: %x", leaf)
	})
}

// toBeSigned returns what a certificate's signature covers. Signatures differ between the processes of a fuzz run.
func toBeSigned(der []byte) []byte {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil
	}
	return cert.RawTBSCertificate
}

func FuzzParseCRL(f *testing.F) {
	for _, change := range []func(*run){func(*run) {}, revoke(2)} {
		list := vector{change: change}.make().Evidence().CRL
		if err := sevsnp.ParseCRL(list); err != nil {
			f.Fatal(err)
		}
		f.Add(list)
	}
	f.Fuzz(func(t *testing.T, der []byte) { _ = sevsnp.ParseCRL(der) })
}

// FuzzVerify feeds whole evidence: only what the platform signed is accepted.
func FuzzVerify(f *testing.F) {
	r := good(sevsnp.Genoa, sevsnp.SignerVCEK)
	e := r.Evidence()
	if _, err := sevsnp.Verify(e, r.options, r.at, r.roots); err != nil {
		f.Fatal(err)
	}
	f.Add(e.Report, e.Certificate, e.Chain[0], e.Chain[1], e.CRL)
	f.Fuzz(func(t *testing.T, report, certificate, ask, ark, crl []byte) {
		changed := sevsnp.Evidence{Report: report, Certificate: certificate, Chain: [][]byte{ask, ark}, CRL: crl}
		root, err := x509.ParseCertificate(ark)
		if err != nil || !bytes.Equal(root.RawTBSCertificate, r.roots[0].RawTBSCertificate) {
			return
		}
		if _, err := sevsnp.Verify(changed, r.options, r.at, []*x509.Certificate{root}); err != nil {
			return
		}
		if !bytes.Equal(report[:0x2a0], e.Report[:0x2a0]) || !bytes.Equal(toBeSigned(certificate), toBeSigned(e.Certificate)) {
			t.Error("accepted what the platform did not sign")
		}
	})
}
