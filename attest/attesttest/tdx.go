package attesttest

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"time"

	"chrysalis/attest/tdx"
)

// TDX is a software TDX machine with Intel's service behind it, under a root of its own. A test changes fields to make
// one thing wrong; Build computes and signs everything that follows from them.
type TDX struct {
	Root, CA, PCK, Signer *Certified // the PCK's CA, the PCK and the TCB signer

	// Platform is what the PCK certificate says; Extension edits its SGX extension before it is signed, and may be nil.
	Platform  tdx.Platform
	Extension func([]SGXEntry) []SGXEntry

	Version uint16
	Body    tdx.Body
	// Attestation is the key that the QE report vouches for. SigningKey signs the quote and QEKey the QE report: the
	// attestation key and the PCK, unless a test makes them differ.
	Attestation, SigningKey, QEKey *ecdsa.PrivateKey
	QE                             tdx.QEReport // ReportData is filled in
	QEReportData                   func(*[64]byte)
	QEAuthData                     []byte
	Certification                  tdx.Certification // in the place of the chain, where its type is not zero

	// The chains as they stand in quote and collateral, root last.
	QuoteChain, CRLChain, TCBInfoChain, QEIdentityChain []*Certified

	TCBInfo    TCBInfo
	QEIdentity QEIdentity
	// TCBInfoKey and QEIdentityKey sign the two documents: the key of the head of their chain, when nil.
	TCBInfoKey, QEIdentityKey *ecdsa.PrivateKey

	PCKCRL, RootCRL *CRL
}

// Certified is a key with a certificate that Issuer signs; a root is its own issuer.
type Certified struct {
	Template *x509.Certificate
	Key      *ecdsa.PrivateKey
	Issuer   *Certified
	// SignedBy signs instead of the issuer's key, when not nil.
	SignedBy *ecdsa.PrivateKey
	// Made is the certificate, where it was made before and must stay as it is; nil: each Build makes one.
	Made []byte

	der []byte
}

// CRL is a certificate revocation list that Issuer signs.
type CRL struct {
	Template *x509.RevocationList
	Issuer   *Certified
	SignedBy *ecdsa.PrivateKey // instead of the issuer's key, when not nil
}

// SGXEntry is one element of the PCK's SGX extension.
type SGXEntry struct {
	Name  asn1.ObjectIdentifier
	Value asn1.RawValue
}

// TCBInfo is TCB info of version 3.
type TCBInfo struct {
	ID         string           `json:"id"`
	Version    int              `json:"version"`
	IssueDate  time.Time        `json:"issueDate"`
	NextUpdate time.Time        `json:"nextUpdate"`
	FMSPC      string           `json:"fmspc"`
	PCEID      string           `json:"pceId"`
	TCBType    int              `json:"tcbType"`
	Evaluation uint32           `json:"tcbEvaluationDataNumber"`
	Module     ModuleIdentity   `json:"tdxModule"`
	Modules    []ModuleIdentity `json:"tdxModuleIdentities"`
	Levels     []TCBLevel       `json:"tcbLevels"`
}

// ModuleIdentity is the identity of TDX modules of one version.
type ModuleIdentity struct {
	ID             string     `json:"id,omitempty"`
	MRSIGNER       string     `json:"mrsigner"`
	Attributes     string     `json:"attributes"`
	AttributesMask string     `json:"attributesMask"`
	Levels         []ISVLevel `json:"tcbLevels,omitempty"`
}

// TCBLevel is a level of a platform.
type TCBLevel struct {
	TCB        PlatformTCB `json:"tcb"`
	Date       string      `json:"tcbDate"`
	Status     tdx.Status  `json:"tcbStatus"`
	Advisories []string    `json:"advisoryIDs,omitempty"`
}

// PlatformTCB is what a level asks of a platform.
type PlatformTCB struct {
	SGX    []Component `json:"sgxtcbcomponents"`
	PCESVN uint16      `json:"pcesvn"`
	TDX    []Component `json:"tdxtcbcomponents"`
}

// Component is one security version.
type Component struct {
	SVN      uint8  `json:"svn"`
	Category string `json:"category,omitempty"`
	Type     string `json:"type,omitempty"`
}

// ISVLevel is a level of a module or an enclave.
type ISVLevel struct {
	TCB struct {
		ISVSVN uint16 `json:"isvsvn"`
	} `json:"tcb"`
	Date       string     `json:"tcbDate"`
	Status     tdx.Status `json:"tcbStatus"`
	Advisories []string   `json:"advisoryIDs,omitempty"`
}

// QEIdentity is the identity of a quoting enclave, version 2.
type QEIdentity struct {
	ID             string     `json:"id"`
	Version        int        `json:"version"`
	IssueDate      time.Time  `json:"issueDate"`
	NextUpdate     time.Time  `json:"nextUpdate"`
	Evaluation     uint32     `json:"tcbEvaluationDataNumber"`
	MiscSelect     string     `json:"miscselect"`
	MiscSelectMask string     `json:"miscselectMask"`
	Attributes     string     `json:"attributes"`
	AttributesMask string     `json:"attributesMask"`
	MRSIGNER       string     `json:"mrsigner"`
	ISVProdID      uint16     `json:"isvprodid"`
	Levels         []ISVLevel `json:"tcbLevels"`
}

// rootCRLAddress is where libraries look for the root's CRL.
const rootCRLAddress = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"

const tcbDate = "2026-08-12T00:00:00Z"

// Components returns 16 security versions that begin with those given.
func Components(svn ...uint8) []Component {
	list := make([]Component, 16)
	for i, v := range svn {
		list[i].SVN = v
	}
	return list
}

// PlatformLevel returns a level of a platform.
func PlatformLevel(status tdx.Status, pceSVN uint16, sgx, tdxs []Component) TCBLevel {
	return TCBLevel{TCB: PlatformTCB{sgx, pceSVN, tdxs}, Date: tcbDate, Status: status}
}

// ISVSVN returns a level of a module or an enclave.
func ISVSVN(status tdx.Status, svn uint16) (l ISVLevel) {
	l.TCB.ISVSVN, l.Date, l.Status = svn, tcbDate, status
	return l
}

// NewTDX returns a machine whose TDX module has version 1 and whose TCB is up to date, with everything valid from an hour
// before now to a day after. version is the quote's; tdx15 chooses the report.
func NewTDX(now time.Time, version uint16, tdx15 bool) *TDX {
	from, to := now.Add(-time.Hour).Truncate(time.Second).UTC(), now.Add(24*time.Hour).Truncate(time.Second).UTC()
	certified := func(serial int64, name string, ca bool, issuer *Certified) *Certified {
		c := &Certified{Key: newKey(), Issuer: issuer, Template: &x509.Certificate{
			SerialNumber: big.NewInt(serial), NotBefore: from, NotAfter: to,
			Subject:               pkix.Name{CommonName: name, Organization: []string{"Software"}},
			BasicConstraintsValid: true, IsCA: ca, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment,
		}}
		if ca {
			c.Template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
		}
		return c
	}
	m := &TDX{Version: version, Attestation: newKey(), QEAuthData: []byte("authentication data of the QE")}
	m.Root = certified(1, "Intel SGX Root CA", true, nil)
	m.Root.Issuer = m.Root
	m.Root.Template.CRLDistributionPoints = []string{rootCRLAddress}
	m.CA = certified(2, "Intel SGX PCK Platform CA", true, m.Root)
	m.PCK = certified(3, "Intel SGX PCK Certificate", false, m.CA)
	m.Signer = certified(4, "Intel SGX TCB Signing", false, m.Root)
	m.PCK.Template.SubjectKeyId, m.PCK.Template.CRLDistributionPoints = []byte{3}, []string{rootCRLAddress} // six extensions, as Intel's
	m.QuoteChain, m.CRLChain = []*Certified{m.PCK, m.CA, m.Root}, []*Certified{m.CA, m.Root}
	m.TCBInfoChain, m.QEIdentityChain = []*Certified{m.Signer, m.Root}, []*Certified{m.Signer, m.Root}

	m.Platform = tdx.Platform{
		PPID: [16]byte{0xaa, 1}, FMSPC: [6]byte{0x50, 0x80, 0x6f}, SGXSVN: [16]byte{5, 5, 2, 2, 3, 1, 0, 3},
		CPUSVN: [16]byte{5, 5, 2, 2, 3, 1, 0, 3}, PCESVN: 13, SGXType: 1,
	}
	m.Body = tdx.Body{
		TEETCBSVN: [16]byte{6, 1, 5}, MRSEAM: [48]byte{0x5e}, TDAttributes: [8]byte{0, 0, 0, 0x10}, XFAM: [8]byte{0xe7, 0x02, 0x06},
		MRTD: [48]byte{0x71}, MRCONFIGID: [48]byte{0xc0}, MROWNER: [48]byte{0x01}, MROWNERCONFIG: [48]byte{0x02},
		RTMR: [4][48]byte{{0x10}, {0x11}, {0x12}, {0x13}}, ReportData: [64]byte{0xda},
	}
	if tdx15 {
		m.Body.TDX15, m.Body.TEETCBSVN2 = true, [16]byte{6, 1, 5}
	}
	m.QE = tdx.QEReport{Attributes: [16]byte{0x15, 8: 0xe7}, MRSIGNER: [32]byte{0xdc, 0x9e}, ISVProdID: 2, ISVSVN: 6}

	intel := ModuleIdentity{MRSIGNER: hexZeros(48), Attributes: hexZeros(8), AttributesMask: "FFFFFFFFFFFFFFFF"}
	one := intel
	one.ID, one.Levels = "TDX_01", []ISVLevel{ISVSVN(tdx.UpToDate, 6), ISVSVN(tdx.OutOfDate, 4), ISVSVN(tdx.Revoked, 2)}
	m.TCBInfo = TCBInfo{
		ID: "TDX", Version: 3, IssueDate: from, NextUpdate: to, FMSPC: "50806F000000", PCEID: "0000", Evaluation: 17,
		Module: intel, Modules: []ModuleIdentity{one},
		Levels: []TCBLevel{
			PlatformLevel(tdx.UpToDate, 13, Components(5, 5, 2, 2, 3, 1, 0, 3), Components(5, 0, 5)),
			PlatformLevel(tdx.OutOfDate, 5, Components(4, 4, 2, 2, 3, 1, 0, 3), Components(3, 0, 4)),
		},
	}
	m.QEIdentity = QEIdentity{
		ID: "TD_QE", Version: 2, IssueDate: from, NextUpdate: to, Evaluation: 17, MiscSelect: "00000000", MiscSelectMask: "FFFFFFFF",
		Attributes: "11000000000000000000000000000000", AttributesMask: "FBFFFFFFFFFFFFFF0000000000000000",
		MRSIGNER: hex.EncodeToString(m.QE.MRSIGNER[:]), ISVProdID: 2,
		Levels: []ISVLevel{ISVSVN(tdx.UpToDate, 6), ISVSVN(tdx.OutOfDate, 4), ISVSVN(tdx.Revoked, 2)},
	}
	m.PCKCRL = &CRL{Template: &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: from, NextUpdate: to}, Issuer: m.CA}
	m.RootCRL = &CRL{Template: &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: from, NextUpdate: to}, Issuer: m.Root}
	return m
}

func hexZeros(n int) string { return hex.EncodeToString(make([]byte, n)) }

// Authority returns another CA or signer like c, with a key and a serial number of its own.
func (c *Certified) Authority(issuer *Certified, change func(*x509.Certificate)) *Certified {
	template := *c.Template
	template.SerialNumber = new(big.Int).Add(template.SerialNumber, big.NewInt(1000))
	other := &Certified{Template: &template, Key: newKey(), Issuer: issuer}
	if issuer == nil {
		other.Issuer = other
	}
	if change != nil {
		change(&template)
	}
	return other
}

// TDXEvidence is what Build makes.
type TDXEvidence struct {
	Quote      []byte
	Collateral *tdx.Collateral
	Root       *x509.Certificate
}

// Build signs everything anew.
func (m *TDX) Build() *TDXEvidence {
	for _, chain := range [][]*Certified{m.QuoteChain, m.CRLChain, m.TCBInfoChain, m.QEIdentityChain, {m.Root, m.CA, m.PCK, m.Signer}} {
		for _, c := range chain {
			c.der = nil
		}
	}
	extension, err := asn1.Marshal(m.extension())
	check(err)
	m.PCK.Template.ExtraExtensions = []pkix.Extension{{Id: sgxOID(), Value: extension}}
	root, err := x509.ParseCertificate(m.Root.issue())
	check(err)
	e := &TDXEvidence{Root: root, Quote: m.quote().Encode()}
	info, err := json.Marshal(m.TCBInfo)
	check(err)
	identity, err := json.Marshal(m.QEIdentity)
	check(err)
	e.Collateral = &tdx.Collateral{
		PCKCRL: m.PCKCRL.issue(), RootCACRL: m.RootCRL.issue(),
		PCKCRLIssuerChain: pemOf(m.CRLChain), TCBInfoIssuerChain: pemOf(m.TCBInfoChain), QEIdentityIssuerChain: pemOf(m.QEIdentityChain),
		TCBInfo: info, QEIdentity: identity,
		TCBInfoSignature:    rawSignature(keyOr(m.TCBInfoKey, m.TCBInfoChain[0].Key), info),
		QEIdentitySignature: rawSignature(keyOr(m.QEIdentityKey, m.QEIdentityChain[0].Key), identity),
	}
	return e
}

// PEM returns the chain of the machine's quotes.
func (m *TDX) PEM() []byte { return pemOf(m.QuoteChain) }

// Quote quotes the body as it is now, under the certificates of the last Build.
func (m *TDX) Quote() []byte { return m.quote().Encode() }

// Resign signs a document of collateral again, after a test has edited its bytes.
func (m *TDX) Resign(c *tdx.Collateral) {
	c.TCBInfoSignature = rawSignature(m.TCBInfoChain[0].Key, c.TCBInfo)
	c.QEIdentitySignature = rawSignature(m.QEIdentityChain[0].Key, c.QEIdentity)
}

func (m *TDX) quote() *tdx.Quote {
	q := &tdx.Quote{Version: m.Version, Body: m.Body, QEAuthData: m.QEAuthData, PCKChain: append(pemOf(m.QuoteChain), 0),
		Certification: m.Certification}
	point, err := m.Attestation.PublicKey.Bytes()
	check(err)
	copy(q.AttestationKey[:], point[1:])
	q.QEReport = m.qeReport(q)
	q.QEReportSignature = rawSignature(keyOr(m.QEKey, m.PCK.Key), q.QEReport[:])
	q.Signature = rawSignature(keyOr(m.SigningKey, m.Attestation), q.SignedBytes())
	return q
}

// qeReport writes the report by Intel SDM volume 3D, section 38.15.
func (m *TDX) qeReport(q *tdx.Quote) (b [384]byte) {
	digest := sha256.Sum256(append(append([]byte(nil), q.AttestationKey[:]...), q.QEAuthData...))
	data := [64]byte{}
	copy(data[:], digest[:])
	if m.QEReportData != nil {
		m.QEReportData(&data)
	}
	copy(b[16:], m.QE.MiscSelect[:])
	copy(b[48:], m.QE.Attributes[:])
	copy(b[128:], m.QE.MRSIGNER[:])
	binary.LittleEndian.PutUint16(b[256:], m.QE.ISVProdID)
	binary.LittleEndian.PutUint16(b[258:], m.QE.ISVSVN)
	copy(b[320:], data[:])
	return b
}

func sgxOID(path ...int) asn1.ObjectIdentifier {
	return append(asn1.ObjectIdentifier{1, 2, 840, 113741, 1, 13, 1}, path...)
}

// extension returns the SGX extension of the PCK certificate.
func (m *TDX) extension() []SGXEntry {
	p := m.Platform
	value := func(v any) asn1.RawValue {
		der, err := asn1.Marshal(v)
		check(err)
		return asn1.RawValue{FullBytes: der}
	}
	var tcb []SGXEntry
	for i, svn := range p.SGXSVN {
		tcb = append(tcb, SGXEntry{sgxOID(2, i+1), value(int(svn))})
	}
	tcb = append(tcb, SGXEntry{sgxOID(2, 17), value(int(p.PCESVN))}, SGXEntry{sgxOID(2, 18), value(p.CPUSVN[:])})
	entries := []SGXEntry{
		{sgxOID(1), value(p.PPID[:])}, {sgxOID(2), value(tcb)}, {sgxOID(3), value(p.PCEID[:])}, {sgxOID(4), value(p.FMSPC[:])},
		{sgxOID(5), value(asn1.Enumerated(p.SGXType))}, {sgxOID(6), value(p.PlatformInstanceID[:])},
	}
	if m.Extension != nil {
		entries = m.Extension(entries)
	}
	return entries
}

// issue returns the certificate, signed once for each Build.
func (c *Certified) issue() []byte {
	if c.der == nil && c.Made != nil {
		c.der = c.Made
	}
	if c.der == nil {
		parent, err := x509.ParseCertificate(parentOf(c))
		check(err)
		c.der, err = x509.CreateCertificate(rand.Reader, c.Template, parent, &c.Key.PublicKey, keyOr(c.SignedBy, c.Issuer.Key))
		check(err)
	}
	return c.der
}

// parentOf returns a certificate whose subject and key are the issuer's. CreateCertificate wants that of the key which
// signs, so an impostor gets one under the issuer's name.
func parentOf(c *Certified) []byte {
	key := keyOr(c.SignedBy, c.Issuer.Key)
	template := *c.Issuer.Template
	template.ExtraExtensions = nil
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, &key.PublicKey, key)
	check(err)
	return der
}

func (c *CRL) issue() []byte {
	key := keyOr(c.SignedBy, c.Issuer.Key)
	issuer, err := x509.ParseCertificate(parentOf(&Certified{Issuer: c.Issuer, SignedBy: key}))
	check(err)
	der, err := x509.CreateRevocationList(rand.Reader, c.Template, issuer, key)
	check(err)
	return der
}

func pemOf(chain []*Certified) (text []byte) {
	for _, c := range chain {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.issue()})...)
	}
	return text
}

func keyOr(key, otherwise *ecdsa.PrivateKey) *ecdsa.PrivateKey {
	if key != nil {
		return key
	}
	return otherwise
}

// rawSignature returns R and S over the SHA-256 of message.
func rawSignature(key *ecdsa.PrivateKey, message []byte) (signature [64]byte) {
	digest := sha256.Sum256(message)
	r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
	check(err)
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return signature
}
