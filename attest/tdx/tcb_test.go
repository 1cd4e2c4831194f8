package tdx_test

import (
	"testing"

	"chrysalis/attest/attesttest"
	"chrysalis/attest/check"
	"chrysalis/attest/tdx"
)

// TestStatus puts every status at every place. Each row is one machine; what Intel's library says of it is worked out by
// hand from its source (checkTcbLevel, convergeTcbStatusWithTdxModuleStatus, convergeTcbStatusWithQeTcbStatus).
func TestStatus(t *testing.T) {
	const (
		up, sw, conf, both, old, oldConf = tdx.UpToDate, tdx.SWHardeningNeeded, tdx.ConfigurationNeeded, tdx.ConfigurationAndSWHardeningNeeded, tdx.OutOfDate, tdx.OutOfDateConfigurationNeeded
		revoked                          = tdx.Revoked
	)
	// whenOld is what a platform's status becomes when its module or quoting enclave is out of date.
	whenOld := map[tdx.Status]tdx.Status{up: old, sw: old, conf: oldConf, both: oldConf, old: old, oldConf: oldConf, revoked: revoked}
	isvSVN := map[tdx.Status]uint16{up: 6, old: 4, revoked: 2, tdx.NotSupported: 1}
	for platform := range whenOld {
		for module, moduleSVN := range isvSVN {
			for qe, qeSVN := range isvSVN {
				want := platform
				switch {
				case platform == revoked || module == revoked || qe == revoked:
					want = revoked
				case module == tdx.NotSupported || qe == tdx.NotSupported:
					want = tdx.NotSupported
				case module == old || qe == old:
					want = whenOld[platform]
				}
				m := attesttest.NewTDX(now, 4, false)
				m.TCBInfo.Levels[0].Status = platform
				m.Body.TEETCBSVN[0], m.QE.ISVSVN = uint8(moduleSVN), qeSVN
				e := m.Build()
				facts := new(check.Facts) // of the one machine that is judged ten times here
				r, err := tdx.Verify(e.Quote, e.Collateral, tdx.Options{InsecureSkipTCB: true, Facts: facts}, now, e.Root)
				if err != nil {
					t.Fatal(err)
				}
				got := r.TCB()
				if want := (tdx.TCB{Status: want, Platform: platform, Module: module, QE: qe}); got != want {
					t.Errorf("got %+v, want %+v", got, want)
				}
				// Only what is listed is accepted.
				for _, accepted := range append(tdx.Acceptable(), tdx.Revoked, tdx.NotSupported) {
					_, err := tdx.Verify(e.Quote, e.Collateral, tdx.Options{AcceptStatus: []tdx.Status{accepted}, Facts: facts}, now, e.Root)
					if fine := accepted == want && want != revoked && want != tdx.NotSupported; (err == nil) != fine {
						t.Errorf("status %s when %s is accepted: got %v", want, accepted, err)
					}
				}
			}
		}
	}
}

func statusOf(m *attesttest.TDX, o tdx.Options) (tdx.TCB, error) {
	e := m.Build()
	r, err := tdx.Verify(e.Quote, e.Collateral, o, now, e.Root)
	if err != nil {
		return tdx.TCB{}, err
	}
	return r.TCB(), nil
}

// TestPlatformLevel chooses levels by single components.
func TestPlatformLevel(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*attesttest.TDX)
		want   tdx.Status
	}{
		{"newest", func(m *attesttest.TDX) {}, tdx.UpToDate},
		{"above the newest", func(m *attesttest.TDX) { m.Platform.SGXSVN[0], m.Platform.PCESVN = 9, 99 }, tdx.UpToDate},
		{"an SGX component one below", func(m *attesttest.TDX) { m.Platform.SGXSVN[1] = 4 }, tdx.OutOfDate},
		{"PCESVN one below", func(m *attesttest.TDX) { m.Platform.PCESVN = 12 }, tdx.OutOfDate},
		{"the third TDX component one below", func(m *attesttest.TDX) { m.Body.TEETCBSVN[2] = 4 }, tdx.OutOfDate},
		{"the last TDX component one below", func(m *attesttest.TDX) { m.TCBInfo.Levels[0].TCB.TDX[15].SVN = 1 }, tdx.OutOfDate},
		{"the last SGX component one below", func(m *attesttest.TDX) { m.TCBInfo.Levels[0].TCB.SGX[15].SVN = 1 }, tdx.OutOfDate},
		{"below every level", func(m *attesttest.TDX) { m.Body.TEETCBSVN[2] = 3 }, tdx.NotSupported},
		// A module with a version of its own is not judged by the first two components of the platform.
		{"the first TDX component below, module 1.5", func(m *attesttest.TDX) { m.TCBInfo.Levels[0].TCB.TDX[0].SVN = 200 }, tdx.UpToDate},
		{"the first TDX component below, module 1.0", func(m *attesttest.TDX) { m.Body.TEETCBSVN = [16]byte{4, 0, 5} }, tdx.OutOfDate},
		{"module 1.0", func(m *attesttest.TDX) { m.Body.TEETCBSVN = [16]byte{5, 0, 5} }, tdx.UpToDate},
		{"a level for module 1.5 and a module 1.0", func(m *attesttest.TDX) {
			m.Body.TEETCBSVN = [16]byte{5, 0, 5}
			m.TCBInfo.Levels[0].TCB.TDX[1].SVN = 1
		}, tdx.OutOfDate},
		// The SGX level that is met first is revoked, a lower one that fits the TDX components is not.
		{"revoked SGX level above", func(m *attesttest.TDX) {
			m.TCBInfo.Levels[0].Status = tdx.Revoked
			m.Body.TEETCBSVN[2] = 4
		}, tdx.Revoked},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := attesttest.NewTDX(now, 4, false)
			tt.change(m)
			got, err := statusOf(m, tdx.Options{InsecureSkipTCB: true})
			if err != nil {
				t.Fatal(err)
			}
			if got.Status != tt.want {
				t.Errorf("got %+v, want %s", got, tt.want)
			}
		})
	}
}

// TestRelaunch: the machine is in order, and only the module that made the TD was old.
func TestRelaunch(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*attesttest.TDX)
		want   tdx.Status
	}{
		{"a newer module runs now", func(m *attesttest.TDX) {}, tdx.TDRelaunchAdvised},
		{"and software hardening", func(m *attesttest.TDX) { m.TCBInfo.Levels[0].Status = tdx.SWHardeningNeeded }, tdx.TDRelaunchAdvised},
		{"and configuration", func(m *attesttest.TDX) { m.TCBInfo.Levels[0].Status = tdx.ConfigurationNeeded },
			tdx.TDRelaunchAdvisedConfigurationNeeded},
		{"and both", func(m *attesttest.TDX) { m.TCBInfo.Levels[0].Status = tdx.ConfigurationAndSWHardeningNeeded },
			tdx.TDRelaunchAdvisedConfigurationNeeded},
		{"the same old module still runs", func(m *attesttest.TDX) { m.Body.TEETCBSVN2 = m.Body.TEETCBSVN }, tdx.OutOfDate},
		{"microcode of the running module is old", func(m *attesttest.TDX) { m.Body.TEETCBSVN2[2] = 4 }, tdx.OutOfDate},
		{"the running module has no identity", func(m *attesttest.TDX) { m.Body.TEETCBSVN2[1] = 9 }, tdx.NotSupported},
		{"the running module is revoked", func(m *attesttest.TDX) { m.Body.TEETCBSVN2[0] = 2 }, tdx.Revoked},
		{"the running module alone is old", func(m *attesttest.TDX) { m.Body.TEETCBSVN[0], m.Body.TEETCBSVN2[0] = 6, 4 }, tdx.OutOfDate},
		{"the running module alone is old, on a machine to be configured", func(m *attesttest.TDX) {
			m.TCBInfo.Levels[0].Status = tdx.ConfigurationNeeded
			m.Body.TEETCBSVN[0], m.Body.TEETCBSVN2[0] = 6, 4
		}, tdx.OutOfDateConfigurationNeeded},
		{"the running module alone is revoked", func(m *attesttest.TDX) { m.Body.TEETCBSVN[0], m.Body.TEETCBSVN2[0] = 6, 2 }, tdx.Revoked},
		{"the running module alone has no identity", func(m *attesttest.TDX) {
			m.Body.TEETCBSVN[0], m.Body.TEETCBSVN2[1] = 6,
				9
		}, tdx.NotSupported},
		{"another TDX component alone is old now", func(m *attesttest.TDX) { m.Body.TEETCBSVN[0], m.Body.TEETCBSVN2[2] = 6, 4 }, tdx.OutOfDate},
		{"another TDX component alone was old", func(m *attesttest.TDX) { m.Body.TEETCBSVN[0], m.Body.TEETCBSVN[2] = 6, 4 },
			tdx.TDRelaunchAdvised},
		{"the running module is of TDX 1.0 and newest", func(m *attesttest.TDX) { m.Body.TEETCBSVN2 = [16]byte{5, 0, 5} }, tdx.TDRelaunchAdvised},
		{"the running module is of TDX 1.0 and old", func(m *attesttest.TDX) { m.Body.TEETCBSVN2 = [16]byte{4, 0, 5} }, tdx.OutOfDate},
		{"the platform is old too", func(m *attesttest.TDX) { m.TCBInfo.Levels[0].Status = tdx.OutOfDate }, tdx.OutOfDate},
		{"the quoting enclave is old too", func(m *attesttest.TDX) { m.QE.ISVSVN = 4 }, tdx.OutOfDate},
		{"the quoting enclave is revoked", func(m *attesttest.TDX) { m.QE.ISVSVN = 2 }, tdx.Revoked},
		{"the module is revoked", func(m *attesttest.TDX) { m.Body.TEETCBSVN[0] = 2 }, tdx.Revoked},
		{"a report of TDX 1.0 cannot say", func(m *attesttest.TDX) { m.Body.TDX15, m.Body.TEETCBSVN2 = false, [16]byte{} }, tdx.OutOfDate},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := attesttest.NewTDX(now, 5, true)
			m.Body.TEETCBSVN[0] = 4
			tt.change(m)
			got, err := statusOf(m, tdx.Options{InsecureSkipTCB: true})
			if err != nil {
				t.Fatal(err)
			}
			if got.Status != tt.want {
				t.Errorf("got %+v, want %s", got, tt.want)
			}
		})
	}
}
