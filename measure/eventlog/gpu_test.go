package eventlog

import (
	"slices"
	"strings"
	"testing"

	"chrysalis/measure/config"
)

// TestFound: what a GPU event says has one text, which fits in an event.
func TestFound(t *testing.T) {
	one := Found{Rule: "1 hopper spt", Driver: "570.124.06", VBIOS: []string{"96.00.9F.00.01"}}
	board := Found{Rule: "8 hopper ppcie 4 switches", Driver: "570.124.06", VBIOS: []string{"96.00.9F.00.01"}, BIOS: []string{"96.10.6D.00.01"}}
	full := board
	full.VBIOS, full.BIOS = nil, nil
	for i := range 8 {
		full.VBIOS = append(full.VBIOS, "96.00.9F.00.0"+string(rune('1'+i)))
	}
	for i := range 4 {
		full.BIOS = append(full.BIOS, "96.10.6D.00.0"+string(rune('1'+i)))
	}
	for want, f := range map[string]Found{
		"verified 1 hopper spt driver 570.124.06 vbios 96.00.9F.00.01":                                  one,
		"verified 8 hopper ppcie 4 switches driver 570.124.06 vbios 96.00.9F.00.01 bios 96.10.6D.00.01": board,
	} {
		if got, err := f.Text(); err != nil || got != want {
			t.Errorf("got %q and error %v, want %q", got, err, want)
		}
	}
	text, err := full.Text()
	if err != nil {
		t.Fatalf("a version for each device of a whole board: %v", err)
	}
	log, err := ParseRuntime(Record{Register: RTMR3, Kind: KindGPU, Data: []byte(text)}.Append(nil))
	if err != nil {
		t.Fatal(err)
	}
	if got := (Sequence{}).Found(full.Rule, log).GPU; got != text {
		t.Errorf("out of the log: got %q, want %q", got, text)
	}
	for _, rule := range []config.GPURule{"1 hopper spt", "none", "8 hopper ppcie 3 switches", ""} {
		if got := (Sequence{}).Found(rule, log).GPU; got != "" {
			t.Errorf("under the rule %q: got %q, want nothing", rule, got)
		}
	}
	for name, spoil := range map[string]func(*Found){
		"no driver":                   func(f *Found) { f.Driver = "" },
		"a driver with a space":       func(f *Found) { f.Driver = "570 vbios 1" },
		"a list in a version":         func(f *Found) { f.Driver = "570,580" },
		"a long version":              func(f *Found) { f.VBIOS = []string{strings.Repeat("9", 21)} },
		"no VBIOS":                    func(f *Found) { f.VBIOS = nil },
		"no BIOS of a switch":         func(f *Found) { f.BIOS = nil },
		"more versions than GPUs":     func(f *Found) { f.VBIOS = slices.Repeat(f.VBIOS, 9) },
		"more versions than switches": func(f *Found) { f.BIOS = slices.Repeat(f.BIOS, 5) },
		"no GPUs asked for":           func(f *Found) { f.Rule = config.GPUNone },
		"another rule":                func(f *Found) { f.Rule = "9 hopper ppcie 4 switches" },
		"a switch without a rule":     func(f *Found) { f.Rule = "2 hopper mpt" },
		"longer than an event": func(f *Found) {
			f.VBIOS, f.BIOS = slices.Repeat([]string{strings.Repeat("9", 20)}, 8), slices.Repeat([]string{strings.Repeat("9", 20)}, 4)
		},
	} {
		f := board
		spoil(&f)
		if got, err := f.Text(); err == nil {
			t.Errorf("%s: got %q, want a refusal", name, got)
		}
	}
}

// TestSequenceOfGPUs: what verified GPUs are follows from no config, and no register is computed as if it did.
func TestSequenceOfGPUs(t *testing.T) {
	for rule, want := range map[config.GPURule]string{"none": "none", "1 hopper spt": ""} {
		if got := (Sequence{GPU: "stale"}).With(config.Service{GPU: rule}).GPU; got != want {
			t.Errorf("rule %q: got %q, want %q", rule, got, want)
		}
	}
}
