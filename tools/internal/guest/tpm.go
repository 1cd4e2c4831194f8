package guest

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"chrysalis/attest/vtpm/enrol"
	"chrysalis/attest/vtpm/template"
	"chrysalis/tools/internal/qemu"
	"chrysalis/tools/internal/toolstree"
)

// oidEKCertificate is tcg-kp-EKCertificate: TCG EK Credential Profile 2.5, section 3.2.16.
var oidEKCertificate = asn1.ObjectIdentifier{2, 23, 133, 8, 1}

// certificateLife is how long a TPM made here is vouched for.
const certificateLife = 365 * 24 * time.Hour

// makeTPM makes the guest's TPM by the maker in a file, or by one that is made for it and thrown away, whose certificate is the root
// that a client of this guest has to trust.
func (g Guest) makeTPM(ctx context.Context, rootFile string) (err error) {
	now := time.Now()
	var m *maker
	if rootFile == "" {
		m, err = newMaker(now)
	} else {
		m, err = readMaker(rootFile)
	}
	if err != nil {
		return fmt.Errorf("making TPM: %w", err)
	}
	if err := m.make(ctx, g.Tree, g.Path("tpm"), now); err != nil {
		return err
	}
	return os.WriteFile(g.Path(RootsFile), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: m.certificate.Raw}), 0o644)
}

// make makes a TPM in dir: fresh seeds, and the attestation key's certificate in NV memory.
func (m *maker) make(ctx context.Context, tree toolstree.Tree, dir string, now time.Time) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	socket := filepath.Join(dir, "make.sock")
	cmd, err := qemu.ServeTPM(ctx, tree, dir, socket)
	if err != nil {
		return err
	}
	defer func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		_ = os.Remove(socket)
	}()
	t, err := openTPM(socket)
	if err != nil {
		return fmt.Errorf("making TPM: %w", err)
	}
	defer t.Close()
	certificate, err := m.enrol(t, now)
	if err != nil {
		return fmt.Errorf("making TPM: %w", err)
	}
	if err := writeNV(t, template.AKCertificate, certificate); err != nil {
		return fmt.Errorf("making TPM: storing certificate: %w", err)
	}
	if _, err := (tpm2.Shutdown{ShutdownType: tpm2.TPMSUClear}).Execute(t); err != nil {
		return fmt.Errorf("making TPM: %w", err)
	}
	return nil
}

// maker is the one who makes TPMs and vouches for their keys.
type maker struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// makerName is how the certificate of a maker calls it.
const makerName = "Chrysalis software TPM maker"

// readMaker reads what write has written.
func readMaker(file string) (*maker, error) {
	certificate, key, err := ReadRoot(file)
	if err != nil {
		return nil, err
	}
	m := &maker{certificate: certificate}
	var ok bool
	if m.key, ok = key.(*ecdsa.PrivateKey); !ok || certificate.Subject.CommonName != makerName {
		return nil, fmt.Errorf("reading %s: %s is no maker of software TPMs", file, certificate.Subject)
	}
	return m, nil
}

// ReadRoot reads a root that software machines have in common: its certificate and the key of that, in PEM.
func ReadRoot(file string) (*x509.Certificate, crypto.Signer, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, nil, err
	}
	first, rest := pem.Decode(text)
	second, _ := pem.Decode(rest)
	if first == nil || second == nil || first.Type != "CERTIFICATE" || second.Type != "PRIVATE KEY" {
		return nil, nil, fmt.Errorf("reading %s: want a certificate and its key", file)
	}
	certificate, err := x509.ParseCertificate(first.Bytes)
	if err != nil {
		return nil, nil, fmt.Errorf("reading %s: %w", file, err)
	}
	key, err := x509.ParsePKCS8PrivateKey(second.Bytes)
	if err != nil {
		return nil, nil, fmt.Errorf("reading %s: %w", file, err)
	}
	signer, ok := key.(crypto.Signer)
	if public, same := certificate.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !ok || !same || !public.Equal(signer.Public()) {
		return nil, nil, fmt.Errorf("reading %s: the key is not the certificate's", file)
	}
	return certificate, signer, nil
}

func (m *maker) write(file string) error {
	key, err := x509.MarshalPKCS8PrivateKey(m.key)
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: m.certificate.Raw}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})...), 0o600)
}

func newMaker(now time.Time) (*maker, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: makerName},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(certificateLife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	certificate, err := x509.ParseCertificate(der)
	return &maker{certificate, key}, err
}

// enrol certifies the endorsement key, which only the maker can vouch for, and by it the attestation key, as an enrolment
// service would that knows the maker alone.
func (m *maker) enrol(t transport.TPM, now time.Time) (certificate []byte, err error) {
	ek, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHEndorsement, InPublic: tpm2.New2B(template.EK())}.Execute(t)
	if err != nil {
		return nil, fmt.Errorf("endorsement key: %w", err)
	}
	if _, err := (tpm2.FlushContext{FlushHandle: ek.ObjectHandle}).Execute(t); err != nil {
		return nil, fmt.Errorf("endorsement key: %w", err)
	}
	public, err := ek.OutPublic.Contents()
	if err != nil {
		return nil, fmt.Errorf("endorsement key: %w", err)
	}
	key, err := tpm2.Pub(*public)
	if err != nil {
		return nil, fmt.Errorf("endorsement key: %w", err)
	}
	endorsement, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "Chrysalis software TPM"}, NotBefore: now.Add(-time.Hour),
		NotAfter: now.Add(certificateLife),
		KeyUsage: x509.KeyUsageKeyAgreement, BasicConstraintsValid: true, UnknownExtKeyUsage: []asn1.ObjectIdentifier{oidEKCertificate},
	}, m.certificate, key, m.key)
	if err != nil {
		return nil, fmt.Errorf("endorsement key: %w", err)
	}
	ak, err := enrol.AKPublic(t)
	if err != nil {
		return nil, err
	}
	makers := x509.NewCertPool()
	makers.AddCert(m.certificate)
	pending, credential, err := enrol.Enrolment{EKCertificates: [][]byte{endorsement}, AK: ak}.Challenge(makers, now)
	if err != nil {
		return nil, err
	}
	answer, err := enrol.Activate(t, credential)
	if err != nil {
		return nil, err
	}
	return pending.Certify(answer, m.certificate, m.key, now.Add(-time.Hour), now.Add(certificateLife))
}

func serial() *big.Int {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		panic(err) // crypto/rand does not fail
	}
	return n
}

func writeNV(t transport.TPM, index tpm2.TPMHandle, data []byte) error {
	owner := tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)}
	_, err := tpm2.NVDefineSpace{AuthHandle: owner, PublicInfo: tpm2.New2B(tpm2.TPMSNVPublic{
		NVIndex: index, NameAlg: tpm2.TPMAlgSHA256, DataSize: uint16(len(data)),
		Attributes: tpm2.TPMANV{OwnerWrite: true, OwnerRead: true, AuthRead: true, NT: tpm2.TPMNTOrdinary, NoDA: true},
	})}.Execute(t)
	if err != nil {
		return err
	}
	public, err := tpm2.NVReadPublic{NVIndex: index}.Execute(t)
	if err != nil {
		return err
	}
	const chunk = 512
	for offset := 0; offset < len(data); offset += chunk {
		_, err := tpm2.NVWrite{AuthHandle: owner, NVIndex: tpm2.NamedHandle{Handle: index, Name: public.NVName},
			Data: tpm2.TPM2BMaxNVBuffer{Buffer: data[offset:min(offset+chunk, len(data))]}, Offset: uint16(offset)}.Execute(t)
		if err != nil {
			return err
		}
	}
	return nil
}
