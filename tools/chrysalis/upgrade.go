package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"chrysalis/init/status"
	"chrysalis/tools/internal/guest"
)

func newUpgrade() *cobra.Command {
	var flags guestFlags
	var release, list string
	var wait, drain time.Duration
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "upgrade --release DIR --list FILE",
		Short: "Go on with another release: with the same keys, and with the count where it is",
		Long: "Lets the guest's answers end, stops it, boots its release once more to have it hand the secret to the new one, and starts the new one over the same TPM and\n" +
			"journal. The guest's own rule decides: the list must name the release with a higher security version, and enough of the keys that\n" +
			"are in the running release must have signed it. What can't pass is refused before the guest stops. Once the secret is handed over the old\n" +
			"release can't have it any more; until then it has it. A run that was cut short, at whatever point, is run again.",
		Example: "  chrysalis upgrade --release build/release-2 --list releases.json\n" +
			"  chrysalis policy --manifest build/release-2/manifest.json --held-by build/release/manifest.json -o policy.json   # for clients",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
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
			signed, err := readInput(list)
			if err != nil {
				return unavailable(err)
			}
			say := func(step int, what string) {
				fmt.Fprintf(cmd.ErrOrStderr(), "  %d of 4: %s\n", step, what)
			}
			say(1, "judge the release")
			next := spec
			next.Release = release
			if next.Shape.Firmware, err = guest.FirmwareFile(filepath.Join(release, spec.Shape.Firmware.Name)); err != nil {
				return unavailable(err)
			}
			successor, err := guest.SuccessorOf(spec, release, signed)
			if err != nil {
				return rejected(err)
			}
			say(2, "let answers end, and stop the guest")
			if err := stopGuest(ctx, cmd, g, drain); err != nil {
				return unavailable(err)
			}
			if !successor.Same {
				say(3, "boot the old release, which hands the secret over and ends")
				if err := handOver(ctx, cmd, g, spec, successor, wait); err != nil {
					return err
				}
			}
			say(4, "boot the new release")
			return bootGuest(cmd.Context(), cmd, g, next, wait, asJSON)
		},
	}
	flags.add(cmd)
	cmd.Flags().StringVar(&release, "release", "", "release folder to go on with")
	cmd.Flags().StringVar(&list, "list", "", "signed release list that names it (chrysalis release list)")
	cmd.Flags().DurationVar(&drain, "drain", 30*time.Second, "how long answers may take to end; nobody connects any more meanwhile")
	cmd.Flags().DurationVar(&wait, "wait", 3*time.Minute, "how long each boot may take")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	_ = cmd.MarkFlagRequired("release")
	_ = cmd.MarkFlagRequired("list")
	return cmd
}

// handOver boots the guest as it was, to hand its secret over. A guest that has none any more did so in an earlier run; whether to this
// successor, the successor's boot says.
func handOver(ctx context.Context, cmd *cobra.Command, g guest.Guest, spec guest.Spec, to guest.Successor, wait time.Duration) error {
	spec.Handover = to.Ask
	if err := g.Start(ctx, spec); err != nil {
		return unavailable(err)
	}
	waiting, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	code, err := g.WaitEnd(waiting)
	if err != nil {
		return unavailable(errors.Join(err, g.Stop(context.WithoutCancel(ctx))))
	}
	switch code {
	case status.HandedOver:
	case status.UnsealRefused:
		fmt.Fprintln(cmd.ErrOrStderr(), "chrysalis: note: the old release has no secret any more: an earlier run handed it over")
	default:
		err := guest.EndedError{Code: code}
		return unavailable(fmt.Errorf("handing the secret over: %w%s\nchrysalis: hint: the old release still has it: chrysalis up --release %s --dir %s", err,
			endHint(err), spec.Release, g.Dir))
	}
	return nil
}
