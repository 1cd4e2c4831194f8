package nvidia

import (
	"bytes"
	"cmp"
	"crypto/ecdsa"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"chrysalis/attest/check"
	"chrysalis/attest/pki"
)

// device is the appraisal of one.
type device struct {
	m        *machine
	kind     Kind
	number   int
	evidence Device

	report       *Report
	claims       Claims
	chain        chain
	id           ID
	architecture Architecture
	signed       bool // the report's signature has been verified, under a root
	driver       *RIM // nil where there is none
	vbios        *RIM
	statuses     map[string][]status // of each chain, by its name
	compared     int
	mismatches   []Mismatch
}

func (d *device) name() string { return fmt.Sprintf("%s.%d", d.kind, d.number) }

func (d *device) appraised() Appraised {
	a := Appraised{Kind: d.kind, ID: d.id, Architecture: d.architecture, Claims: d.claims, Compared: d.compared}
	for _, of := range documents {
		if r := of.rim(d); r != nil {
			a.RIMs = append(a.RIMs, UsedRIM{of.named(d), r.Tag})
		}
	}
	return a
}

// document is one of the two documents of reference values that a device has: a GPU's driver, and the firmware of its own.
type document struct {
	name    string // of its checks
	of      func(*device) bool
	named   func(*device) string // as NVIDIA's service does
	version func(*device) string
	rim     func(*device) *RIM
	set     func(*device, *RIM)
	cure    string
}

var documents = []document{
	{"driver-rim", func(d *device) bool { return d.kind == GPU }, func(d *device) string { return d.claims.DriverRIM(d.architecture) },
		func(d *device) string { return d.claims.Driver }, func(d *device) *RIM { return d.driver }, func(d *device, r *RIM) { d.driver = r },
		"driver"},
	{"vbios-rim", func(*device) bool { return true }, func(d *device) string { return d.claims.VBIOSRIM(d.kind) },
		func(d *device) string { return d.claims.VBIOS }, func(d *device) *RIM { return d.vbios }, func(d *device, r *RIM) { d.vbios = r },
		"VBIOS"},
}

// is reports whether reference values are the document of the device: by their name, or by what they are of.
func (of document) is(d *device, r *RIM) bool {
	if r.Form == FormCoRIM {
		return r.Tag == of.named(d)
	}
	chip := strings.ReplaceAll(d.id.Chip, "_", "")
	return strings.EqualFold(r.Edition, string(d.kind)) && strings.EqualFold(r.Version, of.version(d)) &&
		(r.Product == chip || d.claims.Chip != "" && r.Product == d.claims.Chip)
}

// deviceChecks lists the appraisal of a device in order. Nothing in the evidence changes the list.
var deviceChecks = slices.Concat(reportChecks, deviceCertificates.checks(), documents[0].checks(), documents[1].checks(), measurementChecks)

// reportChecks prove that a root vouches for the key that signed, and judge which device it is and what it says of itself.
var reportChecks = []check.Step[*device]{
	{Name: "report-format", Proof: true, Judge: func(d *device) check.Finding {
		r, err := Parse(d.evidence.Report)
		d.report = r
		return check.Holds(err, "a request and a response of SPDM 1.1")
	}},
	{Name: "claims-format", Proof: true, Judge: func(d *device) check.Finding {
		read := d.report.Claims
		if d.kind == Switch {
			read = d.report.SwitchClaims
		}
		c, err := read()
		d.claims = c
		return check.Holds(err, "opaque data of a "+string(d.kind))
	}},
	{Name: "chain-format", Proof: true, Judge: func(d *device) check.Finding {
		c, err := check.Prove(d.m.facts, "nvidia chain", func() (chain, error) {
			return parsePEM(d.m.facts, bytes.Clone(d.evidence.Chain),
				minDeviceChain)
		}, d.evidence.Chain)
		if err == nil {
			d.chain = c
			d.id, err = c.parseID()
		}
		return check.Holds(err, "certificates of a device, each signed by the next")
	}},
	{Name: "root", Proof: true, Judge: func(d *device) check.Finding {
		return check.Found(d.chain.root().Subject.CommonName, "a root that is trusted", d.chain.trusted(d.m.roots.Device))
	}},
	{Name: "signature", Proof: true, Judge: func(d *device) check.Finding {
		const want = "a signature by the device's firmware"
		digest := sha512.Sum384(d.evidence.Report[:len(d.evidence.Report)-signatureSize])
		d.signed = pki.SignedRaw(d.chain.leaf().PublicKey.(*ecdsa.PublicKey), digest[:], d.report.Signature[:])
		if !d.signed {
			return check.Found("a signature that does not verify", want, false)
		}
		return check.Found(want, want, true)
	}},
	{Name: "chain-validity", Judge: func(d *device) check.Finding { return pki.Dates(d.m.at, d.chain...) }},
	{Name: "chip", Judge: func(d *device) check.Finding {
		d.architecture = architectureOf(d.id.Chip)
		if d.kind == Switch {
			return check.Found(d.id.Chip, switchChip, d.id.Chip == switchChip)
		}
		const want = "a GPU of Hopper or Blackwell"
		if d.architecture == "" && d.id.Chip != switchChip {
			return check.Found(d.id.Chip+", "+newest, want, false)
		}
		return check.Found(d.id.Chip, want, d.architecture != "")
	}},
	{Name: "chip-named", Judge: func(d *device) check.Finding {
		// GB20X is the certificates' name for all of that line.
		line := strings.TrimSuffix(d.id.Chip, "X")
		return check.Saying(d.claims.Chip == "" || strings.HasPrefix(d.claims.Chip, line), func() (string, string) {
			return cmp.Or(d.claims.Chip, "no chip") + " in the report", d.id.Chip + " as the certificate, or none"
		})
	}},
	{Name: "device", Waived: func(d *device) bool { return d.m.options.AnyDevice && len(d.m.options.Devices) == 0 },
		Judge: func(d *device) check.Finding {
			return check.Saying(slices.Contains(d.m.options.Devices, d.id), func() (string, string) {
				return d.id.String(),
					"a device that the options name"
			})
		}},
	{Name: "architecture", Applies: isGPU,
		Waived: func(d *device) bool { return d.m.options.AnyArchitecture && len(d.m.options.Architectures) == 0 },
		Judge: func(d *device) check.Finding {
			return check.Saying(slices.Contains(d.m.options.Architectures, d.architecture), func() (string, string) {
				return string(d.architecture), fmt.Sprintf("one of %q", d.m.options.Architectures)
			})
		}},
	{Name: "nonce", Waived: func(d *device) bool { return d.m.options.AnyNonce && d.m.options.Nonce == [nonceSize]byte{} },
		Judge: func(d *device) check.Finding {
			return check.Same(d.report.Nonce[:], d.m.options.Nonce[:])
		}},
	{Name: "fwid-present", Applies: isGPU, Waived: func(d *device) bool { return d.m.options.AllowMissingFWID },
		Judge: func(d *device) check.Finding {
			const want = "the firmware that holds the key, in the report"
			if d.claims.FWID == nil {
				return check.Found("none", want, false)
			}
			return check.Found(want, want, true)
		}},
	{Name: "fwid", Judge: func(d *device) check.Finding {
		certified, err := d.chain.firmware()
		switch {
		case err != nil:
			return check.Holds(err, "a certificate of the firmware that holds the key")
		case d.claims.FWID == nil:
			return check.Found("none in the report", "none, or the certificate's", true)
		}
		return check.Same(d.claims.FWID, certified)
	}},
	{Name: "mode", Applies: isGPU, Waived: func(d *device) bool { return d.m.options.AnyMode && len(d.m.options.Modes) == 0 },
		Judge: func(d *device) check.Finding {
			return check.Saying(slices.Contains(d.m.options.Modes, d.claims.Mode), func() (string, string) {
				return string(d.claims.Mode), fmt.Sprintf("one of %q", d.m.options.Modes)
			})
		}},
	{Name: "protected-pcie", Applies: isGPU, Judge: func(d *device) check.Finding {
		// Where the feature flag and the status of PCIe are both there, they say one thing.
		ok := d.claims.ProtectedPCIe == (d.claims.Mode == ModePPCIe)
		return check.Saying(ok, func() (string, string) {
			return fmt.Sprintf("protected: %t, in the mode %s", d.claims.ProtectedPCIe, d.claims.Mode), "protected in the mode ppcie alone"
		})
	}},
	{Name: "driver-minimum", Applies: isGPU, Waived: func(d *device) bool {
		return d.m.options.InsecureSkipMinimum &&
			d.m.options.MinDriver == ""
	},
		Judge: func(d *device) check.Finding { return atLeast(d.claims.Driver, d.m.options.MinDriver, 10, "driver") }},
	{Name: "vbios-minimum", Waived: func(d *device) bool { return d.m.options.InsecureSkipMinimum && len(d.m.options.MinVBIOS) == 0 },
		Judge: func(d *device) check.Finding {
			return atLeast(d.claims.VBIOS, d.m.options.MinVBIOS[d.id.Chip], 16, "VBIOS of the "+d.id.Chip)
		}},
}

func isGPU(d *device) bool { return d.kind == GPU }

// atLeast compares versions. What has to be updated is said with the refusal.
func atLeast(got, least string, base int, what string) check.Finding {
	if least == "" {
		return check.Found(got, "a minimum for the "+what+", which the options do not give", false)
	}
	v, err := parseVersion(got, base)
	if err != nil {
		return check.Holds(err, what)
	}
	w, err := parseVersion(least, base)
	if err != nil {
		return check.Found(got, "the options' minimum for the "+what+" to be a version: "+err.Error(), false)
	}
	if v.below(w) {
		return check.Found(got, "at least "+least+"; update the "+what, false)
	}
	return check.Saying(true, func() (string, string) { return got, "at least " + least })
}

// checks prove that a root vouches for the reference values of one document, and judge whether they are those of the device.
func (of document) checks() []check.Step[*device] {
	named := func(suffix string) string { return of.name + suffix }
	with := func(judge func(*device, *RIM) check.Finding) func(*device) check.Finding {
		return func(d *device) check.Finding {
			if r := of.rim(d); r != nil {
				return judge(d, r)
			}
			return check.Found("no document", "no document", true)
		}
	}
	return slices.Concat([]check.Step[*device]{
		{Name: of.name, Applies: of.of, Unavailable: true, Waived: func(d *device) bool { return d.m.options.InsecureSkipRIM },
			Judge: func(d *device) check.Finding {
				return of.find(d)
			}},
		{Name: named("-signature"), Applies: of.of, Proof: true, Judge: with(func(_ *device, r *RIM) check.Finding {
			return check.Holds(r.wrong, "a document that its first certificate's key signed")
		})},
		{Name: named("-root"), Applies: of.of, Proof: true, Judge: with(func(d *device, r *RIM) check.Finding {
			return check.Found(r.chain.root().Subject.CommonName, "a root that is trusted for reference values", r.chain.trusted(d.m.roots.RIM))
		})},
		{Name: named("-validity"), Applies: of.of, Judge: with(func(d *device, r *RIM) check.Finding {
			if f := pki.Dates(d.m.at, r.chain...); !f.OK || r.notAfter.IsZero() {
				return f
			}
			return pki.Between(d.m.at, r.notBefore, r.notAfter)
		})},
		{Name: named("-allowed"), Applies: of.of, Waived: func(d *device) bool { return d.m.options.AnyRIM && len(d.m.options.RIMs) == 0 },
			Judge: with(func(d *device, r *RIM) check.Finding {
				name := of.named(d)
				ok := slices.Contains(d.m.options.RIMs, name) || slices.Contains(d.m.options.RIMs, r.Tag)
				return check.Saying(ok, func() (string, string) { return name + ", tag " + r.Tag, "a document that the options name" })
			})},
	}, certificates{of.name, of.of, func(d *device) chain {
		if r := of.rim(d); r != nil {
			return r.chain
		}
		return nil
	}, 0}.checks())
}

// find finds the one document of the device. Others are of no matter, and two would leave it to whoever hands them in which is believed.
func (of document) find(d *device) check.Finding {
	want := "one document of reference values for the " + of.cure + ": " + of.named(d)
	var names []string
	for _, r := range d.m.rims {
		if of.is(d, r) {
			of.set(d, r)
			names = append(names, r.String())
		}
	}
	switch len(names) {
	case 1:
		return check.Saying(true, func() (string, string) { return names[0], want })
	case 0:
		return check.Found(fmt.Sprintf("none among %d", len(d.m.rims)), want, false)
	}
	of.set(d, nil)
	return check.Found(fmt.Sprintf("%d: %q", len(names), names), want, false)
}

// decoderIndex is the measurement of the decoder 0, which not every GPU has.
const decoderIndex = 36

// measurementChecks compare what was measured with the reference values.
var measurementChecks = []check.Step[*device]{
	{Name: "measurement-conflict", Applies: isGPU, Judge: func(d *device) check.Finding {
		const want = "no measurement that both documents have"
		if d.driver == nil || d.vbios == nil {
			return check.Found(want, want, true)
		}
		for _, a := range d.driver.References {
			if slices.ContainsFunc(d.vbios.References, func(b Reference) bool { return a.Index == b.Index }) {
				return check.Found(fmt.Sprintf("measurement %d is in both", a.Index), want, false)
			}
		}
		return check.Found(want, want, true)
	}},
	{Name: "measurements", Judge: func(d *device) check.Finding {
		for _, of := range documents {
			if r := of.rim(d); r != nil {
				d.compare(r, of.named(d))
			}
		}
		want := "measurements as the reference values have them"
		if len(d.mismatches) == 0 {
			n := d.compared
			return check.Saying(true, func() (string, string) { return fmt.Sprintf("%d compared", n), want })
		}
		got := fmt.Sprintf("%d of %d differ", len(d.mismatches), d.compared)
		for _, m := range d.mismatches[:min(maxSaid, len(d.mismatches))] {
			got += "; " + m.String()
		}
		return check.Found(got, want, false)
	}},
}

const maxSaid = 4 // mismatches in words

func (m Mismatch) String() string {
	text := hex.EncodeToString(m.Got)
	if m.Got == nil {
		text = "missing"
	}
	wanted := make([]string, 0, len(m.Want))
	for _, w := range m.Want {
		wanted = append(wanted, hex.EncodeToString(w))
	}
	return fmt.Sprintf("measurement %d is %s, and %s wants %s", m.Index, text, m.RIM, strings.Join(wanted, " or "))
}

func (d *device) compare(r *RIM, name string) {
	for _, reference := range r.References {
		if reference.Index == decoderIndex && d.kind == GPU && !d.claims.Decoder {
			continue
		}
		d.compared++
		if got := d.report.measurement(reference.Index); got == nil || !reference.matches(got) {
			d.mismatches = append(d.mismatches, Mismatch{Device: d.name(), Index: reference.Index, Got: got, Want: reference.Values, RIM: name})
		}
	}
}
