package tdx

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"
)

// crlChecks prove that nobody in the PCK's chain is revoked.
var crlChecks = []check{
	{name: "root-crl-format", proof: true, collateral: true, judge: func(a *appraisal) finding {
		var err error
		a.rootCRL, err = parseCRL(a.collateral.RootCACRL)
		return parsed(err, "the root's CRL")
	}},
	{name: "root-crl-signature", proof: true, collateral: true, judge: func(a *appraisal) finding {
		return holds(crlBy(a.rootCRL, a.root), "signed by the trusted root")
	}},
	{name: "root-crl-dates", collateral: true, judge: func(a *appraisal) finding {
		return between(a.at, a.rootCRL.ThisUpdate, a.rootCRL.NextUpdate)
	}},
	{name: "pck-crl-chain-format", proof: true, collateral: true, judge: func(a *appraisal) finding {
		var err error
		a.crlChain, err = parseChain(a.collateral.PCKCRLIssuerChain, 2)
		return parsed(err, "PEM of the CRL's signer and the root")
	}},
	{name: "pck-crl-chain", proof: true, collateral: true, judge: func(a *appraisal) finding {
		return holds(issuerChain(a.crlChain, a.root), "a CA under the trusted root")
	}},
	{name: "pck-crl-chain-dates", collateral: true, judge: func(a *appraisal) finding { return certificateDates(a.at, a.crlChain...) }},
	{name: "pck-crl-issuer", proof: true, collateral: true, judge: func(a *appraisal) finding {
		// The CRL of another CA, or of another key under the same name, says nothing of this PCK.
		signer, ca := a.crlChain[0], a.chain[1]
		ok := bytes.Equal(signer.RawSubject, ca.RawSubject) && bytes.Equal(signer.RawSubjectPublicKeyInfo, ca.RawSubjectPublicKeyInfo)
		return finding{fmt.Sprintf("%s, key %x", signer.Subject.CommonName, signer.SubjectKeyId), fmt.Sprintf("%s, key %x, the PCK's own CA", ca.Subject.CommonName, ca.SubjectKeyId), ok}
	}},
	{name: "pck-crl-format", proof: true, collateral: true, judge: func(a *appraisal) finding {
		var err error
		a.pckCRL, err = parseCRL(a.collateral.PCKCRL)
		return parsed(err, "a PCK CRL")
	}},
	{name: "pck-crl-signature", proof: true, collateral: true, judge: func(a *appraisal) finding {
		return holds(crlBy(a.pckCRL, a.crlChain[0]), "signed by the head of its chain")
	}},
	{name: "pck-crl-dates", collateral: true, judge: func(a *appraisal) finding {
		return between(a.at, a.pckCRL.ThisUpdate, a.pckCRL.NextUpdate)
	}},
	{name: "pck-revoked", collateral: true, judge: func(a *appraisal) finding { return notRevoked(a.pckCRL, a.chain[0]) }},
	{name: "pck-ca-revoked", collateral: true, judge: func(a *appraisal) finding { return notRevoked(a.rootCRL, a.chain[1], a.crlChain[0]) }},
}

// tcbInfoChecks prove what Intel says of machines of this kind, and that it says it of this machine.
var tcbInfoChecks = []check{
	{name: "tcb-info-chain-format", proof: true, collateral: true, judge: func(a *appraisal) finding {
		var err error
		a.tcbInfoChain, err = parseChain(a.collateral.TCBInfoIssuerChain, 2)
		return parsed(err, "PEM of the signer and the root")
	}},
	{name: "tcb-info-chain", proof: true, collateral: true, judge: func(a *appraisal) finding {
		return holds(signerChain(a.tcbInfoChain, a.root), "TCB signing under the trusted root")
	}},
	{name: "tcb-info-signer-dates", collateral: true, judge: func(a *appraisal) finding { return certificateDates(a.at, a.tcbInfoChain...) }},
	{name: "tcb-info-signer-revoked", collateral: true, judge: func(a *appraisal) finding { return notRevoked(a.rootCRL, a.tcbInfoChain[0]) }},
	{name: "tcb-info-signature", proof: true, collateral: true, judge: func(a *appraisal) finding {
		return signature(a.tcbInfoChain[0].PublicKey.(*ecdsa.PublicKey), a.collateral.TCBInfo, a.collateral.TCBInfoSignature, "its signer")
	}},
	{name: "tcb-info-format", proof: true, collateral: true, judge: func(a *appraisal) finding {
		var err error
		a.info, err = parseTCBInfo(a.collateral.TCBInfo)
		return parsed(err, "TCB info of version 3 for TDX")
	}},
	{name: "tcb-info-dates", collateral: true, judge: func(a *appraisal) finding { return between(a.at, a.info.issued, a.info.next) }},
	{name: "tcb-info-evaluation", collateral: true, judge: func(a *appraisal) finding { return a.floor(a.info.evaluation) }},
	{name: "fmspc", collateral: true, judge: func(a *appraisal) finding { return same(a.info.fmspc[:], a.platform.FMSPC[:]) }},
	{name: "pce-id", collateral: true, judge: func(a *appraisal) finding { return same(a.info.pceID[:], a.platform.PCEID[:]) }},
	{name: "tdx-module-signer", collateral: true, judge: func(a *appraisal) finding {
		identity := a.module()
		if identity == nil {
			return finding{"unknown module", "judged by tcb-status", true}
		}
		return same(a.quote.Body.MRSIGNERSEAM[:], identity.signer[:])
	}},
	{name: "tdx-module-attributes", collateral: true, judge: func(a *appraisal) finding {
		identity := a.module()
		if identity == nil {
			return finding{"unknown module", "judged by tcb-status", true}
		}
		got := a.quote.Body.SEAMAttributes
		return same(masked(got[:], identity.mask[:]), identity.attributes[:])
	}},
}

// module returns the identity by which the TD's module is judged: a module with a version has one of its own. It is nil
// when the TCB info does not know the version; tcb-status then refuses.
func (a *appraisal) module() *moduleIdentity {
	if version := a.quote.Body.TEETCBSVN[1]; version > 0 {
		return a.info.module(version)
	}
	return &a.info.tdxModule
}

// qeIdentityChecks prove that the quoting enclave, which holds the attestation key, is Intel's.
var qeIdentityChecks = []check{
	{name: "qe-identity-chain-format", proof: true, collateral: true, judge: func(a *appraisal) finding {
		var err error
		a.qeIDChain, err = parseChain(a.collateral.QEIdentityIssuerChain, 2)
		return parsed(err, "PEM of the signer and the root")
	}},
	{name: "qe-identity-chain", proof: true, collateral: true, judge: func(a *appraisal) finding {
		return holds(signerChain(a.qeIDChain, a.root), "TCB signing under the trusted root")
	}},
	{name: "qe-identity-signer-dates", collateral: true, judge: func(a *appraisal) finding { return certificateDates(a.at, a.qeIDChain...) }},
	{name: "qe-identity-signer-revoked", collateral: true, judge: func(a *appraisal) finding { return notRevoked(a.rootCRL, a.qeIDChain[0]) }},
	{name: "qe-identity-signature", proof: true, collateral: true, judge: func(a *appraisal) finding {
		return signature(a.qeIDChain[0].PublicKey.(*ecdsa.PublicKey), a.collateral.QEIdentity, a.collateral.QEIdentitySignature, "its signer")
	}},
	{name: "qe-identity-format", proof: true, collateral: true, judge: func(a *appraisal) finding {
		var err error
		a.qeID, err = parseQEIdentity(a.collateral.QEIdentity)
		return parsed(err, "identity of version 2 of the quoting enclave for TDs")
	}},
	{name: "qe-identity-dates", collateral: true, judge: func(a *appraisal) finding { return between(a.at, a.qeID.issued, a.qeID.next) }},
	{name: "qe-identity-evaluation", collateral: true, judge: func(a *appraisal) finding { return a.floor(a.qeID.evaluation) }},
	{name: "qe-signer", collateral: true, judge: func(a *appraisal) finding { return same(a.qeReport.MRSIGNER[:], a.qeID.signer[:]) }},
	{name: "qe-product", collateral: true, judge: func(a *appraisal) finding {
		return finding{fmt.Sprint(a.qeReport.ISVProdID), fmt.Sprint(a.qeID.prodID), a.qeReport.ISVProdID == a.qeID.prodID}
	}},
	{name: "qe-misc-select", collateral: true, judge: func(a *appraisal) finding {
		return same(masked(a.qeReport.MiscSelect[:], a.qeID.miscSelectMask[:]), a.qeID.miscSelect[:])
	}},
	{name: "qe-attributes", collateral: true, judge: func(a *appraisal) finding {
		return same(masked(a.qeReport.Attributes[:], a.qeID.attributesMask[:]), a.qeID.attributes[:])
	}},
}

// statusChecks judge what the security versions amount to.
var statusChecks = []check{
	{name: "tcb-status", collateral: true, waived: func(o Options) bool { return o.InsecureSkipTCB }, judge: func(a *appraisal) finding {
		a.tcb = judgeTCB(a.info, a.platform, &a.quote.Body, matchISVSVN(a.qeID.levels, a.qeReport.ISVSVN))
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
		return finding{got, strings.Join(want, " or "), ok}
	}},
}

func (a *appraisal) floor(got uint32) finding {
	return finding{fmt.Sprint(got), fmt.Sprintf("at least %d", a.options.MinTCBEvaluation), got >= a.options.MinTCBEvaluation}
}

// signerChain judges the chain of TCB info or QE identity.
func signerChain(chain []*x509.Certificate, root *x509.Certificate) error {
	if name := chain[0].Subject.CommonName; name != nameTCBSigning {
		return fmt.Errorf("the signer is %q, want %q", name, nameTCBSigning)
	}
	if err := endEntity(chain[0]); err != nil {
		return err
	}
	return issuerChain(chain, root)
}

func parseCRL(der []byte) (*x509.RevocationList, error) {
	if len(der) > maxCRLBytes {
		return nil, fmt.Errorf("%d bytes, want at most %d", len(der), maxCRLBytes)
	}
	crl, err := x509.ParseRevocationList(der)
	if err != nil {
		return nil, err
	}
	if crl.NextUpdate.IsZero() {
		return nil, errors.New("no nextUpdate")
	}
	for _, e := range crl.Extensions {
		// A delta CRL or one of a part of the certificates says so in a critical extension.
		if e.Critical {
			return nil, fmt.Errorf("critical extension %v is unknown", e.Id)
		}
	}
	return crl, nil
}

func crlBy(crl *x509.RevocationList, issuer *x509.Certificate) error {
	if !bytes.Equal(crl.RawIssuer, issuer.RawSubject) {
		return fmt.Errorf("issuer is %q, want %q", crl.Issuer, issuer.Subject)
	}
	if crl.SignatureAlgorithm != x509.ECDSAWithSHA256 {
		return fmt.Errorf("signature is %s, want %s", crl.SignatureAlgorithm, x509.ECDSAWithSHA256)
	}
	return crl.CheckSignatureFrom(issuer)
}

// notRevoked looks certificates up in the CRL of their issuer.
func notRevoked(crl *x509.RevocationList, certificates ...*x509.Certificate) finding {
	const want = "not revoked"
	for _, cert := range certificates {
		if since, ok := revokedAt(crl, cert.SerialNumber); ok {
			return finding{fmt.Sprintf("%s %x revoked at %s", cert.Subject.CommonName, cert.SerialNumber, since.UTC().Format(timeLayout)), want, false}
		}
	}
	return finding{want, want, true}
}

func revokedAt(crl *x509.RevocationList, serial *big.Int) (time.Time, bool) {
	for _, entry := range crl.RevokedCertificateEntries {
		if entry.SerialNumber.Cmp(serial) == 0 {
			return entry.RevocationTime, true
		}
	}
	return time.Time{}, false
}

// masked returns b with the bits outside mask cleared.
func masked(b, mask []byte) []byte {
	out := bytes.Clone(b)
	for i := range out {
		out[i] &= mask[i]
	}
	return out
}
