package attest

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"chrysalis/attest/check"
	"chrysalis/attest/evidence"
	"chrysalis/attest/tdx"
	"chrysalis/measure/cocoon"
	"chrysalis/measure/config"
	"chrysalis/measure/eventlog"
	"chrysalis/measure/register"
)

// waiverRTMR3 does without RTMR3 where the guest's kernel can't extend it, waiverConfigID without the config's hash in the
// hardware's own field; each is the name of the check that it waives. Both cover a field of zeros alone: another value is never
// explained by them.
const (
	waiverRTMR3    = "rtmr-3"
	waiverConfigID = "mr-config-id"
)

// tdxChecks prove that a TDX module on a machine which the root certifies signed this statement and these registers.
var tdxChecks = []step{
	runtimeLogFormat, configFormat, bindingCheck,
	{Name: "signature-absent", Judge: func(a *appraisal) check.Finding { return absent(a.evidence.Signature, "signature") }},
	{Name: "certificates-absent", Judge: func(a *appraisal) check.Finding {
		return absent(slices.Concat(a.evidence.Certificates...), "certificates")
	}},
	{Name: "tdx", Proof: true, Judge: func(a *appraisal) check.Finding {
		var collateral *tdx.Collateral
		if a.evidence.Collateral != nil {
			var err error
			if collateral, err = check.Prove(a.roots.Facts, "collateral", func() (*tdx.Collateral, error) {
				return tdx.ParseCollateral(a.evidence.Collateral)
			}, a.evidence.Collateral); err != nil {
				return check.Found(err.Error(), "collateral", false)
			}
		}
		result, err := tdx.Verify(a.evidence.Quote, collateral, a.tdxOptions(), a.now, a.roots.TDX)
		if err != nil {
			return refused(err)
		}
		a.td = result
		body, platform := result.Body(), result.Platform()
		a.machine = platform.PPID[:]
		a.registers = map[string][]byte{
			register.MRTD: body.MRTD[:], register.RTMR(0): body.RTMR[0][:], register.RTMR(1): body.RTMR[1][:], register.RTMR(2): body.RTMR[2][:],
		}
		a.reference = a.policy.nearest(evidence.TDX, a.registers)
		return check.Finding{OK: true, Lines: result.Lines()}
	}},
	{Name: "report-data", Proof: true, Judge: func(a *appraisal) check.Finding {
		got, want := a.td.Body().ReportData, a.evidence.ReportData()
		return check.Same(got[:], want[:])
	}},
	{Name: waiverConfigID, Waived: func(a *appraisal) bool {
		return a.policy.waives(waiverConfigID) && a.td.Body().MRCONFIGID == [48]byte{}
	}, Judge: func(a *appraisal) check.Finding {
		got, want := a.td.Body().MRCONFIGID, config.MRConfigID(a.evidence.Config)
		return check.Same(got[:], want[:])
	}},
	{Name: "mr-owner", Judge: func(a *appraisal) check.Finding {
		got := a.td.Body().MROWNER
		return check.Same(got[:], a.rules.TDX.MROwner[:])
	}},
	{Name: "mr-owner-config", Judge: func(a *appraisal) check.Finding {
		got := a.td.Body().MROWNERCONFIG
		return check.Same(got[:], a.rules.TDX.MROwnerConfig[:])
	}},
	{Name: "machine", Judge: func(a *appraisal) check.Finding {
		return a.listed(named(a.rules.Platforms.TDX, func(id PPID) []byte { return id[:] }))
	}},
	{Name: waiverRTMR3, Proof: true, Waived: func(a *appraisal) bool {
		return a.policy.waives(waiverRTMR3) && a.td.Body().RTMR[3] == [48]byte{} && !a.config.Identity.Cocoon
	}, Judge: func(a *appraisal) check.Finding {
		got, want := a.td.Body().RTMR[3], a.rtmr3()
		if a.config.Identity.Cocoon {
			want = cocoon.RTMR3(cocoon.NoTree())
		}
		return check.Same(got[:], want[:])
	}},
	{Name: "boot-log", Judge: func(a *appraisal) check.Finding {
		// The registers are judged by value. The log is for people, who must not be told a story that is not the registers'.
		const want = "no log, or one that replays to RTMR0, RTMR1 and RTMR2"
		if len(a.evidence.BootLog) == 0 {
			return check.Found("no log", want, true)
		}
		log, err := eventlog.ParseCCEL(a.evidence.BootLog)
		if err != nil {
			return check.Found(err.Error(), want, false)
		}
		replayed, actual := eventlog.ReplayCCEL(log), a.td.Body().RTMR
		for i := range 3 {
			if replayed[i] != actual[i] {
				return check.Found(fmt.Sprintf("a log of another RTMR%d", i), want, false)
			}
		}
		for i, e := range log {
			if e.Broken() {
				return check.Found(fmt.Sprintf("event %d has other data than its digest", i), want, false)
			}
		}
		return check.Found(fmt.Sprintf("%d events", len(log)), want, true)
	}},
	securityVersion, rebuiltCheck,
}

// bindingCheck wants the statement signed by the key that report data names, where the config asks for COCOON's public identity, and no such
// key elsewhere. The registers then say the same: RTMR3 of such a guest is no other guest's, and init extends it before it parses the config.
var bindingCheck = step{Name: "binding", Proof: true, Judge: func(a *appraisal) check.Finding {
	if !a.config.Identity.Cocoon {
		return unbound(a)
	}
	const want = "a signature of the statement by the key in report data"
	if !a.evidence.Binding.Binds(a.evidence.Statement) {
		return check.Found("none, or of another statement", want, false)
	}
	return check.Found("signed by "+a.evidence.Binding.Key.String(), want, true)
}}

// noBindingCheck is bindingCheck of a platform whose guests can't have that identity.
var noBindingCheck = step{Name: "binding", Proof: true, Judge: func(a *appraisal) check.Finding {
	if a.config.Identity.Cocoon {
		return check.Found("COCOON's public identity", "a TD, or another identity", false)
	}
	return unbound(a)
}}

func unbound(a *appraisal) check.Finding {
	const want = "no key between quote and statement"
	if a.evidence.Binding != (evidence.Binding{}) {
		return check.Found("the key "+a.evidence.Binding.Key.String(), want, false)
	}
	return check.Found(want, want, true)
}

// refused makes a finding of an appraisal within this one.
func refused(err error) check.Finding {
	f := check.Found(err.Error(), "accepted", false)
	f.Unavailable = errors.Is(err, ErrUnavailable)
	var inner interface {
		Checks() []check.Line
		Decided() string
	}
	if errors.As(err, &inner) {
		f.Lines, f.Failed = inner.Checks(), inner.Decided()
	}
	return f
}

// TDXRules judges the machine under a TD.
type TDXRules struct {
	// AcceptStatus lists the TCB statuses that are accepted, such as "UpToDate".
	AcceptStatus []tdx.Status `json:"accept_status"`
	// MinTCBEvaluation is the lowest tcbEvaluationDataNumber of collateral: it refuses collateral that is valid still and
	// older than a TCB recovery.
	MinTCBEvaluation uint32 `json:"min_tcb_evaluation"`
	// MinTCBDate is the earliest date that the levels of platform, module and quoting enclave may have, in UTC; absent: any.
	MinTCBDate time.Time `json:"min_tcb_date,omitzero"`
	// MaxCollateralAge is how long after its issue collateral is believed, such as "168h": whoever keeps newer collateral from a
	// client gains that much time, however long the documents hold. The root's revocation list, of which there is one a year, is
	// believed as long as it says.
	MaxCollateralAge string `json:"max_collateral_age,omitzero"`
	// MRSEAM lists the TDX modules that are accepted; none: any that Intel signed, judged by its security version.
	MRSEAM []register.Digest384 `json:"mr_seam"`
	// ServiceTDs lists the values of MRSERVICETD that are accepted beside zeros.
	ServiceTDs    []register.Digest384 `json:"service_tds"`
	MROwner       register.Digest384   `json:"mr_owner"`
	MROwnerConfig register.Digest384   `json:"mr_owner_config"`
}

// tdxWaivers are the hardenings of package tdx that a policy can do without, each under a name of its own.
var tdxWaivers = map[string]func(*tdx.Options){
	"sept-ve-disable":     func(o *tdx.Options) { o.InsecureAllowSEPTVE = true },
	"pck-extension-known": func(o *tdx.Options) { o.AllowUnknownExtension = true },
	"xfam-known":          func(o *tdx.Options) { o.AllowUnknownXFAM = true },
}

// tdxOptions says what the policy accepts of a quote.
func (a *appraisal) tdxOptions() tdx.Options {
	o := a.rules.TDX.options(a.roots.Facts)
	for name, allow := range tdxWaivers {
		if a.policy.waives(name) {
			allow(&o)
		}
	}
	return o
}

func (r TDXRules) options(facts *check.Facts) tdx.Options {
	plain := func(list []register.Digest384) (out [][48]byte) {
		for _, v := range list {
			out = append(out, v)
		}
		return out
	}
	age, _ := time.ParseDuration(r.MaxCollateralAge) // validate has parsed it
	return tdx.Options{Facts: facts, AcceptStatus: r.AcceptStatus, MinTCBEvaluation: r.MinTCBEvaluation, MinTCBDate: r.MinTCBDate,
		MaxCollateralAge: age, MRSEAM: plain(r.MRSEAM), ServiceTDs: plain(r.ServiceTDs)}
}

// validAge judges a rule for the age of something.
func validAge(name, text string) error {
	if age, err := time.ParseDuration(text); err != nil || age <= 0 {
		return fmt.Errorf("%s is %.40q, want a duration above zero, such as 168h", name, text)
	}
	return nil
}

func (r TDXRules) validate() error {
	if len(r.AcceptStatus) == 0 {
		return errors.New("accept_status is empty, want the statuses that are accepted")
	}
	for _, status := range r.AcceptStatus {
		if !slices.Contains(tdx.Acceptable(), status) {
			return fmt.Errorf("accept_status names %q, want %s", status, either(names(tdx.Acceptable())))
		}
	}
	return validAge("max_collateral_age", r.MaxCollateralAge)
}

func names[T ~string](list []T) (out []string) {
	for _, v := range list {
		out = append(out, string(v))
	}
	return out
}
