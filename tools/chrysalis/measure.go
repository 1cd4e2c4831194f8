package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"chrysalis/measure"
	"chrysalis/measure/config"
	"chrysalis/measure/register"
)

// maxInputBytes bounds each file that a verb reads whole: the largest is a kernel or firmware.
const maxInputBytes = 64 << 20

func newMeasure() *cobra.Command {
	cmd := &cobra.Command{Use: "measure", Short: "Compute the measurements that a guest must show, from files alone"}
	cmd.AddCommand(newMeasureVTPM(), newMeasureTDX(), newMeasureSNP(), newMeasureUKI(), newMeasureIGVM(), newMeasureFirmware(), newMeasureSecureBoot(), newMeasureConfig())
	return cmd
}

func newMeasureVTPM() *cobra.Command {
	var in vtpmInputs
	var shape shapeFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "vtpm --firmware FILE (--kernel FILE --initrd FILE --cmdline TEXT|@FILE | --disk FILE | --uki FILE) [--shape FILE] [--config FILE]",
		Short: "PCR values of a direct boot, or of a boot from a disk",
		Long: "Computes the SHA-256 PCR values of a boot. PCR 1 holds the tables that QEMU makes for one shape of machine: --shape names its\n" +
			"shape.json, and the tools tree's QEMU is asked for them; without it PCR 1 is missing.\n" +
			"With --disk (a raw disk, of image disk) they are those of a boot from it; its ESP must hold the unified kernel image alone.\n" +
			"With --uki (such an image alone) PCR 5 is missing too: it holds the disk's partition table.\n" +
			"With --config (a config disk, or the measured bytes of one) also PCR 13 and 14 of a guest that serves.",
		Example: "  chrysalis measure vtpm --firmware release/OVMF_CODE.fd --kernel release/vmlinuz --initrd release/initrd --cmdline @release/cmdline \\\n" +
			"    --shape build/guest/shape.json\n" +
			"  chrysalis measure vtpm --firmware release/OVMF_CODE.fd --disk chrysalis.raw --shape shape.json --json > registers.json",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			pcrs, err := in.pcrs()
			if err != nil {
				return unavailable(err)
			}
			if shape.file != "" {
				s, tables, err := shape.tables(cmd.Context())
				if err != nil {
					return unavailable(err)
				}
				if err := isFirmware(s, in.firmware); err != nil {
					return unavailable(err)
				}
				if pcrs[1], err = in.pcr1(s, tables); err != nil {
					return unavailable(err)
				}
			}
			if in.kernel == "" {
				if err := in.sayUnknown(cmd.ErrOrStderr()); err != nil {
					return unavailable(err)
				}
			}
			if asJSON {
				named := map[string]register.Digest{}
				for register, value := range pcrs {
					named[fmt.Sprintf("pcr%d", register)] = value
				}
				return printJSON(cmd.OutOrStdout(), named)
			}
			for _, register := range slices.Sorted(maps.Keys(pcrs)) {
				fmt.Fprintf(cmd.OutOrStdout(), "pcr %-2d %s\n", register, pcrs[register])
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&in.firmware, "firmware", "", "firmware code file")
	flags.StringVar(&in.kernel, "kernel", "", "kernel image")
	flags.StringVar(&in.initrd, "initrd", "", "initrd")
	flags.StringVar(&in.cmdline, "cmdline", "", "kernel command line, or @ and the file that holds exactly it")
	flags.StringVar(&in.disk, "disk", "", "raw boot disk")
	flags.StringVar(&in.uki, "uki", "", "unified kernel image")
	flags.StringVar(&in.build, "firmware-build", "", "what measure firmware --json has learned of the firmware, where it is none of those known")
	flags.IntVar(&in.profile, "profile", 0, "with --disk or --uki: the image's profile that is asked for")
	flags.StringVar(&in.config, "config", "", "config disk or measured bytes")
	shape.add(cmd, "shape.json of the machine, for PCR 1")
	flags.BoolVar(&asJSON, "json", false, "print JSON")
	_ = cmd.MarkFlagRequired("firmware")
	cmd.MarkFlagsRequiredTogether("kernel", "initrd", "cmdline")
	cmd.MarkFlagsOneRequired("kernel", "disk", "uki")
	cmd.MarkFlagsMutuallyExclusive("kernel", "disk", "uki")
	return cmd
}

func newMeasureConfig() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "config FILE", Short: "Digests of a measured config, as each platform carries them", Args: cobra.ExactArgs(1),
		Long:    "FILE is a config disk, or the measured bytes of one.",
		Example: "  chrysalis measure config build/guest/config.disk",
		RunE: func(cmd *cobra.Command, args []string) error {
			measured, err := readMeasured(args[0])
			if err != nil {
				return unavailable(err)
			}
			pcrs, err := measure.ConfigPCRs(measured)
			if err != nil {
				return unavailable(err)
			}
			mrconfigid := config.MRConfigID(measured)
			out := struct {
				MRConfigID string        `json:"mrconfigid"`
				HostData   string        `json:"host_data"`
				PCRs       register.PCRs `json:"pcrs"`
			}{hex.EncodeToString(mrconfigid[:]), config.SHA256(measured).String(), pcrs}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(out)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "mrconfigid %s\nhost_data  %s\npcr 13     %s\npcr 14     %s\n", out.MRConfigID, out.HostData,
				pcrs[13], pcrs[14])
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// readMeasured returns the measured bytes of a config disk, or the file itself when it is no disk.
func readMeasured(name string) ([]byte, error) {
	b, err := readInput(name)
	if err != nil {
		return nil, err
	}
	if measured, _, err := config.ReadDisk(bytes.NewReader(b)); err == nil {
		return measured, nil
	}
	if _, err := config.Decode(b); err != nil {
		return nil, fmt.Errorf("reading %s: neither a config disk nor measured bytes: %w", name, err)
	}
	return b, nil
}

// readInput reads a file of at most maxInputBytes.
func readInput(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxInputBytes+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxInputBytes {
		return nil, fmt.Errorf("reading %s: more than %d bytes", name, maxInputBytes)
	}
	return b, nil
}
