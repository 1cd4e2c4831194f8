package tdx_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	tdxdata "github.com/google/go-tdx-guest/testing/testdata"

	"chrysalis/attest/attesttest"
	"chrysalis/attest/tdx"
)

// TestShortfalls: a refusal for the TCB names each version that is too low, with the lowest that is good, and what to update.
func TestShortfalls(t *testing.T) {
	for _, tt := range []struct {
		name  string
		tdx15 bool
		spoil func(m *attesttest.TDX, o *tdx.Options)
		want  []string // each a beginning or a part of one line
	}{
		{"microcode", false, func(m *attesttest.TDX, _ *tdx.Options) {
			m.TCBInfo.Levels[0].TCB.SGX[1] = attesttest.Component{SVN: 5, Category: "BIOS", Type: "Early Microcode Update"}
			m.TCBInfo.Levels[1].Advisories = []string{"INTEL-SA-00837", "INTEL-SA-00960"}
			m.TCBInfo.Levels[1].Date = "2024-03-13T00:00:00Z"
			m.Platform.SGXSVN[1] = 4
		}, []string{"platform: SGX component 2 (BIOS Early Microcode Update) is 4, want at least 5 (of 2026-08-12), open to INTEL-SA-00837, INTEL-SA-00960; update BIOS and microcode"}},
		{"several components and the PCE", false, func(m *attesttest.TDX, _ *tdx.Options) {
			m.Platform.SGXSVN[0], m.Platform.PCESVN = 4, 6
		}, []string{"platform: PCESVN is 6, want at least 13", "platform: SGX component 1 is 4, want at least 5"}},
		{"below every level", false, func(m *attesttest.TDX, _ *tdx.Options) { m.Platform.SGXSVN[7] = 0 },
			[]string{"platform: SGX component 8 is 0, want at least 3"}},
		{"module", false, func(m *attesttest.TDX, _ *tdx.Options) { m.Body.TEETCBSVN[0] = 5 },
			[]string{"TDX module: ISVSVN of version 1 is 5, want at least 6 (of 2026-08-12); update the TDX module"}},
		{"module at launch, and a newer one runs", true, func(m *attesttest.TDX, _ *tdx.Options) { m.Body.TEETCBSVN[0] = 4 },
			[]string{"TDX module at launch: ISVSVN of version 1 is 4, want at least 6 (of 2026-08-12); update the TD: the module that runs is in order"}},
		{"module at launch, and no newer one runs", true, func(m *attesttest.TDX, _ *tdx.Options) {
			m.Body.TEETCBSVN[0], m.Body.TEETCBSVN2[0] = 4, 5
		}, []string{"TDX module at launch: ISVSVN of version 1 is 4, want at least 6 (of 2026-08-12); update the TDX module",
			"TDX module that runs: ISVSVN of version 1 is 5, want at least 6"}},
		{"module that runs", true, func(m *attesttest.TDX, _ *tdx.Options) { m.Body.TEETCBSVN2[0] = 4 },
			[]string{"TDX module that runs: ISVSVN of version 1 is 4, want at least 6"}},
		{"quoting enclave", false, func(m *attesttest.TDX, _ *tdx.Options) { m.QE.ISVSVN = 5 },
			[]string{"quoting enclave: ISVSVN is 5, want at least 6 (of 2026-08-12); update the quoting enclave"}},
		{"a level that is accepted by name is good enough", false, func(m *attesttest.TDX, o *tdx.Options) {
			o.AcceptStatus = []tdx.Status{tdx.UpToDate, tdx.OutOfDate}
			m.Platform.PCESVN = 4
		}, []string{"platform: PCESVN is 4, want at least 5"}},
		{"nothing is too low, but a configuration is not in order", false, func(m *attesttest.TDX, _ *tdx.Options) {
			m.TCBInfo.Levels[0].Status = tdx.ConfigurationNeeded
		}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := attesttest.NewTDX(now, 5, tt.tdx15)
			var o tdx.Options
			tt.spoil(m, &o)
			e := m.Build()
			_, err := tdx.Verify(e.Quote, e.Collateral, o, now, e.Root)
			var refused *tdx.Refused
			if !errors.As(err, &refused) || refused.Failed.Name != "tcb-status" {
				t.Fatalf("got %v, want a refusal by tcb-status", err)
			}
			var got []string
			for _, s := range refused.Failed.Shortfalls {
				got = append(got, s.String())
			}
			if !slices.EqualFunc(got, tt.want, func(g, w string) bool { return strings.HasPrefix(g, w) }) {
				t.Errorf("got %q, want lines that begin with %q", got, tt.want)
			}
		})
	}
	m := attesttest.NewTDX(now, 5, true)
	m.TCBInfo.Levels[0].Status, m.TCBInfo.Levels[0].Advisories = tdx.SWHardeningNeeded, []string{"INTEL-SA-00615"}
	hard := m.Build()
	if _, err := tdx.Verify(hard.Quote, hard.Collateral, tdx.Options{}, now, hard.Root); err == nil ||
		!strings.Contains(err.Error(), "the platform's level of 2026-08-12 is open to INTEL-SA-00615") {
		t.Errorf("nothing to update: got %v, want what the level is open to", err)
	}
	m = attesttest.NewTDX(now, 5, true)
	// A date that is asked for is a level's too.
	m.TCBInfo.Levels[0].TCB.SGX[1].SVN, m.TCBInfo.Levels[1].Date = 6, "2024-03-13T00:00:00Z"
	m.Body.TEETCBSVN2[0], m.TCBInfo.Modules[0].Levels[1].Date = 4, "2024-03-12T00:00:00Z"
	e := m.Build()
	_, err := tdx.Verify(e.Quote, e.Collateral, tdx.Options{AcceptStatus: tdx.Acceptable(),
		MinTCBDate: time.Date(2024, 3, 14, 0, 0, 0, 0, time.UTC)}, now, e.Root)
	var refused *tdx.Refused
	if !errors.As(err, &refused) || refused.Failed.Name != "tcb-date" || len(refused.Failed.Shortfalls) != 2 ||
		refused.Failed.Shortfalls[1].String() != "platform: SGX component 2 is 5, want at least 6 (of 2026-08-12); update BIOS and microcode" ||
		refused.Failed.Got != "2024-03-12, of the TDX module that runs" {
		t.Errorf("a date: got %v and %v, want a refusal by tcb-date with what to update", err, refused.Failed.Shortfalls)
	}
	m = attesttest.NewTDX(now, 5, true)
	e = m.Build()
	r, err := tdx.Verify(e.Quote, e.Collateral, tdx.Options{}, now, e.Root)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range r.Checks() {
		if len(c.Shortfalls) != 0 {
			t.Errorf("%s of an accepted machine: got %v, want no shortfall", c.Name, c.Shortfalls)
		}
	}
}

// TestIntelsTCBInfo: what Intel has published is in the order that is demanded.
func TestIntelsTCBInfo(t *testing.T) {
	for name, answer := range map[string][]byte{"TDX 1.0": tdxdata.TcbInfoBody, "TDX 1.5": tdxdata.TcbInfoBodyV5} {
		var document struct {
			TCBInfo jsontext.Value `json:"tcbInfo"`
		}
		if err := json.Unmarshal(answer, &document); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if info, _ := tdx.ParseSigned(document.TCBInfo); info != nil {
			t.Errorf("%s: got %v, want it to be read", name, info)
		}
	}
}
