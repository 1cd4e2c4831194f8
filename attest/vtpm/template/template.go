// Package template is what a TPM's keys are made by, and where the attestation key's certificate lies: all that a guest has to know of
// its TPM's enrolment, which is package enrol.
package template

import "github.com/google/go-tpm/tpm2"

// AK is the fixed template of the attestation key: a restricted P-256 signing key, made as a primary of the
// endorsement hierarchy. The same TPM always gives the same key for it, so whoever makes the TPM can certify the key
// before the guest's first boot.
func AK() tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type:    tpm2.TPMAlgECC,
		NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, NoDA: true,
			Restricted: true, SignEncrypt: true,
		},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
			Scheme: tpm2.TPMTECCScheme{
				Scheme:  tpm2.TPMAlgECDSA,
				Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256}),
			},
			CurveID: tpm2.TPMECCNistP256,
		}),
		Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{}),
	}
}

// AKCertificate is the NV index that holds the attestation key's certificate in DER: the one that Google's clouds
// use for a P-256 key.
const AKCertificate tpm2.TPMHandle = 0x01c10002

// EK is the TCG's default template of a P-256 endorsement key.
func EK() tpm2.TPMTPublic { return tpm2.ECCEKTemplate }
