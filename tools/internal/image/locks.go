package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"chrysalis/measure"
	"chrysalis/tools/internal/lock"
)

// What a release and its demo are made of: the tools that build it, what lies in it, the engine of the embedded volume, the firmwares of confidential
// guests, and the QEMU that starts those.
var buildLocks = []string{"tools", "image", "engine", "firmware", "qemu"}

// What tests need beside: the libvirt that they start guests by, the browsers that they show pages to, and the engine that hears.
var testLocks = []string{"libvirt", "browser", "speech"}

// LockNames are all locks.
var LockNames = slices.Concat(buildLocks, testLocks)

// Relock says when a lock may be replaced by a fresh resolution.
type Relock string

const (
	RelockNever  Relock = ""     // a package that is nowhere stops the build
	RelockAlways Relock = "1"    // resolve anew
	RelockAuto   Relock = "auto" // resolve anew only if a locked package is nowhere
)

func (b *Builder) lockFile(name string) string {
	return filepath.Join(b.Source, "image", name+".lock")
}

func (b *Builder) freshLockFile(name string) string {
	return filepath.Join(b.Work, "locks", name+".lock")
}

func readLock(path string) (lock.Lock, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return lock.Lock{}, err
	}
	l, err := lock.Parse(data)
	if err != nil {
		return lock.Lock{}, fmt.Errorf("%s: %w", path, err)
	}
	return l, nil
}

// WriteLocks resolves every lock in today's archives and writes it into the source tree.
func (b *Builder) WriteLocks(ctx context.Context) error {
	for _, name := range LockNames {
		old, err := readLock(b.lockFile(name))
		if err != nil {
			return fmt.Errorf("writing locks: %w", err)
		}
		if _, err := b.resolve(ctx, old, b.lockFile(name)); err != nil {
			return fmt.Errorf("writing locks: %w", err)
		}
	}
	return nil
}

// CheckLocks resolves locks in today's archives and compares them with the source tree's, which it leaves alone. What is new is
// downloaded as far as its changelog is read.
func (b *Builder) CheckLocks(ctx context.Context, names ...string) ([]lock.Diff, error) {
	diffs, err := b.checkLocks(ctx, names)
	if err != nil {
		return nil, fmt.Errorf("checking locks: %w", err)
	}
	return diffs, nil
}

func (b *Builder) checkLocks(ctx context.Context, names []string) ([]lock.Diff, error) {
	var diffs []lock.Diff
	for _, name := range names {
		old, err := b.Locked(name)
		if err != nil {
			return nil, err
		}
		fresh, err := b.resolveOnly(ctx, old)
		if err != nil {
			return nil, err
		}
		d := lock.Compare(old, fresh)
		if !d.Empty() {
			step := b.Progress.Step("read changelogs", 0)
			if err := b.Places.ReadNews(ctx, client, &d, fresh); err != nil {
				return nil, err
			}
			step.Done(fmt.Sprintf("%d packages of the %s lock changed", len(d.Packages), name))
		}
		diffs = append(diffs, d)
	}
	return diffs, nil
}

// Locked reads a lock of the source tree.
func (b *Builder) Locked(name string) (lock.Lock, error) { return readLock(b.lockFile(name)) }

// resolve resolves the request of old anew and writes the result to file.
func (b *Builder) resolve(ctx context.Context, old lock.Lock, file string) (lock.Lock, error) {
	l, err := b.resolveOnly(ctx, old)
	if err != nil {
		return lock.Lock{}, err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return lock.Lock{}, err
	}
	return l, os.WriteFile(file, l.Bytes(), 0o644)
}

func (b *Builder) resolveOnly(ctx context.Context, old lock.Lock) (lock.Lock, error) {
	step := b.Progress.Step("resolve "+old.Name+" lock", 0)
	work, err := os.MkdirTemp("", "chrysalis-apt-")
	if err != nil {
		return lock.Lock{}, err
	}
	defer os.RemoveAll(work)
	l, err := lock.Resolve(ctx, b.Places, work, old)
	if err != nil {
		return lock.Lock{}, err
	}
	step.Done(fmt.Sprintf("%d packages", len(l.Packages)))
	return l, nil
}

// needed are the locks that a build needs.
func (b *Builder) needed() []string {
	if b.Tests {
		return LockNames
	}
	return buildLocks
}

// Fetch brings the packages of the other locks than tools here, so that a missing one stops a build before its minutes of work.
func (b *Builder) Fetch(ctx context.Context) error {
	if err := b.own(ctx); err != nil {
		return err
	}
	for _, name := range b.needed()[1:] {
		if _, err := b.packages(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// packages returns the named lock with every package in the cache, following b.Relock. It decides once in a Builder's life.
func (b *Builder) packages(ctx context.Context, name string) (lock.Lock, error) {
	if l, ok := b.decided[name]; ok {
		return l, nil
	}
	l, err := b.decide(ctx, name)
	if err != nil {
		return lock.Lock{}, err
	}
	if b.decided == nil {
		b.decided = make(map[string]lock.Lock)
	}
	b.decided[name] = l
	return l, nil
}

func (b *Builder) decide(ctx context.Context, name string) (lock.Lock, error) {
	released, err := readLock(b.lockFile(name))
	if err != nil {
		return lock.Lock{}, err
	}
	if b.Relock != RelockAlways {
		err := b.fetch(ctx, released)
		var missing *lock.MissingError
		if err == nil {
			return released, b.forgetFresh(name)
		}
		if b.Relock != RelockAuto || !errors.As(err, &missing) {
			return lock.Lock{}, err
		}
		b.Progress.Note("%v", missing)
		b.Progress.Note("RELOCK=auto: resolving the %s lock anew; the result is marked %q", name, measure.LockUnreleased)
		// An earlier run may have resolved already; then the tools tree and caches of that run still fit.
		if fresh, err := readLock(b.freshLockFile(name)); err == nil && slices.Equal(fresh.Request, released.Request) &&
			b.fetch(ctx, fresh) == nil {
			b.unreleased(name)
			return fresh, nil
		}
	}
	fresh, err := b.resolve(ctx, released, b.freshLockFile(name))
	if err != nil {
		return lock.Lock{}, err
	}
	b.unreleased(name)
	return fresh, b.fetch(ctx, fresh)
}

// forgetFresh removes the lock of an earlier resolution: the work folder's locks are those that the last build used.
func (b *Builder) forgetFresh(name string) error {
	if err := os.Remove(b.freshLockFile(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Store copies every locked package into a content-addressed folder.
func (b *Builder) Store(ctx context.Context, dir string) error {
	for _, name := range LockNames {
		l, err := readLock(b.lockFile(name))
		if err != nil {
			return fmt.Errorf("filling store: %w", err)
		}
		if err := b.fetch(ctx, l); err != nil {
			return fmt.Errorf("filling store: %w", err)
		}
		if err := b.Places.Export(l, dir); err != nil {
			return fmt.Errorf("filling store: %w", err)
		}
	}
	return nil
}

func (b *Builder) unreleased(name string) {
	if !slices.Contains(b.relocked, name) {
		b.relocked = append(b.relocked, name)
	}
}

// client gives up on a place that does not answer at all; how long a download may last is lock's to say.
var client = &http.Client{Transport: &http.Transport{
	Proxy:                 http.ProxyFromEnvironment,
	DialContext:           (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
	TLSHandshakeTimeout:   5 * time.Second,
	ResponseHeaderTimeout: 20 * time.Second,
	MaxIdleConnsPerHost:   8,
}}

// lockState is LockUnreleased if one of the named locks was resolved anew.
func (b *Builder) lockState(names ...string) string {
	for _, name := range names {
		if slices.Contains(b.relocked, name) {
			return measure.LockUnreleased
		}
	}
	return measure.LockReleased
}

func (b *Builder) fetch(ctx context.Context, l lock.Lock) error {
	var total int64
	for _, p := range l.Packages {
		total += p.Size
	}
	step := b.Progress.Step("fetch "+l.Name+" packages", total)
	if err := b.Places.Fetch(ctx, client, l, step.Add); err != nil {
		return err
	}
	step.Done(fmt.Sprintf("%d packages, %.1f MB", len(l.Packages), float64(total)/1e6))
	return nil
}
