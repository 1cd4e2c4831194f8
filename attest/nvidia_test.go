package attest_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"chrysalis/attest"
	"chrysalis/attest/attesttest"
	"chrysalis/attest/evidence"
	"chrysalis/attest/nvidia"
	"chrysalis/attest/pki"
	"chrysalis/measure/config"
	"chrysalis/measure/eventlog"
)

// withBoard is a scene whose guest has a board of GPUs.
func withBoard(t testing.TB, platform evidence.Platform, b *attesttest.Board) *scene {
	s := newSceneOn(t, platform)
	s.contents.Holds(b)
	switch platform {
	case evidence.VTPM:
		s.rules = s.guest.Rules()
	case evidence.TDX:
		s.rules = s.td.Rules()
	case evidence.SEVSNP:
		s.rules = s.snp.Rules()
	}
	return s
}

// boards are one GPU, two that encrypt what goes between them, and four with their switches.
var boards = map[string]func() *attesttest.Board{
	"one": func() *attesttest.Board { return attesttest.NewBoard(now) }, "two": func() *attesttest.Board { return attesttest.NewBlackwellBoard(2, now) },
	"ppcie": func() *attesttest.Board { return attesttest.NewPPCIeBoard(4, 2, now) },
}

// gpuVector spoils a guest with such a board in one way, which one check must refuse.
type gpuVector struct {
	board, check, name string
	spoil              func(*scene)
}

// TestGPUCounts: devices that are missing or there twice are missed in more than one way, each of them said.
func TestGPUCounts(t *testing.T) {
	for _, tt := range []struct {
		board string
		want  []string
		edit  func(*evidence.GPUs)
	}{
		{"two", []string{"nvidia.count", "nvidia.distinct"}, func(g *evidence.GPUs) { g.Devices = append(g.Devices, g.Devices[0]) }},
		{"ppcie", []string{"nvidia.switch-count", "nvidia.topology"}, func(g *evidence.GPUs) { g.Devices = g.Devices[:5] }},
		{"ppcie", []string{"nvidia.count", "nvidia.topology"}, func(g *evidence.GPUs) { g.Devices = g.Devices[1:] }},
	} {
		s := withBoard(t, evidence.VTPM, boards[tt.board]())
		s.contents.EditGPUs = tt.edit
		_, err := s.play(t, attest.Verify)
		var refused *attest.Refused
		if !errors.As(err, &refused) {
			t.Fatalf("got %v, want a refusal", err)
		}
		var got []string
		for _, c := range refused.Checks() {
			if c.Verdict == attest.Denied {
				got = append(got, c.Name)
			}
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("refused by %q, want %q", got, tt.want)
		}
	}
}

// unavailable reports whether the vector leaves something that could not be checked.
func (v gpuVector) unavailable() bool {
	return strings.HasSuffix(v.check, "driver-rim") || strings.HasSuffix(v.check, "device-ocsp")
}

func gpuVectors() []gpuVector {
	shown := func(change func(*evidence.GPUs)) func(*scene) {
		return func(s *scene) { s.contents.EditGPUs = change }
	}
	nonce := func(change func(*evidence.Statement)) func(*scene) {
		return func(s *scene) {
			s.contents.GPUNonce = func(st evidence.Statement) [32]byte {
				change(&st)
				return evidence.GPUNonce(st)
			}
		}
	}
	// brom is the certificate of the first GPU's own key.
	brom := func(s *scene) *attesttest.BoardCertificate { return s.contents.Board.GPUs[0].Chain[1] }
	logged := func(change func(*eventlog.Found)) func(*scene) {
		return func(s *scene) {
			found := s.contents.Board.Found()
			change(&found)
			text, err := found.Text()
			if err != nil {
				panic(err)
			}
			record(s, eventlog.KindGPU).Data = []byte(text)
		}
	}
	return []gpuVector{
		{"one", "nvidia.gpu.0.nonce", "a report over the nonce of another request", nonce(func(st *evidence.Statement) { st.NonceRoot[0]++ })},
		{"one", "nvidia.gpu.0.nonce", "a report for a guest with other keys", nonce(func(st *evidence.Statement) { st.ClaimKey[0]++ })},
		{"one", "nvidia.gpu.0.nonce", "a report for a guest with another secret", nonce(func(st *evidence.Statement) { st.SecretHash[0]++ })},
		{"one", "nvidia.gpu.0.nonce", "a report of an earlier epoch", nonce(func(st *evidence.Statement) { st.Epoch-- })},
		{"one", "nvidia.gpu.0.nonce", "a report for a guest with another config", nonce(func(st *evidence.Statement) { st.ConfigHash[0]++ })},
		{"one", "nvidia.gpu.0.nonce", "a report for a guest with another log", nonce(func(st *evidence.Statement) { st.LogHead[0]++ })},
		{"one", "nvidia.gpu.0.nonce", "a report over the client's nonce itself", func(s *scene) {
			s.contents.GPUNonce = func(st evidence.Statement) [32]byte { return st.NonceRoot }
		}},
		{"one", "nvidia.gpu.0.device", "another GPU than the policy names", func(s *scene) { s.rules.GPU.Devices = []string{"GH100:41AA"} }},
		{"one", "nvidia.count", "none found", shown(func(g *evidence.GPUs) { *g = evidence.GPUs{} })},
		{"two", "nvidia.count", "one fewer", shown(func(g *evidence.GPUs) { g.Devices = g.Devices[:1] })},
		{"two", "nvidia.distinct", "one doubled", shown(func(g *evidence.GPUs) { g.Devices[1] = g.Devices[0] })},
		{"ppcie", "nvidia.topology", "switches of another board", func(s *scene) {
			s.contents.Board.Switches[0].Set(22, []byte{1, 2, 3, 4, 5, 6, 7, 8})
		}},
		{"one", "nvidia.gpu.0.report-format", "a report cut short", shown(func(g *evidence.GPUs) { g.Devices[0].Report = g.Devices[0].Report[:200] })},
		{"one", "nvidia.gpu.0.signature", "a report changed after it was signed", shown(func(g *evidence.GPUs) {
			g.Devices[0].Report[len(g.Devices[0].Report)-1]++
		})},
		{"two", "nvidia.gpu.0.signature", "the chain of another GPU", shown(func(g *evidence.GPUs) { g.Devices[0].Chain = g.Devices[1].Chain })},
		{"one", "nvidia.gpu.0.root", "no roots", func(s *scene) {
			roots := s.source.Roots()
			roots.NVIDIA = nvidia.Roots{}
			s.roots = &roots
		}},
		{"one", "nvidia.gpu.0.root", "NVIDIA's roots", func(s *scene) {
			roots := s.source.Roots()
			roots.NVIDIA = nvidia.NVIDIARoots()
			s.roots = &roots
		}},
		{"one", "nvidia.gpu.0.mode", "another mode than the config asks for", func(s *scene) { s.contents.Board.GPUs[0].Set(36, []byte{1, 0}) }},
		{"one", "nvidia.gpu.0.claims-format", "confidential mode off", func(s *scene) { s.contents.Board.GPUs[0].Set(36, []byte{9, 0}) }},
		{"one", "nvidia.gpu.0.measurements", "development mode, which measures other settings", func(s *scene) {
			s.contents.Board.GPUs[0].Measure(1, make([]byte, 48))
		}},
		{"one", "nvidia.gpu.0.architecture", "another architecture than the config asks for", func(s *scene) {
			s.serves(func(m *config.Measured) { m.Service.GPU = "1 blackwell spt" })
		}},
		{"one", "nvidia.count", "another number than the config asks for", func(s *scene) {
			s.serves(func(m *config.Measured) { m.Service.GPU = "2 hopper mpt" })
			s.contents.Board.GPUs[0].Set(36, []byte{1, 0})
		}},
		{"one", "nvidia.gpu.0.driver-minimum", "an old driver", func(s *scene) { s.rules.GPU.MinDriver = "570.124.07" }},
		{"one", "nvidia.gpu.0.vbios-minimum", "an old VBIOS", func(s *scene) { s.rules.GPU.MinVBIOS["GH100"] = "96.00.9F.00.02" }},
		{"one", "nvidia.gpu.0.vbios-minimum", "a chip without a minimum", func(s *scene) { s.rules.GPU.MinVBIOS = map[string]string{"GB100": "1"} }},
		{"one", "nvidia.gpu.0.vbios-rim-allowed", "reference values that the policy does not name", func(s *scene) {
			s.rules.GPU.RIMs = []string{"driver's tag"}
		}},
		{"one", "nvidia.gpu.0.driver-rim", "no reference values of the driver", shown(func(g *evidence.GPUs) { g.RIMs = g.RIMs[1:] })},
		{"one", "nvidia.collateral-format", "reference values that are none", shown(func(g *evidence.GPUs) { g.RIMs[0] = []byte("x") })},
		{"one", "nvidia.gpu.0.driver-rim-signature", "reference values changed after they were signed", func(s *scene) {
			s.contents.Board.RIMs[0].EditSigned = func(text string) string { return strings.Replace(text, "driver", "drover", 1) }
			s.rules.GPU.RIMs, s.rules.GPU.AnyRIM = nil, true
		}},
		{"one", "nvidia.gpu.0.device-ocsp", "no answer about the GPU's certificate", shown(func(g *evidence.GPUs) { g.OCSP = g.OCSP[1:] })},
		{"one", "nvidia.gpu.0.device-ocsp-validity", "an answer that has expired", func(s *scene) {
			brom(s).Answer.NextUpdate = now.Add(-time.Second)
		}},
		{"one", "nvidia.gpu.0.device-ocsp-age", "an answer older than the policy believes", func(s *scene) {
			brom(s).Answer.ThisUpdate = now.Add(-2*time.Hour - time.Second)
		}},
		{"one", "nvidia.gpu.0.device-revocation", "a GPU that is revoked", func(s *scene) { brom(s).Answer.Status = pki.OCSPRevoked }},
		{"one", "nvidia.gpu.0.device-hold", "a GPU that is on hold", func(s *scene) { brom(s).Answer.Status = pki.OCSPHold }},
		{"one", "nvidia", "a policy that says nothing of GPUs", func(s *scene) {
			s.rules.GPU, s.rules.Config.GPU = attest.GPURules{}, []config.GPURule{config.GPUNone}
		}},
		{"one", "nvidia", "GPUs where the config asks for none", func(s *scene) {
			s.serves(func(m *config.Measured) { m.Service.GPU = config.GPUNone })
		}},
		{"one", "nvidia", "collateral alone where the config asks for none", func(s *scene) {
			s.serves(func(m *config.Measured) { m.Service.GPU = config.GPUNone })
			s.contents.EditGPUs = func(g *evidence.GPUs) { g.Devices = nil }
		}},
		{"one", "statement-gpu", "another digest in the statement", func(s *scene) { s.fills(func(st *evidence.Statement) { st.GPUDigest[0]++ }) }},
		{"one", "statement-gpu", "no digest in the statement", func(s *scene) { s.fills(func(st *evidence.Statement) { st.GPUDigest = [32]byte{} }) }},
		{"one", "statement-gpu", "a chain in another encoding", func(s *scene) {
			s.edit = func(e *evidence.Evidence) {
				e.GPUs.Devices[0].Chain = append(slices.Clone(e.GPUs.Devices[0].Chain), '\n')
			}
		}},
		{"one", "event-gpu", "a log with another driver", logged(func(f *eventlog.Found) { f.Driver = "570.124.07" })},
		{"one", "event-gpu", "a log with another VBIOS", logged(func(f *eventlog.Found) { f.VBIOS = []string{"96.00.9F.00.02"} })},
		{"two", "event-gpu", "a log with another number", logged(func(f *eventlog.Found) { f.Rule = "3 blackwell mpt" })},
		{"ppcie", "event-gpu", "a log with another BIOS of a switch", logged(func(f *eventlog.Found) { f.BIOS = []string{"96.10.6D.00.02"} })},
		{"one", "event-gpu", "a log that says none", func(s *scene) { record(s, eventlog.KindGPU).Data = []byte("none") }},
		{"one", "config.service.gpu", "another rule than the policy's", func(s *scene) { s.rules.Config.GPU = []config.GPURule{"2 hopper mpt"} }},
		{"one", "runtime-log-end", "the GPU was lost", func(s *scene) { s.adds(eventlog.KindGPULost) }},
	}
}

// TestGPUVectors has each vector refused by its check, and by no other.
func TestGPUVectors(t *testing.T) {
	for _, v := range gpuVectors() {
		t.Run(v.check+"/"+v.name, func(t *testing.T) {
			s := withBoard(t, evidence.VTPM, boards[v.board]())
			v.spoil(s)
			r, err := s.play(t, attest.Verify)
			var refused *attest.Refused
			if r != nil || !errors.As(err, &refused) || errors.Is(err, attest.ErrUnavailable) != v.unavailable() {
				t.Fatalf("got a result: %t, %v, want a *Refused", r != nil, err)
			}
			if attest.OfCollateral(err) != (strings.Contains(v.check, "ocsp") || strings.Contains(v.check, "-rim") || strings.HasSuffix(v.check, "hold") ||
				strings.HasSuffix(v.check, "revocation") || strings.HasSuffix(v.check, "measurements")) {
				t.Errorf("newer collateral could change it: got %t", attest.OfCollateral(err))
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

// TestGPUs accepts every board on every platform, and says what it is.
func TestGPUs(t *testing.T) {
	for _, platform := range platforms {
		for name, board := range boards {
			b := board()
			s := withBoard(t, platform, b)
			r, err := s.play(t, attest.Verify)
			if err != nil {
				t.Fatalf("%s, %s: %v", platform, name, err)
			}
			got := r.GPUs()
			if len(got) != len(b.GPUs)+len(b.Switches) || got[0].Kind != nvidia.GPU || got[0].Measurements == 0 || len(got[0].RIMs) != 2 ||
				got[0].ID != s.rules.GPU.Devices[0] || string(got[0].Mode) == "" || got[0].Driver != b.Found().Driver {
				t.Errorf("%s, %s: got %+v", platform, name, got)
			}
			report := attest.ReportOf(r, nil)
			if len(report.GPUs) != len(got) || report.Service.GPU != b.Found().Rule {
				t.Errorf("%s, %s: the report has %d devices, want %d", platform, name, len(report.GPUs), len(got))
			}
			if w := strings.Join(r.Weaknesses(), "; "); !strings.Contains(w, "not NVIDIA's but software's") || strings.Contains(w, "any GPU") {
				t.Errorf("%s, %s: weaknesses: got %q", platform, name, w)
			}
		}
	}
	r, err := newScene(t).play(t, attest.Verify)
	if err != nil || r.GPUs() != nil {
		t.Errorf("a guest without: got %+v and error %v, want none", r.GPUs(), err)
	}
}

// TestGPUsOfCertificate: a certificate has the devices and nothing that every client can have elsewhere, without which it can't be judged.
func TestGPUsOfCertificate(t *testing.T) {
	s := withBoard(t, evidence.VTPM, attesttest.NewBoard(now))
	policy, err := s.rules.Policy()
	if err != nil {
		t.Fatal(err)
	}
	e := s.source.Attest([32]byte{}, s.challenge.TLSKey)
	if _, err := attest.VerifyEpoch(e, s.challenge.TLSKey, policy, now, s.source.Roots()); err != nil {
		t.Errorf("with what is stapled: %v", err)
	}
	e.GPUs = evidence.GPUs{Devices: e.GPUs.Devices}
	if _, err := attest.VerifyEpoch(e, s.challenge.TLSKey, policy, now, s.source.Roots()); !errors.Is(err, attest.ErrUnavailable) {
		t.Errorf("without: got %v, want %v", err, attest.ErrUnavailable)
	}
	other := s.source.Attest([32]byte{1}, s.challenge.TLSKey)
	e.GPUs, e.Statement.GPUDigest = other.GPUs, other.Statement.GPUDigest
	if _, err := attest.VerifyEpoch(e, s.challenge.TLSKey, policy, now, s.source.Roots()); !errors.Is(err, attest.ErrRejected) {
		t.Errorf("with the reports of an answer: got %v, want %v", err, attest.ErrRejected)
	}
}

// TestGPUChoices: what a policy accepts by name is accepted, and the Result says what that means.
func TestGPUChoices(t *testing.T) {
	for _, tt := range []struct {
		name   string
		choose func(*attest.GPURules)
		says   string
	}{
		{"any device", func(r *attest.GPURules) { r.Devices, r.AnyDevice = nil, true }, "any GPU is accepted"},
		{"any version", func(r *attest.GPURules) { r.MinDriver, r.MinVBIOS, r.AnyVersion = "", nil, true }, "also those with published weaknesses"},
		{"any reference values", func(r *attest.GPURules) { r.RIMs, r.AnyRIM = nil, true }, ""},
	} {
		s := withBoard(t, evidence.VTPM, attesttest.NewBlackwellBoard(2, now))
		tt.choose(&s.rules.GPU)
		r, err := s.play(t, attest.Verify)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if w := r.Weaknesses(); !strings.Contains(strings.Join(w, "; "), tt.says) || strings.Contains(fmt.Sprint(w), "nvidia.") {
			t.Errorf("%s: weaknesses: got %q, want %q among them, and none for each device", tt.name, w, tt.says)
		}
	}
}

// TestGPUPolicy refuses rules that would leave something of a GPU unjudged, and says which.
func TestGPUPolicy(t *testing.T) {
	for _, tt := range []struct {
		want  string
		spoil func(*attest.Rules)
	}{
		{`min_driver is ""`, func(r *attest.Rules) { r.GPU.MinDriver = "" }},
		{"min_vbios has 0 chips", func(r *attest.Rules) { r.GPU.MinVBIOS = nil }},
		{"any_version is true", func(r *attest.Rules) { r.GPU.AnyVersion = true }},
		{"any_version is true", func(r *attest.Rules) { r.GPU.AnyVersion, r.GPU.MinVBIOS = true, nil }},
		{"rims has 0 names", func(r *attest.Rules) { r.GPU.RIMs = nil }},
		{"any_rim is true", func(r *attest.Rules) { r.GPU.AnyRIM = true }},
		{"devices has 0 names", func(r *attest.Rules) { r.GPU.Devices = nil }},
		{"any_device is true", func(r *attest.Rules) { r.GPU.AnyDevice = true }},
		{"devices names", func(r *attest.Rules) { r.GPU.Devices = []string{"GH100"} }},
		{"devices names", func(r *attest.Rules) { r.GPU.Devices = []string{"GH100:41ab"} }},
		{"max_ocsp_age", func(r *attest.Rules) { r.GPU.MaxOCSPAge = "" }},
		{"max_ocsp_age", func(r *attest.Rules) { r.GPU.MaxOCSPAge = "0s" }},
		{"any_version is false", func(r *attest.Rules) { r.GPU = attest.GPURules{} }},
		{"max_ocsp_age", func(r *attest.Rules) { r.Config.GPU, r.GPU.MaxOCSPAge = []config.GPURule{config.GPUNone}, "" }},
	} {
		rules := withBoard(t, evidence.VTPM, attesttest.NewBoard(now)).rules
		tt.spoil(&rules)
		if _, err := rules.Policy(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("got %v, want an error with %q", err, tt.want)
		}
	}
	rules := newScene(t).rules
	rules.GPU = withBoard(t, evidence.VTPM, attesttest.NewBoard(now)).rules.GPU
	if _, err := rules.Policy(); err != nil {
		t.Errorf("rules that judge nothing: %v", err)
	}
}

// TestWordsOfGPUs: config and verifier have one word for each architecture, mode and bound.
func TestWordsOfGPUs(t *testing.T) {
	for rule, want := range map[config.GPURule]struct {
		a nvidia.Architecture
		m nvidia.Mode
	}{"1 hopper spt": {nvidia.Hopper, nvidia.ModeSPT}, "8 blackwell mpt": {nvidia.Blackwell, nvidia.ModeMPT}, "8 hopper ppcie 4 switches": {nvidia.Hopper, nvidia.ModePPCIe}} {
		g, err := rule.GPUs()
		if err != nil || g.Architecture != string(want.a) || g.Mode != string(want.m) || g.Count > evidence.MaxGPUs || g.Switches > evidence.MaxSwitches ||
			g.Count > nvidia.MaxDevices {
			t.Errorf("%s: got %+v and error %v, want %s in the mode %s", rule, g, err, want.a, want.m)
		}
	}
}
