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
	"strings"
	"syscall"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"

	"chrysalis/attest/vtpm"
	"chrysalis/tools/internal/toolstree"
)

// oidEKCertificate is tcg-kp-EKCertificate: TCG EK Credential Profile 2.5, section 3.2.16.
var oidEKCertificate = asn1.ObjectIdentifier{2, 23, 133, 8, 1}

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
		if listening(socket) {
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

// listening reports whether a process listens at the socket. The file is there a moment before, and to connect would be
// to use it: swtpm ends with its first connection.
func listening(socket string) bool {
	sockets, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(sockets)) {
		// Number, references, protocol, flags, type, state, inode, path; the flag is the kernel's __SO_ACCEPTCON.
		if field := strings.Fields(line); len(field) >= 8 && field[3] == "00010000" && strings.HasSuffix(strings.TrimSuffix(line, "\n"), " "+socket) {
			return true
		}
	}
	return false
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
	m, err := newMaker(now)
	if err != nil {
		return nil, fmt.Errorf("making TPM: %w", err)
	}
	certificate, err := m.enrol(t, now)
	if err != nil {
		return nil, fmt.Errorf("making TPM: %w", err)
	}
	if err := writeNV(t, vtpm.AKCertificateIndex, certificate); err != nil {
		return nil, fmt.Errorf("making TPM: storing certificate: %w", err)
	}
	if _, err := (tpm2.Shutdown{ShutdownType: tpm2.TPMSUClear}).Execute(t); err != nil {
		return nil, fmt.Errorf("making TPM: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: m.certificate.Raw}), nil
}

// maker is the one who makes TPMs and vouches for their keys.
type maker struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newMaker(now time.Time) (*maker, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "Chrysalis software TPM maker"},
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
	ek, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHEndorsement, InPublic: tpm2.New2B(vtpm.EKTemplate())}.Execute(t)
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
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "Chrysalis software TPM"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(certificateLife),
		KeyUsage: x509.KeyUsageKeyAgreement, BasicConstraintsValid: true, UnknownExtKeyUsage: []asn1.ObjectIdentifier{oidEKCertificate},
	}, m.certificate, key, m.key)
	if err != nil {
		return nil, fmt.Errorf("endorsement key: %w", err)
	}
	ak, err := vtpm.AKPublic(t)
	if err != nil {
		return nil, err
	}
	makers := x509.NewCertPool()
	makers.AddCert(m.certificate)
	pending, credential, err := vtpm.Enrolment{EKCertificates: [][]byte{endorsement}, AK: ak}.Challenge(makers, now)
	if err != nil {
		return nil, err
	}
	answer, err := vtpm.Activate(t, credential)
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

// StartTPM starts swtpm over the state in dir, new if there is none, for a QEMU that drives it over the socket. The caller
// ends it.
func StartTPM(ctx context.Context, tree toolstree.Tree, dir, socket string) (*exec.Cmd, error) {
	return startTPM(ctx, tree, dir, socket, false)
}
