package attest_test

import (
	"errors"
	"testing"
	"time"

	"chrysalis/attest"
	"chrysalis/attest/evidence"
	"chrysalis/measure/config"
	"chrysalis/measure/eventlog"
	"chrysalis/measure/register"
)

// asks plays a scene of a guest that asks for its secret, with spoil changing one thing, and returns the check that refused it, or "".
func asks(t *testing.T, platform evidence.Platform, spoil func(*scene)) string {
	t.Helper()
	s := newSceneOn(t, platform)
	s.borrows(eventlog.Loan{Number: 1, Lender: register.Digest{7}})
	s.contents.Ask()
	if spoil != nil {
		spoil(s)
	}
	_, err := s.play(t, func(e *evidence.Evidence, c attest.Challenge, p attest.Policy, now time.Time, roots attest.Roots) (*attest.Result, error) {
		checks, err := attest.VerifyAsking(e, c, p, now, roots)
		if (err == nil) != (len(checks) > 0) {
			t.Errorf("got %d checks beside the error %v", len(checks), err)
		}
		if _, served := attest.Verify(e, c, p, now, roots); err == nil && served == nil {
			t.Error("Verify accepts a guest that has no secret")
		}
		return nil, err
	})
	var refused *attest.Refused
	if err != nil && !errors.As(err, &refused) {
		t.Fatalf("got %v, want a *Refused", err)
	}
	if err == nil {
		return ""
	}
	return refused.Failed.Name
}

// TestVerifyAsking: a guest that asks is judged as one that serves, but for what follows from the secret, which it must not have.
func TestVerifyAsking(t *testing.T) {
	for _, platform := range platforms {
		for _, tt := range []struct {
			name, check string
			spoil       func(*scene)
		}{
			{"as it should be", "", nil},
			{"a receipt key", "statement-receipt-key", func(s *scene) { s.contents.Statement.ReceiptKey[0]++ }},
			{"a claim key", "statement-claim-key", func(s *scene) { s.contents.Statement.ClaimKey[0]++ }},
			{"a secret", "statement-secret", func(s *scene) { s.contents.Statement.SecretHash[0]++ }},
			{"keys released already", "runtime-log-end", func(s *scene) { s.adds(eventlog.KindKeysReleased) }},
			{"one that has ended", "runtime-log-end", func(s *scene) { s.adds(eventlog.KindTerminated) }},
			{"no separator yet", "runtime-log-order", func(s *scene) {
				for s.contents.Records[len(s.contents.Records)-1].Kind == eventlog.KindSeparator {
					s.contents.Records = s.contents.Records[:len(s.contents.Records)-1]
				}
			}},
			{"a replayed answer", "challenge", func(s *scene) { s.asked.Nonce[0]++ }},
			{"a relayed answer", "challenge", func(s *scene) { s.asked.Exporter[0]++ }},
			{"another key than the connection's", "tls-key", func(s *scene) { s.asked.TLSKey[0]++ }},
			{"no connection", "exporter", func(s *scene) { s.challenge.Exporter, s.asked.Exporter = [32]byte{}, [32]byte{} }},
			{"another config", "config.identity.network", func(s *scene) { s.rules.Config.Network = config.Mainnet }},
		} {
			if got := asks(t, platform, tt.spoil); got != tt.check {
				t.Errorf("%s: %s: got refused by %q, want %q", platform, tt.name, got, tt.check)
			}
		}
	}
}

// TestAskingIsNotServing: evidence of a guest that serves asks for nothing.
func TestAskingIsNotServing(t *testing.T) {
	for _, platform := range platforms {
		s := newSceneOn(t, platform)
		_, err := s.play(t, func(e *evidence.Evidence, c attest.Challenge, p attest.Policy, now time.Time, roots attest.Roots) (*attest.Result, error) {
			_, err := attest.VerifyAsking(e, c, p, now, roots)
			return nil, err
		})
		var refused *attest.Refused
		if !errors.As(err, &refused) || refused.Failed.Name != "runtime-log-end" {
			t.Errorf("%s: got %v, want it refused by runtime-log-end", platform, err)
		}
	}
}

// TestClaimed: what evidence claims are the values that a policy of exactly this guest has.
func TestClaimed(t *testing.T) {
	for _, platform := range platforms {
		s := newSceneOn(t, platform)
		e := s.source.Evidence(s.asked)
		got, err := attest.Claimed(e)
		if err != nil {
			t.Fatal(err)
		}
		for _, entry := range s.rules.Releases[0].Entries(platform) {
			for name, want := range entry.Values {
				if string(got[name]) != string(want) {
					t.Errorf("%s: %s: got %x, want %x", platform, name, got[name], want)
				}
			}
		}
		e.Quote, e.BootLog = e.Quote[:10], nil
		if got, err := attest.Claimed(e); err == nil {
			t.Errorf("%s: of evidence cut short: got %v, want an error", platform, got)
		}
	}
	if got, err := attest.Claimed(&evidence.Evidence{}); err == nil {
		t.Errorf("of no platform: got %v, want an error", got)
	}
}
