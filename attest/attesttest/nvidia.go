package attesttest

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"slices"
	"sync"
	"time"

	"chrysalis/attest/nvidia"
	"chrysalis/attest/pki"
)

// Board is a machine's NVIDIA devices, with makers and responders of their own. A test changes fields to make one thing wrong; what
// follows from a field is signed anew.
type Board struct {
	GPUs, Switches []*BoardDevice
	RIMs           []*BoardRIM
	Root, RIMRoot  *BoardCertificate
	Lines          []*BoardCertificate // the authorities of those who sign reference values, up to the root
	Identity       *BoardCertificate   // of the chips' line

	EditEvidence func(*nvidia.Evidence)
}

// BoardDevice is a GPU or a switch.
type BoardDevice struct {
	Kind   nvidia.Kind
	Report nvidia.Report
	// Chain are the certificates, the firmware's first and the root last.
	Chain      []*BoardCertificate
	SigningKey *ecdsa.PrivateKey // nil: that of the firmware's certificate
	FWID       []byte            // in the certificate
	EditReport func([]byte)      // changes the bytes before they are signed
	EditChain  func([]byte) []byte
}

// BoardCertificate is a certificate, its key, and what a responder says of it.
type BoardCertificate struct {
	Template   *x509.Certificate
	Key        *ecdsa.PrivateKey
	Issuer     *BoardCertificate // nil: itself
	SigningKey *ecdsa.PrivateKey // nil: the issuer's
	Answer     *BoardAnswer      // nil: none
}

// BoardAnswer is what a responder says, and how.
type BoardAnswer struct {
	Status                           pki.OCSPStatus
	Produced, ThisUpdate, NextUpdate time.Time
	Nonce                            []byte
	Hash                             crypto.Hash
	Responder                        *BoardCertificate // nil: the issuer answers
	SigningKey                       *ecdsa.PrivateKey // nil: the responder's
	Serial                           *big.Int          // nil: the certificate's
	EditData                         func([]byte)      // changes the signed data after they were signed
	Critical                         bool              // an unknown extension that is critical
	Version                          int
}

// BoardRIM is a document of reference values.
type BoardRIM struct {
	Form                  nvidia.Form
	Tag, Edition, Product string
	Version               string
	Entries               []BoardEntry
	Signers               []*BoardCertificate
	SigningKey            *ecdsa.PrivateKey   // nil: the first signer's
	NotBefore, NotAfter   time.Time           // CoRIM
	OmitRoot              bool                // CoRIM: the chain has no root
	EditXML               func(string) string // before it is signed
	EditSignedInfo        func(string) string // likewise
	EditSigned            func(string) string // after
	EditCoRIM             func(*CoRIM)        // before it is signed
}

// BoardEntry is a measurement by its index in SPDM.
type BoardEntry struct {
	Index  uint8
	Active bool
	Values [][]byte
	Raw    bool // CoRIM: a value as it is, not a digest
	Mask   []byte
}

// Fields of opaque data.
const (
	fieldDriver, fieldVBIOS, fieldNVDEC0, fieldChipSKU, fieldProject, fieldProjectSKU = 3, 6, 11, 15, 17, 18
	fieldFWID, fieldProtectedPCIe, fieldPDI, fieldGPUPDIs                             = 20, 21, 22, 26
	fieldOpaqueVersion, fieldChip, fieldFeature                                       = 34, 35, 36
)

// NewBoard returns one GPU of Hopper that was passed through alone, with certificates that hold for a day, and answers and reference values
// that hold for an hour from now.
func NewBoard(now time.Time) *Board { return newBoard(nvidia.Hopper, nvidia.ModeSPT, 1, 0, now) }

// NewBlackwellBoard returns so many GPUs of Blackwell, which encrypt what goes between them.
func NewBlackwellBoard(gpus int, now time.Time) *Board {
	return newBoard(nvidia.Blackwell, nvidia.ModeMPT, gpus, 0, now)
}

// NewPPCIeBoard returns GPUs of Hopper and the switches between them, in protected PCIe.
func NewPPCIeBoard(gpus, switches int, now time.Time) *Board {
	return newBoard(nvidia.Hopper, nvidia.ModePPCIe, gpus, switches, now)
}

func newBoard(a nvidia.Architecture, mode nvidia.Mode, gpus, switches int, now time.Time) *Board {
	b := &Board{}
	chip := map[nvidia.Architecture]string{nvidia.Hopper: "GH100", nvidia.Blackwell: "GB100"}[a]
	b.Root = authority("software device CA", "", nil, now)
	b.Identity = authority("NVIDIA "+chip+" Identity", "", b.Root, now)
	b.Identity.Answer = answering(b.Identity, now)
	b.RIMRoot = authority("software RIM CA", "", nil, now)
	lines := authority("NVIDIA Reference Value "+chip+" CA", "", b.RIMRoot, now)
	lines.Answer = answering(lines, now)
	b.Lines = []*BoardCertificate{lines, b.RIMRoot}
	driver, vbios := "570.124.06", "96.00.9F.00.01"
	if a == nvidia.Blackwell {
		driver, vbios = "590.48.01", "97.00.D9.00.35"
	}
	for i := range gpus {
		b.GPUs = append(b.GPUs, b.device(nvidia.GPU, chip, i, now))
	}
	for i := range switches {
		b.Switches = append(b.Switches, b.device(nvidia.Switch, "LS_10", i, now))
	}
	b.RIMs = []*BoardRIM{
		{Form: nvidia.FormSWID, Tag: "driver's tag", Edition: "GPU", Product: chip, Version: driver, Signers: b.Signer("driver", now),
			Entries: entries(7, 20)},
		{Form: nvidia.FormSWID, Tag: "firmware's tag", Edition: "GPU", Product: chip, Version: vbios, Signers: b.Signer("VBIOS", now),
			Entries: entries(0, 6)},
	}
	for _, r := range b.RIMs {
		r.NotBefore, r.NotAfter = now.Add(-time.Hour), now.Add(time.Hour)
	}
	if switches > 0 {
		b.RIMs = append(b.RIMs, &BoardRIM{Form: nvidia.FormSWID, Tag: "switch's tag", Edition: "SWITCH", Product: "LS10",
			Version: "96.10.6D.00.01", Signers: b.Signer("switch", now), Entries: entries(0, 12)})
	}
	for _, g := range b.GPUs {
		g.describeGPU(driver, vbios, mode, a)
		for _, s := range b.Switches {
			pdi := s.pdi()
			slices.Reverse(pdi)
			g.Set(fieldPDI, append(g.Get(fieldPDI), pdi...))
		}
	}
	for _, s := range b.Switches {
		s.Set(fieldVBIOS, []byte("96.10.6D.00.01"))
		s.Set(fieldPDI, s.pdi())
		list, ports := make([]byte, 64), bytes.Repeat([]byte{0xff}, 64)
		for i, g := range b.GPUs {
			copy(list[8*i:], g.pdi())
			ports[i] = byte(i)
		}
		s.Set(fieldGPUPDIs, append(list, ports...))
	}
	return b
}

// Signer returns a new signer of reference values and the authorities above it.
func (b *Board) Signer(holder string, now time.Time) []*BoardCertificate {
	signer := certificate("RIM signer", holder, b.Lines[0], now)
	signer.Answer = answering(signer, now)
	return append([]*BoardCertificate{signer}, b.Lines...)
}

// entries returns measurements by their RIM's index, which counts from 0; some are not active, and one has alternatives.
func entries(from, to int) (all []BoardEntry) {
	for i := from; i <= to; i++ {
		all = append(all, BoardEntry{Index: uint8(i) + 1, Active: i%3 != 2, Values: [][]byte{measured(i)}})
	}
	for i, active := 0, 0; ; i++ { // the second that is active has alternatives
		if all[i].Active {
			active++
		}
		if active == 2 {
			all[i].Values = [][]byte{bytes.Repeat([]byte{0xaa}, 48), all[i].Values[0]}
			return all
		}
	}
}

// measured is what a device measures at a RIM's index.
func measured(i int) []byte {
	sum := sha512.Sum384([]byte{byte(i)})
	return sum[:]
}

func (b *Board) device(kind nvidia.Kind, chip string, number int, now time.Time) *BoardDevice {
	holder := fmt.Sprint(kind, number)
	provisioner := authority("NVIDIA "+chip+" Provisioner ICA 1", "", b.Identity, now)
	brom := authority(chip+" A01 GSP BROM", holder, provisioner, now)
	brom.Template.Subject.SerialNumber = fmt.Sprintf("41%016X", uint64(0x1122334455660000)+uint64(kind[0])<<8+uint64(number))
	leaf := certificate(chip+" A01 GSP FMC LF", holder, brom, now)
	for _, c := range []*BoardCertificate{provisioner, brom} {
		c.Answer = answering(c, now)
	}
	fwid := sha512.Sum384([]byte("firmware"))
	d := &BoardDevice{Kind: kind, Chain: []*BoardCertificate{leaf, brom, provisioner, b.Identity, b.Root}, FWID: fwid[:]}
	d.Report.Nonce, d.Report.ResponderNonce = [32]byte{1, 2, 3}, [32]byte{4, 5, byte(number)}
	for i := range 24 {
		d.Report.Measurements = append(d.Report.Measurements, nvidia.Measurement{Index: uint8(i) + 1, Type: 1, Value: measured(i)})
	}
	return d
}

func (d *BoardDevice) describeGPU(driver, vbios string, mode nvidia.Mode, a nvidia.Architecture) {
	v, err := hex.DecodeString(string(bytes.ReplaceAll([]byte(vbios), []byte("."), nil)))
	check(err)
	d.Set(fieldVBIOS, []byte{v[3], v[2], v[1], v[0], v[4], 0, 0, 0})
	d.Set(fieldChipSKU, []byte("882\x00"))
	d.Set(fieldProject, []byte("1010\x00"))
	d.Set(fieldProjectSKU, []byte("0200\x00"))
	d.Set(fieldDriver, append([]byte(driver), 0))
	d.Set(fieldNVDEC0, []byte{0xaa})
	d.Set(fieldFWID, d.FWID)
	feature := map[nvidia.Mode]byte{nvidia.ModeSPT: 0, nvidia.ModeMPT: 1, nvidia.ModePPCIe: 2}[mode]
	if a == nvidia.Blackwell {
		d.Set(fieldChip, []byte("GB100\x00"))
	} else {
		d.Set(fieldProtectedPCIe, []byte{map[bool]byte{true: 0xaa, false: 0x55}[mode == nvidia.ModePPCIe]})
	}
	d.Set(fieldOpaqueVersion, []byte{1, 0})
	d.Set(fieldFeature, []byte{feature, 0})
}

func (d *BoardDevice) pdi() []byte {
	serial, err := hex.DecodeString(d.Chain[1].Template.Subject.SerialNumber)
	check(err)
	return serial[len(serial)-8:]
}

// Get returns a field of the opaque data, or nil.
func (d *BoardDevice) Get(id uint16) []byte {
	for _, f := range d.Report.Opaque {
		if f.ID == id {
			return f.Value
		}
	}
	return nil
}

// Set sets a field of the opaque data; nil takes it away.
func (d *BoardDevice) Set(id uint16, value []byte) {
	at := slices.IndexFunc(d.Report.Opaque, func(f nvidia.Field) bool { return f.ID == id })
	switch {
	case at < 0 && value != nil:
		d.Report.Opaque = append(d.Report.Opaque, nvidia.Field{ID: id, Value: value})
	case at >= 0 && value == nil:
		d.Report.Opaque = slices.Delete(d.Report.Opaque, at, at+1)
	case at >= 0:
		d.Report.Opaque[at].Value = value
	}
}

// Measure sets the measurement at an index of SPDM.
func (d *BoardDevice) Measure(index uint8, value []byte) {
	for i := range d.Report.Measurements {
		if m := &d.Report.Measurements[i]; m.Index == index {
			m.Value = value
		}
	}
}

// keys keeps the keys of boards by who holds them: all boards have the same, so that what is signed with them is signed once. Another board
// is one of another time, whose certificates differ.
var keys sync.Map

func keyOf(name string) *ecdsa.PrivateKey {
	if key, ok := keys.Load(name); ok {
		return key.(*ecdsa.PrivateKey)
	}
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	check(err)
	kept, _ := keys.LoadOrStore(name, key)
	return kept.(*ecdsa.PrivateKey)
}

// certificate returns a certificate for a holder, of whose kind there may be several under that name.
func certificate(name, holder string, issuer *BoardCertificate, now time.Time) *BoardCertificate {
	serial := sha256.Sum256([]byte(name + holder))
	serial[0] = 0x51
	return &BoardCertificate{Key: keyOf(name + holder), Issuer: issuer, Template: &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(serial[:16]), Subject: pkix.Name{CommonName: name, Organization: []string{"software"}},
		NotBefore: now.Add(-24 * time.Hour), NotAfter: now.Add(24 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		SignatureAlgorithm: x509.ECDSAWithSHA384,
	}}
}

func authority(name, holder string, issuer *BoardCertificate, now time.Time) *BoardCertificate {
	c := certificate(name, holder, issuer, now)
	c.Template.KeyUsage, c.Template.IsCA, c.Template.BasicConstraintsValid = x509.KeyUsageCertSign|x509.KeyUsageCRLSign, true, true
	return c
}

// answering returns a responder's answer that a certificate is good.
func answering(c *BoardCertificate, now time.Time) *BoardAnswer {
	responder := certificate("responder for "+c.Issuer.Template.Subject.CommonName, "", c.Issuer, now)
	responder.Template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}
	return &BoardAnswer{Status: pki.OCSPGood, Produced: now.Add(-time.Hour), ThisUpdate: now.Add(-time.Hour),
		NextUpdate: now.Add(time.Hour), Hash: crypto.SHA384, Responder: responder}
}

func (c *BoardCertificate) issuer() *BoardCertificate { return cmp.Or(c.Issuer, c) }

// DER returns the certificate.
func (c *BoardCertificate) DER() []byte {
	key := cmp.Or(c.SigningKey, c.issuer().Key)
	return signedOnce(fmt.Sprintf("%v|%v|%p|%p", *c.Template, c.issuer().Template.Subject, c.Key, key), func() ([]byte, error) {
		return x509.CreateCertificate(rand.Reader, c.Template, c.issuer().Template, c.Key.Public(), key)
	})
}

// Certificate returns the certificate, parsed.
func (c *BoardCertificate) Certificate() *x509.Certificate {
	cert, err := x509.ParseCertificate(c.DER())
	check(err)
	return cert
}

// Roots are the makers of the board.
func (b *Board) Roots() nvidia.Roots {
	return nvidia.Roots{Device: []nvidia.Root{nvidia.RootOf(b.Root.Certificate())}, RIM: []nvidia.Root{nvidia.RootOf(b.RIMRoot.Certificate())}}
}

// Options accept exactly this board.
func (b *Board) Options() nvidia.Options {
	o := nvidia.Options{GPUs: len(b.GPUs), Switches: len(b.Switches), Nonce: b.GPUs[0].Report.Nonce, MinVBIOS: map[string]string{},
		MaxOCSPAge: 2 * time.Hour}
	for _, d := range slices.Concat(b.GPUs, b.Switches) {
		claims, err := d.Report.Claims()
		if d.Kind == nvidia.Switch {
			claims, err = d.Report.SwitchClaims()
		}
		check(err)
		chip, _, _ := bytes.Cut([]byte(d.Chain[1].Template.Subject.CommonName), []byte(" "))
		id := nvidia.ID{Chip: string(chip), Serial: d.Chain[1].Template.Subject.SerialNumber}
		o.Devices, o.MinVBIOS[id.Chip] = append(o.Devices, id), claims.VBIOS
		if d.Kind == nvidia.GPU {
			o.MinDriver, o.Modes = claims.Driver, []nvidia.Mode{claims.Mode}
			o.Architectures = []nvidia.Architecture{nvidia.Hopper}
			if id.Chip == "GB100" {
				o.Architectures = []nvidia.Architecture{nvidia.Blackwell}
			}
		}
	}
	for _, r := range b.RIMs {
		o.RIMs = append(o.RIMs, r.Tag)
	}
	return o
}

// Evidence returns signed reports with all that belongs to them.
func (b *Board) Evidence() nvidia.Evidence {
	var e nvidia.Evidence
	var about []*BoardCertificate
	add := func(chain []*BoardCertificate) {
		for _, c := range chain {
			if c.Answer != nil && !slices.Contains(about, c) {
				about = append(about, c)
			}
		}
	}
	for _, d := range b.GPUs {
		e.GPUs = append(e.GPUs, d.evidence())
		add(d.Chain)
	}
	for _, d := range b.Switches {
		e.Switches = append(e.Switches, d.evidence())
		add(d.Chain)
	}
	for _, r := range b.RIMs {
		e.RIMs = append(e.RIMs, r.Document())
		add(r.Signers)
	}
	for _, c := range about {
		e.OCSP = append(e.OCSP, c.Answered())
	}
	if b.EditEvidence != nil {
		b.EditEvidence(&e)
	}
	return e
}

func (d *BoardDevice) evidence() nvidia.Device {
	leaf := d.Chain[0]
	template := *leaf.Template
	template.ExtraExtensions = append(slices.Clone(template.ExtraExtensions), d.firmware())
	certified := *leaf
	certified.Template = &template
	var chain bytes.Buffer
	for i, c := range d.Chain {
		der := c.DER()
		if i == 0 {
			der = certified.DER()
		}
		check(pem.Encode(&chain, &pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	text := chain.Bytes()
	if d.EditChain != nil {
		text = d.EditChain(text)
	}
	return nvidia.Device{Report: d.Sign(), Chain: text}
}

// Sign returns the report with its signature.
func (d *BoardDevice) Sign() []byte {
	raw := d.Report.Marshal()
	if d.EditReport != nil {
		d.EditReport(raw)
	}
	digest := sha512.Sum384(raw[:len(raw)-96])
	copy(raw[len(raw)-96:], signRaw(cmp.Or(d.SigningKey, d.Chain[0].Key), digest[:]))
	return raw
}

// signRaw signs a digest, once: what is the same has the same signature.
func signRaw(key *ecdsa.PrivateKey, digest []byte) []byte {
	return signedOnce(fmt.Sprintf("raw|%p|%x", key, digest), func() ([]byte, error) {
		r, s, err := ecdsa.Sign(rand.Reader, key, digest)
		check(err)
		return append(r.FillBytes(make([]byte, 48)), s.FillBytes(make([]byte, 48))...), nil
	})
}

// firmware returns the extension that names the firmware which holds the key: on Blackwell a DiceTcbInfo, on others RIoT's.
func (d *BoardDevice) firmware() pkix.Extension {
	type fwid struct {
		Algorithm asn1.ObjectIdentifier
		Digest    []byte
	}
	id := fwid{asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 2}, d.FWID}
	if d.Get(fieldChip) == nil {
		return pkix.Extension{Id: asn1.ObjectIdentifier{2, 23, 133, 5, 4, 1}, Value: der(struct {
			Version int
			Device  asn1.RawValue
			FWID    fwid
		}{1, asn1.RawValue{FullBytes: []byte{0x30, 0}}, id})}
	}
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 23, 133, 5, 4, 1, 1}, Value: der(struct {
		Vendor string `asn1:"tag:0,utf8"`
		SVN    int    `asn1:"tag:3"`
		FWIDs  []fwid `asn1:"tag:6"`
	}{"NVIDIA", 1, []fwid{id, {id.Algorithm, make([]byte, 48)}}})}
}

type ocspID struct {
	Hash              pkix.AlgorithmIdentifier
	NameHash, KeyHash []byte
	Serial            *big.Int
}

type ocspRevoked struct {
	At     time.Time       `asn1:"generalized"`
	Reason asn1.Enumerated `asn1:"explicit,tag:0"`
}

type ocspSingle struct {
	ID         ocspID
	Status     asn1.RawValue
	ThisUpdate time.Time     `asn1:"generalized"`
	NextUpdate asn1.RawValue `asn1:"optional"`
}

type ocspData struct {
	Version    int `asn1:"explicit,tag:0,default:0,optional"`
	Responder  asn1.RawValue
	Produced   time.Time `asn1:"generalized"`
	Responses  []ocspSingle
	Extensions []pkix.Extension `asn1:"explicit,tag:1,optional,omitempty"`
}

// Answered returns what a responder says of the certificate, in DER.
func (c *BoardCertificate) Answered() []byte {
	a, issuer := c.Answer, c.issuer().Certificate()
	responder := cmp.Or(a.Responder, c.issuer())
	oids := map[crypto.Hash]asn1.ObjectIdentifier{crypto.SHA1: {1, 3, 14, 3, 2, 26}, crypto.SHA256: {2, 16, 840, 1, 101, 3, 4, 2, 1},
		crypto.SHA384: {2, 16, 840, 1, 101, 3, 4, 2, 2}}
	hash := func(kind crypto.Hash, b []byte) []byte {
		h := kind.New()
		h.Write(b)
		return h.Sum(nil)
	}
	bits := func(cert *x509.Certificate) []byte {
		var key struct {
			Algorithm pkix.AlgorithmIdentifier
			Key       asn1.BitString
		}
		_, err := asn1.Unmarshal(cert.RawSubjectPublicKeyInfo, &key)
		check(err)
		return key.Key.Bytes
	}
	revoked := func(reason asn1.Enumerated) asn1.RawValue {
		inner, err := asn1.MarshalWithParams(ocspRevoked{a.ThisUpdate, reason}, "tag:1")
		check(err)
		return asn1.RawValue{FullBytes: inner}
	}
	single := ocspSingle{ID: ocspID{pkix.AlgorithmIdentifier{Algorithm: oids[a.Hash]}, hash(a.Hash, issuer.RawSubject),
		hash(a.Hash, bits(issuer)), cmp.Or(a.Serial, c.Template.SerialNumber)},
		ThisUpdate: a.ThisUpdate}
	switch a.Status {
	case pki.OCSPGood:
		single.Status = asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0}
	case pki.OCSPHold:
		single.Status = revoked(6)
	case pki.OCSPRevoked:
		single.Status = revoked(1)
	default:
		single.Status = asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 2}
	}
	if !a.NextUpdate.IsZero() {
		inner, err := asn1.MarshalWithParams(a.NextUpdate, "generalized")
		check(err)
		single.NextUpdate = asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: inner}
	}
	data := ocspData{Version: a.Version, Produced: a.Produced, Responses: []ocspSingle{single},
		Responder: asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 2, IsCompound: true,
			Bytes: der(hash(crypto.SHA1, bits(responder.Certificate())))}}
	if a.Nonce != nil {
		data.Extensions = append(data.Extensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 2}, Value: der(a.Nonce)})
	}
	if a.Critical {
		data.Extensions = append(data.Extensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}})
	}
	signed := der(data)
	digest := sha512.Sum384(signed)
	key := cmp.Or(a.SigningKey, responder.Key)
	signature := signedOnce(fmt.Sprintf("asn.1|%p|%x", key, digest), func() ([]byte, error) { return ecdsa.SignASN1(rand.Reader, key, digest[:]) })
	if a.EditData != nil {
		a.EditData(signed)
	}
	var certificates []asn1.RawValue
	if a.Responder != nil {
		certificates = []asn1.RawValue{{FullBytes: responder.DER()}}
	}
	basic := der(struct {
		Data         asn1.RawValue
		Algorithm    pkix.AlgorithmIdentifier
		Signature    asn1.BitString
		Certificates []asn1.RawValue `asn1:"explicit,tag:0,optional,omitempty"`
	}{asn1.RawValue{FullBytes: signed}, pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 3}},
		asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}, certificates})
	type bytesOf struct {
		Type     asn1.ObjectIdentifier
		Response []byte
	}
	return der(struct {
		Status asn1.Enumerated
		Bytes  bytesOf `asn1:"explicit,tag:0"`
	}{0, bytesOf{asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 1}, basic}})
}
