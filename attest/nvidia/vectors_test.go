package nvidia_test

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"strings"
	"time"

	"chrysalis/attest/attesttest"
	"chrysalis/attest/check"
	"chrysalis/attest/nvidia"
	"chrysalis/attest/pki"
)

var now = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// run is one appraisal.
type run struct {
	*attesttest.Board
	options nvidia.Options
	roots   *nvidia.Roots // nil: those of the board
	at      time.Time
}

// facts are shared by the runs: TestFactsChangeNoVerdict shows that they are of no matter.
var facts = new(check.Facts)

func newRun(b *attesttest.Board) *run {
	r := &run{Board: b, options: b.Options(), at: now}
	r.options.Facts = facts
	return r
}

// others is a board with another maker.
func others() *attesttest.Board { return attesttest.NewBoard(now.Add(time.Second)) }

func hopper() *run    { return newRun(attesttest.NewBoard(now)) }
func blackwell() *run { return newRun(attesttest.NewBlackwellBoard(2, now)) }
func ppcie() *run     { return newRun(attesttest.NewPPCIeBoard(2, 2, now)) }
func corim() *run {
	r := hopper()
	for i, d := range r.RIMs {
		d.Form = nvidia.FormCoRIM
		d.Tag = []string{"NV_GPU_DRIVER_GH100_570.124.06", "NV_GPU_VBIOS_1010_0200_882_96009F0001"}[i]
	}
	r.options.RIMs = []string{r.RIMs[0].Tag, r.RIMs[1].Tag}
	return r
}

func (r *run) verify() (*nvidia.Result, error) {
	return nvidia.Verify(r.Evidence(), r.options, r.at, r.trust())
}

func (r *run) trust() nvidia.Roots {
	if r.roots != nil {
		return *r.roots
	}
	return r.Roots()
}

// vector is a run with one thing wrong, and the check that must refuse it.
type vector struct {
	name   string
	refuse string
	of     func() *run // nil: one GPU of Hopper
	change func(*run)
}

func (v vector) make() *run {
	if v.of == nil {
		v.of = hopper
	}
	r := v.of()
	v.change(r)
	return r
}

// edit changes a byte of the GPU's report, which is signed anew. From the end, where at is negative.
func edit(at int, to byte) func(*run) {
	return func(r *run) {
		r.GPUs[0].EditReport = func(b []byte) {
			if at < 0 {
				at += len(b)
			}
			b[at] = to
		}
	}
}

func set(id uint16, value []byte) func(*run) { return func(r *run) { r.GPUs[0].Set(id, value) } }

// record is where the measurement record begins.
const record = 37 + 8

var critical = pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}}

// rename gives a GPU's certificates and documents another chip.
func rename(chip string) func(*run) {
	return func(r *run) {
		for _, c := range r.GPUs[0].Chain[:2] {
			c.Template.Subject.CommonName = strings.Replace(c.Template.Subject.CommonName, "GH100", chip, 1)
		}
		for _, d := range r.RIMs {
			d.Product = chip
		}
		r.options.Devices[0].Chip = chip
		r.options.MinVBIOS = map[string]string{chip: "96.00.9F.00.01"}
		r.options.Architectures, r.options.AnyArchitecture = nil, true
	}
}

var vectors = []vector{
	// Reports that can't be one.
	{"empty report", "gpu.0.report-format", nil, func(r *run) { r.EditEvidence = func(e *nvidia.Evidence) { e.GPUs[0].Report = nil } }},
	{"short report", "gpu.0.report-format", nil,
		func(r *run) { r.EditEvidence = func(e *nvidia.Evidence) { e.GPUs[0].Report = e.GPUs[0].Report[:200] } }},
	{"trailing byte", "gpu.0.report-format", nil, func(r *run) {
		r.EditEvidence = func(e *nvidia.Evidence) { e.GPUs[0].Report = append(e.GPUs[0].Report, 0) }
	}},
	{"long report", "gpu.0.report-format", nil, func(r *run) {
		r.EditEvidence = func(e *nvidia.Evidence) {
			e.GPUs[0].Report = make([]byte,
				16<<10+1)
		}
	}},
	{"SPDM 1.2", "gpu.0.report-format", nil, edit(0, 0x12)},
	{"another request", "gpu.0.report-format", nil, edit(1, 0xe1)},
	{"no signature asked for", "gpu.0.report-format", nil, edit(2, 0)},
	{"one measurement asked for", "gpu.0.report-format", nil, edit(3, 1)},
	{"slot 8", "gpu.0.report-format", nil, func(r *run) { r.GPUs[0].Report.Slot = 8 }},
	{"response of SPDM 1.2", "gpu.0.report-format", nil, edit(37, 0x12)},
	{"an error", "gpu.0.report-format", nil, edit(38, 0x7f)},
	{"reserved byte", "gpu.0.report-format", nil, edit(39, 1)},
	{"another slot", "gpu.0.report-format", nil, edit(40, 1)},
	{"one measurement fewer", "gpu.0.report-format", nil, edit(41, 23)},
	{"one measurement more", "gpu.0.report-format", nil, edit(41, 25)},
	{"no measurement", "gpu.0.report-format", nil, func(r *run) { r.GPUs[0].Report.Measurements = nil }},
	{"long record", "gpu.0.report-format", nil, edit(44, 1)},
	{"short record", "gpu.0.report-format", nil, edit(42, 0)},
	{"measurement 0", "gpu.0.report-format", nil, edit(record, 0)},
	{"measurement twice", "gpu.0.report-format", nil, edit(record, 2)},
	{"another specification", "gpu.0.report-format", nil, edit(record+1, 2)},
	{"block longer than its value", "gpu.0.report-format", nil, edit(record+2, 52)},
	{"value longer than its block", "gpu.0.report-format", nil, edit(record+5, 49)},
	{"opaque data too long", "gpu.0.report-format", nil, func(r *run) {
		r.GPUs[0].EditReport = func(b []byte) { b[record+24*55+32]++ }
	}},
	{"opaque field twice", "gpu.0.report-format", nil, func(r *run) {
		d := r.GPUs[0]
		d.Report.Opaque = append(d.Report.Opaque, d.Report.Opaque[0])
	}},
	{"opaque field too long", "gpu.0.report-format", nil, func(r *run) {
		r.GPUs[0].EditReport = func(b []byte) { b[record+24*55+34+3] = 1 }
	}},

	// Opaque data that say nothing sound.
	{"unknown field", "gpu.0.claims-format", nil, set(37, []byte{1})},
	{"field 0", "gpu.0.claims-format", nil, set(0, []byte{1})},
	{"no driver", "gpu.0.claims-format", nil, set(3, nil)},
	{"empty driver", "gpu.0.claims-format", nil, set(3, []byte{0})},
	{"path in the driver", "gpu.0.claims-format", nil, set(3, []byte("../570\x00"))},
	{"zero within the driver", "gpu.0.claims-format", nil, set(3, []byte("570\x00124\x00"))},
	{"long driver", "gpu.0.claims-format", nil, set(3, bytes.Repeat([]byte("5"), 65))},
	{"no project", "gpu.0.claims-format", nil, set(17, nil)},
	{"short VBIOS", "gpu.0.claims-format", nil, set(6, []byte{1, 2, 3})},
	{"VBIOS of 6 bytes", "gpu.0.claims-format", nil, set(6, []byte{0, 0x9f, 0, 0x96, 1, 1, 0, 0})},
	{"no decoder's status", "gpu.0.claims-format", nil, set(11, nil)},
	{"decoder half there", "gpu.0.claims-format", nil, set(11, []byte{0x56})},
	{"PCIe half protected", "gpu.0.claims-format", nil, set(21, []byte{0})},
	{"short FWID", "gpu.0.claims-format", nil, func(r *run) { r.GPUs[0].Set(20, r.GPUs[0].FWID[:47]) }},
	{"flag 3", "gpu.0.claims-format", nil, set(36, []byte{3, 0})},
	{"flag of 3 bytes", "gpu.0.claims-format", nil, set(36, []byte{0, 0, 0})},
	{"no flag", "gpu.0.claims-format", nil, set(36, nil)},
	{"flag before its time", "gpu.0.claims-format", nil, set(34, []byte{0, 0})},
	{"opaque data of version 2", "gpu.0.claims-format", nil, set(34, []byte{2, 0})},
	{"half a PDI", "gpu.0.claims-format", ppcie, set(22, []byte{1, 2, 3, 4})},
	{"switch without a name", "switch.0.claims-format", ppcie, func(r *run) { r.Switches[0].Set(22, []byte{1}) }},
	{"switch without GPUs", "switch.0.claims-format", ppcie, func(r *run) { r.Switches[0].Set(26, nil) }},
	{"port to nowhere", "switch.0.claims-format", ppcie, func(r *run) { r.Switches[0].Get(26)[64] = 8 }},
	{"switch without a BIOS", "switch.0.claims-format", ppcie, func(r *run) { r.Switches[0].Set(6, nil) }},

	// Certificates that can't be the chain.
	{"no chain", "gpu.0.chain-format", nil, func(r *run) { r.GPUs[0].EditChain = func([]byte) []byte { return nil } }},
	{"no root", "gpu.0.chain-format", nil, func(r *run) { r.GPUs[0].Chain = r.GPUs[0].Chain[:4] }},
	{"three certificates", "gpu.0.chain-format", nil, func(r *run) { r.GPUs[0].Chain = r.GPUs[0].Chain[2:] }},
	{"seven certificates", "gpu.0.chain-format", nil, func(r *run) {
		r.GPUs[0].Chain = append(r.GPUs[0].Chain, r.Root, r.Root)
	}},
	{"out of order", "gpu.0.chain-format", nil, func(r *run) {
		c := r.GPUs[0].Chain
		c[2], c[3] = c[3], c[2]
	}},
	{"text between certificates", "gpu.0.chain-format", nil, func(r *run) {
		r.GPUs[0].EditChain = func(b []byte) []byte { return bytes.Replace(b, []byte("-----BEGIN"), []byte("x-----BEGIN"), 2) }
	}},
	{"critical extension", "gpu.0.chain-format", nil,
		func(r *run) { r.GPUs[0].Chain[0].Template.ExtraExtensions = []pkix.Extension{critical} }},
	{"firmware's certificate by another key", "gpu.0.chain-format", nil, func(r *run) { r.GPUs[0].Chain[0].SigningKey = r.Root.Key }},
	{"device's certificate by another key", "gpu.0.chain-format", nil, func(r *run) { r.GPUs[0].Chain[1].SigningKey = r.Root.Key }},
	{"firmware is an authority", "gpu.0.chain-format", nil, func(r *run) {
		x := r.GPUs[0].Chain[0].Template
		x.IsCA, x.BasicConstraintsValid = true, true
	}},
	{"device is no authority", "gpu.0.chain-format", nil, func(r *run) { r.GPUs[0].Chain[1].Template.IsCA = false }},
	{"authority may not sign certificates", "gpu.0.chain-format", nil,
		func(r *run) { r.GPUs[0].Chain[2].Template.KeyUsage = x509.KeyUsageCRLSign }},
	{"too deep below an authority", "gpu.0.chain-format", nil, func(r *run) { r.Identity.Template.MaxPathLen = 1 }},
	{"an authority that may have none below", "gpu.0.chain-format", nil, func(r *run) { r.GPUs[0].Chain[2].Template.MaxPathLenZero = true }},
	{"chip that its firmware is not of", "gpu.0.chain-format", nil,
		func(r *run) { r.GPUs[0].Chain[0].Template.Subject.CommonName = "GB100 A01 GSP FMC LF" }},
	{"certificate of no BROM", "gpu.0.chain-format", nil, func(r *run) { r.GPUs[0].Chain[1].Template.Subject.CommonName = "GH100 A01" }},
	{"device without a serial number", "gpu.0.chain-format", nil, func(r *run) { r.GPUs[0].Chain[1].Template.Subject.SerialNumber = "" }},
	{"serial number in words", "gpu.0.chain-format", nil,
		func(r *run) { r.GPUs[0].Chain[1].Template.Subject.SerialNumber = "forty one forty one" }},

	{"a root of others", "gpu.0.root", nil, func(r *run) {
		other := others().Roots()
		r.roots = &nvidia.Roots{Device: other.Device, RIM: r.Roots().RIM}
	}},
	{"nobody is trusted", "gpu.0.root", nil, func(r *run) { r.roots = &nvidia.Roots{RIM: r.Roots().RIM} }},
	{"a root of reference values", "gpu.0.root", nil, func(r *run) { r.roots = &nvidia.Roots{Device: r.Roots().RIM, RIM: r.Roots().RIM} }},
	{"another key", "gpu.0.signature", nil, func(r *run) { r.GPUs[0].SigningKey = r.Root.Key }},
	{"changed after it was signed", "gpu.0.signature", nil, func(r *run) {
		r.EditEvidence = func(e *nvidia.Evidence) { e.GPUs[0].Report[record+24*55]++ } // the responder's nonce
	}},
	{"firmware's certificate has ended", "gpu.0.chain-validity", nil,
		func(r *run) { r.GPUs[0].Chain[0].Template.NotAfter = now.Add(-time.Second) }},
	{"root begins later", "gpu.0.chain-validity", nil, func(r *run) { r.Root.Template.NotBefore = now.Add(time.Second) }},
	{"a chip of the future", "gpu.0.chip", nil, rename("GR100")},
	{"a GPU among the switches", "switch.0.chip", ppcie, func(r *run) {
		for _, c := range r.Switches[0].Chain[:2] {
			c.Template.Subject.CommonName = strings.Replace(c.Template.Subject.CommonName, "LS_10", "LS10", 1)
		}
		r.options.Devices[2].Chip, r.options.MinVBIOS["LS10"] = "LS10", r.options.MinVBIOS["LS_10"]
	}},
	{"another chip in the report", "gpu.0.chip-named", blackwell, set(35, []byte("GB202\x00"))},
	{"another device", "gpu.0.device", nil, func(r *run) { r.options.Devices[0].Serial = "41FFFFFFFFFFFFFFFF" }},
	{"no device listed", "gpu.0.device", nil, func(r *run) { r.options.Devices = nil }},
	{"another, and any", "gpu.0.device", nil, func(r *run) { r.options.Devices[0].Serial, r.options.AnyDevice = "41", true }},
	{"another architecture", "gpu.0.architecture", nil, func(r *run) { r.options.Architectures = []nvidia.Architecture{nvidia.Blackwell} }},
	{"no architecture listed", "gpu.0.architecture", nil, func(r *run) { r.options.Architectures = nil }},
	{"another nonce", "gpu.0.nonce", nil, func(r *run) { r.GPUs[0].Report.Nonce[31]++ }},
	{"no nonce asked for", "gpu.0.nonce", nil, func(r *run) { r.options.Nonce = [32]byte{} }},
	{"no FWID in the report", "gpu.0.fwid-present", nil, set(20, nil)},
	{"another FWID in the report", "gpu.0.fwid", nil, set(20, bytes.Repeat([]byte{1}, 48))},
	{"another FWID of Blackwell", "gpu.0.fwid", blackwell, set(20, bytes.Repeat([]byte{1}, 48))},
	{"short FWID in the certificate", "gpu.0.fwid", nil, func(r *run) { r.GPUs[0].FWID = r.GPUs[0].FWID[:32] }},
	{"two FWIDs in the certificate", "gpu.0.fwid", nil, func(r *run) {
		r.GPUs[0].Chain[0].Template.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 23, 133, 5, 4, 1, 1}, Value: tcbInfo()}}
	}},
	{"another mode", "gpu.0.mode", nil, func(r *run) { r.options.Modes = []nvidia.Mode{nvidia.ModeMPT, nvidia.ModePPCIe} }},
	{"no mode listed", "gpu.0.mode", nil, func(r *run) { r.options.Modes = nil }},
	{"flag without protected PCIe", "gpu.0.protected-pcie", ppcie, func(r *run) {
		for _, g := range r.GPUs {
			g.Set(21, []byte{0x55})
		}
	}},
	{"protected PCIe without the flag", "gpu.0.protected-pcie", nil, set(21, []byte{0xaa})},
	{"old driver", "gpu.0.driver-minimum", nil, func(r *run) { r.options.MinDriver = "570.124.07" }},
	{"older line of drivers", "gpu.0.driver-minimum", nil, func(r *run) { r.options.MinDriver = "580" }},
	{"longer minimum", "gpu.0.driver-minimum", nil, func(r *run) { r.options.MinDriver = "570.124.06.1" }},
	{"no minimum for the driver", "gpu.0.driver-minimum", nil, func(r *run) { r.options.MinDriver = "" }},
	{"minimum in words", "gpu.0.driver-minimum", nil, func(r *run) { r.options.MinDriver = "newest" }},
	{"old VBIOS", "gpu.0.vbios-minimum", nil, func(r *run) { r.options.MinVBIOS["GH100"] = "96.00.A0.00.00" }},
	{"no minimum for the chip", "gpu.0.vbios-minimum", nil,
		func(r *run) { r.options.MinVBIOS = map[string]string{"GB100": "97.00.00.00.00"} }},
	{"old BIOS of a switch", "switch.1.vbios-minimum", ppcie, func(r *run) {
		r.options.MinVBIOS["LS_10"] = "96.10.6D.00.01"
		r.Switches[1].Set(6, []byte("96.10.6C.00.01"))
		later := *r.RIMs[2]
		later.Version = "96.10.6C.00.01"
		r.Board.RIMs = append(r.RIMs, &later)
	}},

	// Machines.
	{"nine GPUs", "evidence", func() *run { return newRun(attesttest.NewBlackwellBoard(9, now)) }, func(*run) {}},
	{"97 answers", "evidence", nil, func(r *run) {
		r.EditEvidence = func(e *nvidia.Evidence) {
			for len(e.OCSP) < 97 {
				e.OCSP = append(e.OCSP, e.OCSP[0])
			}
		}
	}},
	{"none found", "count", nil, func(r *run) { r.EditEvidence = func(e *nvidia.Evidence) { *e = nvidia.Evidence{} } }},
	{"one too few", "count", blackwell, func(r *run) { r.EditEvidence = func(e *nvidia.Evidence) { e.GPUs = e.GPUs[:1] } }},
	{"one too many", "count", blackwell, func(r *run) { r.options.GPUs = 1 }},
	{"one, and none asked for", "count", nil, func(r *run) { r.options.NoGPU, r.options.GPUs = true, 0 }},
	{"none asked for, and how many", "count", nil, func(r *run) {
		r.options.NoGPU = true
		r.EditEvidence = func(e *nvidia.Evidence) { *e = nvidia.Evidence{} }
	}},
	{"not said how many", "count", nil, func(r *run) { r.options.GPUs = 0 }},
	{"one switch too many", "switch-count", ppcie, func(r *run) { r.options.Switches = 1 }},
	{"a document of nothing", "collateral-format", nil, func(r *run) {
		r.EditEvidence = func(e *nvidia.Evidence) {
			e.RIMs = append(e.RIMs,
				nil)
		}
	}},
	{"an answer of nothing", "collateral-format", nil, func(r *run) {
		r.EditEvidence = func(e *nvidia.Evidence) {
			e.OCSP = append(e.OCSP,
				[]byte{0x30})
		}
	}},
	{"one device twice", "distinct", blackwell, func(r *run) { r.EditEvidence = func(e *nvidia.Evidence) { e.GPUs[1] = e.GPUs[0] } }},
	{"two drivers", "alike", blackwell, func(r *run) {
		r.GPUs[1].Set(3, []byte("595.10.01\x00"))
		other := *r.RIMs[0]
		other.Version = "595.10.01"
		r.Board.RIMs = append(r.RIMs, &other)
	}},
	{"two modes", "alike", func() *run { return newRun(attesttest.NewBlackwellBoard(2, now)) }, func(r *run) {
		r.GPUs[1].Set(36, []byte{0, 0})
		r.options.Modes = append(r.options.Modes, nvidia.ModeSPT)
	}},
	{"GPU linked to a switch that is not there", "topology", ppcie, func(r *run) { r.GPUs[1].Get(22)[0]++ }},
	{"GPU linked to one switch", "topology", ppcie, func(r *run) { r.GPUs[1].Set(22, r.GPUs[1].Get(22)[:8]) }},
	{"switch linked to one GPU", "topology", ppcie, func(r *run) { r.Switches[0].Get(26)[65] = 0xff }},
	{"switch linked to a GPU that is not there", "topology", ppcie, func(r *run) { r.Switches[1].Get(26)[8]++ }},
	{"protected PCIe without switches", "topology", func() *run { return newRun(attesttest.NewPPCIeBoard(2, 0, now)) }, func(*run) {}},
	{"switches and no protected PCIe", "topology", ppcie, func(r *run) {
		for _, g := range r.GPUs {
			g.Set(36, []byte{0, 0})
			g.Set(21, []byte{0x55})
		}
		r.options.Modes = []nvidia.Mode{nvidia.ModeSPT}
	}},
}

// tcbInfo is a DiceTcbInfo with one FWID.
func tcbInfo() []byte {
	type fwid struct {
		Algorithm asn1.ObjectIdentifier
		Digest    []byte
	}
	b, err := asn1.Marshal(struct {
		FWIDs []fwid `asn1:"tag:6"`
	}{[]fwid{{asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 2}, make([]byte, 48)}}})
	if err != nil {
		panic(err)
	}
	return b
}

// of returns the vectors of what each chain of certificates has in common: those of a device, and of each document's signer.
func revocations(name string, certificate func(*run) *attesttest.BoardCertificate) []vector {
	check := func(suffix string) string { return "gpu.0." + name + suffix }
	answer := func(change func(*attesttest.BoardAnswer, *run)) func(*run) {
		return func(r *run) { change(certificate(r).Answer, r) }
	}
	return []vector{
		{name + ": no answer", check("-ocsp"), nil, func(r *run) { certificate(r).Answer = nil }},
		{name + ": answer about another", check("-ocsp"), nil, answer(func(a *attesttest.BoardAnswer, _ *run) { a.Serial = big.NewInt(9) })},
		{name + ": answer by another key", check("-ocsp-signature"), nil, answer(func(a *attesttest.BoardAnswer,
			r *run) {
			a.SigningKey = r.Root.Key
		})},
		{name + ": responder by another key", check("-ocsp-signature"), nil, answer(func(a *attesttest.BoardAnswer,
			r *run) {
			a.Responder.SigningKey = r.Root.Key
		})},
		{name + ": responder of another authority", check("-ocsp-signature"), nil,
			answer(func(a *attesttest.BoardAnswer, r *run) { a.Responder.Issuer = r.Root })},
		{name + ": responder not certified for it", check("-ocsp-signature"), nil, answer(func(a *attesttest.BoardAnswer, _ *run) {
			a.Responder.Template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		})},
		{name + ": responder is an authority", check("-ocsp-signature"), nil, answer(func(a *attesttest.BoardAnswer, _ *run) {
			a.Responder.Template.IsCA, a.Responder.Template.BasicConstraintsValid = true, true
		})},
		{name + ": answer changed after it was signed", check("-ocsp-signature"), nil, answer(func(a *attesttest.BoardAnswer, _ *run) {
			a.EditData = func(b []byte) { b[len(b)-3] ^= 1 } // a second of nextUpdate
		})},
		{name + ": answer has ended", check("-ocsp-validity"), nil, answer(func(a *attesttest.BoardAnswer,
			_ *run) {
			a.NextUpdate = now.Add(-time.Second)
		})},
		{name + ": answer of the future", check("-ocsp-validity"), nil, answer(func(a *attesttest.BoardAnswer, _ *run) {
			a.ThisUpdate, a.NextUpdate = now.Add(time.Second), now.Add(time.Hour)
		})},
		{name + ": responder has ended", check("-ocsp-validity"), nil, answer(func(a *attesttest.BoardAnswer,
			_ *run) {
			a.Responder.Template.NotAfter = now.Add(-time.Second)
		})},
		{name + ": answer that never ends", check("-ocsp-validity"), nil, answer(func(a *attesttest.BoardAnswer, r *run) {
			a.NextUpdate, r.options.MaxOCSPAge = time.Time{}, 0
		})},
		{name + ": old answer", check("-ocsp-age"), nil, answer(func(a *attesttest.BoardAnswer,
			_ *run) {
			a.ThisUpdate = now.Add(-3 * time.Hour)
		})},
		{name + ": answer without the nonce", check("-ocsp-nonce"), nil, answer(func(a *attesttest.BoardAnswer, r *run) {
			nonces(r)
			a.Nonce = nil
		})},
		{name + ": answer with another nonce", check("-ocsp-nonce"), nil, answer(func(a *attesttest.BoardAnswer, r *run) {
			nonces(r)
			a.Nonce = []byte("other")
		})},
		{name + ": on hold", check("-hold"), nil, answer(func(a *attesttest.BoardAnswer, _ *run) { a.Status = pki.OCSPHold })},
		{name + ": revoked", check("-revocation"), nil, answer(func(a *attesttest.BoardAnswer, _ *run) { a.Status = pki.OCSPRevoked })},
		{name + ": unknown", check("-revocation"), nil, answer(func(a *attesttest.BoardAnswer, _ *run) { a.Status = pki.OCSPUnknown })},
	}
}

// nonces has all answers carry one, which is asked for.
func nonces(r *run) {
	r.options.OCSPNonce = []byte("nonce")
	for _, c := range append(append([]*attesttest.BoardCertificate{}, r.GPUs[0].Chain...),
		append(r.RIMs[0].Signers, r.RIMs[1].Signers...)...) {
		if c.Answer != nil {
			c.Answer.Nonce = r.options.OCSPNonce
		}
	}
}

// documents returns the vectors of what the two documents have in common.
func documents(name string, number int) []vector {
	check := func(suffix string) string { return "gpu.0." + name + suffix }
	of := func(change func(*attesttest.BoardRIM, *run)) func(*run) {
		return func(r *run) { change(r.RIMs[number], r) }
	}
	signed := func(from, to string) func(*run) {
		return of(func(d *attesttest.BoardRIM, _ *run) { d.EditSigned = replacing(from, to) })
	}
	return []vector{
		{name + ": none", check(""), nil, func(r *run) { r.Board.RIMs = r.RIMs[1-number : 2-number] }},
		{name + ": of another version", check(""), nil, of(func(d *attesttest.BoardRIM, _ *run) { d.Version = "1.2.3" })},
		{name + ": of another chip", check(""), nil, of(func(d *attesttest.BoardRIM, _ *run) { d.Product = "GB100" })},
		{name + ": of a switch", check(""), nil, of(func(d *attesttest.BoardRIM, _ *run) { d.Edition = "SWITCH" })},
		{name + ": two", check(""), nil, of(func(d *attesttest.BoardRIM, r *run) {
			other := *d
			other.Tag = "another tag"
			r.Board.RIMs = append(r.RIMs, &other)
		})},
		{name + ": changed after it was signed", check("-signature"), nil, signed(`revision="r1"`, `revision="r2"`)},
		{name + ": space added after it was signed", check("-signature"), nil, signed("\n    <ns0:Payload", "\n     <ns0:Payload")},
		{name + ": signed by another key", check("-signature"), nil, of(func(d *attesttest.BoardRIM, r *run) { d.SigningKey = r.Root.Key })},
		{name + ": digest of another document", check("-signature"), nil, of(func(d *attesttest.BoardRIM, _ *run) {
			d.EditSignedInfo = func(text string) string {
				before, after, _ := strings.Cut(text, "<ds:DigestValue>")
				return before + "<ds:DigestValue>" + strings.Repeat("A", 64) + after[64:]
			}
		})},
		{name + ": a root of others", check("-root"), nil, of(func(d *attesttest.BoardRIM,
			r *run) {
			d.Signers = others().RIMs[number].Signers
		})},
		{name + ": signer has ended", check("-validity"), nil, of(func(d *attesttest.BoardRIM,
			_ *run) {
			d.Signers[0].Template.NotAfter = now.Add(-time.Second)
		})},
		{name + ": not listed", check("-allowed"), nil, of(func(_ *attesttest.BoardRIM,
			r *run) {
			r.options.RIMs = []string{r.RIMs[1-number].Tag}
		})},
	}
}

func replacing(from, to string) func(string) string {
	return func(text string) string {
		if !strings.Contains(text, from) {
			panic("nothing to replace: " + from)
		}
		return strings.Replace(text, from, to, 1)
	}
}

func init() {
	vectors = append(vectors, revocations("device", func(r *run) *attesttest.BoardCertificate { return r.GPUs[0].Chain[1] })...)
	vectors = append(vectors, revocations("driver-rim", func(r *run) *attesttest.BoardCertificate { return r.RIMs[0].Signers[0] })...)
	vectors = append(vectors, revocations("vbios-rim", func(r *run) *attesttest.BoardCertificate { return r.RIMs[1].Signers[0] })...)
	vectors = append(vectors, documents("driver-rim", 0)...)
	vectors = append(vectors, documents("vbios-rim", 1)...)
	vectors = append(vectors,
		vector{"CoRIM has ended", "gpu.0.driver-rim-validity", corim, func(r *run) { r.RIMs[0].NotAfter = now.Add(-time.Second) }},
		vector{"CoRIM begins later", "gpu.0.driver-rim-validity", corim, func(r *run) { r.RIMs[0].NotBefore = now.Add(time.Second) }},
		vector{"CoRIM by another key", "gpu.0.driver-rim-signature", corim, func(r *run) { r.RIMs[0].SigningKey = r.Root.Key }},
		vector{"CoRIM of another name", "gpu.0.driver-rim", corim, func(r *run) { r.RIMs[0].Tag = "NV_GPU_DRIVER_GH100_570.124.07" }},
		vector{"measurement in both documents", "gpu.0.measurement-conflict", nil, func(r *run) {
			r.RIMs[1].Entries = append(r.RIMs[1].Entries, r.RIMs[0].Entries[0])
		}},
		vector{"measurement of the driver differs", "gpu.0.measurements", nil, func(r *run) { r.GPUs[0].Measure(8, make([]byte, 48)) }},
		vector{"measurement of the VBIOS differs", "gpu.0.measurements", nil, func(r *run) { r.GPUs[0].Measure(1, make([]byte, 48)) }},
		vector{"measurement of another size", "gpu.0.measurements", nil, func(r *run) { r.GPUs[0].Measure(8, make([]byte, 47)) }},
		vector{"measurement of the decoder is missing", "gpu.0.measurements", nil, func(r *run) {
			r.RIMs[0].Entries = append(r.RIMs[0].Entries, attesttest.BoardEntry{Index: 36, Active: true, Values: [][]byte{make([]byte, 48)}})
		}},
		vector{"measurement is missing", "gpu.0.measurements", nil,
			func(r *run) { r.GPUs[0].Report.Measurements = r.GPUs[0].Report.Measurements[:19] }},
		vector{"measurement of a switch differs", "switch.1.measurements", ppcie, func(r *run) { r.Switches[1].Measure(1, make([]byte, 48)) }},
		vector{"measurement that a CoRIM wants differs", "gpu.0.measurements", corim, func(r *run) { r.GPUs[0].Measure(8, make([]byte, 48)) }},
		vector{"masked bits differ", "gpu.0.measurements", corim, func(r *run) {
			r.RIMs[0].Entries[0].Mask = append(make([]byte, 47), 1)
			r.RIMs[0].Entries[0].Values[0] = append(make([]byte, 47), ^r.RIMs[0].Entries[0].Values[0][47])
		}},
	)
}
