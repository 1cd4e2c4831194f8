package main

import (
	"encoding/hex"
	"fmt"

	"github.com/spf13/cobra"

	"chrysalis/tools/internal/image"
	"chrysalis/tools/internal/toolstree"
)

func newImageDisk() *cobra.Command {
	var release, out, format, tree string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "disk --out FILE [--release DIR] [--format raw|qcow2]",
		Short: "Make a disk that boots a release by itself, for clouds",
		Long: "Writes a GPT disk with the release's kernel, initrd and command line as one unified kernel image in its ESP, and the release's\n" +
			"root in a second partition. The same release and tools tree give the same bytes. Its registers are computed by\n" +
			"measure vtpm --disk, and differ from those of a direct boot in PCR 4, 5, 9 and 11.",
		Example: "  chrysalis image disk --out chrysalis.raw\n  chrysalis image disk --release published --out chrysalis.qcow2 --format qcow2 --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			tools, err := toolstree.Open(tree)
			if err != nil {
				return unavailable(fmt.Errorf("%w (build it with: chrysalis image tools)", err))
			}
			if format != image.DiskRaw && format != image.DiskQCOW2 {
				return exitError{exitUsage, fmt.Errorf("--format is %q, want %s or %s", format, image.DiskRaw, image.DiskQCOW2)}
			}
			disk, err := image.WriteDisk(cmd.Context(), tools, release, out, format)
			if err != nil {
				return unavailable(err)
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), map[string]any{"file": out, "format": format, "bytes": disk.Bytes,
					"sha256": hex.EncodeToString(disk.SHA256[:]), "uki": hex.EncodeToString(disk.UKI[:])})
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s\n  raw disk  %d bytes, SHA-256 %x\n  image     SHA-256 %x\n", out, disk.Bytes, disk.SHA256, disk.UKI)
			return nil
		},
	}
	cmd.Flags().StringVar(&release, "release", "build/release", "release folder")
	cmd.Flags().StringVar(&out, "out", "", "file to write")
	cmd.Flags().StringVar(&format, "format", image.DiskRaw, "raw or qcow2")
	cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{image.DiskRaw, image.DiskQCOW2}, cobra.ShellCompDirectiveNoFileComp))
	cmd.Flags().StringVar(&tree, "tools-tree", "build/tools-tree", "tools tree with systemd's stub, mtools and qemu-img")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	_ = cmd.MarkFlagRequired("out")
	return cmd
}
