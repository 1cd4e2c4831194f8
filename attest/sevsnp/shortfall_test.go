package sevsnp_test

import (
	"crypto/x509"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"chrysalis/attest/attesttest"
	"chrysalis/attest/sevsnp"
)

// TestShortfalls: a refusal for the patch levels names each that is too low, and what has to be done about it: a level that the
// processor has already is a matter of committing it or of a restart.
func TestShortfalls(t *testing.T) {
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		name  string
		spoil func(s *attesttest.SNP, o *sevsnp.Options)
		want  []string // beginnings
	}{
		{"firmware and microcode everywhere", func(_ *attesttest.SNP, o *sevsnp.Options) {
			o.MinTCB = map[sevsnp.Product]sevsnp.TCB{sevsnp.Milan: {Bootloader: 4, TEE: 1, SNP: 23, Microcode: 214}}
		}, []string{
			"processor, current level: SNP is 22, want at least 23; update SNP firmware (BIOS)",
			"processor, current level: microcode is 213, want at least 214; update microcode (BIOS)",
			"processor, committed level: SNP is 22", "processor, committed level: microcode is 213",
			"processor, reported level: SNP is 22", "processor, reported level: microcode is 213",
			"guest, level at launch: SNP is 22", "guest, level at launch: microcode is 213",
		}},
		{"launched before an update", func(s *attesttest.SNP, _ *sevsnp.Options) { s.Report.LaunchTCB[6]-- },
			[]string{"guest, level at launch: SNP is 21, want at least 22; update the guest: it has to be started again"}},
		{"updated and not committed", func(s *attesttest.SNP, o *sevsnp.Options) {
			o.AllowProvisionalFirmware = true
			s.Report.CommittedTCB[0]--
		}, []string{"processor, committed level: bootloader is 3, want at least 4; update the committed level: the host has to commit"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := attesttest.NewSNP(sevsnp.Milan, sevsnp.SignerVCEK, now)
			o := s.Options(sevsnp.Milan)
			tt.spoil(s, &o)
			_, err := sevsnp.Verify(s.Evidence(), o, now, []*x509.Certificate{s.Root()})
			var refused *sevsnp.Refused
			if !errors.As(err, &refused) {
				t.Fatalf("got %v, want a refusal", err)
			}
			var got []string
			for _, line := range refused.Checks() {
				for _, short := range line.Shortfalls {
					got = append(got, short.String())
				}
			}
			if !slices.EqualFunc(got, tt.want, strings.HasPrefix) {
				t.Errorf("got %q, want lines that begin with %q", got, tt.want)
			}
		})
	}
}
