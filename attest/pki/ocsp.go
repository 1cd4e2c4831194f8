package pki

import (
	"bytes"
	"crypto"
	_ "crypto/sha1" // of the names in an answer
	_ "crypto/sha256"
	_ "crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"
)

// OCSPStatus is what a responder says of a certificate.
type OCSPStatus string

// The statuses. A hold is a revocation that can be lifted.
const (
	OCSPGood    OCSPStatus = "good"
	OCSPHold    OCSPStatus = "on hold"
	OCSPRevoked OCSPStatus = "revoked"
	OCSPUnknown OCSPStatus = "unknown"
)

// OCSP is an answer of a responder about one certificate, parsed and not verified: RFC 6960.
type OCSP struct {
	Raw        []byte
	Serial     *big.Int
	Status     OCSPStatus
	Reason     int // CRLReason, where one is given
	RevokedAt  time.Time
	Produced   time.Time
	ThisUpdate time.Time
	NextUpdate time.Time // zero where the answer does not say
	Nonce      []byte    // of the request; nil where the answer has none

	hash               crypto.Hash
	nameHash, keyHash  []byte
	byName, byKey      []byte
	signed, signature  []byte
	signatureAlgorithm x509.SignatureAlgorithm
	certificate        *x509.Certificate // the responder's, where it came along
}

// RFC 6960, appendix B.1, and the algorithms of RFC 5758.
var (
	oidOCSPBasic = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 1}
	oidOCSPNonce = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 2}
	ocspHashes   = map[string]crypto.Hash{"1.3.14.3.2.26": crypto.SHA1, "2.16.840.1.101.3.4.2.1": crypto.SHA256,
		"2.16.840.1.101.3.4.2.2": crypto.SHA384}
	ocspSignatures = map[string]x509.SignatureAlgorithm{"1.2.840.10045.4.3.2": x509.ECDSAWithSHA256,
		"1.2.840.10045.4.3.3": x509.ECDSAWithSHA384}
)

const (
	reasonHold         = 6  // CRLReason certificateHold: RFC 5280, section 5.3.1
	maxOCSPNonceBytes  = 32 // RFC 8954
	maxResponderNested = 4  // certificates in an answer
)

type ocspResponse struct {
	Status asn1.Enumerated
	Bytes  ocspResponseBytes `asn1:"explicit,tag:0,optional"`
}

type ocspResponseBytes struct {
	Type     asn1.ObjectIdentifier
	Response []byte
}

type ocspBasic struct {
	Data         ocspData
	Algorithm    pkix.AlgorithmIdentifier
	Signature    asn1.BitString
	Certificates []asn1.RawValue `asn1:"explicit,tag:0,optional"`
}

type ocspData struct {
	Raw        asn1.RawContent
	Version    int           `asn1:"explicit,tag:0,default:0,optional"`
	Responder  asn1.RawValue // CHOICE of byName [1] and byKey [2]
	Produced   time.Time     `asn1:"generalized"`
	Responses  []ocspSingle
	Extensions []pkix.Extension `asn1:"explicit,tag:1,optional"`
}

type ocspSingle struct {
	ID         ocspCertID
	Status     asn1.RawValue    // CHOICE of good [0], revoked [1] and unknown [2]
	ThisUpdate time.Time        `asn1:"generalized"`
	NextUpdate time.Time        `asn1:"generalized,explicit,tag:0,optional"`
	Extensions []pkix.Extension `asn1:"explicit,tag:1,optional"`
}

type ocspCertID struct {
	Hash              pkix.AlgorithmIdentifier
	NameHash, KeyHash []byte
	Serial            *big.Int
}

type ocspRevoked struct {
	At     time.Time       `asn1:"generalized"`
	Reason asn1.Enumerated `asn1:"explicit,tag:0,optional"`
}

// ParseOCSP parses an answer in DER of at most so many bytes, which must be about one certificate. Nothing may follow it, and no
// extension that is critical may be unknown.
func ParseOCSP(der []byte, most int) (*OCSP, error) {
	if len(der) > most {
		return nil, fmt.Errorf("%d bytes, want at most %d", len(der), most)
	}
	var response ocspResponse
	if err := whole(der, &response, ""); err != nil {
		return nil, fmt.Errorf("response: %w", err)
	}
	if response.Status != 0 {
		return nil, fmt.Errorf("the responder answers with the error %d", response.Status)
	}
	if !response.Bytes.Type.Equal(oidOCSPBasic) {
		return nil, fmt.Errorf("response is of type %v, want %v", response.Bytes.Type, oidOCSPBasic)
	}
	var basic ocspBasic
	if err := whole(response.Bytes.Response, &basic, ""); err != nil {
		return nil, fmt.Errorf("basic response: %w", err)
	}
	o := &OCSP{Raw: der, signed: basic.Data.Raw, signature: basic.Signature.RightAlign(), Produced: basic.Data.Produced}
	if o.signatureAlgorithm = ocspSignatures[basic.Algorithm.Algorithm.String()]; o.signatureAlgorithm == 0 {
		return nil, fmt.Errorf("signature is %v, want ECDSA with SHA-256 or SHA-384", basic.Algorithm.Algorithm)
	}
	if basic.Data.Version != 0 {
		return nil, fmt.Errorf("version is %d, want 0", basic.Data.Version)
	}
	return o, errors.Join(o.responder(basic.Data.Responder), o.single(basic.Data.Responses), o.extensions(basic.Data.Extensions),
		o.certificates(basic.Certificates, most))
}

// whole parses DER that must be used up.
func whole(der []byte, to any, params string) error {
	rest, err := asn1.UnmarshalWithParams(der, to, params)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("%d bytes follow", len(rest))
	}
	return err
}

func (o *OCSP) responder(id asn1.RawValue) error {
	if id.Class != asn1.ClassContextSpecific || !id.IsCompound {
		return errors.New("responder is neither named nor known by its key")
	}
	switch id.Tag {
	case 1:
		o.byName = id.Bytes
		return nil
	case 2:
		return whole(id.Bytes, &o.byKey, "")
	}
	return fmt.Errorf("responder is of kind %d, want 1 or 2", id.Tag)
}

func (o *OCSP) single(all []ocspSingle) error {
	if len(all) != 1 {
		return fmt.Errorf("answers about %d certificates, want one", len(all))
	}
	s := all[0]
	o.hash = ocspHashes[s.ID.Hash.Algorithm.String()]
	if o.hash == 0 {
		return fmt.Errorf("names are hashed by %v, want SHA-1, SHA-256 or SHA-384", s.ID.Hash.Algorithm)
	}
	if len(s.ID.NameHash) != o.hash.Size() || len(s.ID.KeyHash) != o.hash.Size() {
		return fmt.Errorf("hashes of %d and %d bytes, want %d", len(s.ID.NameHash), len(s.ID.KeyHash), o.hash.Size())
	}
	o.nameHash, o.keyHash, o.Serial = s.ID.NameHash, s.ID.KeyHash, s.ID.Serial
	o.ThisUpdate, o.NextUpdate = s.ThisUpdate, s.NextUpdate
	if s.Status.Class != asn1.ClassContextSpecific {
		return fmt.Errorf("status is of class %d, want one of a context", s.Status.Class)
	}
	switch s.Status.Tag {
	case 0:
		o.Status = OCSPGood
	case 1:
		var revoked ocspRevoked
		if err := whole(s.Status.FullBytes, &revoked, "tag:1"); err != nil {
			return fmt.Errorf("revocation: %w", err)
		}
		o.Status, o.Reason, o.RevokedAt = OCSPRevoked, int(revoked.Reason), revoked.At
		if o.Reason == reasonHold {
			o.Status = OCSPHold
		}
	case 2:
		o.Status = OCSPUnknown
	default:
		return fmt.Errorf("status is %d, want 0 to 2", s.Status.Tag)
	}
	return critical(s.Extensions)
}

func critical(extensions []pkix.Extension) error {
	for _, e := range extensions {
		if e.Critical && !e.Id.Equal(oidOCSPNonce) {
			return fmt.Errorf("critical extension %v is unknown", e.Id)
		}
	}
	return nil
}

func (o *OCSP) extensions(all []pkix.Extension) error {
	for _, e := range all {
		if !e.Id.Equal(oidOCSPNonce) {
			continue
		}
		if o.Nonce != nil {
			return errors.New("two nonces")
		}
		if err := whole(e.Value, &o.Nonce, ""); err != nil || len(o.Nonce) == 0 || len(o.Nonce) > maxOCSPNonceBytes {
			return fmt.Errorf("nonce is %x, want an OCTET STRING of 1 to %d bytes", e.Value, maxOCSPNonceBytes)
		}
	}
	return critical(all)
}

func (o *OCSP) certificates(all []asn1.RawValue, most int) error {
	if len(all) > maxResponderNested {
		return fmt.Errorf("%d certificates, want at most %d", len(all), maxResponderNested)
	}
	for i, der := range all {
		cert, err := Parse(der.FullBytes, most)
		if err != nil {
			return fmt.Errorf("certificate %d: %w", i, err)
		}
		if o.answered(cert) {
			o.certificate = cert
		}
	}
	return nil
}

// answered reports whether the answer says that it is by the certificate's key: RFC 6960, section 4.2.1, where a key's hash is SHA-1.
func (o *OCSP) answered(by *x509.Certificate) bool {
	if o.byName != nil {
		return bytes.Equal(o.byName, by.RawSubject)
	}
	return bytes.Equal(o.byKey, digestOfKey(crypto.SHA1, by))
}

// digestOfKey hashes a public key's bits.
func digestOfKey(hash crypto.Hash, cert *x509.Certificate) []byte {
	var key struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	if err := whole(cert.RawSubjectPublicKeyInfo, &key, ""); err != nil {
		return nil
	}
	h := hash.New()
	h.Write(key.Key.RightAlign())
	return h.Sum(nil)
}

// About reports whether the answer is about a certificate of an issuer's.
func (o *OCSP) About(cert, issuer *x509.Certificate) bool {
	if o.Serial.Cmp(cert.SerialNumber) != 0 {
		return false
	}
	h := o.hash.New()
	h.Write(issuer.RawSubject)
	return bytes.Equal(h.Sum(nil), o.nameHash) && bytes.Equal(digestOfKey(o.hash, issuer), o.keyHash)
}

// Responder returns the certificate of whom the answer says that it is by: one that came along, or the issuer's own. It is nil where it
// is by neither. Its dates are the caller's to judge.
func (o *OCSP) Responder(issuer *x509.Certificate) *x509.Certificate {
	switch {
	case o.certificate != nil && !o.certificate.Equal(issuer):
		return o.certificate
	case o.answered(issuer):
		return issuer
	}
	return nil
}

// OCSPIssuedBy checks that the issuer, or a responder that it has certified for this, signed the answer with a signature of that kind:
// RFC 6960, section 4.2.2.2.
func OCSPIssuedBy(o *OCSP, issuer *x509.Certificate, kind x509.SignatureAlgorithm) error {
	responder := o.Responder(issuer)
	if responder == nil {
		return fmt.Errorf("responder is neither %q nor one whose certificate is there", issuer.Subject.CommonName)
	}
	if responder != issuer {
		if err := errors.Join(IssuedBy(responder, issuer, kind), EndEntity(responder)); err != nil {
			return fmt.Errorf("responder's certificate: %w", err)
		}
		if !slices.Contains(responder.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning) {
			return fmt.Errorf("extended key usages of %q are %v, want OCSP signing among them", responder.Subject.CommonName, responder.ExtKeyUsage)
		}
	}
	if o.signatureAlgorithm != kind {
		return fmt.Errorf("signature is %s, want %s", o.signatureAlgorithm, kind)
	}
	return responder.CheckSignature(o.signatureAlgorithm, o.signed, o.signature)
}

// OCSPRequest returns a request about a certificate of an issuer's in DER, with the nonce unless that is nil: RFC 6960, section 4.1.
func OCSPRequest(cert, issuer *x509.Certificate, nonce []byte) ([]byte, error) {
	h := crypto.SHA384.New()
	h.Write(issuer.RawSubject)
	type request struct{ ID ocspCertID }
	var tbs struct {
		Requests   []request
		Extensions []pkix.Extension `asn1:"explicit,tag:2,optional,omitempty"`
	}
	tbs.Requests = []request{{ocspCertID{pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 2}},
		h.Sum(nil), digestOfKey(crypto.SHA384, issuer), cert.SerialNumber}}}
	if nonce != nil {
		value, err := asn1.Marshal(nonce)
		if err != nil {
			return nil, err
		}
		tbs.Extensions = []pkix.Extension{{Id: oidOCSPNonce, Value: value}}
	}
	return asn1.Marshal(struct{ TBS any }{tbs})
}
