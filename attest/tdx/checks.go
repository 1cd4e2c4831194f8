package tdx

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"slices"

	"chrysalis/attest/check"
	"chrysalis/attest/pki"
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
var quoteChecks = []check.Step[*appraisal]{
	{Name: "quote-format", Proof: true, Judge: func(a *appraisal) (f check.Finding) {
		var err error
		a.quote, err = Parse(a.raw)
		return check.Parsed(err, "a TDX quote of version 4 or 5")
	}},
	{Name: "pck-chain-format", Proof: true, Judge: func(a *appraisal) check.Finding {
		chain := a.quote.PCKChain
		if a.quote.Certification.Type != 0 {
			if a.collateral == nil || a.collateral.PCKChain == nil {
				return check.Finding{Got: a.quote.chainless(), Want: "the PCK's chain beside it", Unavailable: true}
			}
			chain = a.collateral.PCKChain // the PCK of another machine has not signed the QE report
		}
		a.chainProof = a.chainOf("pck chain", chain, 3, a.pckChain)
		a.chain = a.chainProof.value
		return check.Parsed(a.chainProof.format, "PEM of the PCK, its CA and the root")
	}},
	{Name: "pck-chain", Proof: true, Judge: func(a *appraisal) check.Finding {
		return check.Holds(a.chainProof.signed, "a PCK under the trusted root")
	}},
	{Name: "pck-dates", Judge: func(a *appraisal) check.Finding { return pki.Dates(a.at, a.chain...) }},
	{Name: "pck-extension-format", Proof: true, Judge: func(a *appraisal) check.Finding {
		var err error
		a.platform, err = check.Prove(a.options.Facts, "platform", func() (Platform, error) { return parsePlatform(a.chain[0]) }, a.chain[0].Raw)
		return check.Parsed(err, "an SGX extension")
	}},
	{Name: "pck-extension-known", Waived: func(a *appraisal) bool { return a.options.AllowUnknownExtension }, Judge: func(a *appraisal) check.Finding {
		const want = "entries of the SGX extension that this build knows"
		if unknown := a.platform.unknown; unknown != "" {
			return check.Found("unknown entries "+unknown, want, false)
		}
		return check.Found(want, want, true)
	}},
	{Name: "qe-report-signature", Proof: true, Judge: func(a *appraisal) check.Finding {
		a.qeReport = parseQEReport(a.quote.QEReport)
		return signature(a.chain[0].PublicKey.(*ecdsa.PublicKey), a.quote.QEReport[:], a.quote.QEReportSignature, "the PCK")
	}},
	{Name: "qe-report-data", Proof: true, Judge: func(a *appraisal) check.Finding {
		h := sha256.New()
		h.Write(a.quote.AttestationKey[:])
		h.Write(a.quote.QEAuthData)
		digest := h.Sum(nil)
		var want [64]byte
		copy(want[:], digest[:])
		return check.Same(a.qeReport.ReportData[:], want[:])
	}},
	{Name: "quote-signature", Proof: true, Judge: func(a *appraisal) check.Finding {
		key, err := parsePoint(a.quote.AttestationKey)
		if err != nil {
			return check.Found(err.Error(), "a point on P-256", false)
		}
		f := signature(key, a.quote.signedBytes(), a.quote.Signature, "the attestation key")
		a.attestationKeyProven = f.OK
		return f
	}},
	{Name: "certification-data", Judge: func(a *appraisal) check.Finding { return certifies(a.quote.Certification, &a.platform, a.chain[0]) }},
}

// pckChain checks the chain in the quote up to the trusted root.
func (a *appraisal) pckChain(chain []*x509.Certificate, root *x509.Certificate) error {
	pck, ca, top := chain[0], chain[1], chain[2]
	switch {
	case !top.Equal(root):
		return fmt.Errorf("the chain ends in another root, %q", top.Subject.CommonName)
	case ca.Subject.CommonName != namePlatformCA && ca.Subject.CommonName != nameProcessorCA:
		return fmt.Errorf("the CA is %q, want %q or %q", ca.Subject.CommonName, namePlatformCA, nameProcessorCA)
	case pck.Subject.CommonName != namePCK:
		return fmt.Errorf("the certificate is %q, want %q", pck.Subject.CommonName, namePCK)
	}
	a.proveBeside() // a chain that is not remembered comes with collateral that is not, as a rule
	if err := a.signedBy(ca, root); err != nil {
		return fmt.Errorf("the CA: %w", err)
	}
	if err := a.signedBy(pck, ca); err != nil {
		return fmt.Errorf("the PCK: %w", err)
	}
	return pki.EndEntity(pck)
}

// certifies judges whether certification data without a chain names the PCK whose chain stands beside the quote, as far as it can be
// told: an encrypted PPID can't, and the security versions in it are those of the machine, of which a PCK may have lower ones. Nothing
// signs the data, and nothing else of it is believed.
func certifies(c Certification, p *Platform, pck *x509.Certificate) check.Finding {
	const want = "certification data that names this PCK"
	switch c.Type {
	case 1, 2, 3:
		pceID := c.Data[len(c.Data)-2:]
		if !bytes.Equal(pceID, p.PCEID[:]) {
			return check.Found(fmt.Sprintf("PCE %x", pceID), fmt.Sprintf("%s, of PCE %x", want, p.PCEID), false)
		}
		if ppid := c.Data[:16]; c.Type == 1 && !bytes.Equal(ppid, p.PPID[:]) {
			return check.Found(fmt.Sprintf("PPID %x", ppid), fmt.Sprintf("%s, of PPID %x", want, p.PPID), false)
		}
	case 4:
		der := c.Data
		if chain, err := pki.ParsePEM(c.Data, maxChainBytes, 1); err == nil {
			der = chain[0].Raw
		}
		if !bytes.Equal(bytes.TrimRight(der, "\x00"), pck.Raw) {
			return check.Found("another certificate", want, false)
		}
	}
	return check.Found(want, want, true)
}

// bodyChecks judge how the TD was set up.
var bodyChecks = []check.Step[*appraisal]{
	{Name: "td-debug", Waived: func(a *appraisal) bool { return a.options.InsecureAllowDebug }, Judge: func(a *appraisal) check.Finding {
		if a.quote.Body.Debug() {
			return check.Found("a TD under debug: its host reads its memory", "DEBUG off", false)
		}
		return check.Found("DEBUG off", "DEBUG off", true)
	}},
	{Name: "td-sept-ve-disable", Waived: func(a *appraisal) bool { return a.options.InsecureAllowSEPTVE },
		Judge: func(a *appraisal) check.Finding {
			return bit(a.quote.Body.attributes()&attributeSEPTVEDisable != 0, true, "SEPT_VE_DISABLE")
		}},
	{Name: "td-migratable", Waived: func(a *appraisal) bool { return a.options.InsecureAllowMigratable },
		Judge: func(a *appraisal) check.Finding {
			return bit(a.quote.Body.attributes()&attributeMigratable != 0, false, "MIGRATABLE")
		}},
	{Name: "td-attributes", Judge: func(a *appraisal) check.Finding {
		rest := a.quote.Body.attributes() &^ (allowedAttributes | attributeMigratable | attributeDebug)
		return check.Saying(rest == 0, func() (string, string) { return fmt.Sprintf("%#x", rest), "no profiling, reserved or other bits" })
	}},
	{Name: "xfam", Judge: func(a *appraisal) check.Finding {
		xfam := binary.LittleEndian.Uint64(a.quote.Body.XFAM[:])
		return check.Saying(xfam&xfamAlways == xfamAlways, func() (string, string) {
			return fmt.Sprintf("%#x", xfam), fmt.Sprintf("the bits %#x, which are always on", xfamAlways)
		})
	}},
	{Name: "xfam-known", Waived: func(a *appraisal) bool { return a.options.AllowUnknownXFAM }, Judge: func(a *appraisal) check.Finding {
		xfam := binary.LittleEndian.Uint64(a.quote.Body.XFAM[:])
		return check.Saying(xfam&^xfamMay == 0, func() (string, string) {
			return fmt.Sprintf("unknown bits %#x", xfam&^xfamMay), fmt.Sprintf("none but %#x, which this build knows", xfamMay)
		})
	}},
	{Name: "mr-seam", Judge: func(a *appraisal) check.Finding {
		got := a.quote.Body.MRSEAM
		modules := a.options.MRSEAM
		return check.Saying(len(modules) == 0 || slices.Contains(modules, got), func() (string, string) {
			if len(modules) == 0 {
				return fmt.Sprintf("%x", got), "any TDX module, judged by its signer and its security version"
			}
			return fmt.Sprintf("%x", got), fmt.Sprintf("one of %x", modules)
		})
	}},
	{Name: "mr-signer-seam", Judge: func(a *appraisal) check.Finding { return zeros(a.quote.Body.MRSIGNERSEAM[:]) }},
	{Name: "seam-attributes", Judge: func(a *appraisal) check.Finding { return zeros(a.quote.Body.SEAMAttributes[:]) }},
	{Name: "mr-service-td", Judge: func(a *appraisal) check.Finding {
		got, listed := a.quote.Body.MRSERVICETD, a.options.ServiceTDs
		return check.Saying(got == [48]byte{} || slices.Contains(listed, got), func() (string, string) {
			want := "no service TD"
			if len(listed) != 0 {
				want += fmt.Sprintf(", or one of %x", listed)
			}
			return fmt.Sprintf("%x", got), want
		})
	}},
}

func (b *Body) attributes() uint64 { return binary.LittleEndian.Uint64(b.TDAttributes[:]) }

func bit(got, want bool, name string) check.Finding {
	say := func(on bool) string {
		if on {
			return name + " on"
		}
		return name + " off"
	}
	return check.Saying(got == want, func() (string, string) { return say(got), say(want) })
}

// checkCollateral is the name of the check whose refusal means that nothing could be checked.
const checkCollateral = "collateral"

var collateralCheck = check.Step[*appraisal]{Name: checkCollateral, Proof: true, Unavailable: true,
	Waived: func(a *appraisal) bool { return a.options.InsecureSkipTCB }, Judge: func(a *appraisal) check.Finding {
		if a.collateral == nil {
			return check.Found("none", "collateral", false)
		}
		a.joinBeside()
		return check.Found("collateral", "collateral", true)
	}}

// withCollateral reports whether there is any. Whether there must be is the check collateral.
func withCollateral(a *appraisal) bool { return a.collateral != nil }

// issuerChain judges the chain of a signed document: a signer directly under the trusted root.
func (a *appraisal) issuerChain(chain []*x509.Certificate, root *x509.Certificate) error {
	if !chain[1].Equal(root) {
		return fmt.Errorf("the chain ends in another root, %q", chain[1].Subject.CommonName)
	}
	return a.signedBy(chain[0], root)
}
