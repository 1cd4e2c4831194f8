package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"

	"chrysalis/attest/handover"
	"chrysalis/measure"
	"chrysalis/measure/config"
	"chrysalis/measure/pubkey"
	"chrysalis/measure/register"
	"chrysalis/tools/internal/lock"
	"chrysalis/tools/internal/release"
	"chrysalis/tools/internal/toolstree"
)

// Build builds the release folder out. The folder is there whole or not at all.
func (b *Builder) Build(ctx context.Context, out string) (measure.Manifest, error) {
	m, err := b.build(ctx, out)
	if err != nil {
		return measure.Manifest{}, fmt.Errorf("building image: %w", err)
	}
	return m, nil
}

// NeedsRoot is the error of whoever can't build. It is worth asking before anything is downloaded.
func NeedsRoot() error {
	if uid := os.Geteuid(); uid != 0 {
		return fmt.Errorf("running as user %d, want root: programs run inside the tools tree (use sudo)", uid)
	}
	return nil
}

func (b *Builder) build(ctx context.Context, out string) (m measure.Manifest, err error) {
	if err := NeedsRoot(); err != nil {
		return m, err
	}
	tree, err := b.Tools(ctx)
	if err != nil {
		return m, err
	}
	l, err := b.packages(ctx, "image")
	if err != nil {
		return m, err
	}
	firmware, err := b.packages(ctx, "firmware")
	if err != nil {
		return m, err
	}
	if err := b.buildQEMU(ctx, tree); err != nil {
		return m, err
	}
	if b.Tests {
		if err := errors.Join(b.buildLibvirt(ctx, tree), b.buildBrowser(ctx, tree), b.buildSpeech(ctx, tree)); err != nil {
			return m, err
		}
	}
	g, err := b.findGo(ctx)
	if err != nil {
		return m, err
	}
	partial, err := partialFolder(out)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(partial)) }()
	k, err := b.unpackKernel(ctx, tree, l)
	if err != nil {
		return m, err
	}
	// mkosi starts one program after the other and waits for the disk, while Go compiles on what cores there are.
	var guest, base string
	both, within := errgroup.WithContext(ctx)
	both.Go(func() (err error) { guest, err = b.buildPrograms(within, tree, g); return err })
	both.Go(func() (err error) { base, err = b.buildBase(within, tree, l); return err })
	if err := both.Wait(); err != nil {
		return m, err
	}
	root, err := b.buildRoot(ctx, base, guest, filepath.Join(partial, "root.img"))
	if err != nil {
		return m, err
	}
	m = measure.Manifest{Format: measure.ManifestFormat, Profile: string(b.Profile), Lock: b.lockState("tools", "image", "firmware"),
		Kernel: k.release, Root: root}
	if err := b.writeBoot(tree, k, guest, m.Root, partial); err != nil {
		return m, err
	}
	if err := b.writeFirmware(ctx, tree, firmware, partial); err != nil {
		return m, err
	}
	if err := b.writeDocuments(ctx, tree, &m, g, releaseLocks{l, firmware}, partial); err != nil {
		return m, err
	}
	return m, replaceFolder(partial, out)
}

// writeBoot writes what the machine boots: firmware, kernel, initrd and command line.
func (b *Builder) writeBoot(tree toolstree.Tree, k kernel, guest string, root config.Volume, out string) error {
	step := b.Progress.Step("write initrd", 0)
	wanted, err := readNames(filepath.Join(b.Source, b.Profile.file(profileModules)))
	if err != nil {
		return err
	}
	modules, err := k.moduleOrder(wanted)
	if err != nil {
		return err
	}
	initProgram, err := os.ReadFile(filepath.Join(guest, "init"))
	if err != nil {
		return err
	}
	cmdlineFile := filepath.Join(b.Source, b.Profile.file(profileCmdline))
	cmdline, err := os.ReadFile(cmdlineFile)
	if err != nil {
		return err
	}
	self, err := b.imageFile()
	if err != nil {
		return err
	}
	entries, err := initrdEntries(initProgram, k, modules, root, cmdline, self)
	if err != nil {
		return err
	}
	if err := writeInitrdFile(filepath.Join(out, "initrd"), entries); err != nil {
		return err
	}
	step.Done(fmt.Sprintf("%s, %d modules", size(filepath.Join(out, "initrd")), len(modules)))
	code, vars := tree.Firmware()
	for from, to := range map[string]string{code: "OVMF_CODE.fd", vars: "OVMF_VARS.fd", k.image(): "vmlinuz", cmdlineFile: "cmdline"} {
		if err := copyFile(from, filepath.Join(out, to)); err != nil {
			return err
		}
	}
	return nil
}

// imageFile returns what the image says of itself: its security version, and whose release lists name those that may follow it.
func (b *Builder) imageFile() ([]byte, error) {
	version, err := b.securityVersion()
	if err != nil {
		return nil, err
	}
	keys, err := os.ReadFile(filepath.Join(b.Source, "image", "release-keys"))
	if err != nil {
		return nil, err
	}
	image, err := parseReleaseKeys(string(keys))
	if err != nil {
		return nil, fmt.Errorf("reading image/release-keys: %w", err)
	}
	image.SecurityVersion = version
	return image.Encode()
}

// parseReleaseKeys reads a line "threshold N" and a key on each line after it. Empty lines and comments say nothing.
func parseReleaseKeys(text string) (i handover.Image, err error) {
	words := "threshold"
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if words != "" {
			if _, err := fmt.Sscanf(line, words+" %d", &i.Threshold); err != nil || line != fmt.Sprintf("%s %d", words, i.Threshold) {
				return i, fmt.Errorf("line %q, want threshold and a number", line)
			}
			words = ""
			continue
		}
		key, err := pubkey.Parse(line)
		if err != nil {
			return i, err
		}
		i.Signers = append(i.Signers, key)
	}
	if words != "" {
		return i, errors.New("no line with the threshold")
	}
	return i, nil
}

func (b *Builder) securityVersion() (uint32, error) {
	text, err := os.ReadFile(filepath.Join(b.Source, "image", "security-version"))
	if err != nil {
		return 0, err
	}
	version, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 32)
	if err != nil {
		return 0, fmt.Errorf("reading security version: %w", err)
	}
	return uint32(version), nil
}

func (b *Builder) fillManifest(m *measure.Manifest, g goTool, packages []lock.Package, dir string) error {
	version, err := b.securityVersion()
	if err != nil {
		return err
	}
	m.SecurityVersion = version
	if m.Files, err = namedFiles(dir, measure.ReleaseFiles()); err != nil {
		return err
	}
	if m.PCRs, err = bootPCRs(dir); err != nil {
		return err
	}
	m.Toolchains = measure.Toolchain{Go: g.version, Tools: b.toolsLock.Digest()}
	for name, version := range map[string]*string{"gcc": &m.Toolchains.GCC, "mkosi": &m.Toolchains.Mkosi} {
		p, err := b.toolsLock.Package(name)
		if err != nil {
			return err
		}
		*version = p.Version
	}
	// Plain OVMF comes out of the tools tree, and so belongs to what the release is made of.
	ovmf, err := b.toolsLock.Package("ovmf")
	if err != nil {
		return err
	}
	for _, p := range append(packages, ovmf) {
		m.Packages = append(m.Packages, measure.Package{Name: p.Name, Version: p.Version, SHA256: p.SHA256})
	}
	slices.SortFunc(m.Packages, func(a, b measure.Package) int { return strings.Compare(a.Name, b.Name) })
	return nil
}

// namedFiles names files of the folder, and gives them the mode in which the folder is served and copied.
func namedFiles(dir string, names []string) (files []measure.File, err error) {
	for _, name := range names {
		path := filepath.Join(dir, name)
		if err := os.Chmod(path, 0o644); err != nil {
			return nil, err
		}
		sum, n, err := release.HashFile(path)
		if err != nil {
			return nil, err
		}
		files = append(files, measure.File{Name: name, Size: n, SHA256: sum})
	}
	return files, nil
}

// bootPCRs computes the registers that follow from the release's files alone.
func bootPCRs(dir string) (register.PCRs, error) {
	firmware, err := os.ReadFile(filepath.Join(dir, "OVMF_CODE.fd"))
	if err != nil {
		return nil, err
	}
	vmlinuz, err := os.ReadFile(filepath.Join(dir, "vmlinuz"))
	if err != nil {
		return nil, err
	}
	cmdline, err := os.ReadFile(filepath.Join(dir, "cmdline"))
	if err != nil {
		return nil, err
	}
	initrd, err := os.Open(filepath.Join(dir, "initrd"))
	if err != nil {
		return nil, err
	}
	defer initrd.Close()
	return measure.DirectBoot{Firmware: firmware, Kernel: vmlinuz, Initrd: initrd, Cmdline: string(cmdline)}.PCRs()
}

// partialFolder makes an empty folder beside out, to be renamed to it.
func partialFolder(out string) (string, error) {
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp(filepath.Dir(out), ".release-*")
	if err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o755)
}

// replaceFolder puts a finished release folder in the place of an older one; it removes no folder that is none.
func replaceFolder(from, to string) error {
	old, err := os.ReadDir(to)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if len(old) > 0 {
		if _, err := os.Stat(filepath.Join(to, "manifest.json")); err != nil {
			return fmt.Errorf("replacing %s: the folder is no release: %w", to, err)
		}
	}
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	return os.Rename(from, to)
}
