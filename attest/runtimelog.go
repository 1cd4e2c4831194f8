package attest

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"

	"chrysalis/attest/check"
	"chrysalis/measure/config"
	"chrysalis/measure/eventlog"
	"chrysalis/measure/register"
)

// logChecks judge the runtime log against the config in the evidence. A replay has shown that the registers hold exactly
// this log; on SEV-SNP the statement's log head does, which is weaker: whoever owns the guest's report device could have
// written another.
func logChecks(in eventlog.Registers) []step {
	return append(loggedChecks(in, "nothing after keys-released"), heldBy, loanCheck)
}

// askingLogChecks judge the log of a guest that asks for its secret: complete but for keys-released, which it can't have.
func askingLogChecks(in eventlog.Registers) []step {
	return loggedChecks(in, "nothing after the separator", eventlog.KindKeysReleased)
}

// loggedChecks judge a log that has all events but some. There is one check for each kind and register, however many models the config has: which
// list of checks is made is for nothing in the evidence to say.
func loggedChecks(in eventlog.Registers, end string, without ...eventlog.Kind) []step {
	placesOf := func(s eventlog.Sequence) []eventlog.Place {
		return slices.DeleteFunc(s.Places(in), func(p eventlog.Place) bool { return slices.Contains(without, p.Kind) })
	}
	list := []step{
		{Name: "runtime-log-order", Judge: func(a *appraisal) check.Finding {
			order := placesOf(a.sequence)
			first := a.runtime[:min(len(a.runtime), len(order))]
			same := slices.EqualFunc(first, order, func(r eventlog.Record, p eventlog.Place) bool { return r.Kind == p.Kind && r.Register == p.Register })
			return check.Saying(same, func() (string, string) {
				var got, want []string
				for _, r := range first {
					got = append(got, fmt.Sprintf("%s:%d", r.Kind, r.Register))
				}
				for _, w := range order {
					want = append(want, fmt.Sprintf("%s:%d", w.Kind, w.Register))
				}
				return strings.Join(got, " "), strings.Join(want, " ")
			})
		}},
		{Name: "runtime-log-end", Judge: func(a *appraisal) check.Finding {
			if order := placesOf(a.sequence); len(a.runtime) > len(order) {
				return check.Found(a.runtime[len(order)].Kind.String(), end, false)
			}
			return check.Found(end, end, true)
		}},
	}
	places := placesOf(eventlog.Sequence{Models: make([]eventlog.Pair, 1)})
	for _, p := range places {
		name := "event-" + p.Kind.String()
		if slices.ContainsFunc(places, func(q eventlog.Place) bool { return q.Kind == p.Kind && q.Register != p.Register }) {
			name += fmt.Sprintf("-%d", p.Register)
		}
		list = append(list, event(name, p))
	}
	return list
}

// heldBy judges the images that have held the guest's secret before its own: each could have kept a copy. Those that would be accepted
// themselves may have, and those that the policy names beside them.
var heldBy = step{Name: waiverHeldBy, Waived: waives(waiverHeldBy), Judge: func(a *appraisal) check.Finding {
	known := func(m register.Digest) bool { return a.policy.images[m] != "" || slices.Contains(a.rules.HeldBy, m) }
	all := !slices.ContainsFunc(a.sequence.Held, func(m register.Digest) bool { return !known(m) })
	return check.Saying(all, func() (string, string) {
		who := []string{}
		for _, m := range a.sequence.Held {
			switch name := a.policy.images[m]; {
			case name != "":
				who = append(who, fmt.Sprintf("%s, which is release %q", m, name))
			case known(m):
				who = append(who, m.String())
			default:
				who = append(who, m.String()+", which the policy does not know")
			}
		}
		if len(who) == 0 {
			who = []string{"no other image"}
		}
		return strings.Join(who, "; "), "images that the policy lets hold it"
	})
}}

// loanCheck wants a loan of a guest that borrows its secret, and of no other.
var loanCheck = step{Name: "loan", Judge: func(a *appraisal) check.Finding {
	borrows := a.config.Identity.Sealing == config.SealCustodian && !a.config.Service.Custodian
	return check.Saying(borrows == (a.sequence.Loan != (eventlog.Loan{})), func() (string, string) {
		got, want := "none", "none"
		if l := a.sequence.Loan; l != (eventlog.Loan{}) {
			got = fmt.Sprintf("loan %d by %s", l.Number, l.Lender)
		}
		if borrows {
			want = "a loan"
		}
		return got, want
	})
}}

// parsedLog is what a runtime log parses to, and parsedConfig what a config does. Both are facts of their bytes, of which they keep copies.
type (
	parsedLog struct {
		records []eventlog.Record
		rtmr3   func() [48]byte // what it makes of RTMR3, replayed once
	}
	parsedConfig struct {
		measured config.Measured
		sequence eventlog.Sequence // what the log must state for it
	}
)

func parseLog(b []byte) (p parsedLog, err error) {
	p.records, err = eventlog.ParseRuntime(bytes.Clone(b))
	p.rtmr3 = sync.OnceValue(func() [48]byte { return eventlog.Replay384(p.records, eventlog.RTMR3) })
	return p, err
}

func parseConfig(b []byte) (p parsedConfig, err error) {
	b = bytes.Clone(b)
	if p.measured, err = config.Decode(b); err != nil {
		return p, err
	}
	unparsed, err := eventlog.Unparsed(b)
	p.sequence = unparsed.With(p.measured.Service)
	return p, err
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
		return digests(a.evidence.Statement.GPUDigest, a.evidence.GPUs.Digest())
	}},
}

// keyChecks want the keys that follow from a secret, askingKeyChecks none of them.
var keyChecks = []step{
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

var askingKeyChecks = []step{
	{Name: "statement-receipt-key", Judge: func(a *appraisal) check.Finding { return digests(a.evidence.Statement.ReceiptKey, [32]byte{}) }},
	{Name: "statement-claim-key", Judge: func(a *appraisal) check.Finding { return digests(a.evidence.Statement.ClaimKey, [32]byte{}) }},
	{Name: "statement-secret", Judge: func(a *appraisal) check.Finding { return digests(a.evidence.Statement.SecretHash, [32]byte{}) }},
}

// event compares the data of the events of a kind in a register: of the first, or where there are several models of each model's own. Their place
// and number are judged by runtime-log-order and runtime-log-end.
func event(name string, place eventlog.Place) step {
	return step{Name: name, Judge: func(a *appraisal) check.Finding {
		if place.Kind == eventlog.KindKeysReleased {
			a.sequence = a.sequence.Released(a.runtime) // what no config says; each register must say the same
		}
		var has [][]byte
		for _, r := range a.runtime {
			if r.Register == place.Register && r.Kind == place.Kind {
				has = append(has, r.Data)
			}
		}
		if models := a.config.Service.Models; len(models) > 0 && (place.Kind == eventlog.KindEngine || place.Kind == eventlog.KindModel) {
			return eachEvent(a.sequence, place.Kind, models, has)
		}
		want := a.sequence.Data(place.Kind, 0)
		if len(has) == 0 {
			return check.Found("no such event", show(want), false)
		}
		return check.Saying(bytes.Equal(has[0], want), func() (string, string) { return show(has[0]), show(want) })
	}}
}

// eachEvent compares the events of engines, or of models, with the config's, and says what was got and wanted for each model by its name.
func eachEvent(s eventlog.Sequence, k eventlog.Kind, models []config.Served, has [][]byte) check.Finding {
	all := len(has) == len(models)
	for i := range min(len(has), len(models)) {
		all = all && bytes.Equal(has[i], s.Data(k, i))
	}
	return check.Saying(all, func() (string, string) {
		var got, want []string
		for i, model := range models {
			want = append(want, model.Model.Name+": "+show(s.Data(k, i)))
			if i < len(has) {
				got = append(got, model.Model.Name+": "+show(has[i]))
			} else {
				got = append(got, model.Model.Name+": no such event")
			}
		}
		for _, data := range has[min(len(has), len(models)):] {
			got = append(got, "and "+show(data))
		}
		return strings.Join(got, "; "), strings.Join(want, "; ")
	})
}

// show writes an event's data for people: words as they are, anything else in hexadecimal digits.
func show(data []byte) string {
	if len(data) == 0 {
		return "no data"
	}
	for _, c := range data {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !bytes.ContainsRune([]byte(" .,-"), rune(c)) {
			return fmt.Sprintf("%x", data)
		}
	}
	return string(data)
}
