package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"

	"chrysalis/tools/internal/lock"
	"chrysalis/tools/internal/toolstree"
)

// epoch is the SOURCE_DATE_EPOCH of whatever records a time despite everything.
const epoch = "SOURCE_DATE_EPOCH=1790000000"

// stamp is the file that names the lock a tools tree was built from, beside the tree.
const stamp = "tools-tree.lock"

// unpackTools is the step that makes the tools tree.
const unpackTools = "unpack tools tree"

// Tools returns the tools tree of the tools lock, building it if the one in the work folder is of another lock.
func (b *Builder) Tools(ctx context.Context) (toolstree.Tree, error) {
	t, err := b.tools(ctx)
	if err != nil {
		return toolstree.Tree{}, fmt.Errorf("building tools tree: %w", err)
	}
	return t, nil
}

func (b *Builder) tools(ctx context.Context) (toolstree.Tree, error) {
	if err := b.own(ctx); err != nil {
		return toolstree.Tree{}, err
	}
	root := filepath.Join(b.Work, "tools-tree")
	// A tree of the released lock needs no packages any more, so it works offline and after a mirror has dropped some.
	if released, err := readLock(b.lockFile("tools")); err != nil {
		return toolstree.Tree{}, err
	} else if b.Relock != RelockAlways && b.stamped(released) {
		if b.toolsLock.Name == "" {
			b.Progress.Step("fetch tools packages", 0).Done("unchanged")
			b.Progress.Step(unpackTools, 0).Done("unchanged")
		}
		b.toolsLock = released
		if err := b.forgetFresh("tools"); err != nil {
			return toolstree.Tree{}, err
		}
		return toolstree.Open(root)
	}
	l, err := b.packages(ctx, "tools")
	if err != nil {
		return toolstree.Tree{}, err
	}
	b.toolsLock = l
	if b.stamped(l) {
		return toolstree.Open(root)
	}
	if os.Geteuid() != 0 {
		return toolstree.Tree{}, fmt.Errorf("running as user %d, want root: run it with sudo", os.Geteuid())
	}
	if err := errors.Join(os.Remove(filepath.Join(b.Work, stamp)), os.RemoveAll(root)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return toolstree.Tree{}, err
	}
	if err := b.unpackTools(ctx, l, root); err != nil {
		return toolstree.Tree{}, err
	}
	if err := os.WriteFile(filepath.Join(b.Work, stamp), toolsStamp(l), 0o644); err != nil {
		return toolstree.Tree{}, err
	}
	return toolstree.Open(root)
}

func (b *Builder) stamped(l lock.Lock) bool {
	got, err := os.ReadFile(filepath.Join(b.Work, stamp))
	return err == nil && bytes.Equal(got, toolsStamp(l))
}

// toolsStamp is what the stamp says: how the tree came to be, and of which packages.
func toolsStamp(l lock.Lock) []byte { return fmt.Appendf(nil, "unpacked 2 %x\n", l.Digest()) }

// unpackTools makes the tools tree: the files of its packages, and what a root has before the first of them. No script of a package runs,
// so nothing of the machine gets in but its dpkg-deb, and nothing of the tree gets out. What such scripts would make, alternatives and
// caches, no tool here is called by.
func (b *Builder) unpackTools(ctx context.Context, l lock.Lock, root string) (err error) {
	var total int64
	for _, p := range l.Packages {
		total += p.Size
	}
	step := b.Progress.Step(unpackTools, total)
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(root))
		}
	}()
	// Debian's packages have had one tree of programs and libraries for long, and some still name the other.
	for _, name := range []string{"bin", "sbin", "lib", "lib64"} {
		if err := os.MkdirAll(filepath.Join(root, "usr", name), 0o755); err != nil {
			return err
		}
		if err := os.Symlink("usr/"+name, filepath.Join(root, name)); err != nil {
			return err
		}
	}
	for _, p := range l.Packages {
		if err := runQuiet(withUmask(exec.CommandContext(ctx, "dpkg-deb", "-x", b.Places.Cached(p), root))); err != nil {
			return fmt.Errorf("unpacking %s: %w", p.Name, err)
		}
		step.Add(p.Size)
	}
	for _, name := range []string{"passwd", "group"} {
		if err := copyFile(filepath.Join(root, "usr/share/base-passwd", name+".master"), filepath.Join(root, "etc", name)); err != nil {
			return err
		}
	}
	for _, name := range []string{"mnt", "tmp", "var/tmp", "root", "run", "proc", "sys", "dev"} { // where Enter mounts
		if err := os.MkdirAll(filepath.Join(root, name), 0o755); err != nil {
			return err
		}
	}
	// Two folders of base-files are links once its script has run, and programs of before /run write there.
	for name, to := range map[string]string{"run": "/run", "lock": "/run/lock"} {
		path := filepath.Join(root, "var", name)
		if err := os.Remove(path); err != nil {
			return err
		}
		if err := os.Symlink(to, path); err != nil {
			return err
		}
	}
	step.Done(fmt.Sprintf("%d packages", len(l.Packages)))
	return nil
}
