package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"chrysalis/tools/internal/lock"
	"chrysalis/tools/internal/toolstree"
)

// epoch is the SOURCE_DATE_EPOCH of whatever records a time despite everything.
const epoch = "SOURCE_DATE_EPOCH=1790000000"

// stamp is the file that names the lock a tools tree was built from, beside the tree.
const stamp = "tools-tree.lock"

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
	if err := b.installHostTool(ctx, "mmdebstrap"); err != nil {
		return toolstree.Tree{}, err
	}
	if err := errors.Join(os.Remove(filepath.Join(b.Work, stamp)), os.RemoveAll(root)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return toolstree.Tree{}, err
	}
	if err := b.mmdebstrap(ctx, l, root); err != nil {
		return toolstree.Tree{}, err
	}
	if err := os.WriteFile(filepath.Join(b.Work, stamp), fmt.Appendf(nil, "%x\n", l.Digest()), 0o644); err != nil {
		return toolstree.Tree{}, err
	}
	return toolstree.Open(root)
}

func (b *Builder) stamped(l lock.Lock) bool {
	got, err := os.ReadFile(filepath.Join(b.Work, stamp))
	return err == nil && string(got) == fmt.Sprintf("%x\n", l.Digest())
}

func (b *Builder) mmdebstrap(ctx context.Context, l lock.Lock, root string) error {
	step := b.Progress.Step("build tools tree", 0)
	repo, err := os.MkdirTemp(b.Work, ".repository-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(repo)
	// apt reads the repository as another user.
	if err := os.Chmod(repo, 0o755); err != nil {
		return err
	}
	if err := l.WriteRepository(repo, b.Places.Cached); err != nil {
		return err
	}
	var include []string
	for _, p := range l.Packages {
		include = append(include, p.Name)
	}
	cmd := exec.CommandContext(ctx, "mmdebstrap", "--quiet", "--variant=apt", "--mode=root", "--skip=check/empty", "--dpkgopt=force-unsafe-io",
		"--architectures=amd64", `--aptopt=APT::Sandbox::User "root"`, `--aptopt=Apt::Install-Recommends "false"`,
		"--include="+strings.Join(include, ","),
		lock.Suite, root, "deb [trusted=yes] copy://"+(&url.URL{Path: repo}).EscapedPath()+" "+lock.Suite+" main")
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8",
		"DEBIAN_FRONTEND=noninteractive", epoch}
	// What it mounts below the tree must vanish with it even if it is killed, for the tree is removed then.
	cmd.SysProcAttr = toolstree.OwnMounts()
	if err := runQuiet(withUmask(cmd)); err != nil {
		return errors.Join(err, os.RemoveAll(root))
	}
	step.Done(fmt.Sprintf("%d packages", len(l.Packages)))
	return nil
}

// installHostTool makes sure that the machine has the program, which is named like its package.
func (b *Builder) installHostTool(ctx context.Context, program string) error {
	if _, err := exec.LookPath(program); err == nil {
		return nil
	}
	b.Progress.Note("%s is missing: running apt-get install %s", program, program)
	for _, args := range [][]string{{"update"}, {"install", "--yes", "--no-install-recommends", program}} {
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C")
		if err := runQuiet(cmd); err != nil {
			return fmt.Errorf("installing %s: %w", program, err)
		}
	}
	return nil
}
