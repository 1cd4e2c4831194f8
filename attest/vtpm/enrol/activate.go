package enrol

import (
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"chrysalis/attest/vtpm/template"
)

// AKPublic returns the attestation key's TPMT_PUBLIC, for an Enrolment.
func AKPublic(t transport.TPM) ([]byte, error) {
	ak, err := primary(t, template.AK())
	if err != nil {
		return nil, fmt.Errorf("reading attestation key: %w", err)
	}
	defer flush(t, ak.ObjectHandle)
	return ak.OutPublic.Bytes(), nil
}

// Activate has the TPM open a credential: it succeeds only where the endorsement key that it was encrypted to and the
// attestation key that it names lie in this one TPM. The TPM's endorsement hierarchy must have no password.
func Activate(t transport.TPM, c *Credential) (answer []byte, err error) {
	ek, err := primary(t, template.EK())
	if err != nil {
		return nil, fmt.Errorf("activating credential: endorsement key: %w", err)
	}
	defer flush(t, ek.ObjectHandle)
	ak, err := primary(t, template.AK())
	if err != nil {
		return nil, fmt.Errorf("activating credential: attestation key: %w", err)
	}
	defer flush(t, ak.ObjectHandle)
	// The endorsement key's policy is the endorsement hierarchy's authorisation: TCG EK Credential Profile 2.5, annex B.6.
	endorsed := tpm2.Policy(tpm2.TPMAlgSHA256, 16, func(t transport.TPM, session tpm2.TPMISHPolicy, nonce tpm2.TPM2BNonce) error {
		_, err := tpm2.PolicySecret{AuthHandle: tpm2.TPMRHEndorsement, PolicySession: session, NonceTPM: nonce}.Execute(t)
		return err
	})
	opened, err := tpm2.ActivateCredential{
		ActivateHandle: tpm2.NamedHandle{Handle: ak.ObjectHandle, Name: ak.Name},
		KeyHandle:      tpm2.AuthHandle{Handle: ek.ObjectHandle, Name: ek.Name, Auth: endorsed},
		CredentialBlob: tpm2.TPM2BIDObject{Buffer: c.Object},
		Secret:         tpm2.TPM2BEncryptedSecret{Buffer: c.Secret},
	}.Execute(t)
	if err != nil {
		return nil, fmt.Errorf("activating credential: %w", err)
	}
	return opened.CertInfo.Buffer, nil
}

func primary(t transport.TPM, template tpm2.TPMTPublic) (*tpm2.CreatePrimaryResponse, error) {
	return tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHEndorsement, InPublic: tpm2.New2B(template)}.Execute(t)
}

// flush frees a transient object. A TPM that can't is full at the next use, and says so then.
func flush(t transport.TPM, handle tpm2.TPMHandle) {
	_, _ = tpm2.FlushContext{FlushHandle: handle}.Execute(t)
}
