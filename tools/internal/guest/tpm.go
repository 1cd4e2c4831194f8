package guest

import (
	"context"
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
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"

	"chrysalis/attest/vtpm"
	"chrysalis/tools/internal/toolstree"
)

// oidAIKCertificate is tcg-kp-AIKCertificate, TCG EK Credential Profile 2.5, section 3.2.16.
var oidAIKCertificate = asn1.ObjectIdentifier{2, 23, 133, 8, 3}

// tpmPID is the file with the process of a guest's TPM, in its folder.
const tpmPID = "swtpm.pid"

// certificateLife is how long a TPM made here is vouched for.
const certificateLife = 365 * 24 * time.Hour

// startTPM starts swtpm over the state in dir. As a server of TPM commands it is ready for this program; otherwise QEMU
// drives it over the control socket.
func startTPM(ctx context.Context, tree toolstree.Tree, dir, socket string, server bool) (*exec.Cmd, error) {
	if err := os.RemoveAll(socket); err != nil {
		return nil, err
	}
	args := []string{"socket", "--tpm2", "--tpmstate", "dir=" + dir}
	if server {
		args = append(args, "--server", "type=unixio,path="+socket, "--flags", "not-need-init,startup-clear")
	} else {
		args = append(args, "--ctrl", "type=unixio,path="+socket, "--terminate", "--pid", "file="+filepath.Join(dir, tpmPID))
	}
	// A guest's TPM outlives this program, so ctx does not end it; it ends with QEMU.
	cmd := tree.Command(context.WithoutCancel(ctx), "swtpm", args...)
	log, err := os.Create(filepath.Join(dir, "swtpm.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting swtpm: %w", err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(socket); err == nil {
			return cmd, nil
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			said, _ := os.ReadFile(log.Name())
			return nil, fmt.Errorf("starting swtpm: no socket at %s after 10 s; it said: %s", socket, said)
		}
	}
}

// makeTPM makes a TPM in dir: fresh seeds, and the attestation key's certificate in NV memory, signed by a
// CA that is made for it and thrown away. It returns the CA's certificate in PEM: the root that a client of this guest
// has to trust.
func makeTPM(ctx context.Context, tree toolstree.Tree, dir string, now time.Time) (roots []byte, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	socket := filepath.Join(dir, "make.sock")
	cmd, err := startTPM(ctx, tree, dir, socket, true)
	if err != nil {
		return nil, err
	}
	defer func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		_ = os.Remove(socket)
	}()
	t, err := linuxudstpm.Open(socket)
	if err != nil {
		return nil, fmt.Errorf("making TPM: %w", err)
	}
	defer t.Close()
	ak, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHEndorsement, InPublic: tpm2.New2B(vtpm.AKTemplate())}.Execute(t)
	if err != nil {
		return nil, fmt.Errorf("making TPM: attestation key: %w", err)
	}
	public, err := ak.OutPublic.Contents()
	if err != nil {
		return nil, err
	}
	key, err := tpm2.Pub(*public)
	if err != nil {
		return nil, fmt.Errorf("making TPM: attestation key: %w", err)
	}
	certificate, ca, err := certify(key, now)
	if err != nil {
		return nil, fmt.Errorf("making TPM: %w", err)
	}
	if err := writeNV(t, vtpm.AKCertificateIndex, certificate); err != nil {
		return nil, fmt.Errorf("making TPM: storing certificate: %w", err)
	}
	if _, err := (tpm2.Shutdown{ShutdownType: tpm2.TPMSUClear}).Execute(t); err != nil {
		return nil, fmt.Errorf("making TPM: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca}), nil
}

func certify(key any, now time.Time) (certificate, ca []byte, err error) {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial := func() *big.Int {
		n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
		if err != nil {
			panic(err) // crypto/rand does not fail
		}
		return n
	}
	maker := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "Chrysalis software TPM maker"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(certificateLife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
	}
	if ca, err = x509.CreateCertificate(rand.Reader, maker, maker, &caKey.PublicKey, caKey); err != nil {
		return nil, nil, err
	}
	certificate, err = x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "Chrysalis software TPM"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(certificateLife),
		KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
		UnknownExtKeyUsage: []asn1.ObjectIdentifier{oidAIKCertificate},
	}, maker, key, caKey)
	return certificate, ca, err
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
