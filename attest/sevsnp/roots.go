package sevsnp

import (
	"crypto/x509"
	_ "embed"
	"encoding/pem"
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

// AMDRoots returns the root certificates that AMD publishes for Milan, Genoa and Turin.
func AMDRoots() []*x509.Certificate {
	var roots []*x509.Certificate
	for _, text := range [][]byte{arkMilan, arkGenoa, arkTurin} {
		block, _ := pem.Decode(text)
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			panic("sevsnp: an embedded root does not parse: " + err.Error())
		}
		roots = append(roots, cert)
	}
	return roots
}
