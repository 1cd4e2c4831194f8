package config

import (
	"testing"
	"time"
)

// TestWipe: each way has one encoding, and needs what it rests on.
func TestWipe(t *testing.T) {
	alone := func(m *Measured) { m.Service.Limits.Concurrent = 1 }
	same := func(*Measured) {}
	for _, tt := range []struct {
		wipe    Wipe
		refused string
		change  func(*Measured)
	}{
		{WipeFreed, "", same},
		{WipeClient, "", same},
		{WipeClient, `want payment "charge"`, func(m *Measured) { m.Service.Price.Payment, m.Service.Price.NanotonPerToken = PayNothing, 0 }},
		{WipeRequest, "", alone},
		{WipeRequest, "limits.concurrent 4", same},
		{WipeRequest, "engine.env lacks", func(m *Measured) { alone(m); m.Service.Engine.Env = nil }},
		{"idle 1s", "", same},
		{"idle 30s", "", same},
		{"idle 3600s", "", same},
		{"idle 30s", "engine.env lacks", func(m *Measured) { m.Service.Engine.Env = nil }},
		{"idle 0s", "wipe is", same},
		{"idle 3601s", "wipe is", same},
		{"idle 65537s", "wipe is", same},
		{"idle 030s", "wipe is", same},
		{"idle +30s", "wipe is", same},
		{"idle 30", "wipe is", same},
		{"idle 1m", "wipe is", same},
		{"idle  30s", "wipe is", same},
		{"Idle 30s", "wipe is", same},
		{"idle", "wipe is", same},
		{"", "wipe is", same},
		{"never", "wipe is", same},
	} {
		m := example()
		m.Service.Wipe = tt.wipe
		tt.change(&m)
		goesRound(t, string(tt.wipe), m, tt.refused)
	}
}

// TestWipeMeets: which way gives no less than another is a table.
func TestWipeMeets(t *testing.T) {
	ways := []Wipe{WipeFreed, WipeIdle(90 * time.Second), WipeIdle(30 * time.Second), WipeClient, WipeRequest, "other"}
	want := map[Wipe]string{ // 1 where the one of the row meets the one of the column
		WipeFreed: "100000", "idle 90s": "110000", "idle 30s": "111000", WipeClient: "100100", WipeRequest: "111110", "other": "000001",
	}
	for _, w := range ways {
		got := ""
		for _, least := range ways {
			if w.Meets(least) {
				got += "1"
			} else {
				got += "0"
			}
		}
		if got != want[w] {
			t.Errorf("%q meets %q: got %s, want %s", w, ways, got, want[w])
		}
	}
}
