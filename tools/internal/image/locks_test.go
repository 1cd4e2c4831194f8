package image

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"chrysalis/measure"
	"chrysalis/tools/internal/lock"
)

// TestMissingPackageStopsTheBuild asks for a package that is nowhere, under each rule for relocking.
func TestMissingPackageStopsTheBuild(t *testing.T) {
	source := t.TempDir()
	if err := os.Mkdir(filepath.Join(source, "image"), 0o755); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(sourceTree, "image", "engine.lock"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(source, "image", "engine.lock"), data, 0o644); err != nil {
		t.Fatal(err)
	}
	b := &Builder{Source: source, Work: t.TempDir(), Places: lock.Places{Cache: t.TempDir(), Store: t.TempDir()}}
	_, err = b.packages(t.Context(), "engine")
	var missing *lock.MissingError
	if !errors.As(err, &missing) || len(missing.Missing) == 0 || len(b.relocked) != 0 {
		t.Fatalf("got error %v and relocked %q, want a MissingError and none", err, b.relocked)
	}
	l, err := readLock(b.lockFile("engine"))
	if err != nil {
		t.Fatal(err)
	}
	if len(missing.Missing) != len(l.Packages) {
		t.Errorf("%d packages listed, want all %d", len(missing.Missing), len(l.Packages))
	}
	// An earlier run with RELOCK=auto left a lock whose packages are there: it is used, and the result says so.
	b.Relock, b.decided = RelockAuto, nil
	fresh := l
	fresh.Packages = nil
	if err := os.Mkdir(filepath.Dir(b.freshLockFile("engine")), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b.freshLockFile("engine"), fresh.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := b.packages(t.Context(), "engine"); err != nil || !slices.Equal(b.relocked, []string{"engine"}) {
		t.Errorf("RELOCK=auto: got error %v and relocked %q, want the fresh lock of engine", err, b.relocked)
	}
	if got := b.lockState("engine"); got != measure.LockUnreleased {
		t.Errorf("state of the engine lock: got %q, want %q", got, measure.LockUnreleased)
	}
	if got := b.lockState("tools", "image"); got != measure.LockReleased {
		t.Errorf("state of the other locks: got %q, want %q", got, measure.LockReleased)
	}
	// RELOCK=1 resolves in any case, and without a mirror says what to set.
	b.Relock, b.decided = RelockAlways, nil
	if _, err := b.packages(t.Context(), "engine"); !errors.Is(err, lock.ErrNoMirror) {
		t.Errorf("RELOCK=1 without a mirror: got error %v, want %v", err, lock.ErrNoMirror)
	}
}

// TestOneBuildAtATime lets a second builder want the work folder of a first one.
func TestOneBuildAtATime(t *testing.T) {
	work := t.TempDir()
	first, second := Builder{Work: work}, Builder{Work: work}
	if err := first.own(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := second.own(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while another owns the folder: got error %v, want %v", err, context.DeadlineExceeded)
	}
	if err := first.owned.Close(); err != nil {
		t.Fatal(err)
	}
	if err := second.own(t.Context()); err != nil {
		t.Errorf("after the other has ended: %v", err)
	}
}
