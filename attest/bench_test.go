package attest_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"testing"

	"chrysalis/attest"
	"chrysalis/attest/evidence"
)

// benchVerify verifies a fresh answer to a fresh nonce in each iteration.
func benchVerify(b *testing.B, platform evidence.Platform, facts *attest.Facts) {
	s := newSceneOn(b, platform)
	policy, err := s.rules.Policy()
	if err != nil {
		b.Fatal(err)
	}
	roots := s.source.Roots()
	roots.Facts = facts
	type answer struct {
		challenge attest.Challenge
		encoded   []byte
	}
	// All are made before the clock starts: stopping it in between would cost more than it saves.
	answers := make([]answer, b.N)
	for i := range answers {
		c := s.challenge
		binary.LittleEndian.PutUint64(c.Nonce[8:], uint64(i))
		encoded, err := s.source.Evidence(c).Encode()
		if err != nil {
			b.Fatal(err)
		}
		answers[i] = answer{c, encoded}
	}
	b.ReportAllocs()
	b.ResetTimer()
	for _, a := range answers {
		// A client reads evidence from its connection: the bytes are decoded anew.
		e, err := evidence.Decode(a.encoded)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := attest.Verify(e, a.challenge, policy, now, roots); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerifyTDXCold(b *testing.B)    { benchVerify(b, evidence.TDX, nil) }
func BenchmarkVerifyTDXWarm(b *testing.B)    { benchVerify(b, evidence.TDX, new(attest.Facts)) }
func BenchmarkVerifySEVSNPCold(b *testing.B) { benchVerify(b, evidence.SEVSNP, nil) }
func BenchmarkVerifySEVSNPWarm(b *testing.B) { benchVerify(b, evidence.SEVSNP, new(attest.Facts)) }

// BenchmarkP256 is the reference of vTPM and TDX: the two signature checks that neither can do without.
func BenchmarkP256(b *testing.B) {
	k := key(elliptic.P256())
	sum := sha256.Sum256([]byte("quote"))
	benchSignatures(b, k, sum[:], 2)
}

// BenchmarkP384 is the reference of SEV-SNP.
func BenchmarkP384(b *testing.B) {
	k := key(elliptic.P384())
	sum := sha512.Sum384([]byte("report"))
	benchSignatures(b, k, sum[:], 1)
}

func benchSignatures(b *testing.B, k *ecdsa.PrivateKey, digest []byte, times int) {
	signature, err := ecdsa.SignASN1(rand.Reader, k, digest)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		for range times {
			if !ecdsa.VerifyASN1(&k.PublicKey, digest, signature) {
				b.Fatal("not verified")
			}
		}
	}
}
