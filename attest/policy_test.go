package attest_test

import (
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"chrysalis/attest"
	"chrysalis/measure/config"
	"chrysalis/measure/register"
)

func document(t testing.TB, change func(*attest.Rules)) string {
	t.Helper()
	rules := newScene(t).guest.Rules()
	if change != nil {
		change(&rules)
	}
	b, err := json.Marshal(rules, json.Deterministic(true))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestParsePolicy(t *testing.T) {
	good := document(t, nil)
	if _, err := attest.ParsePolicy([]byte(good)); err != nil {
		t.Fatal(err)
	}
	swap := func(old, new string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("%q does not occur in %s", old, good)
		}
		return strings.Replace(good, old, new, 1)
	}
	for _, tt := range []struct{ name, document, want string }{
		{"empty", "", "parsing policy"},
		{"empty object", "{}", "is missing"},
		{"null", "null", "want an object"},
		{"a list", "[]", "parsing policy"},
		{"unknown member", swap(`{"version":1`, `{"debug":true,"version":1`), "unknown object member"},
		{"unknown member inside", swap(`"network":`, `"skip":true,"network":`), "unknown object member"},
		{"member twice", swap(`{"version":1`, `{"version":1,"version":1`), "duplicate"},
		{"member missing", swap(`"min_security_version":1,`, ``), `member "min_security_version" is missing`},
		{"member missing inside", swap(`"network":"local",`, ``), `member "network" is missing`},
		{"null instead of a list", swap(`"waive":["confidentiality","pcr-1"]`, `"waive":null`), "want a list"},
		{"other letter case", swap(`"version"`, `"Version"`), "unknown object member"},
		{"trailing text", good + "{}", "parsing policy"},
		{"too long", good + strings.Repeat(" ", 1<<20), "want at most"},
		{"version", swap(`"version":1`, `"version":2`), "version is 2"},
		{"no releases", document(t, func(r *attest.Rules) { r.Releases = nil }), "0 releases"},
		{"release without name", document(t, func(r *attest.Rules) { r.Releases[0].Name = "" }), "name is empty"},
		{"unknown waiver", document(t, func(r *attest.Rules) { r.Waive = append(r.Waive, "tcb") }), `waive names "tcb"`},
		{"waiver of PCR 13", document(t, func(r *attest.Rules) { r.Waive = append(r.Waive, "pcr-13") }), `waive names "pcr-13"`},
		{"waiver twice", document(t, func(r *attest.Rules) { r.Waive = append(r.Waive, "pcr-1") }), `waive names "pcr-1"`},
		{"register unjudged", document(t, func(r *attest.Rules) { delete(r.Releases[0].VTPM[0], 4) }),
			"pcr-4: pinned is false and waived is false"},
		{"register pinned and waived", document(t, func(r *attest.Rules) { r.Waive = append(r.Waive, "pcr-4") }),
			"pcr-4: pinned is true and waived is true"},
		{"register out of the selection", document(t, func(r *attest.Rules) { r.Releases[0].VTPM[0][10] = register.Digest{} }),
			"pins registers outside"},
		{"no machine", document(t, func(r *attest.Rules) { r.Platforms.Any = false }), "any_platform is false beside 0 named machines"},
		{"any machine and one", document(t, func(r *attest.Rules) { r.Platforms.VTPM = []register.Digest{{}} }),
			"any_platform is true beside 1 named machines"},
		{"digest in upper case", strings.Replace(good, `"0":"`, `"0":"A`, 1), "digest"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := attest.ParsePolicy([]byte(tt.document)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}

// TestEveryMemberIsNeeded removes each member of the document in turn, however deep.
func TestEveryMemberIsNeeded(t *testing.T) {
	var tree any
	if err := json.Unmarshal([]byte(document(t, nil)), &tree); err != nil {
		t.Fatal(err)
	}
	removed := 0
	var walk func(path string, v any)
	walk = func(path string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for name, member := range v {
				delete(v, name)
				b, err := json.Marshal(tree)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := attest.ParsePolicy(b); err == nil {
					t.Errorf("without %s.%s: got no error, want a refusal", path, name)
				}
				removed++
				v[name] = member
				walk(path+"."+name, member)
			}
		case []any:
			for _, item := range v {
				walk(path+"[]", item)
			}
		}
	}
	walk("policy", tree)
	if removed < 60 {
		t.Errorf("removed %d members, want at least 60: the walk missed some", removed)
	}
}

// TestPolicyIsAValue changes the rules after a policy was made of them.
func TestPolicyIsAValue(t *testing.T) {
	s := newScene(t)
	policy, err := s.rules.Policy()
	if err != nil {
		t.Fatal(err)
	}
	s.rules.Releases[0].VTPM[0][0] = register.Digest{}
	s.rules.Waive[0] = "pcr-0"
	s.rules.Config.Engine.Argv[0] = "/bin/sh"
	if _, err := attest.Verify(s.guest.Evidence(s.asked), s.challenge, policy, now, s.source.Roots()); err != nil {
		t.Errorf("got %v, want the policy to be as it was made", err)
	}
}

func FuzzParsePolicy(f *testing.F) {
	f.Add([]byte(document(f, nil)))
	f.Add([]byte(document(f, func(r *attest.Rules) {
		one := attest.ServedRules{Engine: r.Config.Engine, Model: r.Config.Model, Limits: r.Config.Limits}
		other := one
		other.Model.Name, other.Optional = "other", true
		r.Config.Engine, r.Config.Model, r.Config.Limits, r.Config.Models = attest.EngineRules{}, attest.ModelRules{}, attest.LimitRules{}, []attest.ServedRules{one, other}
	})))
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := attest.ParsePolicy(b)
		if err != nil {
			return
		}
		s := newScene(t)
		if _, err := attest.Verify(nil, s.challenge, p, now, s.source.Roots()); err == nil {
			t.Error("no evidence: accepted")
		}
	})
}

// TestWipeIsTheLeast: a policy's wipe is what a config has to do at least, and the finding says both.
func TestWipeIsTheLeast(t *testing.T) {
	m, err := config.Decode(measured(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		least   []config.Wipe
		wipe    config.Wipe
		verdict attest.Verdict
	}{
		{[]config.Wipe{config.WipeFreed}, "idle 30s", attest.Accepted},
		{[]config.Wipe{config.WipeClient, "idle 60s"}, "idle 30s", attest.Accepted},
		{[]config.Wipe{config.WipeClient, "idle 10s"}, "idle 30s", attest.Denied},
		{[]config.Wipe{config.WipeClient}, config.WipeFreed, attest.Denied},
	} {
		m.Service.Wipe = tt.wipe
		rules := attest.ExactConfig(m)
		rules.Wipe = tt.least
		for _, line := range rules.Judge(m) {
			want := attest.Accepted
			if line.Name == "config.service.wipe" {
				want = tt.verdict
			}
			if line.Verdict != want {
				t.Errorf("%q under %q: %s is %s (%s, want %s), want it %s", tt.wipe, tt.least, line.Name, line.Verdict, line.Got, line.Want, want)
			}
		}
	}
}
