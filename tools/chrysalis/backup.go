package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"chrysalis/tools/internal/guest"
)

// meansRestore is what a restored guest is, for people.
const meansRestore = "A restored guest is the guest of the backup's moment, and knows nothing of what came after: it numbers receipts and counts\n" +
	"tokens from there on. Clients who hold later receipts see that it went back, and what it was owed after that moment stands in\n" +
	"receipts and claims that left it, not in it. Two guests of one state sign against each other: run one, and throw the other away."

func newBackup() *cobra.Command {
	var dir, out string
	var asJSON bool
	cmd := &cobra.Command{
		Use: "backup -o FILE", Short: "Save a guest's state: its TPM, journal and claims", Args: cobra.NoArgs,
		Long: "Writes what a guest that is off consists of into one file, each part with its SHA-256: the TPM with the sealed secret, the journal,\n" +
			"what it has signed for its owner. The volumes and the release are not in it. Whoever has the file of a guest on a software TPM\n" +
			"has the guest's keys; that of an SEV-SNP guest opens on its own chip alone.\n\n" + meansRestore,
		Example: "  chrysalis backup -o guest.backup   # of a guest that is off\n  chrysalis backup --dir build/guest-2 -o guest-2.backup --json",
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			g, err := folder(dir)
			if err != nil {
				return err
			}
			f, err := os.OpenFile(out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
			if err != nil {
				return unavailable(err)
			}
			b, err := g.Backup(f, time.Now())
			if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
				return unavailable(errors.Join(err, os.Remove(out)))
			}
			return printBackup(cmd.OutOrStdout(), b, out, asJSON)
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "build/guest", "folder of the guest")
	cmd.Flags().StringVarP(&out, "output", "o", "", "file to write, which must not be there")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	_ = cmd.MarkFlagRequired("output")
	return cmd
}

func newRestore() *cobra.Command {
	var dir string
	var asJSON bool
	cmd := &cobra.Command{
		Use: "restore FILE", Short: "Make a guest's folder of a backup", Args: cobra.ExactArgs(1),
		Long:    "Unpacks a backup into a folder that is not there yet, and checks each part. It is there whole or not at all.\n\n" + meansRestore,
		Example: "  chrysalis restore guest.backup --dir build/guest\n  chrysalis up --dir build/guest",
		RunE: func(cmd *cobra.Command, args []string) error {
			g, err := folder(dir)
			if err != nil {
				return err
			}
			f, err := os.Open(args[0])
			if err != nil {
				return unavailable(err)
			}
			defer f.Close()
			b, err := g.Restore(f)
			if err != nil {
				return rejected(err)
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "chrysalis: note: %s\n", meansRestore)
			return printBackup(cmd.OutOrStdout(), b, g.Dir, asJSON)
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "build/guest", "folder to make")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// folder is a guest that nobody starts.
func folder(dir string) (guest.Guest, error) {
	dir, err := filepath.Abs(dir)
	return guest.Guest{Dir: dir}, err
}

func printBackup(w io.Writer, b guest.Backup, where string, asJSON bool) error {
	if asJSON {
		return printJSON(w, b)
	}
	_, err := fmt.Fprintf(w, "%s: the guest's state of %s, %d files\n", where, b.Made.Format(time.RFC3339), len(b.Files))
	return err
}
