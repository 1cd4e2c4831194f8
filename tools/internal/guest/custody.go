package guest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"chrysalis/measure"
	"chrysalis/measure/config"
)

// gatewayAddress is where a guest under QEMU's own network reaches this machine's loopback interface.
const gatewayAddress = "10.0.2.2"

// LocalCustodian returns the address at which a guest on this machine reaches the custodian that was started with the spec.
func LocalCustodian(spec Spec) string { return fmt.Sprintf("%s:%d", gatewayAddress, spec.Port) }

// Liteservers returns a way to liteservers for a guest: those that listen on this machine's loopback interface it reaches by another address.
func Liteservers(list []netip.AddrPort, keys [][32]byte) (all []config.Liteserver) {
	for i, a := range list {
		if a.Addr().IsLoopback() {
			a = netip.AddrPortFrom(netip.MustParseAddr(gatewayAddress), a.Port())
		}
		all = append(all, config.Liteserver{Address: a, Key: keys[i]})
	}
	return all
}

// SoftwareTCB are the patch levels of the processor that plays SEV-SNP.
var SoftwareTCB = config.PatchLevels{Product: "Milan", Bootloader: 4, TEE: 1, SNP: 22, Microcode: 213}

// Borrowing returns the demo's config on a platform with its secret lent by a custodian. roots vouch for the machines in the place of their
// makers.
func Borrowing(m config.Measured, p measure.Platform, roots [][]byte) config.Measured {
	m.Identity.Sealing, m.Identity.Stranding = config.SealCustodian, ""
	m.Identity.Custody = config.Custody{LeaseSeconds: 30, CollateralHours: 168, Roots: roots}
	if p == measure.SEVSNP {
		m.Identity.Custody.MinTCB = []config.PatchLevels{SoftwareTCB}
	}
	return m
}

// AsCustodian returns the config of the custodian of an identity.
func AsCustodian(m config.Measured) config.Measured {
	m.Service = config.Service{Custodian: true, GPU: config.GPUNone}
	return m
}

// keepsNothing reports whether each boot has a secret of its own, and so a journal of its own: a TD's custodian has nothing to seal to.
func (s Spec) keepsNothing() bool {
	return s.Config.Identity.Sealing == config.SealNothing || s.Config.Service.Custodian && s.Shape.Platform == measure.TDX
}

// way is what the host document says of a custodian.
func (s Spec) way() (way config.HostCustodian, err error) {
	borrows := s.Config.Identity.Sealing == config.SealCustodian && !s.Config.Service.Custodian
	if given := s.Custodian != ""; given != borrows && !(given && s.Config.Service.Custodian) {
		return way, fmt.Errorf("custodian's address is %q and the guest borrows its secret: %t, want both or neither, or a custodian that takes one over",
			s.Custodian, borrows)
	}
	if s.Custodian == "" {
		return way, nil
	}
	if way.Address, err = netip.ParseAddrPort(s.Custodian); err != nil {
		return way, fmt.Errorf("custodian's address: %w", err)
	}
	if s.List != "" {
		if way.List, err = os.ReadFile(s.List); err != nil {
			return way, err
		}
	}
	return way, way.Check()
}

// SoftwareRoot returns the certificate of the root, in a file, that vouches for software machines of a platform: what plays a processor,
// or a TPM. It is made where there is none.
func (g Guest) SoftwareRoot(ctx context.Context, p measure.Platform, file string) ([]byte, error) {
	if _, err := os.Stat(file); errors.Is(err, os.ErrNotExist) {
		if err := g.makeRoot(ctx, p, file); err != nil {
			return nil, fmt.Errorf("making a root of software %s: %w", cmp.Or(p, "TPMs"), err)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, fmt.Errorf("%s: want a certificate and its key", file)
	}
	return block.Bytes, nil
}

func (g Guest) makeRoot(ctx context.Context, p measure.Platform, file string) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	if p == "" {
		m, err := newMaker(time.Now())
		if err != nil {
			return err
		}
		return m.write(file)
	}
	if out, err := exec.CommandContext(ctx, filepath.Join(g.Double, doubleProgram), "root", "-platform", string(p), "-o", file).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %.500s", err, out)
	}
	return nil
}

// underRoot refuses a TPM that another maker made than the one in the spec's file: it would be vouched for by nobody that the identity names.
func (g Guest) underRoot(file string) error {
	m, err := readMaker(file)
	if err != nil {
		return err
	}
	roots, err := os.ReadFile(g.Path(RootsFile))
	if err != nil {
		return err
	}
	if block, _ := pem.Decode(roots); block == nil || !bytes.Equal(block.Bytes, m.certificate.Raw) {
		return fmt.Errorf("the TPM in %s was made under another root than the one in %s: give the guest a folder of its own", g.Path("tpm"), file)
	}
	return nil
}
