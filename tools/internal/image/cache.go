package image

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"
)

// own makes the work folder and takes it for this process until it ends: two builds in one folder would mix their files.
func (b *Builder) own(ctx context.Context) error {
	if b.owned != nil {
		return nil
	}
	if err := os.MkdirAll(b.Work, 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(b.Work, ".owner"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	for said := false; take(f) != nil; said = true {
		if !said {
			b.Progress.Note("waiting for another build in %s", b.Work)
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), f.Close())
		case <-time.After(200 * time.Millisecond):
		}
	}
	b.owned = f
	return nil
}

// cachedStep is cached as a step of that name, which says what was made, or that nothing had to be.
func (b *Builder) cachedStep(name, dir, key string, make func() (made string, err error)) error {
	step, detail := b.Progress.Step(name, 0), "unchanged"
	err := b.cached(dir, key, func() (err error) {
		detail, err = make()
		return err
	})
	if err == nil {
		step.Done(detail)
	}
	return err
}

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
