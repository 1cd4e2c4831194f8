package evidence_test

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"testing"

	"chrysalis/attest/evidence"
)

// carried returns the epoch evidence of a certificate with these extensions.
func carried(extensions ...pkix.Extension) (*evidence.Evidence, error) {
	return evidence.FromCertificate(&x509.Certificate{Extensions: extensions})
}

// TestEpochExtension writes and reads the evidence of each platform. Collateral stays behind.
func TestEpochExtension(t *testing.T) {
	for _, g := range guests(t) {
		e := g.Attest([32]byte{}, [32]byte{3})
		e.HPKE = []byte("key")
		extension, err := evidence.EpochExtension(e)
		if err != nil {
			t.Fatal(err)
		}
		if extension.Critical || extension.Id.String() != "1.3.6.1.5.5.7.1.35" {
			t.Errorf("%s: extension %s, critical %t", e.Platform, extension.Id, extension.Critical)
		}
		got, err := carried(pkix.Extension{Id: []int{2, 5, 29, 15}}, extension)
		if err != nil {
			t.Fatal(err)
		}
		if got.Collateral != nil || got.HPKE != nil || got.Statement != e.Statement || !bytes.Equal(got.Quote, e.Quote) {
			t.Errorf("%s: other evidence came back", e.Platform)
		}
	}
	if _, err := carried(); err == nil {
		t.Error("no extension: got no error")
	}
}

func FuzzEpochEvidence(f *testing.F) {
	genuine, err := evidence.EpochExtension(guests(f)[0].Attest([32]byte{}, [32]byte{3}))
	if err != nil {
		f.Fatal(err)
	}
	if _, err := carried(genuine); err != nil {
		f.Fatal(err)
	}
	f.Add(genuine.Value)
	f.Add(genuine.Value[:60])
	f.Fuzz(func(t *testing.T, value []byte) {
		e, err := carried(pkix.Extension{Id: genuine.Id, Value: value})
		if err != nil || e.Collateral != nil || e.HPKE != nil {
			return
		}
		again, err := evidence.EpochExtension(e)
		if err != nil || !bytes.Equal(again.Value, value) {
			t.Errorf("read and written: got %x (%v), want %x", again.Value, err, value)
		}
	})
}
