package vtpm

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"chrysalis/runtime/secret"
)

const (
	// sealedHandle is where the sealed secret persists, in the owner's range (TPM 2.0 part 2, section 7.5; the range is the
	// TCG Registry's for the owner).
	sealedHandle tpm2.TPMHandle = 0x81004359
	// counterIndex is the NV counter of boots.
	counterIndex tpm2.TPMHandle = 0x01804359

	// sealedBytes is the secret and the boot counter.
	sealedBytes = secret.Size + 8
)

// sealedPCRs hold firmware, kernel, initrd with command line, and identity: what the secret is bound to.
var sealedPCRs = []uint{0, 4, 9, 14}

// Secret returns the sealed secret and the number of boots that have been counted since it was made. When the TPM holds
// none, a random one is made and sealed. It is bound to the present values of PCR 0, 4, 9 and 14.
//
// What is sealed is the secret and the boot counter's value at that moment, because a counter in NV memory starts past
// the highest one that the TPM ever had.
func (t *TPM) Secret() (s *secret.Secret, boots uint64, err error) {
	_, err = tpm2.ReadPublic{ObjectHandle: sealedHandle}.Execute(t.t)
	if err != nil {
		if !absent(err) {
			return nil, 0, fmt.Errorf("looking for sealed secret: %v", err)
		}
		if err := t.makeSecret(); err != nil {
			return nil, 0, fmt.Errorf("making secret: %v", err)
		}
	}
	var sealed [sealedBytes]byte
	defer clear(sealed[:])
	if err := t.unseal(sealed[:]); err != nil {
		return nil, 0, err
	}
	base := binary.BigEndian.Uint64(sealed[secret.Size:])
	counter, err := t.counter()
	if err != nil {
		return nil, 0, err
	}
	if counter < base {
		return nil, 0, fmt.Errorf("boot counter is %d, want at least %d, its value when the secret was made", counter, base)
	}
	s, err = secret.New(sealed[:secret.Size])
	return s, counter - base, err
}

func (t *TPM) makeSecret() error {
	if err := t.defineCounter(); err != nil {
		return fmt.Errorf("defining boot counter: %v", err)
	}
	base, err := t.counter()
	if err != nil {
		return err
	}
	made, err := secret.Random()
	if err != nil {
		return err
	}
	defer made.Wipe()
	var sealed [sealedBytes]byte
	defer clear(sealed[:])
	made.Expose(func(raw []byte) { copy(sealed[:], raw) })
	binary.BigEndian.PutUint64(sealed[secret.Size:], base)
	return t.seal(sealed[:])
}

func (t *TPM) seal(data []byte) error {
	policy, err := t.pcrPolicy()
	if err != nil {
		return err
	}
	srk, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(t.t)
	if err != nil {
		return fmt.Errorf("making storage key: %v", err)
	}
	defer t.flush(srk.ObjectHandle)
	srkPublic, err := srk.OutPublic.Contents()
	if err != nil {
		return err
	}
	parent := tpm2.AuthHandle{Handle: srk.ObjectHandle, Name: srk.Name, Auth: tpm2.HMAC(tpm2.TPMAlgSHA256, 16,
		tpm2.Salted(srk.ObjectHandle, *srkPublic), tpm2.AESEncryption(128, tpm2.EncryptIn))}
	created, err := tpm2.Create{
		ParentHandle: parent,
		InSensitive: tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{
			Data: tpm2.NewTPMUSensitiveCreate(&tpm2.TPM2BSensitiveData{Buffer: data}),
		}},
		InPublic: tpm2.New2B(tpm2.TPMTPublic{
			Type: tpm2.TPMAlgKeyedHash, NameAlg: tpm2.TPMAlgSHA256,
			// Neither UserWithAuth nor AdminWithPolicy: the policy is the only way in.
			ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, NoDA: true},
			AuthPolicy:       tpm2.TPM2BDigest{Buffer: policy},
		}),
	}.Execute(t.t)
	if err != nil {
		return err
	}
	loaded, err := tpm2.Load{
		ParentHandle: tpm2.AuthHandle{Handle: srk.ObjectHandle, Name: srk.Name, Auth: tpm2.PasswordAuth(nil)},
		InPrivate:    created.OutPrivate, InPublic: created.OutPublic,
	}.Execute(t.t)
	if err != nil {
		return fmt.Errorf("loading: %v", err)
	}
	defer t.flush(loaded.ObjectHandle)
	_, err = tpm2.EvictControl{
		Auth:             tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
		ObjectHandle:     &tpm2.NamedHandle{Handle: loaded.ObjectHandle, Name: loaded.Name},
		PersistentHandle: sealedHandle,
	}.Execute(t.t)
	if err != nil {
		return fmt.Errorf("making persistent: %v", err)
	}
	return nil
}

// unseal fills data with what is sealed.
func (t *TPM) unseal(data []byte) error {
	public, err := tpm2.ReadPublic{ObjectHandle: sealedHandle}.Execute(t.t)
	if err != nil {
		return fmt.Errorf("unsealing: %v", err)
	}
	srk, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(t.t)
	if err != nil {
		return fmt.Errorf("unsealing: making storage key: %v", err)
	}
	defer t.flush(srk.ObjectHandle)
	srkPublic, err := srk.OutPublic.Contents()
	if err != nil {
		return err
	}
	session, closeSession, err := tpm2.PolicySession(t.t, tpm2.TPMAlgSHA256, 16,
		tpm2.Salted(srk.ObjectHandle, *srkPublic), tpm2.AESEncryption(128, tpm2.EncryptOut))
	if err != nil {
		return fmt.Errorf("unsealing: starting session: %v", err)
	}
	defer closeSession()
	if _, err := (tpm2.PolicyPCR{PolicySession: session.Handle(), Pcrs: selection(sealedPCRs...)}).Execute(t.t); err != nil {
		return fmt.Errorf("unsealing: %v", err)
	}
	unsealed, err := tpm2.Unseal{
		ItemHandle: tpm2.AuthHandle{Handle: sealedHandle, Name: public.Name, Auth: session},
	}.Execute(t.t)
	if errors.Is(err, tpm2.TPMRCPolicyFail) {
		return secret.ErrSealed
	}
	if err != nil {
		return fmt.Errorf("unsealing: %v", err)
	}
	defer clear(unsealed.OutData.Buffer)
	if got := len(unsealed.OutData.Buffer); got != len(data) {
		return fmt.Errorf("unsealing: %d bytes, want %d", got, len(data))
	}
	copy(data, unsealed.OutData.Buffer)
	return nil
}

// pcrPolicy returns the policy digest of the sealed PCRs' present values.
func (t *TPM) pcrPolicy() ([]byte, error) {
	session, closeSession, err := tpm2.PolicySession(t.t, tpm2.TPMAlgSHA256, 16, tpm2.Trial())
	if err != nil {
		return nil, fmt.Errorf("computing policy: %v", err)
	}
	defer closeSession()
	if _, err := (tpm2.PolicyPCR{PolicySession: session.Handle(), Pcrs: selection(sealedPCRs...)}).Execute(t.t); err != nil {
		return nil, fmt.Errorf("computing policy: %v", err)
	}
	digest, err := tpm2.PolicyGetDigest{PolicySession: session.Handle()}.Execute(t.t)
	if err != nil {
		return nil, fmt.Errorf("computing policy: %v", err)
	}
	return digest.PolicyDigest.Buffer, nil
}

func (t *TPM) counter() (uint64, error) {
	raw, err := t.readNV(counterIndex)
	if err != nil {
		return 0, fmt.Errorf("reading boot counter: %v", err)
	}
	if len(raw) != 8 {
		return 0, fmt.Errorf("reading boot counter: %d bytes, want 8", len(raw))
	}
	return binary.BigEndian.Uint64(raw), nil
}

// CountBoot adds one to the boot counter.
func (t *TPM) CountBoot() error {
	public, err := tpm2.NVReadPublic{NVIndex: counterIndex}.Execute(t.t)
	if err != nil {
		return fmt.Errorf("incrementing boot counter: %v", err)
	}
	_, err = tpm2.NVIncrement{
		AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
		NVIndex:    tpm2.NamedHandle{Handle: counterIndex, Name: public.NVName},
	}.Execute(t.t)
	if err != nil {
		return fmt.Errorf("incrementing boot counter: %v", err)
	}
	return nil
}

func (t *TPM) defineCounter() error {
	_, err := tpm2.NVDefineSpace{
		AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
		PublicInfo: tpm2.New2B(tpm2.TPMSNVPublic{
			NVIndex: counterIndex, NameAlg: tpm2.TPMAlgSHA256, DataSize: 8,
			Attributes: tpm2.TPMANV{OwnerWrite: true, OwnerRead: true, NT: tpm2.TPMNTCounter, NoDA: true},
		}),
	}.Execute(t.t)
	if errors.Is(err, tpm2.TPMRCNVDefined) {
		return nil // left over from an earlier secret: it counts on
	}
	if err != nil {
		return err
	}
	return t.CountBoot() // a counter can be read once it has been written
}
