package vtpm

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/google/go-tpm/tpm2"

	"chrysalis/init/internal/sealing"
	"chrysalis/measure/eventlog"
	"chrysalis/measure/register"
	"chrysalis/runtime/role"
	"chrysalis/runtime/secret"
)

const (
	// counterIndex is the NV counter of boots.
	counterIndex tpm2.TPMHandle = 0x01804359
	// heldIndex holds the measurements of those that have held the secret. Each is written once, after those before it.
	heldIndex tpm2.TPMHandle = 0x0180435a

	// sealedBytes is the secret, the boot counter, number and digest of the measurements, and how it came.
	sealedBytes = secret.Size + 8 + 8 + sha256.Size + 8 + 8
	heldBytes   = eventlog.MaxHeld * len(register.Digest{})
)

// sealedHandles are where the sealed secret persists, in the owner's range (TPM 2.0 part 2, section 7.5; the range is the TCG Registry's
// for the owner). It lies at one of them, and at both while it passes from one image to another.
var sealedHandles = [...]tpm2.TPMHandle{0x81004359, 0x8100435a}

// namingPCRs hold firmware, kernel, and initrd with command line: the image. identityPCR holds the identity. The secret is bound to all.
var namingPCRs = []uint{0, 4, 9}

const identityPCR = 14

func sealedPCRs() []uint { return append(slices.Clone(namingPCRs), identityPCR) }

// errNone says that the TPM holds no sealed secret at all.
var errNone = errors.New("the TPM holds no secret")

// sealed is what is sealed: the secret, the boot counter's value when it was made, because a counter in NV memory starts past the highest
// one that the TPM ever had, and how many measurements in NV memory are of those that have held it, with their digest.
type sealed [sealedBytes]byte

func (s *sealed) base() uint64 { return binary.BigEndian.Uint64(s[secret.Size:]) }
func (s *sealed) held() uint64 { return binary.BigEndian.Uint64(s[secret.Size+8:]) }

func (s *sealed) came() role.Coming {
	at := s[secret.Size+16+sha256.Size:]
	return role.Coming{Number: binary.BigEndian.Uint64(at), Boots: binary.BigEndian.Uint64(at[8:])}
}

func (s *sealed) state(held []register.Digest) {
	binary.BigEndian.PutUint64(s[secret.Size+8:], uint64(len(held)))
	digest := sha256.Sum256(eventlog.HeldData(held))
	copy(s[secret.Size+16:], digest[:])
}

// Secret returns the sealed secret. When the TPM holds none, a random one is made and sealed. It is bound to the present values of PCR
// 0, 4, 9 and 14. Whoever takes it is the only one who can: what a handover that was cut short left for another image is evicted.
func (t *TPM) Secret() (sealing.Taken, error) {
	var s sealed
	defer clear(s[:])
	at, err := t.open(&s)
	if errors.Is(err, errNone) {
		if err := t.makeSecret(); err != nil {
			return sealing.Taken{}, fmt.Errorf("making secret: %v", err)
		}
		at, err = t.open(&s)
	}
	if err != nil {
		return sealing.Taken{}, err
	}
	if err := t.evict(1 - at); err != nil {
		return sealing.Taken{}, fmt.Errorf("evicting what was sealed for another image: %v", err)
	}
	counter, err := t.counter()
	if err != nil {
		return sealing.Taken{}, err
	}
	if counter < s.base() {
		return sealing.Taken{}, fmt.Errorf("boot counter is %d, want at least %d, its value when the secret was made", counter, s.base())
	}
	taken := sealing.Taken{Boots: counter - s.base(), Came: s.came()}
	if taken.Held, err = t.held(&s); err != nil {
		return sealing.Taken{}, err
	}
	taken.Secret, err = secret.New(s[:secret.Size])
	return taken, err
}

// Image returns the PCRs that name the image.
func (t *TPM) Image() (map[string][]byte, error) {
	values, err := t.read(namingPCRs...)
	if err != nil {
		return nil, err
	}
	named := map[string][]byte{}
	for i, index := range namingPCRs {
		named[register.PCR(index)] = values[i]
	}
	return named, nil
}

// Move seals the secret for the image of other PCRs. Each step leaves a state out of which the next boot finds its way: the measurement is
// written behind those that count so far, the secret is sealed anew beside the old one, and then the old one goes, which is what keeps
// the giver from taking it again.
func (t *TPM) Move(to map[string][]byte, giver register.Digest) error {
	if err := t.move(to, giver); err != nil {
		return fmt.Errorf("handing the secret over: %w", err)
	}
	return nil
}

func (t *TPM) move(to map[string][]byte, giver register.Digest) error {
	var s sealed
	defer clear(s[:])
	at, err := t.open(&s)
	if err != nil {
		return err
	}
	held, err := t.held(&s)
	if err != nil {
		return err
	}
	if giver != (register.Digest{}) {
		if len(held) == eventlog.MaxHeld {
			return fmt.Errorf("%d images have held it, want fewer than %d", len(held), eventlog.MaxHeld)
		}
		if err := t.writeHeld(len(held), giver); err != nil {
			return err
		}
		held = append(held, giver)
	}
	s.state(held)
	policy, err := t.policyFor(to)
	if err != nil {
		return err
	}
	if err := t.evict(1 - at); err != nil { // of a handover that was cut short
		return fmt.Errorf("evicting what an earlier handover left: %v", err)
	}
	if err := t.seal(s[:], policy, sealedHandles[1-at]); err != nil {
		return err
	}
	if err := t.evict(at); err != nil {
		return fmt.Errorf("evicting what was sealed for this image: %v", err)
	}
	return nil
}

// open unseals the secret that opens under the present registers, and says at which of the handles it lies.
func (t *TPM) open(into *sealed) (at int, err error) {
	none := true
	for at, handle := range sealedHandles {
		public, err := tpm2.ReadPublic{ObjectHandle: handle}.Execute(t.t)
		if absent(err) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("looking for sealed secret: %v", err)
		}
		none = false
		if err := t.unseal(tpm2.NamedHandle{Handle: handle, Name: public.Name}, into[:]); !errors.Is(err, secret.ErrSealed) {
			return at, err
		}
	}
	if none {
		return 0, errNone
	}
	return 0, secret.ErrSealed
}

// evict removes what lies at a handle, where something does.
func (t *TPM) evict(at int) error {
	public, err := tpm2.ReadPublic{ObjectHandle: sealedHandles[at]}.Execute(t.t)
	if absent(err) {
		return nil
	}
	if err == nil {
		_, err = tpm2.EvictControl{
			Auth:             tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
			ObjectHandle:     &tpm2.NamedHandle{Handle: sealedHandles[at], Name: public.Name},
			PersistentHandle: sealedHandles[at],
		}.Execute(t.t)
	}
	return err
}

// held returns the measurements that what is sealed counts, and that it has the digest of.
func (t *TPM) held(s *sealed) (held []register.Digest, err error) {
	var data []byte
	if n := s.held(); n > eventlog.MaxHeld {
		return nil, fmt.Errorf("reading who held the secret: %d images, want at most %d", n, eventlog.MaxHeld)
	} else if n > 0 {
		if data, err = t.readNV(heldIndex, int(n)*len(register.Digest{})); err != nil {
			return nil, fmt.Errorf("reading who held the secret: %v", err)
		}
	}
	if got, want := sha256.Sum256(data), s[secret.Size+16:][:sha256.Size]; !bytes.Equal(got[:], want) {
		return nil, fmt.Errorf("reading who held the secret: its digest is %x, want %x", got, want)
	}
	return eventlog.HeldOf(data)
}

// writeHeld writes a measurement behind n others.
func (t *TPM) writeHeld(n int, measurement register.Digest) error {
	err := t.defineNV(tpm2.TPMSNVPublic{
		NVIndex: heldIndex, NameAlg: tpm2.TPMAlgSHA256, DataSize: uint16(heldBytes),
		Attributes: tpm2.TPMANV{OwnerWrite: true, OwnerRead: true, NT: tpm2.TPMNTOrdinary, NoDA: true},
	})
	if err != nil && !errors.Is(err, tpm2.TPMRCNVDefined) {
		return fmt.Errorf("writing who held the secret: %v", err)
	}
	public, err := tpm2.NVReadPublic{NVIndex: heldIndex}.Execute(t.t)
	if err != nil {
		return fmt.Errorf("writing who held the secret: %v", err)
	}
	_, err = tpm2.NVWrite{
		AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
		NVIndex:    tpm2.NamedHandle{Handle: heldIndex, Name: public.NVName},
		Data:       tpm2.TPM2BMaxNVBuffer{Buffer: measurement[:]}, Offset: uint16(n * len(measurement)),
	}.Execute(t.t)
	if err != nil {
		return fmt.Errorf("writing who held the secret: %v", err)
	}
	return nil
}

// Blank reports whether the TPM holds no sealed secret, for this image or another.
func (t *TPM) Blank() (bool, error) {
	for _, handle := range sealedHandles {
		if _, err := (tpm2.ReadPublic{ObjectHandle: handle}).Execute(t.t); !absent(err) {
			if err != nil {
				return false, fmt.Errorf("looking for sealed secret: %v", err)
			}
			return false, nil
		}
	}
	return true, nil
}

// Keep seals a secret that was made elsewhere. What it writes before the secret counts for nobody without it.
func (t *TPM) Keep(taken sealing.Taken) error {
	blank, err := t.Blank()
	if err == nil && !blank {
		err = errors.New("the TPM holds one already")
	}
	for n := 0; err == nil && n < len(taken.Held); n++ {
		err = t.writeHeld(n, taken.Held[n])
	}
	if err == nil {
		err = t.sealNew(taken)
	}
	if err != nil {
		return fmt.Errorf("keeping secret: %w", err)
	}
	return nil
}

func (t *TPM) makeSecret() error {
	made, err := secret.Random()
	if err != nil {
		return err
	}
	defer made.Wipe()
	return t.sealNew(sealing.Taken{Secret: made})
}

// sealNew seals a secret that no boot has been counted for.
func (t *TPM) sealNew(taken sealing.Taken) error {
	if err := t.defineCounter(); err != nil {
		return fmt.Errorf("defining boot counter: %v", err)
	}
	base, err := t.counter()
	if err != nil {
		return err
	}
	var s sealed
	defer clear(s[:])
	taken.Secret.Expose(func(raw []byte) { copy(s[:], raw) })
	binary.BigEndian.PutUint64(s[secret.Size:], base)
	s.state(taken.Held)
	came := s[secret.Size+16+sha256.Size:]
	binary.BigEndian.PutUint64(came, taken.Came.Number)
	binary.BigEndian.PutUint64(came[8:], taken.Came.Boots)
	policy, err := t.pcrPolicy(nil)
	if err != nil {
		return err
	}
	return t.seal(s[:], policy, sealedHandles[0])
}

// seal seals data under a policy, and has it persist at a handle at which nothing lies.
func (t *TPM) seal(data, policy []byte, at tpm2.TPMHandle) error {
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
		PersistentHandle: at,
	}.Execute(t.t)
	if err != nil {
		return fmt.Errorf("making persistent: %v", err)
	}
	return nil
}

// unseal fills data with what is sealed.
func (t *TPM) unseal(from tpm2.NamedHandle, data []byte) error {
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
	if _, err := (tpm2.PolicyPCR{PolicySession: session.Handle(), Pcrs: selection(sealedPCRs()...)}).Execute(t.t); err != nil {
		return fmt.Errorf("unsealing: %v", err)
	}
	unsealed, err := tpm2.Unseal{
		ItemHandle: tpm2.AuthHandle{Handle: from.Handle, Name: from.Name, Auth: session},
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

// policyFor returns the policy digest of the image of other PCRs under the present identity.
func (t *TPM) policyFor(image map[string][]byte) ([]byte, error) {
	identity, err := t.read(identityPCR)
	if err != nil {
		return nil, err
	}
	h := sha256.New() // of the values in the order of their numbers
	for _, index := range namingPCRs {
		value := image[register.PCR(index)]
		if len(value) != sha256.Size {
			return nil, fmt.Errorf("computing policy: PCR %d has %d bytes, want %d", index, len(value), sha256.Size)
		}
		h.Write(value)
	}
	h.Write(identity[0])
	return t.pcrPolicy(h.Sum(nil))
}

// pcrPolicy returns the policy digest of values of the sealed PCRs, by their digest; nil: of the present ones.
func (t *TPM) pcrPolicy(values []byte) ([]byte, error) {
	session, closeSession, err := tpm2.PolicySession(t.t, tpm2.TPMAlgSHA256, 16, tpm2.Trial())
	if err != nil {
		return nil, fmt.Errorf("computing policy: %v", err)
	}
	defer closeSession()
	_, err = tpm2.PolicyPCR{PolicySession: session.Handle(), PcrDigest: tpm2.TPM2BDigest{Buffer: values}, Pcrs: selection(sealedPCRs()...)}.Execute(t.t)
	if err != nil {
		return nil, fmt.Errorf("computing policy: %v", err)
	}
	digest, err := tpm2.PolicyGetDigest{PolicySession: session.Handle()}.Execute(t.t)
	if err != nil {
		return nil, fmt.Errorf("computing policy: %v", err)
	}
	return digest.PolicyDigest.Buffer, nil
}

// read returns the present values of PCRs, which are at most eight.
func (t *TPM) read(pcrs ...uint) (values [][]byte, err error) {
	answer, err := tpm2.PCRRead{PCRSelectionIn: selection(pcrs...)}.Execute(t.t)
	if err != nil {
		return nil, fmt.Errorf("reading PCR %d: %v", pcrs, err)
	}
	if got := len(answer.PCRValues.Digests); got != len(pcrs) {
		return nil, fmt.Errorf("reading PCR %d: %d values, want %d", pcrs, got, len(pcrs))
	}
	for _, digest := range answer.PCRValues.Digests {
		values = append(values, digest.Buffer)
	}
	return values, nil
}

func (t *TPM) counter() (uint64, error) {
	raw, err := t.readNV(counterIndex, 8)
	if err != nil {
		return 0, fmt.Errorf("reading boot counter: %v", err)
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
	err := t.defineNV(tpm2.TPMSNVPublic{
		NVIndex: counterIndex, NameAlg: tpm2.TPMAlgSHA256, DataSize: 8,
		Attributes: tpm2.TPMANV{OwnerWrite: true, OwnerRead: true, NT: tpm2.TPMNTCounter, NoDA: true},
	})
	if errors.Is(err, tpm2.TPMRCNVDefined) {
		// Left over from an earlier secret, it counts on; but not where the power went before it counted at all.
		if _, err := t.readNV(counterIndex, 8); !errors.Is(err, tpm2.TPMRCNVUninitialized) {
			return err
		}
		return t.CountBoot()
	}
	if err != nil {
		return err
	}
	return t.CountBoot() // a counter can be read once it has been written
}

func (t *TPM) defineNV(index tpm2.TPMSNVPublic) error {
	_, err := tpm2.NVDefineSpace{
		AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)}, PublicInfo: tpm2.New2B(index),
	}.Execute(t.t)
	return err
}
