package evidence

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
)

// oidCMW is id-pe-cmw, the extension for a conceptual message wrapper: draft-ietf-rats-msg-wrap, section 6.1. Who does not
// know it passes over it.
var oidCMW = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 35}

// mediaType names encoded evidence in a wrapper.
const mediaType = "application/vnd.chrysalis.evidence"

// wrapperHead is what comes before the length of the evidence: a CBOR array of two, and the media type as text (RFC 8949,
// section 3). The text is between 24 and 255 bytes long, so its length takes one byte.
var wrapperHead = append([]byte{0x82, 0x78, byte(len(mediaType))}, mediaType...)

// EpochExtension returns the extension of a certificate that carries epoch evidence for the certificate's own key.
// Collateral, of GPUs too, and HPKE key are left out of it: a handshake is no place for what every client can have elsewhere.
func EpochExtension(e *Evidence) (pkix.Extension, error) {
	own := *e
	own.Collateral, own.HPKE, own.GPUs = nil, nil, GPUs{Devices: e.GPUs.Devices}
	encoded, err := own.Encode()
	if err != nil {
		return pkix.Extension{}, err
	}
	wrapped := append(bytes.Clone(wrapperHead), 0x5a) // a byte string whose length takes four bytes
	wrapped = append(binary.BigEndian.AppendUint32(wrapped, uint32(len(encoded))), encoded...)
	value, err := asn1.Marshal(wrapped)
	if err != nil {
		return pkix.Extension{}, fmt.Errorf("encoding epoch evidence: %w", err)
	}
	return pkix.Extension{Id: oidCMW, Value: value}, nil
}

// FromCertificate returns the evidence that a certificate carries. It is untrusted; VerifyEpoch judges it.
func FromCertificate(certificate *x509.Certificate) (*Evidence, error) {
	for _, extension := range certificate.Extensions { // x509 refuses extensions that are there twice
		if extension.Id.Equal(oidCMW) {
			e, err := decodeWrapped(extension.Value)
			if err != nil {
				return nil, fmt.Errorf("reading epoch evidence: %w", err)
			}
			return e, nil
		}
	}
	return nil, errors.New("reading epoch evidence: the certificate carries none")
}

// decodeWrapped reads the one encoding that EpochExtension writes.
func decodeWrapped(value []byte) (*Evidence, error) {
	if len(value) > MaxBytes {
		return nil, fmt.Errorf("%d bytes, want at most %d", len(value), MaxBytes)
	}
	var wrapped []byte
	if rest, err := asn1.Unmarshal(value, &wrapped); err != nil || len(rest) != 0 {
		return nil, fmt.Errorf("no OCTET STRING alone: %v, %d bytes after it", err, len(rest))
	}
	body, ok := bytes.CutPrefix(wrapped, append(bytes.Clone(wrapperHead), 0x5a))
	if !ok || len(body) < 4 {
		return nil, fmt.Errorf("%.40x is no wrapper of %s", wrapped, mediaType)
	}
	if n := binary.BigEndian.Uint32(body); int64(n) != int64(len(body)-4) {
		return nil, fmt.Errorf("the wrapper announces %d bytes, want the %d that follow", n, len(body)-4)
	}
	return Decode(body[4:])
}
