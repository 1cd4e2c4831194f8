package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"chrysalis/measure/tdvf"
	"chrysalis/tools/internal/lock"
	"chrysalis/tools/internal/toolstree"
)

// confidentialFirmware are the firmwares of confidential guests by their names in the release, with their place in the
// packages of the firmware lock.
var confidentialFirmware = map[string]string{
	"OVMF.amdsev.fd":   "usr/share/ovmf/OVMF.amdsev.fd",
	"OVMF.inteltdx.fd": "usr/share/ovmf/OVMF.inteltdx.ms.fd",
}

// writeFirmware copies the firmwares of confidential guests into the release.
func (b *Builder) writeFirmware(ctx context.Context, tree toolstree.Tree, l lock.Lock, out string) error {
	dir, err := os.MkdirTemp(b.Work, ".firmware-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := b.unpackAll(ctx, tree, l, dir); err != nil {
		return err
	}
	for name, path := range confidentialFirmware {
		if err := copyFile(filepath.Join(dir, path), filepath.Join(out, name)); err != nil {
			return err
		}
	}
	return emptyVariables(filepath.Join(out, "OVMF.inteltdx.fd"), filepath.Join(out, "OVMF_VARS.fd"))
}

// emptyVariables replaces the variable store of a TDX firmware by the empty one of plain OVMF. Debian's holds Microsoft's
// Secure Boot keys, with which no kernel of ours starts; MRTD does not cover the store, RTMR0 does.
func emptyVariables(firmware, empty string) error {
	image, err := os.ReadFile(firmware)
	if err != nil {
		return err
	}
	store, err := os.ReadFile(empty)
	if err != nil {
		return err
	}
	sections, err := tdvf.Sections(image)
	if err != nil {
		return err
	}
	for _, s := range sections {
		if s.Type == tdvf.SectionVariables && int(s.Size) == len(store) {
			copy(image[s.Offset:], store)
			return os.WriteFile(firmware, image, 0o644)
		}
	}
	return fmt.Errorf("%s has no variable store of %d bytes", firmware, len(store))
}

// qemuParts are what a machine needs of the QEMU lock's packages; the rest is documentation and other architectures.
var qemuParts = []string{"usr/bin/qemu-system-x86_64", "usr/lib/x86_64-linux-gnu/qemu", "usr/share/qemu", "usr/share/seabios"}

// buildQEMU unpacks the QEMU that knows confidential guests beside the tools tree, whose libraries it runs over.
func (b *Builder) buildQEMU(ctx context.Context, tree toolstree.Tree) error {
	l, err := b.packages(ctx, "qemu")
	if err != nil {
		return err
	}
	dir := filepath.Join(b.Work, toolstree.QEMUDir)
	return b.cachedStep("unpack QEMU", dir, fmt.Sprintf("1 %x", l.Digest()), func() (string, error) {
		all, err := os.MkdirTemp(b.Work, ".qemu-")
		if err != nil {
			return "", err
		}
		defer os.RemoveAll(all)
		if err := b.unpackAll(ctx, tree, l, all); err != nil {
			return "", err
		}
		for _, part := range qemuParts {
			to := filepath.Join(dir, part)
			if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.Rename(filepath.Join(all, part), to)); err != nil {
				return "", err
			}
		}
		p, err := l.Package("qemu-system-x86")
		return p.Version, err
	})
}

// buildLibvirt makes a tree of the tools tree, the newer QEMU in the place of its own, and libvirt. Files are shared with the other two:
// all of it is some 60 MB.
func (b *Builder) buildLibvirt(ctx context.Context, tree toolstree.Tree) error {
	l, err := b.packages(ctx, "libvirt")
	if err != nil {
		return err
	}
	newer, err := b.packages(ctx, "qemu")
	if err != nil {
		return err
	}
	dir := filepath.Join(b.Work, toolstree.LibvirtDir)
	return b.cachedStep("unpack libvirt", dir, fmt.Sprintf("2 %x %x %x", b.toolsLock.Digest(), newer.Digest(), l.Digest()), func() (string, error) {
		link := func(from, to string) error { return runQuiet(exec.CommandContext(ctx, "cp", "-al", from, to)) }
		if err := errors.Join(os.Remove(dir), link(tree.Path("."), dir)); err != nil {
			return "", err
		}
		for _, part := range qemuParts {
			to := filepath.Join(dir, part)
			if err := errors.Join(os.RemoveAll(to), link(filepath.Join(b.Work, toolstree.QEMUDir, part), to)); err != nil {
				return "", err
			}
		}
		if err := b.unpackAll(ctx, tree, l, dir); err != nil {
			return "", err
		}
		p, err := l.Package("libvirt0")
		return p.Version, err
	})
}

// buildBrowser makes a tree of the tools tree and the browsers that tests show pages to. Files are shared with the tools tree: all of it is some 650 MB.
func (b *Builder) buildBrowser(ctx context.Context, tree toolstree.Tree) error {
	l, err := b.packages(ctx, "browser")
	if err != nil {
		return err
	}
	dir := filepath.Join(b.Work, toolstree.BrowserDir)
	return b.cachedStep("unpack browsers", dir, fmt.Sprintf("1 %x %x", b.toolsLock.Digest(), l.Digest()), func() (string, error) {
		if err := errors.Join(os.Remove(dir), runQuiet(exec.CommandContext(ctx, "cp", "-al", tree.Path("."), dir))); err != nil {
			return "", err
		}
		if err := b.unpackAll(ctx, tree, l, dir); err != nil {
			return "", err
		}
		chromium, err := l.Package("chromium-headless-shell")
		firefox, errF := l.Package("firefox-esr")
		return chromium.Version + ", " + firefox.Version, errors.Join(err, errF)
	})
}

func (b *Builder) unpackAll(ctx context.Context, tree toolstree.Tree, l lock.Lock, dir string) error {
	for _, p := range l.Packages {
		if err := runQuiet(tree.Command(ctx, "dpkg-deb", "-x", b.Places.Cached(p), dir)); err != nil {
			return fmt.Errorf("unpacking %s: %w", p.Name, err)
		}
	}
	return nil
}
