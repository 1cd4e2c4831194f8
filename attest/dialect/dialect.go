// Package dialect reads evidence and collateral as others write them: collateral of dcap-qvl, answers of Intel's service with their
// headers, Intel's platform_collaterals, the report of Azure's host compatibility layer, a report of SEV-SNP with its table of
// certificates, the certificates as Azure's service hands them out, and devices as NVIDIA's attestation SDK writes them.
//
//	sets, err := dialect.Collateral(files...)
//	report, err := dialect.ParseHCL(bytes)
//
// Everything is translated into the forms that attest/tdx, attest/sevsnp and attest/nvidia judge, and nothing is believed: what is signed keeps
// its exact bytes or fails its signature. Where a dialect is ambiguous, the strict reading is taken and the rest refused.
package dialect

import (
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"strings"
)

// MaxFileBytes bounds one file.
const MaxFileBytes = 8 << 20

func bounded(what string, b []byte) error {
	if len(b) > MaxFileBytes {
		return fmt.Errorf("parsing %s: %d bytes, want at most %d", what, len(b), MaxFileBytes)
	}
	return nil
}

// List returns a revocation list's DER: the bytes themselves, or what their hexadecimal digits or PEM stand for, as a PCCS and
// Intel's tools write it. What is none of them is returned as it is.
func List(b []byte) []byte {
	text := strings.TrimSpace(string(b))
	text = strings.Trim(text, `"`)
	if strings.HasPrefix(text, "-----BEGIN X509 CRL-----") {
		if block, rest := pem.Decode([]byte(text)); block != nil && len(rest) == 0 {
			return block.Bytes
		}
		return b
	}
	if der, err := hex.DecodeString(text); err == nil && len(der) > 0 {
		return der
	}
	return b
}
