package attest_test

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"chrysalis/attest"
	"chrysalis/attest/evidence"
	"chrysalis/attest/handover"
	"chrysalis/attest/release"
	"chrysalis/measure/pubkey"
	"chrysalis/measure/register"
)

// TestPolicyWithReleases accepts a guest by a signed list, and by as many rebuilds as the policy asks for.
func TestPolicyWithReleases(t *testing.T) {
	for _, platform := range platforms {
		s := newSceneOn(t, platform)
		s.listed(now.Add(-time.Hour), 24*time.Hour)
		r, err := s.play(t, attest.Verify)
		if err != nil {
			t.Fatal(err)
		}
		if r.Release() != "software" {
			t.Errorf("%s: release is %q, want software", platform, r.Release())
		}
		document, _, err := release.DecodeList(s.list)
		if err != nil {
			t.Fatal(err)
		}
		rebuilt, err := release.SignRebuild(document.Releases[0].Manifest, "somebody", now, listKey(3))
		if err != nil {
			t.Fatal(err)
		}
		if err := document.AddRebuild(rebuilt); err != nil {
			t.Fatal(err)
		}
		unsigned, err := release.EncodeList(document)
		if err != nil {
			t.Fatal(err)
		}
		if s.list, err = release.SignList(unsigned, listKey(2)); err != nil {
			t.Fatal(err)
		}
		s.rules.ReleaseList.Rebuilders, s.rules.ReleaseList.RebuildThreshold = []pubkey.Ed25519{keyOf(3), keyOf(4)}, 1
		if _, err := s.play(t, attest.Verify); err != nil {
			t.Errorf("%s, rebuilt by one: %v", platform, err)
		}
		s.rules.ReleaseList.RebuildThreshold = 2
		var refused *attest.Refused
		if _, err := s.play(t, attest.Verify); !errors.As(err, &refused) || refused.Failed.Name != "release-rebuilt" {
			t.Errorf("%s, rebuilt by one of two: got %v, want release-rebuilt to refuse", platform, err)
		}
	}
}

// TestHeldBy: images that the policy would accept themselves may have held the secret, and those that it names; the Result says which did.
func TestHeldBy(t *testing.T) {
	for _, platform := range platforms {
		s := newSceneOn(t, platform)
		own := s.rules.Releases[0].Entries(platform)[0].Values
		older := s.rules.Releases[0]
		older.Name = "older"
		switch platform {
		case evidence.VTPM:
			other := maps.Clone(older.VTPM[0])
			other[9] = register.Digest{9}
			older.VTPM = []register.PCRs{other}
		case evidence.TDX:
			other := older.TDX[0]
			other.RTMR2 = register.Digest384{9}
			older.TDX = []release.TDXValues{other}
		case evidence.SEVSNP:
			older.SEVSNP = []register.Digest384{{9}}
		}
		measurement := func(values map[string][]byte) register.Digest {
			m, err := handover.Measurement(platform, values)
			if err != nil {
				t.Fatal(err)
			}
			return m
		}
		before := measurement(older.Entries(platform)[0].Values)
		if before == measurement(own) {
			t.Fatal("the older release is the guest's own")
		}
		s.heldBefore(before)
		for _, tt := range []struct {
			name   string
			rules  func(*attest.Rules)
			refuse bool
			weak   string
		}{
			{"unknown", func(*attest.Rules) {}, true, ""},
			{"a release of the policy", func(r *attest.Rules) { r.Releases = append(r.Releases, older) }, false, ""},
			{"a release of the policy, too old", func(r *attest.Rules) {
				r.Releases[0].SecurityVersion, r.MinSecurityVersion = 2, 2
				r.Releases = append(r.Releases, older)
			}, true, ""},
			{"named", func(r *attest.Rules) { r.HeldBy = []register.Digest{{1}, before} }, false, ""},
			{"waived", func(r *attest.Rules) { r.Waive = append(slices.Clone(r.Waive), "held-by") }, false, "could have kept a copy"},
		} {
			spoiled := *s
			spoiled.rules.Releases = slices.Clone(s.rules.Releases)
			tt.rules(&spoiled.rules)
			r, err := spoiled.play(t, attest.Verify)
			if tt.refuse {
				var refused *attest.Refused
				if !errors.As(err, &refused) || refused.Failed.Name != "held-by" || !strings.Contains(refused.Failed.Got, before.String()) {
					t.Errorf("%s, %s: got %v, want held-by to refuse and to name %s", platform, tt.name, err, before)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s, %s: %v", platform, tt.name, err)
				continue
			}
			said := r.Checks()[slices.IndexFunc(r.Checks(), func(c attest.Check) bool { return c.Name == "held-by" })].Got
			if want := map[string]string{"a release of the policy": `which is release "older"`, "waived": "does not know"}[tt.name]; !strings.Contains(said, want) ||
				!strings.Contains(said, before.String()) {
				t.Errorf("%s, %s: held-by got %q, want %s and %q in it", platform, tt.name, said, before, want)
			}
			if got := r.Held(); !slices.Equal(got, []register.Digest{before}) || !slices.Equal(attest.ReportOf(r, nil).Held, got) {
				t.Errorf("%s, %s: the result says that %v held the secret, want %s", platform, tt.name, got, before)
			}
			if weak := strings.Join(r.Weaknesses(), "; "); !strings.Contains(weak, tt.weak) {
				t.Errorf("%s, %s: weaknesses are %q, want %q among them", platform, tt.name, weak, tt.weak)
			}
		}
	}
}

// TestPolicyTakesNoOtherList refuses lists that the policy's signers do not stand for, or that leave something unjudged.
func TestPolicyTakesNoOtherList(t *testing.T) {
	list := func(change func(*scene)) []byte {
		s := newScene(t)
		change(s)
		s.listed(now, time.Hour)
		return s.list
	}
	asking := newScene(t)
	asking.listed(now, time.Hour)
	policy, err := asking.rules.Policy()
	if err != nil {
		t.Fatal(err)
	}
	own, err := newScene(t).rules.Policy()
	if err != nil {
		t.Fatal(err)
	}
	document, _, err := release.DecodeList(asking.list)
	if err != nil {
		t.Fatal(err)
	}
	unsigned, err := release.EncodeList(document)
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := release.SignList(unsigned, listKey(9))
	if err != nil {
		t.Fatal(err)
	}
	td := newSceneOn(t, evidence.TDX)
	td.listed(now, time.Hour)
	for _, tt := range []struct {
		name, want string
		policy     attest.Policy
		list       []byte
	}{
		{"nobody signed", "want at least 1", policy, unsigned},
		{"a stranger signed", "want at least 1", policy, stranger},
		{"no list", "reading release list", policy, nil},
		{"a register that is neither pinned nor waived", "pcr-4", policy, list(func(s *scene) { delete(s.rules.Releases[0].VTPM[0], 4) })},
		{"a platform whose rules the policy leaves empty", "accept_status is empty", policy, td.list},
		{"a policy with releases of its own", "names no signers", own, asking.list},
		{"the zero policy", "names no signers", attest.Policy{}, asking.list},
	} {
		if _, err := tt.policy.WithReleases(tt.list); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want an error with %q", tt.name, err, tt.want)
		}
	}
	if _, err := policy.WithReleases(asking.list); err != nil {
		t.Errorf("the list itself: %v", err)
	}
}

// TestRevokedAlone has a refusal name what the list revokes.
func TestRevokedAlone(t *testing.T) {
	s := newScene(t)
	s.listed(now, time.Hour)
	d := release.NewDocument(now, time.Hour)
	d.Revoked = []release.Revoked{{Name: "software", Manifest: register.Digest{1}, Reason: "the gateway logged prompts"}}
	unsigned, err := release.EncodeList(d)
	if err != nil {
		t.Fatal(err)
	}
	if s.list, err = release.SignList(unsigned, listKey(1)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.play(t, attest.Verify); !errors.Is(err, attest.ErrRejected) ||
		!strings.Contains(err.Error(), `"software": the gateway logged prompts`) {
		t.Errorf("got %v, want a refusal that names the revoked release and why", err)
	}
}

func TestListRules(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		change     func(*attest.Rules)
	}{
		{"releases beside signers", "beside 1 releases", func(r *attest.Rules) { r.Releases = newScene(t).rules.Releases }},
		{"no threshold", "threshold is 0 of 2", func(r *attest.Rules) { r.ReleaseList.Threshold = 0 }},
		{"threshold above the signers", "threshold is 3 of 2", func(r *attest.Rules) { r.ReleaseList.Threshold = 3 }},
		{"no age", "max_age", func(r *attest.Rules) { r.ReleaseList.MaxAge = "" }},
		{"no time", "max_age", func(r *attest.Rules) { r.ReleaseList.MaxAge = "0s" }},
		{"rebuilders without threshold", "rebuild_threshold is 0 of 1",
			func(r *attest.Rules) { r.ReleaseList.Rebuilders = []pubkey.Ed25519{{1}} }},
		{"a signer that is no key", "key is zero", func(r *attest.Rules) { r.ReleaseList.Signers[1] = pubkey.Ed25519{} }},
		{"threshold without rebuilders", "rebuild_threshold is 1 of 0", func(r *attest.Rules) { r.ReleaseList.RebuildThreshold = 1 }},
		{"rules without signers", "without signers", func(r *attest.Rules) {
			r.ReleaseList.Signers, r.Releases = nil, newScene(t).rules.Releases
		}},
	} {
		s := newScene(t)
		s.listed(now, time.Hour)
		tt.change(&s.rules)
		if _, err := s.rules.Policy(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want an error with %q", tt.name, err, tt.want)
		}
	}
}
