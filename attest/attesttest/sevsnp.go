package attesttest

import (
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"slices"
	"sync"
	"time"

	"github.com/google/go-sev-guest/testing/data"

	"chrysalis/attest/sevsnp"
)

// SNP is an SEV-SNP guest and the processor under it, whose keys are those of a test library and known to everybody. A test
// changes fields to make one thing wrong; what follows from a field is signed anew.
type SNP struct {
	// ARK, ASK and Leaf are the templates of the certificates, and the keys in them and the ones that sign them.
	ARK, ASK, Leaf        *x509.Certificate
	ARKMade               []byte // the ARK's certificate, where it was made before and must stay as it is; nil: one is made
	ARKKey, ASKKey        *rsa.PrivateKey
	ARKIssuerKey          *rsa.PrivateKey
	ASKIssuerKey          *rsa.PrivateKey
	LeafIssuerKey         *rsa.PrivateKey
	LeafKey               *ecdsa.PrivateKey // key in the certificate
	SigningKey            *ecdsa.PrivateKey // key that signs reports: the same, unless a test makes them differ
	ASKIssuer, LeafIssuer *x509.Certificate // whose name stands as issuer; nil: ARK and ASK
	CRL                   *x509.RevocationList
	CRLKey                *rsa.PrivateKey
	Endorsement           map[string][]byte // extension below AMD's arc, such as "3.1", and its value
	Report                sevsnp.Report
	EditReport            func([]byte) // changes the bytes before they are signed; may be nil
	EditEvidence          func(*sevsnp.Evidence)
}

// amdArc holds the extensions of a VCEK or VLEK.
var amdArc = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1}

// NewSNP returns a guest on a processor of the product, whose reports the signer signs, with every hardening that a guest
// policy can ask for, and with certificates that hold for a day and a revocation list that holds for an hour from now.
func NewSNP(product sevsnp.Product, signer sevsnp.Signer, now time.Time) *SNP {
	tcb := sevsnp.TCB{Bootloader: 4, TEE: 1, SNP: 22, Microcode: 213}
	chip := [64]byte{0xc1, 2, 3, 4, 5, 6, 7, 8}
	id := sevsnp.CPUID{Family: 0x19, Model: 0x01, Stepping: 1}
	switch product {
	case sevsnp.Genoa:
		id.Model = 0x11
	case sevsnp.Turin:
		id, tcb.FMC = sevsnp.CPUID{Family: 0x1a, Model: 0x02}, 1
	}
	if product != sevsnp.Turin {
		chip[63] = 0x64
	}
	s := &SNP{ARKKey: data.ARKPrivateKey, ASKKey: data.ASKPrivateKey, LeafKey: data.VCEKPrivateKey, Endorsement: map[string][]byte{
		"1": der(0), "2": ia5(string(product) + "-B0"), "3.1": der(int(tcb.Bootloader)), "3.2": der(int(tcb.TEE)), "3.3": der(int(tcb.SNP)),
		"3.4": der(0), "3.5": der(0), "3.6": der(0), "3.7": der(0), "3.8": der(int(tcb.Microcode)), "4": slices.Clone(chip[:]),
	}}
	ask := "SEV-" + string(product)
	if product == sevsnp.Turin {
		for _, reserved := range []string{"3.4", "3.5", "3.6", "3.7"} {
			delete(s.Endorsement, reserved)
		}
		s.Endorsement["1"] = der(1)
		s.Endorsement["2"], s.Endorsement["3.9"], s.Endorsement["4"] = ia5(string(product)), der(int(tcb.FMC)), slices.Clone(chip[:8])
	}
	if signer == sevsnp.SignerVLEK {
		ask = "SEV-VLEK-" + string(product)
		s.ASKKey, s.LeafKey = data.ASVKPrivateKey, data.VLEKPrivateKey
		delete(s.Endorsement, "4")
		s.Endorsement["2"], s.Endorsement["5"] = ia5(string(product)), ia5("cloud.example")
	}
	s.ARKIssuerKey, s.ASKIssuerKey, s.LeafIssuerKey, s.SigningKey, s.CRLKey = s.ARKKey, s.ARKKey, s.ASKKey, s.LeafKey, s.ARKKey
	s.ARK, s.ASK, s.Leaf = snpTemplate(1, "ARK-"+string(product), now), snpTemplate(2, ask, now), snpTemplate(0, "SEV-"+signer.String(), now)
	s.ARK.KeyUsage, s.ARK.IsCA, s.ARK.MaxPathLen = x509.KeyUsageCertSign|x509.KeyUsageCRLSign, true, -1
	s.ASK.KeyUsage, s.ASK.IsCA, s.ASK.MaxPathLenZero = x509.KeyUsageCertSign, true, true
	s.ASK.CRLDistributionPoints = []string{"https://kdsintf.amd.com/vcek/v1/" + string(product) + "/crl"}
	s.Leaf.BasicConstraintsValid = false
	s.CRL = &x509.RevocationList{
		Number: big.NewInt(1), ThisUpdate: now.Add(-time.Hour), NextUpdate: now.Add(time.Hour), SignatureAlgorithm: x509.SHA384WithRSAPSS,
	}
	version := tcb.Version(product)
	s.Report = sevsnp.Report{
		Version: 5, GuestSVN: 7, SignatureAlgo: 1, Signer: signer, CPUID: id, ChipID: chip, Measurement: [48]byte{1},
		ReportData: [64]byte{2}, ReportID: [32]byte{3},
		Policy:     1<<17 | sevsnp.PolicySingleSocket | sevsnp.PolicyAES256 | sevsnp.PolicyNoRAPL | sevsnp.PolicyCiphertextHidden | sevsnp.PolicyNoPageSwap | 1<<8 | 55,
		Platform:   sevsnp.PlatformECC | sevsnp.PlatformNoRAPL | sevsnp.PlatformCiphertextHidden | sevsnp.PlatformAliasesChecked,
		CurrentTCB: version, ReportedTCB: version, CommittedTCB: version, LaunchTCB: version,
		Current: sevsnp.Firmware{Major: 1, Minor: 58, Build: 3}, Committed: sevsnp.Firmware{Major: 1, Minor: 58, Build: 3},
		LaunchMitigations: 3, CurrentMitigations: 3,
	}
	for i := range s.Report.ReportIDMA {
		s.Report.ReportIDMA[i] = 0xff
	}
	return s
}

func snpTemplate(serial int64, name string, now time.Time) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(serial), SignatureAlgorithm: x509.SHA384WithRSAPSS, NotBefore: now.Add(-24 * time.Hour),
		NotAfter: now.Add(24 * time.Hour),
		Subject: pkix.Name{
			Country: []string{"US"}, Locality: []string{"Santa Clara"}, Province: []string{"CA"}, Organization: []string{"Advanced Micro Devices"},
			OrganizationalUnit: []string{"Engineering"}, CommonName: name,
		},
		BasicConstraintsValid: true,
	}
}

// Options accepts exactly this guest on exactly this chip and firmware.
func (s *SNP) Options(product sevsnp.Product) sevsnp.Options {
	tcb, err := s.Report.ReportedTCB.Parts(product)
	check(err)
	return sevsnp.Options{
		Chips: [][64]byte{s.Report.ChipID}, MinTCB: map[sevsnp.Product]sevsnp.TCB{product: tcb},
		Measurements: [][48]byte{s.Report.Measurement}, HostData: s.Report.HostData, ReportData: s.Report.ReportData,
		MinFirmware: s.Report.Committed, MinABIMajor: 1, MinABIMinor: 55, MinGuestSVN: s.Report.GuestSVN,
		LaunchMitigations: s.Report.LaunchMitigations, CurrentMitigations: s.Report.CurrentMitigations,
	}
}

// Root returns the ARK's certificate.
func (s *SNP) Root() *x509.Certificate {
	root, err := x509.ParseCertificate(s.ark())
	check(err)
	return root
}

func (s *SNP) ark() []byte {
	if s.ARKMade != nil {
		return slices.Clone(s.ARKMade)
	}
	return s.certify(s.ARK, s.ARK, &s.ARKKey.PublicKey, s.ARKIssuerKey)
}

// Evidence returns a signed report with the certificates that belong to it.
func (s *SNP) Evidence() sevsnp.Evidence {
	raw := s.Report.Marshal()
	if s.EditReport != nil {
		s.EditReport(raw)
	}
	signed := SignSNP(raw, s.SigningKey)
	leaf := *s.Leaf
	leaf.ExtraExtensions = slices.Clone(leaf.ExtraExtensions)
	for name, value := range s.Endorsement {
		id := slices.Clone(amdArc)
		for _, n := range parseArc(name) {
			id = append(id, n)
		}
		leaf.ExtraExtensions = append(leaf.ExtraExtensions, pkix.Extension{Id: id, Value: value})
	}
	slices.SortFunc(leaf.ExtraExtensions, func(a, b pkix.Extension) int { return slices.Compare(a.Id, b.Id) })
	e := sevsnp.Evidence{
		Report:      signed,
		Certificate: s.certify(&leaf, cmp.Or(s.LeafIssuer, s.ASK), &s.LeafKey.PublicKey, s.LeafIssuerKey),
		Chain: [][]byte{
			s.certify(s.ASK, cmp.Or(s.ASKIssuer, s.ARK), &s.ASKKey.PublicKey, s.ASKIssuerKey),
			s.ark(),
		},
	}
	if s.CRL != nil {
		e.CRL = s.revocations()
	}
	if s.EditEvidence != nil {
		s.EditEvidence(&e)
	}
	return e
}

func parseArc(name string) (arc []int) {
	var a, b int
	n, _ := fmt.Sscanf(name, "%d.%d", &a, &b)
	return []int{a, b}[:n]
}

func (s *SNP) revocations() []byte {
	issuer := *s.ARK
	issuer.SubjectKeyId = []byte{1}
	issuer.KeyUsage |= x509.KeyUsageCRLSign // what the root's certificate says is for the verifier to see
	return signedOnce(fmt.Sprintf("%v|%v|%p", *s.CRL, issuer.Subject, s.CRLKey), func() ([]byte, error) {
		return x509.CreateRevocationList(rand.Reader, s.CRL, &issuer, s.CRLKey)
	})
}

// SignSNP signs a report's bytes in place of the processor.
func SignSNP(raw []byte, key *ecdsa.PrivateKey) []byte {
	raw = slices.Clone(raw)
	digest := sha512.Sum384(raw[:0x2a0])
	r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
	check(err)
	clear(raw[0x2a0:0x330])
	for i, scalar := range []*big.Int{r, s} {
		b := scalar.FillBytes(make([]byte, 48))
		slices.Reverse(b)
		copy(raw[0x2a0+72*i:], b)
	}
	return raw
}

func (s *SNP) certify(template, parent *x509.Certificate, public crypto.PublicKey, key *rsa.PrivateKey) []byte {
	return signedOnce(fmt.Sprintf("%v|%v|%p|%p", *template, parent.Subject, public, key), func() ([]byte, error) {
		return x509.CreateCertificate(rand.Reader, template, parent, public, key)
	})
}

// made keeps certificates and lists by what is in them: an RSA-4096 signature takes milliseconds, and most tests leave
// them alone.
var made sync.Map

func signedOnce(what string, sign func() ([]byte, error)) []byte {
	if der, ok := made.Load(what); ok {
		return slices.Clone(der.([]byte))
	}
	der, err := sign()
	check(err)
	// Two may sign at once, and each signature is another: all get the one that was kept first.
	kept, _ := made.LoadOrStore(what, der)
	return slices.Clone(kept.([]byte))
}

func der(value any) []byte {
	b, err := asn1.Marshal(value)
	check(err)
	return b
}

func ia5(text string) []byte {
	b, err := asn1.MarshalWithParams(text, "ia5")
	check(err)
	return b
}
