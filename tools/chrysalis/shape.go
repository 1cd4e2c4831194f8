package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"chrysalis/attest"
	"chrysalis/attest/release"
	"chrysalis/measure"
	"chrysalis/measure/register"
	"chrysalis/measure/snp"
	"chrysalis/measure/tdvf"
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
	tables, err := tablesOf(ctx, s, f.tree)
	return s, tables, err
}

// tdx puts the shape, as QEMU makes it for TDX, and its tables into boot.
func (f *shapeFlags) tdx(ctx context.Context, boot *measure.TDXBoot, firmware string) error {
	s, err := guest.ReadShape(f.file)
	if err != nil {
		return err
	}
	return tdxMachine(ctx, s, f.tree, boot, firmware)
}

// tdxMachine puts the shape, as QEMU makes it for TDX, and its tables into boot.
func tdxMachine(ctx context.Context, s measure.Shape, tree string, boot *measure.TDXBoot, firmware string) error {
	if err := isFirmware(s, firmware); err != nil {
		return err
	}
	s = s.TDX()
	tables, err := tablesOf(ctx, s, tree)
	boot.Shape, boot.Tables = &s, tables
	return err
}

// tablesOf asks the QEMU of the tools tree for the shape's tables.
func tablesOf(ctx context.Context, s measure.Shape, dir string) (measure.Tables, error) {
	tree, err := toolstree.Open(dir)
	if err != nil {
		return measure.Tables{}, fmt.Errorf("%w (build it with: chrysalis image build)", err)
	}
	return acpi.Cached(ctx, tree, s, filepath.Join(filepath.Dir(tree.Path(".")), "cache", "acpi"))
}

// tdxFirmware is the release's firmware for TDX guests.
const tdxFirmware = "OVMF.inteltdx.fd"

// pinShape lets the rules accept the release, which lies in dir, on machines of one more shape.
func pinShape(ctx context.Context, rules *attest.Rules, release measure.Manifest, dir string, s measure.Shape, tree string) error {
	if firmware, err := release.File(s.Firmware.Name); err != nil || firmware != s.Firmware {
		return rejected(fmt.Errorf("shape's firmware is %s (SHA-256 %s), want one of the release's (SHA-256 %s)", s.Firmware.Name, s.Firmware.SHA256, firmware.SHA256))
	}
	entry := &rules.Releases[0]
	if s.Platform == measure.SEVSNP {
		digest, err := snpDigest(release, dir, s)
		if err != nil {
			return unavailable(err)
		}
		entry.SEVSNP = append(entry.SEVSNP, digest)
		return nil
	}
	if s.Firmware.Name == tdxFirmware {
		values, err := tdxValues(ctx, release, dir, s, tree)
		if err != nil {
			return unavailable(err)
		}
		entry.TDX = append(entry.TDX, values)
		return nil
	}
	tables, err := tablesOf(ctx, s, tree)
	if err != nil {
		return unavailable(err)
	}
	pcr1, err := tables.PCR1()
	if err != nil {
		return unavailable(err)
	}
	entry.VTPM = append(entry.VTPM, release.PCRs.With(register.PCRs{1: pcr1}))
	if !slices.Contains(rules.Waive, "confidentiality") {
		rules.Waive = append(rules.Waive, "confidentiality")
	}
	return nil
}

// bootFiles reads the files of a direct boot over the firmware, which must be those of the manifest.
func bootFiles(manifest measure.Manifest, dir, firmware string) (map[string][]byte, error) {
	files := map[string][]byte{firmware: nil, "vmlinuz": nil, "initrd": nil, "cmdline": nil}
	for name := range files {
		want, err := manifest.File(name)
		if err != nil {
			return nil, err
		}
		data, err := readInput(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		if sum := sha256.Sum256(data); sum != want.SHA256 {
			return nil, fmt.Errorf("%s has SHA-256 %x, want the manifest's %s", name, sum, want.SHA256)
		}
		files[name] = data
	}
	return files, nil
}

// snpDigest computes the launch digest of an SEV-SNP guest of the shape from the release's files.
func snpDigest(manifest measure.Manifest, dir string, s measure.Shape) (register.Digest384, error) {
	files, err := bootFiles(manifest, dir, s.Firmware.Name)
	if err != nil {
		return register.Digest384{}, err
	}
	launch, err := s.SNPLaunch(files[s.Firmware.Name], &snp.Kernel{Kernel: files["vmlinuz"], Initrd: files["initrd"], Cmdline: string(files["cmdline"])})
	if err != nil {
		return register.Digest384{}, err
	}
	digest, err := snp.Digest(launch)
	return digest, err
}

// tdxValues computes the registers of a TDX guest from the release's files, which must be those of its manifest.
func tdxValues(ctx context.Context, manifest measure.Manifest, dir string, s measure.Shape, tree string) (v release.TDXValues, err error) {
	files, err := bootFiles(manifest, dir, tdxFirmware)
	if err != nil {
		return v, err
	}
	boot := measure.TDXBoot{Firmware: files[tdxFirmware], Order: tdvf.SinglePass, Kernel: files["vmlinuz"],
		Initrd: bytes.NewReader(files["initrd"]), Cmdline: string(files["cmdline"])}
	if err := tdxMachine(ctx, s, tree, &boot, filepath.Join(dir, tdxFirmware)); err != nil {
		return v, err
	}
	r, err := boot.Registers()
	if err != nil {
		return v, err
	}
	return release.TDXValues{MRTD: r.MRTD, RTMR0: *r.RTMR0, RTMR1: *r.RTMR1, RTMR2: *r.RTMR2}, nil
}

// isFirmware checks that the file is the shape's firmware, by its content.
func isFirmware(s measure.Shape, file string) error {
	got, err := guest.FirmwareFile(file)
	if err == nil && (got.Size != s.Firmware.Size || got.SHA256 != s.Firmware.SHA256) {
		err = fmt.Errorf("firmware %s has %d bytes and SHA-256 %s, want the shape's %d and %s", file, got.Size, got.SHA256, s.Firmware.Size,
			s.Firmware.SHA256)
	}
	return err
}
