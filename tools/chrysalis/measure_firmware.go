package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path/filepath"

	"github.com/go-json-experiment/json"
	"github.com/spf13/cobra"

	"chrysalis/measure"
	"chrysalis/measure/fault"
	"chrysalis/measure/snp"
	"chrysalis/measure/tdvf"
)

// firmwareReport is measure firmware's JSON.
type firmwareReport struct {
	SHA256 string                 `json:"sha256"`
	TDX    bool                   `json:"tdx"`     // it has TDX metadata
	SEVSNP bool                   `json:"sev_snp"` // it has SEV metadata
	MRTD   string                 `json:"mrtd,omitempty"`
	Build  *measure.FirmwareBuild `json:"build"`            // null where what it does to itself is not known
	Reason string                 `json:"reason,omitempty"` // why not
}

func newMeasureFirmware() *cobra.Command {
	var log, name string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "firmware FILE [--log BOOTLOG]",
		Short: "What a firmware file is for, and the row that PCR 0 is computed from",
		Long: "Says whether a firmware starts guests of TDX or SEV-SNP, and whether its PCR 0 can be computed. OVMF writes into itself before it\n" +
			"measures itself, which can't be read off the file: with --log, a boot log (binary_bios_measurements) of any boot of it on QEMU's\n" +
			"q35, the row is learned by which the file's own bytes hash to the log's digests. The log is believed in nothing else. A build that\n" +
			"notes there what memory and processors it finds has another PCR 0 on each machine, and is named. --json's build goes to\n" +
			"measure vtpm --firmware-build.",
		Example: "  chrysalis measure firmware OVMF_CODE_4M.fd --log binary_bios_measurements --json > build.json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			code, err := readInput(args[0])
			if err != nil {
				return unavailable(err)
			}
			sum := sha256.Sum256(code)
			r := firmwareReport{SHA256: hex.EncodeToString(sum[:])}
			if mrtd, err := tdvf.MRTD(code, tdvf.SinglePass); err == nil {
				r.TDX, r.MRTD = true, hex.EncodeToString(mrtd[:])
			}
			_, err = snp.Sections(code)
			r.SEVSNP = err == nil
			build, err := measure.KnownFirmware(code, nil)
			if err != nil && log != "" {
				events, readErr := readInput(log)
				if readErr != nil {
					return unavailable(readErr)
				}
				if name == "" {
					name = filepath.Base(args[0])
				}
				build, err = measure.LearnFirmware(name, code, events)
			}
			if err != nil {
				r.Reason = err.Error()
			} else {
				r.Build = &build
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), r)
			}
			out := cmd.OutOrStdout()
			fmt.Fprintf(out, "sha256   %s\ntdx      %t\nsev-snp  %t\n", r.SHA256, r.TDX, r.SEVSNP)
			if r.MRTD != "" {
				fmt.Fprintf(out, "mrtd     %s\n", r.MRTD)
			}
			if r.Build != nil {
				fmt.Fprintf(out, "pcr0     computed: %s, version %s, %d words of its own, Secure Boot known: %t\n", printable(r.Build.Name),
					printable(r.Build.Version), len(r.Build.Patches), r.Build.SecureBoot)
				return nil
			}
			fmt.Fprintf(out, "pcr0     not known: %s\n", printable(r.Reason))
			return nil
		},
	}
	cmd.Flags().StringVar(&log, "log", "", "boot log of any boot of it")
	cmd.Flags().StringVar(&name, "name", "", "with --log: the build's name; the file's by default")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// readBuild reads a build that measure firmware --json has written: that, or its member.
func readBuild(file string) (*measure.FirmwareBuild, error) {
	text, err := readInput(file)
	if err != nil {
		return nil, err
	}
	var whole struct {
		Build *measure.FirmwareBuild `json:"build"`
	}
	if err := json.Unmarshal(text, &whole); err != nil {
		return nil, fmt.Errorf("reading %s: %w", file, fault.JSON(err))
	}
	if whole.Build == nil {
		return nil, fmt.Errorf("reading %s: member \"build\" is missing", file)
	}
	return whole.Build, nil
}
