package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"chrysalis/tools/internal/image"
	"chrysalis/tools/internal/lock"
)

func newImageLock() *cobra.Command {
	var check, asJSON bool
	cmd := &cobra.Command{
		Use:   "lock [--check]",
		Short: "Resolve the locks anew in today's archives, and write them or say what would change",
		Long: `Resolve the request in the header of each lock in today's archives, check the archives' signatures, and write the
locks. To add a package, add it to the request first. The mirror is that of the machine's apt sources or of DEBIAN_MIRROR
and DEBIAN_SECURITY_MIRROR.

With --check nothing is written: the difference is shown by package, with old and new version, download size, and the security
advisories that the new version's changelog names, or why it can't be read. Exit code 0: the locks are today's. 1: they are not.`,
		Example: "  chrysalis image lock && git diff --stat image/\n  chrysalis image lock --check --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := newBuilder(cmd)
			if err != nil {
				return unavailable(err)
			}
			if !check {
				if asJSON {
					return errors.New("--json goes with --check")
				}
				if err := b.WriteLocks(cmd.Context()); err != nil {
					return unavailable(err)
				}
				return nil
			}
			diffs, err := b.CheckLocks(cmd.Context(), image.LockNames...)
			if err != nil {
				return unavailable(err)
			}
			return printLockCheck(cmd.OutOrStdout(), diffs, asJSON)
		},
	}
	cmd.Flags().BoolVar(&check, "check", false, "write nothing, show what would change")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON (with --check)")
	return cmd
}

func printLockCheck(w io.Writer, diffs []lock.Diff, asJSON bool) error {
	changed := 0
	for _, d := range diffs {
		changed += len(d.Packages)
	}
	if asJSON {
		verdict := "same"
		if changed > 0 {
			verdict = "different"
		}
		if err := printJSON(w, struct {
			Verdict string      `json:"verdict"`
			Locks   []lock.Diff `json:"locks"`
		}{verdict, diffs}); err != nil {
			return unavailable(err)
		}
	} else {
		for _, d := range diffs {
			printLockDiff(w, d)
		}
	}
	if changed > 0 {
		return rejected(fmt.Errorf("%d locked packages are not today's", changed))
	}
	return nil
}

func printLockDiff(w io.Writer, d lock.Diff) {
	var bytes int64
	for _, p := range d.Packages {
		bytes += p.NewSize
	}
	fmt.Fprintf(w, "%s.lock: %d packages differ, %.1f MB to download\n", d.Lock, len(d.Packages), float64(bytes)/1e6)
	for _, a := range d.Archives {
		fmt.Fprintf(w, "  index of %s %s: %s -> %s\n", a.Archive, a.Suite, cmp.Or(a.Old, "none"), cmp.Or(a.New, "none"))
	}
	for _, p := range d.Packages {
		// Versions and advisories come out of the archive, changelog errors from anywhere.
		line := fmt.Sprintf("  %s %s -> %s, %.2f MB -> %.2f MB", p.Name, cmp.Or(p.Old, "none"), cmp.Or(p.New, "none"), float64(p.OldSize)/1e6,
			float64(p.NewSize)/1e6)
		switch {
		case len(p.Advisories) > 0:
			line += ": " + strings.Join(p.Advisories, " ") + " (" + p.News + ")"
		case strings.HasPrefix(p.News, "changelog"):
			line += ": no advisory named (" + p.News + ")"
		default:
			line += ": " + p.News
		}
		fmt.Fprintln(w, printable(line))
	}
}
