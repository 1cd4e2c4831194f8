package lock

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
)

// Suite is the only suite of a local repository.
const Suite = "trixie"

// WriteRepository makes a local, unsigned apt repository in dir that offers exactly the locked packages. cached gives the
// checked file of each package; the pool links to it.
func (l Lock) WriteRepository(dir string, cached func(Package) string) error {
	index := filepath.Join(dir, "dists", Suite, "main", "binary-amd64")
	if err := os.MkdirAll(index, 0o755); err != nil {
		return fmt.Errorf("writing repository: %w", err)
	}
	var b bytes.Buffer
	for _, p := range l.Packages {
		p.encode(&b, fields[:len(fields)-1])
		b.WriteByte('\n')
		if err := place(cached(p), filepath.Join(dir, p.Filename)); err != nil {
			return fmt.Errorf("writing repository: %w", err)
		}
	}
	if err := os.WriteFile(filepath.Join(index, "Packages"), b.Bytes(), 0o644); err != nil {
		return fmt.Errorf("writing repository: %w", err)
	}
	release := fmt.Sprintf("Origin: lock\nLabel: lock\nSuite: %[1]s\nCodename: %[1]s\nDate: Thu, 01 Jan 2026 00:00:00 UTC\n"+
		"Architectures: amd64\nComponents: main\nSHA256:\n %x %d main/binary-amd64/Packages\n", Suite, sha256.Sum256(b.Bytes()), b.Len())
	if err := os.WriteFile(filepath.Join(dir, "dists", Suite, "Release"), []byte(release), 0o644); err != nil {
		return fmt.Errorf("writing repository: %w", err)
	}
	return nil
}

// place puts the content of file at path, by a hard link where the file system allows it.
func place(file, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return err
	}
	if os.Link(file, path) == nil {
		return nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o644)
}
