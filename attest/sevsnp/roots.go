package sevsnp

import (
	"bytes"
	"crypto/x509"
	_ "embed"
	"encoding/pem"
	"slices"
	"sync"
)

// AMD's root keys, the second certificate of
//
//	https://kdsintf.amd.com/vcek/v1/Milan/cert_chain
//	https://kdsintf.amd.com/vcek/v1/Genoa/cert_chain
//	https://kdsintf.amd.com/vcek/v1/Turin/cert_chain
var (
	//go:embed roots/ark_milan.pem
	arkMilan []byte
	//go:embed roots/ark_genoa.pem
	arkGenoa []byte
	//go:embed roots/ark_turin.pem
	arkTurin []byte
)

// amdDER are the roots as AMD publishes them.
var amdDER = sync.OnceValue(func() (all [][]byte) {
	for _, text := range [][]byte{arkMilan, arkGenoa, arkTurin} {
		block, _ := pem.Decode(text)
		all = append(all, block.Bytes)
	}
	return all
})

// IsAMDRoot reports whether a certificate is one of AMDRoots.
func IsAMDRoot(cert *x509.Certificate) bool {
	return cert != nil && slices.ContainsFunc(amdDER(), func(der []byte) bool { return bytes.Equal(der, cert.Raw) })
}

// AMDRoots returns the root certificates that AMD publishes for Milan, Genoa and Turin.
func AMDRoots() []*x509.Certificate {
	var roots []*x509.Certificate
	for _, der := range amdDER() {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			panic("sevsnp: an embedded root does not parse: " + err.Error())
		}
		roots = append(roots, cert)
	}
	return roots
}
