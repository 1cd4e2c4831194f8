package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"chrysalis/measure"
	"chrysalis/measure/cocoon"
	"chrysalis/measure/config"
	"chrysalis/measure/eventlog"
	"chrysalis/measure/register"
	"chrysalis/measure/snp"
	"chrysalis/measure/tdvf"
	"chrysalis/tools/internal/guest"
)

// bootFlags name the files of a direct boot.
type bootFlags struct{ firmware, kernel, initrd, cmdline string }

func (f *bootFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.firmware, "firmware", "", "whole firmware image")
	cmd.Flags().StringVar(&f.kernel, "kernel", "", "kernel image, for a direct boot")
	cmd.Flags().StringVar(&f.initrd, "initrd", "", "initrd, with --kernel")
	cmd.Flags().StringVar(&f.cmdline, "cmdline", "", "kernel command line, or @ and the file that holds exactly it")
	_ = cmd.MarkFlagRequired("firmware")
	cmd.MarkFlagsRequiredTogether("kernel", "initrd")
}

// line returns the command line, out of its file where a file is named.
func (f *bootFlags) line() (string, error) {
	if name, ok := strings.CutPrefix(f.cmdline, "@"); ok {
		text, err := readInput(name)
		return string(text), err
	}
	return f.cmdline, nil
}

func newMeasureTDX() *cobra.Command {
	var files bootFlags
	var shape shapeFlags
	var served servedFlags
	var order string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "tdx --firmware FILE [--kernel FILE --initrd FILE --cmdline TEXT|@FILE] [--shape FILE] [--config FILE | --spec-tree HEX]",
		Short: "MRTD of a TDX guest, with a shape RTMR0, with a kernel RTMR1 and RTMR2, with a config RTMR3",
		Long: "MRTD needs the firmware image alone. RTMR0 holds the machine's memory, settings and ACPI tables: --shape names its\n" +
			"shape.json, and a QEMU of its version, in or beside the tools tree, is asked for them. RTMR1 and RTMR2 are those of a\n" +
			"direct boot, with QEMU 10.0 or newer where no shape says another. --config (a config disk, or the measured bytes of one) gives MRCONFIGID and\n" +
			"the RTMR3 of a guest that serves (zeros and the reference's, where the config says identity.cocoon); --spec-tree those of a guest of\n" +
			"COCOON's reference, from the id of its configuration's tree. With all registers\n" +
			"image_hash is the hash by which COCOON's root contract lists images, with no owner of the TD.",
		Example: "  chrysalis measure tdx --firmware OVMF.inteltdx.fd --json\n  chrysalis measure tdx --firmware OVMF.fd --page-order two-pass\n" +
			"  chrysalis measure tdx --firmware OVMF.inteltdx.fd --kernel vmlinuz --initrd initrd --cmdline @cmdline --shape shape.json --json",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			boot := measure.TDXBoot{Order: tdvf.Order(order)}
			var err error
			if boot.Firmware, err = readInput(files.firmware); err != nil {
				return unavailable(err)
			}
			if shape.file != "" {
				if err := shape.tdx(cmd.Context(), &boot, files.firmware); err != nil {
					return unavailable(err)
				}
			}
			if files.kernel != "" {
				if boot.Kernel, err = readInput(files.kernel); err != nil {
					return unavailable(err)
				}
				if boot.Cmdline, err = files.line(); err != nil {
					return unavailable(err)
				}
				initrd, err := os.Open(files.initrd)
				if err != nil {
					return unavailable(err)
				}
				defer initrd.Close()
				boot.Initrd = initrd
			}
			registers, err := boot.Registers()
			if err != nil {
				return unavailable(err)
			}
			all, err := served.of(registers)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), all)
			}
			return printRegisters(cmd.OutOrStdout(), all)
		},
	}
	files.add(cmd)
	shape.add(cmd, "shape.json of the machine, for RTMR0")
	served.add(cmd)
	cmd.Flags().StringVar(&order, "page-order", string(tdvf.SinglePass),
		"single-pass (upstream KVM and QEMU) or two-pass (QEMU 8.2 of Ubuntu 24.04)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// servedFlags say what a guest extends and carries besides its boot.
type servedFlags struct{ config, tree string }

func (f *servedFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.config, "config", "", "config disk or measured bytes, for MRCONFIGID and RTMR3")
	cmd.Flags().StringVar(&f.tree, "spec-tree", "", "64 hexadecimal digits: RTMR3 as COCOON's reference has it, and no MRCONFIGID")
	cmd.MarkFlagsMutuallyExclusive("config", "spec-tree")
}

// tdRegisters are those of a TD that serves, as far as they are known.
type tdRegisters struct {
	measure.TDXRegisters
	RTMR3      *register.Digest384 `json:"rtmr3,omitempty"`
	MRConfigID *register.Digest384 `json:"mr_config_id,omitempty"`
	ImageHash  *register.Digest    `json:"image_hash,omitempty"`
}

// of adds what the flags say to the registers of a boot.
func (f *servedFlags) of(boot measure.TDXRegisters) (r tdRegisters, err error) {
	r.TDXRegisters = boot
	switch {
	case f.config != "":
		measured, err := readMeasured(f.config)
		if err != nil {
			return r, unavailable(err)
		}
		sequence, err := eventlog.SequenceOf(measured)
		if err != nil {
			return r, unavailable(err)
		}
		rtmr3 := register.Digest384(eventlog.Replay384(sequence.Records(eventlog.InRTMR), eventlog.RTMR3))
		if config.IsCocoon(measured) {
			rtmr3 = cocoon.RTMR3(cocoon.NoTree())
		}
		id := register.Digest384(config.MRConfigID(measured))
		r.RTMR3, r.MRConfigID = &rtmr3, &id
	case f.tree != "":
		var tree register.Digest
		if err := tree.UnmarshalText([]byte(f.tree)); err != nil {
			return r, exitError{exitUsage, fmt.Errorf("--spec-tree: %v", err)}
		}
		rtmr3 := register.Digest384(cocoon.RTMR3(tree))
		r.RTMR3, r.MRConfigID = &rtmr3, new(register.Digest384)
	}
	if r.RTMR0 != nil && r.RTMR1 != nil && r.RTMR2 != nil && r.RTMR3 != nil {
		hash := cocoon.TD{MRTD: r.MRTD, MRConfigID: *r.MRConfigID, RTMR: [4][48]byte{*r.RTMR0, *r.RTMR1, *r.RTMR2, *r.RTMR3}}.ImageHash()
		r.ImageHash = &hash
	}
	return r, nil
}

func printRegisters(w io.Writer, r tdRegisters) error {
	for _, line := range []struct {
		name  string
		value *register.Digest384
	}{{"mrtd", &r.MRTD}, {"rtmr0", r.RTMR0}, {"rtmr1", r.RTMR1}, {"rtmr2", r.RTMR2}, {"rtmr3", r.RTMR3}, {"mr_config_id", r.MRConfigID}} {
		if line.value == nil {
			continue
		}
		if _, err := fmt.Fprintf(w, "%-5s %s\n", line.name, *line.value); err != nil {
			return err
		}
	}
	if r.ImageHash != nil {
		_, err := fmt.Fprintf(w, "image_hash %s\n", *r.ImageHash)
		return err
	}
	return nil
}

func newMeasureSNP() *cobra.Command {
	var files bootFlags
	var machine launchFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "sev-snp --firmware FILE --shape FILE|--vcpus N --vcpu-type TYPE|--sig HEX|--vmm ec2|gce --guest-features HEX [--kernel FILE --initrd FILE --cmdline TEXT|@FILE]",
		Short: "Launch digest of an SEV-SNP guest",
		Long: "The digest covers the firmware, the pages that its metadata asks for and the first state of each vCPU, as QEMU makes them,\n" +
			"or with --vmm Amazon's EC2 or Google's Compute Engine, which show no vCPU type in it. --shape names the machine's\n" +
			"shape.json instead. With a kernel also the page of kernel hashes (kernel-hashes=on), which the firmware must have.\n" +
			"image_hash is the hash by which COCOON's root contract lists images: it follows from the digest alone, whatever the config.",
		Example: "  chrysalis measure sev-snp --firmware OVMF.amdsev.fd --shape shape.json --kernel vmlinuz --initrd initrd --cmdline @cmdline --json\n" +
			"  chrysalis measure sev-snp --firmware OVMF.amdsev.fd --vcpus 4 --vcpu-type EPYC-v4 --guest-features 1 \\\n" +
			"    --kernel vmlinuz --initrd initrd --cmdline @cmdline --json",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			launch, err := machine.launch(files.firmware)
			if err != nil {
				return err
			}
			if launch.Firmware, err = readInput(files.firmware); err != nil {
				return unavailable(err)
			}
			if files.kernel != "" {
				launch.Kernel = &snp.Kernel{}
				if launch.Kernel.Kernel, err = readInput(files.kernel); err != nil {
					return unavailable(err)
				}
				if launch.Kernel.Initrd, err = readInput(files.initrd); err != nil {
					return unavailable(err)
				}
				if launch.Kernel.Cmdline, err = files.line(); err != nil {
					return unavailable(err)
				}
			}
			digest, err := snp.Digest(launch)
			if err != nil {
				return unavailable(err)
			}
			image := cocoon.SNPImageHash(digest)
			if asJSON {
				return printJSON(cmd.OutOrStdout(), map[string]string{"launch_digest": hex.EncodeToString(digest[:]), "image_hash": image.String()})
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "launch_digest %x\nimage_hash %s\n", digest, image)
			return err
		},
	}
	files.add(cmd)
	machine.add(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// launchFlags say which machine starts the guest: by a shape, or by what of it the launch digest covers.
type launchFlags struct {
	shape                             string
	vcpus                             int
	cpuType, signature, features, vmm string
}

func (f *launchFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.shape, "shape", "", "shape.json of the machine, in the place of the flags that follow")
	flags.IntVar(&f.vcpus, "vcpus", 1, "number of vCPUs")
	flags.StringVar(&f.cpuType, "vcpu-type", "", "QEMU's vCPU type: "+strings.Join(snp.CPUTypes(), ", "))
	flags.StringVar(&f.signature, "sig", "", "CPUID signature of the vCPU in hexadecimal, instead of --vcpu-type")
	flags.StringVar(&f.features, "guest-features", "1", "SEV_FEATURES of each vCPU in hexadecimal")
	flags.StringVar(&f.vmm, "vmm", string(snp.QEMU), "who starts the guest: qemu, ec2 or gce")
	cmd.MarkFlagsMutuallyExclusive("vcpu-type", "sig")
	for _, name := range []string{"vcpus", "vcpu-type", "sig", "guest-features", "vmm"} {
		cmd.MarkFlagsMutuallyExclusive("shape", name)
	}
}

// launch returns what the flags say of the machine, which starts the firmware in a file.
func (f *launchFlags) launch(firmware string) (l snp.Launch, err error) {
	if f.shape != "" {
		s, err := guest.ReadShape(f.shape)
		if err == nil {
			err = isFirmware(s, firmware)
		}
		if err == nil {
			l, err = s.SNPLaunch(nil, nil)
		}
		if err != nil {
			return l, unavailable(fmt.Errorf("--shape: %w", err))
		}
		return l, nil
	}
	l = snp.Launch{VCPUs: f.vcpus, VMM: snp.VMM(f.vmm)}
	if !slices.Contains(snp.VMMs(), l.VMM) {
		return l, exitError{exitUsage, fmt.Errorf("--vmm %q: want one of %q", f.vmm, snp.VMMs())}
	}
	if qemu, given := l.VMM == snp.QEMU, f.cpuType != "" || f.signature != ""; qemu != given {
		return l, exitError{exitUsage, errors.New("want --shape, --vcpu-type or --sig with QEMU, and none of them with another --vmm, which shows no vCPU type in the digest")}
	}
	if l.VMM == snp.QEMU {
		if l.Signature, err = cpuSignature(f.cpuType, f.signature); err != nil {
			return l, exitError{exitUsage, err}
		}
	}
	if l.GuestFeatures, err = strconv.ParseUint(strings.TrimPrefix(f.features, "0x"), 16, 64); err != nil {
		return l, exitError{exitUsage, fmt.Errorf("--guest-features: %w", err)}
	}
	return l, nil
}

func cpuSignature(cpuType, signature string) (uint32, error) {
	if signature == "" {
		return snp.CPUSignature(cpuType)
	}
	n, err := strconv.ParseUint(strings.TrimPrefix(signature, "0x"), 16, 32)
	if err != nil {
		return 0, fmt.Errorf("--sig: %w", err)
	}
	return uint32(n), nil
}
