package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"chrysalis/measure"
	"chrysalis/measure/bootdisk"
	"chrysalis/tools/internal/release"
	"chrysalis/tools/internal/toolstree"
)

// Formats of a boot disk.
const (
	DiskRaw   = "raw"
	DiskQCOW2 = "qcow2"
)

// The layout of a boot disk: an ESP with one file, then the root volume as it is in the release folder. Identifiers are
// fixed; that of the root's partition is the first half of its root hash, as in the Discoverable Partitions Specification.
const (
	espStart   = 1 << 20
	espBytes   = 64 << 20
	rootStart  = espStart + espBytes
	tailBytes  = 1 << 20 // the second partition table, and what rounds the disk to whole MiB
	diskID     = "c4a7c5f2-8b53-4d0e-9d1e-636872797301"
	espID      = "c4a7c5f2-8b53-4d0e-9d1e-636872797302"
	espVolume  = "43485259" // FAT serial number
	espType    = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
	rootType   = "4f68bce3-e8cd-4db1-96e7-fbcaf984b709"
	sectorSize = 512
)

// stubFile is systemd's UEFI stub in the tools tree.
const stubFile = "usr/lib/systemd/boot/efi/linuxx64.efi.stub"

// Disk is what WriteDisk made.
type Disk struct {
	UKI    [32]byte // SHA-256 of the unified kernel image in the ESP
	Bytes  int64    // size of the disk, whatever its format takes
	SHA256 [32]byte // of the raw disk
}

// WriteDisk writes a disk that boots the release without QEMU's -kernel: a unified kernel image of its kernel, initrd and
// command line, and its root. The release's files must be those of its manifest. out is there whole or not at all.
func WriteDisk(ctx context.Context, tree toolstree.Tree, folder, out, format string) (d Disk, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("writing boot disk: %w", err)
		}
	}()
	if format != DiskRaw && format != DiskQCOW2 {
		return d, fmt.Errorf("format is %q, want %q or %q", format, DiskRaw, DiskQCOW2)
	}
	m, err := checkedRelease(folder)
	if err != nil {
		return d, err
	}
	stub, err := os.ReadFile(tree.Path(stubFile))
	if err != nil {
		return d, err
	}
	uki, err := WriteUKI(stub, folder, m)
	if err != nil {
		return d, err
	}
	d.UKI = sha256.Sum256(uki)
	work, err := os.MkdirTemp(filepath.Dir(out), ".disk-*")
	if err != nil {
		return d, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	raw := filepath.Join(work, "disk.raw")
	if err := writeRaw(ctx, tree, raw, work, uki, filepath.Join(folder, "root.img"), m); err != nil {
		return d, err
	}
	sum, n, err := release.HashFile(raw)
	if err != nil {
		return d, err
	}
	d.SHA256, d.Bytes = sum, n
	made := raw
	if format == DiskQCOW2 {
		made = filepath.Join(work, "disk.qcow2")
		if err := runQuiet(diskTool(ctx, tree, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-m", "1", raw, made)); err != nil {
			return d, err
		}
	}
	if err := os.Chmod(made, 0o644); err != nil {
		return d, err
	}
	return d, os.Rename(made, out)
}

// checkedRelease reads a release's manifest and holds its files against it.
func checkedRelease(dir string) (measure.Manifest, error) {
	data, err := os.ReadFile(filepath.Join(dir, "manifest.json"))
	if err != nil {
		return measure.Manifest{}, err
	}
	m, err := measure.DecodeManifest(data)
	if err != nil {
		return m, err
	}
	for _, f := range m.Files {
		sum, n, err := release.HashFile(filepath.Join(dir, f.Name))
		if err != nil {
			return m, err
		}
		if sum != f.SHA256 {
			return m, fmt.Errorf("%s has %d bytes with SHA-256 %s, the manifest says %d with %s", f.Name, n, sum, f.Size, f.SHA256)
		}
	}
	return m, nil
}

// WriteUKI returns the unified kernel image of a release folder.
func WriteUKI(stub []byte, release string, m measure.Manifest) ([]byte, error) {
	read := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join(release, name))
		if err != nil {
			data = nil // an empty section is refused, with its name
		}
		return data
	}
	kernel := read("vmlinuz")
	osRelease := fmt.Sprintf("ID=chrysalis\nNAME=Chrysalis\nPRETTY_NAME=\"Chrysalis %s %s\"\nVERSION_ID=%d\n", m.Profile,
		m.Root.Root.String()[:16], m.SecurityVersion)
	uki, err := appendSections(stub, []ukiSection{
		{".osrel", []byte(osRelease)}, {".cmdline", read("cmdline")}, {".uname", []byte(m.Kernel)}, {".initrd", read("initrd")},
		{".linux", kernel},
	})
	if err != nil {
		return nil, err
	}
	return uki, dropNX(uki, kernel)
}

func writeRaw(ctx context.Context, tree toolstree.Tree, raw, work string, uki []byte, root string, m measure.Manifest) error {
	esp := filepath.Join(work, "esp.img")
	if err := writeESP(ctx, tree, esp, work, uki); err != nil {
		return fmt.Errorf("ESP: %w", err)
	}
	info, err := os.Stat(root)
	if err != nil {
		return err
	}
	f, err := os.Create(raw)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := errors.Join(f.Truncate(roundUp(rootStart+info.Size(), 1<<20)+tailBytes), copySparse(f, espStart, esp),
		copySparse(f, rootStart, root), f.Close()); err != nil {
		return err
	}
	table := fmt.Sprintf("label: gpt\nlabel-id: %s\nunit: sectors\nsector-size: %d\n\n", diskID, sectorSize) +
		fmt.Sprintf("start=%d, size=%d, type=%s, uuid=%s, name=\"esp\"\n", espStart/sectorSize, espBytes/sectorSize, espType, espID) +
		fmt.Sprintf("start=%d, size=%d, type=%s, uuid=%s, name=\"root\"\n", rootStart/sectorSize, info.Size()/sectorSize, rootType,
			bootdisk.RootPartition(m.Root.Root))
	cmd := diskTool(ctx, tree, "sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", raw)
	cmd.Stdin = strings.NewReader(table)
	return runQuiet(cmd)
}

// writeESP makes the file system that the firmware reads: one file, under the name that a firmware starts of itself.
func writeESP(ctx context.Context, tree toolstree.Tree, esp, work string, uki []byte) error {
	program := filepath.Join(work, "BOOTX64.EFI")
	if err := errors.Join(os.WriteFile(esp, nil, 0o644), os.Truncate(esp, espBytes), os.WriteFile(program, uki, 0o644)); err != nil {
		return err
	}
	// One sector to a cluster: with fewer clusters it would not be FAT32, with larger sectors OVMF would not read it.
	if err := runQuiet(diskTool(ctx, tree, "mkfs.vfat", "--invariant", "-F", "32", "-S", fmt.Sprint(sectorSize), "-s", "1", "-i", espVolume,
		esp)); err != nil {
		return err
	}
	for _, args := range [][]string{{"mmd", "-i", esp, "::EFI", "::EFI/BOOT"}, {"mcopy", "-i", esp, program, "::EFI/BOOT/BOOTX64.EFI"}} {
		if err := runQuiet(diskTool(ctx, tree, "mtools", append([]string{"-c"}, args...)...)); err != nil {
			return err
		}
	}
	return nil
}

// diskTool returns a command of the tools tree that sees nothing of the caller's environment, of which each of these programs
// takes something into what it writes.
func diskTool(ctx context.Context, tree toolstree.Tree, program string, args ...string) *exec.Cmd {
	cmd := withUmask(tree.Command(ctx, program, args...))
	cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=/nonexistent", "LC_ALL=C.UTF-8", "TZ=UTC", "MTOOLSRC=/dev/null", epoch}
	return cmd
}

// copySparse writes the file into f at an offset, and leaves holes where it is zero.
func copySparse(f *os.File, at int64, file string) error {
	in, err := os.Open(file)
	if err != nil {
		return err
	}
	defer in.Close()
	buf, zero := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		n, err := io.ReadFull(in, buf)
		if n > 0 && !bytes.Equal(buf[:n], zero[:n]) {
			if _, err := f.WriteAt(buf[:n], at); err != nil {
				return err
			}
		}
		at += int64(n)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
