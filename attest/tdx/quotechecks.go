package tdx

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// TD attributes: Intel TDX Module ABI Reference, section "ATTRIBUTES". The first byte is the group TUD: with any of its
// bits the TD is under debug or profiling and keeps nothing from its host.
const (
	attributeDebug         = 1 << 0 // in the first byte
	attributeSEPTVEDisable = uint64(1) << 28
	attributeMigratable    = uint64(1) << 29

	// allowedAttributes: LASS, SEPT_VE_DISABLE, PKS, KL and PERFMON use the processor's features inside the TD alone.
	allowedAttributes = uint64(1)<<27 | attributeSEPTVEDisable | 1<<30 | 1<<31 | 1<<63
)

// XFAM: Intel TDX Module ABI Reference, section "XFAM". x87 and SSE are always on; the others that may be are the
// extended state that TDX virtualises.
const (
	xfamAlways = uint64(0x3)
	xfamMay    = uint64(0x6dbe7)
)

// quoteChecks prove that a machine which the root certifies signed this quote.
var quoteChecks = []check{
	{name: "quote-format", proof: true, judge: func(a *appraisal) (f finding) {
		var err error
		a.quote, err = Parse(a.raw)
		return parsed(err, "a TDX quote of version 4 or 5")
	}},
	{name: "pck-chain-format", proof: true, judge: func(a *appraisal) finding {
		var err error
		a.chain, err = parseChain(a.quote.PCKChain, 3)
		return parsed(err, "PEM of the PCK, its CA and the root")
	}},
	{name: "pck-chain", proof: true, judge: func(a *appraisal) finding {
		return holds(a.verifyPCKChain(), "a PCK under the trusted root")
	}},
	{name: "pck-dates", judge: func(a *appraisal) finding { return certificateDates(a.at, a.chain...) }},
	{name: "pck-extension-format", proof: true, judge: func(a *appraisal) finding {
		var err error
		a.platform, err = parsePlatform(a.chain[0])
		return parsed(err, "an SGX extension")
	}},
	{name: "qe-report-signature", proof: true, judge: func(a *appraisal) finding {
		a.qeReport = parseQEReport(a.quote.QEReport)
		return signature(a.chain[0].PublicKey.(*ecdsa.PublicKey), a.quote.QEReport[:], a.quote.QEReportSignature, "the PCK")
	}},
	{name: "qe-report-data", proof: true, judge: func(a *appraisal) finding {
		digest := sha256.Sum256(slices.Concat(a.quote.AttestationKey[:], a.quote.QEAuthData))
		var want [64]byte
		copy(want[:], digest[:])
		return same(a.qeReport.ReportData[:], want[:])
	}},
	{name: "quote-signature", proof: true, judge: func(a *appraisal) finding {
		key, err := parsePoint(a.quote.AttestationKey)
		if err != nil {
			return finding{err.Error(), "a point on P-256", false}
		}
		f := signature(key, a.quote.signedBytes(), a.quote.Signature, "the attestation key")
		a.attestationKeyProven = f.ok
		return f
	}},
}

// verifyPCKChain checks the chain in the quote up to the trusted root.
func (a *appraisal) verifyPCKChain() error {
	pck, ca, top := a.chain[0], a.chain[1], a.chain[2]
	switch {
	case a.root == nil:
		return errors.New("no root is trusted")
	case !top.Equal(a.root):
		return fmt.Errorf("the chain ends in another root, %q", top.Subject.CommonName)
	case ca.Subject.CommonName != namePlatformCA && ca.Subject.CommonName != nameProcessorCA:
		return fmt.Errorf("the CA is %q, want %q or %q", ca.Subject.CommonName, namePlatformCA, nameProcessorCA)
	case pck.Subject.CommonName != namePCK:
		return fmt.Errorf("the certificate is %q, want %q", pck.Subject.CommonName, namePCK)
	}
	if err := signedBy(ca, a.root); err != nil {
		return fmt.Errorf("the CA: %w", err)
	}
	if err := signedBy(pck, ca); err != nil {
		return fmt.Errorf("the PCK: %w", err)
	}
	return endEntity(pck)
}

// bodyChecks judge how the TD was set up.
var bodyChecks = []check{
	{name: "td-debug", waived: func(o Options) bool { return o.InsecureAllowDebug }, judge: func(a *appraisal) finding {
		if a.quote.Body.Debug() {
			return finding{"a TD under debug: its host reads its memory", "DEBUG off", false}
		}
		return finding{"DEBUG off", "DEBUG off", true}
	}},
	{name: "td-sept-ve-disable", waived: func(o Options) bool { return o.InsecureAllowSEPTVE }, judge: func(a *appraisal) finding {
		return bit(a.quote.Body.attributes()&attributeSEPTVEDisable != 0, true, "SEPT_VE_DISABLE")
	}},
	{name: "td-migratable", waived: func(o Options) bool { return o.InsecureAllowMigratable }, judge: func(a *appraisal) finding {
		return bit(a.quote.Body.attributes()&attributeMigratable != 0, false, "MIGRATABLE")
	}},
	{name: "td-attributes", judge: func(a *appraisal) finding {
		rest := a.quote.Body.attributes() &^ (allowedAttributes | attributeMigratable | attributeDebug)
		return finding{fmt.Sprintf("%#x", rest), "no profiling, reserved or other bits", rest == 0}
	}},
	{name: "xfam", judge: func(a *appraisal) finding {
		xfam := binary.LittleEndian.Uint64(a.quote.Body.XFAM[:])
		return finding{fmt.Sprintf("%#x", xfam), fmt.Sprintf("%#x, and no bits outside %#x", xfamAlways, xfamMay), xfam&xfamAlways == xfamAlways && xfam&^xfamMay == 0}
	}},
	{name: "mr-seam", judge: func(a *appraisal) finding {
		got := a.quote.Body.MRSEAM
		if len(a.options.MRSEAM) == 0 {
			return finding{fmt.Sprintf("%x", got), "any TDX module, judged by its signer and its security version", true}
		}
		return finding{fmt.Sprintf("%x", got), fmt.Sprintf("one of %x", a.options.MRSEAM), slices.Contains(a.options.MRSEAM, got)}
	}},
	{name: "mr-signer-seam", judge: func(a *appraisal) finding { return zeros(a.quote.Body.MRSIGNERSEAM[:]) }},
	{name: "seam-attributes", judge: func(a *appraisal) finding { return zeros(a.quote.Body.SEAMAttributes[:]) }},
	{name: "mr-service-td", judge: func(a *appraisal) finding {
		f := zeros(a.quote.Body.MRSERVICETD[:])
		f.want = "no service TD"
		if len(a.options.ServiceTDs) != 0 {
			f.want += fmt.Sprintf(", or one of %x", a.options.ServiceTDs)
		}
		f.ok = f.ok || slices.Contains(a.options.ServiceTDs, a.quote.Body.MRSERVICETD)
		return f
	}},
}

func (b *Body) attributes() uint64 { return binary.LittleEndian.Uint64(b.TDAttributes[:]) }

func bit(got, want bool, name string) finding {
	say := map[bool]string{true: name + " on", false: name + " off"}
	return finding{say[got], say[want], got == want}
}

// checkCollateral is the name of the check whose refusal means that nothing could be checked.
const checkCollateral = "collateral"

var collateralCheck = check{name: checkCollateral, proof: true, waived: func(o Options) bool { return o.InsecureSkipTCB }, judge: func(a *appraisal) finding {
	if a.collateral == nil {
		return finding{"none", "collateral", false}
	}
	return finding{"collateral", "collateral", true}
}}

// issuerChain judges the chain of a signed document: a signer directly under the trusted root.
func issuerChain(chain []*x509.Certificate, root *x509.Certificate) error {
	switch {
	case root == nil:
		return errors.New("no root is trusted")
	case !chain[1].Equal(root):
		return fmt.Errorf("the chain ends in another root, %q", chain[1].Subject.CommonName)
	}
	return signedBy(chain[0], root)
}
