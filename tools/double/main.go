// Command double plays the hardware below an emulated guest. For a TD that is the TDX module with its registers, the quoting enclave, and the
// certificates and the collateral that would come from Intel, all under a root that it makes at its start; for an SEV-SNP guest the
// firmware of the processor, its certificates and revocation list, under a root whose key is a test library's. Its other halves, plugin/tdx.c
// and plugin/snp.c, sit in QEMU and make such a guest of the emulated one; what they play and leave out stands at their heads, and what differs
// from hardware in tools/e2e/DOUBLES.md.
//
//	double plugin -tools-tree DIR -o DIR
//	double root -platform tdx|sev-snp -o FILE
//	double serve -socket PATH -pid FILE -out DIR -tools-tree DIR -firmware FILE -shape FILE -boot DIR -config-id HEX -host-data HEX [-debug] [-quotes FILE] [-root FILE] [-vsock PATH -cid N -port N]
//
// A verifier accepts what it signs under that root alone. It proves that measurement and protocol hold; it keeps no secret from the
// machine that it runs on. It links the software platform of the tests, so it is a program of its own, and none of a release.
package main

import (
	"context"
	_ "embed"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"chrysalis/attest/sevsnp"
	"chrysalis/measure"
	"chrysalis/measure/tdvf"
	"chrysalis/tools/internal/acpi"
	"chrysalis/tools/internal/guest"
	"chrysalis/tools/internal/toolstree"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	verb, args := "", os.Args[1:]
	if len(args) > 0 {
		verb, args = args[0], args[1:]
	}
	err := fmt.Errorf("verb %q, want plugin, root or serve", verb)
	switch verb {
	case "plugin":
		err = runPlugin(ctx, args)
	case "root":
		err = runRoot(args)
	case "serve":
		err = runServe(ctx, args)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "double:", err)
		os.Exit(1)
	}
}

func runPlugin(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("plugin", flag.ExitOnError)
	treeDir := flags.String("tools-tree", "build/tools-tree", "tools tree with the compiler")
	out := flags.String("o", "build/double", "folder to write them to")
	if err := flags.Parse(args); err != nil {
		return err
	}
	tree, err := toolstree.Open(*treeDir)
	if err != nil {
		return err
	}
	for _, name := range plugins {
		if err := compile(ctx, tree, name, *out); err != nil {
			return err
		}
	}
	return nil
}

// patience is how long QEMU may take until it speaks.
const patience = 2 * time.Minute

func runServe(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("serve", flag.ExitOnError)
	socket := flags.String("socket", "", "where the plugin connects")
	pid := flags.String("pid", "", "file for this process's number, written when the plugin may connect")
	out := flags.String("out", "", "folder for the root and the collateral")
	treeDir := flags.String("tools-tree", "build/tools-tree", "tools tree whose QEMU says what memory the shape has")
	firmware := flags.String("firmware", "", "whole firmware image, for MRTD and the place of the memory's list")
	shapeFile := flags.String("shape", "", "shape.json of the machine")
	boot := flags.String("boot", "", "folder with vmlinuz, initrd and cmdline, which an SEV-SNP guest's launch has the hashes of")
	configID := flags.String("config-id", "", "MRCONFIGID of a TD, 48 bytes in hexadecimal")
	hostData := flags.String("host-data", "", "HOST_DATA of an SEV-SNP guest, 32 bytes in hexadecimal")
	policy := flags.Uint64("policy", guest.StrictSNPPolicy, "POLICY of an SEV-SNP guest")
	debug := flags.Bool("debug", false, "make the guest one that its host can debug")
	quotes := flags.String("quotes", "", "file that says how the host behaves when it is asked for evidence, read at each request: "+waysText())
	rootFile := flags.String("root", "", "file of double root's: a root that several machines have, and keep from start to start")
	vsockSocket := flags.String("vsock", "", "where QEMU's vhost-user-vsock connects: a TD then reaches the quoting service there as well")
	cid := flags.Uint("cid", 3, "the guest's address on that vsock")
	port := flags.Uint("port", 4050, "the quoting service's port there")
	if err := flags.Parse(args); err != nil {
		return err
	}
	shape, err := guest.ReadShape(*shapeFile)
	if err != nil {
		return err
	}
	under, err := readRoot(*rootFile, shape.Platform)
	if err != nil {
		return err
	}
	s := &server{quotes: *quotes}
	switch shape.Platform {
	case measure.TDX:
		id, err := hex.DecodeString(*configID)
		if err != nil || len(id) != 48 {
			return fmt.Errorf("-config-id has %d bytes (error %v), want 48", len(id), err)
		}
		if s.td, err = newTD(time.Now(), [48]byte(id), *debug, under); err != nil {
			return err
		}
		if err := launch(ctx, s.td, *firmware, shape, *treeDir); err != nil {
			return err
		}
		root, collateral, err := s.td.publish()
		if err != nil {
			return err
		}
		if err := publish(*out, guest.TDXRootFile, root, guest.TDXCollateralFile, collateral); err != nil {
			return err
		}
	case measure.SEVSNP:
		data, err := hex.DecodeString(*hostData)
		if err != nil || len(data) != 32 {
			return fmt.Errorf("-host-data has %d bytes (error %v), want 32", len(data), err)
		}
		if *debug {
			*policy |= uint64(sevsnp.PolicyDebug)
		}
		if s.snp, err = launchSNP(shape, *firmware, *boot, [32]byte(data), sevsnp.Policy(*policy), under); err != nil {
			return err
		}
		s.snp.way = s.way
		if err := s.snp.ofChip(filepath.Join(*out, guest.SNPChipFile)); err != nil {
			return err
		}
		if err := publish(*out, guest.SNPRootFile, s.snp.processor.Root().Raw, guest.SNPCollateralFile, s.snp.processor.Evidence().CRL); err != nil {
			return err
		}
	default:
		return fmt.Errorf("%s is of platform %q, want %s or %s", *shapeFile, shape.Platform, measure.TDX, measure.SEVSNP)
	}
	if *vsockSocket != "" {
		s.vsockSocket, s.cid, s.port = *vsockSocket, uint64(*cid), uint32(*port)
	}
	return s.serve(ctx, *socket, *pid)
}

// publish leaves the root and what is vouched for under it in a folder.
func publish(dir, rootFile string, root []byte, collateralFile string, collateral []byte) error {
	return errors.Join(os.WriteFile(filepath.Join(dir, rootFile), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root}), 0o644),
		os.WriteFile(filepath.Join(dir, collateralFile), collateral, 0o644))
}

// launch measures the firmware into MRTD and makes the list of memory for it, as QEMU does for a TD of this shape.
func launch(ctx context.Context, t *td, firmwareFile string, shape measure.Shape, treeDir string) error {
	firmware, err := os.ReadFile(firmwareFile)
	if err != nil {
		return err
	}
	tree, err := toolstree.Open(treeDir)
	if err != nil {
		return err
	}
	tables, err := acpi.Cached(ctx, tree, shape, filepath.Join(filepath.Dir(tree.Path(".")), "cache", "acpi"))
	if err != nil {
		return err
	}
	sections, err := tdvf.Sections(firmware)
	if err != nil {
		return err
	}
	memory, err := tables.Memory()
	if err != nil {
		return err
	}
	hob, err := tdvf.HOB(sections, memory)
	if err != nil {
		return err
	}
	mrtd, err := tdvf.MRTD(firmware, tdvf.SinglePass)
	if err != nil {
		return err
	}
	return t.load(mrtd, sections, hob)
}
