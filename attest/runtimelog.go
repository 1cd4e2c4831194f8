package attest

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"chrysalis/attest/check"
	"chrysalis/measure/config"
	"chrysalis/measure/eventlog"
)

// place is where an event of the runtime log stands.
type place struct {
	register eventlog.Register
	kind     eventlog.Kind
}

// The runtime log of a guest that serves: each event once and in this order. What comes after it ends the guest's service.
// Where there is no TPM one register takes all: RTMR3, which on SEV-SNP exists in the log alone.
var (
	vtpmOrder = []place{
		{eventlog.PCR13, eventlog.KindConfig}, {eventlog.PCR14, eventlog.KindIdentity}, {eventlog.PCR13, eventlog.KindEngine},
		{eventlog.PCR13, eventlog.KindModel}, {eventlog.PCR13, eventlog.KindGPU}, {eventlog.PCR13, eventlog.KindSeparator},
		{eventlog.PCR14, eventlog.KindSeparator}, {eventlog.PCR13, eventlog.KindKeysReleased}, {eventlog.PCR14, eventlog.KindKeysReleased},
	}
	rtmrOrder = []place{
		{eventlog.RTMR3, eventlog.KindConfig}, {eventlog.RTMR3, eventlog.KindIdentity}, {eventlog.RTMR3, eventlog.KindEngine},
		{eventlog.RTMR3, eventlog.KindModel}, {eventlog.RTMR3, eventlog.KindGPU}, {eventlog.RTMR3, eventlog.KindSeparator},
		{eventlog.RTMR3, eventlog.KindKeysReleased},
	}
)

// logChecks judge the runtime log against the config in the evidence. A replay has shown that the registers hold exactly
// this log; on SEV-SNP the statement's log head does, which is weaker: whoever owns the guest's report device could have
// written another.
func logChecks(order []place) []step {
	list := []step{
		{Name: "runtime-log-order", Judge: func(a *appraisal) check.Finding {
			var got, want []string
			for _, r := range a.runtime[:min(len(a.runtime), len(order))] {
				got = append(got, fmt.Sprintf("%s:%d", r.Kind, r.Register))
			}
			for _, w := range order {
				want = append(want, fmt.Sprintf("%s:%d", w.kind, w.register))
			}
			return check.Found(strings.Join(got, " "), strings.Join(want, " "), slices.Equal(got, want))
		}},
		{Name: "runtime-log-end", Judge: func(a *appraisal) check.Finding {
			const want = "nothing after keys-released"
			if len(a.runtime) > len(order) {
				return check.Found(a.runtime[len(order)].Kind.String(), want, false)
			}
			return check.Found(want, want, true)
		}},
	}
	for _, p := range order {
		name := "event-" + p.kind.String()
		if slices.ContainsFunc(order, func(q place) bool { return q.kind == p.kind && q.register != p.register }) {
			name += fmt.Sprintf("-%d", p.register)
		}
		list = append(list, event(name, p.register, p.kind, eventData[p.kind]))
	}
	return list
}

// eventData returns what an event must say of the config in the evidence.
var eventData = map[eventlog.Kind]func(*appraisal) []byte{
	eventlog.KindConfig: func(a *appraisal) []byte {
		d := config.SHA256(a.evidence.Config)
		return d[:]
	},
	eventlog.KindIdentity: func(a *appraisal) []byte {
		d := config.IdentityDigest(a.identity)
		return d[:]
	},
	eventlog.KindEngine: func(a *appraisal) []byte {
		v := a.config.Service.Engine.Volume
		return eventlog.VolumeData(v.Root, v.Blocks)
	},
	eventlog.KindModel: func(a *appraisal) []byte {
		v := a.config.Service.Model.Volume
		return eventlog.VolumeData(v.Root, v.Blocks)
	},
	eventlog.KindGPU:          func(a *appraisal) []byte { return []byte(a.config.Service.GPU) },
	eventlog.KindSeparator:    func(*appraisal) []byte { return eventlog.SeparatorData() },
	eventlog.KindKeysReleased: func(*appraisal) []byte { return nil },
}

// statementChecks judge the statement against config and log.
var statementChecks = []step{
	{Name: "statement-config", Judge: func(a *appraisal) check.Finding {
		return digests(a.evidence.Statement.ConfigHash, config.SHA256(a.evidence.Config))
	}},
	{Name: "statement-log-head", Judge: func(a *appraisal) check.Finding {
		return digests(a.evidence.Statement.LogHead, eventlog.Head(a.evidence.RuntimeLog))
	}},
	{Name: "statement-gpu", Judge: func(a *appraisal) check.Finding {
		// The only rule of this config format is "none": there is no GPU evidence to be bound.
		return digests(a.evidence.Statement.GPUDigest, [32]byte{})
	}},
	{Name: "statement-receipt-key", Judge: func(a *appraisal) check.Finding {
		return given(a.evidence.Statement.ReceiptKey, "a key")
	}},
	{Name: "statement-claim-key", Judge: func(a *appraisal) check.Finding {
		return given(a.evidence.Statement.ClaimKey, "a key")
	}},
	{Name: "statement-secret", Judge: func(a *appraisal) check.Finding {
		return given(a.evidence.Statement.SecretHash, "a secret's digest")
	}},
}

// event compares the data of the first event of a kind in a register. Its place and number are judged by runtime-log-order.
func event(name string, register eventlog.Register, kind eventlog.Kind, want func(*appraisal) []byte) step {
	return step{Name: name, Judge: func(a *appraisal) check.Finding {
		want := want(a)
		for _, r := range a.runtime {
			if r.Register == register && r.Kind == kind {
				return check.Found(show(r.Data), show(want), bytes.Equal(r.Data, want))
			}
		}
		return check.Found("no such event", show(want), false)
	}}
}

// show writes an event's data for people: a word as it is, anything else in hexadecimal digits.
func show(data []byte) string {
	if len(data) == 0 {
		return "no data"
	}
	for _, c := range data {
		if c < 'a' || c > 'z' {
			return fmt.Sprintf("%x", data)
		}
	}
	return string(data)
}
