package sevsnp_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"slices"
	"time"

	"github.com/google/go-sev-guest/testing/data"

	"chrysalis/attest/attesttest"
	"chrysalis/attest/sevsnp"
)

var now = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// run is one appraisal: a Genoa chip that signs by its own key, unless the vector makes another.
type run struct {
	*attesttest.SNP
	product sevsnp.Product
	options sevsnp.Options
	roots   []*x509.Certificate // nil: the ARK of the software platform
	at      time.Time
}

func newRun(product sevsnp.Product, signer sevsnp.Signer) *run {
	s := attesttest.NewSNP(product, signer, now)
	return &run{SNP: s, product: product, options: s.Options(product), at: now}
}

// above asks for more than the chip has.
func (r *run) above(change func(*sevsnp.TCB)) {
	tcb := r.options.MinTCB[r.product]
	change(&tcb)
	r.options.MinTCB[r.product] = tcb
}

// vector is a run with one thing wrong, and the check that must refuse it.
type vector struct {
	name   string
	refuse string
	of     func() *run // nil: Genoa and its VCEK
	change func(*run)
}

func (v vector) make() *run {
	if v.of == nil {
		v.of = genoa
	}
	r := v.of()
	v.change(r)
	if r.roots == nil {
		r.roots = []*x509.Certificate{r.Root()}
	}
	return r
}

func genoa() *run { return newRun(sevsnp.Genoa, sevsnp.SignerVCEK) }
func vlek() *run  { return newRun(sevsnp.Genoa, sevsnp.SignerVLEK) }
func turin() *run { return newRun(sevsnp.Turin, sevsnp.SignerVCEK) }

// integer is a DER INTEGER below 128.
func integer(n byte) []byte { return []byte{2, 1, n} }

func text(s string) []byte { return append([]byte{22, byte(len(s))}, s...) }

func edit(at int, to byte) func(*run) {
	return func(r *run) { r.EditReport = func(b []byte) { b[at] = to } }
}

// policyBit changes the guest policy, which is signed anew.
func policyBit(bit sevsnp.Policy) func(*run) { return func(r *run) { r.Report.Policy ^= bit } }

var vectors = []vector{
	// Reports that can't be one.
	{"report of version 1", "report-format", nil, edit(0, 1)},
	{"report of version 6", "report-format", nil, edit(0, 6)},
	{"short report", "report-format", nil, func(r *run) {
		r.EditEvidence = func(e *sevsnp.Evidence) { e.Report = e.Report[:len(e.Report)-1] }
	}},
	{"empty report", "report-format", nil, func(r *run) { r.EditEvidence = func(e *sevsnp.Evidence) { e.Report = nil } }},
	{"trailing byte", "report-format", nil, func(r *run) { r.EditEvidence = func(e *sevsnp.Evidence) { e.Report = append(e.Report, 0) } }},
	{"signature algorithm 2", "report-format", nil, edit(0x34, 2)},
	{"reserved policy bit 17 clear", "report-format", nil, policyBit(1 << 17)},
	{"reserved policy bit 26 set", "report-format", nil, policyBit(1 << 26)},
	{"reserved policy bit 63 set", "report-format", nil, policyBit(1 << 63)},
	{"reserved signing key", "report-format", nil, func(r *run) { r.Report.Signer = 2 }},
	{"reserved key bit", "report-format", nil, edit(0x48, 1<<5)},
	{"reserved bytes after the key", "report-format", nil, edit(0x4c, 1)},
	{"reserved bytes before the chip id", "report-format", nil, edit(0x18b, 1)},
	{"reserved byte after the version", "report-format", nil, edit(0x1eb, 1)},
	{"reserved byte after the committed version", "report-format", nil, edit(0x1ef, 1)},
	{"reserved bytes before the signature", "report-format", nil, edit(0x208, 1)},
	{"last reserved byte before the signature", "report-format", nil, edit(0x29f, 1)},
	{"processor in version 2", "report-format", nil, func(r *run) {
		r.EditReport = func(b []byte) { b[0] = 2; clear(b[0x1f8:0x208]) }
	}},
	{"mitigations in version 4", "report-format", nil, edit(0, 4)},
	{"long R", "report-format", nil, func(r *run) { r.EditEvidence = func(e *sevsnp.Evidence) { e.Report[0x2a0+48] = 1 } }},
	{"long S", "report-format", nil, func(r *run) { r.EditEvidence = func(e *sevsnp.Evidence) { e.Report[0x2a0+72+71] = 1 } }},
	{"bytes after the signature", "report-format", nil, func(r *run) { r.EditEvidence = func(e *sevsnp.Evidence) { e.Report[0x49f] = 1 } }},

	// Certificates that can't be the chain.
	{"no certificate", "certificate-format", nil, func(r *run) { r.EditEvidence = func(e *sevsnp.Evidence) { e.Certificate = nil } }},
	{"no chain", "certificate-format", nil, func(r *run) { r.EditEvidence = func(e *sevsnp.Evidence) { e.Chain = nil } }},
	{"a third certificate", "certificate-format", nil, func(r *run) {
		r.EditEvidence = func(e *sevsnp.Evidence) { e.Chain = append(e.Chain, e.Certificate) }
	}},
	{"two ARKs", "certificate-format", nil, func(r *run) { r.EditEvidence = func(e *sevsnp.Evidence) { e.Chain[0] = e.Chain[1] } }},
	{"two ASKs", "certificate-format", nil, func(r *run) { r.EditEvidence = func(e *sevsnp.Evidence) { e.Chain[1] = e.Chain[0] } }},
	{"byte after the certificate", "certificate-format", nil, func(r *run) {
		r.EditEvidence = func(e *sevsnp.Evidence) {
			e.Certificate = append(e.Certificate[:len(e.Certificate):len(e.Certificate)], 0)
		}
	}},
	{"RSA endorsement key", "certificate-format", nil,
		func(r *run) { r.EditEvidence = func(e *sevsnp.Evidence) { e.Certificate = e.Chain[0] } }},
	{"long certificate", "certificate-format", nil,
		func(r *run) { r.EditEvidence = func(e *sevsnp.Evidence) { e.Certificate = make([]byte, 8<<10+1) } }},
	{"critical extension", "certificate-format", nil, func(r *run) {
		r.Leaf.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}
	}},
	{"unknown extension of AMD", "certificate-format", nil, func(r *run) { r.Endorsement["3.10"] = integer(0) }},
	{"unknown structure version", "certificate-format", nil, func(r *run) { r.Endorsement["1"] = integer(2) }},
	{"no structure version", "certificate-format", nil, func(r *run) { delete(r.Endorsement, "1") }},
	{"no product", "certificate-format", nil, func(r *run) { delete(r.Endorsement, "2") }},
	{"product in UTF8String", "certificate-format", nil, func(r *run) { r.Endorsement["2"] = append([]byte{12, 8}, "Genoa-B0"...) }},
	{"unknown product", "certificate-format", nil, func(r *run) { r.Endorsement["2"] = text("Naples-B0") }},
	{"unknown stepping", "certificate-format", nil, func(r *run) { r.Endorsement["2"] = text("Genoa-B0x") }},
	{"no bootloader level", "certificate-format", nil, func(r *run) { delete(r.Endorsement, "3.1") }},
	{"no TEE level", "certificate-format", nil, func(r *run) { delete(r.Endorsement, "3.2") }},
	{"no SNP level", "certificate-format", nil, func(r *run) { delete(r.Endorsement, "3.3") }},
	{"no microcode level", "certificate-format", nil, func(r *run) { delete(r.Endorsement, "3.8") }},
	{"level of 256", "certificate-format", nil, func(r *run) { r.Endorsement["3.8"] = []byte{2, 2, 1, 0} }},
	{"negative level", "certificate-format", nil, func(r *run) { r.Endorsement["3.8"] = integer(0xff) }},
	{"byte after a level", "certificate-format", nil, func(r *run) { r.Endorsement["3.8"] = append(integer(9), 0) }},
	{"reserved level", "certificate-format", nil, func(r *run) { r.Endorsement["3.5"] = integer(1) }},
	{"FMC on Genoa", "certificate-format", nil, func(r *run) { r.Endorsement["3.9"] = integer(1) }},
	{"no FMC on Turin", "certificate-format", turin, func(r *run) { delete(r.Endorsement, "3.9") }},
	{"short chip id", "certificate-format", nil, func(r *run) { r.Endorsement["4"] = r.Endorsement["4"][:8] }},
	{"neither chip nor cloud", "certificate-format", nil, func(r *run) { delete(r.Endorsement, "4") }},
	{"chip and cloud", "certificate-format", nil, func(r *run) { r.Endorsement["5"] = text("cloud") }},
	{"chip in a VLEK", "certificate-format", vlek, func(r *run) { r.Endorsement["4"] = make([]byte, 64) }},

	// A chain that no trusted root vouches for.
	{"no roots", "root", nil, func(r *run) { r.roots = []*x509.Certificate{} }},
	{"AMD's roots", "root", nil, func(r *run) { r.roots = sevsnp.AMDRoots() }},
	{"root of another product", "root", nil, func(r *run) { r.roots = []*x509.Certificate{newRun(sevsnp.Milan, sevsnp.SignerVCEK).Root()} }},
	{"root's key in another certificate", "root", nil, func(r *run) {
		r.roots = []*x509.Certificate{r.Root()}
		r.ARK.SerialNumber = big.NewInt(9)
	}},
	{"ARK that is no authority", "ark", nil, func(r *run) { r.ARK.IsCA, r.ARK.MaxPathLen = false, 0 }},
	{"ARK that may not sign", "ark", nil, func(r *run) { r.ARK.KeyUsage = x509.KeyUsageCRLSign }},
	{"ARK signed by another", "ark", nil, func(r *run) { r.ARKIssuerKey = data.ASVKPrivateKey }},
	{"ARK with another hash", "ark", nil, func(r *run) { r.ARK.SignatureAlgorithm = x509.SHA256WithRSAPSS }},
	{"ARK without PSS", "ark", nil, func(r *run) { r.ARK.SignatureAlgorithm = x509.SHA384WithRSA }},
	{"ASK that is no authority", "ask", nil, func(r *run) { r.ASK.IsCA, r.ASK.MaxPathLenZero = false, false }},
	{"ASK that may not sign", "ask", nil, func(r *run) { r.ASK.KeyUsage = x509.KeyUsageDigitalSignature }},
	{"ASK with a long path", "ask", nil, func(r *run) { r.ASK.MaxPathLenZero, r.ASK.MaxPathLen = false, 1 }},
	{"ASK signed by another", "ask", nil, func(r *run) { r.ASKIssuerKey = data.ASVKPrivateKey }},
	{"ASK without PSS", "ask", nil, func(r *run) { r.ASK.SignatureAlgorithm = x509.SHA384WithRSA }},
	{"ASK with another hash", "ask", nil, func(r *run) { r.ASK.SignatureAlgorithm = x509.SHA512WithRSAPSS }},
	{"ASK of another issuer", "ask", nil, func(r *run) { issuer := *r.ARK; issuer.Subject.CommonName = "ARK-Milan"; r.ASKIssuer = &issuer }},
	{"ASK of another product", "ask", nil, func(r *run) { r.ASK.Subject.CommonName = "SEV-Milan" }},
	{"ASVK above a VCEK", "ask", nil, func(r *run) { r.ASK.Subject.CommonName = "SEV-VLEK-Genoa" }},
	{"ASK above a VLEK", "ask", vlek, func(r *run) { r.ASK.Subject.CommonName = "SEV-Genoa" }},
	{"VCEK signed by another", "certificate", nil, func(r *run) { r.LeafIssuerKey = data.ARKPrivateKey }},
	{"VCEK without PSS", "certificate", nil, func(r *run) { r.Leaf.SignatureAlgorithm = x509.SHA384WithRSA }},
	{"VCEK of another issuer", "certificate", nil,
		func(r *run) { issuer := *r.ASK; issuer.Subject.CommonName = "SEV-Milan"; r.LeafIssuer = &issuer }},
	{"VCEK under another name", "certificate", nil, func(r *run) { r.Leaf.Subject.CommonName = "SEV-VLEK" }},
	{"VCEK that is an authority", "certificate", nil, func(r *run) { r.Leaf.BasicConstraintsValid, r.Leaf.IsCA = true, true }},

	// Certificates and lists out of their time.
	{"ARK not yet valid", "ark-validity", nil, func(r *run) { r.ARK.NotBefore = now.Add(time.Second) }},
	{"ARK expired", "ark-validity", nil, func(r *run) { r.ARK.NotAfter = now.Add(-time.Second) }},
	{"ASK not yet valid", "ask-validity", nil, func(r *run) { r.ASK.NotBefore = now.Add(time.Second) }},
	{"ASK expired", "ask-validity", nil, func(r *run) { r.ASK.NotAfter = now.Add(-time.Second) }},
	{"VCEK not yet valid", "certificate-validity", nil, func(r *run) { r.Leaf.NotBefore = now.Add(time.Second) }},
	{"VCEK expired", "certificate-validity", nil, func(r *run) { r.Leaf.NotAfter = now.Add(-time.Second) }},
	{"no revocation list", "crl", nil, func(r *run) { r.CRL = nil }},
	{"empty revocation list", "crl-format", nil, func(r *run) { r.EditEvidence = func(e *sevsnp.Evidence) { e.CRL = []byte{} } }},
	{"long revocation list", "crl-format", nil, func(r *run) { r.EditEvidence = func(e *sevsnp.Evidence) { e.CRL = make([]byte, 1<<20+1) } }},
	{"byte after the revocation list", "crl-format", nil,
		func(r *run) { r.EditEvidence = func(e *sevsnp.Evidence) { e.CRL = append(e.CRL, 0) } }},
	{"revocation list of some certificates", "crl-format", nil, func(r *run) {
		r.CRL.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 28}, Critical: true, Value: []byte{0x30, 0}}}
	}},
	{"revoked by another issuer", "crl-format", nil, func(r *run) {
		r.CRL.RevokedCertificateEntries = []x509.RevocationListEntry{{SerialNumber: big.NewInt(77), RevocationTime: now,
			ExtraExtensions: []pkix.Extension{
				{Id: asn1.ObjectIdentifier{2, 5, 29, 29}, Critical: true, Value: []byte{0x30, 0}}}}}
	}},
	{"revocation list signed by the ASK", "crl-signature", nil, func(r *run) { r.CRLKey = data.ASKPrivateKey }},
	{"revocation list without PSS", "crl-signature", nil, func(r *run) { r.CRL.SignatureAlgorithm = x509.SHA384WithRSA }},
	{"ARK that may not revoke", "crl-signature", nil, func(r *run) { r.ARK.KeyUsage = x509.KeyUsageCertSign }},
	{"revocation list from the future", "crl-validity", nil, func(r *run) { r.CRL.ThisUpdate = now.Add(time.Second) }},
	{"revocation list older than is believed", "crl-age", nil, func(r *run) { r.options.MaxCRLAge = time.Hour - time.Second }},
	{"old revocation list", "crl-validity", nil, func(r *run) { r.CRL.NextUpdate = now.Add(-time.Second) }},
	{"revoked ASK", "revocation", nil, revoke(2)},
	{"revoked ARK", "revocation", nil, revoke(1)},
	{"revoked VCEK", "revocation", nil, func(r *run) { r.Leaf.SerialNumber = big.NewInt(5); revoke(5)(r) }},
	{"old revocation list, though none is needed", "crl-validity", nil, func(r *run) {
		r.CRL.NextUpdate, r.options.InsecureSkipCRL = now.Add(-time.Second), true
	}},

	// Reports that the key did not sign, or for another chip.
	{"VLEK named over a VCEK", "signing-key", nil, func(r *run) { r.Report.Signer = sevsnp.SignerVLEK }},
	{"VCEK named over a VLEK", "signing-key", vlek, func(r *run) { r.Report.Signer = sevsnp.SignerVCEK }},
	{"not signed", "signing-key", nil, func(r *run) { r.Report.Signer = sevsnp.SignerNone }},
	{"signed by another key", "signature", nil, func(r *run) { r.SigningKey = data.VLEKPrivateKey }},
	{"no signature", "signature", nil, func(r *run) { r.EditEvidence = func(e *sevsnp.Evidence) { clear(e.Report[0x2a0:]) } }},
	{"changed after it was signed", "signature", nil, func(r *run) {
		r.EditEvidence = func(e *sevsnp.Evidence) { e.Report[0x50]++ }
		r.options.ReportData[0]++
	}},
	{"masked chip key", "mask-chip-key", nil, func(r *run) { r.Report.MaskChipKey = true }},
	{"product of another certificate", "product", nil, func(r *run) { r.Endorsement["2"] = text("Milan-B0") }},
	{"processor of another product", "product", nil, func(r *run) { r.Report.CPUID.Model = 0x01 }},
	{"unknown processor", "product-line", nil, func(r *run) { r.Report.CPUID = sevsnp.CPUID{Family: 0x17, Model: 0x31} }},
	{"a processor that comes after Turin", "product-line", nil, func(r *run) { r.Report.CPUID = sevsnp.CPUID{Family: 0x1a, Model: 0x50} }},
	{"another chip", "chip", nil, func(r *run) { r.Endorsement["4"][0]++ }},
	{"another chip by its last byte", "chip", nil, func(r *run) { r.Endorsement["4"][63]++ }},
	{"another chip of Turin", "chip", turin, func(r *run) { r.Endorsement["4"][7]++ }},
	{"long chip id on Turin", "chip", turin, func(r *run) { r.Report.ChipID[8] = 1; r.options.Chips[0][8] = 1 }},
	{"masked chip id", "chip-masked", nil, func(r *run) { r.Report.ChipID, r.options.Chips, r.options.AnyChip = [64]byte{}, nil, true }},
	{"chip that is not listed", "chip-list", nil, func(r *run) { r.options.Chips[0][0]++ }},
	{"no chip listed", "chip-list", nil, func(r *run) { r.options.Chips = nil }},
	{"masked chip id in the list", "chip-list", vlek, func(r *run) {
		r.Report.ChipID, r.options.Chips, r.options.AllowMaskedChip = [64]byte{}, [][64]byte{{}}, true
	}},
	{"masked chip id beside another chip's certificate", "chip-list", nil, func(r *run) {
		r.Report.ChipID, r.options.AllowMaskedChip = [64]byte{}, true
		r.Endorsement["4"][0]++
	}},
	{"chip that is not listed, beside any", "chip-list", nil, func(r *run) { r.options.Chips[0][0]++; r.options.AnyChip = true }},

	// Patch levels.
	{"reserved byte in the reported TCB", "tcb-format", nil, func(r *run) { r.Report.ReportedTCB[2] = 1 }},
	{"reserved byte in the committed TCB", "tcb-format", nil, func(r *run) { r.Report.CommittedTCB[3] = 1 }},
	{"reserved byte in the current TCB", "tcb-format", nil, func(r *run) { r.Report.CurrentTCB[4] = 1 }},
	{"reserved byte in the launch TCB", "tcb-format", nil, func(r *run) { r.Report.LaunchTCB[5] = 1 }},
	{"reserved byte in Turin's TCB", "tcb-format", turin, func(r *run) { r.Report.LaunchTCB[6] = 1 }},
	{"certificate of an older bootloader", "tcb-certificate", nil, func(r *run) { r.Endorsement["3.1"] = integer(3) }},
	{"certificate of an older TEE", "tcb-certificate", nil, func(r *run) { r.Endorsement["3.2"] = integer(0) }},
	{"certificate of an older SNP", "tcb-certificate", nil, func(r *run) { r.Endorsement["3.3"] = integer(21) }},
	{"certificate of older microcode", "tcb-certificate", nil, func(r *run) { r.Endorsement["3.8"] = integer(1) }},
	{"certificate of newer SNP", "tcb-certificate", nil, func(r *run) { r.Endorsement["3.3"] = integer(23) }},
	{"certificate of an older FMC", "tcb-certificate", turin, func(r *run) { r.Endorsement["3.9"] = integer(0) }},
	{"reported above current", "tcb-reported", nil, func(r *run) { r.Report.ReportedTCB[6]++; r.Endorsement["3.3"] = integer(23) }},
	{"reported above committed", "tcb-reported", nil, func(r *run) {
		r.Report.ReportedTCB[6]++
		r.Report.CurrentTCB[6]++
		r.Endorsement["3.3"] = integer(23)
		r.options.AllowProvisionalFirmware = true
	}},
	{"launched above current", "tcb-launch", nil, func(r *run) { r.Report.LaunchTCB[0]++ }},
	{"committed above current", "tcb-committed", nil, func(r *run) { r.Report.CommittedTCB[0]++; r.options.AllowProvisionalFirmware = true }},
	{"committed firmware above current", "firmware-committed", nil,
		func(r *run) { r.Report.Committed.Build++; r.options.AllowProvisionalFirmware = true }},
	{"provisional TCB", "provisional-tcb", nil, func(r *run) { r.Report.CurrentTCB[7]++ }},
	{"provisional firmware build", "provisional-firmware", nil, func(r *run) { r.Report.Current.Build++ }},
	{"provisional firmware version", "provisional-firmware", nil, func(r *run) { r.Report.Current.Minor++ }},
	{"no minimum", "tcb-minimum", nil, func(r *run) { r.options.MinTCB = nil }},
	{"a minimum for another product", "tcb-minimum", nil, func(r *run) {
		r.options.MinTCB = map[sevsnp.Product]sevsnp.TCB{sevsnp.Milan: r.options.MinTCB[r.product]}
	}},
	{"reported below the minimum", "tcb-minimum", nil, func(r *run) { r.above(func(t *sevsnp.TCB) { t.SNP++ }) }},
	{"reported below the minimum, beside skipping", "tcb-minimum", nil,
		func(r *run) { r.above(func(t *sevsnp.TCB) { t.SNP++ }); r.options.InsecureSkipTCB = true }},
	{"launched below the minimum", "tcb-minimum", nil, func(r *run) { r.Report.LaunchTCB[6]-- }},
	{"committed below the minimum", "tcb-minimum", nil, func(r *run) {
		r.Report.CommittedTCB[6]--
		r.Report.ReportedTCB[6]--
		r.Endorsement["3.3"] = integer(21)
		r.options.AllowProvisionalFirmware = true
	}},
	{"FMC below the minimum", "tcb-minimum", turin, func(r *run) { r.above(func(t *sevsnp.TCB) { t.FMC++ }) }},
	{"old firmware", "firmware-minimum", nil, func(r *run) { r.options.MinFirmware.Build++ }},
	{"old committed firmware", "firmware-minimum", nil, func(r *run) {
		r.Report.Current.Minor++
		r.options.MinFirmware, r.options.AllowProvisionalFirmware = r.Report.Current, true
	}},
	{"missing mitigation at launch", "launch-mitigations", nil, func(r *run) { r.Report.LaunchMitigations = 1 }},
	{"missing mitigation", "current-mitigations", nil, func(r *run) { r.Report.CurrentMitigations = 2 }},

	// What the host may do.
	{"debug", "debug", nil, policyBit(sevsnp.PolicyDebug)},
	{"migration allowed", "migration", nil, policyBit(sevsnp.PolicyMigrationAgent)},
	{"migration agent", "migration-agent", nil, func(r *run) { r.Report.ReportIDMA[31] = 0 }},
	{"SMT", "smt", nil, policyBit(sevsnp.PolicySMT)},
	{"many sockets", "single-socket", nil, policyBit(sevsnp.PolicySingleSocket)},
	{"CXL", "cxl", nil, policyBit(sevsnp.PolicyCXL)},
	{"AES-128", "aes-256", nil, policyBit(sevsnp.PolicyAES256)},
	{"RAPL", "rapl", nil, policyBit(sevsnp.PolicyNoRAPL)},
	{"visible ciphertext", "ciphertext-hiding", nil, policyBit(sevsnp.PolicyCiphertextHidden)},
	{"page swap", "page-swap", nil, policyBit(sevsnp.PolicyNoPageSwap)},
	{"old interface", "abi", nil, policyBit(1)},
	{"reserved platform bit 6 set", "platform-info", nil, func(r *run) { r.Report.Platform |= 1 << 6 }},
	{"reserved platform bit 8 set", "platform-info", nil, func(r *run) { r.Report.Platform |= 1 << 8 }},
	{"aliases not checked", "aliases", nil, func(r *run) { r.Report.Platform ^= sevsnp.PlatformAliasesChecked }},
	{"VMPL 1", "vmpl", nil, func(r *run) { r.Report.VMPL = 1 }},
	{"VMPL 2 where 1 is accepted", "vmpl", nil, func(r *run) { r.Report.VMPL, r.options.MaxVMPL = 2, 1 }},
	{"asked by the host", "vmpl", nil, func(r *run) { r.Report.VMPL, r.options.MaxVMPL = 1<<32-1, 1<<32-1 }},

	// Which guest it is.
	{"another measurement", "measurement", nil, func(r *run) { r.Report.Measurement[47] = 1 }},
	{"no measurement listed", "measurement", nil, func(r *run) { r.options.Measurements = nil }},
	{"other host data", "host-data", nil, func(r *run) { r.Report.HostData[31] = 1 }},
	{"other report data", "report-data", nil, func(r *run) { r.Report.ReportData[63] = 1 }},
	{"report data of zeros where others are wanted", "report-data", nil, func(r *run) { r.Report.ReportData = [64]byte{} }},
	{"author key without a digest", "author-key", nil, func(r *run) { r.Report.AuthorKeyEnabled = true }},
	{"digest without an author key", "author-key", nil, func(r *run) {
		r.Report.AuthorKeyDigest[0], r.options.IDBlock.AuthorKeyDigest[0] = 1, 1
	}},
	{"another family", "id-block", nil, func(r *run) { r.Report.FamilyID[0] = 1 }},
	{"another image", "id-block", nil, func(r *run) { r.Report.ImageID[0] = 1 }},
	{"another id key", "id-block", nil, func(r *run) { r.Report.IDKeyDigest[0] = 1 }},
	{"an id key without its author key", "id-block", nil, func(r *run) {
		r.Report.IDKeyDigest[0], r.options.IDKeys = 1, []sevsnp.IDKeys{{IDKeyDigest: [48]byte{1}, AuthorKeyDigest: [48]byte{2}}}
	}},
	{"a family of no key, where keys of zeros are listed", "id-block", nil, func(r *run) {
		r.Report.FamilyID[0], r.options.IDKeys = 1, []sevsnp.IDKeys{{}}
	}},
	{"another author key", "id-block", nil, func(r *run) { r.Report.AuthorKeyDigest[0], r.Report.AuthorKeyEnabled = 1, true }},
	{"old guest", "guest-svn", nil, func(r *run) { r.Report.GuestSVN-- }},
}

// revoke lists a serial number.
func revoke(serial int64) func(*run) {
	return func(r *run) {
		r.CRL.RevokedCertificateEntries = []x509.RevocationListEntry{{SerialNumber: big.NewInt(serial), RevocationTime: now.Add(-time.Hour)}}
	}
}

// forms are the forms of one truth that are accepted beside the usual one.
var forms = []vector{
	{"a VCEK of Milan", "", func() *run { return newRun(sevsnp.Milan, sevsnp.SignerVCEK) }, func(*run) {}},
	{"a VLEK of Milan", "", func() *run { return newRun(sevsnp.Milan, sevsnp.SignerVLEK) }, func(*run) {}},
	{"a VCEK of Genoa", "", genoa, func(*run) {}},
	{"a VLEK of Genoa", "", vlek, func(*run) {}},
	{"a VCEK of Turin", "", turin, func(*run) {}},
	{"a VLEK of Turin", "", func() *run { return newRun(sevsnp.Turin, sevsnp.SignerVLEK) }, func(*run) {}},
	{"version 2", "", nil, func(r *run) { older(r, 2) }},
	{"version 2 and a product without a stepping", "", nil, func(r *run) { older(r, 2); r.Endorsement["2"] = text("Genoa") }},
	{"version 3", "", nil, func(r *run) { older(r, 3) }},
	{"version 3 and a product without a stepping", "", nil, func(r *run) { older(r, 3); r.Endorsement["2"] = text("Genoa") }},
	{"version 4", "", nil, func(r *run) { older(r, 4) }},
	{"ARK before ASK", "", nil, func(r *run) { r.EditEvidence = func(e *sevsnp.Evidence) { slices.Reverse(e.Chain) } }},
	{"chip id in an OCTET STRING", "", nil, func(r *run) { r.Endorsement["4"] = append([]byte{4, 64}, r.Endorsement["4"]...) }},
	{"long chip id in a certificate of Turin", "", turin, func(r *run) { r.Endorsement["4"] = slices.Clone(r.Report.ChipID[:]) }},
	{"Bergamo", "", nil, func(r *run) { r.Report.CPUID.Model = 0xa0 }},
	{"Siena", "", nil, func(r *run) { r.Report.CPUID.Model = 0xa0; r.Endorsement["2"] = text("Siena") }},
	{"dense Turin", "", turin, func(r *run) { r.Report.CPUID.Model = 0x11 }},
	{"no reserved levels", "", nil, func(r *run) { delete(r.Endorsement, "3.4") }},
	{"two roots", "", nil, func(r *run) { r.roots = append(sevsnp.AMDRoots(), r.Root()) }},
	{"another certificate revoked", "", nil, revoke(77)},
	{"older at launch, no minimum", "", nil, func(r *run) {
		r.Report.LaunchTCB[6]--
		r.options.MinTCB, r.options.InsecureSkipTCB = nil, true
	}},
	{"reported below committed, no minimum", "", nil, func(r *run) {
		r.Report.ReportedTCB[6]--
		r.Endorsement["3.3"] = integer(21)
		r.options.MinTCB, r.options.InsecureSkipTCB = nil, true
	}},
}

// older makes the report one of an older version, which has fewer fields.
func older(r *run, version uint32) {
	r.Report.Version = version
	r.options.LaunchMitigations, r.options.CurrentMitigations = 0, 0
}
