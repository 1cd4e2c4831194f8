package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"chrysalis/measure"
	"chrysalis/tools/internal/image"
)

func newImageSizes() *cobra.Command {
	var release string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "sizes [--release DIR]",
		Short: "Print the sizes of a release's files, to be recorded in image/sizes",
		Long: "Prints the bytes of each file of a release folder in the form of image/sizes. A build says when a file is more than 5 % larger than\n" +
			"recorded there, and a test fails then. To want the change is to record it.",
		Example: "  chrysalis image sizes > image/sizes && git diff image/sizes",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			files, err := image.ReleaseFiles(release)
			if err != nil {
				return unavailable(err)
			}
			if asJSON {
				sizes := map[string]int64{}
				for _, f := range files {
					sizes[f.Name] = f.Size
				}
				return printJSON(cmd.OutOrStdout(), sizes)
			}
			_, err = fmt.Fprint(cmd.OutOrStdout(), image.FormatSizes(files))
			return err
		},
	}
	cmd.Flags().StringVar(&release, "release", "build/release", "release folder")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// noteSizes says which files of a new release are larger than the source tree allows, and what to do about it.
func noteSizes(w io.Writer, source string, files []measure.File) error {
	grown, err := image.CheckSizes(source, files)
	if err != nil {
		return err
	}
	for _, line := range grown {
		fmt.Fprintf(w, "chrysalis: note: %s\n", line)
	}
	if len(grown) > 0 {
		fmt.Fprintf(w, "chrysalis: hint: a test fails over this; if it is wanted, record it with: chrysalis image sizes > %s\n", image.SizesFile)
	}
	return nil
}
