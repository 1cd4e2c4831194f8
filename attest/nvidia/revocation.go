package nvidia

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"time"

	"chrysalis/attest/check"
	"chrysalis/attest/pki"
)

// certificates are those of a chain whose status responders know: all but the root, and of a device's all but the key's that its
// firmware made.
type certificates struct {
	name string // of the chain in the names of checks
	of   func(*device) bool
	in   func(*device) chain
	skip int // at the chain's begin
}

var deviceCertificates = certificates{"device", func(*device) bool { return true }, func(d *device) chain { return d.chain }, 1}

// status is a certificate, its issuer, and the newest answer about it that was handed in.
type status struct {
	cert, issuer *x509.Certificate
	answer       *pki.OCSP
}

// statuses finds the answers about a chain, once for all of its checks.
func (c certificates) statuses(d *device) (all []status) {
	if known, ok := d.statuses[c.name]; ok {
		return known
	}
	chain := c.in(d)
	for i := c.skip; i+1 < len(chain); i++ {
		s := status{cert: chain[i], issuer: chain[i+1]}
		for _, a := range d.m.answers {
			if a.About(s.cert, s.issuer) && (s.answer == nil || a.ThisUpdate.After(s.answer.ThisUpdate)) {
				s.answer = a
			}
		}
		all = append(all, s)
	}
	if d.statuses == nil {
		d.statuses = map[string][]status{}
	}
	d.statuses[c.name] = all
	return all
}

// each judges every answer, and returns the first finding that does not hold, or the last.
func (c certificates) each(judge func(d *device, s status) check.Finding) func(*device) check.Finding {
	return func(d *device) check.Finding {
		f := check.Found("no answers", "no answers", true)
		for _, s := range c.statuses(d) {
			if s.answer == nil {
				continue
			}
			if f = judge(d, s); !f.OK {
				got, want := f.Words()
				return check.Found(s.cert.Subject.CommonName+": "+got, want, false)
			}
		}
		return f
	}
}

// checks judge what responders say.
func (c certificates) checks() []check.Step[*device] {
	return []check.Step[*device]{
		{Name: c.name + "-ocsp", Applies: c.of, Unavailable: true, Waived: func(d *device) bool { return d.m.options.InsecureSkipRevocation },
			Judge: func(d *device) check.Finding {
				const want = "a responder's answer about each certificate"
				for _, s := range c.statuses(d) {
					if s.answer == nil {
						return check.Found("none about "+s.cert.Subject.CommonName, want, false)
					}
				}
				return check.Found(want, want, true)
			}},
		{Name: c.name + "-ocsp-signature", Applies: c.of, Proof: true, Judge: c.each(func(d *device, s status) check.Finding {
			_, err := check.Prove(d.m.facts, "nvidia answered", func() (struct{}, error) {
				return struct{}{}, pki.OCSPIssuedBy(s.answer, s.issuer, signatureKind)
			}, s.answer.Raw, s.issuer.Raw)
			return check.Holds(err, "an answer by the issuer, or by whom it certified for that")
		})},
		{Name: c.name + "-ocsp-validity", Applies: c.of, Judge: c.each(func(d *device, s status) check.Finding {
			if responder := s.answer.Responder(s.issuer); responder != nil {
				if f := pki.Dates(d.m.at, responder); !f.OK {
					return f
				}
			}
			until := s.answer.NextUpdate
			if until.IsZero() {
				if d.m.options.MaxOCSPAge == 0 {
					return check.Found("an answer that does not say how long it holds", "one that does, or a largest age in the options", false)
				}
				until = s.answer.ThisUpdate.Add(d.m.options.MaxOCSPAge)
			}
			return pki.Between(d.m.at, s.answer.ThisUpdate, until)
		})},
		{Name: c.name + "-ocsp-age", Applies: c.of, Judge: c.each(func(d *device, s status) check.Finding {
			return pki.Age(d.m.at, s.answer.ThisUpdate, d.m.options.MaxOCSPAge)
		})},
		{Name: c.name + "-ocsp-nonce", Applies: c.of, Judge: c.each(func(d *device, s status) check.Finding {
			want := d.m.options.OCSPNonce
			if want == nil {
				return check.Found("any", "any", true)
			}
			return check.Found(fmt.Sprintf("%x", s.answer.Nonce), fmt.Sprintf("%x", want), bytes.Equal(s.answer.Nonce, want))
		})},
		{Name: c.name + "-hold", Applies: c.of, Waived: func(d *device) bool { return d.m.options.AllowHold },
			Judge: c.each(func(_ *device, s status) check.Finding {
				return s.is(pki.OCSPHold)
			})},
		{Name: c.name + "-revocation", Applies: c.of, Judge: c.each(func(_ *device, s status) check.Finding {
			if s.answer.Status == pki.OCSPUnknown {
				return s.is(pki.OCSPUnknown)
			}
			return s.is(pki.OCSPRevoked)
		})},
	}
}

// is judges that a certificate does not have that status.
func (s status) is(bad pki.OCSPStatus) check.Finding {
	return check.Saying(s.answer.Status != bad, func() (string, string) {
		got := string(s.answer.Status)
		if !s.answer.RevokedAt.IsZero() {
			got += fmt.Sprintf(" since %s, reason %d", s.answer.RevokedAt.UTC().Format(time.RFC3339), s.answer.Reason)
		}
		return got, "not " + string(bad)
	})
}
