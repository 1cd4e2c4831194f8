package main

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"chrysalis/measure"
	"chrysalis/tools/internal/acpi"
	"chrysalis/tools/internal/guest"
	"chrysalis/tools/internal/toolstree"
)

// shapeFlags name a shape of machine, and the tools tree whose QEMU makes its tables.
type shapeFlags struct{ file, tree string }

func (f *shapeFlags) add(cmd *cobra.Command, usage string) {
	cmd.Flags().StringVar(&f.file, "shape", "", usage)
	cmd.Flags().StringVar(&f.tree, "tools-tree", "build/tools-tree", "tools tree with QEMU, for --shape")
}

// tables reads the shape and asks QEMU for its tables. Answers are kept beside the tools tree.
func (f *shapeFlags) tables(ctx context.Context) (measure.Shape, measure.Tables, error) {
	s, err := guest.ReadShape(f.file)
	if err != nil {
		return s, measure.Tables{}, err
	}
	return f.ask(ctx, s)
}

// tdx puts the shape, as QEMU makes it for TDX, and its tables into boot.
func (f *shapeFlags) tdx(ctx context.Context, boot *measure.TDXBoot, firmware string) error {
	s, err := guest.ReadShape(f.file)
	if err != nil {
		return err
	}
	if err := isFirmware(s, firmware); err != nil {
		return err
	}
	s, tables, err := f.ask(ctx, s.TDX())
	boot.Shape, boot.Tables = &s, tables
	return err
}

func (f *shapeFlags) ask(ctx context.Context, s measure.Shape) (measure.Shape, measure.Tables, error) {
	tree, err := toolstree.Open(f.tree)
	if err != nil {
		return s, measure.Tables{}, fmt.Errorf("%w (build it with: chrysalis image build)", err)
	}
	tables, err := acpi.Cached(ctx, tree, s, filepath.Join(filepath.Dir(tree.Path(".")), "cache", "acpi"))
	return s, tables, err
}

// isFirmware checks that the file is the shape's firmware, by its content.
func isFirmware(s measure.Shape, file string) error {
	got, err := guest.FirmwareFile(file)
	if err == nil && (got.Size != s.Firmware.Size || got.SHA256 != s.Firmware.SHA256) {
		err = fmt.Errorf("firmware %s has %d bytes and SHA-256 %s, want the shape's %d and %s", file, got.Size, got.SHA256, s.Firmware.Size, s.Firmware.SHA256)
	}
	return err
}
