package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"chrysalis/measure"
	"chrysalis/measure/config"
	"chrysalis/tools/internal/guest"
)

// custodyFlags say whether a guest keeps a secret for others, or has its own lent.
type custodyFlags struct {
	keeps                    bool
	from, take, list, common string
}

func (f *custodyFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.BoolVar(&f.keeps, "custodian", false, "boot the custodian of the config's identity: without engine, model and clients, "+
		"it keeps the secret and lends it to one guest at a time")
	flags.StringVar(&f.from, "borrow-from", "", "have the secret lent: by the custodian in this guest folder, or at this ADDRESS:PORT, "+
		"as the guest reaches it")
	flags.StringVar(&f.take, "take-from", "", "with --custodian: take the secret over, for good, from the custodian in this guest folder, or at this "+
		"ADDRESS:PORT; one that has a secret already takes none")
	flags.StringVar(&f.list, "list", "", "with --borrow-from or --take-from: signed release list, where that custodian is of the release before")
	flags.StringVar(&f.common, "software-root", "", "with --custodian or --borrow-from, where software plays the processor or the TPM: "+
		"file with the root that the machines have in common, made where there is none (default: build/software-root-PLATFORM.pem)")
	cmd.MarkFlagsMutuallyExclusive("custodian", "borrow-from")
	cmd.MarkFlagsMutuallyExclusive("take-from", "borrow-from")
}

// apply makes a custodian of the spec, or a guest that borrows. The demo's identity gets a custodian; one of a file has to have one.
func (f *custodyFlags) apply(ctx context.Context, g guest.Guest, spec *guest.Spec, demo bool) error {
	if f.list != "" && f.from == "" && f.take == "" {
		return errors.New("--list goes with --borrow-from or --take-from")
	}
	if f.take != "" && !f.keeps && !spec.Config.Service.Custodian {
		return errors.New("--take-from goes with --custodian: a guest that serves has its secret lent, with --borrow-from")
	}
	borrows := spec.Config.Identity.Sealing == config.SealCustodian && !spec.Config.Service.Custodian
	switch {
	case !f.keeps && f.from == "" && borrows:
		return errors.New("the config's secret is lent: name its custodian with --borrow-from, or boot that with --custodian")
	case !f.keeps && f.from == "" && !spec.Config.Service.Custodian:
		return nil
	case f.from != "" && spec.Config.Service.Custodian:
		return errors.New("the config is a custodian's, which borrows from nobody")
	}
	var roots [][]byte
	platform := spec.Shape.Platform
	software := platform == "" || guest.Simulated(spec.Shape) // a TPM is a program everywhere
	if software {
		var err error
		if spec.SoftwareRoot, err = filepath.Abs(cmp.Or(f.common, fmt.Sprintf("build/software-root-%s.pem", cmp.Or(platform, "vtpm")))); err != nil {
			return err
		}
		root, err := g.SoftwareRoot(ctx, platform, spec.SoftwareRoot)
		if err != nil {
			return err
		}
		roots = [][]byte{root}
	}
	if demo {
		if !software && platform == measure.SEVSNP {
			return errors.New("the demo's identity has no custodian on SEV-SNP hardware: name a config whose identity.custody says which patch levels " +
				"it must have (--config)")
		}
		spec.Config = guest.Borrowing(spec.Config, platform, roots)
	}
	if got := spec.Config.Identity.Sealing; got != config.SealCustodian {
		return fmt.Errorf("sealing of the config is %q, want %q", got, config.SealCustodian)
	}
	flag, from := "--borrow-from", f.from
	if from == "" {
		spec.Config = guest.AsCustodian(spec.Config)
		if flag, from = "--take-from", f.take; from == "" {
			return nil
		}
	}
	var err error
	spec.List = f.list
	if spec.Custodian, err = custodianAt(from); err != nil {
		return fmt.Errorf("%s: %w", flag, err)
	}
	return nil
}

// custodianAt takes an address, or the folder of a custodian on this machine.
func custodianAt(from string) (string, error) {
	if info, err := os.Stat(from); err != nil || !info.IsDir() {
		return from, nil
	}
	dir, err := filepath.Abs(from)
	if err != nil {
		return "", err
	}
	spec, err := guest.Guest{Dir: dir}.Spec()
	if err != nil {
		return "", err
	}
	if !spec.Config.Service.Custodian {
		return "", fmt.Errorf("the guest in %s is no custodian (start one with: chrysalis up --custodian)", from)
	}
	return guest.LocalCustodian(spec), nil
}
