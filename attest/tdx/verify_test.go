package tdx_test

import (
	"testing"
	"time"

	"chrysalis/attest/attesttest"
	"chrysalis/attest/tdx"
)

var now = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

func TestVerifyAccepts(t *testing.T) {
	for _, tt := range []struct {
		name    string
		version uint16
		tdx15   bool
	}{{"version 4", 4, false}, {"version 5, TDX 1.0", 5, false}, {"version 5, TDX 1.5", 5, true}} {
		t.Run(tt.name, func(t *testing.T) {
			m := attesttest.NewTDX(now, tt.version, tt.tdx15)
			e := m.Build()
			r, err := tdx.Verify(e.Quote, e.Collateral, tdx.Options{}, now, e.Root)
			if err != nil {
				t.Fatal(err)
			}
			if r.Body() != m.Body {
				t.Errorf("body: got %+v, want %+v", r.Body(), m.Body)
			}
			if r.Platform() != m.Platform {
				t.Errorf("platform: got %+v, want %+v", r.Platform(), m.Platform)
			}
			if want := (tdx.TCB{Status: tdx.UpToDate, Platform: tdx.UpToDate, Module: tdx.UpToDate, QE: tdx.UpToDate}); r.TCB() != want {
				t.Errorf("TCB: got %+v, want %+v", r.TCB(), want)
			}
		})
	}
}
