// Command double plays the hardware below an emulated guest: the TDX module with its registers, the quoting enclave, and the
// certificates and the collateral that would come from Intel, all under a root that it makes at its start. Its other half, plugin/tdx.c,
// sits in QEMU and makes a TD of the guest; what that half plays and leaves out stands at its head, and what differs from hardware
// in tools/e2e/DOUBLES.md.
//
//	double plugin -tools-tree DIR -o FILE
//	double serve -socket PATH -pid FILE -out DIR -tools-tree DIR -firmware FILE -shape FILE -config-id HEX [-debug] [-quotes FILE]
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
	err := fmt.Errorf("verb %q, want plugin or serve", verb)
	switch verb {
	case "plugin":
		err = runPlugin(ctx, args)
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
	out := flags.String("o", "build/double/"+guest.PluginFile, "file to write")
	if err := flags.Parse(args); err != nil {
		return err
	}
	tree, err := toolstree.Open(*treeDir)
	if err != nil {
		return err
	}
	return compile(ctx, tree, *out)
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
	configID := flags.String("config-id", "", "MRCONFIGID, 48 bytes in hexadecimal")
	debug := flags.Bool("debug", false, "make the TD one that its host can debug")
	quotes := flags.String("quotes", "", "file that says how the quoting service behaves, read at each request: "+waysText())
	if err := flags.Parse(args); err != nil {
		return err
	}
	id, err := hex.DecodeString(*configID)
	if err != nil || len(id) != 48 {
		return fmt.Errorf("-config-id has %d bytes (error %v), want 48", len(id), err)
	}
	t, err := newTD(time.Now(), [48]byte(id), *debug)
	if err != nil {
		return err
	}
	if err := launch(ctx, t, *firmware, *shapeFile, *treeDir); err != nil {
		return err
	}
	root, collateral, err := t.publish()
	if err != nil {
		return err
	}
	err = errors.Join(os.WriteFile(filepath.Join(*out, guest.TDXRootFile), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root}), 0o644),
		os.WriteFile(filepath.Join(*out, guest.TDXCollateralFile), collateral, 0o644))
	if err != nil {
		return err
	}
	s := &server{td: t, quotes: *quotes}
	return s.serve(ctx, *socket, *pid)
}

// launch measures the firmware into MRTD and makes the list of memory for it, as QEMU does for a TD of this shape.
func launch(ctx context.Context, t *td, firmwareFile, shapeFile, treeDir string) error {
	firmware, err := os.ReadFile(firmwareFile)
	if err != nil {
		return err
	}
	tree, err := toolstree.Open(treeDir)
	if err != nil {
		return err
	}
	shape, err := guest.ReadShape(shapeFile)
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
