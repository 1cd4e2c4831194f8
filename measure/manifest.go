package measure

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"chrysalis/measure/config"
	"chrysalis/measure/fault"
	"chrysalis/measure/register"
)

// ManifestFormat names the one format of a release manifest.
const ManifestFormat = "chrysalis release v1"

// MaxManifestBytes bounds a manifest file.
const MaxManifestBytes = 1 << 20

// Lock states of a release: whether it was built from the locks of its source tree, or from locks resolved anew because a
// package was nowhere or because the builder asked for it. The latter cannot be rebuilt from the source tree alone.
const (
	LockReleased   = "released"
	LockUnreleased = "unreleased lock"
)

// ReleaseFiles are the files of a release folder beside the manifest, sorted.
func ReleaseFiles() []string {
	return []string{"OVMF.amdsev.fd", "OVMF.inteltdx.fd", "OVMF_CODE.fd", "OVMF_VARS.fd", "cmdline", "initrd", "root.img", "vmlinuz"}
}

// ReleaseDocuments are the further files that a manifest names, sorted. They explain a release; nothing boots them.
func ReleaseDocuments() []string {
	return []string{"contents.json", "sbom.json"}
}

// Manifest describes a release: what a client trusts when it trusts a release, and what an auditor rebuilds. It carries no
// signature; whoever uses it must have it from a place that he trusts.
type Manifest struct {
	Format          string        `json:"format"`
	Profile         string        `json:"profile"`
	SecurityVersion uint32        `json:"security_version"`
	Lock            string        `json:"lock"` // LockReleased or LockUnreleased
	Kernel          string        `json:"kernel"`
	Root            config.Volume `json:"root"`
	Files           []File        `json:"files"`     // sorted by name; exactly ReleaseFiles
	Documents       []File        `json:"documents"` // sorted by name; exactly ReleaseDocuments
	// PCRs are those that do not depend on the machine's shape or the measured config.
	PCRs       register.PCRs `json:"pcrs"`
	Toolchains Toolchain     `json:"toolchains"`
	Packages   []Package     `json:"packages"` // sorted by name
}

// File is a file of the release folder.
type File struct {
	Name   string          `json:"name"`
	Size   int64           `json:"size"`
	SHA256 register.Digest `json:"sha256"`
}

// Toolchain says what built the release.
type Toolchain struct {
	Go    string          `json:"go"`    // exact version, such as go1.26.8
	GCC   string          `json:"gcc"`   // package version in the tools tree
	Mkosi string          `json:"mkosi"` // package version in the tools tree
	Tools register.Digest `json:"tools"` // SHA-256 of the lock of the tools tree
}

// Package is a Debian package that contributed to the release.
type Package struct {
	Name    string          `json:"name"`
	Version string          `json:"version"`
	SHA256  register.Digest `json:"sha256"`
}

// File returns the named file or document.
func (m Manifest) File(name string) (File, error) {
	all := slices.Concat(m.Files, m.Documents)
	i := slices.IndexFunc(all, func(f File) bool { return f.Name == name })
	if i < 0 {
		return File{}, fmt.Errorf("manifest has no file %s: %w", name, fs.ErrNotExist)
	}
	return all[i], nil
}

// EncodeManifest checks the manifest and returns its one encoding.
func EncodeManifest(m Manifest) ([]byte, error) {
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("encoding manifest: %w", err)
	}
	b, err := json.Marshal(m, json.Deterministic(true), jsontext.WithIndent("  "))
	if err != nil {
		return nil, fmt.Errorf("encoding manifest: %w", err)
	}
	return append(b, '\n'), nil
}

// DecodeManifest reads a manifest: no unknown or duplicate members, no encoding but the one that EncodeManifest writes.
func DecodeManifest(data []byte) (Manifest, error) {
	if len(data) > MaxManifestBytes {
		return Manifest{}, fmt.Errorf("decoding manifest: %d bytes, want at most %d", len(data), MaxManifestBytes)
	}
	var m Manifest
	if err := json.Unmarshal(data, &m, json.RejectUnknownMembers(true)); err != nil {
		return Manifest{}, fmt.Errorf("decoding manifest: %w", fault.JSON(err))
	}
	if err := m.check(); err != nil {
		return Manifest{}, fmt.Errorf("decoding manifest: %w", err)
	}
	again, err := EncodeManifest(m)
	if err != nil {
		return Manifest{}, fmt.Errorf("decoding manifest: %w", err)
	}
	if !bytes.Equal(again, data) {
		return Manifest{}, errors.New("decoding manifest: the bytes are not the one encoding of their content")
	}
	return m, nil
}

func (m Manifest) check() error {
	if m.Format != ManifestFormat {
		return fmt.Errorf("format is %q, want %q", m.Format, ManifestFormat)
	}
	if m.Lock != LockReleased && m.Lock != LockUnreleased {
		return fmt.Errorf("lock is %q, want %q or %q", m.Lock, LockReleased, LockUnreleased)
	}
	if m.Profile == "" || m.Kernel == "" || m.Toolchains.Go == "" || m.Toolchains.GCC == "" || m.Toolchains.Mkosi == "" {
		return errors.New("profile, kernel or a toolchain is empty")
	}
	if m.Root.Blocks == 0 || m.Root.Root == (register.Digest{}) {
		return errors.New("root volume is not named")
	}
	if err := checkFiles("files", m.Files, ReleaseFiles()); err != nil {
		return err
	}
	if err := checkFiles("documents", m.Documents, ReleaseDocuments()); err != nil {
		return err
	}
	for _, index := range []uint8{0, 4, 9} {
		if _, ok := m.PCRs[index]; !ok {
			return fmt.Errorf("PCR %d is missing", index)
		}
	}
	for index := range m.PCRs {
		if !slices.Contains(register.Quoted(), uint(index)) {
			return fmt.Errorf("PCR %d is never quoted", index)
		}
	}
	if len(m.Packages) == 0 {
		return errors.New("no packages")
	}
	for i, p := range m.Packages {
		if p.Name == "" || p.Version == "" {
			return fmt.Errorf("package %d has name %q and version %q, want both", i, p.Name, p.Version)
		}
		if i > 0 && strings.Compare(m.Packages[i-1].Name, p.Name) >= 0 {
			return fmt.Errorf("package %s stands after %s, want each once and sorted", p.Name, m.Packages[i-1].Name)
		}
	}
	return nil
}

func checkFiles(what string, files []File, want []string) error {
	var names []string
	for _, f := range files {
		if f.Size <= 0 {
			return fmt.Errorf("file %s is %d bytes long, want more", f.Name, f.Size)
		}
		names = append(names, f.Name)
	}
	if !slices.Equal(names, want) {
		return fmt.Errorf("%s are %q, want %q", what, names, want)
	}
	return nil
}
