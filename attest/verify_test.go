package attest_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"chrysalis/attest"
	"chrysalis/attest/evidence"
	"chrysalis/attest/release"
	"chrysalis/measure/config"
	"chrysalis/measure/pubkey"
	"chrysalis/measure/register"
	"chrysalis/measure/ton"
)

var now = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

func measured(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "measure", "config", "testdata", "vectors", "measured.bin"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func key(curve elliptic.Curve) *ecdsa.PrivateKey {
	k, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		panic(err)
	}
	return k
}

func TestVerifyAccepts(t *testing.T) {
	s := newScene(t)
	r, err := s.play(t, attest.Verify)
	if err != nil {
		t.Fatal(err)
	}
	if r.TLSKey() != s.challenge.TLSKey || !bytes.Equal(r.ConfigBytes(), s.guest.Measured) || r.Release() != "software" ||
		r.SecurityVersion() != 1 {
		t.Errorf("result: TLS key %x, release %q version %d", r.TLSKey(), r.Release(), r.SecurityVersion())
	}
	if r.ReceiptKey() != pubkey.Of(s.guest.ReceiptKey) || r.ClaimKey() != pubkey.Of(s.guest.ClaimKey) ||
		r.SecretHash() != s.contents.Statement.SecretHash {
		t.Error("the result's keys are not the guest's")
	}
	waived := 0
	for _, c := range r.Checks() {
		if c.Verdict == attest.Waived {
			waived++
		}
	}
	if waived != 2 {
		t.Errorf("waived checks: got %d, want confidentiality and pcr-1", waived)
	}
	if w := strings.Join(r.Weaknesses(), "; "); !strings.Contains(w, "not confidentiality") || !strings.Contains(w, "pcr-1") ||
		!strings.Contains(w, "any machine") {
		t.Errorf("weaknesses: got %q", w)
	}
}

var platforms = evidence.Platforms()

// TestVectors has each vector refused by its check, and by no other.
func TestVectors(t *testing.T) {
	for _, platform := range platforms {
		for _, v := range vectorsOn(platform) {
			t.Run(platform.String()+"/"+v.check+"/"+v.name, func(t *testing.T) {
				s := newSceneOn(t, platform)
				v.spoil(s)
				r, err := s.play(t, attest.Verify)
				var refused *attest.Refused
				if r != nil || !errors.As(err, &refused) || errors.Is(err, attest.ErrRejected) == errors.Is(err, attest.ErrUnavailable) ||
					errors.Is(err, attest.ErrUnavailable) != v.unavailable() {
					t.Fatalf("got a result: %t, %v, want a *Refused", r != nil, err)
				}
				for _, c := range refused.Checks() {
					if (c.Verdict == attest.Denied) != (c.Name == v.check) {
						t.Errorf("check %s is %s: got %s, want %s", c.Name, c.Verdict, c.Got, c.Want)
					}
				}
				if refused.Failed.Name != v.check {
					t.Errorf("failed: got %s, want %s", refused.Failed.Name, v.check)
				}
			})
		}
	}
}

// TestEachCheckIsNeeded deletes each check in turn: the vectors that it refuses must then pass. The checks inside tdx and
// sev-snp are deleted in the tests of those packages.
func TestEachCheckIsNeeded(t *testing.T) {
	for _, platform := range platforms {
		all, parsers := attest.CheckNames(platform)
		tested := map[string]bool{"pcr-1": true} // by TestPinnedPCR1
		for _, v := range vectorsOn(platform) {
			outer, _, _ := strings.Cut(v.check, ".")
			tested[v.check], tested[outer] = true, true
			if parsers[v.check] || parsers[outer] {
				continue
			}
			t.Run(platform.String()+"/"+v.check+"/"+v.name, func(t *testing.T) {
				s := newSceneOn(t, platform)
				v.spoil(s)
				_, err := s.play(t, func(e *evidence.Evidence, c attest.Challenge, p attest.Policy, now time.Time,
					roots attest.Roots) (*attest.Result, error) {
					return attest.VerifyDropping(e, c, p, now, roots, v.check)
				})
				if err != nil {
					t.Errorf("without the check: got %v, want it accepted: another check refuses it too", err)
				}
			})
		}
		for _, name := range all {
			if !tested[name] {
				t.Errorf("%s: check %s: no vector is refused by it", platform, name)
			}
		}
	}
}

func TestPinnedPCR1(t *testing.T) {
	s := newScene(t)
	s.rules.Waive = []string{"confidentiality"}
	s.rules.Releases[0].VTPM[0][1] = register.Digest{1}
	var rejected *attest.Refused
	if _, err := s.play(t, attest.Verify); !errors.As(err, &rejected) || rejected.Failed.Name != "pcr-1" {
		t.Errorf("another PCR 1: got %v, want pcr-1 to refuse", err)
	}
	for _, c := range rejected.Checks() {
		if c.Name == "pcr-1" {
			value := new(register.Digest)
			if err := value.UnmarshalText([]byte(c.Got)); err != nil {
				t.Fatal(err)
			}
			s.rules.Releases[0].VTPM[0][1] = *value
		}
	}
	if _, err := s.play(t, attest.Verify); err != nil {
		t.Errorf("the PCR 1 that was shown: got %v, want it accepted", err)
	}
}

// TestEveryBitOfQuote flips each bit of quote, signature and statement.
func TestEveryBitOfQuote(t *testing.T) {
	s := newScene(t)
	policy, e := s.guest.Policy(), s.guest.Evidence(s.asked)
	whole, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	roots := s.source.Roots()
	roots.Facts = new(attest.Facts) // of parts that a bit leaves alone
	for _, part := range [][]byte{e.Quote, e.Signature, e.Statement.Encode(), e.Config, e.RuntimeLog} {
		at := bytes.Index(whole, part)
		for bit := range len(part) * 8 {
			bad := bytes.Clone(whole)
			bad[at+bit/8] ^= 1 << (bit % 8)
			e, err := evidence.Decode(bad)
			if err != nil {
				continue
			}
			if _, err := attest.Verify(e, s.challenge, policy, now, roots); err == nil {
				t.Fatalf("bit %d of the part at %d: accepted", bit, at)
			}
		}
	}
}

// TestVerifyTwice shows that a policy is a value: nothing is used up by its first use.
func TestVerifyTwice(t *testing.T) {
	s := newScene(t)
	policy := s.guest.Policy()
	good := s.guest.Evidence(s.asked)
	for range 2 {
		if _, err := attest.Verify(good, s.challenge, policy, now, s.source.Roots()); err != nil {
			t.Fatal(err)
		}
		bad := *good
		bad.Statement.ClaimKey[0]++
		if _, err := attest.Verify(&bad, s.challenge, policy, now, s.source.Roots()); err == nil {
			t.Fatal("another claim key: got no error, want a refusal")
		}
	}
}

// TestResultIsImmutable changes everything that a Result hands out.
func TestResultIsImmutable(t *testing.T) {
	s := newScene(t)
	e := s.guest.Evidence(s.asked)
	r, err := attest.Verify(e, s.challenge, s.guest.Policy(), now, s.source.Roots())
	if err != nil {
		t.Fatal(err)
	}
	before := fmt.Sprint(r.ConfigBytes(), r.Config(), r.Checks(), r.ClaimKey(), r.ReceiptKey(), r.Weaknesses())
	e.Config[10]++
	defer func() { e.Config[10]-- }()
	r.ConfigBytes()[0]++
	r.Config().Service.Engine.Argv[0] = "x"
	r.Checks()[0].Name = "x"
	r.Weaknesses()[0] = "x"
	if after := fmt.Sprint(r.ConfigBytes(), r.Config(), r.Checks(), r.ClaimKey(), r.ReceiptKey(), r.Weaknesses()); after != before {
		t.Error("a Result changed through what it returned or was made of")
	}
}

// TestNearestRelease names the register that differs from the release that was meant.
func TestNearestRelease(t *testing.T) {
	s := newScene(t)
	other := release.Release{Name: "older", SecurityVersion: 7, VTPM: []register.PCRs{{}}}
	for index := range s.rules.Releases[0].VTPM[0] {
		other.VTPM[0][index] = register.Digest{index, 1}
	}
	s.rules.Releases = append([]release.Release{other}, s.rules.Releases...)
	r, err := s.play(t, attest.Verify)
	if err != nil {
		t.Fatal(err)
	}
	if r.Release() != "software" || r.SecurityVersion() != 1 {
		t.Errorf("got release %q of version %d, want software of 1", r.Release(), r.SecurityVersion())
	}
	s.rules.Releases = s.rules.Releases[:1]
	var rejected *attest.Refused
	if _, err := s.play(t, attest.Verify); !errors.As(err, &rejected) || rejected.Failed.Name != "pcr-0" {
		t.Errorf("a policy that names another release: got %v, want pcr-0 to refuse", err)
	}
}

// TestTwinReleases has two releases that differ in a waived register alone: nothing shows that it is not the older one.
func TestTwinReleases(t *testing.T) {
	for _, order := range [][]int{{0, 1}, {1, 0}} {
		s := newScene(t)
		twins := []release.Release{s.rules.Releases[0], s.rules.Releases[0]}
		twins[0].Name, twins[0].SecurityVersion = "old", 1
		twins[1].Name, twins[1].SecurityVersion = "new", 5
		s.rules.Releases = []release.Release{twins[order[0]], twins[order[1]]}
		r, err := s.play(t, attest.Verify)
		if err != nil {
			t.Fatal(err)
		}
		if r.Release() != "old" || r.SecurityVersion() != 1 {
			t.Errorf("got release %q of version %d, want old of 1", r.Release(), r.SecurityVersion())
		}
		s.rules.MinSecurityVersion = 5
		var refused *attest.Refused
		if _, err := s.play(t, attest.Verify); !errors.As(err, &refused) || refused.Failed.Name != "security-version" {
			t.Errorf("at least version 5: got %v, want security-version to refuse", err)
		}
	}
}

// TestEachConfigFieldHasACheck walks config.Measured: a field without a check would be accepted whatever it says.
func TestEachConfigFieldHasACheck(t *testing.T) {
	all, _ := attest.CheckNames(evidence.VTPM)
	var walk func(name string, typ reflect.Type)
	walk = func(name string, typ reflect.Type) {
		for f := range typ.Fields() {
			tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if tag == "" {
				tag = strings.ToLower(f.Name)
			}
			path := name + "." + tag
			if f.Anonymous {
				walk(name, f.Type)
			} else if f.Type == reflect.TypeFor[[]config.Served]() {
				walk(name, f.Type.Elem()) // the checks of one model's fields are those of several
			} else if f.Type.Kind() == reflect.Struct && f.Type != reflect.TypeFor[config.Volume]() && f.Type != reflect.TypeFor[ton.Address]() {
				walk(path, f.Type)
			} else if !slices.Contains(all, path) {
				t.Errorf("field %s has no check", path)
			}
		}
	}
	walk("config", reflect.TypeFor[config.Measured]())
}

// FuzzVerify throws evidence at the whole appraisal: it must never accept what is not the genuine answer, and never panic.
func FuzzVerify(f *testing.F) {
	s := newScene(f)
	answer := s.guest.Evidence(s.asked)
	genuine, err := answer.Encode()
	if err != nil {
		f.Fatal(err)
	}
	policy := s.guest.Policy()
	if _, err := attest.Verify(answer, s.challenge, policy, now, s.source.Roots()); err != nil {
		f.Fatalf("the seed that must be accepted: %v", err)
	}
	f.Add(genuine)
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := evidence.Decode(b)
		if err != nil {
			return
		}
		r, err := attest.Verify(e, s.challenge, policy, now, s.source.Roots())
		if err == nil && (e.Statement != answer.Statement || !bytes.Equal(r.ConfigBytes(), answer.Config) || !bytes.Equal(e.RuntimeLog, answer.RuntimeLog)) {
			t.Errorf("accepted another statement, config or log than the genuine: %+v", e)
		}
	})
}
