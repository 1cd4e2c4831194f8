package toolstree

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Entry says what a command inside the tree sees besides the tree.
type Entry struct {
	// Binds maps a name to a folder of the machine; it appears, writable, as /mnt/NAME.
	Binds map[string]string
	// Dir is the working directory inside the tree; "" is /.
	Dir string
	// Env is added to a fixed environment (PATH, HOME, LC_ALL=C.UTF-8); nothing is inherited.
	Env []string
}

var bindName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)

// Enter returns a command whose root is the tree, in a private mount namespace: the tree read-only, /proc, /sys and /dev of
// the machine, empty /run, /tmp, /var/tmp and /root, the binds below /mnt, umask 022. It needs root.
//
// The root is changed with pivot_root because mkosi's own sandbox needs a root that is a mount point.
func (t Tree) Enter(ctx context.Context, e Entry, argv ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", enterScript, "enter")
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "R=" + t.root}
	if os.Geteuid() != 0 {
		cmd.Err = fmt.Errorf("entering the tools tree: running as user %d, want root (use sudo)", os.Geteuid())
		return cmd
	}
	names := slices.Sorted(maps.Keys(e.Binds))
	for _, name := range names {
		dir, err := filepath.Abs(e.Binds[name])
		if err == nil && !bindName.MatchString(name) {
			err = fmt.Errorf("bind name %q, want %s", name, bindName)
		}
		if err != nil {
			cmd.Err = fmt.Errorf("entering the tools tree: %w", err)
			return cmd
		}
		cmd.Args = append(cmd.Args, name, dir)
	}
	dir := e.Dir
	if dir == "" {
		dir = "/"
	}
	cmd.Args = append(cmd.Args, "--", "env", "-i", "-C", dir, "HOME=/root", "TERM=dumb", "LC_ALL=C.UTF-8",
		"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONDONTWRITEBYTECODE=1")
	cmd.Args = append(cmd.Args, e.Env...)
	cmd.Args = append(cmd.Args, argv...)
	// Go makes every mount of the new namespace private before the exec, so nothing below leaks out.
	cmd.SysProcAttr = OwnMounts()
	return cmd
}

var enterScript = strings.TrimSpace(`
set -eu
umask 022
mount --bind "$R" "$R"
mount --rbind /proc "$R/proc"
mount --rbind /sys "$R/sys"
mount --rbind /dev "$R/dev"
for d in run tmp var/tmp root mnt; do mount -t tmpfs -o mode=0755 tmpfs "$R/$d"; done
chmod 1777 "$R/tmp" "$R/var/tmp"
while [ "$1" != -- ]; do
	mkdir "$R/mnt/$1"
	mount --bind "$2" "$R/mnt/$1"
	shift 2
done
shift
mount -o remount,bind,ro "$R"
mkdir "$R/mnt/old"
cd "$R"
pivot_root . mnt/old
umount -l /mnt/old
rmdir /mnt/old
exec "$@"
`)
