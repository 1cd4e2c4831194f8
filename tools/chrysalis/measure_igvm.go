package main

import (
	"encoding/hex"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"chrysalis/measure/igvm"
)

// igvmReport is measure igvm's JSON. What the file has no guest for is left out.
type igvmReport struct {
	LaunchDigest string `json:"launch_digest,omitempty"`
	Policy       string `json:"policy,omitempty"`          // of SEV-SNP
	Promised     string `json:"id_block_digest,omitempty"` // by the file's ID block
	MRTD         string `json:"mrtd,omitempty"`
	InOrder      bool   `json:"in_order"` // register states are last, where KVM puts them
}

func newMeasureIGVM() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "igvm FILE",
		Short: "Launch digest of SEV-SNP and MRTD of TDX of an IGVM image",
		Long: "Computes what hardware measures of the guest that an Independent Guest Virtual Machine file starts: for SEV-SNP and TDX, as far\n" +
			"as the file has a guest for each, with every directive in the file's order. QEMU measures the register states of SEV-SNP last:\n" +
			"a file in another order is noted. The digest that an ID block promises is compared.",
		Example: "  chrysalis measure igvm coconut-qemu.igvm --json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			image, err := readInput(args[0])
			if err != nil {
				return unavailable(err)
			}
			file, err := igvm.Parse(image)
			if err != nil {
				return unavailable(err)
			}
			r, err := measureIGVM(file)
			if err != nil {
				return unavailable(err)
			}
			if asJSON {
				if err := printJSON(cmd.OutOrStdout(), r); err != nil {
					return unavailable(err)
				}
			} else {
				r.print(cmd.OutOrStdout())
			}
			if r.LaunchDigest != "" && !r.InOrder {
				fmt.Fprintln(cmd.ErrOrStderr(), "chrysalis: note: register states are not last or not where KVM puts them: QEMU measures another digest of this file")
			}
			if r.Promised != "" && r.Promised != r.LaunchDigest {
				return rejected(fmt.Errorf("the file's ID block promises launch digest %s, its pages give %s", r.Promised, r.LaunchDigest))
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func measureIGVM(file *igvm.File) (r igvmReport, err error) {
	for _, p := range file.Platforms() {
		switch p {
		case igvm.SEVSNP:
			digest, err := file.LaunchDigest()
			if err != nil {
				return r, err
			}
			r.LaunchDigest, r.InOrder = hex.EncodeToString(digest[:]), file.InOrder()
			if policy, there := file.Policy(); there {
				r.Policy = fmt.Sprintf("%#x", policy)
			}
			if promised, there := file.Promised(); there {
				r.Promised = hex.EncodeToString(promised[:])
			}
		case igvm.TDX:
			mrtd, err := file.MRTD()
			if err != nil {
				return r, err
			}
			r.MRTD = hex.EncodeToString(mrtd[:])
		}
	}
	if r.LaunchDigest == "" && r.MRTD == "" {
		return r, fmt.Errorf("the file has no guest for SEV-SNP or TDX")
	}
	return r, nil
}

func (r igvmReport) print(w io.Writer) {
	for _, line := range [][2]string{{"launch_digest", r.LaunchDigest}, {"policy", r.Policy}, {"id_block", r.Promised}, {"mrtd", r.MRTD}} {
		if line[1] != "" {
			fmt.Fprintf(w, "%-13s %s\n", line[0], line[1])
		}
	}
}
