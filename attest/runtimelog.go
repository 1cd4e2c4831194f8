package attest

import (
	"bytes"
	"fmt"
	"strings"

	"chrysalis/measure/config"
	"chrysalis/measure/eventlog"
)

// vtpmOrder is the runtime log of a guest that serves on a vTPM: each event once and in this order. What comes after it
// ends the guest's service.
var vtpmOrder = []struct {
	register eventlog.Register
	kind     eventlog.Kind
}{
	{eventlog.PCR13, eventlog.KindConfig}, {eventlog.PCR14, eventlog.KindIdentity}, {eventlog.PCR13, eventlog.KindEngine},
	{eventlog.PCR13, eventlog.KindModel}, {eventlog.PCR13, eventlog.KindGPU}, {eventlog.PCR13, eventlog.KindSeparator},
	{eventlog.PCR14, eventlog.KindSeparator}, {eventlog.PCR13, eventlog.KindKeysReleased}, {eventlog.PCR14, eventlog.KindKeysReleased},
}

// logChecks judge the runtime log against the config in the evidence, and the statement against both. The replay has shown
// that the registers hold exactly this log.
var logChecks = []check{
	{name: "runtime-log-order", judge: func(a *appraisal) finding {
		var got, want []string
		for _, r := range a.runtime[:min(len(a.runtime), len(vtpmOrder))] {
			got = append(got, fmt.Sprintf("%s:%d", r.Kind, r.Register))
		}
		for _, w := range vtpmOrder {
			want = append(want, fmt.Sprintf("%s:%d", w.kind, w.register))
		}
		f := finding{got: strings.Join(got, " "), want: strings.Join(want, " ")}
		f.ok = f.got == f.want
		return f
	}},
	{name: "runtime-log-end", judge: func(a *appraisal) finding {
		const want = "nothing after keys-released"
		if len(a.runtime) > len(vtpmOrder) {
			return finding{a.runtime[len(vtpmOrder)].Kind.String(), want, false}
		}
		return finding{want, want, true}
	}},
	event("event-config", eventlog.PCR13, eventlog.KindConfig, func(a *appraisal) []byte {
		d := config.SHA256(a.evidence.Config)
		return d[:]
	}),
	event("event-identity", eventlog.PCR14, eventlog.KindIdentity, func(a *appraisal) []byte {
		d := config.IdentityDigest(a.identity)
		return d[:]
	}),
	event("event-engine", eventlog.PCR13, eventlog.KindEngine, func(a *appraisal) []byte {
		v := a.config.Service.Engine.Volume
		return eventlog.VolumeData(v.Root, v.Blocks)
	}),
	event("event-model", eventlog.PCR13, eventlog.KindModel, func(a *appraisal) []byte {
		v := a.config.Service.Model.Volume
		return eventlog.VolumeData(v.Root, v.Blocks)
	}),
	event("event-gpu", eventlog.PCR13, eventlog.KindGPU, func(a *appraisal) []byte { return []byte(a.config.Service.GPU) }),
	event("event-separator-13", eventlog.PCR13, eventlog.KindSeparator, func(*appraisal) []byte { return eventlog.SeparatorData() }),
	event("event-separator-14", eventlog.PCR14, eventlog.KindSeparator, func(*appraisal) []byte { return eventlog.SeparatorData() }),
	event("event-keys-released-13", eventlog.PCR13, eventlog.KindKeysReleased, func(*appraisal) []byte { return nil }),
	event("event-keys-released-14", eventlog.PCR14, eventlog.KindKeysReleased, func(*appraisal) []byte { return nil }),
	{name: "statement-config", judge: func(a *appraisal) finding {
		return digests(a.evidence.Statement.ConfigHash, config.SHA256(a.evidence.Config))
	}},
	{name: "statement-log-head", judge: func(a *appraisal) finding {
		return digests(a.evidence.Statement.LogHead, eventlog.Head(a.evidence.RuntimeLog))
	}},
	{name: "statement-gpu", judge: func(a *appraisal) finding {
		// The only rule of this config format is "none": there is no GPU evidence to be bound.
		return digests(a.evidence.Statement.GPUDigest, [32]byte{})
	}},
	{name: "statement-receipt-key", judge: func(a *appraisal) finding {
		return given(a.evidence.Statement.ReceiptKey, "a key")
	}},
	{name: "statement-claim-key", judge: func(a *appraisal) finding {
		return given(a.evidence.Statement.ClaimKey, "a key")
	}},
	{name: "statement-secret", judge: func(a *appraisal) finding {
		return given(a.evidence.Statement.SecretHash, "a secret's digest")
	}},
}

// event compares the data of the first event of a kind in a register. Its place and number are judged by runtime-log-order.
func event(name string, register eventlog.Register, kind eventlog.Kind, want func(*appraisal) []byte) check {
	return check{name: name, judge: func(a *appraisal) finding {
		want := want(a)
		for _, r := range a.runtime {
			if r.Register == register && r.Kind == kind {
				return finding{show(r.Data), show(want), bytes.Equal(r.Data, want)}
			}
		}
		return finding{"no such event", show(want), false}
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
