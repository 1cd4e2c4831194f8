package nvidia_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/binary"
	"math"
	"runtime"
	"testing"
	"time"

	"chrysalis/attest/attesttest"
	"chrysalis/attest/check"
	"chrysalis/attest/nvidia"
)

// BenchmarkRatio prints how long an appraisal takes beside the P-384 checks that it can't do without, in turns in one run, of each the
// shortest. Each report is a fresh one over a fresh nonce. Warm, what is remembered of earlier ones is the chain, the reference values
// and the answers. Cold, one GPU needs 24: five certificates of its own and four of signers, two documents, six answers and as many
// certificates of responders, and its report.
func BenchmarkRatio(b *testing.B) {
	for _, tt := range []struct {
		name       string
		board      *attesttest.Board
		warm       bool
		signatures int
	}{
		{"warm", attesttest.NewBoard(now), true, 1},
		{"cold", attesttest.NewBoard(now), false, 24},
		{"board-warm", attesttest.NewPPCIeBoard(8, 4, now), true, 12},
	} {
		b.Run(tt.name, func(b *testing.B) {
			key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
			if err != nil {
				b.Fatal(err)
			}
			digest := make([]byte, 48)
			signature, err := ecdsa.SignASN1(rand.Reader, key, digest)
			if err != nil {
				b.Fatal(err)
			}
			options, roots, e := tt.board.Options(), tt.board.Roots(), tt.board.Evidence()
			if tt.warm {
				options.Facts = new(check.Facts)
			}
			bare, verify := time.Duration(math.MaxInt64), time.Duration(math.MaxInt64)
			for n := range b.N {
				binary.LittleEndian.PutUint64(options.Nonce[8:], uint64(n))
				sign := func(devices []*attesttest.BoardDevice, to []nvidia.Device) {
					for i, d := range devices {
						d.Report.Nonce = options.Nonce
						to[i].Report = d.Sign()
					}
				}
				sign(tt.board.GPUs, e.GPUs)
				sign(tt.board.Switches, e.Switches)
				start := time.Now()
				if _, err := nvidia.Verify(e, options, now, roots); err != nil {
					b.Fatal(err)
				}
				verify = min(verify, time.Since(start))
				start = time.Now()
				for range tt.signatures {
					if !ecdsa.VerifyASN1(&key.PublicKey, digest, signature) {
						b.Fatal("not verified")
					}
				}
				bare = min(bare, time.Since(start))
			}
			b.ReportMetric(float64(verify)/float64(bare), "x-bare")
			b.ReportMetric(float64(bare)/float64(verify)/float64(runtime.GOMAXPROCS(0)), "of-cores")
			b.ReportMetric(float64(verify.Nanoseconds())/1000, "us-verify")
			b.ReportMetric(float64(bare.Nanoseconds())/1000, "us-bare")
			b.ReportMetric(0, "ns/op")
		})
	}
}
