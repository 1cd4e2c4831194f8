package config

import (
	"strings"
	"testing"
)

// TestGPURule: each rule has one way to be written, and what no machine is has none.
func TestGPURule(t *testing.T) {
	for rule, want := range map[GPURule]GPUs{
		"none":                      {},
		"1 hopper spt":              {1, "hopper", "spt", 0},
		"1 blackwell spt":           {1, "blackwell", "spt", 0},
		"2 hopper mpt":              {2, "hopper", "mpt", 0},
		"8 blackwell mpt":           {8, "blackwell", "mpt", 0},
		"8 hopper ppcie 4 switches": {8, "hopper", "ppcie", 4},
		"4 hopper ppcie 1 switches": {4, "hopper", "ppcie", 1},
	} {
		got, err := rule.GPUs()
		if err != nil || got != want || got.Rule() != rule {
			t.Errorf("%s: got %+v, written %q, and error %v, want %+v", rule, got, got.Rule(), err, want)
		}
		m := example()
		m.Service.GPU = rule
		if again, err := Decode(mustEncode(t, m)); err != nil || again.Service.GPU != rule {
			t.Errorf("%s in a config: got %q and error %v", rule, again.Service.GPU, err)
		}
	}
	for _, rule := range []GPURule{"", "any", "one", "0 hopper spt", "2 hopper spt", "1 hopper mpt", "9 blackwell mpt", "1 ampere spt", "1 hopper off",
		"1 hopper  spt", " 1 hopper spt", "1 hopper spt ", "+1 hopper spt", "01 hopper spt", "8 hopper ppcie", "8 hopper ppcie 0 switches",
		"8 hopper ppcie 5 switches", "8 blackwell ppcie 4 switches", "8 hopper mpt 4 switches", "1 hopper ppcie 4 switches", "8 hopper ppcie 4",
		"8 hopper ppcie 4 switches more", "-1 hopper spt", "None", "1 hopper spt 0 switches"} {
		m := example()
		m.Service.GPU = rule
		if _, err := m.Encode(); err == nil || !strings.Contains(err.Error(), "gpu is") {
			t.Errorf("%q: got error %v, want one of gpu", rule, err)
		}
	}
}
