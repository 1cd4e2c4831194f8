package tdx

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

	"chrysalis/attest/check"
	"chrysalis/attest/pki"
)

// crlChecks prove that nobody in the PCK's chain is revoked.
var crlChecks = []check.Step[*appraisal]{
	{Name: "root-crl-format", Proof: true, Applies: withCollateral, Judge: func(a *appraisal) check.Finding {
		return check.Parsed(a.rootCRL.format, "the root's CRL")
	}},
	{Name: "root-crl-signature", Proof: true, Applies: withCollateral, Judge: func(a *appraisal) check.Finding {
		return check.Holds(a.rootCRL.signed, "signed by the trusted root")
	}},
	{Name: "root-crl-dates", Applies: withCollateral, Judge: func(a *appraisal) check.Finding {
		return pki.Between(a.at, a.rootCRL.value.ThisUpdate, a.rootCRL.value.NextUpdate)
	}},
	{Name: "pck-crl-chain-format", Proof: true, Applies: withCollateral, Judge: func(a *appraisal) check.Finding {
		return check.Parsed(a.crlChain.format, "PEM of the CRL's signer and the root")
	}},
	{Name: "pck-crl-chain", Proof: true, Applies: withCollateral, Judge: func(a *appraisal) check.Finding {
		return check.Holds(a.crlChain.signed, "a CA under the trusted root")
	}},
	{Name: "pck-crl-chain-dates", Applies: withCollateral, Judge: func(a *appraisal) check.Finding { return pki.Dates(a.at, a.crlChain.value...) }},
	{Name: "pck-crl-issuer", Proof: true, Applies: withCollateral, Judge: func(a *appraisal) check.Finding {
		// The CRL of another CA, or of another key under the same name, says nothing of this PCK.
		signer, ca := a.crlChain.value[0], a.chain[1]
		ok := bytes.Equal(signer.RawSubject, ca.RawSubject) && bytes.Equal(signer.RawSubjectPublicKeyInfo, ca.RawSubjectPublicKeyInfo)
		return check.Saying(ok, func() (string, string) {
			return fmt.Sprintf("%s, key %x", signer.Subject.CommonName, signer.SubjectKeyId),
				fmt.Sprintf("%s, key %x, the PCK's own CA", ca.Subject.CommonName, ca.SubjectKeyId)
		})
	}},
	{Name: "pck-crl-format", Proof: true, Applies: withCollateral, Judge: func(a *appraisal) check.Finding {
		return check.Parsed(a.pckCRL.format, "a PCK CRL")
	}},
	{Name: "pck-crl-signature", Proof: true, Applies: withCollateral, Judge: func(a *appraisal) check.Finding {
		return check.Holds(a.pckCRL.signed, "signed by the head of its chain")
	}},
	{Name: "pck-crl-dates", Applies: withCollateral, Judge: func(a *appraisal) check.Finding {
		return pki.Between(a.at, a.pckCRL.value.ThisUpdate, a.pckCRL.value.NextUpdate)
	}},
	{Name: "pck-crl-age", Applies: withCollateral,
		Judge: func(a *appraisal) check.Finding {
			return pki.Age(a.at, a.pckCRL.value.ThisUpdate, a.options.MaxCollateralAge)
		}},
	{Name: "pck-revoked", Applies: withCollateral, Judge: func(a *appraisal) check.Finding { return notRevoked(a.pckCRL.value, a.chain[0]) }},
	{Name: "pck-ca-revoked", Applies: withCollateral,
		Judge: func(a *appraisal) check.Finding { return notRevoked(a.rootCRL.value, a.chain[1], a.crlChain.value[0]) }},
}

// documentChecks prove a document: who signed it, until when that holds, and what it says of itself.
func documentChecks[T interface{ dated() dates }](name, want string, of func(*appraisal) *document[T]) []check.Step[*appraisal] {
	return []check.Step[*appraisal]{
		{Name: name + "-chain-format", Proof: true, Applies: withCollateral, Judge: func(a *appraisal) check.Finding {
			return check.Parsed(of(a).chain.format, "PEM of the signer and the root")
		}},
		{Name: name + "-chain", Proof: true, Applies: withCollateral, Judge: func(a *appraisal) check.Finding {
			return check.Holds(of(a).chain.signed, "TCB signing under the trusted root")
		}},
		{Name: name + "-signer-dates", Applies: withCollateral,
			Judge: func(a *appraisal) check.Finding { return pki.Dates(a.at, of(a).chain.value...) }},
		{Name: name + "-signer-revoked", Applies: withCollateral,
			Judge: func(a *appraisal) check.Finding { return notRevoked(a.rootCRL.value, of(a).chain.value[0]) }},
		{Name: name + "-signature", Proof: true, Applies: withCollateral, Judge: func(a *appraisal) check.Finding {
			return check.Holds(of(a).signed.signed, "signed by its signer")
		}},
		{Name: name + "-format", Proof: true, Applies: withCollateral, Judge: func(a *appraisal) check.Finding {
			d := of(a)
			var err error
			d.value, err = d.signed.read(d.raw, d.parse)
			return check.Parsed(err, want)
		}},
		{Name: name + "-dates", Applies: withCollateral, Judge: func(a *appraisal) check.Finding {
			d := of(a).value.dated()
			return pki.Between(a.at, d.issued, d.next)
		}},
		{Name: name + "-age", Applies: withCollateral, Judge: func(a *appraisal) check.Finding {
			return pki.Age(a.at, of(a).value.dated().issued, a.options.MaxCollateralAge)
		}},
		{Name: name + "-evaluation", Applies: withCollateral,
			Judge: func(a *appraisal) check.Finding { return a.floor(of(a).value.dated().evaluation) }},
	}
}

// tcbInfoChecks prove what Intel says of machines of this kind, and that it says it of this machine.
var tcbInfoChecks = slices.Concat(documentChecks("tcb-info", "TCB info of version 3 for TDX",
	func(a *appraisal) *document[*tcbInfo] { return &a.info }), []check.Step[*appraisal]{
	{Name: "fmspc", Applies: withCollateral,
		Judge: func(a *appraisal) check.Finding { return check.Same(a.info.value.fmspc[:], a.platform.FMSPC[:]) }},
	{Name: "pce-id", Applies: withCollateral,
		Judge: func(a *appraisal) check.Finding { return check.Same(a.info.value.pceID[:], a.platform.PCEID[:]) }},
	{Name: "tdx-module-signer", Applies: withCollateral, Judge: func(a *appraisal) check.Finding {
		identity := a.module()
		if identity == nil {
			return check.Found("unknown module", "judged by tcb-status", true)
		}
		return check.Same(a.quote.Body.MRSIGNERSEAM[:], identity.signer[:])
	}},
	{Name: "tdx-module-attributes", Applies: withCollateral, Judge: func(a *appraisal) check.Finding {
		identity := a.module()
		if identity == nil {
			return check.Found("unknown module", "judged by tcb-status", true)
		}
		got := a.quote.Body.SEAMAttributes
		return check.Same(masked(got[:], identity.mask[:]), identity.attributes[:])
	}},
})

// module returns the identity by which the TD's module is judged: a module with a version has one of its own. It is nil
// when the TCB info does not know the version; tcb-status then refuses.
func (a *appraisal) module() *moduleIdentity {
	if version := a.quote.Body.TEETCBSVN[1]; version > 0 {
		return a.info.value.module(version)
	}
	return &a.info.value.tdxModule
}

// qeIdentityChecks prove that the quoting enclave, which holds the attestation key, is Intel's.
var qeIdentityChecks = slices.Concat(documentChecks("qe-identity", "identity of version 2 of the quoting enclave for TDs",
	func(a *appraisal) *document[*qeIdentity] { return &a.qeID }), []check.Step[*appraisal]{
	{Name: "qe-signer", Applies: withCollateral,
		Judge: func(a *appraisal) check.Finding { return check.Same(a.qeReport.MRSIGNER[:], a.qeID.value.signer[:]) }},
	{Name: "qe-product", Applies: withCollateral, Judge: func(a *appraisal) check.Finding {
		got, want := a.qeReport.ISVProdID, a.qeID.value.prodID
		return check.Saying(got == want, func() (string, string) { return fmt.Sprint(got), fmt.Sprint(want) })
	}},
	{Name: "qe-misc-select", Applies: withCollateral, Judge: func(a *appraisal) check.Finding {
		return check.Same(masked(a.qeReport.MiscSelect[:], a.qeID.value.miscSelectMask[:]), a.qeID.value.miscSelect[:])
	}},
	{Name: "qe-attributes", Applies: withCollateral, Judge: func(a *appraisal) check.Finding {
		return check.Same(masked(a.qeReport.Attributes[:], a.qeID.value.attributesMask[:]), a.qeID.value.attributes[:])
	}},
})

// statusChecks judge what the security versions amount to.
var statusChecks = []check.Step[*appraisal]{
	{Name: "tcb-status", Applies: withCollateral, Waived: func(a *appraisal) bool { return a.options.InsecureSkipTCB },
		Judge: func(a *appraisal) check.Finding {
			a.tcb = judgeTCB(a.info.value, a.platform, &a.quote.Body, matchISVSVN(a.qeID.value.levels, a.qeReport.ISVSVN))
			var want []string
			ok := false
			for _, accepted := range a.options.statuses() {
				// Options come from people and files: a status that is no status accepts nothing.
				if !slices.Contains(Acceptable(), accepted) {
					continue
				}
				want = append(want, string(accepted))
				ok = ok || accepted == a.tcb.Status
			}
			got := fmt.Sprintf("%s (platform %s, module %s, QE %s)", a.tcb.Status, a.tcb.Platform, a.tcb.Module, a.tcb.QE)
			for _, svn := range [][16]byte{a.quote.Body.TEETCBSVN, a.quote.Body.TEETCBSVN2} {
				if version := svn[1]; version > 0 && a.info.value.module(version) == nil {
					got += fmt.Sprintf(", TDX module of version %d, a line that this TCB info does not know", version)
					break
				}
			}
			f := check.Found(got, strings.Join(want, " or "), ok)
			if !ok {
				if f.Shortfalls = a.shortfalls(a.accepts, a.acceptsPart); len(f.Shortfalls) == 0 {
					f.Got += a.unmended()
				}
			}
			return f
		}},
	{Name: "tcb-date", Applies: withCollateral, Judge: func(a *appraisal) check.Finding {
		floor := a.options.MinTCBDate
		if floor.IsZero() {
			return check.Found("no date is asked for", "no date is asked for", true)
		}
		date, part := a.earliest()
		got := "no date of the " + part + "'s level"
		if !date.IsZero() {
			got = date.UTC().Format(time.DateOnly) + ", of the " + part
		}
		f := check.Found(got, "a level of "+floor.UTC().Format(time.DateOnly)+" or later", !date.Before(floor))
		if !f.OK {
			since := func(l level) bool { return !l.date.Before(floor) && l.status != Revoked }
			f.Shortfalls = a.shortfalls(since, since)
		}
		return f
	}},
}

func (a *appraisal) floor(got uint32) check.Finding {
	least := a.options.MinTCBEvaluation
	return check.Saying(got >= least, func() (string, string) { return fmt.Sprint(got), fmt.Sprintf("at least %d", least) })
}

// signerChain judges the chain of TCB info or QE identity.
func (a *appraisal) signerChain(chain []*x509.Certificate, root *x509.Certificate) error {
	if name := chain[0].Subject.CommonName; name != nameTCBSigning {
		return fmt.Errorf("the signer is %q, want %q", name, nameTCBSigning)
	}
	if err := pki.EndEntity(chain[0]); err != nil {
		return err
	}
	return a.issuerChain(chain, root)
}

func parseCRL(der []byte) (*x509.RevocationList, error) { return pki.ParseCRL(der, maxCRLBytes) }

// notRevoked looks certificates up in the CRL of their issuer.
func notRevoked(crl *x509.RevocationList, certificates ...*x509.Certificate) check.Finding {
	const want = "not revoked"
	if cert, since := pki.Revoked(crl, certificates...); cert != nil {
		return check.Found(fmt.Sprintf("%s %x revoked at %s", cert.Subject.CommonName, cert.SerialNumber,
			since.UTC().Format(time.RFC3339)), want, false)
	}
	return check.Found(want, want, true)
}

// masked returns b with the bits outside mask cleared.
func masked(b, mask []byte) []byte {
	out := bytes.Clone(b)
	for i := range out {
		out[i] &= mask[i]
	}
	return out
}
