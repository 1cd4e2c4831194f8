package explain

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"chrysalis/measure"
)

// The release's files that registers follow from.
const (
	plainFirmware = "OVMF_CODE.fd"
	tdxFirmware   = "OVMF.inteltdx.fd"
	kernelFile    = "vmlinuz"
	initrdFile    = "initrd"
	cmdlineFile   = "cmdline"
)

// maxFileBytes bounds each of them.
const maxFileBytes = 512 << 20

// Release is a release as its manifest describes it, with those of its files that lie beside the manifest.
type Release struct {
	Manifest measure.Manifest
	Files    map[string][]byte
}

// ReadRelease reads a manifest and the files beside it. A file that is not the manifest's is refused: registers computed from
// it would be another release's.
func ReadRelease(manifest string) (Release, error) {
	data, err := readFile(manifest, measure.MaxManifestBytes)
	if err != nil {
		return Release{}, err
	}
	r := Release{Files: map[string][]byte{}}
	if r.Manifest, err = measure.DecodeManifest(data); err != nil {
		return r, fmt.Errorf("reading %s: %w", manifest, err)
	}
	for _, name := range []string{plainFirmware, tdxFirmware, kernelFile, initrdFile, cmdlineFile} {
		want, err := r.Manifest.File(name)
		if err != nil {
			return r, err
		}
		path := filepath.Join(filepath.Dir(manifest), name)
		data, err := readFile(path, maxFileBytes)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return r, err
		}
		if sum := sha256.Sum256(data); sum != want.SHA256 {
			return r, fmt.Errorf("reading %s: SHA-256 is %x, want the manifest's %s", path, sum, want.SHA256)
		}
		r.Files[name] = data
	}
	return r, nil
}

// has reports whether the files are there.
func (r Release) has(names ...string) bool {
	for _, name := range names {
		if r.Files[name] == nil {
			return false
		}
	}
	return true
}

func readFile(name string, most int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(data)) > most {
		err = fmt.Errorf("reading %s: more than %d bytes", name, most)
	}
	return data, err
}
