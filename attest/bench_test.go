package attest_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"math"
	"testing"
	"time"

	"chrysalis/attest"
	"chrysalis/attest/attesttest"
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

// BenchmarkRatio sets runs of verifications beside runs of the bare signature checks that they can't do without, by turns in one
// process, and prints the ratio of the two lowest: what else this machine does hits both.
func BenchmarkRatio(b *testing.B) {
	for _, tt := range []struct {
		name       string
		platform   evidence.Platform
		warm       bool
		curve      elliptic.Curve
		signatures int
		gpu        bool // one beside, whose report is another P-384 signature
	}{
		{"vtpm", evidence.VTPM, false, elliptic.P256(), 2, false},
		{"tdx-warm", evidence.TDX, true, elliptic.P256(), 2, false},
		{"tdx-cold", evidence.TDX, false, elliptic.P256(), 2, false},
		{"tdx-gpu-warm", evidence.TDX, true, elliptic.P256(), 2, true},
		{"sev-snp-warm", evidence.SEVSNP, true, elliptic.P384(), 1, false},
		{"sev-snp-cold", evidence.SEVSNP, false, elliptic.P384(), 1, false},
	} {
		b.Run(tt.name, func(b *testing.B) {
			const run = 4
			s := newSceneOn(b, tt.platform)
			if tt.gpu {
				s = withBoard(b, tt.platform, attesttest.NewBoard(now))
			}
			policy, err := s.rules.Policy()
			if err != nil {
				b.Fatal(err)
			}
			roots := s.source.Roots()
			if tt.warm {
				roots.Facts = new(attest.Facts)
			}
			digest := make([]byte, 48)
			k := key(tt.curve)
			signature, err := ecdsa.SignASN1(rand.Reader, k, digest)
			if err != nil {
				b.Fatal(err)
			}
			reports := key(elliptic.P384())
			reported, err := ecdsa.SignASN1(rand.Reader, reports, digest)
			if err != nil {
				b.Fatal(err)
			}
			bare, verify := time.Duration(math.MaxInt64), time.Duration(math.MaxInt64)
			for n := range b.N {
				challenges, answers := make([]attest.Challenge, run), make([][]byte, run)
				for i := range run {
					challenges[i] = s.challenge
					binary.LittleEndian.PutUint64(challenges[i].Nonce[8:], uint64(n*run+i))
					if answers[i], err = s.source.Evidence(challenges[i]).Encode(); err != nil {
						b.Fatal(err)
					}
				}
				start := time.Now()
				for i := range run {
					e, err := evidence.Decode(answers[i])
					if err == nil {
						_, err = attest.Verify(e, challenges[i], policy, now, roots)
					}
					if err != nil {
						b.Fatal(err)
					}
				}
				verify = min(verify, time.Since(start)/run)
				start = time.Now()
				for range run * tt.signatures {
					if !ecdsa.VerifyASN1(&k.PublicKey, digest, signature) {
						b.Fatal("not verified")
					}
				}
				for range run {
					if tt.gpu && !ecdsa.VerifyASN1(&reports.PublicKey, digest, reported) {
						b.Fatal("not verified")
					}
				}
				bare = min(bare, time.Since(start)/run)
			}
			b.ReportMetric(float64(verify)/float64(bare), "x-bare")
			b.ReportMetric(float64(verify.Nanoseconds())/1000, "us-verify")
			b.ReportMetric(float64(bare.Nanoseconds())/1000, "us-bare")
			b.ReportMetric(0, "ns/op")
		})
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
