package pki

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"math/bits"
	"slices"
)

// maxRSABits bounds RSA keys. The work of a signature grows with the square of a key's length and more, and a chain's keys come
// from whoever is judged.
const maxRSABits = 4096

// Parse parses a certificate of at most so many bytes. Its key must be on P-256, P-384 or P-521, or RSA of at most 4096 bits
// with an exponent of at most 31 bits, and no critical extension may be unknown but those that the caller knows.
func Parse(der []byte, most int, known ...asn1.ObjectIdentifier) (*x509.Certificate, error) {
	if len(der) > most {
		return nil, fmt.Errorf("%d bytes, want at most %d", len(der), most)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	if err := bounded(cert); err != nil {
		return nil, err
	}
	cert.UnhandledCriticalExtensions = slices.DeleteFunc(cert.UnhandledCriticalExtensions, func(id asn1.ObjectIdentifier) bool {
		return slices.ContainsFunc(known, id.Equal)
	})
	if len(cert.UnhandledCriticalExtensions) > 0 {
		return nil, fmt.Errorf("critical extension %v is unknown", cert.UnhandledCriticalExtensions[0])
	}
	return cert, nil
}

// bounded refuses keys on which a signature's check would cost whatever somebody else decides.
func bounded(cert *x509.Certificate) error {
	const want = "want P-256, P-384, P-521 or RSA of at most %d bits"
	switch key := cert.PublicKey.(type) {
	case *ecdsa.PublicKey:
		if key.Curve == elliptic.P256() || key.Curve == elliptic.P384() || key.Curve == elliptic.P521() {
			return nil
		}
		return fmt.Errorf("key is on %s, "+want, key.Curve.Params().Name, maxRSABits)
	case *rsa.PublicKey:
		if n := key.N.BitLen(); n > maxRSABits {
			return fmt.Errorf("key is RSA of %d bits, "+want, n, maxRSABits)
		}
		if bits.Len(uint(key.E)) > 31 {
			return fmt.Errorf("key is RSA with the exponent %d, want one of at most 31 bits", key.E)
		}
		return nil
	}
	return fmt.Errorf("key is %s, "+want, cert.PublicKeyAlgorithm, maxRSABits)
}

// ParsePEM parses a PEM chain of exactly n certificates, all of them in at most so many bytes. Only line ends may stand between
// and within them; zeros may follow the last, as quotes carry a chain as a C string.
func ParsePEM(pem []byte, most, n int) ([]*x509.Certificate, error) {
	return ParsePEMBy(pem, most, n, func(der []byte) (*x509.Certificate, error) { return Parse(der, most) })
}

// ParsePEMBy is ParsePEM with the caller's own way to parse a certificate, which may know it already. It must be Parse to those that it
// does not know.
func ParsePEMBy(pem []byte, most, n int, parse func(der []byte) (*x509.Certificate, error)) ([]*x509.Certificate, error) {
	if len(pem) > most {
		return nil, fmt.Errorf("%d bytes, want at most %d", len(pem), most)
	}
	var chain []*x509.Certificate
	for rest := bytes.TrimRight(pem, "\x00"); ; {
		rest = bytes.TrimLeft(rest, "\r\n")
		if len(rest) == 0 {
			break
		}
		if len(chain) == n {
			return nil, fmt.Errorf("more than %d certificates", n)
		}
		der, tail, err := cutPEM(rest)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(chain), err)
		}
		cert, err := parse(der)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(chain), err)
		}
		chain, rest = append(chain, cert), tail
	}
	if len(chain) != n {
		return nil, fmt.Errorf("%d certificates, want %d", len(chain), n)
	}
	return chain, nil
}

// cutPEM cuts one certificate off. encoding/pem skips what it does not understand and reads base64 loosely: a changed
// chain would still be the same.
func cutPEM(b []byte) (der, rest []byte, err error) {
	const begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
	body, ok := bytes.CutPrefix(b, []byte(begin))
	if !ok {
		return nil, nil, fmt.Errorf("%.20q is no %s", b, begin)
	}
	body, rest, ok = bytes.Cut(body, []byte(end))
	if !ok {
		return nil, nil, errors.New("no end of PEM")
	}
	der, err = base64.StdEncoding.Strict().AppendDecode(nil, body) // it passes over line ends
	return der, rest, err
}

// On returns the certificate's key, which must be ECDSA on the curve.
func On(curve elliptic.Curve, cert *x509.Certificate) (*ecdsa.PublicKey, error) {
	key, ok := cert.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != curve {
		return nil, fmt.Errorf("key is %s, want ECDSA on %s", cert.PublicKeyAlgorithm, curve.Params().Name)
	}
	return key, nil
}

// Authority checks that a certificate may sign others.
func Authority(cert *x509.Certificate) error {
	if !cert.BasicConstraintsValid || !cert.IsCA {
		return fmt.Errorf("%q has no basic constraints that say it is a certificate authority", cert.Subject.CommonName)
	}
	if cert.KeyUsage&x509.KeyUsageCertSign == 0 {
		return fmt.Errorf("key usage of %q is %#b, want certificate signing in it", cert.Subject.CommonName, cert.KeyUsage)
	}
	return nil
}

// IssuedBy checks that parent's key signed cert with a signature of that kind. Whether parent may is Authority's to say.
func IssuedBy(cert, parent *x509.Certificate, kind x509.SignatureAlgorithm) error {
	if cert.Version != 3 {
		return fmt.Errorf("version is %d, want 3", cert.Version)
	}
	if !bytes.Equal(cert.RawIssuer, parent.RawSubject) {
		return fmt.Errorf("issuer is %q, want %q", cert.Issuer, parent.Subject)
	}
	if cert.SignatureAlgorithm != kind {
		return fmt.Errorf("signature is %s, want %s", cert.SignatureAlgorithm, kind)
	}
	return parent.CheckSignature(kind, cert.RawTBSCertificate, cert.Signature)
}

// SelfIssued reports whether a certificate names itself as its issuer.
func SelfIssued(cert *x509.Certificate) bool { return bytes.Equal(cert.RawSubject, cert.RawIssuer) }

// EndEntity checks that cert can sign statements and no certificates.
func EndEntity(cert *x509.Certificate) error {
	if cert.IsCA {
		return fmt.Errorf("%q is a CA", cert.Subject.CommonName)
	}
	if cert.KeyUsage != 0 && cert.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
		return fmt.Errorf("key usage of %q is %#b, want digital signature", cert.Subject.CommonName, cert.KeyUsage)
	}
	return nil
}

// SignedRaw reports whether signature, R and S of equal length in big endian, is the key's over the digest.
func SignedRaw(key *ecdsa.PublicKey, digest, signature []byte) bool {
	half := len(signature) / 2
	return len(signature) == 2*((key.Curve.Params().BitSize+7)/8) &&
		ecdsa.Verify(key, digest, new(big.Int).SetBytes(signature[:half]), new(big.Int).SetBytes(signature[half:]))
}
