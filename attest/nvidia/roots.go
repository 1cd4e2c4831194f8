package nvidia

import "encoding/hex"

// The SHA-256 of NVIDIA's root certificates, in the form in which they are published with its attestation SDK (internal/certs.h) and
// its verifiers (certs/verifier_device_root.pem, certs/verifier_RIM_root.pem). Both certificates come with every piece of evidence.
const (
	// CN=NVIDIA Device Identity CA, valid from 2021-11-05, serial number 2d3670b1ca100411c1fec0e82a065b54.
	deviceRoot = "102bf659d5419614c9d8e6aecebc80454eb26b1df6a769ac720b9a690b167b48"
	// CN=NVIDIA CoRIM signing Root CA, valid from 2023-03-16 to 2053-03-08, serial number 45dae3a00e5037bddf875375ecb5e270.
	rimRoot = "12977b5115acb0381179279fffeb5a8c4d264971ebb32298023a465fa41df5d1"
)

// NVIDIARoots returns the roots under which NVIDIA certifies its devices and its reference values.
func NVIDIARoots() Roots {
	return Roots{Device: []Root{rootNamed(deviceRoot)}, RIM: []Root{rootNamed(rimRoot)}}
}

func rootNamed(text string) Root {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(Root{}) {
		panic("nvidia: a root's digest is not one: " + text)
	}
	return Root(b)
}

// IsNVIDIARoot reports whether a root is one of NVIDIARoots.
func IsNVIDIARoot(root Root) bool { return root == rootNamed(deviceRoot) || root == rootNamed(rimRoot) }
