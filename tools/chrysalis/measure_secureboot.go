package main

import (
	"encoding/pem"
	"fmt"

	"github.com/spf13/cobra"

	"chrysalis/measure"
	"chrysalis/measure/varstore"
)

func newMeasureSecureBoot() *cobra.Command {
	var vars, state string
	var verified []string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "secure-boot --vars FILE [--secure-boot on|off|none] [--verified-by CERT]...",
		Short: "PCR 7 of a variable store with keys, db and dbx",
		Long: "Computes PCR 7 from the Secure Boot variables of a variable store (OVMF_VARS.fd). --secure-boot says what the firmware does with\n" +
			"them: on enforces, off could, and none is a build that does not know Secure Boot; by default what a build with Secure Boot takes\n" +
			"from the store. Where it enforces, each certificate of db by which an image was verified is measured once: --verified-by names it\n" +
			"(PEM or DER), in the order of the boot.",
		Example: "  chrysalis measure secure-boot --vars OVMF_VARS_4M.ms.fd\n" +
			"  chrysalis measure secure-boot --vars vars.fd --verified-by db.pem --json",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			file, err := readInput(vars)
			if err != nil {
				return unavailable(err)
			}
			variables, err := varstore.Parse(file)
			if err != nil {
				return unavailable(err)
			}
			boot := measure.SecureBoot{Variables: variables}
			switch state {
			case "":
				boot.State = measure.Enforced(variables)
			case "on":
				boot.State = []byte{1}
			case "off":
				boot.State = []byte{0}
			case "none":
			default:
				return exitError{exitUsage, fmt.Errorf("--secure-boot %q: want on, off or none", state)}
			}
			for _, name := range verified {
				certificate, err := readInput(name)
				if err != nil {
					return unavailable(err)
				}
				if block, _ := pem.Decode(certificate); block != nil {
					certificate = block.Bytes
				}
				boot.Verified = append(boot.Verified, certificate)
			}
			pcr, err := boot.PCR7()
			if err != nil {
				return unavailable(err)
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), map[string]string{"pcr7": pcr.String()})
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "pcr7 %s\n", pcr)
			if len(boot.State) == 1 && boot.State[0] == 1 && len(verified) == 0 {
				fmt.Fprintln(cmd.ErrOrStderr(), "chrysalis: note: Secure Boot is on: whatever image it verifies adds the certificate in db by which it does (--verified-by)")
			}
			return err
		},
	}
	cmd.Flags().StringVar(&vars, "vars", "", "variable store")
	cmd.Flags().StringVar(&state, "secure-boot", "", "on, off or none")
	cmd.Flags().StringArrayVar(&verified, "verified-by", nil, "certificate in db that verified an image")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	_ = cmd.MarkFlagRequired("vars")
	return cmd
}
