package attesttest

import (
	"crypto/ed25519"
	"crypto/sha512"
	"time"

	"chrysalis/attest"
	"chrysalis/attest/evidence"
	"chrysalis/attest/release"
	"chrysalis/attest/sevsnp"
	"chrysalis/attest/tdx"
	"chrysalis/measure/cocoon"
	"chrysalis/measure/config"
	"chrysalis/measure/eventlog"
	"chrysalis/measure/register"
)

// TDXGuest is a guest in a TD on the software machine. Report data, MRCONFIGID and RTMR3 follow from the contents when
// Follow is set.
type TDXGuest struct {
	Contents
	Machine *TDX
	Follow  bool
	BootLog []byte
	// Key signs the statement where the config asks for COCOON's public identity, and elsewhere alone where Unlike is set.
	Key    ed25519.PrivateKey
	Unlike bool
	// Body edits the TD's report after it was filled in. May be nil.
	Body func(*tdx.Body)

	built *TDXEvidence
}

// NewTDXGuest returns a guest that serves the config in a TD 1.5.
func NewTDXGuest(measured []byte, now time.Time) *TDXGuest {
	sequence, err := eventlog.SequenceOf(measured)
	check(err)
	g := &TDXGuest{Contents: newContents(measured, sequence.Records(eventlog.InRTMR), now), Machine: NewTDX(now, 5, true), Follow: true,
		Key: ed25519.NewKeyFromSeed(append(make([]byte, 31), 2))}
	g.Machine.Body.MRTD, g.Machine.Body.MROWNER, g.Machine.Body.MROWNERCONFIG = [48]byte{0x3d}, [48]byte{}, [48]byte{}
	for i := range 3 {
		g.Machine.Body.RTMR[i] = [48]byte{0x10, byte(i)}
	}
	return g
}

// SetBoot gives the TD a boot log with a SHA-384 bank, and RTMR0 to RTMR2 as it leaves them. Registers are numbered as in
// such a log: 1 is RTMR0.
func (g *TDXGuest) SetBoot(boot []BootEvent) {
	g.BootLog = bootHeader(0x0c, 48)
	clear(g.Machine.Body.RTMR[:3])
	for _, e := range boot {
		digest := e.digest384()
		g.BootLog = e.append(g.BootLog, 0x0c, digest[:])
		rtmr := &g.Machine.Body.RTMR[e.Register-1]
		*rtmr = eventlog.Extend384(*rtmr, digest)
	}
}

func (e BootEvent) digest384() [48]byte {
	switch {
	case e.Digest != nil:
		return [48]byte(e.Digest)
	case e.Hashed != nil:
		return sha512.Sum384(e.Hashed)
	}
	return sha512.Sum384(e.Data)
}

// build signs certificates and collateral once: what a test changes in the machine it changes before.
func (g *TDXGuest) build() *TDXEvidence {
	if g.built == nil {
		g.built = g.Machine.Build()
	}
	return g.built
}

// Roots returns the machine's root.
func (g *TDXGuest) Roots() attest.Roots { return g.trusting(attest.Roots{TDX: g.build().Root}) }

// Rules returns a policy document that accepts exactly this guest, on any machine.
func (g *TDXGuest) Rules() attest.Rules {
	b := g.Machine.Body
	r := g.rules(release.Release{TDX: []release.TDXValues{{MRTD: b.MRTD, RTMR0: b.RTMR[0], RTMR1: b.RTMR[1], RTMR2: b.RTMR[2]}}})
	r.TDX.AcceptStatus, r.TDX.MaxCollateralAge = []tdx.Status{tdx.UpToDate}, "168h"
	return r
}

// Policy returns the policy of Rules.
func (g *TDXGuest) Policy() attest.Policy { return policyOf(g.Rules()) }

// Evidence answers one challenge, alone in its batch.
func (g *TDXGuest) Evidence(c attest.Challenge) *evidence.Evidence { return answer(c, g.Attest) }

// Attest quotes a statement over the root of a batch and the hash of a TLS key. The evidence has no path.
func (g *TDXGuest) Attest(nonceRoot, tlsKey [32]byte) *evidence.Evidence {
	log, s, gpus := g.state(nonceRoot, tlsKey)
	built := g.build()
	machine := *g.Machine
	if g.Follow {
		machine.Body.MRCONFIGID = config.MRConfigID(g.Measured)
		machine.Body.RTMR[3] = eventlog.Replay384(g.Records, eventlog.RTMR3)
		if config.IsCocoon(g.Measured) {
			machine.Body.RTMR[3] = cocoon.RTMR3(cocoon.NoTree())
		}
	}
	e := &evidence.Evidence{Platform: evidence.TDX, Statement: s, Config: g.Measured, RuntimeLog: log, BootLog: g.BootLog, GPUs: gpus}
	if config.IsCocoon(g.Measured) != g.Unlike {
		e.Binding = evidence.Bind(g.Key, s)
	}
	machine.Body.ReportData = e.ReportData()
	if g.Body != nil {
		g.Body(&machine.Body)
	}
	var err error
	e.Collateral, err = built.Collateral.Encode()
	check(err)
	e.Quote = machine.Quote()
	return e
}

// SNPGuest is an SEV-SNP guest on the software processor. Report data and host data follow from the contents when Follow
// is set.
type SNPGuest struct {
	Contents
	Processor *SNP
	Product   sevsnp.Product
	Follow    bool
	// Report edits the report after it was filled in. May be nil.
	Report func(*sevsnp.Report)
}

// NewSNPGuest returns a guest that serves the config on a processor of the product.
func NewSNPGuest(measured []byte, product sevsnp.Product, now time.Time) *SNPGuest {
	sequence, err := eventlog.SequenceOf(measured)
	check(err)
	return &SNPGuest{Contents: newContents(measured, sequence.Records(eventlog.InRTMR), now),
		Processor: NewSNP(product, sevsnp.SignerVCEK, now), Product: product, Follow: true}
}

// Roots returns the processor's root.
func (g *SNPGuest) Roots() attest.Roots {
	return g.trusting(attest.Roots{SEVSNP: append(sevsnp.AMDRoots()[:0:0], g.Processor.Root())})
}

// Rules returns a policy document that accepts exactly this guest, on any machine.
func (g *SNPGuest) Rules() attest.Rules {
	r := g.rules(release.Release{SEVSNP: []register.Digest384{g.Processor.Report.Measurement}}, "acpi")
	tcb, err := g.Processor.Report.ReportedTCB.Parts(g.Product)
	check(err)
	r.SEVSNP.MaxCRLAge = "9000h"
	r.SEVSNP.MinTCB = map[sevsnp.Product]sevsnp.TCB{g.Product: tcb}
	return r
}

// Policy returns the policy of Rules.
func (g *SNPGuest) Policy() attest.Policy { return policyOf(g.Rules()) }

// Evidence answers one challenge, alone in its batch.
func (g *SNPGuest) Evidence(c attest.Challenge) *evidence.Evidence { return answer(c, g.Attest) }

// Attest has the processor report on a statement over the root of a batch and the hash of a TLS key. The evidence has no
// path.
func (g *SNPGuest) Attest(nonceRoot, tlsKey [32]byte) *evidence.Evidence {
	log, s, gpus := g.state(nonceRoot, tlsKey)
	processor := *g.Processor
	if g.Follow {
		processor.Report.HostData = config.SHA256(g.Measured)
	}
	processor.Report.ReportData = evidence.ReportData(s)
	if g.Report != nil {
		g.Report(&processor.Report)
	}
	e := processor.Evidence()
	return &evidence.Evidence{
		Platform: evidence.SEVSNP, Statement: s, Config: g.Measured, RuntimeLog: log, Quote: e.Report,
		Certificates: append([][]byte{e.Certificate}, e.Chain...), Collateral: e.CRL, GPUs: gpus,
	}
}
