package attest_test

import (
	"errors"
	"testing"

	"github.com/go-json-experiment/json"

	"chrysalis/attest"
	"chrysalis/attest/evidence"
)

// TestReport: what is true of a guest stands in the JSON of an acceptance and of nothing else.
func TestReport(t *testing.T) {
	common := []string{"verdict", "check", "reason", "weaknesses", "checks"}
	for _, tt := range []struct {
		name, verdict, check string
		judge                func() (*attest.Result, error)
		members              []string
	}{
		{"accepted", "accepted", "", func() (*attest.Result, error) { return newScene(t).play(t, attest.Verify) },
			append([]string{"platform", "machine", "release", "security_version", "identity", "service", "tls_key", "receipt_key",
				"claim_key", "secret_hash", "not_after"}, common...)},
		{"rejected", "rejected", "tls-key", func() (*attest.Result, error) {
			s := newScene(t)
			s.challenge.TLSKey[0]++
			return s.play(t, attest.Verify)
		}, common},
		{"unavailable", "unavailable", "tdx.collateral", func() (*attest.Result, error) {
			s := newSceneOn(t, evidence.TDX)
			s.edit = func(e *evidence.Evidence) { e.Collateral = nil }
			return s.play(t, attest.Verify)
		}, common},
		{"not an appraisal", "rejected", "", func() (*attest.Result, error) { return nil, errors.New("no JSON") }, common},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text, err := json.Marshal(attest.ReportOf(tt.judge()))
			if err != nil {
				t.Fatal(err)
			}
			var got map[string]any
			if err := json.Unmarshal(text, &got); err != nil {
				t.Fatal(err)
			}
			if got["verdict"] != tt.verdict || got["check"] != tt.check {
				t.Errorf("got verdict %q, check %q, want %q, %q", got["verdict"], got["check"], tt.verdict, tt.check)
			}
			if len(got) != len(tt.members) {
				t.Errorf("got %d members in %s, want %d: %q", len(got), text, len(tt.members), tt.members)
			}
			for _, name := range tt.members {
				if _, ok := got[name]; !ok {
					t.Errorf("member %q is missing", name)
				}
			}
		})
	}
}
