package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"chrysalis/tools/internal/image"
)

func newImageModules() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "modules",
		Short: "Print the Go modules of each program of the guest, to be recorded in image/modules",
		Long: "Asks the go command, without building anything, which modules in which versions each program of the guest is built of, and prints\n" +
			"them in the form of image/modules. A test compares that file with this and with what the built programs say.",
		Example: "  chrysalis image modules > image/modules && git diff image/modules",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, err := newBuilder(cmd)
			if err != nil {
				return unavailable(err)
			}
			uses, err := b.Modules(cmd.Context())
			if err != nil {
				return unavailable(err)
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), uses)
			}
			_, err = fmt.Fprint(cmd.OutOrStdout(), image.FormatModules(uses))
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
