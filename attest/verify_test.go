package attest_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
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
	"chrysalis/attest/attesttest"
	"chrysalis/attest/vtpm"
	"chrysalis/measure/config"
	"chrysalis/measure/eventlog"
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

// scene is everything that Verify is given, made so that it accepts. A vector spoils one thing.
type scene struct {
	guest     *attesttest.Guest
	challenge attest.Challenge
	asked     attest.Challenge // what the guest is asked; the same, unless a vector makes them differ
	rules     attest.Rules
	zero      bool // verify under the zero policy
	roots     attest.Roots
	now       time.Time
	edit      func(*attest.Evidence) // after it was made
}

func newScene(t testing.TB) *scene {
	g := attesttest.New(measured(t), now)
	c := attest.Challenge{Nonce: [32]byte{1}, Exporter: [32]byte{2}, TLSKey: [32]byte{3}}
	return &scene{guest: g, challenge: c, asked: c, rules: g.Rules(), roots: g.Roots(), now: now}
}

func (s *scene) play(t testing.TB, verify func(*attest.Evidence, attest.Challenge, attest.Policy, time.Time, attest.Roots) (*attest.Result, error)) (*attest.Result, error) {
	t.Helper()
	e := s.guest.Evidence(s.asked)
	if s.edit != nil {
		s.edit(e)
	}
	var policy attest.Policy
	if !s.zero {
		var err error
		if policy, err = s.rules.Policy(); err != nil {
			t.Fatal(err)
		}
	}
	return verify(e, s.challenge, policy, s.now, s.roots)
}

// vector spoils a scene in one way, which one check must refuse.
type vector struct {
	check, name string
	spoil       func(*scene)
}

func record(s *scene, register eventlog.Register, kind eventlog.Kind) *eventlog.Record {
	i := slices.IndexFunc(s.guest.Records, func(r eventlog.Record) bool { return r.Register == register && r.Kind == kind })
	return &s.guest.Records[i]
}

func vectors() []vector {
	vs := []vector{
		{"policy", "the zero policy", func(s *scene) { s.zero = true }},
		{"platform", "another platform", func(s *scene) { s.edit = func(e *attest.Evidence) { e.Platform = attest.TDX } }},
		{"confidentiality", "not waived", func(s *scene) { s.rules.Waive = []string{"pcr-1"} }},
		{"nonce", "no nonce", func(s *scene) { s.challenge.Nonce, s.asked.Nonce = [32]byte{}, [32]byte{} }},
		{"exporter", "no exporter", func(s *scene) { s.challenge.Exporter, s.asked.Exporter = [32]byte{}, [32]byte{} }},
		{"challenge", "an answer to an older nonce", func(s *scene) { s.challenge.Nonce[0]++ }},
		{"challenge", "an answer relayed from another connection", func(s *scene) { s.challenge.Exporter[0]++ }},
		{"challenge", "a path of another tree", func(s *scene) {
			s.edit = func(e *attest.Evidence) { e.Path.Leaves, e.Path.Siblings = 2, [][32]byte{{}} }
		}},
		{"challenge", "no path", func(s *scene) { s.edit = func(e *attest.Evidence) { e.Path = attest.Path{} } }},
		{"tls-key", "another TLS key", func(s *scene) { s.challenge.TLSKey[0]++ }},
		{"not-after", "a second late", func(s *scene) { s.guest.Statement.NotAfter = uint64(now.Unix()) - 1 }},
		{"not-after", "far beyond time", func(s *scene) { s.guest.Statement.NotAfter = 1 << 63 }},
		{"quote-format", "trailing byte", func(s *scene) { s.edit = func(e *attest.Evidence) { e.Quote = append(e.Quote, 0) } }},
		{"signature-format", "trailing byte", func(s *scene) { s.edit = func(e *attest.Evidence) { e.Signature = append(e.Signature, 0) } }},
		{"certificate-format", "no certificate", func(s *scene) { s.edit = func(e *attest.Evidence) { e.Certificates = nil } }},
		{"certificate-format", "a P-384 key", func(s *scene) { s.guest.CertifiedKey = key(elliptic.P384()) }},
		{"boot-log-format", "no log", func(s *scene) { s.edit = func(e *attest.Evidence) { e.BootLog = nil } }},
		{"runtime-log-format", "trailing byte", func(s *scene) { s.edit = func(e *attest.Evidence) { e.RuntimeLog = append(e.RuntimeLog, 0) } }},
		{"config-format", "no config", func(s *scene) { s.edit = func(e *attest.Evidence) { e.Config = nil } }},
		{"certificate", "no roots", func(s *scene) { s.roots = attest.Roots{} }},
		{"certificate", "another root", func(s *scene) { s.roots = attesttest.New(s.guest.Measured, now).Roots() }},
		{"certificate", "expired", func(s *scene) { s.guest.Leaf.NotAfter = now.Add(-time.Second) }},
		{"certificate", "not yet valid", func(s *scene) { s.guest.Leaf.NotBefore = now.Add(time.Second) }},
		{"certificate", "a CA", func(s *scene) { s.guest.Leaf.IsCA = true }},
		{"certificate", "no basic constraints", func(s *scene) { s.guest.Leaf.BasicConstraintsValid = false }},
		{"certificate", "usage of another key", func(s *scene) { s.guest.Leaf.KeyUsage = x509.KeyUsageKeyAgreement }},
		{"certificate", "not for attestation", func(s *scene) { s.guest.Leaf.UnknownExtKeyUsage = nil }},
		{"quote-signature", "another key", func(s *scene) { s.guest.SigningKey = key(elliptic.P256()) }},
		{"report-data", "another statement", func(s *scene) { s.edit = func(e *attest.Evidence) { e.Statement.Epoch++ } }},
		{"report-data", "a longer one", func(s *scene) {
			s.guest.Quote = func(q *vtpm.Quote) { q.Extra = q.Extra[:63] }
		}},
		{"pcr-selection", "one register fewer", func(s *scene) { s.selects(vtpm.SHA256Selection(vtpm.QuotedPCRs()[1:])) }},
		{"pcr-selection", "one register more", func(s *scene) { s.selects(vtpm.SHA256Selection(append(vtpm.QuotedPCRs(), 15))) }},
		{"pcr-selection", "the SHA-1 bank", func(s *scene) { s.selects(vtpm.Selection{Hash: 4, Registers: vtpm.QuotedPCRs()}) }},
		{"pcr-selection", "nothing", func(s *scene) { s.selects() }},
		{"pcr-digest", "another digest", func(s *scene) { s.guest.Quote = func(q *vtpm.Quote) { q.Digest[0]++ } }},
		{"pcr-digest", "an event less in the log", func(s *scene) {
			s.edit = func(e *attest.Evidence) {
				short := attesttest.New(s.guest.Measured, now)
				short.Boot = slices.Delete(short.Boot, 1, 2)
				e.BootLog = short.Evidence(s.asked).BootLog
			}
		}},
		{"boot-log-data", "an event with other data", func(s *scene) {
			s.guest.Boot[9].Hashed, s.guest.Boot[9].Data = s.guest.Boot[9].Data, []byte("edited")
		}},
		{"machine", "a machine that is not listed", func(s *scene) {
			s.rules.Platforms = attest.Platforms{VTPM: []config.Digest{{9}}}
		}},
		{"security-version", "an old release", func(s *scene) { s.rules.MinSecurityVersion = 2 }},
		{"runtime-log-order", "model before engine", func(s *scene) {
			s.guest.Records[2], s.guest.Records[3] = s.guest.Records[3], s.guest.Records[2]
		}},
		{"runtime-log-end", "the GPU was lost", func(s *scene) { s.adds(eventlog.KindGPULost) }},
		{"runtime-log-end", "it ended", func(s *scene) { s.adds(eventlog.KindTerminated) }},
		{"runtime-log-end", "a second engine", func(s *scene) { s.adds(eventlog.KindEngine) }},
		{"event-config", "another config", func(s *scene) { record(s, 13, eventlog.KindConfig).Data = make([]byte, 32) }},
		{"event-identity", "another identity", func(s *scene) { record(s, 14, eventlog.KindIdentity).Data = make([]byte, 32) }},
		{"event-engine", "another engine", func(s *scene) { record(s, 13, eventlog.KindEngine).Data = make([]byte, 40) }},
		{"event-model", "another model", func(s *scene) { record(s, 13, eventlog.KindModel).Data = make([]byte, 40) }},
		{"event-gpu", "a GPU", func(s *scene) { record(s, 13, eventlog.KindGPU).Data = []byte("one") }},
		{"event-separator-13", "another separator", func(s *scene) { record(s, 13, eventlog.KindSeparator).Data = []byte{0, 0, 0, 1} }},
		{"event-separator-14", "another separator", func(s *scene) { record(s, 14, eventlog.KindSeparator).Data = nil }},
		{"event-keys-released-13", "with data", func(s *scene) { record(s, 13, eventlog.KindKeysReleased).Data = []byte{1} }},
		{"event-keys-released-14", "with data", func(s *scene) { record(s, 14, eventlog.KindKeysReleased).Data = []byte{1} }},
		{"statement-config", "another config", func(s *scene) { s.fills(func(st *attest.Statement) { st.ConfigHash[0]++ }) }},
		{"statement-log-head", "another log", func(s *scene) { s.fills(func(st *attest.Statement) { st.LogHead[0]++ }) }},
		{"statement-gpu", "a GPU's evidence", func(s *scene) { s.guest.Statement.GPUDigest[0]++ }},
		{"statement-receipt-key", "none", func(s *scene) { s.guest.Statement.ReceiptKey = [32]byte{} }},
		{"statement-claim-key", "none", func(s *scene) { s.guest.Statement.ClaimKey = [32]byte{} }},
		{"statement-secret", "none", func(s *scene) { s.guest.Statement.SecretHash = [32]byte{} }},
	}
	for _, register := range vtpm.QuotedPCRs() {
		if register == 1 || register == 13 || register == 14 {
			continue // 1 is waived in the scene, and in TestPinnedPCR1 it is not
		}
		vs = append(vs, vector{fmt.Sprintf("pcr-%d", register), "another value", func(s *scene) { s.rules.Releases[0].VTPM[uint8(register)] = config.Digest{1} }})
	}
	return append(vs, configVectors()...)
}

func configVectors() []vector {
	rule := func(name string, change func(*attest.ConfigRules)) vector {
		return vector{"config." + name, "another", func(s *scene) { change(&s.rules.Config) }}
	}
	return []vector{
		rule("identity.network", func(r *attest.ConfigRules) { r.Network = config.Mainnet }),
		rule("identity.root_contract", func(r *attest.ConfigRules) { r.RootContract = "0:00" }),
		rule("identity.payout_owner", func(r *attest.ConfigRules) { r.PayoutOwner = "" }),
		rule("identity.sealing", func(r *attest.ConfigRules) { r.Sealing = nil }),
		rule("identity.instance", func(r *attest.ConfigRules) { r.Instance = nil }),
		rule("service.engine.volume", func(r *attest.ConfigRules) { r.Engine.Volumes[0].Root[0]++ }),
		rule("service.engine.argv", func(r *attest.ConfigRules) { r.Engine.Argv = append(r.Engine.Argv, "--slots") }),
		rule("service.engine.env", func(r *attest.ConfigRules) { r.Engine.Env = append(r.Engine.Env, "LD_PRELOAD=/x") }),
		rule("service.engine.memory_bytes", func(r *attest.ConfigRules) { r.Engine.MemoryBytes.Max-- }),
		rule("service.model.name", func(r *attest.ConfigRules) { r.Model.Name = "large" }),
		rule("service.model.volume", func(r *attest.ConfigRules) { r.Model.Volumes[0].Blocks++ }),
		rule("service.gpu", func(r *attest.ConfigRules) { r.GPU = nil }),
		rule("service.limits.request_bytes", func(r *attest.ConfigRules) { r.Limits.RequestBytes.Min++; r.Limits.RequestBytes.Max++ }),
		rule("service.limits.answer_tokens", func(r *attest.ConfigRules) { r.Limits.AnswerTokens.Max-- }),
		rule("service.limits.concurrent", func(r *attest.ConfigRules) { r.Limits.Concurrent.Max-- }),
		rule("service.limits.context_tokens", func(r *attest.ConfigRules) { r.Limits.ContextTokens.Max-- }),
		rule("service.price.payment", func(r *attest.ConfigRules) { r.Price.Payment = []config.Payment{config.PayNothing} }),
		rule("service.price.nanoton_per_token", func(r *attest.ConfigRules) { r.Price.NanotonPerToken.Max-- }),
		rule("service.price.prompt_weight", func(r *attest.ConfigRules) { r.Price.PromptWeight.Max-- }),
		rule("service.price.cached_weight", func(r *attest.ConfigRules) { r.Price.CachedWeight.Max-- }),
		rule("service.price.completion_weight", func(r *attest.ConfigRules) { r.Price.CompletionWeight.Max-- }),
		rule("service.price.reasoning_weight", func(r *attest.ConfigRules) { r.Price.ReasoningWeight.Max-- }),
		rule("service.wipe", func(r *attest.ConfigRules) { r.Wipe = nil }),
	}
}

func (s *scene) selects(selections ...vtpm.Selection) {
	s.guest.Quote = func(q *vtpm.Quote) { q.Selections = selections }
}

func (s *scene) adds(kind eventlog.Kind) {
	s.guest.Records = append(s.guest.Records, eventlog.Record{Register: eventlog.PCR13, Kind: kind})
}

// fills writes the statement's hashes as the guest would and then changes them.
func (s *scene) fills(change func(*attest.Statement)) {
	st := s.guest.Evidence(s.asked).Statement
	change(&st)
	s.guest.Statement, s.guest.Fill = st, false
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
	if r.TLSKey() != s.challenge.TLSKey || !bytes.Equal(r.ConfigBytes(), s.guest.Measured) || r.Release() != "software" || r.SecurityVersion() != 1 {
		t.Errorf("result: TLS key %x, release %q version %d", r.TLSKey(), r.Release(), r.SecurityVersion())
	}
	if !r.ReceiptKey().Equal(s.guest.ReceiptKey.Public()) || !r.ClaimKey().Equal(s.guest.ClaimKey.Public()) || r.SecretHash() != s.guest.Statement.SecretHash {
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
	if w := strings.Join(r.Weaknesses(), "; "); !strings.Contains(w, "not confidentiality") || !strings.Contains(w, "pcr-1") || !strings.Contains(w, "any machine") {
		t.Errorf("weaknesses: got %q", w)
	}
}

// TestVectors has each vector refused by its check, and by no other.
func TestVectors(t *testing.T) {
	for _, v := range vectors() {
		t.Run(v.check+"/"+v.name, func(t *testing.T) {
			s := newScene(t)
			v.spoil(s)
			r, err := s.play(t, attest.Verify)
			var rejected *attest.Rejected
			if r != nil || !errors.As(err, &rejected) || !errors.Is(err, attest.ErrRejected) || errors.Is(err, attest.ErrUnavailable) {
				t.Fatalf("got %v, %v, want a *Rejected", r, err)
			}
			for _, c := range rejected.Checks() {
				if (c.Verdict == attest.Denied) != (c.Name == v.check) {
					t.Errorf("check %s is %s: got %s, want %s", c.Name, c.Verdict, c.Got, c.Want)
				}
			}
			if rejected.Failed.Name != v.check {
				t.Errorf("failed: got %s, want %s", rejected.Failed.Name, v.check)
			}
		})
	}
}

// TestEachCheckIsNeeded deletes each check in turn: the vectors that it refuses must then pass.
func TestEachCheckIsNeeded(t *testing.T) {
	all, parsers := attest.CheckNames()
	tested := map[string]bool{"pcr-1": true} // by TestPinnedPCR1
	for _, v := range vectors() {
		tested[v.check] = true
		if parsers[v.check] {
			continue
		}
		t.Run(v.check+"/"+v.name, func(t *testing.T) {
			s := newScene(t)
			v.spoil(s)
			_, err := s.play(t, func(e *attest.Evidence, c attest.Challenge, p attest.Policy, now time.Time, roots attest.Roots) (*attest.Result, error) {
				return attest.VerifyDropping(e, c, p, now, roots, v.check)
			})
			if err != nil {
				t.Errorf("without the check: got %v, want it accepted: another check refuses it too", err)
			}
		})
	}
	for _, name := range all {
		if !tested[name] {
			t.Errorf("check %s: no vector is refused by it", name)
		}
	}
}

func TestPinnedPCR1(t *testing.T) {
	s := newScene(t)
	s.rules.Waive = []string{"confidentiality"}
	s.rules.Releases[0].VTPM[1] = config.Digest{1}
	var rejected *attest.Rejected
	if _, err := s.play(t, attest.Verify); !errors.As(err, &rejected) || rejected.Failed.Name != "pcr-1" {
		t.Errorf("another PCR 1: got %v, want pcr-1 to refuse", err)
	}
	for _, c := range rejected.Checks() {
		if c.Name == "pcr-1" {
			value := new(config.Digest)
			if err := value.UnmarshalText([]byte(c.Got)); err != nil {
				t.Fatal(err)
			}
			s.rules.Releases[0].VTPM[1] = *value
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
	for _, part := range [][]byte{e.Quote, e.Signature, e.Statement.Encode(), e.Config, e.RuntimeLog} {
		at := bytes.Index(whole, part)
		for bit := range len(part) * 8 {
			bad := bytes.Clone(whole)
			bad[at+bit/8] ^= 1 << (bit % 8)
			e, err := attest.DecodeEvidence(bad)
			if err != nil {
				continue
			}
			if _, err := attest.Verify(e, s.challenge, policy, now, s.roots); err == nil {
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
		if _, err := attest.Verify(good, s.challenge, policy, now, s.roots); err != nil {
			t.Fatal(err)
		}
		bad := *good
		bad.Statement.ClaimKey[0]++
		if _, err := attest.Verify(&bad, s.challenge, policy, now, s.roots); err == nil {
			t.Fatal("another claim key: got no error, want a refusal")
		}
	}
}

// TestResultIsImmutable changes everything that a Result hands out.
func TestResultIsImmutable(t *testing.T) {
	s := newScene(t)
	e := s.guest.Evidence(s.asked)
	r, err := attest.Verify(e, s.challenge, s.guest.Policy(), now, s.roots)
	if err != nil {
		t.Fatal(err)
	}
	before := fmt.Sprint(r.ConfigBytes(), r.Config(), r.Checks(), r.ClaimKey(), r.ReceiptKey(), r.Weaknesses())
	e.Config[10]++
	defer func() { e.Config[10]-- }()
	r.ConfigBytes()[0]++
	r.Config().Service.Engine.Argv[0] = "x"
	r.Checks()[0].Name = "x"
	r.ClaimKey()[0]++
	r.ReceiptKey()[0]++
	r.Weaknesses()[0] = "x"
	if after := fmt.Sprint(r.ConfigBytes(), r.Config(), r.Checks(), r.ClaimKey(), r.ReceiptKey(), r.Weaknesses()); after != before {
		t.Error("a Result changed through what it returned or was made of")
	}
}

// TestNearestRelease names the register that differs from the release that was meant.
func TestNearestRelease(t *testing.T) {
	s := newScene(t)
	other := attest.Release{Name: "older", SecurityVersion: 7, VTPM: map[uint8]config.Digest{}}
	for register := range s.rules.Releases[0].VTPM {
		other.VTPM[register] = config.Digest{register, 1}
	}
	s.rules.Releases = append([]attest.Release{other}, s.rules.Releases...)
	r, err := s.play(t, attest.Verify)
	if err != nil {
		t.Fatal(err)
	}
	if r.Release() != "software" || r.SecurityVersion() != 1 {
		t.Errorf("got release %q of version %d, want software of 1", r.Release(), r.SecurityVersion())
	}
	s.rules.Releases = s.rules.Releases[:1]
	var rejected *attest.Rejected
	if _, err := s.play(t, attest.Verify); !errors.As(err, &rejected) || rejected.Failed.Name != "pcr-0" {
		t.Errorf("a policy that names another release: got %v, want pcr-0 to refuse", err)
	}
}

// TestEachConfigFieldHasACheck walks config.Measured: a field without a check would be accepted whatever it says.
func TestEachConfigFieldHasACheck(t *testing.T) {
	all, _ := attest.CheckNames()
	var walk func(name string, typ reflect.Type)
	walk = func(name string, typ reflect.Type) {
		for f := range typ.Fields() {
			tag := f.Tag.Get("json")
			if tag == "" {
				tag = strings.ToLower(f.Name)
			}
			path := name + "." + tag
			if f.Type.Kind() == reflect.Struct && f.Type != reflect.TypeFor[config.Volume]() {
				walk(path, f.Type)
			} else if !slices.Contains(all, path) {
				t.Errorf("field %s has no check", path)
			}
		}
	}
	walk("config", reflect.TypeFor[config.Measured]())
}
