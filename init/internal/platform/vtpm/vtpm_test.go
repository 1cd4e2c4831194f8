package vtpm

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"

	"chrysalis/attest/evidence"
	"chrysalis/attest/vtpm/template"
	"chrysalis/measure/eventlog"
	"chrysalis/runtime/secret"
)

// treeRoot is the tools tree, whose swtpm runs here by the tree's own loader.
const treeRoot = "../../../../build/tools-tree"

// machine is a TPM of swtpm's.
type machine struct {
	transport.TPMCloser
	t       *testing.T
	control net.Conn // swtpm's own words
}

// reset takes the power away and gives it back: what is in NV memory stays.
func (m machine) reset() {
	m.t.Helper()
	const cmdInit = 2 // of swtpm_ioctls(3), with flags
	var result [4]byte
	if _, err := m.control.Write([]byte{0, 0, 0, cmdInit, 0, 0, 0, 0}); err != nil {
		m.t.Fatal(err)
	}
	if _, err := io.ReadFull(m.control, result[:]); err != nil || result != [4]byte{} {
		m.t.Fatalf("resetting swtpm: result %x (%v), want 0", result, err)
	}
	if _, err := (tpm2.Startup{StartupType: tpm2.TPMSUClear}).Execute(m); err != nil {
		m.t.Fatal(err)
	}
}

// start starts swtpm over the state in dir and returns a TPM, after a reset of its registers.
func start(t *testing.T, dir string) machine {
	t.Helper()
	root, err := filepath.Abs(treeRoot)
	if err != nil {
		t.Fatal(err)
	}
	argv := []string{"swtpm"}
	if _, err := os.Stat(filepath.Join(root, "usr/bin/swtpm")); err == nil {
		lib := filepath.Join(root, "usr/lib/x86_64-linux-gnu")
		argv = []string{filepath.Join(root, "usr/lib64/ld-linux-x86-64.so.2"), "--library-path", lib + ":" + lib + "/swtpm",
			filepath.Join(root, "usr/bin/swtpm")}
	} else if _, err := exec.LookPath("swtpm"); err != nil {
		t.Skip("no swtpm: neither in the tools tree nor on this machine")
	}
	socket := filepath.Join(t.TempDir(), "tpm.sock")
	cmd := exec.Command(argv[0], append(argv[1:], "socket", "--tpm2", "--tpmstate", "dir="+dir,
		"--server", "type=unixio,path="+socket, "--ctrl", "type=unixio,path="+socket+".ctrl", "--flags", "not-need-init,startup-clear")...)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	// The socket comes late, and is there before anybody listens on it.
	var device transport.TPMCloser
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if device, err = linuxudstpm.Open(socket); err == nil {
			if _, err = (tpm2.ReadClock{}).Execute(device); err == nil {
				break
			}
			device.Close()
		}
		if time.Now().After(deadline) {
			t.Fatalf("swtpm does not answer within 20 s: %v", err)
		}
	}
	// The power goes: state that is not in NV memory is gone.
	t.Cleanup(func() { device.Close() })
	control, err := net.Dial("unix", socket+".ctrl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { control.Close() })
	return machine{device, t, control}
}

func event(data string) eventlog.Record {
	return eventlog.Record{Register: eventlog.PCR14, Kind: eventlog.KindIdentity, Data: []byte(data)}
}

// TestSecretAcrossBoots seals in one boot and unseals in the next, under the same and under another identity.
func TestSecretAcrossBoots(t *testing.T) {
	dir := t.TempDir()
	var first *secret.Secret
	for i, tt := range []struct {
		name, identity string
		boots          uint64
		want           error
	}{
		{"first boot", "me", 0, nil},
		{"the same identity", "me", 1, nil},
		{"another identity", "you", 0, secret.ErrSealed},
		{"the first again", "me", 2, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			device := start(t, dir)
			guest := New(device, "")
			if err := guest.Extend(event(tt.identity)); err != nil {
				t.Fatal(err)
			}
			taken, err := guest.Secret()
			got, boots := taken.Secret, taken.Boots
			if !errors.Is(err, tt.want) {
				t.Fatalf("got error %v, want %v", err, tt.want)
			}
			if tt.want != nil {
				if got != nil {
					t.Error("a refused unseal gave a secret")
				}
			} else {
				if i == 0 {
					first = got
				}
				if !got.Equal(first) {
					t.Error("got another secret than in the first boot")
				}
				if boots != tt.boots {
					t.Errorf("got %d boots, want %d", boots, tt.boots)
				}
				if err := guest.CountBoot(); err != nil {
					t.Fatal(err)
				}
			}
			// Keys released: nobody unseals again in this boot.
			if err := guest.Extend(event("keys-released")); err != nil {
				t.Fatal(err)
			}
			if again, err := guest.Secret(); !errors.Is(err, secret.ErrSealed) || again.Secret != nil {
				t.Errorf("second unseal: got %v and error %v, want %v", again.Secret, err, secret.ErrSealed)
			}
			if _, err := (tpm2.Shutdown{ShutdownType: tpm2.TPMSUClear}).Execute(device); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// leaveCertificate puts the attestation key's certificate where the TPM's maker does.
func leaveCertificate(t *testing.T, device transport.TPM, certificate []byte) {
	t.Helper()
	owner := tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)}
	public := tpm2.New2B(tpm2.TPMSNVPublic{
		NVIndex: template.AKCertificate, NameAlg: tpm2.TPMAlgSHA256, DataSize: uint16(len(certificate)),
		Attributes: tpm2.TPMANV{OwnerWrite: true, OwnerRead: true, NT: tpm2.TPMNTOrdinary, NoDA: true},
	})
	if _, err := (tpm2.NVDefineSpace{AuthHandle: owner, PublicInfo: public}).Execute(device); err != nil {
		t.Fatal(err)
	}
	name, err := tpm2.NVReadPublic{NVIndex: template.AKCertificate}.Execute(device)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (tpm2.NVWrite{AuthHandle: owner, NVIndex: tpm2.NamedHandle{Handle: template.AKCertificate, Name: name.NVName},
		Data: tpm2.TPM2BMaxNVBuffer{Buffer: certificate}}).Execute(device); err != nil {
		t.Fatal(err)
	}
}

// TestQuote checks a quote with the standard library: the key of the fixed template signed it, over the report data.
func TestQuote(t *testing.T) {
	device := start(t, t.TempDir())
	guest := New(device, "")
	report := [64]byte{1, 2, 3}
	if quote, err := guest.Quote(report); err == nil {
		t.Errorf("a TPM whose attestation key nobody has certified: got %+v, want an error", quote)
	}
	leaveCertificate(t, device, []byte("certificate"))
	quote, err := guest.Quote(report)
	if err != nil {
		t.Fatal(err)
	}
	if quote.Platform != evidence.VTPM || len(quote.Certificates) != 1 || string(quote.Certificates[0]) != "certificate" {
		t.Errorf("got platform %s and certificates %q, want the one in the TPM", quote.Platform, quote.Certificates)
	}
	if !bytes.Contains(quote.Quote, report[:]) {
		t.Errorf("quote %x does not hold the report data", quote.Quote)
	}
	ak, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHEndorsement, InPublic: tpm2.New2B(template.AK())}.Execute(device)
	if err != nil {
		t.Fatal(err)
	}
	public, err := ak.OutPublic.Contents()
	if err != nil {
		t.Fatal(err)
	}
	key, err := tpm2.Pub(*public)
	if err != nil {
		t.Fatal(err)
	}
	signature, err := tpm2.Unmarshal[tpm2.TPMTSignature](quote.Signature)
	if err != nil {
		t.Fatal(err)
	}
	parts, err := signature.Signature.ECDSA()
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256(quote.Quote)
	verify := func(digest [32]byte) bool {
		return ecdsa.Verify(key.(*ecdsa.PublicKey), digest[:], bigInt(parts.SignatureR.Buffer), bigInt(parts.SignatureS.Buffer))
	}
	if !verify(digest) {
		t.Error("the attestation key did not sign the quote")
	}
	digest[0] ^= 1
	if verify(digest) {
		t.Error("the signature holds for another digest too")
	}
}

func bigInt(b []byte) *big.Int { return new(big.Int).SetBytes(b) }
