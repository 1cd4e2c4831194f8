package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"chrysalis/tools/internal/guest"
)

func newStatus() *cobra.Command {
	var flags guestFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use: "status", Short: "Say what a guest on this machine does", Args: cobra.NoArgs,
		Long: "Reads the guest's status port, which says how far its boot came and why it ended. It is the host's view: it proves\n" +
			"nothing, verify does.",
		Example: "  chrysalis status\n  chrysalis status --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			g, err := flags.open()
			if err != nil {
				return err
			}
			spec, err := g.Spec()
			if errors.Is(err, os.ErrNotExist) {
				return unavailable(fmt.Errorf("no guest in %s (start one with: chrysalis up)", g.Dir))
			}
			if err != nil {
				return unavailable(err)
			}
			state, lines, err := g.State()
			if err != nil {
				return unavailable(err)
			}
			w := cmd.OutOrStdout()
			said := []string{}
			for _, line := range lines {
				said = append(said, line.String())
			}
			if asJSON {
				about := map[string]any{"state": state, "url": guestURL(spec), "dir": g.Dir, "model": spec.Config.Service.Model.Name, "lines": said,
					"custodian": spec.Config.Service.Custodian}
				if spec.Custodian != "" {
					about["borrows_from"] = spec.Custodian
				}
				return printJSON(w, about)
			}
			fmt.Fprintf(w, "%-8s %s\n%-8s %s\n", "state", state, "url", guestURL(spec))
			switch {
			case spec.Config.Service.Custodian:
				fmt.Fprintf(w, "%-8s %s\n", "serves", "as custodian")
			default:
				fmt.Fprintf(w, "%-8s %s\n", "model", spec.Config.Service.Model.Name)
			}
			if spec.Custodian != "" {
				fmt.Fprintf(w, "%-8s borrowed from %s (which loan it is, verify says)\n", "secret", spec.Custodian)
			}
			for _, line := range said {
				fmt.Fprintf(w, "%-8s %s\n", "port", line)
			}
			if n := len(lines); n > 0 && lines[n-1].Code != 0 {
				fmt.Fprintf(cmd.ErrOrStderr(), "chrysalis: hint: %s\n", lines[n-1].Code.Hint())
			}
			return nil
		},
	}
	flags.add(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func guestURL(spec guest.Spec) string { return fmt.Sprintf("https://127.0.0.1:%d", spec.Port) }
