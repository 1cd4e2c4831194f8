package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/spf13/cobra"

	"chrysalis/init/status"
	"chrysalis/tools/internal/guest"
	"chrysalis/tools/internal/toolstree"
)

// guestFlags are what every verb about a guest on this machine takes.
type guestFlags struct {
	dir, name string
	tree      string
}

func (f *guestFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.name, "name", "", "name of the guest, where there are several: its folder is then build/guest-NAME, or that of provider install")
	cmd.Flags().StringVar(&f.dir, "dir", "", "folder of the guest: its TPM, journal and logs (default: build/guest, or what --name says)")
	cmd.Flags().StringVar(&f.tree, "tools-tree", "build/tools-tree", "tools tree with QEMU and swtpm")
	cmd.RegisterFlagCompletionFunc("name", completeGuests)
}

// guestName is what a guest's name may be: it is part of a path, of a domain's name, and of names in a cluster.
var guestName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$`)

// folder is the guest's folder.
func (f *guestFlags) folder() (string, error) {
	switch {
	case f.name != "" && !guestName.MatchString(f.name):
		return "", exitError{exitUsage, fmt.Errorf("--name is %.60q, want at most 40 lower-case letters, digits and hyphens between", f.name)}
	case f.dir != "":
		return filepath.Abs(f.dir)
	case f.name != "":
		here, err := filepath.Abs("build/guest-" + f.name)
		if _, missing := os.Stat(here); missing == nil || err != nil {
			return here, err
		}
		if installed := filepath.Join(stateRoot, f.name); isGuest(installed) {
			return installed, nil
		}
		return here, nil
	}
	return filepath.Abs("build/guest")
}

// isGuest reports whether a guest was started from the folder once.
func isGuest(dir string) bool {
	_, err := guest.Guest{Dir: dir}.Spec()
	return err == nil
}

func (f *guestFlags) open() (guest.Guest, error) {
	dir, err := f.folder()
	if err != nil {
		return guest.Guest{}, err
	}
	tree, err := toolstree.Open(f.tree)
	if err != nil {
		return guest.Guest{}, unavailable(fmt.Errorf("%w (build it with: chrysalis image build)", err))
	}
	return guest.Guest{Dir: dir, Tree: tree}, nil
}

// guestWait is how long a boot may take, unless told.
const guestWait = 3 * time.Minute

func newUp() *cobra.Command {
	var (
		flags                       guestFlags
		release, config             string
		volumes                     volumeFlags
		shape, disk, double, listen string
		machine                     machineFlags
		prints                      printFlags
		custody                     custodyFlags
		settling                    settleFlags
		gpus                        passedFlags
		port, memory                int
		wait, drain                 time.Duration
		qemuArgs                    []string
		asJSON, foreground, noCheck bool
	)
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Boot a guest on this machine",
		Long: "Boots the release image with an engine and a model under QEMU, with a software TPM that is made on the first start, as a TD of\n" +
			"a software TDX, whose root is made anew at each start (neither keeps anything secret from this machine), or as a TDX or\n" +
			"SEV-SNP guest on hardware: --platform tdx takes the hardware where KVM offers it. --dry-run prints what QEMU would be told,\n" +
			"--print what libvirt or Kubernetes would: the same machine, with the same hash of the config in the hardware's own field.\n" +
			"A second start of the same folder keeps TPM, journal and port, so the guest continues its count where clients know it. This machine alone\n" +
			"reaches it, unless --listen names another address.",
		Example: "  chrysalis up\n  chrysalis up --release build/release --model build/volumes/model.img --config my-config.json\n  chrysalis up --config two.json --model a.img --model b.img   # several models, in the config's order\n  chrysalis up --platform tdx\n  chrysalis up --listen 0.0.0.0:8443   # for other machines too\n  chrysalis up --platform tdx --custodian --name keeper   # then a guest whose secret outlives its boots:\n  chrysalis up --platform tdx --borrow-from build/guest-keeper\n  chrysalis up --platform sev-snp --certificate vcek.der --certificate ask.der --collateral amd.crl\n" +
			"  chrysalis up --config box-paid.json --ton-config global.config.json   # charges are settled on chain\n  chrysalis up --platform tdx --accelerator kvm --dry-run\n  chrysalis up --platform tdx --gpu 0000:41:00.0 --config gpu.json --rim driver.xml --rim vbios.xml   # a config with service.gpu\n  chrysalis up --print libvirt   # for virsh define\n" +
			"  chrysalis up --platform sev-snp --accelerator kvm --print kubernetes --container-image qemu:11.1.3   # for kubectl apply\n  chrysalis up --disk chrysalis.raw --dir build/disk-guest",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			printsOnly, err := prints.asked(qemuArgs)
			if err != nil {
				return exitError{exitUsage, err}
			}
			g, err := flags.open()
			if err != nil {
				return err
			}
			if g.Double, err = filepath.Abs(double); err != nil {
				return exitError{exitUsage, err}
			}
			files, err := volumes.pairs()
			if err != nil {
				return exitError{exitUsage, err}
			}
			spec := guest.Spec{Release: release}.WithVolumes(files)
			before, err := g.Spec()
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return unavailable(err)
			}
			if spec.Listen, spec.Port, err = listenAddress(listen, port, before); err != nil {
				return exitError{exitUsage, err}
			}
			if spec.Shape, err = machine.shape(ctx, g, shape, release); err != nil {
				return exitError{exitUsage, err}
			}
			if spec.Config, err = guest.ReadConfigOf(spec.Shape.Platform, config, files); err != nil {
				return exitError{exitUsage, err}
			}
			served := spec.Config.Service.Served()
			if len(served) > 0 {
				if len(served) != len(files) {
					return exitError{exitUsage, fmt.Errorf("the config has %d models, and --model is given %d times: want it once for each, in the config's order", len(served), len(files))}
				}
				if spec.Shape, err = guest.WithModels(spec.Shape, len(served)); err != nil {
					return exitError{exitUsage, err}
				}
			}
			if err := custody.apply(ctx, g, &spec, config == ""); err != nil {
				return exitError{exitUsage, err}
			}
			if err := settling.apply(cmd, &spec, before); err != nil {
				return err
			}
			for i, m := range spec.Config.Service.Served() {
				if err := guest.CheckModel(m.Engine, files[i].Model); err != nil {
					return exitError{exitUsage, err}
				}
			}
			if memory != 0 {
				spec.Shape.MemoryMiB = memory
			}
			if spec.Shape, err = gpus.pass(spec.Shape, thisHost(flags.tree).gpus(), printsOnly, cmd.ErrOrStderr()); err != nil {
				return exitError{exitUsage, err}
			}
			if !noCheck {
				if err := sayMisfits(cmd.ErrOrStderr(), crossCheck(together{spec.Config, files, spec.Shape})); err != nil {
					return err
				}
			}
			if spec.Hardware, err = machine.hardware(spec.Shape); err != nil {
				return exitError{exitUsage, err}
			}
			spec.Hardware.GPUs = gpus.addresses
			if guest.Simulated(spec.Shape) {
				fmt.Fprintf(cmd.ErrOrStderr(), "chrysalis: note: this %s is software: emulated, so it proves protocol and measurement, not confidentiality\n",
					spec.Shape.Platform)
			}
			if disk != "" {
				spec.Disk, spec.Shape = disk, guest.OnDisk(spec.Shape)
			}
			sayOpen(cmd.ErrOrStderr(), spec)
			if printsOnly {
				if err := prints.fit(&spec, cmd.Flags().Changed("quote-socket")); err != nil {
					return err
				}
				return prints.print(ctx, cmd.OutOrStdout(), cmd.ErrOrStderr(), g, spec, cmp.Or(flags.name, "chrysalis"), qemuArgs, asJSON)
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "  machine: %d CPUs, %d MiB, under %s\n", spec.Shape.CPUs, spec.Shape.MemoryMiB, machine.speed(spec.Shape, shape != ""))
			boot := func(ctx context.Context) error { return bootGuest(ctx, cmd, g, spec, wait, asJSON, qemuArgs...) }
			if !foreground {
				if drain != 0 {
					return exitError{exitUsage, errors.New("--drain is for --foreground, and for chrysalis down")}
				}
				return boot(ctx)
			}
			return supervised{
				end: func(ctx context.Context) error {
					following, stop := context.WithCancel(ctx)
					defer stop()
					go keepNumbersShort(following, g, time.Hour) // it ends with following
					return guestEnd(ctx, g)
				},
				boot: func(ctx context.Context) error {
					err := boot(ctx)
					if err == nil {
						notify("READY=1\nSTATUS=serving at " + guestURL(spec))
					}
					return err
				},
				stop: func(ctx context.Context) error {
					notify("STOPPING=1\nSTATUS=answers end")
					return errors.Join(stopGuest(ctx, cmd, g, drain), g.Stop(ctx)) // also one that can't be drained
				},
				say: func(why error, wait time.Duration) {
					notify("STATUS=the guest ended, and is started again")
					fmt.Fprintf(cmd.ErrOrStderr(), "chrysalis: %v: started again in %s\n", why, wait)
				}}.keep(ctx)
		},
	}
	flags.add(cmd)
	cmd.Flags().StringVar(&release, "release", "build/release", "release folder")
	volumes.add(cmd, "", "")
	cmd.Flags().StringVar(&config, "config", "",
		"config as JSON with identity and service; volumes that it does not name are filled in (default: the demo's)")
	machine.add(cmd)
	prints.add(cmd)
	custody.add(cmd)
	settling.add(cmd)
	gpus.add(cmd)
	cmd.Flags().BoolVar(&foreground, "foreground", false, "stay, start the guest again when it ends, and power it off at SIGTERM or SIGINT: for a unit of systemd's")
	cmd.Flags().StringVar(&double, "double", "build/double", "folder of the software TDX, as make image makes it")
	cmd.Flags().StringVar(&shape, "shape", "", "shape.json of the machine (default: the demo's, with KVM where there is one)")
	cmd.Flags().StringVar(&disk, "disk", "", "boot from this disk, of image disk, and not the release's kernel directly (.qcow2 by its "+
		"name, else raw)")
	cmd.Flags().IntVar(&port, "port", 0, "port on this machine (default: the one that the guest had before, or a free one)")
	cmd.Flags().StringVar(&listen, "listen", "", "IPv4 address of this machine, with :PORT or without: on another than loopback's other machines reach the guest (default: 127.0.0.1)")
	cmd.Flags().BoolVar(&noCheck, "no-check", false, "boot although config, volumes and machine do not fit together (chrysalis config check)")
	cmd.Flags().IntVar(&memory, "memory", 0, "MiB of memory (default: the shape's)")
	cmd.Flags().DurationVar(&wait, "wait", guestWait, "how long a boot may take")
	cmd.Flags().DurationVar(&drain, "drain", 0, "with --foreground: how long answers may take to end before the guest is powered off (default: none is waited for)")
	cmd.Flags().StringArrayVar(&qemuArgs, "qemu-arg", nil,
		"argument for QEMU that no guest needs: to see what an attacker's machine looks like to verify")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// bootGuest starts a guest, waits until it serves, and prints where.
func bootGuest(ctx context.Context, cmd *cobra.Command, g guest.Guest, spec guest.Spec, wait time.Duration, asJSON bool, qemuArgs ...string) error {
	if err := g.Start(ctx, spec, qemuArgs...); err != nil {
		return unavailable(err)
	}
	waiting, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	if err := g.Wait(waiting, bootLines(cmd.ErrOrStderr())); err != nil {
		g.Cut() // whoever reads the error has no guest
		return unavailable(fmt.Errorf("booting: %w%s%s", err, endHint(err), qemuHint(g)))
	}
	if err := g.RememberSigners(ctx, spec); err != nil {
		fmt.Fprintf(cmd.ErrOrStderr(), "chrysalis: hint: the guest's claims can't be verified later, its keys did not come: %v\n", err)
	}
	return printUp(cmd.OutOrStdout(), g, spec, asJSON)
}

// keepNumbersShort reads the guest's numbers now and then, which cuts a long file short: of a guest that runs for months nobody else may.
func keepNumbersShort(ctx context.Context, g guest.Guest, every time.Duration) {
	for {
		_, _, _, _ = g.Numbers() // what is wrong with them is for status to say
		select {
		case <-ctx.Done():
			return
		case <-time.After(every):
		}
	}
}

// guestEnd waits for the guest's end, and says why it ended, with what to do about it.
func guestEnd(ctx context.Context, g guest.Guest) error {
	code, err := g.WaitEnd(ctx)
	if err != nil {
		return err
	}
	ended := guest.EndedError{Code: code}
	return fmt.Errorf("%w%s", ended, endHint(ended))
}

// endHint says what to do about an end that the guest has given a code for.
func endHint(err error) string {
	var ended guest.EndedError
	if errors.As(err, &ended) && ended.Code != 0 {
		return "\nchrysalis: hint: " + ended.Code.Hint()
	}
	return ""
}

// qemuHint are the last lines of QEMU's own, and where the guest's folder stays.
func qemuHint(g guest.Guest) string {
	hint := "\nchrysalis: hint: nothing runs any more; what the guest said is in " + g.Dir
	if said := g.LastWords(); said != "" {
		hint = "\nQEMU's last words:\n" + printable(said) + hint
	}
	return hint
}

// bootLines prints the status port's lines as they come.
func bootLines(w io.Writer) func(status.Line) {
	return func(line status.Line) {
		switch {
		case line.Stage != 0:
			printStep(w, line.Stage.String(), line.Uptime)
		case line.Step != 0:
			printStep(w, line.Step.String(), line.Uptime)
		case line.Serving:
			printStep(w, "serving", line.Uptime)
		case line.Event != 0:
			fmt.Fprintf(w, "  boot: %s\n", line.Event)
		default:
			fmt.Fprintf(w, "  boot: %s\n", line)
		}
	}
}

func printStep(w io.Writer, name string, uptime time.Duration) {
	fmt.Fprintf(w, "  boot: %-18s %6d ms\n", name, uptime.Milliseconds())
}

func printUp(w io.Writer, g guest.Guest, spec guest.Spec, asJSON bool) error {
	url := guestURL(spec)
	if asJSON {
		return printJSON(w, map[string]any{"url": url, "dir": g.Dir, "roots": g.Roots(spec.Shape), "shape": spec.Shape})
	}
	_, err := fmt.Fprintf(w, "%s\n", url)
	return err
}

func newDown() *cobra.Command {
	var flags guestFlags
	var forget bool
	var drain time.Duration
	cmd := &cobra.Command{
		Use: "down", Short: "Power a guest off", Args: cobra.NoArgs,
		Example: "  chrysalis down\n  chrysalis down --drain 1m\n  chrysalis down --forget   # and throw its TPM and journal away; its claims stay",
		RunE: func(cmd *cobra.Command, _ []string) error {
			g, err := flags.open()
			if err != nil {
				return err
			}
			if err := stopGuest(cmd.Context(), cmd, g, drain); err != nil {
				return unavailable(err)
			}
			if forget {
				return g.Forget()
			}
			return nil
		},
	}
	flags.add(cmd)
	cmd.Flags().DurationVar(&drain, "drain", 0, "how long answers may take to end; nobody connects any more meanwhile (default: none is waited for)")
	cmd.Flags().BoolVar(&forget, "forget", false, "remove the guest's folder but for the claims that it has handed out (chrysalis claim list shows them): its key is gone for good")
	return cmd
}

// stopGuest powers a guest off, once its answers have ended or enough time has passed.
func stopGuest(ctx context.Context, cmd *cobra.Command, g guest.Guest, drain time.Duration) error {
	if drain > 0 && g.Running() {
		spec, err := g.Spec()
		if err != nil {
			return err
		}
		left, err := g.Drain(ctx, spec, drain)
		if err != nil {
			return err
		}
		if left > 0 {
			fmt.Fprintf(cmd.ErrOrStderr(), "chrysalis: note: %d connections were open still after %s, and are cut\n", left, drain)
		}
	}
	return g.Stop(ctx)
}
