package tdx

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"sync"
)

// intelRoot is Intel SGX Root CA, as published at
// https://certificates.trustedservices.intel.com/Intel_SGX_Provisioning_Certification_RootCA.pem
const intelRoot = `-----BEGIN CERTIFICATE-----
MIICjzCCAjSgAwIBAgIUImUM1lqdNInzg7SVUr9QGzknBqwwCgYIKoZIzj0EAwIw
aDEaMBgGA1UEAwwRSW50ZWwgU0dYIFJvb3QgQ0ExGjAYBgNVBAoMEUludGVsIENv
cnBvcmF0aW9uMRQwEgYDVQQHDAtTYW50YSBDbGFyYTELMAkGA1UECAwCQ0ExCzAJ
BgNVBAYTAlVTMB4XDTE4MDUyMTEwNDUxMFoXDTQ5MTIzMTIzNTk1OVowaDEaMBgG
A1UEAwwRSW50ZWwgU0dYIFJvb3QgQ0ExGjAYBgNVBAoMEUludGVsIENvcnBvcmF0
aW9uMRQwEgYDVQQHDAtTYW50YSBDbGFyYTELMAkGA1UECAwCQ0ExCzAJBgNVBAYT
AlVTMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEC6nEwMDIYZOj/iPWsCzaEKi7
1OiOSLRFhWGjbnBVJfVnkY4u3IjkDYYL0MxO4mqsyYjlBalTVYxFP2sJBK5zlKOB
uzCBuDAfBgNVHSMEGDAWgBQiZQzWWp00ifODtJVSv1AbOScGrDBSBgNVHR8ESzBJ
MEegRaBDhkFodHRwczovL2NlcnRpZmljYXRlcy50cnVzdGVkc2VydmljZXMuaW50
ZWwuY29tL0ludGVsU0dYUm9vdENBLmRlcjAdBgNVHQ4EFgQUImUM1lqdNInzg7SV
Ur9QGzknBqwwDgYDVR0PAQH/BAQDAgEGMBIGA1UdEwEB/wQIMAYBAf8CAQEwCgYI
KoZIzj0EAwIDSQAwRgIhAOW/5QkR+S9CiSDcNoowLuPRLsWGf/Yi7GSX94BgwTwg
AiEA4J0lrHoMs+Xo5o/sX6O9QWxHRAvZUGOdRQ7cvqRXaqI=
-----END CERTIFICATE-----
`

// IntelRoot returns the root under which every genuine TDX machine is certified. Verify trusts no root by itself.
func IntelRoot() *x509.Certificate {
	root, err := ParseRoot([]byte(intelRoot))
	if err != nil {
		panic(err) // our own constant
	}
	return root
}

// intelDER is the root's, parsed once.
var intelDER = sync.OnceValue(func() []byte { return IntelRoot().Raw })

// IsIntelRoot reports whether a certificate is IntelRoot.
func IsIntelRoot(cert *x509.Certificate) bool {
	return cert != nil && bytes.Equal(cert.Raw, intelDER())
}

// ParseRoot parses the PEM of one self-signed certificate with a P-256 key.
func ParseRoot(pem []byte) (*x509.Certificate, error) {
	chain, err := parseChain(pem, 1)
	if err != nil {
		return nil, err
	}
	if err := signedBy(chain[0], chain[0]); err != nil {
		return nil, fmt.Errorf("root is not self-signed: %w", err)
	}
	return chain[0], nil
}
