package attesttest

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"math/big"
	"slices"
	"time"

	"chrysalis/attest"
	"chrysalis/attest/evidence"
	"chrysalis/attest/release"
	"chrysalis/attest/vtpm"
	"chrysalis/measure/config"
	"chrysalis/measure/eventlog"
	"chrysalis/measure/pubkey"
	"chrysalis/measure/register"
)

// BootEvent is an event of a guest's firmware. Its digest is Digest, or when that is nil the hash of Hashed, or of Data when
// that is nil, too.
type BootEvent struct {
	Register             uint8
	Type                 uint32
	Data, Hashed, Digest []byte
}

// Contents are what a guest measures and says of itself, on any platform.
type Contents struct {
	Measured  []byte
	Records   []eventlog.Record
	Statement evidence.Statement // ConfigHash, LogHead and GPUDigest are filled in when Fill is set
	Fill      bool

	// Board are the guest's GPUs; nil: none. Its devices sign over the statement's nonce, or what GPUNonce makes of it where it is set, and
	// EditGPUs edits what they gave before the statement has its digest.
	Board    *Board
	GPUNonce func(evidence.Statement) [32]byte
	EditGPUs func(*evidence.GPUs)

	ReceiptKey, ClaimKey ed25519.PrivateKey
}

// Guest is a guest and the TPM under it. A test changes fields to make one thing wrong; whatever follows from a field is
// computed from it, so that nothing else becomes wrong with it.
type Guest struct {
	Contents

	// Root and its key certify the attestation key; Leaf is the certificate's template.
	Root         *x509.Certificate
	RootKey      *ecdsa.PrivateKey
	Leaf         *x509.Certificate
	CertifiedKey *ecdsa.PrivateKey // key in the certificate
	SigningKey   *ecdsa.PrivateKey // key that signs quotes: the same, unless a test makes them differ

	Boot []BootEvent

	// Quote edits each quote before it is signed. May be nil.
	Quote func(*vtpm.Quote)
}

// newContents returns the contents of a guest that serves the config, with keys that hold for an hour from now.
func newContents(measured []byte, records []eventlog.Record, now time.Time) Contents {
	c := Contents{
		Measured: measured, Records: records, Fill: true,
		ReceiptKey: ed25519.NewKeyFromSeed(make([]byte, 32)), ClaimKey: ed25519.NewKeyFromSeed(append(make([]byte, 31), 1)),
	}
	c.Statement = evidence.Statement{
		Epoch: 1, NotAfter: uint64(now.Add(time.Hour).Unix()), SecretHash: sha256.Sum256([]byte("secret")),
		ReceiptKey: pubkey.Of(c.ReceiptKey), ClaimKey: pubkey.Of(c.ClaimKey),
	}
	return c
}

// Holds gives the guest a board, and the config and log that go with it.
func (c *Contents) Holds(b *Board) {
	c.Board = b
	found := b.Found()
	m, err := config.Decode(c.Measured)
	check(err)
	m.Service.GPU = found.Rule
	c.Measured, err = m.Encode()
	check(err)
	sequence, err := eventlog.SequenceOf(c.Measured)
	check(err)
	sequence.GPU, err = found.Text()
	check(err)
	in := eventlog.InRTMR
	if c.Records[0].Register != eventlog.RTMR3 {
		in = eventlog.InPCRs
	}
	c.Records = sequence.Records(in)
}

// state returns the runtime log, the statement over a batch and a TLS key, and what the guest shows of its GPUs.
func (c *Contents) state(nonceRoot, tlsKey [32]byte) (log []byte, s evidence.Statement, gpus evidence.GPUs) {
	for i, r := range c.Records {
		r.Number = uint64(i)
		log = r.Append(log)
	}
	s = c.Statement
	s.NonceRoot, s.TLSKey = nonceRoot, tlsKey
	if c.Fill {
		s.ConfigHash, s.LogHead = config.SHA256(c.Measured), eventlog.Head(log)
	}
	if c.Board != nil {
		nonce := evidence.GPUNonce(s)
		if c.GPUNonce != nil {
			nonce = c.GPUNonce(s)
		}
		gpus = c.Board.Answer(nonce)
	}
	if c.EditGPUs != nil {
		c.EditGPUs(&gpus)
	}
	if c.Fill && s.GPUDigest == ([32]byte{}) {
		s.GPUDigest = gpus.Digest()
	}
	return log, s, gpus
}

// trusting returns the roots with those of the guest's GPUs.
func (c *Contents) trusting(roots attest.Roots) attest.Roots {
	if c.Board != nil {
		roots.NVIDIA = c.Board.Roots()
	}
	return roots
}

// rules returns a policy document that accepts exactly the release and these contents, on any machine.
func (c *Contents) rules(r release.Release, waive ...string) attest.Rules {
	m, err := config.Decode(c.Measured)
	check(err)
	r.Name, r.SecurityVersion = "software", 1
	rules := attest.Rules{
		Version: 1, Releases: []release.Release{r}, MinSecurityVersion: 1, Waive: append([]string{}, waive...),
		Platforms: attest.Platforms{Any: true}, Config: attest.ExactConfig(m),
	}
	if c.Board != nil {
		rules.GPU = c.Board.Rules()
	}
	return rules
}

// answer makes the evidence for a challenge that is alone in its batch.
func answer(c attest.Challenge, attested func(nonceRoot, tlsKey [32]byte) *evidence.Evidence) *evidence.Evidence {
	root, paths, err := evidence.Batch([][32]byte{evidence.Leaf(c.Nonce, c.Exporter)})
	check(err)
	e := attested(root, c.TLSKey)
	e.Path = paths[0]
	return e
}

func policyOf(r attest.Rules) attest.Policy {
	p, err := r.Policy()
	check(err)
	return p
}

// aikUsage is tcg-kp-AIKCertificate.
var aikUsage = asn1.ObjectIdentifier{2, 23, 133, 8, 3}

// New returns a guest that serves the config, with keys that hold for an hour from now.
func New(measured []byte, now time.Time) *Guest {
	sequence, err := eventlog.SequenceOf(measured)
	check(err)
	key := newKey()
	g := &Guest{
		Contents: newContents(measured, sequence.Records(eventlog.InPCRs), now), RootKey: newKey(), CertifiedKey: key, SigningKey: key,
	}
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "software TPM maker"}, NotBefore: now.Add(-time.Hour),
		NotAfter:              now.Add(24 * time.Hour),
		BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, root, root, g.RootKey.Public(), g.RootKey)
	check(err)
	g.Root, err = x509.ParseCertificate(der)
	check(err)
	g.Leaf = &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "attestation key"}, NotBefore: now.Add(-time.Hour),
		NotAfter:              now.Add(24 * time.Hour),
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature, UnknownExtKeyUsage: []asn1.ObjectIdentifier{aikUsage},
	}
	for index := range uint8(8) {
		g.Boot = append(g.Boot, BootEvent{Register: index, Type: 4, Data: eventlog.SeparatorData()})
	}
	g.Boot = append(g.Boot,
		BootEvent{Register: 0, Type: 8, Data: []byte("f\x00w\x00")},
		BootEvent{Register: 4, Type: 0x80000007, Data: []byte("Calling EFI Application from Boot Option")},
		BootEvent{Register: 9, Type: 6, Data: []byte("LOADED_IMAGE::LoadOptions"), Hashed: []byte("command line")},
	)
	return g
}

// Roots returns the one root that vouches for the guest's TPM.
func (g *Guest) Roots() attest.Roots {
	pool := x509.NewCertPool()
	pool.AddCert(g.Root)
	return g.trusting(attest.Roots{VTPM: pool})
}

// Rules returns a policy document that accepts exactly this guest, on any machine.
func (g *Guest) Rules() attest.Rules {
	bank := g.bank()
	pcrs := register.PCRs{}
	for _, index := range register.Quoted() {
		if index != 1 && index != 13 && index != 14 {
			pcrs[uint8(index)] = bank[index]
		}
	}
	return g.rules(release.Release{VTPM: []register.PCRs{pcrs}}, "confidentiality", "pcr-1")
}

// Policy returns the policy of Rules.
func (g *Guest) Policy() attest.Policy { return policyOf(g.Rules()) }

// Evidence answers one challenge, alone in its batch.
func (g *Guest) Evidence(c attest.Challenge) *evidence.Evidence { return answer(c, g.Attest) }

// Attest signs a statement over the root of a batch and the hash of a TLS key. The evidence has no path.
func (g *Guest) Attest(nonceRoot, tlsKey [32]byte) *evidence.Evidence {
	log, s, gpus := g.state(nonceRoot, tlsKey)
	var values [][32]byte
	bank := g.bank()
	for _, index := range register.Quoted() {
		values = append(values, bank[index])
	}
	extra, digest := evidence.ReportData(s), vtpm.Digest(values)
	quote := &vtpm.Quote{
		Signer: append([]byte{0, 0x0b}, make([]byte, 32)...), Extra: extra[:], Clock: 1000, ResetCount: 1, Safe: true, FirmwareVersion: 1,
		Selections: []vtpm.Selection{vtpm.SHA256Selection(register.Quoted())}, Digest: digest[:],
	}
	if g.Quote != nil {
		g.Quote(quote)
	}
	attested := quote.Marshal()
	sum := sha256.Sum256(attested)
	r, ss, err := ecdsa.Sign(rand.Reader, g.SigningKey, sum[:])
	check(err)
	leaf, err := x509.CreateCertificate(rand.Reader, g.Leaf, g.Root, g.CertifiedKey.Public(), g.RootKey)
	check(err)
	return &evidence.Evidence{
		Platform: evidence.VTPM, Statement: s, Config: g.Measured, RuntimeLog: log, BootLog: g.bootLog(), Quote: attested,
		Signature: vtpm.Signature{R: r.FillBytes(make([]byte, 32)), S: ss.FillBytes(make([]byte, 32))}.Marshal(), Certificates: [][]byte{leaf},
		GPUs: gpus,
	}
}

// bank returns the registers that the guest's logs lead to.
func (g *Guest) bank() map[uint][32]byte {
	bank := map[uint][32]byte{}
	for _, e := range g.Boot {
		bank[uint(e.Register)] = eventlog.Extend256(bank[uint(e.Register)], e.digest())
	}
	bank[13] = eventlog.Replay256(g.Records, eventlog.PCR13)
	bank[14] = eventlog.Replay256(g.Records, eventlog.PCR14)
	return bank
}

func (e BootEvent) digest() [32]byte {
	if e.Digest != nil {
		return [32]byte(e.Digest)
	}
	if e.Hashed != nil {
		return sha256.Sum256(e.Hashed)
	}
	return sha256.Sum256(e.Data)
}

// bootLog writes a TCG2 log with one bank, SHA-256.
func (g *Guest) bootLog() []byte {
	log := bootHeader(0x0b, 32)
	for _, e := range g.Boot {
		digest := e.digest()
		log = e.append(log, 0x0b, digest[:])
	}
	return log
}

// bootHeader opens a log with one bank.
func bootHeader(algorithm, size byte) []byte {
	spec := append([]byte("Spec ID Event03\x00"), 0, 0, 0, 0, 0, 2, 0, 2, 1, 0, 0, 0, algorithm, 0, size, 0, 0)
	log := binary.LittleEndian.AppendUint32(nil, 0)
	log = binary.LittleEndian.AppendUint32(log, 3)
	log = append(log, make([]byte, 20)...)
	return append(binary.LittleEndian.AppendUint32(log, uint32(len(spec))), spec...)
}

func (e BootEvent) append(log []byte, algorithm uint16, digest []byte) []byte {
	log = binary.LittleEndian.AppendUint32(log, uint32(e.Register))
	log = binary.LittleEndian.AppendUint32(log, e.Type)
	log = binary.LittleEndian.AppendUint32(log, 1)
	log = append(binary.LittleEndian.AppendUint16(log, algorithm), digest...)
	return append(binary.LittleEndian.AppendUint32(log, uint32(len(e.Data))), e.Data...)
}

func newKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(err)
	return key
}

func check(err error) {
	if err != nil {
		panic("attesttest: " + err.Error())
	}
}

// Ask makes of the contents those of a guest that asks for its secret: no keys-released, and no key that follows from a secret.
func (c *Contents) Ask() {
	c.Records = slices.DeleteFunc(c.Records, func(r eventlog.Record) bool { return r.Kind == eventlog.KindKeysReleased })
	c.Statement.ReceiptKey, c.Statement.ClaimKey, c.Statement.SecretHash = pubkey.Ed25519{}, pubkey.Ed25519{}, [32]byte{}
}
