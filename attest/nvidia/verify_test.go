package nvidia_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"chrysalis/attest/attesttest"
	"chrysalis/attest/check"
	"chrysalis/attest/nvidia"
)

func TestAccepts(t *testing.T) {
	for name, r := range map[string]*run{
		"one of Hopper": hopper(), "one of Hopper, in CBOR": corim(), "two of Blackwell": blackwell(), "two and two": ppcie(),
		"eight of Blackwell": newRun(attesttest.NewBlackwellBoard(8, now)), "eight and four": newRun(attesttest.NewPPCIeBoard(8, 4, now)),
	} {
		result, err := r.verify()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if w := result.Waived(); w != nil || result.Outcome() != nvidia.Verified || len(result.Devices()) != len(r.GPUs)+len(r.Switches) {
			t.Errorf("%s: waived %q, outcome %q, %d devices", name, w, result.Outcome(), len(result.Devices()))
		}
		for i, d := range result.Devices() {
			wantRIMs, compared := 2, 14
			if d.Kind == nvidia.Switch {
				wantRIMs, compared = 1, 9
			}
			if len(d.RIMs) != wantRIMs || d.Compared != compared || !slices.Contains(r.options.Devices, d.ID) {
				t.Errorf("%s: device %d: got %+v", name, i, d)
			}
		}
	}
}

// TestOutcomes keeps three results apart.
func TestOutcomes(t *testing.T) {
	result, err := nvidia.Verify(nvidia.Evidence{}, nvidia.Options{NoGPU: true}, now, nvidia.Roots{})
	if err != nil || result.Outcome() != nvidia.NoneAsked || len(result.Devices()) != 0 {
		t.Errorf("none asked for: got %v, %v", result, err)
	}
	var refused *nvidia.Refused
	if _, err := nvidia.Verify(nvidia.Evidence{}, nvidia.Options{GPUs: 1}, now, nvidia.Roots{}); !errors.As(err, &refused) ||
		refused.Outcome() != nvidia.NoneFound {
		t.Errorf("none found: got %v", err)
	}
	r := vector{change: func(r *run) { r.GPUs[0].Measure(8, make([]byte, 48)) }}.make()
	if _, err := r.verify(); !errors.As(err, &refused) || refused.Outcome() != "" {
		t.Errorf("one that is wrong: got %v", err)
	}
	for _, o := range []nvidia.Options{{}, {Switches: 1}} {
		if _, err := nvidia.Verify(nvidia.Evidence{}, o, now, nvidia.Roots{}); !errors.Is(err, check.ErrRejected) {
			t.Errorf("zero options: got %v, want a rejection", err)
		}
	}
}

// TestNamesWhatFallsShort: which index, what it got and wanted, of which document, and what cures it.
func TestNamesWhatFallsShort(t *testing.T) {
	r := vector{of: ppcie, change: func(r *run) {
		r.GPUs[1].Measure(8, make([]byte, 48))
		r.options.MinDriver = "580.1"
	}}.make()
	_, err := r.verify()
	var refused *nvidia.Refused
	if !errors.As(err, &refused) {
		t.Fatal(err)
	}
	var said []string
	for _, c := range refused.Checks() {
		if c.Verdict == check.Denied {
			said = append(said, c.Name+": "+c.Got+", "+c.Want)
		}
	}
	all := strings.Join(said, "\n")
	for _, want := range []string{"gpu.1.measurements: 1 of 14 differ; measurement 8 is 0000", "NV_GPU_DRIVER_GH100_570.124.06 wants ",
		"gpu.0.driver-minimum: 570.124.06, at least 580.1; update the driver"} {
		if !strings.Contains(all, want) {
			t.Errorf("nothing says %q:\n%s", want, all)
		}
	}
	m := refused.Mismatches()
	if len(m) != 1 || m[0].Device != "gpu.1" || m[0].Index != 8 || m[0].RIM != "NV_GPU_DRIVER_GH100_570.124.06" || len(m[0].Want) != 1 {
		t.Errorf("got %+v", m)
	}
	if d := refused.Devices(); len(d) != 2 {
		t.Errorf("got %d devices that signed, want 2: the switches are judged after the GPUs are accepted", len(d))
	}
}

// TestOptions gives each option that accepts more, and shows that its check is waived and nothing else.
func TestOptions(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*run)
		waived []string
	}{
		{"any device", func(r *run) { r.options.Devices, r.options.AnyDevice = nil, true }, []string{"device"}},
		{"any nonce", func(r *run) { r.options.Nonce, r.options.AnyNonce = [32]byte{}, true }, []string{"nonce"}},
		{"any architecture", func(r *run) { r.options.Architectures, r.options.AnyArchitecture = nil, true }, []string{"architecture"}},
		{"any mode", func(r *run) { r.options.Modes, r.options.AnyMode = nil, true }, []string{"mode"}},
		{"any version", func(r *run) { r.options.MinDriver, r.options.MinVBIOS, r.options.InsecureSkipMinimum = "", nil, true },
			[]string{"driver-minimum", "vbios-minimum"}},
		{"any document", func(r *run) { r.options.RIMs, r.options.AnyRIM = nil, true }, []string{"driver-rim-allowed", "vbios-rim-allowed"}},
		{"document by its name", func(r *run) {
			r.options.RIMs = []string{"NV_GPU_DRIVER_GH100_570.124.06", "NV_GPU_VBIOS_1010_0200_882_96009F0001"}
		}, nil},
		{"no document", func(r *run) { r.Board.RIMs, r.options.InsecureSkipRIM = nil, true }, []string{"driver-rim", "vbios-rim"}},
		{"no FWID", func(r *run) { r.GPUs[0].Set(20, nil); r.options.AllowMissingFWID = true }, []string{"fwid-present"}},
		{"no answers", func(r *run) {
			r.options.InsecureSkipRevocation = true
			r.EditEvidence = func(e *nvidia.Evidence) { e.OCSP = nil }
		}, []string{"device-ocsp", "driver-rim-ocsp", "vbios-rim-ocsp"}},
		{"hold", func(r *run) { r.GPUs[0].Chain[1].Answer.Status = "on hold"; r.options.AllowHold = true }, []string{"device-hold"}},
		{"answer by the issuer itself", func(r *run) { r.GPUs[0].Chain[1].Answer.Responder = nil }, nil},
		{"answer by SHA-1", func(r *run) { r.GPUs[0].Chain[1].Answer.Hash = 3 }, nil},
		{"answer by SHA-256", func(r *run) { r.GPUs[0].Chain[1].Answer.Hash = 5 }, nil},
		{"answer without an end, and an age", func(r *run) { r.GPUs[0].Chain[1].Answer.NextUpdate = time.Time{} }, nil},
		{"answers with a nonce", nonces, nil},
		{"chain of RIM without its root", func(r *run) {
			*r = *corim()
			r.RIMs[0].OmitRoot = true
			r.EditEvidence = func(e *nvidia.Evidence) { e.Authorities = [][]byte{r.RIMRoot.DER()} }
		}, nil},
		{"values and masks in CBOR", func(r *run) {
			*r = *corim()
			r.RIMs[0].Entries[0].Raw = true
			e := &r.RIMs[0].Entries[2]
			e.Values, e.Mask = [][]byte{append([]byte{^e.Values[0][0]}, e.Values[1][1:]...)}, append([]byte{0}, slices.Repeat([]byte{0xff}, 47)...)
		}, nil},
		{"older driver without flag and status of PCIe", func(r *run) {
			for _, id := range []uint16{21, 34, 36} {
				r.GPUs[0].Set(id, nil)
			}
		}, nil},
		{"no decoder, whose measurement is then of no matter", func(r *run) {
			r.GPUs[0].Set(11, []byte{0x55})
			r.RIMs[0].Entries = append(r.RIMs[0].Entries, attesttest.BoardEntry{Index: 36, Active: true, Values: [][]byte{make([]byte, 48)}})
		}, nil},
	} {
		r := vector{change: tt.change}.make()
		result, err := r.verify()
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		want := slices.Clone(tt.waived)
		for i := range want {
			want[i] = "gpu.0." + want[i]
		}
		if got := result.Waived(); !slices.Equal(got, want) {
			t.Errorf("%s: waived %q, want %q", tt.name, got, want)
		}
	}
}

func TestRefuses(t *testing.T) {
	seen := map[string]bool{}
	for _, v := range vectors {
		if seen[v.name] {
			t.Errorf("two vectors are named %q", v.name)
		}
		seen[v.name] = true
		_, err := v.make().verify()
		var refused *nvidia.Refused
		if !errors.As(err, &refused) {
			t.Errorf("%s: got %v, want a refusal by %s", v.name, err, v.refuse)
			continue
		}
		if refused.Failed.Name != v.refuse {
			t.Errorf("%s: refused by %s (%v), want %s", v.name, refused.Failed.Name, err, v.refuse)
		}
		unavailable := strings.HasSuffix(v.refuse, "-rim") || strings.HasSuffix(v.refuse, "-ocsp")
		if errors.Is(err, check.ErrUnavailable) != unavailable || errors.Is(err, check.ErrRejected) == unavailable {
			t.Errorf("%s: unavailable is %t, want %t", v.name, !unavailable, unavailable)
		}
	}
}

// TestEveryCheckIsNeeded drops one check after the other. Each must be missed: some vector is then wrongly accepted, and
// every vector has only the one thing wrong that it says.
func TestEveryCheckIsNeeded(t *testing.T) {
	machine, device, parsers := nvidia.CheckNames()
	base := func(name string) string { return name[strings.LastIndexByte(name, '.')+1:] }
	missed := map[string]bool{}
	for _, v := range vectors {
		name := base(v.refuse)
		if !parsers[name] {
			r := v.make()
			if _, err := nvidia.VerifyDropping(r.Evidence(), r.options, r.at, r.trust(), v.refuse); err != nil {
				t.Errorf("%s, without %s: got %v, want it accepted", v.name, v.refuse, err)
				continue
			}
		}
		missed[name] = true
	}
	for _, name := range append(machine, device...) {
		if !missed[name] && name != "gpu" && name != "switch" {
			t.Errorf("no vector misses the check %s", name)
		}
	}
}

// TestUnavailableYields shows that a rejection outweighs what could not be checked, of another device too.
func TestUnavailableYields(t *testing.T) {
	r := vector{of: blackwell, change: func(r *run) { r.GPUs[0].Chain[1].Answer = nil; r.GPUs[1].Report.Nonce[0]++ }}.make()
	_, err := r.verify()
	var refused *nvidia.Refused
	if !errors.As(err, &refused) || refused.Failed.Name != "gpu.1.nonce" || !errors.Is(err, check.ErrRejected) {
		t.Errorf("got %v, want a rejection by gpu.1.nonce", err)
	}
}

// TestClock stands one second on each side of every edge.
func TestClock(t *testing.T) {
	edge := now.Add(30 * time.Minute)
	for _, tt := range []struct {
		name   string
		of     func() *run
		change func(*run)
		after  bool // valid from the edge on, otherwise up to it
	}{
		{"gpu.0.chain-validity", nil, func(r *run) { r.GPUs[0].Chain[0].Template.NotBefore = edge }, true},
		{"gpu.0.chain-validity", nil, func(r *run) { r.GPUs[0].Chain[1].Template.NotAfter = edge }, false},
		{"gpu.0.chain-validity", nil, func(r *run) { r.Root.Template.NotAfter = edge }, false},
		{"gpu.0.driver-rim-validity", nil, func(r *run) { r.RIMs[0].Signers[0].Template.NotBefore = edge }, true},
		{"gpu.0.driver-rim-validity", nil, func(r *run) { r.RIMs[0].Signers[0].Template.NotAfter = edge }, false},
		{"gpu.0.driver-rim-validity", nil, func(r *run) { r.RIMRoot.Template.NotAfter = edge }, false},
		{"gpu.0.driver-rim-validity", corim, func(r *run) { r.RIMs[0].NotBefore = edge }, true},
		{"gpu.0.driver-rim-validity", corim, func(r *run) { r.RIMs[0].NotAfter = edge }, false},
		{"gpu.0.device-ocsp-validity", nil, func(r *run) { r.GPUs[0].Chain[1].Answer.ThisUpdate = edge }, true},
		{"gpu.0.device-ocsp-validity", nil, func(r *run) { r.GPUs[0].Chain[1].Answer.NextUpdate = edge }, false},
		{"gpu.0.device-ocsp-validity", nil, func(r *run) { r.GPUs[0].Chain[1].Answer.Responder.Template.NotBefore = edge }, true},
		{"gpu.0.device-ocsp-validity", nil, func(r *run) { r.GPUs[0].Chain[1].Answer.Responder.Template.NotAfter = edge }, false},
		{"gpu.0.device-ocsp-age", nil, func(r *run) {
			r.GPUs[0].Chain[1].Answer.ThisUpdate = edge.Add(-r.options.MaxOCSPAge)
		}, false},
	} {
		r := vector{of: tt.of, change: tt.change}.make()
		e := r.Evidence()
		for _, at := range []time.Time{edge.Add(-time.Second), edge, edge.Add(time.Second)} {
			want := at.Equal(edge) || at.After(edge) == tt.after
			_, err := nvidia.Verify(e, r.options, at, r.trust())
			var refused *nvidia.Refused
			if (err == nil) != want || errors.As(err, &refused) && refused.Failed.Name != tt.name {
				t.Errorf("%s, valid after the edge %t, at %s: got %v, want accepted %t", tt.name, tt.after, at.Sub(edge), err, want)
			}
		}
	}
}

// TestFactsChangeNoVerdict judges every vector without facts, and twice with those of all vectors before it: each check
// must say the same.
func TestFactsChangeNoVerdict(t *testing.T) {
	facts := new(check.Facts)
	for _, v := range append([]vector{{name: "nothing is wrong", change: func(*run) {}}}, vectors...) {
		r := v.make()
		e := r.Evidence()
		judge := func(f *check.Facts) string {
			r.options.Facts = f
			result, err := nvidia.Verify(e, r.options, r.at, r.trust())
			var refused *nvidia.Refused
			if errors.As(err, &refused) {
				return said(err.Error(), refused.Checks())
			}
			return said(result.Outcome(), result.Checks())
		}
		want := judge(nil)
		for i := range 2 {
			if got := judge(facts); got != want {
				t.Errorf("%s, time %d with facts:\ngot  %s\nwant %s", v.name, i, got, want)
			}
		}
	}
}

func said(first any, lines []check.Line) string {
	var b strings.Builder
	for _, l := range lines {
		b.WriteString("\n" + l.Name + "|" + l.Got + "|" + l.Want + "|" + string(l.Verdict))
	}
	return strings.TrimSpace(strings.Join([]string{toString(first), b.String()}, ""))
}

func toString(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	return string(v.(nvidia.Outcome))
}

// TestEveryBit flips each bit of a report that is not signed anew: nothing but its format, its claims or its signature refuses it.
func TestEveryBit(t *testing.T) {
	r := hopper()
	e := r.Evidence()
	report := e.GPUs[0].Report
	for i := range report {
		for bit := range 8 {
			report[i] ^= 1 << bit
			if bit == i%8 && i%5 == 0 {
				// One bit of some bytes goes through the whole appraisal, which takes long; the others need to be read.
				_, err := nvidia.Verify(e, r.options, now, r.trust())
				var refused *nvidia.Refused
				if !errors.As(err, &refused) || !slices.Contains([]string{"gpu.0.report-format", "gpu.0.claims-format", "gpu.0.signature"},
					refused.Failed.Name) {
					t.Fatalf("bit %d of byte %#x: got %v, want a refusal by format or signature", bit, i, err)
				}
			} else if again, err := nvidia.Parse(report); err == nil && string(again.Marshal()) != string(report) {
				t.Fatalf("bit %d of byte %#x is neither refused nor kept", bit, i)
			}
			report[i] ^= 1 << bit
		}
		if i == 0 {
			r.options.Facts = new(check.Facts) // of the certificates, which no bit of the report changes
		}
	}
}
