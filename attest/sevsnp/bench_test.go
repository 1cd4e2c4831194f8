package sevsnp_test

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha512"
	"crypto/x509"
	"testing"

	"chrysalis/attest/sevsnp"
)

// BenchmarkVerify appraises a report with its whole chain and revocation list, nothing cached.
func BenchmarkVerify(b *testing.B) {
	r := good(sevsnp.Genoa, sevsnp.SignerVCEK)
	e := r.Evidence()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := sevsnp.Verify(e, r.options, r.at, r.roots); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSignatures is the reference of BenchmarkVerify: the signature checks that it can't do without, four of RSA-4096
// (ARK, ASK, endorsement key, revocation list) and one of P-384.
func BenchmarkSignatures(b *testing.B) {
	r := good(sevsnp.Genoa, sevsnp.SignerVCEK)
	root, sum := r.Root(), sha512.Sum384([]byte("report"))
	signature, err := ecdsa.SignASN1(rand.Reader, r.SigningKey, sum[:])
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		for range 4 {
			if err := root.CheckSignature(x509.SHA384WithRSAPSS, root.RawTBSCertificate, root.Signature); err != nil {
				b.Fatal(err)
			}
		}
		if !ecdsa.VerifyASN1(&r.SigningKey.PublicKey, sum[:], signature) {
			b.Fatal("not verified")
		}
	}
}
