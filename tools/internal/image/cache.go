package image

import (
	"os"
)

// cached makes the folder with make unless it was made for the same key before. The key stands beside the folder and is
// written last, so that a folder half made is made again.
func (b *Builder) cached(dir, key string, make func() error) error {
	file := dir + ".key"
	if got, err := os.ReadFile(file); err == nil && string(got) == key {
		if _, err := os.Stat(dir); err == nil {
			return nil
		}
	}
	for _, path := range []string{file, dir} {
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := make(); err != nil {
		return err
	}
	return os.WriteFile(file, []byte(key), 0o644)
}
