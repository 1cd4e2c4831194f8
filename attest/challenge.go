package attest

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"chrysalis/attest/check"
	"chrysalis/attest/evidence"
)

// admissionChecks come first: whether there is a policy, and whether it has anything to say of this platform.
var admissionChecks = []step{
	{Name: "policy", Proof: true, Judge: func(a *appraisal) check.Finding {
		// Later checks read the rules.
		if a.rules == nil {
			return check.Found("the zero policy, which accepts nothing", "a policy", false)
		}
		return check.Found("a policy", "a policy", true)
	}},
	listCheck, listFreshCheck,
	{Name: "platform", Proof: true, Judge: func(a *appraisal) check.Finding {
		want := either(a.policy.platforms())
		if a.policy.list != nil && len(a.rules.Releases) == 0 {
			want = noneOf(a.policy.list)
		}
		if a.evidence == nil {
			return check.Found("no evidence", want, false)
		}
		got := a.evidence.Platform
		return check.Found(got.String(), want, len(a.policy.entries[got]) > 0)
	}},
}

// challengeChecks judge whether the answer is to this client's question, over this client's connection.
var challengeChecks = []step{
	nonceCheck,
	{Name: "exporter", Proof: true, Judge: func(a *appraisal) check.Finding {
		return given(a.challenge.Exporter, "the exporter of the client's connection")
	}},
	{Name: "challenge", Proof: true, Judge: func(a *appraisal) check.Finding {
		root, err := a.evidence.Path.Root(evidence.Leaf(a.challenge.Nonce, a.challenge.Exporter))
		if err != nil {
			return check.Found(err.Error(), "a path from nonce and exporter to the statement", false)
		}
		return digests(root, a.evidence.Statement.NonceRoot)
	}},
	tlsKeyCheck, hpkeKeyCheck, notAfterCheck,
}

// detachedChecks judge whether the answer is to this client's question, which it asked over somebody else's connection.
var detachedChecks = []step{
	nonceCheck,
	{Name: "challenge", Proof: true, Judge: func(a *appraisal) check.Finding {
		root, err := a.evidence.Path.Root(evidence.DetachedLeaf(a.challenge.Nonce))
		if err != nil {
			return check.Found(err.Error(), "a path from the nonce to the statement", false)
		}
		return digests(root, a.evidence.Statement.NonceRoot)
	}},
	{Name: "hpke-key", Proof: true, Judge: func(a *appraisal) check.Finding {
		if len(a.evidence.HPKE) == 0 {
			return check.Found("none", "the key that the statement names", false) // there is nothing else to talk to
		}
		return hpkeKeyCheck.Judge(a)
	}},
	notAfterCheck,
}

// epochChecks judge evidence that answers nobody.
var epochChecks = []step{
	{Name: "epoch", Proof: true, Judge: func(a *appraisal) check.Finding {
		const want = "no nonce root and no path"
		if root := a.evidence.Statement.NonceRoot; root != ([32]byte{}) {
			return check.Found(fmt.Sprintf("nonce root %x", root), want, false)
		}
		if n := a.evidence.Path.Leaves; n != 0 {
			return check.Found(fmt.Sprintf("a path in a tree of %d", n), want, false)
		}
		return check.Found(want, want, true)
	}},
	tlsKeyCheck, hpkeKeyCheck, notAfterCheck,
}

var nonceCheck = step{Name: "nonce", Proof: true, Judge: func(a *appraisal) check.Finding {
	return given(a.challenge.Nonce, "the client's own random nonce")
}}

// hpkeKeyCheck lets evidence have no HPKE key, for then it yields none.
var hpkeKeyCheck = step{Name: "hpke-key", Proof: true, Judge: func(a *appraisal) check.Finding {
	if len(a.evidence.HPKE) == 0 {
		return check.Found("none", "none, or the key that the statement names", true)
	}
	return digests(sha256.Sum256(a.evidence.HPKE), a.evidence.Statement.HPKEKey)
}}

var tlsKeyCheck = step{Name: "tls-key", Proof: true, Judge: func(a *appraisal) check.Finding {
	return digests(a.evidence.Statement.TLSKey, a.challenge.TLSKey)
}}

// MaxKeyLife bounds how far ahead a statement's not-after may lie: a key set is used for an hour and two minutes of
// overlap, and the rest is for clocks that differ. A key that were named for longer could leak for longer.
const MaxKeyLife = 2 * time.Hour

var notAfterCheck = step{Name: "not-after", Judge: func(a *appraisal) check.Finding {
	const layout = time.RFC3339
	last := a.now.Add(MaxKeyLife)
	want := a.now.UTC().Format(layout) + " to " + last.UTC().Format(layout)
	if a.evidence.Statement.NotAfter > 1<<40 {
		return check.Found(fmt.Sprint(a.evidence.Statement.NotAfter), want, false)
	}
	until := time.Unix(int64(a.evidence.Statement.NotAfter), 0)
	return check.Found(until.UTC().Format(layout), want, !until.Before(a.now) && !until.After(last))
}}

func given(value [32]byte, want string) check.Finding {
	if value == ([32]byte{}) {
		return check.Found("zeros", want, false)
	}
	return check.Found(hex.EncodeToString(value[:]), want, true)
}
