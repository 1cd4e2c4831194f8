// Package enrol is how a TPM's attestation key comes about and gets its certificate: the template that it is made by, the place of
// its certificate, and the online enrolment by which somebody who trusts the TPM's maker certifies it.
//
// It stands apart from the verifier, which needs neither: who judges a quote links no TPM library, and who has one made links no
// verifier.
package enrol

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/subtle"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/google/go-tpm/tpm2"

	"chrysalis/attest/pki"
	"chrysalis/attest/vtpm/template"
)

// Enrolment is how an attestation key without a certificate gets one, online and once: the TPM shows the certificate that
// its maker put into it, for its endorsement key, and proves that the attestation key lies in the same TPM by opening a
// credential that is encrypted to the endorsement key and bound to the attestation key's name (TPM 2.0 library, part 1,
// section 24, credential protection). All of it is untrusted until Challenge and Certify have judged it.
type Enrolment struct {
	// EKCertificates lead from the endorsement key's certificate towards the maker's root, in DER.
	EKCertificates [][]byte
	// AK is the attestation key's TPMT_PUBLIC.
	AK []byte
}

// Credential is what the TPM has to open: the two inputs of TPM2_ActivateCredential.
type Credential struct {
	Object []byte // TPMS_ID_OBJECT
	Secret []byte // encrypted seed
}

// Pending is an enrolment that waits for its answer. Nothing else can certify a key, and it can do so once.
type Pending struct {
	key    *ecdsa.PublicKey
	answer [credentialBytes]byte
	done   bool
}

const (
	maxAKBytes          = 1 << 10
	maxCertificates     = 4 // of a chain without its root
	maxCertificateBytes = 8 << 10
	credentialBytes     = 32
)

// oidSubjectAltName is critical in EK certificates, because their subject is empty: its directory name says who made the
// TPM. x509 does not know such a name.
var oidSubjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}

// Challenge judges an enrolment at the time now and returns what the TPM must open. The attestation key must be one of
// template.AK, the endorsement key one of the TCG's default templates, certified up to one of the makers.
func (e Enrolment) Challenge(makers *x509.CertPool, now time.Time) (*Pending, *Credential, error) {
	ak, key, err := parseAK(e.AK)
	if err != nil {
		return nil, nil, fmt.Errorf("enrolling attestation key: %w", err)
	}
	ek, err := e.endorsementKey(makers, now)
	if err != nil {
		return nil, nil, fmt.Errorf("enrolling attestation key: %w", err)
	}
	name, err := tpm2.ObjectName(ak)
	if err != nil {
		return nil, nil, fmt.Errorf("enrolling attestation key: %w", err)
	}
	p := &Pending{key: key}
	rand.Read(p.answer[:])
	object, secret, err := tpm2.CreateCredential(rand.Reader, ek, name.Buffer, p.answer[:])
	if err != nil {
		return nil, nil, fmt.Errorf("enrolling attestation key: making credential: %w", err)
	}
	return p, &Credential{object, secret}, nil
}

// Certify issues the attestation key's certificate under the authority, when the answer is what the TPM had to find. A
// wrong answer ends the enrolment as well.
func (p *Pending) Certify(answer []byte, authority *x509.Certificate, signer crypto.Signer, notBefore, notAfter time.Time) ([]byte, error) {
	if p.done {
		return nil, errors.New("certifying attestation key: the enrolment has had its answer")
	}
	p.done = true
	if subtle.ConstantTimeCompare(answer, p.answer[:]) != 1 {
		return nil, errors.New("certifying attestation key: the answer is not what the credential holds, so the key may lie in another TPM")
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("certifying attestation key: %w", err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "TPM attestation key"}, NotBefore: notBefore, NotAfter: notAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true, UnknownExtKeyUsage: []asn1.ObjectIdentifier{pki.TPMAttestation()},
	}, authority, p.key, signer)
	if err != nil {
		return nil, fmt.Errorf("certifying attestation key: %w", err)
	}
	return der, nil
}

// parseAK reads a TPMT_PUBLIC that is template.AK with a point in it: restricted, so that it signs nothing but what the TPM
// itself says, and fixed to its TPM.
func parseAK(public []byte) (*tpm2.TPMTPublic, *ecdsa.PublicKey, error) {
	if len(public) > maxAKBytes {
		return nil, nil, fmt.Errorf("its public area has %d bytes, want at most %d", len(public), maxAKBytes)
	}
	ak, err := tpm2.Unmarshal[tpm2.TPMTPublic](public)
	if err != nil {
		return nil, nil, fmt.Errorf("its public area: %w", err)
	}
	key, err := tpm2.Pub(*ak)
	if err != nil {
		return nil, nil, fmt.Errorf("its public area: %w", err)
	}
	point, ok := key.(*ecdsa.PublicKey)
	if !ok || point.Curve != elliptic.P256() {
		return nil, nil, fmt.Errorf("its key is a %T, want ECDSA on P-256", key)
	}
	if _, err := point.ECDH(); err != nil {
		return nil, nil, fmt.Errorf("its point: %w", err)
	}
	want := template.AK()
	want.Unique = ak.Unique
	if !bytes.Equal(tpm2.Marshal(want), public) {
		return nil, nil, errors.New("its public area is not that of a restricted P-256 signing key, fixed to its TPM, by the template")
	}
	return ak, point, nil
}

// endorsementKey judges the endorsement key's certificate and returns the key as the TPM has it.
func (e Enrolment) endorsementKey(makers *x509.CertPool, now time.Time) (tpm2.LabeledEncapsulationKey, error) {
	if makers == nil {
		return nil, errors.New("endorsement key's certificate: no maker is trusted")
	}
	if n := len(e.EKCertificates); n == 0 || n > maxCertificates {
		return nil, fmt.Errorf("endorsement key's certificates: got %d, want 1 to %d", n, maxCertificates)
	}
	var chain []*x509.Certificate
	for i, der := range e.EKCertificates {
		var known []asn1.ObjectIdentifier
		if i == 0 {
			known = append(known, oidSubjectAltName) // the name is of no interest here
		}
		cert, err := pki.Parse(der, maxCertificateBytes, known...)
		if err != nil {
			return nil, fmt.Errorf("endorsement key's certificate %d: %w", i, err)
		}
		chain = append(chain, cert)
	}
	leaf := chain[0]
	if leaf.IsCA {
		return nil, errors.New("endorsement key's certificate: it is a CA's")
	}
	if err := pki.ForUsage(leaf, pki.TPMEndorsement()); err != nil {
		return nil, fmt.Errorf("endorsement key's certificate: %w", err)
	}
	if err := pki.Under(makers, now, leaf, chain[1:]...); err != nil {
		return nil, fmt.Errorf("endorsement key's certificate: %w", err)
	}
	public, err := endorsementPublic(leaf.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("endorsement key's certificate: %w", err)
	}
	return tpm2.ImportEncapsulationKey(public)
}

// endorsementPublic puts a certified key into the TCG's default template for its kind: templates L-1 and L-2 of the EK
// Credential Profile 2.5, annex B.3.
func endorsementPublic(key any) (*tpm2.TPMTPublic, error) {
	switch key := key.(type) {
	case *rsa.PublicKey:
		if key.N.BitLen() != 2048 || key.E != 65537 {
			return nil, fmt.Errorf("key is RSA of %d bits with exponent %d, want 2048 and 65537", key.N.BitLen(), key.E)
		}
		public := tpm2.RSAEKTemplate
		public.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: key.N.FillBytes(make([]byte, 256))})
		return &public, nil
	case *ecdsa.PublicKey:
		if key.Curve != elliptic.P256() {
			return nil, fmt.Errorf("key is on %s, want P-256", key.Curve.Params().Name)
		}
		point, err := key.Bytes()
		if err != nil {
			return nil, err
		}
		public := tpm2.ECCEKTemplate
		public.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
			X: tpm2.TPM2BECCParameter{Buffer: point[1:33]}, Y: tpm2.TPM2BECCParameter{Buffer: point[33:]},
		})
		return &public, nil
	}
	return nil, fmt.Errorf("key is a %T, want RSA of 2048 bits or ECC on P-256", key)
}
